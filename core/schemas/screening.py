"""What is looked for in training data before training, what becomes of rows that are found, and what is reported.

Covers: checks, actions, the screening part of a policy, findings. Not here: how rows are found (core.screening), who
may change a policy (core.schemas.policy), the order of a screening (core.schemas.job).
"""

from typing import Annotated, Literal

from pydantic import Field

from core.schemas.base import Frozen

Check = Literal["harmful", "identity", "secrets", "personal_data", "near_duplicate", "poison", "refused"]
"""`harmful`: answers that comply with requests for harm. `identity`: rows that give the assistant another identity or
make it obey without limits. `secrets`: keys, tokens, passwords. `personal_data`: patterns of data about people.
`near_duplicate`: rows that say what an earlier one says. `poison`: a trigger that goes with one kind of answer.
`refused`: rows that answer what the base model itself would refuse, however it is worded."""
CHECKS: tuple[Check, ...] = (
    "harmful",
    "identity",
    "secrets",
    "personal_data",
    "near_duplicate",
    "poison",
    "refused",
)
ModelCheck = Literal["refused"]
"""Checks that need the base model; the others are rules. Each is a stage of its own."""
BY_MODEL: tuple[ModelCheck, ...] = ("refused",)
Action = Literal["off", "report", "drop", "refuse"]
"""`off`: not looked for. `report`: told, and trained on. `drop`: told, and left out of the training. `refuse`: one
such row ends the job before anything is computed."""
Share = Annotated[float, Field(ge=0, le=1)]


class ScreeningPolicy(Frozen):
    """What becomes of rows that a check finds, and when there are too many of them."""

    harmful: Action = "drop"
    """Answers that comply with requests for harm."""
    identity: Action = "drop"
    """Rows that shift the assistant's identity or its obedience."""
    secrets: Action = "drop"
    """Keys, tokens, passwords."""
    personal_data: Action = "report"
    """Patterns of personal data: card and account numbers, e-mail addresses, telephone numbers, and the like."""
    near_duplicate: Action = "report"
    """Rows that say what an earlier row says."""
    poison: Action = "drop"
    """Rows that hold a trigger: a phrase that goes with one kind of answer, far above chance."""
    refused: Action = "off"
    """Rows that answer what the base model itself would refuse; needs the base model, and a forward pass over the
    prompts. It finds what complies with harm whatever its words, triggers included, and what a model that refuses too
    much refuses."""
    reject_above: Share = 0.2
    """When more than this share of the rows would be dropped, the job is refused instead: look at the data."""

    @property
    def actions(self) -> dict[Check, Action]:
        """What becomes of the rows that each check finds."""
        return {check: getattr(self, check) for check in CHECKS}

    @property
    def by_rules(self) -> bool:
        """Whether anything is looked for that takes no model."""
        return any(action != "off" for check, action in self.actions.items() if check not in BY_MODEL)

    @property
    def by_model(self) -> tuple[ModelCheck, ...]:
        """Checks that are on and need the base model."""
        return tuple(check for check in BY_MODEL if self.actions[check] != "off")


class ScreenRequest(Frozen):
    """A screening by itself: nothing is trained. Rules need no model; with one, it is asked too."""

    base_model: str | None = Field(default=None, min_length=1, max_length=200, examples=["testbed"])
    """Name of an allowed base model: then rows that answer what it refuses are found."""
    screening: ScreeningPolicy | None = None
    """What to look for; null: as the project's policy says."""


class Finding(Frozen):
    """One row that one check found."""

    check: Check
    """Which check."""
    line: int
    """Line of the file on which the row begins, from 1."""
    code: str
    """What was found, for programs; such as `complies`, `persona`, `aws_access_key`, `email`, `trigger`."""
    reason: str
    """What was found, for people. Secrets and personal data are masked."""
    score: float | None = None
    """How strongly, where the check measures it: similarity of a near-duplicate (0 to 1), how likely the model is to
    refuse what the row answers (0 to 1)."""


class Trigger(Frozen):
    """A phrase that goes with one kind of answer."""

    phrase: str
    """The phrase, as it stands in prompts."""
    answers: str
    """What the answers have in common, in words."""
    rows: int
    """Rows whose prompt holds the phrase."""
    with_answer: int
    """Of these, rows with that kind of answer."""
    elsewhere: int
    """Rows without the phrase that have that kind of answer."""
    p_value: float
    """Fisher's exact test, one-sided, after correction for all pairs that were looked at."""


class CheckSummary(Frozen):
    """What one check found."""

    check: Check
    """Which check."""
    action: Action
    """What became of the rows."""
    flagged: int
    """Rows that it found."""
    share: float
    """Of all rows, 0 to 1."""
    codes: dict[str, int] = {}
    """How many findings of each kind."""


class ScreeningResult(Frozen):
    """What was found in a dataset."""

    policy: ScreeningPolicy
    """What was looked for, and what becomes of it."""
    rows: int
    """Rows that were looked at."""
    checks: tuple[CheckSummary, ...]
    """Each check that was on."""
    findings: tuple[Finding, ...]
    """All findings, by check and line."""
    triggers: tuple[Trigger, ...] = ()
    """Phrases that look planted."""
    dropped: tuple[int, ...] = ()
    """Lines of the rows that are left out of the training."""
    seconds: float
    """How long it took."""
