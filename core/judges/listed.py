"""From what a job orders to judges that judge: the server's list is looked up, models are shared and let go of.

Covers: what can be said against an order before the job starts. Not here: any kind of judge.
"""

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import assert_never

import torch

from core.errors import InvalidInput
from core.judges.asks import Asks, Beat
from core.judges.cache import JudgementCache
from core.judges.classifier import SLOTS, Classifier
from core.judges.endpoint import Endpoint
from core.judges.interface import Judge
from core.judges.local import Local
from core.judges.model import ModelJudge, Way
from core.judges.offline import Rules
from core.judges.rubric import RUBRIC
from core.judges.strongreject import STRONGREJECT
from core.schemas.judges import (
    ClassifierJudge,
    EndpointSource,
    JudgeEntry,
    RubricJudge,
    RulesJudge,
    StrongRejectJudge,
)
from core.schemas.judges import Judge as Ordered
from core.schemas.models import FolderSource, HubSource


def nothing() -> None:
    """A beat that nobody waits for."""


@contextmanager
def opened(
    ordered: Sequence[Ordered], entries: Mapping[str, JudgeEntry], *, cache: JudgementCache | None, device: torch.device
) -> Generator[tuple[Judge, ...]]:
    """The judges of a job. A local model is loaded when it is first asked, once for all judges that ask it, and freed
    at the end. Where none of them can tell refusals, the rules are added for safe look-alikes alone.

    Raises:
        InvalidInput: code `unknown_judge` or `judge_protocol_mismatch`.
    """
    models: dict[str, Asks] = {}
    with ExitStack() as stack:
        judges: list[Judge] = []
        for each in ordered:
            if isinstance(each, RulesJudge):
                judges.append(Rules(each.label))
                continue
            entry = _entry(each, entries)
            if entry.name not in models:
                models[entry.name] = _model(entry, device)
                stack.callback(models[entry.name].close)
            judges.append(ModelJudge(each.label, _way(each, entry), models[entry.name], cache))
        if not any(judge.knows(True) for judge in judges):
            judges.append(Rules(only_safe=True))
        yield tuple(judges)


def check(ordered: Iterable[Ordered], entries: Mapping[str, JudgeEntry], *, beat: Beat = nothing) -> None:
    """Say before a job starts what would stop its judges. Each endpoint is asked something tiny.

    Raises:
        InvalidInput: code `unknown_judge` or `judge_protocol_mismatch`.
        InvalidModel: code `model_missing`, `unsafe_checkpoint` or `remote_code`, of a local folder.
        Unavailable: code `judge_key_missing` or `judge_unavailable`.
    """
    named = [_entry(each, entries) for each in ordered if not isinstance(each, RulesJudge)]
    for entry in {entry.name: entry for entry in named}.values():
        if isinstance(entry.source, EndpointSource):
            Endpoint(entry.name, entry.source).check(beat, raw=entry.template is not None)
        elif isinstance(entry.source, FolderSource):
            Local(entry, entry.source, torch.device("cpu")).check()


def _entry(each: RubricJudge | StrongRejectJudge | ClassifierJudge, entries: Mapping[str, JudgeEntry]) -> JudgeEntry:
    entry = entries.get(each.model)
    if entry is None:
        known = f"It has: {', '.join(sorted(entries))}." if entries else "It has none: only the judge rules needs none."
        raise InvalidInput(
            f"{each.model!r} is not in this server's list of judge models. {known}",
            code="unknown_judge",
            param="security.judges",
        )
    if problem := _mismatch(each, entry):
        raise InvalidInput(problem, code="judge_protocol_mismatch", param="security.judges")
    return entry


def _mismatch(each: RubricJudge | StrongRejectJudge | ClassifierJudge, entry: JudgeEntry) -> str | None:
    chats = entry.protocol == "chat"
    if chats == isinstance(each, ClassifierJudge):
        wanted = "a classifier" if isinstance(each, ClassifierJudge) else "a chat model"
        return (
            f"The judge {each.kind} needs {wanted}, and {entry.name!r} is listed with the protocol {entry.protocol}: "
            "name another judge model."
        )
    if chats and entry.template is not None:
        return f"The judge model {entry.name!r} is a chat model, which takes no template: take it out of the list."
    if entry.template is not None and any(slot not in entry.template for slot in SLOTS):
        return f"The template of the judge model {entry.name!r} must have {' and '.join(SLOTS)} in it."
    return None


def _way(each: RubricJudge | StrongRejectJudge | ClassifierJudge, entry: JudgeEntry) -> Way:
    match each:
        case RubricJudge():
            return RUBRIC
        case StrongRejectJudge():
            return STRONGREJECT
        case ClassifierJudge():
            return Classifier(entry.protocol, entry.template)
        case _:
            assert_never(each)


def _model(entry: JudgeEntry, device: torch.device) -> Asks:
    match entry.source:
        case EndpointSource() as source:
            return Endpoint(entry.name, source)
        case FolderSource() | HubSource() as source:
            return Local(entry, source, device)
        case _:
            assert_never(entry.source)
