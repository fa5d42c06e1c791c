"""The prompt set of a job: the sets that it names, the base model's own set, or the built-in one.

Covers: choosing a set, identifying it, cutting it to `max_prompts` with all categories, keeping probe prompts apart
from reported ones, finding reported prompts in training rows.
Not here: attacks (core.attacks.families), layouts of published sets (core.data.promptsets).
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from itertools import chain, zip_longest
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from core.errors import InvalidModel
from core.schemas.measure import PromptsUsed
from core.schemas.prompts import FEWEST_PROBES, Behaviour, EvaluationPrompts, ProbePrompts, PromptSet, Use
from core.schemas.security import SecuritySpec

_FILE = "security_prompts.json"
_BUILTIN = Path(__file__).parent / "builtin_prompts.json"

NamedPromptSets = Mapping[Use, tuple[str, tuple[Behaviour, ...]]]
"""Name and prompts of the sets that a job names, by use."""


def choose_prompts(spec: SecuritySpec, model_folder: Path, named: NamedPromptSets | None = None) -> PromptSet:
    """Choose the prompt set of a job and cut it to `max_prompts`.

    Sets that the job names replace the reported prompts. Probe prompts come from the base model's own set or from the
    built-in one, without the reported prompts.

    Raises:
        InvalidModel: code `invalid_prompt_set`; the set beside the model cannot be read, is too small or uses a prompt
            twice; or a set that the job names leaves too few probe prompts.
    """
    whole = _load_whole(spec, model_folder, named)
    return whole.model_copy(
        update={
            "evaluation": EvaluationPrompts(
                harmful=take_balanced(whole.evaluation.harmful, spec.max_prompts),
                safe=take_balanced(whole.evaluation.safe, spec.max_prompts),
            )
        }
    )


def identify_prompts(
    spec: SecuritySpec, model_folder: Path, named: NamedPromptSets | None = None
) -> dict[Use, PromptsUsed]:
    """Identify the reported sets of `choose_prompts` before they are cut, by use. Raises what that raises."""
    used = _load_whole(spec, model_folder, named).evaluation
    automatic = _load_whole(spec.model_copy(update={"prompts": "auto"}), model_folder, None).evaluation
    pairs: dict[Use, tuple[Sequence[Behaviour], Sequence[Behaviour]]] = {
        "harmful": (used.harmful, automatic.harmful),
        "safe": (used.safe, automatic.safe),
    }
    return {
        use: PromptsUsed(sha256=(own := digest_prompts(ours)), size=len(ours), automatic=own == digest_prompts(auto))
        for use, (ours, auto) in pairs.items()
    }


def digest_prompts(behaviours: Sequence[Behaviour]) -> str:
    """SHA-256, in hex, over text, category and context of every prompt. The order counts: it decides what is cut."""
    parts = [[each.text, each.category, each.context] for each in behaviours]
    return sha256(json.dumps(parts).encode()).hexdigest()


def find_trained_on(behaviours: Sequence[Behaviour], texts: Iterable[str]) -> int:
    """Count the prompts that occur in training texts, whatever their case and white space."""
    trained = "\n".join(map(_normalize, texts))
    return sum(_normalize(each.text) in trained for each in behaviours)


def _normalize(text: str) -> str:
    return " ".join(text.casefold().split())


def take_balanced(behaviours: Sequence[Behaviour], count: int) -> tuple[Behaviour, ...]:
    """Take `count` behaviours, one of each category in turn: published sets are sorted by category."""
    if len(behaviours) <= count:
        return tuple(behaviours)
    groups: dict[str | None, list[Behaviour]] = {}
    for behaviour in behaviours:
        groups.setdefault(behaviour.category, []).append(behaviour)
    turns = chain.from_iterable(zip_longest(*groups.values()))
    return tuple(behaviour for behaviour in turns if behaviour is not None)[:count]


def _load_whole(spec: SecuritySpec, model_folder: Path, named: NamedPromptSets | None) -> PromptSet:
    own = model_folder / _FILE
    path = own if spec.prompts != "builtin" and own.is_file() else _BUILTIN
    try:
        whole = PromptSet.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise _invalid(path.name, "; ".join(map(_describe, error.errors()))) from error
    if fault := _check_classes(whole.probe) or _check_halves(whole):
        raise _invalid(path.name, fault)
    for use, (name, behaviours) in (named or {}).items():
        whole = _replace_use(whole, use, name, behaviours)
    return whole


def _replace_use(whole: PromptSet, use: Use, name: str, behaviours: tuple[Behaviour, ...]) -> PromptSet:
    """Replace the reported prompts of one use, and remove them from the probe prompts."""
    evaluation = whole.evaluation.model_copy(update={use: behaviours})
    reported = {behaviour.text for behaviour in behaviours}
    probe = ProbePrompts.model_construct(
        harmful=tuple(text for text in whole.probe.harmful if text not in reported),
        benign=tuple(text for text in whole.probe.benign if text not in reported),
        safe=tuple(text for text in whole.probe.safe if text not in reported),
    )
    if fault := _check_classes(probe):
        raise InvalidModel(
            f"Prompt set {name!r} shares too many prompts with those that the analysis probes the model with, and "
            f"figures must not use them: {fault}. Choose another set, or set security.prompts to auto.",
            code="invalid_prompt_set",
            param="security.prompts",
        )
    return PromptSet(name=f"{whole.name}, {use}: {name}", evaluation=evaluation, probe=probe)


def _check_classes(probe: ProbePrompts) -> str | None:
    """Find too few different probe prompts, or one prompt in both classes."""
    classes = {"probe.harmful": frozenset(probe.harmful), "probe.benign": frozenset(probe.benign)}
    for name, texts in classes.items():
        if len(texts) < FEWEST_PROBES:
            return f"{name} has only {len(texts)} different prompts, and {FEWEST_PROBES} are needed"
    if both := classes["probe.harmful"] & classes["probe.benign"]:
        return (
            f"{len(both)} prompts, such as {min(both)!r}, are in probe.harmful and in probe.benign: the analysis needs "
            "two classes"
        )
    return None


def _check_halves(prompts: PromptSet) -> str | None:
    """Find prompts that are both probed and reported."""
    reported = {behaviour.text for behaviour in (*prompts.evaluation.harmful, *prompts.evaluation.safe)}
    if both := reported & {*prompts.probe.harmful, *prompts.probe.benign, *prompts.probe.safe}:
        return (
            f"{len(both)} prompts, such as {min(both)!r}, are in both halves: prompts for analysis and training "
            "must not be used for figures"
        )
    return None


def _describe(error: ErrorDetails) -> str:
    place = ".".join(str(part) for part in error["loc"])
    return f"{place}: {error['msg']}" if place else error["msg"]


def _invalid(name: str, why: str) -> InvalidModel:
    return InvalidModel(
        f"{name} beside the base model is not a valid prompt set: {why}. Correct it, or set security.prompts to "
        "builtin.",
        code="invalid_prompt_set",
        param="security.prompts",
    )
