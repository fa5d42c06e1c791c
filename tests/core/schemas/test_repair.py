"""Which runs a request for a repair orders."""

import pytest
from pydantic import ValidationError

from core.schemas.repair import RepairRequest
from core.schemas.safeguards import SafetyMix, ScaleUpdate


def test_steps_come_before_scaling_alone_and_end_with_it() -> None:
    retrained, scaled = RepairRequest(steps=7, max_refusal_drift=0.3).runs
    scale = ScaleUpdate(max_refusal_drift=0.3)
    assert (retrained.label, retrained.steps, list(retrained.safeguards)) == (
        "retrained",
        7,
        [SafetyMix(share=0.5), scale],
    )
    assert (scaled.label, scaled.steps, list(scaled.safeguards)) == ("scaled", 0, [scale])


@pytest.mark.parametrize(
    ("fields", "labels"), [({"steps": 0}, ["scaled"]), ({"scale": False}, ["retrained"]), ({}, ["retrained", "scaled"])]
)
def test_each_way_can_be_left_out(fields: dict[str, object], labels: list[str]) -> None:
    assert [run.label for run in RepairRequest.model_validate(fields).runs] == labels


def test_something_is_left_to_try() -> None:
    with pytest.raises(ValidationError, match="nothing is left to try"):
        RepairRequest(scale=False, steps=0)
