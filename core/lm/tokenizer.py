"""Loads the tokenizer of an allowed base model, with the chat template that the model is served with.

It needs no torch, so that rows can be shown as they are trained on where no model can be loaded. Covers: whether the
model has an embedding for every token that can occur. Not here: weights (core.lm.load), downloads (core.lm.files).
"""

from collections.abc import Iterator
from pathlib import Path

from jinja2 import TemplateError
from transformers import AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase

from core.lm.chat import use_plain_template
from core.lm.reading import invalid, reading
from core.modelfiles import Token, find_rowless, rowless_problem
from core.schemas.models import BaseModelEntry

_PROBES = (
    [{"role": "user", "content": "Hello"}],
    [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hello"}],
    [{"role": "system", "content": "Hello"}, {"role": "user", "content": "Hello"}],
)
"""Conversations in which a chat template writes its control tokens."""


def load_tokenizer(entry: BaseModelEntry, folder: Path, config: PretrainedConfig) -> PreTrainedTokenizerBase:
    """Load the tokenizer in a model's folder; `config` is the model's configuration.

    Raises:
        InvalidModel: code `tokenizer_unreadable`, `no_chat_template`, `chat_template_invalid`, or
            what `use_plain_template` raises.
    """
    with reading(entry, folder, "tokenizer_unreadable"):
        tokenizer = AutoTokenizer.from_pretrained(folder, config=config, trust_remote_code=False, local_files_only=True)
    if tokenizer is None or (entry.chat_template == "own" and tokenizer.chat_template is None):
        raise invalid(
            entry,
            "no_chat_template",
            "has no chat template, so it is not clear how to format its prompts. Add the chat_template that it is "
            'served with to its tokenizer. If it is not served with one yet, set chat_template = "plain" in its '
            "entry in the server's list of models.",
        )
    if not all(isinstance(text, str) for text in _templates(tokenizer)):
        raise invalid(
            entry,
            "chat_template_invalid",
            "has a chat template that is neither a text nor a list of named texts with one named 'default'. Set the "
            "template that the model is served with.",
        )
    if entry.chat_template == "plain":
        use_plain_template(entry.name, tokenizer)
    return tokenizer


def check_vocabulary(entry: BaseModelEntry, tokenizer: PreTrainedTokenizerBase, rows: int) -> None:
    """Check that a model with this number of token embeddings has one for every token that can occur.

    Raises:
        InvalidModel: code `tokens_without_embedding`.
    """
    vocabulary = tokenizer.get_vocab()
    if max(vocabulary.values(), default=0) < rows:
        return
    added = tokenizer.added_tokens_decoder
    tokens = [Token(place, text, place in added and added[place].special) for text, place in vocabulary.items()]
    written = set(_written(tokenizer))
    named = {str(tokenizer.eos_token), *(token.content for token in tokens if token.id in written)}
    template = "".join(map(str, _templates(tokenizer)))
    if found := find_rowless(tokens, rows, named=named, template=template):
        problem = rowless_problem(found, rows)
        raise invalid(entry, problem.code, problem.text)


def _written(tokenizer: PreTrainedTokenizerBase) -> Iterator[int]:
    """Ids of the tokens that the chat template writes; it may put the name of a token together from parts."""
    for turns in _PROBES:
        try:
            text = str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
        except (TemplateError, TypeError, ValueError):  # core.data.turns reports what a template cannot express
            continue
        yield from tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]


def _templates(tokenizer: PreTrainedTokenizerBase) -> list[object]:
    """The texts of the chat template: several if they are named, of which one must be the default."""
    template: object = tokenizer.chat_template
    if isinstance(template, dict):
        return [template.get("default"), *template.values()]
    return [] if template is None else [template]
