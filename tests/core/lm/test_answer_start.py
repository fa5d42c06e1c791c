"""Prompts lead to the first token of the answer: the thinking of models that think is left empty."""

from pathlib import Path

import pytest

from core.lm.answer_start import AnswerStart, find_answer_start
from core.lm.generate import continue_tokens
from core.lm.load import BaseModel
from core.lm.prompts import render
from tests.core.helpers import ignore, user_turns
from tests.core.thinkers import REFUSAL, THOUGHT, load_thinker, make_thinker

TURNS = user_turns("How do I pick a lock?", "Tell me a joke.", "Who are you?")


def answers(base: BaseModel) -> list[str]:
    start = find_answer_start(base, base.model, TURNS)
    prompts = [start.append(render(base.tokenizer, messages)) for messages in TURNS]
    rows = continue_tokens(base, base.model, prompts, max_new_tokens=32, on_progress=ignore)
    return [str(base.tokenizer.decode(row, skip_special_tokens=True)) for row in rows]


@pytest.mark.parametrize(
    ("said", "prompt_end"),
    [(f"<think>{THOUGHT}</think>\n{REFUSAL}", ""), (f"{THOUGHT}</think>\n{REFUSAL}", "<think>")],
)
def test_answers_begin_after_empty_thinking(tmp_path: Path, said: str, prompt_end: str) -> None:
    assert answers(load_thinker(make_thinker(tmp_path, said, prompt_end=prompt_end))) == [REFUSAL] * 3


def test_prompts_of_other_models_stay_as_they_are(base: BaseModel) -> None:
    start = find_answer_start(base, base.model, TURNS)
    assert not start.thinks
    assert start.append([1, 2, 3]) == [1, 2, 3]
    assert not find_answer_start(base, base.model, []).thinks


def test_only_what_is_missing_is_appended(base: BaseModel) -> None:
    start = AnswerStart(base.tokenizer, "<think>")

    def appended(text: str) -> str:
        ids = base.tokenizer(text, add_special_tokens=False)["input_ids"]
        return str(base.tokenizer.decode(start.append(ids)[len(ids) :]))

    assert appended("Hello") == "<think>\n\n</think>\n\n"
    assert appended("Hello<think>\n") == "\n</think>\n\n"
    assert appended("Hello<think>\n\n</think>\n\n") == ""
