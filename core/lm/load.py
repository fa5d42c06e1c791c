"""Loads an allowed base model: safetensors only, no code from the model, one pinned revision.

Covers: the device, and weights in 4 bits. Not here: which precision is used (core.lm.precision), which models are
allowed (core.catalog), its files (core.modelfiles, core.lm.files), its tokenizer
(core.lm.tokenizer), what its weights must be like (core.lm.weights), adapters (core.lm.adapter).
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from core.errors import InvalidInput, Unavailable
from core.lm.files import describe_source, fetch
from core.lm.gguf import folder_digest, original_digest
from core.lm.precision import choose, uses_bfloat16
from core.lm.reading import context_of, make_loadable, read_config, reading, vocabulary_size
from core.lm.tokenizer import check_vocabulary, load_tokenizer
from core.lm.weights import check_finite, check_names, loaded_tensors, stored_tensors
from core.modelfiles import check_files
from core.schemas.events import Warned
from core.schemas.models import BaseModelEntry, GgufSource
from core.schemas.results import ModelIdentity, PrecisionUsed, WeightsFormat
from core.schemas.training import Precision

ChoosePrecision = Callable[[Precision, torch.device, Path], PrecisionUsed]
"""As `core.lm.precision.choose`, from the ordered precision, the device and the model's folder."""


@dataclass(frozen=True)
class BaseModel:
    """A base model in memory. `model` is in eval mode, and none of its parameters requires a gradient."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    identity: ModelIdentity
    folder: Path
    warnings: tuple[Warned, ...] = ()
    """What was changed to load it, and what the user should know."""
    speedup: float | None = None
    """How many times as fast bfloat16 is as float32 on this CPU; None if that was not measured."""
    half_batches: bool = False
    """Whether batches are half as large as usual. Results then differ as those of two runs whose batches differ: by
    rounding."""

    def limit_batch(self, most: int, available: int | None = None) -> int:
        """The largest batch in rows, tokens or bytes, if `most` fit and `available` is all there is."""
        usual = most if available is None else min(most, available)
        return max(1, usual // 2) if self.half_batches else most

    @property
    def device(self) -> torch.device:
        """The device of its weights."""
        return self.model.device

    @property
    def weights(self) -> WeightsFormat:
        """The number format of its weights."""
        if getattr(self.model, "is_loaded_in_4bit", False):
            return "nf4"
        return "bfloat16" if uses_bfloat16(self.model) else "float32"

    @property
    def pad_id(self) -> int:
        """Token that fills batches. It is always masked, so any token will do if the tokenizer's has no embedding."""
        known = (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id)
        rows = vocabulary_size(self.model.config)
        return next((token for token in known if isinstance(token, int) and (rows is None or token < rows)), 0)

    @property
    def context(self) -> int:
        """Maximum number of tokens that the model can read at once."""
        return context_of(self.model.config)

    @property
    def stop_ids(self) -> list[int]:
        """Tokens that end an answer."""
        known = self.model.generation_config.eos_token_id if self.model.generation_config else None
        known = self.tokenizer.eos_token_id if known is None else known
        listed = known if isinstance(known, list) else [known]
        return [token for token in listed if isinstance(token, int) and token >= 0]  # -1 stands for none

    def stop_also_at(self, token: int) -> None:
        """From now on, this token ends an answer too."""
        if token not in self.stop_ids:
            self.model.generation_config = GenerationConfig(eos_token_id=[*self.stop_ids, token])


def choose_device(wish: str) -> torch.device:
    """The device for `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        Unavailable: code `no_gpu`; there is no GPU, or none with that number.
    """
    if wish == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(wish)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == "cuda" and (device.index or 0) >= count:
        seen = f"{count} GPUs" if count else "no GPU"
        raise Unavailable(f"SECURETUNE_DEVICE is {wish!r}, but this worker sees {seen}.", code="no_gpu")
    return device


