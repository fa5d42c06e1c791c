"""Reading a model's files with transformers: the configuration, and errors that show no path of the server.

It needs no torch. Not here: checks that need no transformers (core.modelfiles), the tokenizer (core.lm.tokenizer),
weights (core.lm.load).
"""

import re
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig, PretrainedConfig

from core.errors import InvalidModel
from core.schemas.events import Warned
from core.schemas.models import BaseModelEntry

_UNREADABLE = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    RuntimeError,
    AttributeError,
    ImportError,
    AssertionError,
    ArithmeticError,
    StrictDataclassError,
    SafetensorError,
)
"""Errors of transformers if files are incomplete, contradict each other, need another package or are not a model."""
_DIRECTORY = re.compile(r"(?<![\w:/.])/(?:[^\s/'\"`:,()]+/)+")
_MAX_LENGTH = 400
_ATTENTION = ("eager", "sdpa")
"""Implementations of attention that every installation has."""


@contextmanager
def reading(entry: BaseModelEntry, folder: Path, code: str = "model_unreadable") -> Generator[None]:
    """Turn errors of libraries that read a model's folder into an InvalidModel with this code."""
    try:
        yield
    except _UNREADABLE as error:
        raise _unreadable(entry, folder, error, code) from error
    except Exception as error:
        if type(error) is not Exception:  # the tokenizers package raises nothing more specific
            raise
        raise _unreadable(entry, folder, error, code) from error


def invalid(entry: BaseModelEntry, code: str, text: str) -> InvalidModel:
    """The error for a base model; `text` continues the sentence that begins with its name."""
    return InvalidModel(f"The base model {entry.name!r} {text}", code=code, param="base_model")


def read_config(entry: BaseModelEntry, folder: Path) -> PretrainedConfig:
    """The configuration of a model. The stated type of its weights is ignored, because the caller chooses it.

    Raises:
        InvalidModel: code `model_unreadable`.
    """
    with reading(entry, folder):
        return AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True, dtype="float32")


def make_loadable(entry: BaseModelEntry, config: PretrainedConfig) -> tuple[Warned, ...]:
    """Change what keeps a model from being loaded without changing what it computes. Returns a warning per change."""
    found: list[Warned] = []
    wish = config._attn_implementation  # it has no public name in transformers
    config._attn_implementation = wish if wish in _ATTENTION else None  # parts of the model too
    if wish not in (*_ATTENTION, None):
        found.append(
            _warned(
                entry,
                "attention_replaced",
                f"asks for the attention implementation {str(wish)[:60]!r}, which only some installations have. The "
                "default of transformers is used instead; it computes the same.",
            )
        )
    rows = vocabulary_size(config)
    text = config.get_text_config()
    for part in (config,) if text is config else (config, text):
        pad = getattr(part, "pad_token_id", None)
        if pad is not None and rows is not None and not 0 <= pad < rows:
            part.pad_token_id = None
            found.append(
                _warned(
                    entry,
                    "pad_token_replaced",
                    f"has the pad_token_id {pad} in config.json, but embeddings for the tokens 0 to {rows - 1} only. "
                    "Batches are padded with another token, which is always masked. Correct config.json before the "
                    "model is served.",
                )
            )
    if getattr(config, "auto_map", None):
        found.append(
            _warned(
                entry,
                "own_code_ignored",
                "comes with its own Python code (auto_map in config.json), which is never run. The code of "
                "transformers for this type of model is used: serve the model without trust_remote_code.",
            )
        )
    return tuple(found)


def vocabulary_size(config: PretrainedConfig) -> int | None:
    """Number of tokens that a model with this configuration has an embedding for."""
    size = getattr(config.get_text_config(), "vocab_size", None)
    return size if isinstance(size, int) else None


def context_of(config: PretrainedConfig) -> int:
    """Maximum number of tokens that a model with this configuration can read at once."""
    return int(getattr(config, "max_position_embeddings", 1 << 30))


def _warned(entry: BaseModelEntry, code: str, text: str) -> Warned:
    return Warned(code=code, message=f"The base model {entry.name!r} {text}")


def _unreadable(entry: BaseModelEntry, folder: Path, error: Exception, code: str) -> InvalidModel:
    text = " ".join(str(error).split()) or type(error).__name__
    if "trust_remote_code" in text:
        return invalid(
            entry,
            "remote_code",
            "needs its own Python code (auto_map in its configuration or its tokenizer's), which is never run: choose "
            "another model.",
        )
    for path in sorted({str(folder), str(folder.absolute()), str(folder.resolve())}, key=len, reverse=True):
        text = text.replace(path, "the model's folder")
    text = _DIRECTORY.sub("", text)
    if len(text) > _MAX_LENGTH:
        text = f"{text[:_MAX_LENGTH]} ..."
    return invalid(entry, code, f"cannot be loaded: {text}")
