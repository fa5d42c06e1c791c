"""Where a job's attack prompts come from: the base model's own set, or the built-in one.

Not here: attack templates (core.security.attacks).
"""

from pathlib import Path
from typing import assert_never

from pydantic import ValidationError

from core.errors import InvalidModel
from core.spec.security import EvaluationPrompts, ProbePrompts, PromptSet, SecuritySpec

_FILE = "security_prompts.json"
_BUILTIN = Path(__file__).parent / "builtin_prompts.json"


def choose(spec: SecuritySpec, model_folder: Path) -> PromptSet:
    """The prompt set of a job, cut to its `max_prompts`.

    Raises:
        InvalidModel: code `invalid_prompt_set`; the set beside the model cannot be read.
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
        raise InvalidModel(
            f"{path.name} beside the base model is no prompt set: {error}", code="invalid_prompt_set"
        ) from error
    most = spec.max_prompts
    return PromptSet(
        name=whole.name,
        evaluation=EvaluationPrompts(harmful=whole.evaluation.harmful[:most], safe=whole.evaluation.safe[:most]),
        probe=ProbePrompts(harmful=whole.probe.harmful, benign=whole.probe.benign),
    )
