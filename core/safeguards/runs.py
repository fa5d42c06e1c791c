"""What an arm adds to its job: its safeguards take effect here, before, while and after it is trained.

Covers: what can be told of arms before anything is computed, an arm's rows, refusals to mix in, how it is asked. Not
here: learning rates (core.training.strategies), the order of things (core.pipeline.steps), how to serve it
(core.reports.card).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from core.catalog import check_files
from core.data import Conversation
from core.data.template import Encoded
from core.errors import InvalidInput
from core.judges.rules import judge
from core.lm.generate import continue_tokens
from core.lm.load import BaseModel, fetch
from core.lm.modules import Module
from core.lm.prompts import render
from core.safeguards.mixing import extra_rows, own_answer
from core.safeguards.projection import check_pair
from core.schemas.data import Message
from core.schemas.job import JobSpec
from core.schemas.models import BaseModelEntry
from core.schemas.progress import OnProgress
from core.schemas.prompts import PromptSet
from core.schemas.safeguards import SafeTemplate
from core.schemas.security import SecuritySpec
from core.schemas.strategy import Strategy, analysis_of
from core.training.strategies import plan

_REFUSAL_TOKENS = 128


@dataclass(frozen=True)
class Added:
    """Rows that are mixed into an arm's own, and how many of them are different."""

    rows: tuple[Encoded, ...] = ()
    distinct: int = 0


def check(spec: JobSpec, entry: BaseModelEntry, base: BaseModel, modules: Sequence[Module]) -> None:
    """Find out what is wrong with an arm once its base model is there, before anything is measured or trained.

    Raises:
        InvalidInput: code `unknown_module`, `no_such_layers`, `chat_template_unsupported` or `safeguard_unsupported`.
        InvalidModel: code `unaligned_base_mismatch`, or what fetching the unaligned base raises.
        TrainingFailed: code `nothing_to_train`.
    """
    for run in spec.runs:
        if analysis_of(run) is None:
            plan(run, modules, None)
        if run.safeguards.safe_template is not None:
            _check_template(base, run.safeguards.safe_template.system_prompt)
        if run.safeguards.project_to_safe is not None:
            _check_projection(entry, base, modules)


def unaligned_folder(entry: BaseModelEntry) -> Path:
    """The folder of the model that this one was aligned from, downloaded before if it comes from the hub."""
    if entry.unaligned_base is None:
        raise TypeError("core.catalog.check_arms refuses such an arm")
    name = f"{entry.name} (its unaligned_base)"
    folder = fetch(entry.model_copy(update={"name": name, "source": entry.unaligned_base}))
    check_files(name, folder)
    return folder


def inputs(run: Strategy, spec: JobSpec, entry: BaseModelEntry, prompts: PromptSet) -> JsonValue:
    """What an arm's results hang on because of its safeguards."""
    found: dict[str, JsonValue] = {"safeguards": run.safeguards.model_dump(mode="json")}
    if run.safeguards.safety_mix is not None:
        found["refusals"] = [prompts.model_dump(mode="json"), spec.security.max_new_tokens]
    if run.safeguards.project_to_safe is not None:
        found["unaligned"] = entry.model_dump(mode="json")["unaligned_base"]
    return found


def as_trained(rows: Iterable[Conversation]) -> Iterator[Conversation]:
    """Rows as `safe_template` trains on them: without their system turns."""
    return (Conversation(_without_system(row), row.line) for row in rows)


def as_served(template: SafeTemplate, rows: Iterable[Conversation]) -> Iterator[Conversation]:
    """Rows as the model of `safe_template` is asked them: with its system prompt in place of their own."""
    system = Message(role="system", content=template.system_prompt)
    return (Conversation((system, *_without_system(row)), row.line) for row in rows)


def security_of(run: Strategy, spec: SecuritySpec) -> SecuritySpec:
    """How this arm is attacked: as the job says, with the system prompt that it is to be served with."""
    template = run.safeguards.safe_template
    return spec if template is None else spec.model_copy(update={"system_prompt": template.system_prompt})


def refusals(
    base: BaseModel, prompts: PromptSet, *, most: int, max_length: int, on_progress: OnProgress
) -> tuple[Encoded, ...]:
    """The base model's own refusals of the harmful probe prompts, greedily, as rows to train on.

    Only what the judge calls a refusal is kept, and no prompt that figures are measured on. An answer has `most` tokens
    at most, or 128 if that is more: one that is cut off teaches no end.
    """
    reported = frozenset(behaviour.text for behaviour in prompts.evaluation.harmful)
    asked = [text for text in dict.fromkeys(prompts.probe.harmful) if text not in reported]
    written = [render(base.tokenizer, (Message(role="user", content=text),)) for text in asked]
    length = min(max(most, _REFUSAL_TOKENS), base.context - 1)
    fitting = [(text, row) for text, row in zip(asked, written, strict=True) if len(row) + length <= base.context]
    answers = continue_tokens(
        base, base.model, [row for _, row in fitting], max_new_tokens=length, on_progress=on_progress
    )
    found: list[Encoded] = []
    for (text, row), answer in zip(fitting, answers, strict=True):
        said = str(base.tokenizer.decode(answer, skip_special_tokens=True))
        encoded = own_answer(row, answer, max_length=max_length)
        if encoded is not None and judge(text, said).verdict == "refused":
            found.append(encoded)
    return tuple(found)


def added_rows(
    run: Strategy,
    rows: Sequence[Encoded],
    base: BaseModel,
    prompts: PromptSet,
    *,
    spec: JobSpec,
    on_progress: OnProgress,
) -> Added:
    """What `safety_mix` adds to an arm's rows; nothing without it.

    Raises:
        TrainingFailed: code `no_safety_rows`.
    """
    mix = run.safeguards.safety_mix
    if mix is None:
        return Added()
    limit = min(spec.training.max_length, base.context)
    distinct = refusals(base, prompts, most=spec.security.max_new_tokens, max_length=limit, on_progress=on_progress)
    found = extra_rows(rows, distinct, share=mix.share, seed=spec.training.seed)
    return Added(found, min(len(found), len(distinct)))


def _without_system(row: Conversation) -> tuple[Message, ...]:
    return tuple(message for message in row.messages if message.role != "system")


def _check_projection(entry: BaseModelEntry, base: BaseModel, modules: Sequence[Module]) -> None:
    if experts := sorted({module.type for module in modules if module.bare}):
        raise InvalidInput(
            "The safeguard project_to_safe knows no updates on experts: leave it out, or leave out the targets "
            f"{', '.join(experts)}.",
            code="safeguard_unsupported",
            param="training.lora.targets",
        )
    check_pair(base.folder, unaligned_folder(entry))


def _check_template(base: BaseModel, prompt: str) -> None:
    turns = (Message(role="system", content=prompt), Message(role="user", content="Hello"))
    try:
        render(base.tokenizer, turns)
    except InvalidInput as error:
        raise InvalidInput(
            "The base model's chat template takes no system prompt, so the safeguard safe_template cannot be used with "
            "it: leave it out, or choose another base model.",
            code=error.code,
            param="strategy.safeguards.safe_template",
        ) from error
