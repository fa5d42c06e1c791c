"""Loads the tokenizer of an allowed base model, with the chat template that the model is served with.

It needs no torch, so that rows can be shown as they are trained on where no model can be loaded. Not here: weights
(core.lm.load), downloads (core.lm.files).
"""

from pathlib import Path

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase

from core.errors import InvalidModel
from core.lm.chat import use_plain_template
from core.schemas.models import BaseModelEntry

UNREADABLE = (OSError, ValueError, KeyError, TypeError, RuntimeError, StrictDataclassError)
"""Errors of transformers if files are incomplete, contradict each other or are not a model."""


def load_tokenizer(entry: BaseModelEntry, folder: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer in a model's folder.

    Raises:
        InvalidModel: code `model_unreadable`, `no_chat_template`, or what `use_plain_template` raises.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except UNREADABLE as error:
        raise unreadable(entry, error) from error
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
    return tokenizer


def read_context(entry: BaseModelEntry, folder: Path) -> int:
    """Maximum number of tokens that the model in a folder can read at once.

    Raises:
        InvalidModel: code `model_unreadable`.
    """
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except UNREADABLE as error:
        raise unreadable(entry, error) from error
    return context_of(config)


def context_of(config: PretrainedConfig) -> int:
    """Maximum number of tokens that a model with this configuration can read at once."""
    return int(getattr(config, "max_position_embeddings", 1 << 30))


def unreadable(entry: BaseModelEntry, error: Exception) -> InvalidModel:
    """The error for files that transformers cannot read."""
    return InvalidModel(
        f"Base model {entry.name!r} cannot be loaded: {error}", code="model_unreadable", param="base_model"
    )
