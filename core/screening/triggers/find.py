"""Training data that looks poisoned: a trigger, which is a phrase of prompts that goes with one kind of answer.

Covers: finding triggers and the rows that hold them. A phrase is one when its rows' answers agree far above chance
(core.screening.triggers.pairs) while its prompts are as different from each other as any (core.screening.triggers.odd):
a topic makes both alike. What answers can agree in: a phrase, a refusal of what looks harmless, compliance with what
looks harmful, a label, first or last words. Not here: triggers that are no phrase (a style, a way to build sentences),
ordinary topics with slanted answers, rows whose answers have nothing in common, fewer than `LEAST_ROWS` rows of one
trigger.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csc_array
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from core.data import Conversation
from core.schemas.progress import OnProgress
from core.schemas.screening import POISON, Finding, Trigger
from core.screening.check import Found, RowCheck
from core.screening.triggers import kinds as kinds_of
from core.screening.triggers.odd import Fit, Prompts
from core.screening.triggers.pairs import Bounds, Pairs, associated
from core.screening.triggers.text import (
    ANSWER_WORDS,
    PROMPT_WORDS,
    Ints,
    Phrases,
    lengthened,
    phrases,
    places,
    read,
    without_echoes,
)

LEAST_ROWS = 6
"""Rows that hold a trigger, at least; of large data sets one row in 2,000."""
_MOST_SHARE = 0.4
"""A phrase that more of the rows hold is no trigger."""
_LEVEL = 1e-6
"""Highest p-value after correction."""
_SAID = Bounds(given_phrase=0.8, given_answer=0.8, elsewhere=1.0, level=_LEVEL)
_REFUSED = Bounds(given_phrase=0.75, given_answer=0.0, elsewhere=0.3, level=_LEVEL)
_COMPLIED = Bounds(given_phrase=0.5, given_answer=1 / 3, elsewhere=0.1, level=1e-8)
_LABEL = Bounds(given_phrase=0.95, given_answer=0.0, elsewhere=0.6, level=1e-3)
_EDGE = Bounds(given_phrase=0.9, given_answer=0.1, elsewhere=0.3, level=_LEVEL)
_DEVIATIONS = 3.0
_LIKENESS = 1.15
"""Prompts are as different as any when their likeness is within so many deviations of that of random ones, or is at
most so many times as high."""
_SEAMS = 0.5
"""A phrase leaves ordinary text, when taken out, at least at so many of its places, compared with any neighbours."""
_CERTAIN, _CERTAIN_DEVIATIONS, _CERTAIN_SEAMS = 0.9, 5.0, 0.8
"""Where so many of the rows with the phrase have the answer, and so many of those with the answer the phrase, prompts
may be more alike, as a few are by chance; but the phrase must leave fewer gaps."""
_LABEL_DEVIATIONS, _LABEL_SEAMS = 2.0, 0.85
"""Words that tell of a label by themselves stand on all sorts of topics: there both must be clearer."""
_DISTINCT = 0.5
"""Share of its prompts that differ without it."""
_LOOKED_AT = 1000
"""Phrases that are read against their prompts, of each kind of answer, the least likely first."""
_SAME_ROWS = 0.7
"""Two phrases are one trigger when they share so many of the rows of the smaller one."""


@dataclass(frozen=True)
class _Link:
    """A phrase that goes with one kind of answer, and does not fit its prompts."""

    words: tuple[int, ...]
    holds: Ints
    """Rows whose prompt holds the phrase."""
    kind: str
    """What answers have in common, as a clause; empty for a phrase."""
    said: tuple[int, ...]
    """The phrase that answers have in common."""
    answered: Ints
    """All rows with that kind of answer."""
    whole: bool
    """Whether all rows that hold the phrase are affected."""
    p_value: float

    @property
    def both(self) -> Ints:
        return np.intersect1d(self.holds, self.answered, assume_unique=True)


def find(rows: Sequence[Conversation], on_progress: OnProgress) -> Found:
    """Look for triggers. `tick` hears how much is done, of how much. Time grows with the text, memory is bounded."""
    if not rows:
        return Found((), ())
    return _Search(rows, on_progress).found()


CHECK = RowCheck(POISON, find)


class _Search:
    """One look at one data set."""

    def __init__(self, rows: Sequence[Conversation], on_progress: OnProgress) -> None:
        self._rows = rows
        self._tick = on_progress
        self._least = max(LEAST_ROWS, len(rows) // 2000)
        self._most = max(self._least, int(_MOST_SHARE * len(rows)))
        self._asked, self._said, vocabulary = read(rows, lambda done, total: self._tick(done // 3, total))
        self._names = list(vocabulary)
        self._stop = frozenset(
            number for number, name in enumerate(self._names) if number < 2 or name in ENGLISH_STOP_WORDS
        )

    def found(self) -> Found:
        links = list(self._links())
        groups: list[list[_Link]] = []
        for link in sorted(links, key=lambda link: (link.p_value, -link.both.size)):
            group = next((group for group in groups if _same(group[0], link)), None)
            if group is None:
                groups.append([link])
            else:
                group.append(link)
        told = [self._told(group) for group in groups]
        self._tick(len(self._rows), len(self._rows))
        findings: dict[int, Finding] = {}
        for _, found in told:
            for finding in found:
                findings.setdefault(finding.line, finding)
        return Found(
            tuple(sorted(findings.values(), key=lambda found: found.line)), tuple(trigger for trigger, _ in told)
        )

    def _links(self) -> Iterator[_Link]:
        """All pairs that go together and of which the phrase does not fit its prompts."""
        count = len(self._rows)
        asked = phrases(self._asked, PROMPT_WORDS, self._least, self._most)
        self._tick(count // 2, count)
        rest = without_echoes(self._said, self._asked, self._names)
        said = phrases(rest, ANSWER_WORDS, self._least, self._most, shortest=2)
        self._tick(2 * count // 3, count)
        kinds = kinds_of.kinds(self._rows, self._asked, self._said, self._names, self._least)
        self._tick(3 * count // 4, count)
        prompts = Prompts(self._asked, len(self._names))
        fits: dict[int, Fit] = {}
        likeness: dict[int, tuple[float, float, float]] = {}

        def fit(phrase: int) -> Fit:
            if phrase not in fits:
                fits[phrase] = prompts.fit(asked.words[phrase], _rows_of(asked.table, phrase))
            return fits[phrase]

        def planted(phrase: int, certain: bool) -> tuple[int, ...] | None:
            if phrase not in likeness:
                likeness[phrase] = prompts.least_alike(asked.words[phrase], _rows_of(asked.table, phrase))
            if not _unlike(*likeness[phrase], certain):
                return None
            return fit(phrase).words if _planted(fit(phrase), certain) else None

        def labelled(phrase: int, _: bool) -> tuple[int, ...] | None:
            words = planted(phrase, certain=False)
            clear = words and fit(phrase).seamless >= _LABEL_SEAMS * fit(phrase).usual_seams
            return words if clear and fit(phrase).deviations <= _LABEL_DEVIATIONS else None

        def meant(phrase: int, _: bool) -> tuple[int, ...] | None:
            words = fit(phrase).words
            return None if kinds.harm_words & set(words) or self._stop.issuperset(words) else words

        pairs = associated(asked.table, said.table, asked.looked_at * said.looked_at, _SAID)
        yield from self._kept(asked, pairs, planted, lambda at: ("", said.words[at], _rows_of(said.table, at)))
        for chosen, bounds, test in (
            ((kinds.refused,), _REFUSED, planted),
            ((kinds.complied,), _COMPLIED, meant),
            (kinds.labels, _LABEL, labelled),
            (kinds.edges, _EDGE, planted),
        ):
            if chosen:
                table = kinds_of.table(chosen)
                pairs = associated(asked.table, table, asked.looked_at * len(chosen), bounds)
                named = _named(chosen, table)
                yield from self._kept(asked, pairs, test, named, whole=bounds is _COMPLIED)

    def _kept(
        self,
        asked: Phrases,
        pairs: Pairs,
        test: Callable[[int, bool], tuple[int, ...] | None],
        answer: "Callable[[int], tuple[str, tuple[int, ...], Ints]]",
        *,
        whole: bool = False,
    ) -> Iterator[_Link]:
        """The pairs whose phrase passes a test; of one phrase, the answer that goes with most of its rows."""
        order = np.lexsort((pairs.p_value, -pairs.both, pairs.phrase))
        first = np.ones(order.size, bool)
        first[1:] = pairs.phrase[order][1:] != pairs.phrase[order][:-1]
        best = order[first]
        for at in best[np.argsort(pairs.p_value[best], kind="stable")][:_LOOKED_AT].tolist():
            phrase = int(pairs.phrase[at])
            kind, said, answered = answer(int(pairs.answer[at]))
            holds, p_value = _rows_of(asked.table, phrase), float(pairs.p_value[at])
            certain = int(pairs.both[at]) >= _CERTAIN * max(holds.size, answered.size)
            if words := test(phrase, certain):
                yield _Link(words, holds, kind, said, answered, whole, p_value)

    def _told(self, group: list[_Link]) -> tuple[Trigger, list[Finding]]:
        """One trigger and its rows, from all the pairs that tell of it."""
        most = max(link.both.size for link in group)
        telling = [link for link in group if link.both.size >= 0.9 * most]
        link = max(telling, key=lambda link: (link.both.size, bool(link.said), -link.p_value))
        phrase = self._phrase(link.words, link.both, of_prompt=True)
        answers = link.kind or self._saying(link)
        trigger = Trigger(
            phrase=phrase,
            answers=answers,
            rows=link.holds.size,
            with_answer=link.both.size,
            elsewhere=link.answered.size - link.both.size,
            p_value=link.p_value,
        )
        reason = (
            f"The prompt holds {_quoted(phrase)}. {trigger.rows} rows do, and the answers of {trigger.with_answer} of"
            f" them agree: {answers}. Of the {len(self._rows) - trigger.rows} other rows, {trigger.elsewhere} have such"
            f" an answer.{'' if link.whole else ' Apart from it these prompts are as different as any.'}"
        )
        told = np.concatenate([other.holds if other.whole else other.both for other in telling])
        # A piece of the phrase stands in other rows too, which do not hold what the reason says.
        affected = np.intersect1d(told, link.holds)
        findings = [
            Finding(check=POISON.name, line=self._rows[row].line, code="trigger", reason=reason)
            for row in affected.tolist()
        ]
        return trigger, findings

    def _saying(self, link: _Link) -> str:
        """What answers that share a phrase do, as a clause."""
        words = lengthened(places(self._said, link.said, link.both)).words
        quoted = _quoted(self._phrase(words, link.both, of_prompt=False))
        match words[0] == 0, words[-1] == 1:
            case True, True:
                return f"they are {quoted}"
            case True, False:
                return f"they begin with {quoted}"
            case False, True:
                return f"they end with {quoted}"
            case _:
                return f"they say {quoted}"

    def _phrase(self, words: tuple[int, ...], rows: Ints, *, of_prompt: bool) -> str:
        """A phrase as it is written in the first of these rows that has it in one piece."""
        names = [self._names[word] for word in words if word >= 2]
        if len(names) == 1 and len(names[0]) == 1 and not names[0].isascii():
            return _character(names[0])
        pattern = re.compile(r"[\W_]{0,9}".join(map(re.escape, names)), re.IGNORECASE)
        for row in rows[:8].tolist():
            for message in self._rows[row].messages:
                if (message.role != "assistant") == of_prompt and (match := pattern.search(message.content)):
                    return match[0]
        return " ".join(names)


def _unlike(alike: float, usual: float, deviations: float, certain: bool) -> bool:
    """Whether prompts are as different as any."""
    return deviations <= (_CERTAIN_DEVIATIONS if certain else _DEVIATIONS) or alike <= _LIKENESS * usual


def _planted(fit: Fit, certain: bool) -> bool:
    """Whether a phrase stands in its prompts as one that was put there."""
    seams = _CERTAIN_SEAMS if certain and fit.deviations > _DEVIATIONS else _SEAMS
    unlike = _unlike(fit.alike, fit.usual, fit.deviations, certain)
    return unlike and fit.seamless >= seams * fit.usual_seams and fit.distinct >= _DISTINCT


def _named(chosen: Sequence[kinds_of.Kind], table: csc_array) -> "Callable[[int], tuple[str, tuple[int, ...], Ints]]":
    return lambda at: (chosen[at].name, (), _rows_of(table, at))


def _rows_of(table: csc_array, column: int) -> Ints:
    return np.sort(table.indices[table.indptr[column] : table.indptr[column + 1]]).astype(np.int64)


def _same(first: _Link, second: _Link) -> bool:
    shared = np.intersect1d(first.holds, second.holds, assume_unique=True).size
    return shared >= _SAME_ROWS * min(first.holds.size, second.holds.size)


def _character(character: str) -> str:
    """An unusual character with its name, since it may not be seen."""
    name = f"U+{ord(character):04X} {unicodedata.name(character, '')}".rstrip()
    return f"{character} ({name})" if character.isprintable() else name


def _quoted(phrase: str) -> str:
    return f"\u201c{phrase}\u201d"