def load(
    entry: BaseModelEntry,
    device: torch.device,
    *,
    precision: Precision = "auto",
    four_bit: bool = False,
    choose_precision: ChoosePrecision = choose,
) -> BaseModel:
    """Load a base model. Its weights are in the precision that `choose_precision` returns, or 4-bit (NF4, computed in
    bfloat16).

    Raises:
        InvalidInput: code `qlora_needs_cuda`.
        InvalidModel: its files are missing, unsafe, or not a causal language model with a chat template.
        Unavailable: code `hub_unavailable` or `bitsandbytes_missing`.
    """
    if four_bit:
        _check_four_bit(device)
    folder = fetch(entry)
    check_files(entry.name, folder)
    chosen = choose_precision(precision, device, folder)
    dtype = torch.bfloat16 if chosen.weights == "bfloat16" else torch.float32
    config = read_config(entry, folder)
    warnings = make_loadable(entry, config)
    tokenizer = load_tokenizer(entry, folder, config)
    if (rows := vocabulary_size(config)) is not None:
        check_vocabulary(entry, tokenizer, rows)
    model = _read(entry, folder, config, device, dtype, four_bit=four_bit)
    model.requires_grad_(False).eval()
    # Only the model's terminators: its own sampling, beams and penalties would mix into every greedy answer.
    own = model.generation_config
    model.generation_config = GenerationConfig(eos_token_id=own.eos_token_id if own else None)
    files = folder_digest(folder)
    original = original_digest(folder, files) if isinstance(entry.source, GgufSource) else None
    identity = ModelIdentity(
        name=entry.name,
        source=describe_source(entry),
        sha256=original or files,
        files_sha256=files if original else None,
        parameters=model.num_parameters(),
        architecture=type(model).__name__,
        chat_template=entry.chat_template,
    )
    return BaseModel(
        model, tokenizer, identity, folder, (*warnings, *_precision_warnings(entry, chosen)), chosen.speedup
    )


def _precision_warnings(entry: BaseModelEntry, chosen: PrecisionUsed) -> tuple[Warned, ...]:
    """A notice if a CPU computes in bfloat16 without having been ordered to."""
    if chosen.weights != "bfloat16" or chosen.speedup is None:
        return ()
    return (
        Warned(
            code="bfloat16_on_cpu",
            message=f"The base model {entry.name!r} is computed in bfloat16, which is {chosen.speedup:g} times as fast "
            "as float32 on this CPU. Figures differ from those of float32 by rounding. Set training.precision to "
            "float32 to compare with earlier jobs.",
        ),
    )


def _check_four_bit(device: torch.device) -> None:
    """Check before anything is downloaded or read that this worker can use 4-bit weights."""
    if device.type != "cuda":
        raise InvalidInput(
            "Training on 4-bit weights (qlora) needs a CUDA GPU, and this worker does not use one. "
            "Choose lora instead.",
            code="qlora_needs_cuda",
            param="training.method",
        )
    if find_spec("bitsandbytes") is None:
        raise Unavailable(
            "Training on 4-bit weights (qlora) needs bitsandbytes, which this worker lacks: install securetune[gpu].",
            code="bitsandbytes_missing",
            param="training.method",
        )


def _read(
    entry: BaseModelEntry,
    folder: Path,
    config: PretrainedConfig,
    device: torch.device,
    dtype: torch.dtype,
    *,
    four_bit: bool,
) -> PreTrainedModel:
    with reading(entry, folder):
        model, found = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            trust_remote_code=False,
            local_files_only=True,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # so that they are reported by name
            dtype=dtype,
            output_loading_info=True,
            **(_packed(device) if four_bit else {}),
        )
    check_names(entry, model, found)
    model = model if four_bit else model.to(device)
    check_finite(entry, stored_tensors(folder) if four_bit else loaded_tensors(model))
    return model


def _packed(device: torch.device) -> dict[str, object]:
    """Options for 4-bit weights, which are packed while they are copied to the GPU and cannot be moved afterwards."""
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return {"quantization_config": config, "device_map": {"": device}}
