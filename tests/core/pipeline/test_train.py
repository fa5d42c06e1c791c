"""The training stage fails early if its plan trains nothing."""

from dataclasses import replace

import pytest

from core.errors import TrainingFailed
from core.pipeline.analyse import map_robustness
from core.pipeline.context import JobContext
from core.pipeline.train import train_run
from core.schemas.analysis import AnalysisSpec, NoisePerturbation
from core.schemas.strategy import MlLrStrategy


def test_a_map_without_robust_modules_and_a_ratio_of_0_is_rejected(prepared: JobContext) -> None:
    own = AnalysisSpec(perturbation=NoisePerturbation(relative_norm=3.0, seeds=1), probes=8)
    found = map_robustness(replace(prepared, modules=prepared.modules[:2]), own).model_copy(update={"robust": ()})
    with pytest.raises(TrainingFailed, match="no module is robust and the ratio is 0") as caught:
        train_run(prepared, MlLrStrategy(ratio=0, analysis=own), {own: found})
    assert (caught.value.code, caught.value.param) == ("nothing_to_train", "strategy")
