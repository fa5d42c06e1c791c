"""Phrases in clauses of plain words: many of them are found in one pass, by a tree of words.

Not here: how phrases are written down (core.wordlists), which there are (core.screening.harmcues).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from core.wordlists import Phrase


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

    def __init__(self, lists: Mapping[str, Iterable[Phrase]]) -> None:
        self._root = _Node()
        for name, phrases in lists.items():
            for words in phrases:
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
