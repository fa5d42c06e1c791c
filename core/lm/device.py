"""The device of a model: its name and its memory, as estimates and reports state them.

Not here: choosing the device (core.lm.load), the memory that a job needs.
"""

import platform
from pathlib import Path

import torch

from core.lm.load import BaseModel
from core.processes import memory_limit
from core.schemas.speeds import ModelSpeeds

_CPU_INFO = Path("/proc/cpuinfo")


def name_device(device: torch.device) -> str:
    """Name of a GPU, or of the CPU with the number of threads that torch uses."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU ({_cpu_name()}), {torch.get_num_threads()} threads"


def device_memory(device: torch.device) -> int:
    """Memory of a GPU, or memory that this process may use on the machine, in bytes."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return memory_limit()


def speeds_of(base: BaseModel) -> ModelSpeeds:
    """What the speeds of this model apply to, without any speed yet."""
    identity = base.identity
    return ModelSpeeds(
        model=identity.name,
        sha256=identity.files_sha256 or identity.sha256,
        parameters=identity.parameters,
        device=name_device(base.device),
        memory_bytes=device_memory(base.device),
        speeds=(),
    )


def _cpu_name() -> str:
    lines = _CPU_INFO.read_text().splitlines() if _CPU_INFO.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.machine()
