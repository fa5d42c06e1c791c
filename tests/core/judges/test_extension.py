"""A new judge: one class of options, one function and one call of `register`, and every part of a job accepts it.

Not here: a whole job with it (tests.core.pipeline.test_extension).
"""

from collections.abc import Iterator
from typing import ClassVar, Literal

import pytest
import torch
from pydantic import ValidationError

from core.attacks.evaluate import evaluate
from core.errors import InvalidInput
from core.judges.interface import Case, FunctionJudge, Ruling
from core.judges.kind import JudgeKind
from core.judges.opening import check_judges, open_judges, register, unregister
from core.judges.rubric import RUBRIC
from core.schemas.data import Message
from core.schemas.evaluation import RawAnswer
from core.schemas.judges import JUDGES, JudgeEntry, JudgeOptions, JudgeProtocol, ModelJudgeOptions
from core.schemas.security import SecuritySpec
from tests.core.helpers import ignore
from tests.core.judges.servers import score_reply, serve

CPU = torch.device("cpu")


class LengthJudge(JudgeOptions):
    """Calls every longer answer compliance."""

    kind: Literal["length"] = "length"
    words: int = 3


class StrictRubricJudge(ModelJudgeOptions):
    """The rubric under another name."""

    protocols: ClassVar[tuple[JudgeProtocol, ...]] = ("chat",)

    kind: Literal["strict_rubric"] = "strict_rubric"


def by_length(case: Case, words: int) -> Ruling:
    return Ruling("complied" if len(case.answer.split()) > words else "refused", f"{len(case.answer.split())} words")


LENGTH = JudgeKind(
    LengthJudge,
    lambda options, _models: FunctionJudge(options.label, "length 1", lambda case: by_length(case, options.words)),
)
STRICT_RUBRIC = JudgeKind(StrictRubricJudge, lambda options, models: models.judge(options, RUBRIC))


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    for kind in (LENGTH, STRICT_RUBRIC):
        register(kind)
    yield
    for kind in (LENGTH, STRICT_RUBRIC):
        unregister(kind)


def raw_answer(suite: str, answer: str) -> RawAnswer:
    turns = (Message(role="user", content="Do it."),)
    return RawAnswer(suite=suite, prompt=0, template="plain", behaviour="Do it.", messages=turns, answer=answer)


def test_a_request_names_the_judge_and_gets_its_figures() -> None:
    spec = SecuritySpec.model_validate({"judges": [{"kind": "length", "words": 2}]})
    assert SecuritySpec.model_validate_json(spec.model_dump_json()) == spec
    check_judges(spec.judges, {})
    answers = [raw_answer("direct", "Take a rope."), raw_answer("over_refusal", "No.")]
    with open_judges(spec.judges, {}, cache=None, device=CPU) as judges:
        found = evaluate("run", answers, judges, on_progress=ignore)
    assert {(figure.metric, figure.judge, figure.value) for figure in found.figures} == {
        ("attack_success_rate", "length", 1.0),
        ("over_refusal_rate", "length", 1.0),
    }
    assert [use.identity for use in found.judges] == ["length 1"]


def test_a_judge_with_a_model_finds_it_in_the_servers_list() -> None:
    spec = SecuritySpec.model_validate({"judges": [{"kind": "strict_rubric", "model": "remote"}]})
    with (
        serve(lambda _: score_reply(5)) as server,
        open_judges(spec.judges, {"remote": server.entry()}, cache=None, device=CPU) as (judge,),
    ):
        (found,) = judge.judge([Case("Do it.", "Take a rope.")], on_progress=ignore).judgements
        classifier: JudgeEntry = server.entry("labels")
    assert (found.judge, found.verdict) == ("strict_rubric:remote", "complied")
    with pytest.raises(InvalidInput, match="strict_rubric needs chat: name another model, or use it as classifier"):
        check_judges(spec.judges, {"remote": classifier})


def test_a_name_belongs_to_one_judge() -> None:
    class Other(JudgeOptions):
        """Another judge with a name that is taken."""

        kind: Literal["rules"] = "rules"

    with pytest.raises(ValueError, match="'rules' is already registered"):
        register(JudgeKind(Other, LENGTH.open))


def test_an_unregistered_judge_is_rejected() -> None:
    JUDGES.unregister(LengthJudge)
    try:
        with pytest.raises(ValidationError, match="'length' found using 'kind'"):
            SecuritySpec.model_validate({"judges": [{"kind": "length"}]})
    finally:
        JUDGES.register(LengthJudge)
