"""A new screening check: one description and one function, registered once, and every part of a job accepts it."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from pydantic import ValidationError

from core.catalog import TESTBED
from core.data import Conversation
from core.data.encoded import Encoded
from core.lm.load import BaseModel
from core.pipeline.run import screen
from core.reports import decided
from core.schemas.events import PipelineEvent, Screened, StageFinished
from core.schemas.job import DatasetRef, ScreenAssignment, ScreenSpec
from core.schemas.policy import Policy
from core.schemas.progress import OnProgress
from core.schemas.prompts import ProbePrompts
from core.schemas.results import Report
from core.schemas.screening import Check, Finding, ScreeningPolicy, ScreeningResult
from core.screening.check import Found, ModelCheck, RowCheck, register, unregister
from core.storage import ArtifactStore
from tests.core.helpers import conversations
from tests.core.jobs import JOB, upload

LOUD = "PLEASE ANSWER ME NOW"


def find_shouting(rows: Sequence[Conversation], on_progress: OnProgress) -> Found:
    on_progress(len(rows), len(rows))
    loud = [row for row in rows if row.messages[0].content.isupper()]
    return Found([Finding(check="shouting", line=row.line, code="loud", reason="It shouts.") for row in loud])


def find_long(base: BaseModel, rows: Sequence[Encoded], prompts: ProbePrompts, on_progress: OnProgress) -> Found:
    assert prompts.harmful
    longest = max(rows, key=lambda row: len(row.input_ids))
    reason = f"It is the longest row for {base.identity.name}."
    return Found([Finding(check="longest", line=longest.line, code="longest", reason=reason)])


SHOUTING = RowCheck(Check(name="shouting", title="Rows that shout", description="Prompts in capitals."), find_shouting)
LONGEST = ModelCheck(
    Check(name="longest", title="Longest row", description="The row with most tokens.", action="off", needs_model=True),
    find_long,
)


@pytest.fixture
def registered() -> Iterator[None]:
    for check in (SHOUTING, LONGEST):
        register(check)
    yield
    for check in (SHOUTING, LONGEST):
        unregister(check)


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path)


@pytest.fixture
def dataset(store: ArtifactStore) -> DatasetRef:
    """Ten rows; the one on line 10 shouts."""
    return upload(store, [*conversations(9), (("user", LOUD), ("assistant", "Good morning."))])


def order(store: ArtifactStore, dataset: DatasetRef, policy: str, model: str | None = None) -> ScreeningResult:
    """The file `screening.json` of a screening with this policy."""
    spec = ScreenSpec(dataset=dataset.id, base_model=model, screening=ScreeningPolicy.model_validate_json(policy))
    assignment = ScreenAssignment(job_id=JOB, attempt=1, spec=spec, dataset=dataset)
    events: list[PipelineEvent] = []
    (file,) = screen(
        assignment, store=store, model=TESTBED if model else None, device="cpu", emit=events.append
    ).artifacts
    result = ScreeningResult.model_validate_json(store.path(file.key).read_bytes())
    (event,) = [event for event in events if isinstance(event, Screened)]
    assert event.flagged == {check.check: check.flagged for check in result.checks}
    stages = [event.stage for event in events if isinstance(event, StageFinished)]
    assert ("model_screening" in stages) == bool(model)
    return result


@pytest.mark.usefixtures("registered")
def test_a_policy_in_json_switches_the_check_on_and_its_rows_are_dropped(
    store: ArtifactStore, dataset: DatasetRef
) -> None:
    result = order(store, dataset, '{"shouting": "drop"}')
    assert result.dropped == (10,)
    assert [check.check for check in result.checks][-1] == "shouting"
    assert [each.reason for each in result.findings if each.check == "shouting"] == ["It shouts."]


@pytest.mark.usefixtures("registered")
def test_a_check_that_needs_the_model_runs_with_it(store: ArtifactStore, dataset: DatasetRef) -> None:
    result = order(store, dataset, '{"longest": "report"}', model="testbed")
    (finding,) = [each for each in result.findings if each.check == "longest"]
    assert "testbed" in finding.reason
    with pytest.raises(ValidationError, match="longest"):
        order(store, dataset, '{"longest": "report"}')


@pytest.mark.usefixtures("registered")
def test_a_report_shows_the_title_of_the_check(store: ArtifactStore, dataset: DatasetRef) -> None:
    report = Report.model_construct(screening=order(store, dataset, "{}"))
    shown = decided.screened(report)
    assert shown is not None
    assert [(row.title, row.flagged) for row in shown.rows][-1] == ("Rows that shout", 1)


@pytest.mark.usefixtures("registered")
def test_the_schema_and_the_default_policy_list_the_check() -> None:
    schema = ScreeningPolicy.model_json_schema()["properties"]["shouting"]
    assert (schema["default"], schema["description"]) == ("report", "Prompts in capitals.")
    assert schema["enum"] == ["off", "report", "drop", "reject"]
    assert Policy().screening.actions["shouting"] == "report"


def test_an_unregistered_check_is_rejected_by_name() -> None:
    with pytest.raises(ValidationError) as caught:
        Policy.model_validate({"screening": {"shouting": "drop"}})
    (error,) = caught.value.errors()
    assert (error["type"], error["loc"]) == ("extra_forbidden", ("screening", "shouting"))


def test_an_unknown_action_is_rejected() -> None:
    with pytest.raises(ValidationError) as caught:
        ScreeningPolicy.model_validate({"secrets": "delete"})
    (error,) = caught.value.errors()
    assert (error["type"], error["loc"]) == ("literal_error", ("secrets",))


@pytest.mark.parametrize("name", ["secrets", "reject_above"])
def test_a_name_is_taken_once(name: str) -> None:
    taken = Check(name=name, title="Another", description="Another check.")
    with pytest.raises(ValueError, match=f"'{name}' is already registered"):
        register(RowCheck(taken, find_shouting))


def test_a_check_says_whether_it_needs_the_model() -> None:
    with pytest.raises(ValueError, match="needs_model"):
        register(RowCheck(LONGEST.description, find_shouting))
    assert "longest" not in ScreeningPolicy().actions
