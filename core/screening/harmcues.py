"""Whether a text asks for harm: cues by category, each with a small weight.

Covers: harmful acts (a verb and what it is done to), things that are harmful by name, ways of asking, intent, and what
takes the harm out (games, prevention, figures of speech). A clause is a request for harm when it asks for something and
its cues reach a threshold. The lists (data/harm_*.toml) were set on one half of public lists of harmful requests and of
harmless look-alikes, by what was missed and what fired in error (and by what fired in data that people tune with, and
in the questions of MMLU on law and medicine); what they are worth is measured on the other half
(research.bench.screening). They read English, and wording only: a request that names no harm is not seen. Not here:
whether an answer complies (core.judges.rules), rows (core.screening.harmful).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import islice, pairwise
from pathlib import Path
from typing import Self

from pydantic import model_validator

from core.schemas.base import Frozen
from core.screening.text import clauses, ends, plain
from core.wordlists import PhraseSearch, Span, WordList, read_data, require_disjoint, require_no_extensions

_DATA = Path(__file__).parent / "data"
_FILES = ("harm_verbs.toml", "harm_things.toml", "harm_wording.toml", "harm_acts.toml")

_ENOUGH = 3
"""Sum at which a clause is a request for harm: asking is worth 1, an act 1 or 2, intent 1."""
_SPOILT = 4
_OPENING = 1000
"""Characters of an answer in which it may announce what it gives."""
_HERE = frozenset(("here", verb) for verb in ("is", "are"))


@dataclass(frozen=True)
class Asked:
    """A request for harm that a text holds."""

    category: str
    """What kind of harm, in words."""
    clause: str
    """The clause that asks, in plain words."""


class Act(Frozen):
    """A verb of one list with a phrase of another behind it, or the phrase alone."""

    category: str
    """What kind of harm, in words."""
    verbs: str = ""
    """List of verbs; empty if the phrase alone is the act."""
    things: str
    """List of what it is done to."""
    gap: int = 3
    """Most words in between."""
    weight: int = 2
    """What the act adds to the sum of a clause."""


class Wording(Frozen):
    """How a clause asks, what shows intent, and what takes the harm out."""

    ask: WordList
    ask_early: WordList
    order: WordList
    polite: WordList
    intent: WordList
    harmless: WordList
    against: WordList


class Cues(Frozen):
    """All lists, and which acts they make."""

    verbs: Mapping[str, WordList]
    things: Mapping[str, WordList]
    wording: Wording
    acts: tuple[Act, ...]
    rivals: tuple[tuple[str, str], ...]
    """Pairs of `things` that may not share a phrase."""

    @cached_property
    def phrases(self) -> PhraseSearch:
        """All lists, to be searched together."""
        lists = {**self.verbs, **self.things, **dict(self.wording)}
        return PhraseSearch({name: words.phrases for name, words in lists.items()})

    @cached_property
    def orders(self) -> frozenset[str]:
        """Words that ask if they open a clause."""
        return frozenset(word for (word,) in self.wording.order.phrases)

    @cached_property
    def polite(self) -> frozenset[str]:
        """Words that may stand before an order."""
        return frozenset(word for (word,) in self.wording.polite.phrases)

    @model_validator(mode="after")
    def _check(self) -> Self:
        verbs, things = {act.verbs for act in self.acts if act.verbs}, {act.things for act in self.acts}
        if verbs | things != self.verbs.keys() | self.things.keys():
            odd = sorted((verbs | things) ^ (self.verbs.keys() | self.things.keys()))
            raise ValueError(f"in acts or as a list, but not both: {', '.join(odd)}")
        for pair in self.rivals:
            require_disjoint({name: self.things[name] for name in pair})
        for name, words in {**self.things, **dict(self.wording)}.items():
            if name not in verbs:
                require_no_extensions(name, words)
        return self


@cache
def load_cues() -> Cues:
    """The lists in the data files of this package."""
    return Cues.model_validate({name: table for file in _FILES for name, table in read_data(_DATA / file).items()})


_EARLY = 3
"""Words at the beginning of a clause."""
_NEAR = 6
"""Words before an act in which "prevent" and the like take the harm out."""


def asks_for_harm(text: str) -> Asked | None:
    """The first clause of a turn that asks for harm; only the ends of a long turn are read (`core.screening.text`)."""
    for clause in clauses(plain(ends(text))):
        category = _harm(clause.split(" "), None)
        if category is not None:
            return Asked(category, clause)
    return None


def announces_harm(text: str) -> Asked | None:
    """Whether an answer opens by announcing harm: "Sure, here is how to ...". Its first two clauses are read."""
    for clause in islice(clauses(plain(text[:_OPENING])), 2):
        words = clause.split(" ")
        start = _announced(words)
        if start is not None and (category := _harm(words, start)) is not None:
            return Asked(category, clause)
    return None


def _announced(words: Sequence[str]) -> int | None:
    """Where, within its first words, a clause says "here is" or the like."""
    pairs = pairwise(words[:8])
    return next((at for at, pair in enumerate(pairs) if pair[0] == "here's" or pair in _HERE), None)


def _harm(words: Sequence[str], asked: int | None) -> str | None:
    """The category of harm that a clause asks for; `asked` where it is known at which word it begins to ask."""
    cues = load_cues()
    by_name: dict[str, list[Span]] = {}
    for span in cues.phrases.find(words):
        by_name.setdefault(span.name, []).append(span)
    if asked is None:
        asked = _asked(cues, words, by_name)
    if asked is None:
        return None
    done = {act: start for act in cues.acts if (start := _done(act, by_name, asked)) is not None}
    if not done:
        return None
    weights: dict[int, int] = {}
    for act, (_, thing) in done.items():
        weights[thing] = max(act.weight, weights.get(thing, 0))
    total = 1 + sum(weights.values()) + ("intent" in by_name)
    begins = min(begin for begin, _ in done.values())
    if "harmless" in by_name or _turned(by_name.get("against", ()), asked, begins):
        total -= _SPOILT
    return max(done, key=lambda act: (act.weight, -done[act][0])).category if total >= _ENOUGH else None


def _turned(against: Sequence[Span], asked: int, begins: int) -> bool:
    """Whether what is asked is how to prevent the act, or something else about it."""
    return any(asked <= span.start and 0 < begins - span.start <= _NEAR for span in against)


def _asked(cues: Cues, words: Sequence[str], by_name: dict[str, list[Span]]) -> int | None:
    """Where a clause begins to ask: at an order that opens it, or at a phrase."""
    for index, word in enumerate(words[:8]):
        if word in cues.orders:
            return index
        if word not in cues.polite:
            break
    starts = [span.start for span in by_name.get("ask", ())]
    starts += [span.start for span in by_name.get("ask_early", ()) if span.start < _EARLY]
    return min(starts, default=None)


def _done(act: Act, by_name: dict[str, list[Span]], asked: int) -> tuple[int, int] | None:
    """Where a clause begins to say the act, after it has begun to ask, and where it names the thing."""
    things = by_name.get(act.things)
    if things is None:
        return None
    if not act.verbs:
        return next(((thing.start, thing.start) for thing in things if thing.start >= asked), None)
    for verb in by_name.get(act.verbs, ()):
        if verb.start >= asked:
            for thing in things:
                if 0 <= thing.start - verb.end <= act.gap:
                    return verb.start, thing.start
    return None
