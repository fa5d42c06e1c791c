"""What a screening check is, and which checks run.

A check has a description (`core.schemas.screening.Check`) and a function that finds rows. To add one, write both and
register it; policies, orders and reports then accept it without another change. Not here: the checks themselves.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from core.data import Conversation
from core.data.encoded import Encoded
from core.lm.load import BaseModel
from core.schemas import screening as schemas
from core.schemas.progress import OnProgress
from core.schemas.prompts import ProbePrompts
from core.schemas.screening import Check, Finding, Trigger


@dataclass(frozen=True)
class Found:
    """What a check found: findings in the order of the rows, and triggers if the check looks for them."""

    findings: Sequence[Finding]
    triggers: Sequence[Trigger] = ()


@dataclass(frozen=True)
class RowCheck:
    """A check that reads the text of the rows. `find(rows, on_progress)` receives all rows of a dataset."""

    description: Check
    find: Callable[[Sequence[Conversation], OnProgress], Found]


@dataclass(frozen=True)
class ModelCheck:
    """A check that runs the base model. `find(base, rows, prompts, on_progress)` receives tokenized rows."""

    description: Check
    find: Callable[[BaseModel, Sequence[Encoded], ProbePrompts, OnProgress], Found]


_CHECKS: dict[str, RowCheck | ModelCheck] = {}


def register(check: RowCheck | ModelCheck) -> None:
    """Run a check in every screening whose policy does not switch it off.

    Raises:
        ValueError: another check has this name, or `needs_model` does not match the kind of check.
    """
    description = check.description
    if description.needs_model != isinstance(check, ModelCheck):
        raise ValueError(f"The check {description.name!r}: set needs_model for a ModelCheck, and for no other check")
    schemas.register(description)
    _CHECKS[description.name] = check


def unregister(check: RowCheck | ModelCheck) -> None:
    """Stop running a check. For tests, which must leave the process as they found it."""
    schemas.unregister(check.description)
    del _CHECKS[check.description.name]


def row_checks() -> Iterator[RowCheck]:
    """Checks that read the text only, in the order of the report."""
    return (check for check in _CHECKS.values() if isinstance(check, RowCheck))


def model_check(name: str) -> ModelCheck:
    """The check of this name that runs the base model.

    Raises:
        KeyError: no such check is registered.
    """
    check = _CHECKS[name]
    if not isinstance(check, ModelCheck):
        raise KeyError(name)
    return check
