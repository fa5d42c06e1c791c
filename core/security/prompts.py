"""Where a job's attack prompts come from: the base model's own set, or the built-in one.

Not here: attack templates (core.security.attacks).
"""

from pathlib import Path
from typing import assert_never

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from core.errors import InvalidModel
from core.spec.security import FEWEST_PROBES, EvaluationPrompts, ProbePrompts, PromptSet, SecuritySpec

_FILE = "security_prompts.json"
_BUILTIN = Path(__file__).parent / "builtin_prompts.json"


def choose(spec: SecuritySpec, model_folder: Path) -> PromptSet:
    """The prompt set of a job, cut to its `max_prompts`.

    Raises:
        InvalidModel: code `invalid_prompt_set`; the set beside the model cannot be read, is too small, or has a prompt
            in two places where it tells nothing.
    """
    own = model_folder / _FILE
    match spec.prompts:
        case "auto":
            path = own if own.is_file() else _BUILTIN
        case "builtin":
            path = _BUILTIN
        case _:
            assert_never(spec.prompts)
    try:
        whole = PromptSet.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise _refused(path.name, "; ".join(map(_in_words, error.errors()))) from error
    if fault := _fault(whole):
        raise _refused(path.name, fault)
    most = spec.max_prompts
    return PromptSet(
        name=whole.name,
        evaluation=EvaluationPrompts(harmful=whole.evaluation.harmful[:most], safe=whole.evaluation.safe[:most]),
        probe=ProbePrompts(harmful=whole.probe.harmful, benign=whole.probe.benign),
    )


def _fault(prompts: PromptSet) -> str | None:
    """What makes a set of the right form useless: too few different prompts, or one prompt with two meanings."""
    probe = {"probe.harmful": frozenset(prompts.probe.harmful), "probe.benign": frozenset(prompts.probe.benign)}
    for name, texts in probe.items():
        if len(texts) < FEWEST_PROBES:
            return f"{name} has only {len(texts)} different prompts, and {FEWEST_PROBES} are needed"
    if both := probe["probe.harmful"] & probe["probe.benign"]:
        return (
            f"{len(both)} prompts, such as {min(both)!r}, stand in probe.harmful and in probe.benign: the analysis "
            "needs two classes"
        )
    reported = frozenset(prompts.evaluation.harmful) | frozenset(prompts.evaluation.safe)
    if seen := reported & (probe["probe.harmful"] | probe["probe.benign"]):
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
        f"{name} beside the base model is no prompt set that can be used: {why}. Mend it, or set security.prompts to "
        "builtin.",
        code="invalid_prompt_set",
        param="security.prompts",
    )
