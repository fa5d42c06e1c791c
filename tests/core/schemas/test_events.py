"""Events are one JSON line each and survive a round trip."""

import pytest
from pydantic import ValidationError

from core.schemas.evaluation import Figure
from core.schemas.events import (
    JOB_EVENT,
    Figures,
    JobEvent,
    Metrics,
    Progress,
    StageFinished,
    StageStarted,
    StatusChanged,
    Warned,
)
from core.schemas.state import FINAL

FIGURE = Figure(run="base", suite="task", metric="loss", judge="none", value=1.5, n=3, low=1.0, high=2.0)
EVENTS: list[JobEvent] = [
    Progress(stage="training", run="ml_lr", fraction=0.5, message="step 1 of 2"),
    StageStarted(stage="dataset"),
    StageFinished(stage="after", run="uniform", seconds=0.1, reused=True),
    Metrics(run="ml_lr", step=1, total_steps=2, loss=0.5, learning_rate=1e-4),
    Figures(figures=(FIGURE,)),
    Warned(code="prompts_too_long", message="line one\nline two"),
    StatusChanged(status="interrupted", message="the worker went away", code="lease_lost"),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.type)
def test_an_event_survives_a_round_trip_through_json(event: JobEvent) -> None:
    line = event.model_dump_json()
    assert "\n" not in line
    assert JOB_EVENT.validate_json(line) == event


def test_every_event_class_has_its_own_type() -> None:
    assert len({event.type for event in EVENTS}) == len(EVENTS)


@pytest.mark.parametrize(
    "line",
    [
        "{}",
        '{"type": "party"}',
        '{"type": "progress", "stage": "lunch", "fraction": 0.5, "message": ""}',
        '{"type": "progress", "stage": "training", "fraction": 1.5, "message": ""}',
        '{"type": "metrics", "arm": "a", "step": 1, "total_steps": 2, "loss": NaN, "learning_rate": 0.1}',
        '{"type": "status", "status": "asleep", "message": ""}',
    ],
)
def test_other_events_are_rejected(line: str) -> None:
    with pytest.raises(ValidationError):
        JOB_EVENT.validate_json(line)


def test_states() -> None:
    assert {"succeeded", "failed", "cancelled"} == FINAL
