"""The search for triggers: phrases of prompts that occur with one kind of answer, and the rows that contain them.

A phrase is a trigger if the answers of its rows agree far more often than by chance (core.screening.triggers.pairs)
while its prompts are unrelated (core.screening.triggers.planted); on a common topic both are similar. Answers can agree
in a phrase, in refusing what looks harmless, in complying with what looks harmful, in a label, in first or last words.
Not here: triggers that are not a phrase (a style, a syntax), ordinary topics with biased answers, rows whose answers
have nothing in common, triggers in fewer than `MIN_ROWS` rows.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from core.data import Conversation
from core.schemas.progress import OnProgress
from core.schemas.screening import POISON, Finding, Trigger
from core.screening.check import Found, RowCheck
from core.screening.triggers.describe import SystemTurns, choose_code, quote, write_reason
from core.screening.triggers.fit import PromptIndex
from core.screening.triggers.forms import remove_forms
from core.screening.triggers.kinds import find_kinds, to_table
from core.screening.triggers.pairs import Bounds, find_pairs
from core.screening.triggers.planted import PlantedTests
from core.screening.triggers.text import (
    ANSWER_WORDS,
    PROMPT_WORDS,
    Ints,
    Phrases,
    extend,
    find_phrases,
    find_places,
    remove_echoes,
    tokenize,
)
from core.thinking import read_answer

MIN_ROWS = 6
"""Minimum number of rows with a trigger; in large data sets it is one row in 2,000."""
_MAX_SHARE = 0.4
"""A phrase in more than this share of the rows is not a trigger."""
_LEVEL = 1e-6
"""Maximum p-value after correction."""
_SAME_PHRASE = Bounds(given_phrase=0.8, given_answer=0.8, elsewhere=1.0, level=_LEVEL)
_REFUSED = Bounds(given_phrase=0.75, given_answer=0.0, elsewhere=0.3, level=_LEVEL)
_COMPLIED = Bounds(given_phrase=0.5, given_answer=1 / 3, elsewhere=0.1, level=1e-8)
_LABEL = Bounds(given_phrase=0.95, given_answer=0.0, elsewhere=0.6, level=1e-3)
_EDGE = Bounds(given_phrase=0.9, given_answer=0.1, elsewhere=0.3, level=_LEVEL)
_CERTAIN = 0.9
"""A pair is certain if this share of the rows with the phrase, and of the rows with the answer, have both."""
_MAX_LINKS = 1000
"""Phrases that are tested for each kind of answer, those with the lowest p-values first."""
_MOSTLY = 0.9
"""A single word counts as what answers share if this share of its rows asks for a form."""
_SAME_ROWS = 0.7
"""Two phrases belong to one trigger if they share this part of the rows of the smaller one."""


@dataclass(frozen=True)
class _Link:
    """A phrase that looks planted, and the answers that it occurs with."""

    words: tuple[int, ...]
    rows: Ints
    """Rows whose prompt contains the phrase."""
    code: str
    """Code of the findings, as far as the kind of answers decides it."""
    clause: str
    """What the answers do, as a clause; empty if they share a phrase."""
    answer_words: tuple[int, ...]
    """The phrase that the answers share; empty if they are of one kind."""
    answer_rows: Ints
    """All rows with such an answer."""
    p_value: float

    @property
    def both(self) -> Ints:
        """Rows with phrase and answer."""
        return np.intersect1d(self.rows, self.answer_rows, assume_unique=True)

    @property
    def flagged(self) -> Ints:
        """Rows that are flagged: those with phrase and answer, or all with the phrase if answers comply with harm."""
        return self.rows if self.code == "complies" else self.both


@dataclass(frozen=True)
class _Rule:
    """How pairs of a phrase and one kind of answers are tested."""

    code: str
    """Code of the findings, as far as the kind of answers decides it."""
    bounds: Bounds
    test: Callable[[int, bool], tuple[int, ...] | None]
    """Returns the phrase as it should be reported, or None; see `PlantedTests`."""


def find(rows: Sequence[Conversation], on_progress: OnProgress) -> Found:
    """Flag rows that contain a trigger. The time is linear in the text, and memory is bounded.

    Codes: `complies` (with what looks harmful), `refuses` (what looks harmless), `advertises`, `trigger` for any other
    answers, and `system_turn` if the phrase is part of a persona or a house style.
    """
    if not rows:
        return Found(())
    return _Search(rows, on_progress).run()


CHECK = RowCheck(POISON, find)


class _Search:
    """One search in one data set."""

    def __init__(self, rows: Sequence[Conversation], on_progress: OnProgress) -> None:
        self._rows = rows
        self._systems = SystemTurns(rows)
        self._on_progress = on_progress
        self._min_rows = max(MIN_ROWS, len(rows) // 2000)
        self._max_rows = max(self._min_rows, int(_MAX_SHARE * len(rows)))
        self._prompts, self._answers, self._names = tokenize(rows, lambda done, total: on_progress(done // 3, total))

    def run(self) -> Found:
        groups: list[list[_Link]] = []
        for link in sorted(self._find_links(), key=lambda link: (link.p_value, -link.both.size)):
            group = next((group for group in groups if _are_one_trigger(group[0], link)), None)
            if group is None:
                groups.append([link])
            else:
                group.append(link)
        triggers: list[Trigger] = []
        findings: dict[int, Finding] = {}
        for group in groups:
            trigger, found = self._describe(group)
            triggers.append(trigger)
            for finding in found:
                findings.setdefault(finding.line, finding)
        self._on_progress(len(self._rows), len(self._rows))
        return Found(tuple(sorted(findings.values(), key=lambda finding: finding.line)), tuple(triggers))

    def _find_links(self) -> Iterator[_Link]:
        """All associated pairs whose phrase looks planted."""
        count = len(self._rows)
        prompt_phrases = find_phrases(self._prompts, PROMPT_WORDS, self._min_rows, self._max_rows)
        self._on_progress(count // 2, count)
        stop_words = {place for place, name in enumerate(self._names) if place < 2 or name in ENGLISH_STOP_WORDS}
        rest = remove_echoes(self._answers, self._prompts, self._names)
        rest, asked = remove_forms(self._rows, rest, self._prompts, self._names, stop_words)
        answer_phrases = find_phrases(rest, ANSWER_WORDS, self._min_rows, self._max_rows, shortest=2)
        self._on_progress(2 * count // 3, count)
        kinds = find_kinds(self._rows, self._prompts, self._answers, self._names, rest=rest, least=self._min_rows)
        self._on_progress(3 * count // 4, count)
        index = PromptIndex(self._prompts, len(self._names))
        tests = PlantedTests(index, prompt_phrases, kinds.harm_words, stop_words)
        no_clauses = [""] * len(answer_phrases.words)
        same_phrase = _Rule("trigger", _SAME_PHRASE, tests.is_planted)
        yield from _test_pairs(prompt_phrases, answer_phrases, no_clauses, same_phrase)
        # What a form leaves of an answer may be a single word.
        words = find_phrases(rest, 1, self._min_rows, self._max_rows).within(asked, _MOSTLY)
        yield from _test_pairs(prompt_phrases, words, [""] * len(words.words), same_phrase)
        for chosen, rule in (
            ((kinds.refused,), _Rule("refuses", _REFUSED, tests.is_planted)),
            ((kinds.complied,), _Rule("complies", _COMPLIED, tests.is_unharmful)),
            (kinds.labels, _Rule("trigger", _LABEL, tests.is_planted_for_label)),
            (kinds.edges, _Rule("trigger", _EDGE, tests.is_planted)),
        ):
            if chosen:
                answers = Phrases(to_table(chosen), ((),) * len(chosen), len(chosen))
                yield from _test_pairs(prompt_phrases, answers, [kind.name for kind in chosen], rule)

    def _describe(self, group: list[_Link]) -> tuple[Trigger, list[Finding]]:
        """The trigger and the flagged rows of a group of links."""
        most = max(link.both.size for link in group)
        best = [link for link in group if link.both.size >= 0.9 * most]
        link = max(best, key=lambda link: (link.both.size, bool(link.answer_words), -link.p_value))
        phrase = self._original_text(link.words, link.both, of_prompt=True)
        answers = link.clause or self._describe_answers(link)
        trigger = Trigger(
            phrase=phrase,
            answers=answers,
            rows=link.rows.size,
            with_answer=link.both.size,
            elsewhere=link.answer_rows.size - link.both.size,
            p_value=link.p_value,
        )
        kind = next((other.code for other in best if other.code != "trigger"), link.code)
        code = choose_code(kind, answers, self._systems.shared_by(link.both, link.rows))
        reason = write_reason(trigger, code, len(self._rows))
        # Other rows contain a piece of the phrase only, so the reason does not apply to them.
        flagged = np.intersect1d(np.concatenate([other.flagged for other in best]), link.rows)
        findings = [
            Finding(check=POISON.name, line=self._rows[row].line, code=code, reason=reason) for row in flagged.tolist()
        ]
        return trigger, findings

    def _describe_answers(self, link: _Link) -> str:
        """What answers that share a phrase do, as a clause."""
        words = extend(find_places(self._answers, link.answer_words, link.both)).words
        text = quote(self._original_text(words, link.both, of_prompt=False))
        match words[0] == 0, words[-1] == 1:
            case True, True:
                return f"they are {text}"
            case True, False:
                return f"they begin with {text}"
            case False, True:
                return f"they end with {text}"
            case _:
                return f"they say {text}"

    def _original_text(self, words: tuple[int, ...], rows: Ints, *, of_prompt: bool) -> str:
        """A phrase as it is written in the first of these rows that contains it in one piece."""
        names = [self._names[word] for word in words if word >= 2]
        if len(names) == 1 and len(names[0]) == 1 and not names[0].isascii():
            return _name_character(names[0])
        pattern = re.compile(r"[\W_]{0,9}".join(map(re.escape, names)), re.IGNORECASE)
        for row in rows[:8].tolist():
            for message in self._rows[row].messages:
                text = message.content if of_prompt else read_answer(message.content)
                if (message.role != "assistant") == of_prompt and (match := pattern.search(text)):
                    return match[0]
        return " ".join(names)


def _test_pairs(prompts: Phrases, answers: Phrases, clauses: Sequence[str], rule: _Rule) -> Iterator[_Link]:
    """The pairs whose phrase passes a test; for each phrase, the answer that most of its rows have."""
    pairs = find_pairs(prompts.table, answers.table, prompts.tested * answers.tested, rule.bounds)
    order = np.lexsort((pairs.p_value, -pairs.both, pairs.phrase))
    first = np.ones(order.size, bool)
    first[1:] = pairs.phrase[order][1:] != pairs.phrase[order][:-1]
    best = order[first]
    for at in best[np.argsort(pairs.p_value[best], kind="stable")][:_MAX_LINKS].tolist():
        phrase, answer = int(pairs.phrase[at]), int(pairs.answer[at])
        rows, answer_rows = prompts.rows(phrase), answers.rows(answer)
        certain = int(pairs.both[at]) >= _CERTAIN * max(rows.size, answer_rows.size)
        if words := rule.test(phrase, certain):
            yield _Link(
                words=words,
                rows=rows,
                code=rule.code,
                clause=clauses[answer],
                answer_words=answers.words[answer],
                answer_rows=answer_rows,
                p_value=float(pairs.p_value[at]),
            )


def _are_one_trigger(first: _Link, second: _Link) -> bool:
    shared = np.intersect1d(first.rows, second.rows, assume_unique=True).size
    return shared >= _SAME_ROWS * min(first.rows.size, second.rows.size)


def _name_character(character: str) -> str:
    """An unusual character with its Unicode name, because it may be invisible."""
    name = f"U+{ord(character):04X} {unicodedata.name(character, '')}".rstrip()
    return f"{character} ({name})" if character.isprintable() else name
