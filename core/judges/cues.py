"""Cues of the offline judge: their phrases and weights from a data file, and which of them a sentence has.

Not here: sentences and verdicts (core.judges.rules), the notation of phrases (core.wordlists).
"""

from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Self

from pydantic import model_validator

from core.schemas.base import Frozen
from core.wordlists import Distinct, PhraseSearch, WordList, read_data, require_disjoint

_DATA = Path(__file__).parent / "data" / "rules.toml"


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
    def _search(self) -> PhraseSearch:
        return PhraseSearch({cue: listed.phrases for cue, listed in self.cues.items()})

    def find(self, words: Sequence[str]) -> set[str]:
        """The cues in a sentence: the longest phrase from each word. Inside a phrase of "nothing", none starts."""
        cues: set[str] = set()
        skip = 0
        longest = {span.start: span for span in self._search.find(words)}
        for span in longest.values():
            if span.start >= skip:
                cues.add(span.name)
                skip = span.end if span.name == "nothing" else skip
        return cues


@cache
def load_cues() -> Cues:
    """The cues in the data file of this package."""
    return Cues.model_validate(read_data(_DATA))
