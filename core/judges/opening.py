"""The judges of a job: registered kinds, opened for as long as they judge, and checked before the job starts.

Not here: any kind of judge.
"""

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from core.judges import classifier, rubric, rules, strongreject
from core.judges.cache import JudgementCache
from core.judges.interface import Judge
from core.judges.kind import JudgeKind, Models, find_entry, open_endpoint
from core.judges.local import LocalModel
from core.judges.model import Heartbeat
from core.schemas.judges import JUDGES, EndpointSource, JudgeEntry, JudgeOptions, ModelJudgeOptions, RulesJudge
from core.schemas.models import FolderSource, GgufSource

_KINDS: dict[type[JudgeOptions], JudgeKind[Any]] = {}


def register(kind: JudgeKind[Any]) -> None:
    """Accept a kind of judge in requests and open it for jobs.

    Raises:
        ValueError: another kind has this name already.
    """
    JUDGES.register(kind.options)
    _KINDS[kind.options] = kind


def unregister(kind: JudgeKind[Any]) -> None:
    """Stop accepting a kind of judge. For tests, which must leave the process as they found it."""
    JUDGES.unregister(kind.options)
    del _KINDS[kind.options]


# The rules read refusals in many places, some without torch, so their own file knows no judge models.
RULES = JudgeKind(RulesJudge, lambda options, _models: rules.rules_judge(options.label))
for _kind in (RULES, rubric.KIND, strongreject.KIND, classifier.KIND):
    register(_kind)


@contextmanager
def open_judges(
    ordered: Sequence[JudgeOptions],
    entries: Mapping[str, JudgeEntry],
    *,
    cache: JudgementCache | None,
    device: torch.device,
) -> Generator[tuple[Judge, ...]]:
    """Open the judges of a job, and free their models at the end.

    If none of them accepts safe look-alikes, the rules are added for these alone.

    Raises:
        InvalidInput: code `unknown_judge` or `judge_protocol_mismatch`.
    """
    with ExitStack() as stack:
        models = Models(entries, cache, device, stack)
        judges = [_KINDS[type(options)].open(options, models) for options in ordered]
        if not any(judge.accepts(True) for judge in judges):
            judges.append(rules.rules_judge(only_safe=True))
        yield tuple(judges)


def check_judges(
    ordered: Iterable[JudgeOptions], entries: Mapping[str, JudgeEntry], *, heartbeat: Heartbeat = lambda: None
) -> None:
    """Check before a job starts that its judges can judge: endpoints answer, and local models are complete.

    Raises:
        InvalidInput: code `unknown_judge` or `judge_protocol_mismatch`.
        InvalidModel: code `model_missing`, `unsafe_checkpoint` or `remote_code`, of a local folder.
        Unavailable: code `judge_key_missing` or `judge_unavailable`.
    """
    named = [find_entry(each, entries) for each in ordered if isinstance(each, ModelJudgeOptions)]
    for entry in {entry.name: entry for entry in named}.values():
        if isinstance(entry.source, EndpointSource):
            open_endpoint(entry.name, entry.source).check(heartbeat, raw=entry.template is not None)
        elif isinstance(entry.source, FolderSource | GgufSource):
            LocalModel(entry, entry.source, torch.device("cpu")).check()
