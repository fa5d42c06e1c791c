"""Generates answers with vLLM, if it is installed and a job requests it, with a second copy of the base weights and the
adapter as vLLM's own LoRA request.

Prompts are token ids from the tokenizer's chat template, as everywhere. Not here: transformers (core.lm.generate).
This file was written against vLLM's documented interface and tested with a stand-in; it has not run on a GPU yet.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol, cast

import torch

from core.errors import Unavailable
from core.lm.load import BaseModel

_MEMORY_SHARE = 0.45
"""Share of the GPU's memory: the training process has its own copy of the base model."""
_NO_LIMIT = 1 << 20
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Values that vLLM accepts as the maximum rank."""


class _Completion(Protocol):
    token_ids: Sequence[int]


class _Output(Protocol):
    outputs: Sequence[_Completion]


class _Engine(Protocol):
    def generate(
        self,
        prompts: Sequence[dict[str, list[int]]],
        sampling_params: Sequence[object],
        *,
        lora_request: object,
        use_tqdm: bool,
    ) -> Sequence[_Output]: ...


class _Vllm(Protocol):
    """The part of the package that is used."""

    def LLM(self, **options: object) -> _Engine: ...
    def SamplingParams(self, **options: object) -> object: ...


class _Requests(Protocol):
    def LoRARequest(self, name: str, number: int, path: str) -> object: ...


def check_vllm(device: torch.device) -> None:
    """Reject a job before anything is computed if vLLM cannot be used.

    Raises:
        Unavailable: code `vllm_missing` or `vllm_needs_cuda`.
    """
    if find_spec("vllm") is None:
        raise Unavailable(
            "security.engine is vllm, and this worker has no vLLM: install it there, or set the engine to "
            "transformers.",
            code="vllm_missing",
            param="security.engine",
        )
    if device.type != "cuda":
        raise Unavailable(
            "security.engine is vllm, which needs a CUDA GPU, and this worker computes on "
            f"{device.type}: set the engine to transformers.",
            code="vllm_needs_cuda",
            param="security.engine",
        )


class VllmModel:
    """A model in vLLM."""

    def __init__(self, base: BaseModel, folder: Path, adapter: Path | None, rank: int) -> None:
        self._base = base
        self._vllm = cast(_Vllm, import_module("vllm"))  # an extra, and takes seconds
        self._engine = self._vllm.LLM(
            model=str(folder),
            skip_tokenizer_init=True,
            trust_remote_code=False,
            dtype=str(base.model.dtype).removeprefix("torch."),
            gpu_memory_utilization=_MEMORY_SHARE,
            max_model_len=base.context if base.context < _NO_LIMIT else None,
            enable_lora=adapter is not None,
            max_lora_rank=next((each for each in _RANKS if each >= rank), rank),
        )
        self._request: object = None
        if adapter is not None:
            requests = cast(_Requests, import_module("vllm.lora.request"))
            self._request = requests.LoRARequest("tuned", 1, str(adapter))

    def continue_tokens(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        temperature: float,
        top_p: float,
        seeds: Sequence[int],
    ) -> list[list[int]]:
        """The tokens that follow each prompt, in order; a prompt must leave space for one."""
        sampling = [
            self._vllm.SamplingParams(
                max_tokens=min(max_new_tokens, self._base.context - len(prompt)),
                temperature=temperature,
                top_p=top_p,
                seed=seed,
                stop_token_ids=self._base.stop_ids,
                detokenize=False,
            )
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]
        inputs = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        outputs = self._engine.generate(inputs, sampling, lora_request=self._request, use_tqdm=False)
        return [list(output.outputs[0].token_ids) for output in outputs]


@contextmanager
def opened(base: BaseModel, folder: Path, adapter: Path | None, rank: int) -> Iterator[VllmModel]:
    """A model in vLLM, whose memory is released afterwards."""
    model = VllmModel(base, folder, adapter, rank)
    try:
        yield model
    finally:
        del model
        torch.cuda.empty_cache()
