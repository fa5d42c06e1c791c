"""A job's data is screened once; rows are reported and dropped, and data that the policy rejects fails the job."""

from pathlib import Path

import pytest

from core.errors import InvalidInput
from core.pipeline import screen as screening
from core.pipeline.run import screen
from core.pipeline.stages import Stages
from core.schemas.events import PipelineEvent, Screened, StageFinished
from core.schemas.job import DatasetRef, ScreenAssignment, ScreenSpec
from core.schemas.policy import Policy, PolicyRef
from core.schemas.screening import ScreeningPolicy, ScreeningResult
from core.storage import ArtifactStore
from tests.core.helpers import conversations
from tests.core.jobs import JOB, SPEC, assign, run_job, upload

KEY = "AKIA" + "QYLPMN5HHHFPZAM2"
SECRET = (("user", "Which key do we use?"), ("assistant", f"Use {KEY} for the bucket."))


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path)


@pytest.fixture
def dataset(store: ArtifactStore) -> DatasetRef:
    """Nine rows, with a secret on line 10."""
    return upload(store, [*conversations(9), SECRET])


def screen_rows(
    store: ArtifactStore, dataset: DatasetRef, policy: ScreeningPolicy
) -> tuple[screening.ScreenedRows, list[PipelineEvent]]:
    events: list[PipelineEvent] = []
    stages = Stages(store, JOB, events.append, ["screening"])
    return screening.screen_dataset(dataset, policy, store, stages), events


def test_dropped_rows_are_reported_with_their_lines(store: ArtifactStore, dataset: DatasetRef) -> None:
    screened, events = screen_rows(store, dataset, ScreeningPolicy())
    assert [row.line for row in screened.rows] == list(range(1, 10))
    (event,) = [event for event in events if isinstance(event, Screened)]
    assert (event.rows, event.dropped, event.flagged["secrets"], event.lines["secrets"]) == (10, 1, 1, (10,))


def test_the_same_data_under_the_same_policy_is_screened_once(store: ArtifactStore, dataset: DatasetRef) -> None:
    def reused(policy: ScreeningPolicy) -> bool:
        (finished,) = [event for event in screen_rows(store, dataset, policy)[1] if isinstance(event, StageFinished)]
        return finished.reused

    assert [reused(ScreeningPolicy()), reused(ScreeningPolicy())] == [False, True]
    assert not reused(ScreeningPolicy(secrets="report"))


def test_a_rejection_names_lines_and_masks_the_secret(store: ArtifactStore, dataset: DatasetRef) -> None:
    with pytest.raises(InvalidInput) as caught:
        screen_rows(store, dataset, ScreeningPolicy(secrets="reject"))
    assert (caught.value.code, caught.value.param) == ("data_rejected", "dataset")
    assert "Line 10" in caught.value.message
    assert KEY[4:] not in caught.value.message


def test_data_with_too_many_dropped_rows_or_without_any_left_is_rejected(store: ArtifactStore) -> None:
    half = upload(store, [*conversations(2), SECRET])
    with pytest.raises(InvalidInput) as caught:
        screen_rows(store, half, ScreeningPolicy())
    assert caught.value.code == "too_many_dropped"
    assert "33.3 %" in caught.value.message
    assert len(screen_rows(store, half, ScreeningPolicy(reject_above=0.5))[0].rows) == 2
    whole = upload(store, [SECRET])
    with pytest.raises(InvalidInput):
        screen_rows(store, whole, ScreeningPolicy(reject_above=1.0))


def test_dropped_rows_are_not_trained_on_and_are_listed_in_the_report(
    store: ArtifactStore, dataset: DatasetRef
) -> None:
    policy = PolicyRef(policy=Policy(screening=ScreeningPolicy(base_refusal="drop", reject_above=0.9)))
    job = assign(SPEC.model_copy(update={"compare": ()}), dataset).model_copy(update={"policy": policy})
    outcome, recorded = run_job(store, job)
    (file,) = [each for each in outcome.artifacts if each.name == "screening.json"]
    result = ScreeningResult.model_validate_json(store.path(file.key).read_bytes())
    assert 10 in result.dropped
    by_model = [each for each in result.findings if each.check == "base_refusal"]
    assert {each.line for each in by_model} <= set(result.dropped)
    assert [check.check for check in result.checks][-1:] == ["base_refusal"]
    assert [stage for stage, _ in recorded.finished if stage == "model_screening"] == ["model_screening"]
    events = [event for event in recorded.events if isinstance(event, Screened)]
    assert events[-1].dropped == len(result.dropped)


def test_a_job_that_only_screens_leaves_one_file_and_rejects_nothing(store: ArtifactStore, dataset: DatasetRef) -> None:
    spec = ScreenSpec(dataset=dataset.id, screening=ScreeningPolicy(secrets="reject"))
    assignment = ScreenAssignment(job_id=JOB, attempt=1, spec=spec, dataset=dataset)
    events: list[PipelineEvent] = []
    outcome = screen(assignment, store=store, model=None, device="cpu", emit=events.append)
    assert [file.name for file in outcome.artifacts] == ["screening.json"]
    assert outcome.gate is None
    (event,) = [event for event in events if isinstance(event, Screened)]
    assert event.lines["secrets"] == (10,)


def test_one_row_of_a_file_in_one_line_is_dropped_alone(store: ArtifactStore) -> None:
    screened, events = screen_rows(store, upload(store, [*conversations(9), SECRET], one_line=True), ScreeningPolicy())
    assert len(screened.rows) == 9
    (event,) = [event for event in events if isinstance(event, Screened)]
    assert event.lines["secrets"] == (10,)
