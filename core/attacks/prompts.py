"""Where a job's attack prompts come from: sets that it names, the base model's own set, or the built-in one.

Covers: choosing, cutting to `max_prompts` with all categories kept, keeping what is analysed apart from what is
reported. Not here: attack templates (core.attacks.templates), layouts of published sets (core.data.promptsets).
"""

from collections.abc import Mapping, Sequence
from itertools import chain, zip_longest
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from core.errors import InvalidModel
from core.schemas.prompts import FEWEST_PROBES, Behaviour, EvaluationPrompts, ProbePrompts, PromptSet, Use
from core.schemas.security import SecuritySpec

_FILE = "security_prompts.json"
_BUILTIN = Path(__file__).parent / "builtin_prompts.json"

NamedPromptSets = Mapping[Use, tuple[str, tuple[Behaviour, ...]]]
"""Sets that the job names, by what they are used for: name and prompts."""


def choose(spec: SecuritySpec, model_folder: Path, brought: NamedPromptSets | None = None) -> PromptSet:
    """The prompt set of a job, cut to its `max_prompts`.

    Sets that the job names take the place of the reported prompts. What is analysed is the base model's own or the
    built-in half, without what is reported.

    Raises:
        InvalidModel: code `invalid_prompt_set`; the set beside the model cannot be read, is too small, or has a prompt
            in two places where it tells nothing; or a set that the job names leaves too little to analyse with.
    """
    own = model_folder / _FILE
    path = own if spec.prompts != "builtin" and own.is_file() else _BUILTIN
    try:
        whole = PromptSet.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise _refused(path.name, "; ".join(map(_in_words, error.errors()))) from error
    if fault := _two_classes(whole.probe) or _seen(whole):
        raise _refused(path.name, fault)
    for use, (name, behaviours) in (brought or {}).items():
        whole = _with(whole, use, name, behaviours)
    return whole.model_copy(
        update={
            "evaluation": EvaluationPrompts(
                harmful=first(whole.evaluation.harmful, spec.max_prompts),
                safe=first(whole.evaluation.safe, spec.max_prompts),
            )
        }
    )


def first(behaviours: Sequence[Behaviour], most: int) -> tuple[Behaviour, ...]:
    """The first ones, a category at a time in turn where more are there than wanted: published sets go by category."""
    if len(behaviours) <= most:
        return tuple(behaviours)
    groups: dict[str | None, list[Behaviour]] = {}
    for behaviour in behaviours:
        groups.setdefault(behaviour.category, []).append(behaviour)
    turns = chain.from_iterable(zip_longest(*groups.values()))
    return tuple(behaviour for behaviour in turns if behaviour is not None)[:most]


def _with(whole: PromptSet, use: Use, name: str, behaviours: tuple[Behaviour, ...]) -> PromptSet:
    """The set with its prompts of one use replaced, and what is reported now taken out of what is analysed."""
    evaluation = whole.evaluation.model_copy(update={use: behaviours})
    reported = {behaviour.text for behaviour in behaviours}
    probe = ProbePrompts.model_construct(
        harmful=tuple(text for text in whole.probe.harmful if text not in reported),
        benign=tuple(text for text in whole.probe.benign if text not in reported),
        safe=tuple(text for text in whole.probe.safe if text not in reported),
    )
    if fault := _two_classes(probe):
        raise InvalidModel(
            f"Prompt set {name!r} holds too many of the prompts that the analysis reads its security features from, "
            f"and what is analysed must not be reported: {fault}. Take another set, or set security.prompts to auto.",
            code="invalid_prompt_set",
            param="security.prompts",
        )
    return PromptSet(name=f"{whole.name}, {use}: {name}", evaluation=evaluation, probe=probe)


def _two_classes(probe: ProbePrompts) -> str | None:
    """What makes probe prompts useless: too few different ones, or one prompt in both classes."""
    classes = {"probe.harmful": frozenset(probe.harmful), "probe.benign": frozenset(probe.benign)}
    for name, texts in classes.items():
        if len(texts) < FEWEST_PROBES:
            return f"{name} has only {len(texts)} different prompts, and {FEWEST_PROBES} are needed"
    if both := classes["probe.harmful"] & classes["probe.benign"]:
        return (
            f"{len(both)} prompts, such as {min(both)!r}, stand in probe.harmful and in probe.benign: the analysis "
            "needs two classes"
        )
    return None


def _seen(prompts: PromptSet) -> str | None:
    """Prompts that are analysed and reported."""
    reported = {behaviour.text for behaviour in (*prompts.evaluation.harmful, *prompts.evaluation.safe)}
    if seen := reported & {*prompts.probe.harmful, *prompts.probe.benign, *prompts.probe.safe}:
        return (
            f"{len(seen)} prompts, such as {min(seen)!r}, stand in both halves: what is analysed or trained on must "
            "not be what is reported"
        )
    return None


def _in_words(error: ErrorDetails) -> str:
    place = ".".join(str(part) for part in error["loc"])
    return f"{place}: {error['msg']}" if place else error["msg"]


def _refused(name: str, why: str) -> InvalidModel:
    return InvalidModel(
        f"{name} beside the base model is not a valid prompt set: {why}. Correct it, or set security.prompts to "
        "builtin.",
        code="invalid_prompt_set",
        param="security.prompts",
    )
