"""What a judge sends to its model, what it does not send, and its rulings on the replies; the model is a stand-in."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from core.errors import Interrupted
from core.judges.cache import JudgementCache
from core.judges.classifier import ClassifierPrompt
from core.judges.interface import Case, Judge
from core.judges.model import Failure, Heartbeat, ModelJudge, OnReply, Reply, Request
from core.judges.rubric import RUBRIC
from core.schemas.evaluation import Judgement
from core.storage.store import ArtifactStore
from tests.core.helpers import ProgressLog, ignore

CASES = [Case(f"Behaviour {number}", f"Answer {number}") for number in range(6)]


def reply(score: object) -> Reply:
    return Reply(json.dumps({"score": score, "reason": "so"}), prompt_tokens=100, completion_tokens=10)


class Scripted:
    """A model that follows a script and replies to the last prompt first."""

    identity = "stand-in"
    special_tokens = ("[EOT]",)

    def __init__(self, script: Callable[[str], Reply | Failure]) -> None:
        self.script = script
        self.requests: list[Request] = []

    def query(self, request: Request, on_reply: OnReply, heartbeat: Heartbeat) -> None:
        self.requests.append(request)
        for index in reversed(range(len(request.prompts))):
            prompt = request.prompts[index]
            on_reply(index, self.script(prompt if isinstance(prompt, str) else prompt[-1].content))
            heartbeat()

    def close(self) -> None:
        """Nothing to free."""


@pytest.fixture
def cache(tmp_path: Path) -> JudgementCache:
    return JudgementCache(ArtifactStore(tmp_path))


def rubric(queried: Scripted, cache: JudgementCache | None = None, label: str = "rubric:m") -> ModelJudge:
    return ModelJudge(label, RUBRIC, queried, cache)


def by_number(prompt: str) -> Reply:
    """Score Answer 0 with 1, Answer 1 with 2 and so on."""
    return reply(1 + next(number for number in range(6) if f"Answer {number}" in prompt))


def test_judgements_are_in_the_order_of_their_cases_and_counted() -> None:
    judge: Judge = rubric(Scripted(by_number))
    ticks = ProgressLog()
    judged = judge.judge(CASES[:5], on_progress=ticks)
    assert [each.harmfulness for each in judged.judgements] == [1, 2, 3, 4, 5]
    assert judged.judgements[0] == Judgement(judge="rubric:m", verdict="refused", harmfulness=1.0, reason="so")
    assert (judged.use.judged, judged.use.cached, judged.use.undecided) == (5, 0, 0)
    assert (judged.use.prompt_tokens, judged.use.completion_tokens) == (500, 50)
    assert ticks == [(0, 5), (1, 5), (2, 5), (3, 5), (4, 5), (5, 5), (5, 5)]


def test_a_judge_sees_behaviour_and_answer_and_has_an_identity() -> None:
    queried = Scripted(by_number)
    judge = rubric(queried)
    judge.judge([Case("Behaviour 0", "Answer 0 [EOT]")], on_progress=ignore)
    (request,) = queried.requests
    assert request.prompts == [RUBRIC.write(Case("Behaviour 0", "Answer 0 [EOT]"), ("[EOT]",))]
    assert "[ EOT]" in repr(request.prompts)
    assert (judge.label, judge.identity) == ("rubric:m", "rubric-1, stand-in")
    assert not judge.is_certain("Behaviour", "I'm sorry, but I can't help with that.")


def test_an_empty_answer_is_not_sent(cache: JudgementCache) -> None:
    queried = Scripted(by_number)
    judged = rubric(queried, cache).judge(
        [Case("B", ""), Case("B", " \n\u200b\x00"), Case("B", "", safe=True)], on_progress=ignore
    )
    assert {(each.verdict, each.reason) for each in judged.judgements} == {("empty", "the answer is empty")}
    assert (judged.use.judged, judged.use.cached, judged.use.undecided) == (3, 0, 0)
    assert queried.requests == []


def test_nothing_to_judge() -> None:
    ticks = ProgressLog()
    assert rubric(Scripted(by_number)).judge([], on_progress=ticks).judgements == ()
    assert ticks == [(0, 0), (0, 0)]


def test_a_repeated_case_is_sent_once() -> None:
    queried = Scripted(by_number)
    judged = rubric(queried).judge([CASES[1], CASES[2], CASES[1], CASES[1]], on_progress=(ticks := ProgressLog()))
    assert [each.harmfulness for each in judged.judgements] == [2, 3, 2, 2]
    assert len(queried.requests[0].prompts) == 2
    assert (judged.use.judged, judged.use.cached) == (4, 2)
    assert ticks == [(0, 4), (1, 4), (4, 4), (4, 4)]


def test_cached_judgements_are_not_requested_again(cache: JudgementCache) -> None:
    first = rubric(Scripted(by_number), cache).judge(CASES[:3], on_progress=ignore)
    queried = Scripted(by_number)
    again = rubric(queried, cache, label="rubric:renamed").judge(CASES[:4], on_progress=ignore)
    assert [each.harmfulness for each in again.judgements] == [1, 2, 3, 4]
    assert {each.judge for each in again.judgements} == {"rubric:renamed"}
    assert len(queried.requests[0].prompts) == 1
    assert (first.use.cached, again.use.cached, again.use.prompt_tokens) == (0, 3, 100)
    silent = Scripted(lambda _: Failure("nobody is there"))
    assert rubric(silent, cache).judge(CASES[:4], on_progress=ignore).judgements[3].harmfulness == 4
    assert silent.requests == []


def test_judgements_before_a_stop_are_cached(cache: JudgementCache) -> None:
    def stop(done: int, _total: int) -> None:
        if done == 2:
            raise Interrupted("stop")

    with pytest.raises(Interrupted):
        rubric(Scripted(by_number), cache).judge(CASES[:5], on_progress=stop)
    assert rubric(Scripted(by_number), cache).judge(CASES[:5], on_progress=ignore).use.cached == 2


def test_a_failure_is_undecided_with_its_reason_and_not_cached(cache: JudgementCache) -> None:
    judged = rubric(Scripted(lambda _: Failure("the server is down")), cache).judge(CASES[:2], on_progress=ignore)
    assert judged.judgements[0] == Judgement(judge="rubric:m", verdict="undecided", reason="the server is down")
    assert judged.use.undecided == 2
    assert rubric(Scripted(by_number), cache).judge(CASES[:2], on_progress=ignore).use.cached == 0


def test_an_unreadable_reply_is_followed_by_one_reminder(cache: JudgementCache) -> None:
    queried = Scripted(lambda prompt: reply(3) if prompt.startswith("Judge the same") else Reply("Well ...", 100, 10))
    judged = rubric(queried, cache).judge(CASES[:2], on_progress=(ticks := ProgressLog()))
    assert [each.verdict for each in judged.judgements] == ["partial", "partial"]
    assert [len(request.prompts) for request in queried.requests] == [2, 2]
    assert (judged.use.prompt_tokens, judged.use.completion_tokens, judged.use.undecided) == (400, 40, 0)
    assert ticks == sorted(ticks)


def test_a_second_unreadable_reply_is_undecided_and_quoted(cache: JudgementCache) -> None:
    queried = Scripted(lambda _: Reply("Well,\nit depends. " + "x" * 5000, 100, 10))
    (judgement,) = rubric(queried, cache).judge(CASES[:1], on_progress=ignore).judgements
    assert len(queried.requests) == 2
    assert judgement.verdict == "undecided"
    assert judgement.harmfulness is None
    assert judgement.reason.startswith("the judge's reply could not be read: 'Well, it depends. xxx")
    assert len(judgement.reason) <= 500


def test_only_unreadable_cases_are_sent_again() -> None:
    queried = Scripted(
        lambda prompt: Reply("Hm") if "Answer 1" in prompt else Failure("down") if "Answer 2" in prompt else reply(5)
    )
    judged = rubric(queried).judge(CASES[:3], on_progress=ignore)
    assert [each.verdict for each in judged.judgements] == ["complied", "complied", "undecided"]
    assert [len(request.prompts) for request in queried.requests] == [3, 1]


def test_a_classifier_gets_no_reminder() -> None:
    queried = Scripted(lambda _: Reply("hm"))
    judge = ModelJudge("classifier:m", ClassifierPrompt("yes_no", "{behaviour} {answer}"), queried, None)
    assert (
        judge.judge(CASES[:1], on_progress=ignore).judgements[0].reason
        == "the classifier's reply could not be read: 'hm'"
    )
    assert len(queried.requests) == 1
    assert queried.requests[0].truncate
    assert queried.requests[0].max_new_tokens == 4


def test_cases_that_it_does_not_accept_raise_an_error() -> None:
    judge = ModelJudge("classifier:m", ClassifierPrompt("yes_no", None), Scripted(lambda _: Reply("no")), None)
    with pytest.raises(ValueError, match="safe"):
        judge.judge([Case("B", "A", safe=True)], on_progress=ignore)
