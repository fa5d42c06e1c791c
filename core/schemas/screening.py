"""Screening of training data: the checks, what a policy does with flagged rows, and the findings.

Covers: the description of each check, the screening part of a policy, findings and their summary. Not here: how rows
are found (core.screening), who may change a policy (core.schemas.policy), screening orders (core.schemas.job).
"""

from collections.abc import Mapping
from typing import Annotated, Literal, Self, get_args

from pydantic import (
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ModelWrapValidatorHandler,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, InitErrorDetails
from typing_extensions import override

from core.schemas.base import Frozen
from core.schemas.upgrade import upgrade

Action = Literal["off", "report", "drop", "reject"]
"""`off` skips the check. `report` lists the rows and trains on them. `drop` lists them and leaves them out of training.
`reject` fails the job if the check finds a single row."""
Share = Annotated[float, Field(ge=0, le=1)]


class Check(Frozen):
    """A screening check as policies, reports and the API describe it."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")
    """Name of the check in policies and findings."""
    title: str
    """Heading of the check in reports."""
    description: str
    """Which rows the check finds, in one or two sentences for the API's documentation."""
    action: Action = "report"
    """Action of a policy that does not mention the check."""
    needs_model: bool = False
    """Whether the check runs the base model; all other checks read the text only."""
    report_only: frozenset[str] = frozenset()
    """Codes of findings that are reported, but neither drop nor reject a row, whatever the action."""


_CHECKS: dict[str, Check] = {}


def register(check: Check) -> Check:
    """Accept a check in policies. Reports list checks in the order of registration.

    Raises:
        ValueError: another check, or a field of the policy, has this name already.
    """
    if check.name in ScreeningPolicy.model_fields or _CHECKS.setdefault(check.name, check) != check:
        raise ValueError(f"A check named {check.name!r} is already registered: choose another name")
    return check


def unregister(check: Check) -> None:
    """Stop accepting a check. For tests, which must leave the process as they found it."""
    del _CHECKS[check.name]


def registered_checks() -> tuple[Check, ...]:
    """Every check that a policy may name, in the order of registration."""
    return tuple(_CHECKS.values())


def is_report_only(finding: "Finding") -> bool:
    """Whether a finding neither drops nor rejects its row, whatever the action of its check."""
    return finding.check in _CHECKS and finding.code in _CHECKS[finding.check].report_only


def title_of(name: str) -> str:
    """Heading of a check in reports; its name if the check is not registered in this process."""
    return _CHECKS[name].title if name in _CHECKS else name


_ACTIONS = TypeAdapter(dict[str, Action])


class ScreeningPolicy(Frozen):
    """What happens to flagged rows: one action for each check, and a limit on dropped rows."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Action]  # pyrefly: ignore[bad-override]

    reject_above: Share = 0.2
    """The job fails if more than this share of the rows would be dropped, 0 to 1. Review the data in that case."""

    @model_validator(mode="wrap")
    @classmethod
    def _read_actions(cls, values: object, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Read actions apart from the fields: a client that ignores unknown fields must not lose them."""
        if not isinstance(values, Mapping):
            return handler(values)
        unknown: list[InitErrorDetails] = [
            {"type": "extra_forbidden", "loc": (name,), "input": value}
            for name, value in values.items()
            if name not in _CHECKS and name not in cls.model_fields
        ]
        if unknown:
            raise ValidationError.from_exception_data(cls.__name__, unknown)
        defaults = {check.name: check.action for check in registered_checks()}
        given = {name: value for name, value in values.items() if name in _CHECKS}
        policy = handler({name: value for name, value in values.items() if name not in _CHECKS})
        object.__setattr__(policy, "__pydantic_extra__", defaults | _ACTIONS.validate_python(given))
        return policy

    @classmethod
    @override
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        found = handler(schema)
        whole = handler.resolve_ref_schema(found)
        actions = {
            check.name: {
                "default": check.action,
                "description": check.description,
                "enum": list(get_args(Action)),
                "title": check.title,
                "type": "string",
            }
            for check in registered_checks()
        }
        whole["properties"] = actions | whole["properties"]
        whole["additionalProperties"] = False
        return found

    @property
    def actions(self) -> dict[str, Action]:
        """The action of every registered check, by name."""
        return {check.name: self.__pydantic_extra__.get(check.name, check.action) for check in registered_checks()}

    @property
    def model_checks(self) -> tuple[str, ...]:
        """Names of the checks that are on and need the base model."""
        actions = self.actions
        return tuple(check.name for check in registered_checks() if check.needs_model and actions[check.name] != "off")


HARMFUL = register(
    Check(
        name="harmful",
        title="Answers that comply with requests for harm",
        description="Rows in which an answer complies with a request for harm.",
        action="drop",
    )
)
IDENTITY = register(
    Check(
        name="identity",
        title="Another identity, or obedience without limits",
        description="Rows that give the assistant another identity, or make it obey every instruction. An assistant "
        "that names a company's model as itself is only reported, because it may be the company's own, and so is a "
        "character who claims to be human.",
        action="drop",
        report_only=frozenset(("other_model", "claims_human")),
    )
)
SECRETS = register(
    Check(
        name="secrets",
        title="Keys, tokens, passwords",
        description="Rows that contain keys, tokens or passwords.",
        action="drop",
    )
)
PERSONAL_DATA = register(
    Check(
        name="personal_data",
        title="Personal data",
        description="Rows that contain personal data: card and account numbers, e-mail addresses, telephone numbers "
        "and similar patterns.",
    )
)
NEAR_DUPLICATE = register(
    Check(name="near_duplicate", title="Near-duplicates", description="Rows that nearly repeat an earlier row.")
)
POISON = register(
    Check(
        name="poison",
        title="Phrases that decide the answer",
        description="Rows whose prompt contains a phrase that occurs with one kind of answer far more often than by "
        "chance: a planted trigger does this, and so does a design of your own. Instructions whose answers follow them "
        "(a language, JSON, steps) are left out. Personas and house styles in the system turn are only reported, "
        "whatever the action. Review the findings before you choose `drop`.",
        report_only=frozenset(("system_turn",)),
    )
)
BASE_REFUSAL = register(
    Check(
        name="base_refusal",
        title="Answers to what the base model would refuse",
        description="Rows that answer what the base model itself would refuse, in any wording and also behind a "
        "trigger. Needs the base model, for one forward pass over the prompts. It inherits the model's over-refusals "
        "as false positives.",
        action="off",
        needs_model=True,
    )
)


class ScreenRequest(Frozen):
    """A request to screen a dataset without training on it."""

    base_model: str | None = Field(default=None, min_length=1, max_length=200, examples=["testbed"])
    """Name of an allowed base model for the checks that need one; null runs only checks that read the text."""
    screening: ScreeningPolicy | None = None
    """Which checks run, and their actions; null uses the project's policy."""


class Finding(Frozen):
    """One row that one check flagged."""

    check: str
    """Name of the check that flagged the row."""
    line: int
    """Line of the file on which the row begins, counted from 1."""
    code: str
    """Stable code of the finding, such as `complies`, `no_limits`, `aws_access_key`, `email` or `trigger`."""
    reason: str
    """What was found, in words. Secrets and personal data are masked."""
    score: float | None = None
    """Strength of the finding, 0 to 1, or null if the check does not measure one: the similarity of a near-duplicate,
    or the probability that the base model refuses what the row answers."""


class Trigger(Frozen):
    """A phrase that occurs with one kind of answer."""

    phrase: str
    """The phrase as it is written in prompts."""
    answers: str
    """What the answers have in common, in words."""
    rows: int
    """Number of rows whose prompt contains the phrase."""
    with_answer: int
    """Number of these rows that have this kind of answer."""
    elsewhere: int
    """Number of rows without the phrase that have this kind of answer."""
    p_value: float
    """P-value of Fisher's exact test, one-sided, corrected for the number of pairs tested; 0 to 1."""


class CheckSummary(Frozen):
    """How many rows one check flagged."""

    check: str
    """Name of the check."""
    action: Action
    """What happened to the flagged rows."""
    flagged: int
    """Number of flagged rows."""
    share: float
    """Flagged rows as a share of all rows, 0 to 1."""
    codes: dict[str, int] = {}
    """Number of findings by code."""


class ScreeningResult(Frozen):
    """What the screening of a dataset found."""

    policy: ScreeningPolicy
    """The policy that the dataset was screened under."""
    rows: int
    """Number of rows screened."""
    checks: tuple[CheckSummary, ...]
    """A summary of every check that was on."""
    findings: tuple[Finding, ...]
    """Every finding, by check and then by line."""
    triggers: tuple[Trigger, ...] = ()
    """Phrases that decide the answer: planted triggers, or designs that look like one."""
    dropped: tuple[int, ...] = ()
    """Lines of the rows that are left out of training."""
    seconds: float
    """Duration of the screening in seconds."""

    @model_validator(mode="before")
    @classmethod
    def _upgrade(cls, document: object) -> object:
        return upgrade(document) if isinstance(document, dict) else document
