"""Speeds are found again by model and kind of work, the newest first."""

from core.db import speeds
from core.db.session import Sessions, transaction
from core.schemas.events import SpeedsMeasured
from core.schemas.speeds import ModelSpeeds, StageSpeed

MODEL = ModelSpeeds(
    model="small", sha256="0" * 64, parameters=1000, device="CPU (a), 2 threads", memory_bytes=2**30, speeds=()
)


def train(seconds: float, precision: str = "float32") -> StageSpeed:
    return StageSpeed(
        stage="training", work="train", calls=4, amount=100, seconds=seconds, precision=precision, method="lora"
    )


def test_the_last_five_of_each_kind_come_back_newest_first(sessions: Sessions) -> None:
    with transaction(sessions) as session:
        for second in range(1, 8):
            speeds.add(session, MODEL.model_copy(update={"speeds": (train(second),)}), job_id="job_a")
        speeds.add(session, MODEL.model_copy(update={"speeds": (train(50, "bfloat16"),)}), job_id="job_c")
        speeds.add(
            session,
            MODEL.model_copy(update={"model": "large", "parameters": 5000, "speeds": (train(60),)}),
            job_id="job_d",
        )
    with transaction(sessions) as session:
        found = speeds.newest(session)
    assert [(each.model, each.seconds, each.precision) for each in found] == [
        ("large", 60, "float32"),
        ("small", 50, "bfloat16"),
        *(("small", float(second), "float32") for second in range(7, 2, -1)),
    ]
    assert (found[0].parameters, found[0].device, found[0].memory_bytes) == (5000, "CPU (a), 2 threads", 2**30)
    assert [each.job_id for each in found[:3]] == ["job_d", "job_c", "job_a"]
    assert [each.measured_at for each in found] == sorted((each.measured_at for each in found), reverse=True)


def test_the_event_of_a_job_is_stored_as_it_is(sessions: Sessions) -> None:
    event = SpeedsMeasured(**dict(MODEL) | {"speeds": (train(3), train(4, "bfloat16"))})
    with transaction(sessions) as session:
        speeds.add(session, event, job_id="job_b")
        found = speeds.newest(session)
    assert {(each.seconds, each.work, each.calls, each.amount) for each in found} == {
        (3, "train", 4, 100),
        (4, "train", 4, 100),
    }
