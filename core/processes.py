"""The environment of processes that read untrusted data and models, and the memory that a process may use.

Not here: starting them (worker.child, api.tokenizers).
"""

import os
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
"""Working directory of the processes: the folder with the packages."""
_NAMES = {
    "PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ", "TMPDIR", "VIRTUAL_ENV",
    "HUGGING_FACE_HUB_TOKEN", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
}  # fmt: skip
_PREFIXES = (
    "LC_", "LD_", "XDG_", "SSL_", "PYTHON", "HF_", "TRANSFORMERS_", "TOKENIZERS_", "TORCH", "PYTORCH_", "OMP_", "MKL_",
    "OPENBLAS_", "CUDA", "NVIDIA_", "NCCL_", "HIP_", "ROCR_", "TRITON_", "VLLM_",
)  # fmt: skip
_MEMORY_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Limit of a container, by version 2 and version 1 of control groups."""


def memory_limit() -> int:
    """Memory that this process may use, in bytes: that of the machine, or the limit of its container if it is less."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    texts = [path.read_text().strip() for path in _MEMORY_LIMITS if path.is_file()]
    return min([machine, *(int(text) for text in texts if text.isdecimal())])


def child_environment(full: Mapping[str, str], *secrets: str) -> dict[str, str]:
    """The environment of a process that may know nothing of the service.

    Its only secrets are the hub token and variables that begin with one of `secrets`. DATABASE_URL and REDIS_URL are
    left out.
    """
    prefixes = (*_PREFIXES, *secrets)
    needed = {name: value for name, value in full.items() if name in _NAMES or name.startswith(prefixes)}
    # No progress bars in the log; and idle OpenMP threads that spin make torch many times slower on a busy machine.
    return {"OMP_WAIT_POLICY": "PASSIVE"} | needed | {"TQDM_DISABLE": "1"}
