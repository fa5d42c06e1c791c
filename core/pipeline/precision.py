"""The precision of a job: chosen by its first attempt, and the same for jobs on machines of one kind.

Not here: how it is chosen (core.lm.precision).
"""

from pathlib import Path

import torch
from pydantic import JsonValue

from core.lm.precision import choose, main_shapes
from core.pipeline.stages import Stages
from core.schemas.results import PrecisionUsed
from core.schemas.training import Precision


def choose_for_job(stages: Stages, precision: Precision, device: torch.device, folder: Path) -> PrecisionUsed:
    """As `core.lm.precision.choose`, where a choice by self-test is stored.

    Another attempt of the job may run on another machine, and must resume the same run. Jobs on machines of one kind
    must get the same precision even if the self-test is near its limit, to share the base model's answers.
    """
    shapes = main_shapes(folder)
    if precision != "auto" or device.type != "cpu" or not shapes:
        return choose(precision, device, folder)
    model: dict[str, JsonValue] = {"shapes": [list(shape) for shape in shapes]}
    machine: dict[str, JsonValue] = {
        "cpu": dict(torch.cpu.get_capabilities()),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }

    def choose_for_machine() -> PrecisionUsed:
        return stages.remember(
            "precision",
            PrecisionUsed,
            lambda: choose(precision, device, folder),
            inputs=model | machine,
            shared=True,
        )

    return stages.remember("precision", PrecisionUsed, choose_for_machine, inputs=model)
