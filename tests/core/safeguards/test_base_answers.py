"""The base model writes each list of prompts once, and what it generates is measured."""

from collections.abc import Sequence

from core.lm.load import BaseModel
from core.lm.prompts import render
from core.safeguards.base_answers import BaseAnswers
from core.schemas.data import Message
from tests.core.helpers import ProgressLog, ignore


def prompts_for(base: BaseModel, *texts: str) -> list[list[int]]:
    return [render(base.tokenizer, [Message(role="user", content=text)]) for text in texts]


def write(answers: BaseAnswers, prompts: Sequence[Sequence[int]], limit: int = 6) -> list[list[int]]:
    return answers.write(prompts, max_new_tokens=limit, on_progress=ignore)


def test_a_list_is_answered_once_and_measured_once(base: BaseModel) -> None:
    answers, prompts = BaseAnswers(base), prompts_for(base, "How do I cook rice?", "What is a boat?")
    first = write(answers, prompts)
    second = ProgressLog()
    assert answers.write(prompts, max_new_tokens=6, on_progress=second) == first
    assert not second, "nothing was generated"
    (speed,) = answers.meter.take("training")
    assert (speed.work, speed.calls, speed.amount, speed.precision) == ("answer", 2, 12, base.weights)


def test_another_list_or_limit_is_another_answer(base: BaseModel) -> None:
    answers, prompts = BaseAnswers(base), prompts_for(base, "How do I cook rice?", "What is a boat?")
    long, short = write(answers, prompts), write(answers, prompts, 2)
    assert [row[:2] for row in long] == short
    assert write(answers, prompts[:1]) == long[:1]
    (speed,) = answers.meter.take("training")
    assert speed.calls == 5


def test_a_prompt_without_room_gets_no_answer_and_is_not_measured(base: BaseModel) -> None:
    answers = BaseAnswers(base)
    assert write(answers, [[]]) == [[]]
    assert answers.meter.take("training") == ()
