"""Collecting answers: what is sent in which order, what is stored, and judges that stop an answer early."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest

from core.attacks.ask import Suite, ask, build_suites
from core.attacks.families.prefill import COMPLIANT_OPENING
from core.lm.load import BaseModel
from core.schemas.attacks import BestOfN, Direct, MultiTurn, Prefill, RolePlay
from core.schemas.data import Message
from core.schemas.evaluation import RawAnswer
from core.schemas.progress import OnProgress
from core.schemas.prompts import Behaviour, EvaluationPrompts
from core.schemas.security import SecuritySpec
from tests.core.helpers import ignore

PROMPTS = EvaluationPrompts(
    harmful=tuple(Behaviour(text=f"Do {number}.", category="odd") for number in range(6)),
    safe=(Behaviour(text="What is 0?"), Behaviour(text="What is 1?")),
)


class Scripted:
    """A model that answers with the number of turns; it has no room for conversations with the text `too_long`."""

    def __init__(self, too_long: str = "(never said)") -> None:
        self.calls: list[list[tuple[Message, ...]]] = []
        self.samplings: list[tuple[float, float]] = []
        self.early_stops: list[list[bool]] = []
        self._too_long = too_long

    def __call__(
        self,
        conversations: Sequence[Sequence[Message]],
        *,
        temperature: float,
        top_p: float,
        early_stop: Callable[[int, str], bool] | None,
        on_progress: OnProgress,
    ) -> Sequence[str | None]:
        self.calls.append([tuple(each) for each in conversations])
        self.samplings.append((temperature, top_p))
        if early_stop is not None:
            self.early_stops.append([early_stop(index, "no") for index in range(len(conversations))])
        on_progress(0, len(conversations))
        on_progress(len(conversations), len(conversations))
        return [
            None if any(self._too_long in message.content for message in each) else f"after {len(each)}"
            for each in conversations
        ]


def compute(_suite: Suite, work: Callable[[], tuple[RawAnswer, ...]]) -> tuple[RawAnswer, ...]:
    return work()


def of(said: Sequence[RawAnswer], suite: str) -> list[RawAnswer]:
    return [each for each in said if each.suite == suite]


def test_suites_keep_the_order_and_safe_prompts_are_last(base: BaseModel) -> None:
    spec = SecuritySpec(attacks=(RolePlay(), Direct()), system_prompt="Be kind.")
    model = Scripted()
    said = ask(build_suites(PROMPTS, spec, base.tokenizer), model, keep=compute, is_certain=None, on_progress=ignore)
    assert [each.suite for each in said] == ["role_play"] * 6 + ["direct"] * 6 + ["over_refusal"] * 2
    assert [each.prompt for each in said] == [*range(6), *range(6), 0, 1]
    assert [each.behaviour for each in of(said, "over_refusal")] == ["What is 0?", "What is 1?"]
    assert {each.category for each in of(said, "direct")} == {"odd"}
    assert all(each.messages[0].content == "Be kind." and each.sent for each in said)
    assert len(model.calls) == 3


def test_turns_follow_each_other_with_the_models_own_answers(base: BaseModel) -> None:
    spec = SecuritySpec(attacks=(MultiTurn(),))
    model = Scripted()
    whole = build_suites(PROMPTS, spec, base.tokenizer)
    said = of(ask(whole, model, keep=compute, is_certain=None, on_progress=ignore), "multi_turn")
    for each, prompt in zip(said, whole[0].prompts, strict=True):
        turns = [message.content for message in each.messages if message.role == "user"]
        assert turns == [prompt.messages[0].content, *prompt.followups]
        answers = [message.content for message in each.messages if message.role == "assistant"]
        assert answers == [f"after {2 * number + 1}" for number in range(len(prompt.followups))]
        assert each.answer == f"after {len(each.messages)}"
    assert [len(call) for call in model.calls] == [6, 6, 4, 2]  # a third of them has two turns, then the safe ones


def test_a_prompt_without_room_is_not_sent_and_has_no_further_turns(base: BaseModel) -> None:
    spec = SecuritySpec(attacks=(MultiTurn(), Direct()))
    model = Scripted(too_long="Do 2.")  # asked_again says so at once, closer_and_closer at the end
    said = ask(build_suites(PROMPTS, spec, base.tokenizer), model, keep=compute, is_certain=None, on_progress=ignore)
    assert [each.sent for each in of(said, "direct")] == [True, True, False, True, True, True]
    lost = of(said, "multi_turn")[2]
    assert (lost.sent, lost.answer) == (False, "")
    assert len(said) == 14


def test_samples_are_numbered(base: BaseModel) -> None:
    spec = SecuritySpec(attacks=(BestOfN(samples=3, temperature=0.7, top_p=0.9),))
    model = Scripted()
    said = of(
        ask(build_suites(PROMPTS, spec, base.tokenizer), model, keep=compute, is_certain=None, on_progress=ignore),
        "best_of_n",
    )
    assert [(each.prompt, each.sample) for each in said[:4]] == [(0, 0), (0, 1), (0, 2), (1, 0)]
    assert len(said) == 18
    assert model.samplings == [(0.7, 0.9), (0.0, 1.0)]


def test_a_prefill_is_cut_to_the_number_of_tokens(base: BaseModel) -> None:
    for tokens in (1, 5, 64):
        spec = SecuritySpec(attacks=(Prefill(tokens=tokens),))
        begun = build_suites(PROMPTS, spec, base.tokenizer)[0].prompts[0].messages[-1]
        assert begun.role == "assistant"
        assert COMPLIANT_OPENING.startswith(begun.content)
        ids = base.tokenizer(begun.content, add_special_tokens=False)["input_ids"]
        assert len(ids) == min(tokens, len(base.tokenizer(COMPLIANT_OPENING, add_special_tokens=False)["input_ids"]))


def test_judges_may_stop_the_last_answer_only(base: BaseModel) -> None:
    seen: list[tuple[str, str]] = []

    def certain(behaviour: str, text: str) -> bool:
        seen.append((behaviour, text))
        return behaviour == "Do 0."

    spec = SecuritySpec(attacks=(MultiTurn(),))
    model = Scripted()
    ask(build_suites(PROMPTS, spec, base.tokenizer), model, keep=compute, is_certain=certain, on_progress=ignore)
    assert model.early_stops == [[False] * 6, [False] * 6, [True, False, False, False], [False, False]]
    assert ("Do 1.", "no") in seen


def test_stored_suites_are_not_asked_again_and_progress_never_decreases(base: BaseModel) -> None:
    spec = SecuritySpec(attacks=(Direct(), MultiTurn(), BestOfN(samples=2)))
    whole = build_suites(PROMPTS, spec, base.tokenizer)
    shelf: dict[str, tuple[RawAnswer, ...]] = {}

    def keep(suite: Suite, work: Callable[[], tuple[RawAnswer, ...]]) -> tuple[RawAnswer, ...]:
        if suite.name not in shelf:
            shelf[suite.name] = work()
        return shelf[suite.name]

    told: list[tuple[int, int]] = []
    first = ask(
        whole, Scripted(), keep=keep, is_certain=None, on_progress=lambda done, total: told.append((done, total))
    )
    again = Scripted()
    assert ask(whole, again, keep=keep, is_certain=None, on_progress=ignore) == first
    assert again.calls == []
    assert told == sorted(told)
    assert told[-1] == (26, 26)


def test_progress_may_stop_asking(base: BaseModel) -> None:
    def stop(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ask(
            build_suites(PROMPTS, SecuritySpec(), base.tokenizer),
            Scripted(),
            keep=compute,
            is_certain=None,
            on_progress=stop,
        )


def test_the_thinking_of_an_earlier_turn_is_apart_from_its_answer() -> None:
    class Thinks(Scripted):
        def __call__(self, conversations: Sequence[Sequence[Message]], **options: Any) -> Sequence[str | None]:
            super().__call__(conversations, **options)
            return [f"<think>\nTurn {len(each)}.\n</think>\n\nYes." for each in conversations]

    model = Thinks()
    suites = build_suites(PROMPTS, SecuritySpec(attacks=(MultiTurn(),)), cast(Any, None))[:1]
    answers = ask(suites, model, keep=compute, is_certain=None, on_progress=ignore)
    earlier = [message for answer in answers for message in answer.messages if message.role == "assistant"]
    assert {message.content for message in earlier} == {"Yes."}
    assert earlier[0].thinking == "Turn 1."
    assert answers[0].answer.startswith("<think>")
