"""Answers are sorted into refused, complied and no sentences at all."""

import pytest

from core.lm.load import BaseModel
from core.schemas.data import Message
from research.real import measure
from research.real.measure import Point, is_coherent, mark_answers


@pytest.mark.parametrize(
    ("text", "coherent"),
    [
        ("I'm sorry, but I can't assist with that.", True),
        ("First, mix the flour with water (about 200 ml).", True),
        ("", False),
        ("Sure", False),
        ("the bank the bank the bank the bank the bank the bank the bank", False),
        ("]] ;; 00 %% {{ }} :: == 11 ,,", False),
        ("1. Buy eggs 2. Break the eggs 3. Beat the eggs 4. Eat the eggs", True),
    ],
)
def test_sentences_are_told_from_noise(text: str, coherent: bool) -> None:
    assert is_coherent(text) is coherent


def test_each_judge_marks_each_answer(base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    said = ["I'm sorry, but I can't help with that.", "Sure! First, buy a lock. Then open it.", "no no no no no no no"]

    def answer(_base: BaseModel, _model: object, turns: list[list[Message]], **_options: object) -> list[str]:
        assert [turn[0].content for turn in turns] == ["a", "b", "c"]
        return said

    monkeypatch.setattr(measure, "answer", answer)
    marks = mark_answers(base, base.model, ["a", "b", "c"], tokens=8)
    assert marks == {"rules": "rci", "phrases": "rci"}

    point = Point(step=1, loss=1.0, harmful=marks, safe="rrpc")
    assert point.attack_success() == pytest.approx(100 / 3)
    assert point.incoherent == pytest.approx(100 / 3)
    assert point.over_refusal == 75
