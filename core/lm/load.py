"""Loads an allowed base model: safetensors only, no code from the model, one pinned revision.

Covers: the device and the precision of its weights, including 4 bits.
Not here: which models are allowed (core.catalog), adapters (core.lm.adapter).
"""

from dataclasses import dataclass
from hashlib import file_digest, sha256
from importlib.util import find_spec
from pathlib import Path
from typing import assert_never

import torch
from httpx2 import HTTPError
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, StrictDataclassError
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from core.catalog import check_files
from core.errors import InvalidInput, InvalidModel, Unavailable
from core.lm.chat import use_plain_template
from core.schemas.models import BaseModelEntry, FolderSource, HubSource
from core.schemas.results import ModelIdentity
from core.schemas.training import Precision

_WANTED = ("*.safetensors", "*.json", "*.model", "*.jinja", "*.txt")
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError, StrictDataclassError)
"""Errors of transformers if files are incomplete, contradict each other or are not a model."""


@dataclass(frozen=True)
class BaseModel:
    """A base model in memory. `model` is in eval mode, and none of its parameters requires a gradient."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    identity: ModelIdentity
    folder: Path

    @property
    def device(self) -> torch.device:
        """The device of its weights."""
        return self.model.device

    @property
    def weights(self) -> str:
        """The precision of its weights: `float32`, `bfloat16` or `nf4`."""
        if getattr(self.model, "is_loaded_in_4bit", False):
            return "nf4"
        return str(self.model.dtype).removeprefix("torch.")

    @property
    def pad_id(self) -> int:
        """Token that fills batches; it is always masked."""
        known = (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id)
        return next((token for token in known if isinstance(token, int)), 0)

    @property
    def context(self) -> int:
        """Maximum number of tokens that the model can read at once."""
        return int(getattr(self.model.config, "max_position_embeddings", 1 << 30))

    @property
    def stop_ids(self) -> list[int]:
        """Tokens that end an answer."""
        known = self.model.generation_config.eos_token_id if self.model.generation_config else None
        known = self.tokenizer.eos_token_id if known is None else known
        return [token for token in (known if isinstance(known, list) else [known]) if isinstance(token, int)]

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


def in_bfloat16(precision: Precision, device: torch.device) -> bool:
    """Whether a training's forward pass is computed in bfloat16."""
    return precision == "bfloat16" or (precision == "auto" and device.type == "cuda")


def load(
    entry: BaseModelEntry, device: torch.device, *, precision: Precision = "auto", four_bit: bool = False
) -> BaseModel:
    """Load a base model. Its weights are float32 on a CPU, bfloat16 on a GPU unless `precision` is `float32`, or 4-bit
    (NF4, computed in bfloat16).

    Raises:
        InvalidInput: code `qlora_needs_cuda`.
        InvalidModel: its files are missing, unsafe, or not a causal language model with a chat template.
        Unavailable: code `hub_unavailable` or `bitsandbytes_missing`.
    """
    if four_bit:
        _check_four_bit(device)
    folder = fetch(entry)
    check_files(entry.name, folder)
    dtype = torch.bfloat16 if device.type == "cuda" and in_bfloat16(precision, device) else torch.float32
    model, tokenizer = _read(entry.name, folder, device, dtype, four_bit=four_bit)
    if tokenizer is None or (entry.chat_template == "own" and tokenizer.chat_template is None):
        raise InvalidModel(
            f"Base model {entry.name!r} has no chat template, so it is not clear how to format its prompts. "
            "Add the chat_template that it is served with to its tokenizer. If it is not served with one yet, set "
            'chat_template = "plain" in its entry in the server\'s list of models.',
            code="no_chat_template",
            param="base_model",
        )
    if entry.chat_template == "plain":
        use_plain_template(entry.name, tokenizer)
    model.requires_grad_(False).eval()
    # Only the model's terminators: its own sampling, beams and penalties would mix into every greedy answer.
    own = model.generation_config
    model.generation_config = GenerationConfig(eos_token_id=own.eos_token_id if own else None)
    identity = ModelIdentity(
        name=entry.name,
        source=_source(entry),
        sha256=folder_digest(folder),
        parameters=model.num_parameters(),
        architecture=type(model).__name__,
        chat_template=entry.chat_template,
    )
    return BaseModel(model, tokenizer, identity, folder)


def fetch(entry: BaseModelEntry) -> Path:
    """The folder with the model's files, which are downloaded first if the model comes from the hub.

    Raises:
        InvalidModel: code `model_missing`; this worker does not have the folder, or the hub does not have the revision.
        Unavailable: code `hub_unavailable`.
    """
    match entry.source:
        case FolderSource(path=path):
            if not path.is_dir():
                raise InvalidModel(
                    f"Base model {entry.name!r} should be in {path}, but this worker has no such folder.",
                    code="model_missing",
                    param="base_model",
                )
            return path
        case HubSource(id=repo, revision=revision):
            try:
                return Path(snapshot_download(repo, revision=revision, allow_patterns=list(_WANTED)))
            except HfHubHTTPError as error:
                raise InvalidModel(
                    f"The model hub did not return {repo} at {revision}: {error}",
                    code="model_missing",
                    param="base_model",
                ) from error
            except (LocalEntryNotFoundError, HTTPError) as error:  # never reached, or the connection was lost
                raise Unavailable(
                    f"The model hub cannot be reached and {repo} is not on this worker yet.", code="hub_unavailable"
                ) from error
        case _:
            assert_never(entry.source)


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
    name: str, folder: Path, device: torch.device, dtype: torch.dtype, *, four_bit: bool
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase | None]:
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        model, found = AutoModelForCausalLM.from_pretrained(
            folder,
            trust_remote_code=False,
            local_files_only=True,
            use_safetensors=True,
            dtype=dtype,
            output_loading_info=True,
            **(_packed(device) if four_bit else {}),
        )
    except _UNREADABLE as error:
        raise InvalidModel(
            f"Base model {name!r} cannot be loaded: {error}", code="model_unreadable", param="base_model"
        ) from error
    if missing := sorted(found["missing_keys"]):  # transformers would initialize them at random and only log it
        raise InvalidModel(
            f"Base model {name!r} lacks {len(missing)} of its weights, such as {missing[0]}. Copy all of its files.",
            code="model_unreadable",
            param="base_model",
        )
    return model if four_bit else model.to(device), tokenizer


def _packed(device: torch.device) -> dict[str, object]:
    """Options for 4-bit weights, which are packed while they are copied to the GPU and cannot be moved afterwards."""
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return {"quantization_config": config, "device_map": {"": device}}


def _source(entry: BaseModelEntry) -> str:
    match entry.source:
        case FolderSource(path=path):
            return f"folder {path.name}"
        case HubSource(id=repo, revision=revision):
            return f"{repo}@{revision}"
        case _:
            assert_never(entry.source)


def folder_digest(folder: Path) -> str:
    """SHA-256 over names and contents of a model's files, in hex."""
    total = sha256()
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        with path.open("rb") as file:
            total.update(f"{path.name} {file_digest(file, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()
