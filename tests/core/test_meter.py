"""Work is added up by its kind, and taken once."""

import pytest

from core.meter import Meter


def test_the_same_kind_of_work_is_added_up() -> None:
    meter = Meter()
    meter.add("train", calls=2, amount=64, seconds=0.5, precision="float32", method="lora")
    meter.add("train", calls=1, amount=16, seconds=0.25, precision="float32", method="lora")
    meter.add("train", calls=1, amount=16, seconds=4, precision="bfloat16", method="lora")
    meter.add("read", calls=0, amount=0, seconds=9)
    assert meter.seconds == 4.75, "nothing was read, so no time is counted for it"
    first, second = meter.take("training")
    assert (first.stage, first.work, first.calls, first.amount, first.seconds) == ("training", "train", 3, 80, 0.75)
    assert (second.precision, second.calls) == ("bfloat16", 1)
    assert meter.take("training") == ()


def test_work_that_fails_is_not_counted() -> None:
    meter = Meter()
    with pytest.raises(KeyError), meter.measure("answer", calls=1, amount=1):
        raise KeyError
    assert meter.take("before") == ()
    with meter.measure("answer", calls=3, amount=30, method="vllm"):
        pass
    (found,) = meter.take("after")
    assert (found.stage, found.calls, found.amount, found.method) == ("after", 3, 30, "vllm")
    assert 0 <= found.seconds < 60
