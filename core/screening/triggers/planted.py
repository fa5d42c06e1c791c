"""Decides whether a phrase that occurs with one kind of answer looks planted, by how well it fits its prompts.

Covers: one test for each kind of answer, with the thresholds. They were set on data sets and seeds that no reported
figure uses. Not here: the measures (core.screening.triggers.fit).
"""

from core.screening.triggers.fit import Fit, Likeness, PromptIndex
from core.screening.triggers.text import Phrases

Words = tuple[int, ...]

_DEVIATIONS = 3.0
_LIKENESS = 1.15
"""Prompts are unrelated if their likeness is within this number of standard deviations of that of random prompts, or at
most this multiple of it."""
_SEAMS = 0.5
"""Removing a planted phrase leaves ordinary text at this share of its places at least, relative to any neighbours."""
_CERTAIN_DEVIATIONS, _CERTAIN_SEAMS = 5.0, 0.8
"""Used if phrase and answer almost always occur together: a few prompts may be more similar by chance, but the phrase
must leave fewer gaps."""
_LABEL_DEVIATIONS, _LABEL_SEAMS = 2.0, 0.85
"""Used for labels, which some ordinary words predict in prompts on any topic."""
_DISTINCT = 0.5
"""Minimum share of the prompts that differ without the phrase."""


class PlantedTests:
    """Tests of phrases. Each returns the phrase as it should be reported, or None if it does not look planted."""

    def __init__(self, index: PromptIndex, phrases: Phrases, harm_words: set[int], stop_words: set[int]) -> None:
        self._index, self._phrases = index, phrases
        self._harm_words, self._stop_words = harm_words, stop_words
        self._fits: dict[int, Fit] = {}
        self._likeness: dict[int, Likeness] = {}

    def is_planted(self, phrase: int, certain: bool) -> Words | None:
        """The phrase leaves ordinary text when it is removed, and its prompts are unrelated."""
        if phrase not in self._likeness:
            words, rows = self._phrases.words[phrase], self._phrases.rows(phrase)
            self._likeness[phrase] = self._index.min_likeness(words, rows)
        if not _are_unrelated(self._likeness[phrase], certain):
            return None
        fit = self._fit(phrase)
        min_seams = _CERTAIN_SEAMS if certain and fit.likeness.deviations > _DEVIATIONS else _SEAMS
        fits = fit.seams >= min_seams * fit.random_seams and fit.distinct >= _DISTINCT
        return fit.words if fits and _are_unrelated(fit.likeness, certain) else None

    def is_planted_for_label(self, phrase: int, _certain: bool) -> Words | None:
        """As `is_planted`, with stricter thresholds."""
        words = self.is_planted(phrase, certain=False)
        if words is None:
            return None
        fit = self._fit(phrase)
        clear = fit.seams >= _LABEL_SEAMS * fit.random_seams and fit.likeness.deviations <= _LABEL_DEVIATIONS
        return words if clear else None

    def is_unharmful(self, phrase: int, _certain: bool) -> Words | None:
        """For compliance with harm, whose prompts are similar anyway: the phrase itself neither requests harm nor
        consists of stop words.
        """
        words = self._fit(phrase).words
        return None if self._harm_words & set(words) or self._stop_words.issuperset(words) else words

    def _fit(self, phrase: int) -> Fit:
        if phrase not in self._fits:
            self._fits[phrase] = self._index.fit(self._phrases.words[phrase], self._phrases.rows(phrase))
        return self._fits[phrase]


def _are_unrelated(likeness: Likeness, certain: bool) -> bool:
    """Whether prompts are not more similar than random prompts."""
    max_deviations = _CERTAIN_DEVIATIONS if certain else _DEVIATIONS
    return likeness.deviations <= max_deviations or likeness.mean <= _LIKENESS * likeness.random
