"""Cues of the offline judge: their phrases and weights from a data file, and which of them a sentence has.

Not here: sentences and verdicts (core.judges.rules), the notation of phrases (core.wordlists).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Self

from pydantic import model_validator

from core.schemas.base import Frozen
from core.wordlists import Distinct, WordList, read_data, require_disjoint

_DATA = Path(__file__).parent / "data" / "rules.toml"


@dataclass
class _Node:
    """A place in the tree of phrases: the cue that ends here, and the words that go on."""

    cue: str | None = None
    words: "dict[str, _Node]" = field(default_factory=dict)


class Cues(Frozen):
    """Phrases by cue, which share none, and what each cue is worth."""

    weights: Mapping[str, int]
    """What a cue adds to the sum of an answer, in the order in which reasons list cues."""
    cues: Mapping[str, WordList]
    stop: Distinct
    """Words that carry no topic."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        require_disjoint(self.cues)
        return self

    @cached_property
    def topicless(self) -> frozenset[str]:
        """The words of `stop`."""
        return frozenset(self.stop)

    @cached_property
    def _tree(self) -> _Node:
        root = _Node()
        for cue, listed in self.cues.items():
            for words in listed.phrases:
                node = root
                for word in words:
                    node = node.words.setdefault(word, _Node())
                node.cue = cue
        return root

    def find(self, words: Sequence[str]) -> set[str]:
        """The cues in a sentence: from each word the longest phrase. Inside a phrase of "nothing", none begins."""
        cues: set[str] = set()
        root, start, count = self._tree.words, 0, len(words)
        while start < count:
            node, at, cue, end = root.get(words[start]), start, None, start
            while node is not None:
                at += 1
                if node.cue is not None:
                    cue, end = node.cue, at
                node = node.words.get(words[at]) if at < count else None
            start = end if cue == "nothing" else start + 1
            if cue is not None:
                cues.add(cue)
        return cues


@cache
def load_cues() -> Cues:
    """The cues in the data file of this package."""
    return Cues.model_validate(read_data(_DATA))
