"""Events, figures, and the lock of the sweep."""

import pytest
from sqlalchemy.exc import IntegrityError

from core.db import jobs, records
from core.db.models import Event
from core.db.session import Sessions, transaction
from core.schemas.evaluation import Change, Figure
from core.schemas.events import JOB_EVENT, Figures, Metrics, StatusChanged
from core.schemas.job import JobSpec

FIGURE = Figure(run="base", suite="task", metric="loss", judge="none", value=1.5, n=20, low=1.0, high=2.0)


@pytest.fixture
def job_id(sessions: Sessions, spec: JobSpec) -> str:
    with transaction(sessions) as session:
        return jobs.add(session, spec).id


def test_events_come_back_in_order_and_in_pages(sessions: Sessions, job_id: str) -> None:
    told = [Metrics(run="ml_lr", step=step, total_steps=5, loss=0.1, learning_rate=1e-3) for step in range(1, 6)]
    with transaction(sessions) as session:
        for event in told:
            records.add_event(session, job_id, 1, event)
    with transaction(sessions) as session:
        records.add_event(session, job_id, 2, StatusChanged(status="failed", message="No.", code="process_died"))
    with transaction(sessions) as session:
        first, more = records.events(session, job_id, after=0, limit=4)
        rest, no_more = records.events(session, job_id, after=first[-1].id, limit=4)
    assert (len(first), more, len(rest), no_more) == (4, True, 2, False)
    back = [JOB_EVENT.validate_python({"type": row.type, **row.data}) for row in [*first, *rest]]
    assert back == [*told, StatusChanged(status="failed", message="No.", code="process_died")]
    assert [row.attempt for row in rest] == [1, 2]


def test_figures_told_by_an_older_version_can_be_read(sessions: Sessions, job_id: str) -> None:
    told = FIGURE.model_dump(mode="json", exclude={"change"})
    with transaction(sessions) as session:
        session.add(Event(job_id=job_id, attempt=1, type="figures", data={"figures": [told]}))
    with transaction(sessions) as session:
        (row,), _ = records.events(session, job_id, after=0, limit=4)
        assert JOB_EVENT.validate_python({"type": row.type, **row.data}) == Figures(figures=(FIGURE,))


def test_events_of_another_job_stay_away(sessions: Sessions, spec: JobSpec, job_id: str) -> None:
    with transaction(sessions) as session:
        other = jobs.add(session, spec).id
        records.add_event(session, other, 1, StatusChanged(status="running", message="It runs."))
    with transaction(sessions) as session:
        assert records.events(session, job_id, after=0, limit=10) == ([], False)


def test_an_event_needs_its_job(sessions: Sessions) -> None:
    with pytest.raises(IntegrityError), transaction(sessions) as session:
        records.add_event(session, "job_nobody", 1, StatusChanged(status="running", message="It runs."))


def test_a_figure_measured_again_replaces_the_first(sessions: Sessions, job_id: str) -> None:
    other = FIGURE.model_copy(update={"run": "ml_lr", "value": 1.0})
    again = FIGURE.model_copy(update={"value": 1.25, "n": 30, "low": 1.1, "high": 1.4})
    with transaction(sessions) as session:
        records.put_figures(session, job_id, [])
        records.put_figures(session, job_id, [FIGURE, other])
    with transaction(sessions) as session:
        records.put_figures(session, job_id, [again])
    with transaction(sessions) as session:
        assert records.figures(session, job_id) == [again, other]


def test_a_figure_keeps_its_change_against_the_base_model(sessions: Sessions, job_id: str) -> None:
    changed = FIGURE.model_copy(update={"run": "ml_lr", "change": Change(value=-0.5, n=18, low=-0.75, high=0.0)})
    again = changed.model_copy(update={"change": Change(value=0.0, n=19, low=-0.25, high=0.25)})
    with transaction(sessions) as session:
        records.put_figures(session, job_id, [FIGURE, changed])
        assert records.figures(session, job_id) == [FIGURE, changed]
    for figure in (again, again.model_copy(update={"change": None})):
        with transaction(sessions) as session:
            records.put_figures(session, job_id, [figure])
        with transaction(sessions) as session:
            assert records.figures(session, job_id) == [FIGURE, figure]


def test_of_one_figure_twice_in_a_batch_the_last_counts(sessions: Sessions, job_id: str) -> None:
    again = FIGURE.model_copy(update={"value": 1.25})
    with transaction(sessions) as session:
        records.put_figures(session, job_id, [FIGURE, again])
        assert records.figures(session, job_id) == [again]


def test_one_sweeps_at_a_time(sessions: Sessions) -> None:
    with transaction(sessions) as one:
        assert records.try_sweep_lock(one) is True
        with transaction(sessions) as two:
            assert records.try_sweep_lock(two) is False
    with transaction(sessions) as three:
        assert records.try_sweep_lock(three) is True
