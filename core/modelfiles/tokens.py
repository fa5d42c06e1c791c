"""A model's vocabulary against its embedding: tokens that the model has no row for, and templates of a wrong type.

A token without a row ends every computation on it. It is harmless only if nothing can write it: a control token
that neither ends answers nor occurs in the chat template, such as an image placeholder or a padding token, which is
always masked. Rows without a token are padding and always harmless.
Not here: the loaded tokenizer (core.lm.tokenizer).
"""

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from core.modelfiles.config import text_configs
from core.modelfiles.reading import (
    CONFIG_LIMIT,
    TOKENIZER_LIMIT,
    JsonObject,
    Problem,
    read_object,
    read_text,
    unreadable,
)
from core.modelfiles.weights import Tensors, embedding_rows

_KINDS = ("BPE", "WordPiece", "WordLevel", "Unigram")
"""Models that the tokenizers package can read."""
_SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token", "cls_token", "sep_token", "mask_token")
"""Special tokens by the names that chat templates use for them."""


class Token(NamedTuple):
    """A token of a vocabulary."""

    id: int
    content: str
    control: bool
    """It is matched as a whole and never comes out of ordinary text."""


def find_rowless(tokens: Iterable[Token], rows: int, *, named: Collection[str], template: str) -> list[Token]:
    """Tokens that the model has no row for and that can occur: ordinary ones, and control tokens that are among
    `named` or in the chat template.
    """
    beyond = [token for token in tokens if token.id >= rows]
    return sorted(token for token in beyond if not token.control or token.content in named or token.content in template)


def rowless_problem(found: Collection[Token], rows: int) -> Problem:
    """The problem of tokens that have no row."""
    shown = ", ".join(f"{token.content[:40]!r} ({token.id})" for token in list(found)[:3])
    return Problem(
        "tokens_without_embedding",
        f"has {rows} token embeddings, and its tokenizer writes tokens beyond them ({len(found)}): {shown}. Tokens "
        "were added without resizing the model: call resize_token_embeddings() and train them, or use the tokenizer "
        "that belongs to the model.",
    )


def check_tokens(folder: Path, config: JsonObject, tensors: Tensors) -> Problem | None:
    """The first problem of the tokenizer's files and of the token ids in the configurations."""
    settings = _optional(folder / "tokenizer_config.json")
    if isinstance(settings, Problem):
        return settings
    if not isinstance(settings.get("model_max_length", 0), int | float | None):
        return unreadable("tokenizer_config.json", "has a model_max_length that is not a number")
    own = (folder / "chat_template.jinja").is_file()  # takes precedence
    if not own and (problem := _check_template(settings)):
        return problem
    rows = embedding_rows(config, tensors)
    tokens = _read_tokens(folder, settings, rows or 0)
    if isinstance(tokens, Problem) or rows is None:
        return tokens if isinstance(tokens, Problem) else None
    template = "".join(_templates(folder, settings))
    written = [field for field in _SPECIAL if field == "eos_token" or field in template]
    named = {content for field in written if (content := _content(settings.get(field)))}
    if found := find_rowless(tokens, rows, named=named, template=template):
        return rowless_problem(found, rows)
    return _check_stops(folder, config, rows)


def _check_stops(folder: Path, config: JsonObject, rows: int) -> Problem | None:
    """A token that should end answers and that the model cannot write. Other ids out of range are never used."""
    generation = _optional(folder / "generation_config.json")
    if isinstance(generation, Problem):
        return generation
    for file, part in [
        ("generation_config.json", generation),
        *(("config.json", each) for each in text_configs(config)),
    ]:
        stated = part.get("eos_token_id")
        for token in stated if isinstance(stated, list) else [stated]:
            if isinstance(token, int) and token >= rows:
                return Problem(
                    "token_out_of_range",
                    f"has the eos_token_id {token} in {file}, but only {rows} token embeddings, so answers would not "
                    "end there. Set it to the token that ends an answer.",
                )
    return None


def _check_template(settings: JsonObject) -> Problem | None:
    template = settings.get("chat_template")
    if template is None or isinstance(template, str):
        return None
    if isinstance(template, list):
        named = {each["name"]: each["template"] for each in template if _is_named(each)}
        if len(named) == len(template) and "default" in named:
            return None
    return Problem(
        "chat_template_invalid",
        "has a chat_template in tokenizer_config.json that is neither a text nor a list of named texts with one named "
        "'default'. Set the template that the model is served with.",
    )


def _is_named(entry: object) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("name"), str) and isinstance(entry.get("template"), str)


def _templates(folder: Path, settings: JsonObject) -> Iterator[str]:
    yield str(settings.get("chat_template") or "")
    for path in (folder / "chat_template.jinja", *sorted(folder.glob("additional_chat_templates/*.jinja"))):
        yield read_text(path, CONFIG_LIMIT)


def _read_tokens(folder: Path, settings: JsonObject, least: int) -> list[Token] | Problem:
    """The tokens that the tokenizer's JSON files name, of ordinary ones those with the id `least` or a higher one."""
    content = _optional(folder / "tokenizer.json")
    if isinstance(content, Problem):
        return content
    tokens = [*_added(content.get("added_tokens")), *_added(_with_ids(settings.get("added_tokens_decoder")))]
    if not content:
        return tokens
    model = content.get("model")
    kind = model.get("type") if isinstance(model, dict) else None
    if not isinstance(model, dict) or (kind not in _KINDS and ("type" in model or "vocab" not in model)):
        return Problem(
            "tokenizer_unreadable",
            f"has a tokenizer.json of a kind that is not known here ({str(kind)[:40]}): it was written by a newer "
            "version of tokenizers, or is damaged. Save the tokenizer again with an older version, or choose another "
            "model.",
        )
    added = {token.id for token in tokens}
    vocab = model.get("vocab")
    if isinstance(vocab, dict):
        ordinary = [(each, text) for text, each in vocab.items() if isinstance(each, int) and each >= least]
    else:
        ordinary = list(enumerate(vocab))[least:] if isinstance(vocab, list) else []
    return tokens + [Token(place, str(text), control=False) for place, text in ordinary if place not in added]


def _with_ids(decoder: object) -> list[object]:
    """The entries of `added_tokens_decoder`, which has the ids as keys, like those of `added_tokens`."""
    if not isinstance(decoder, dict):
        return []
    return [
        {**entry, "id": int(place)}
        for place, entry in decoder.items()
        if isinstance(entry, dict) and str(place).isdecimal()
    ]


def _added(entries: object) -> Iterator[Token]:
    for entry in entries if isinstance(entries, list) else ():
        match entry:
            case {"id": int(place), "content": str(content)}:
                yield Token(place, content, control=entry.get("special") is True)
            case _:
                pass


def _content(value: object) -> str | None:
    """The text of a special token in tokenizer_config.json, which is a text or an object."""
    found = value.get("content") if isinstance(value, dict) else value
    return found if isinstance(found, str) else None


def _optional(path: Path) -> JsonObject | Problem:
    if not path.is_file():
        return {}
    return read_object(path, TOKENIZER_LIMIT)
