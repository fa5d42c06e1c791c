"""From a learning plan to the optimizer's parameter groups: which parameters are trained, and at which factor.

Not here: what the factors are (strategies), the loop.
"""

import torch
from peft import PeftModel

from core.errors import TrainingFailed
from core.lm.adapter import module_of
from core.spec.training import LearningPlan


def by_scale_of(tuned: PeftModel, plan: LearningPlan) -> dict[float, list[torch.nn.Parameter]]:
    """Trained parameters by their factor on the rate. Those of factor 0 ask for no gradient from here on.

    Raises:
        TrainingFailed: code `nothing_to_train`; every module is frozen.
    """
    by_scale: dict[float, list[torch.nn.Parameter]] = {}
    for name, parameter in tuned.named_parameters():
        if ".lora_" not in name:
            continue
        scale = plan.scales[module_of(name)]
        parameter.requires_grad_(scale > 0)
        if scale > 0:
            by_scale.setdefault(scale, []).append(parameter)
    if not by_scale:
        raise TrainingFailed(
            "Every module is frozen: no module is robust and the ratio is 0, so nothing would be trained.",
            code="nothing_to_train",
            param="strategy",
        )
    return by_scale
