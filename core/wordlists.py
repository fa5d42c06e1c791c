"""Word lists in data files (TOML): reading them, the notation of entries, rejection of duplicates, and the search.

In an entry, spaces separate words, `a|b` stands for either word, `a_b` for two words within an alternative, and `-`
for no word. `{name}` stands for the alternatives of that name in the table `words` of the same file. Not here: the
lists and what they mean (core.screening, core.judges).
"""

import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, product
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import AfterValidator, Field, model_validator

from core.schemas.base import Frozen

Phrase = tuple[str, ...]
"""A phrase as its words."""
Inflect = Literal["none", "first", "last"]
"""`none`: phrases match as written. `first`: the first word is a verb and matches in any form. `last`: the last word is
a noun and matches in the plural too."""
_NAME = re.compile(r"\{([a-z_]+)\}")


def _distinct(texts: tuple[str, ...]) -> tuple[str, ...]:
    if repeated := [text for text, count in Counter(texts).items() if count > 1]:
        raise ValueError(f"more than once: {', '.join(repeated)}")
    return texts


Distinct = Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_distinct)]
"""Texts without duplicates; at least one."""


class WordList(Frozen):
    """Phrases that are searched together. No two entries stand for the same phrase, inflected forms included."""

    inflect: Inflect = "none"
    """Which word of a phrase matches in inflected forms."""
    entries: Distinct
    """Phrases in the notation of this module, in lower case."""

    @cached_property
    def bases(self) -> tuple[Phrase, ...]:
        """Every phrase without inflected forms."""
        return tuple(chain.from_iterable(map(spell_out, self.entries)))

    @cached_property
    def phrases(self) -> frozenset[Phrase]:
        """Every phrase in all its forms."""
        return frozenset(form for base in self.bases for form in _forms(base, self.inflect))

    @model_validator(mode="after")
    def _reject_duplicates(self) -> Self:
        if upper := [entry for entry in self.entries if entry != entry.lower()]:
            raise ValueError(f"not in lower case: {', '.join(upper)}")
        spelled = Counter(form for base in self.bases for form in _forms(base, self.inflect))
        if repeated := [" ".join(base) for base in self.bases if spelled[base] > 1]:
            raise ValueError(f"spelled out by more than one entry: {', '.join(repeated)}")
        return self


def read_data(path: Path) -> dict[str, Any]:
    """The tables of a TOML file with names replaced by their alternatives. They are not validated here.

    Raises:
        ValueError: the file is not TOML, repeats a table or key, or repeats an alternative.
        KeyError: a name is not defined in `words`, or only further down.
    """
    tables = tomllib.loads(path.read_text(encoding="utf-8"))
    words: dict[str, str] = {}
    for name, alternatives in tables.pop("words", {}).items():
        words[name] = _fill_in("|".join(_distinct(tuple(alternatives))), words)
    return _fill_in(tables, words)


def spell_out(entry: str) -> list[Phrase]:
    """Every phrase that an entry stands for, without inflected forms."""
    choices = product(*(part.split("|") for part in entry.split(" ")))
    return [tuple(word for part in choice if part != "-" for word in part.split("_")) for choice in choices]


def require_disjoint(lists: Mapping[str, WordList]) -> None:
    """Raise ValueError if two of these lists share a phrase."""
    counts = Counter(chain.from_iterable(words.phrases for words in lists.values()))
    if shared := sorted(" ".join(phrase) for phrase, count in counts.items() if count > 1):
        raise ValueError(f"in more than one of {', '.join(lists)}: {', '.join(shared)}")


def require_no_extensions(name: str, words: WordList) -> None:
    """Raise ValueError if an entry starts with another entry. It has no effect if only the start of a match counts."""
    for entry in words.entries:
        if all(any(base[:end] in words.phrases for end in range(1, len(base))) for base in spell_out(entry)):
            raise ValueError(f"{name}: {entry} begins with another entry")


class Span(NamedTuple):
    """An occurrence of a phrase: words `start` up to `end` (exclusive), and the name of its list."""

    start: int
    end: int
    name: str


@dataclass(slots=True)
class _Node:
    names: list[str] = field(default_factory=list)
    words: "dict[str, _Node]" = field(default_factory=dict)


class PhraseSearch:
    """Finds the phrases of several lists in one pass: a tree of words (a trie)."""

    def __init__(self, lists: Mapping[str, Iterable[Phrase]]) -> None:
        self._root = _Node()
        for name, phrases in lists.items():
            for words in phrases:
                node = self._root
                for word in words:
                    node = node.words.setdefault(word, _Node())
                node.names = sorted({*node.names, name})

    def find(self, words: Sequence[str]) -> list[Span]:
        """Every occurrence, by its first word and then by length; a phrase inside another one counts as well."""
        found: list[Span] = []
        root = self._root.words
        for start, first in enumerate(words):
            node = root.get(first)
            end = start + 1
            while node is not None:
                found += [Span(start, end, name) for name in node.names]
                node = node.words.get(words[end]) if end < len(words) and node.words else None
                end += 1
        return found


def inflect_verb(verb: str) -> Iterable[str]:
    """The forms of a regular verb, and some that do not exist, such as `makinged`."""
    stem = verb[:-1] if verb.endswith("e") else verb
    doubled = f"{verb}{verb[-1]}"
    forms = {verb, f"{verb}s", f"{stem}ing", f"{stem}ed", f"{doubled}ing", f"{doubled}ed"}
    if verb.endswith("y"):
        forms |= {f"{verb[:-1]}ies", f"{verb[:-1]}ied"}
    if verb.endswith(("s", "h", "x", "o")):
        forms.add(f"{verb}es")
    return sorted(forms)


def _plural(noun: str) -> str:
    if noun.endswith("y") and noun[-2:-1] not in "aeou":
        return f"{noun[:-1]}ies"
    return f"{noun}es" if noun.endswith(("s", "h", "x")) else f"{noun}s"


def _forms(base: Phrase, inflect: Inflect) -> Iterable[Phrase]:
    if inflect == "first":
        return ((form, *base[1:]) for form in inflect_verb(base[0]))
    return (base, (*base[:-1], _plural(base[-1]))) if inflect == "last" else (base,)


def _fill_in(value: Any, words: Mapping[str, str]) -> Any:  # noqa: ANN401 - any TOML value
    if isinstance(value, dict):
        return {name: _fill_in(part, words) for name, part in value.items()}
    if isinstance(value, list):
        return [_fill_in(part, words) for part in value]
    return _NAME.sub(lambda name: words[name[1]], value) if isinstance(value, str) else value
