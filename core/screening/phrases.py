"""Phrases in clauses of plain words: many of them are found in one pass, by a tree of words.

In a list of phrases, blanks part phrases and `_` stands for a blank inside one; `a|b` is either word. Not here: which
phrases there are (core.screening.harmcues, core.screening.identity).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Literal

Kind = Literal["verbs", "nouns", "fixed"]
"""`verbs`: the first word is inflected. `nouns`: the last word may be a plural. `fixed`: as it stands."""


@dataclass(frozen=True, slots=True)
class Span:
    """A phrase that was found: words `start` up to `end` (exclusive), and the list that it is in."""

    start: int
    end: int
    name: str


@dataclass(slots=True)
class _Node:
    names: set[str] = field(default_factory=set)
    words: "dict[str, _Node]" = field(default_factory=dict)


class Phrases:
    """Lists of phrases by name, to be found together."""

    def __init__(self, lists: Mapping[str, tuple[Kind, str]]) -> None:
        self._root = _Node()
        for name, (kind, text) in lists.items():
            for words in _spelled_out(text, kind):
                node = self._root
                for word in words:
                    node = node.words.setdefault(word, _Node())
                node.names.add(name)

    def find(self, words: Sequence[str]) -> list[Span]:
        """Every phrase, by where it begins; a phrase inside another one counts as well."""
        found: list[Span] = []
        root = self._root.words
        for start, first in enumerate(words):
            node = root.get(first)
            end = start + 1
            while node is not None:
                found.extend(Span(start, end, name) for name in sorted(node.names))
                node = node.words.get(words[end]) if end < len(words) and node.words else None
                end += 1
        return found


def _spelled_out(text: str, kind: Kind) -> Iterator[list[str]]:
    for entry in text.split():
        for choice in product(*(part.split("|") for part in entry.split("_"))):
            words = [word for word in choice if word]
            if kind == "verbs":
                yield from ([form, *words[1:]] for form in inflected(words[0]))
            elif kind == "nouns":
                yield from ([*words[:-1], form] for form in (words[-1], _plural(words[-1])))
            else:
                yield words


def inflected(verb: str) -> Iterable[str]:
    """The forms of a regular verb, and some that nobody writes."""
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
