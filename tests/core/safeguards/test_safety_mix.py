"""Refusals are collected from the base model and added to the training rows in the requested share."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.attacks.prompts import choose_prompts
from core.catalog import TESTBED
from core.data import Conversation
from core.data.encoded import IGNORED, Encoded
from core.data.frame import Frame
from core.data.template import encode
from core.errors import TrainingFailed
from core.judges.rules import judge
from core.lm.load import BaseModel
from core.safeguards import SafeguardContext
from core.safeguards.framings import FRAMINGS
from core.safeguards.safety_mix import (
    MIN_REFUSALS,
    Limits,
    RefusalMix,
    collect_answers,
    collect_refusals,
    encode_answer,
    select_rows,
)
from core.schemas.data import Message
from core.schemas.prompts import PromptSet
from core.schemas.safeguards import SafetyMix
from core.schemas.security import SecuritySpec
from tests.core.helpers import REQUESTS, ignore, user_rows
from tests.core.jobs import SPEC
from tests.core.thinkers import REFUSAL, THOUGHT, load_thinker, make_thinker

LIMITS = Limits(max_new_tokens=12, max_length=1024)


def row(number: int) -> Encoded:
    ids = np.array([number, 1, 2], dtype=np.int32)
    return Encoded(input_ids=ids, labels=ids, line=number)


def test_only_the_answer_has_labels() -> None:
    found = encode_answer([5, 6, 7], [8, 9], max_length=16)
    assert found is not None
    assert found.input_ids.tolist() == [5, 6, 7, 8, 9]
    assert found.labels.tolist() == [IGNORED] * 3 + [8, 9]
    assert not found.cut_tokens


def test_an_answer_that_does_not_fit_is_cut_or_left_out() -> None:
    cut = encode_answer([5, 6, 7], [8, 9], max_length=4)
    assert cut is not None
    assert (cut.input_ids.tolist(), cut.labels.tolist()) == ([5, 6, 7, 8], [IGNORED] * 3 + [8])
    assert cut.cut_tokens
    assert encode_answer([5, 6, 7], [8, 9], max_length=3) is None
    assert encode_answer([5, 6, 7], [], max_length=16) is None


@given(st.integers(1, 400), st.integers(MIN_REFUSALS, 40), st.floats(0.001, 0.5), st.integers(0, 3))
def test_the_share_is_met_and_refusals_repeat_equally_often(rows: int, others: int, share: float, seed: int) -> None:
    training, refusals = [row(number) for number in range(rows)], [row(number) for number in range(others)]
    found = select_rows(training, refusals, share=share, seed=seed)
    wanted = share * (rows + len(found))
    assert abs(len(found) - wanted) <= 1 or len(found) == 1
    counts = [sum(one is other for one in found) for other in refusals]
    assert sum(counts) == len(found)
    assert max(counts) - min(counts) <= 1
    again = select_rows(training, refusals, share=share, seed=seed)
    assert all(one is other for one, other in zip(found, again, strict=True))


def test_the_seed_decides_which_refusals_are_selected() -> None:
    training, refusals = [row(0)] * 40, [row(number) for number in range(32)]
    orders = {tuple(one.line for one in select_rows(training, refusals, share=0.2, seed=seed)) for seed in range(5)}
    assert len(orders) == 5


def test_safe_answers_count_in_the_share_and_are_used_as_often_as_refusals() -> None:
    refusals, answers = [row(number) for number in range(6)], [row(number) for number in range(6, 10)]
    found = select_rows([row(99)] * 60, refusals, answers, share=0.25, seed=0)
    assert len(found) == 20
    assert sorted(one.line for one in found) == sorted([*range(10)] * 2)


@pytest.mark.parametrize("answers", [0, 40])
def test_too_few_refusals_fail_the_training_whatever_the_number_of_safe_answers(answers: int) -> None:
    few, safe = [row(number) for number in range(MIN_REFUSALS - 1)], [row(9)] * answers
    with pytest.raises(TrainingFailed, match=f"only {MIN_REFUSALS - 1}") as caught:
        select_rows([row(0)], few, safe, share=0.1, seed=0)
    assert (caught.value.code, caught.value.param) == ("no_safety_rows", "strategy.safeguards.safety_mix")


def test_refusals_are_the_base_models_own_in_its_chat_template(base: BaseModel, prompts: PromptSet) -> None:
    found = collect_refusals(base, prompts, framings=0, limits=LIMITS, on_progress=ignore)
    assert 4 <= len(found) <= 8
    asked = set()
    for row in found:
        answer = str(base.tokenizer.decode(row.labels[row.labels != IGNORED].tolist(), skip_special_tokens=True))
        assert judge("x", answer).verdict == "refused"
        text = str(base.tokenizer.decode(row.input_ids[row.labels == IGNORED].tolist()))
        (behaviour,) = [prompt for prompt in prompts.probe.harmful if prompt in text]
        asked.add(behaviour)
        turns = (Message(role="user", content=behaviour), Message(role="assistant", content=answer))
        (expected,) = encode(Conversation(turns, 0), base.tokenizer, max_length=1024)
        assert expected.input_ids.tolist()[: len(row.input_ids)] == row.input_ids.tolist()
        assert expected.labels.tolist()[: len(row.labels)] == row.labels.tolist()
    assert len(asked) == len(found)


def user_turns(base: BaseModel, rows: Sequence[Encoded]) -> list[str]:
    return [str(base.tokenizer.decode(row.input_ids[row.labels == IGNORED].tolist())) for row in rows]


def test_each_request_is_refused_bare_and_in_the_next_framings(base: BaseModel, prompts: PromptSet) -> None:
    found = user_turns(base, collect_refusals(base, prompts, framings=2, limits=LIMITS, on_progress=ignore))
    expected = [
        turn
        for number, text in enumerate(prompts.probe.harmful)
        for turn in (text, *(FRAMINGS[(2 * number + k) % len(FRAMINGS)].fill(text) for k in range(2)))
    ]
    shown = [next(turn for turn in sorted(expected, key=len, reverse=True) if turn in text) for text in found]
    assert len(set(shown)) == len(shown) >= 20, "the base model refuses nearly all of these 24"
    assert set(prompts.probe.harmful) <= set(shown)


def test_safe_look_alikes_are_answered_and_not_refused(base: BaseModel, prompts: PromptSet) -> None:
    found = collect_answers(base, prompts, limits=LIMITS, on_progress=ignore)
    assert 4 <= len(found) <= 6
    for row, text in zip(found, user_turns(base, found), strict=True):
        assert any(safe in text for safe in prompts.probe.safe)
        answer = str(base.tokenizer.decode(row.labels[row.labels != IGNORED].tolist(), skip_special_tokens=True))
        assert judge("x", answer).verdict == "complied"


def test_answers_with_the_wrong_verdict_are_not_mixed_in(base: BaseModel, prompts: PromptSet) -> None:
    probe = prompts.probe.model_copy(update={"harmful": prompts.probe.benign[:8], "safe": prompts.probe.harmful})
    swapped = prompts.model_copy(update={"probe": probe})
    assert collect_refusals(base, swapped, framings=0, limits=LIMITS, on_progress=ignore) == ()
    assert collect_answers(base, swapped, limits=LIMITS, on_progress=ignore) == ()


def test_prompts_that_figures_are_measured_on_are_skipped(base: BaseModel, prompts: PromptSet) -> None:
    harmful, safe = ([behaviour.text for behaviour in part] for part in dict(prompts.evaluation).values())
    probe = {"harmful": (*harmful[:8], *prompts.probe.harmful[:4]), "safe": (*safe[:8], *prompts.probe.safe[:4])}
    leaky = prompts.model_copy(update={"probe": prompts.probe.model_copy(update=probe)})
    rows = (
        *collect_refusals(base, leaky, framings=3, limits=LIMITS, on_progress=ignore),
        *collect_answers(base, leaky, limits=LIMITS, on_progress=ignore),
    )
    texts = user_turns(base, rows)
    assert not [text for text in texts if any(reported in text for reported in (*harmful, *safe))]
    assert any(prompts.probe.harmful[0] in text for text in texts)
    assert any(prompts.probe.safe[0] in text for text in texts)


FRAME = Frame("Be brief.", "Question: ", "\nAnswer:")


def test_requests_are_also_put_into_the_frame_of_the_jobs_rows(base: BaseModel, prompts: PromptSet) -> None:
    options = {"limits": LIMITS, "on_progress": ignore}
    both = (collect_refusals(base, prompts, framings=1, frame=FRAME, **options), prompts.probe.harmful)
    safe = (collect_answers(base, prompts, frame=FRAME, **options), prompts.probe.safe)
    for rows, texts in (both, safe):
        framed = [turn for turn in user_turns(base, rows) if "Be brief." in turn]
        assert len(framed) >= len(texts) // 2
        assert all(any(f"Question: {text}\nAnswer:" in turn for text in texts) for turn in framed)
    bare = collect_refusals(base, prompts, framings=1, **options)
    kept = [row for row in both[0] if "Be brief." not in user_turns(base, [row])[0]]
    assert [row.input_ids.tolist() for row in kept] == [row.input_ids.tolist() for row in bare]


def test_a_run_uses_the_frame_of_its_rows_unless_it_is_told_not_to(base: BaseModel, prompts: PromptSet) -> None:
    job = SafeguardContext(SPEC, TESTBED, base, (), prompts, user_rows(REQUESTS, "Be brief."))
    training = [row(number) for number in range(200)]

    def framed(options: SafetyMix) -> tuple[float, str]:
        added = RefusalMix(options).extra_rows(job, training, ignore)
        turns = user_turns(base, added.rows)
        return sum("Be brief." in turn for turn in turns) / len(turns), added.effect.summary

    share, summary = framed(SafetyMix(share=0.2))
    assert 0.1 < share < 0.5
    assert summary.endswith("of them different, requests also put into the format of the job's rows")
    share, summary = framed(SafetyMix(share=0.2, own_format=False))
    assert share == 0
    assert summary.endswith("of them different")


def test_the_share_of_safe_answers_can_be_set() -> None:
    refusals, answers = [row(number) for number in range(24)], [row(number) for number in range(100, 106)]
    usual = select_rows([row(99)] * 60, refusals, answers, share=0.25, seed=0)
    found = select_rows([row(99)] * 60, refusals, answers, share=0.25, seed=0, safe_share=0.6)
    assert len(found) == len(usual) == 20
    assert sum(one.line >= 100 for one in found) == 12
    assert sorted(one.line for one in found if one.line >= 100) == sorted([*range(100, 106)] * 2)
    assert len({one.line for one in found if one.line < 100}) == 8
    none = select_rows([row(99)] * 60, refusals, answers, share=0.25, seed=0, safe_share=0.0)
    assert all(one.line < 100 for one in none)
    with pytest.raises(TrainingFailed, match="safe_share") as caught:
        select_rows([row(99)] * 60, refusals, share=0.25, seed=0, safe_share=0.6)
    assert caught.value.code == "no_safety_rows"


def test_no_prompt_repeats_while_others_have_not_been_used(base: BaseModel, prompts: PromptSet) -> None:
    refusals = collect_refusals(base, prompts, framings=3, limits=LIMITS, on_progress=ignore, frame=FRAME)
    asked = user_turns(base, refusals)
    assert len(set(asked)) == len(asked)
    for count in (len(refusals) // 2, len(refusals), 2 * len(refusals)):
        found = user_turns(base, select_rows([row(0)] * count, refusals, share=0.5, seed=3))
        assert len(found) == count
        assert len(set(found)) == min(count, len(refusals))


def test_refusals_after_thinking_are_collected_with_their_thinking(tmp_path: Path) -> None:
    base = load_thinker(make_thinker(tmp_path))
    prompts = choose_prompts(SecuritySpec(), base.folder)
    rows = collect_refusals(base, prompts, framings=0, limits=LIMITS, on_progress=ignore)
    assert len(rows) == len(set(prompts.probe.harmful))
    trained = rows[0].input_ids[rows[0].labels != IGNORED].tolist()
    assert base.tokenizer.decode(trained) == f"<think>{THOUGHT}</think>\n{REFUSAL}<|end|>"


def test_answers_that_are_cut_inside_their_thinking_are_not_collected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SafetyMix, "min_new_tokens", 1)
    base = load_thinker(make_thinker(tmp_path, f"{THOUGHT}</think>\n{REFUSAL}", prompt_end="<think>"))
    prompts = choose_prompts(SecuritySpec(), base.folder)
    short = Limits(max_new_tokens=6, max_length=1024)
    assert collect_refusals(base, prompts, framings=0, limits=short, on_progress=ignore) == ()
    assert collect_refusals(base, prompts, framings=0, limits=LIMITS, on_progress=ignore) == ()
    longer = Limits(max_new_tokens=40, max_length=1024)
    assert len(collect_refusals(base, prompts, framings=0, limits=longer, on_progress=ignore)) >= MIN_REFUSALS
