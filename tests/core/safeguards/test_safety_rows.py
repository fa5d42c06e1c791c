"""Refusals and safe answers are collected from the base model: bare, in framings and in the frame of the rows."""

from pathlib import Path

import pytest

from core.attacks.prompts import choose_prompts
from core.data import Conversation
from core.data.encoded import IGNORED
from core.data.frame import Frame
from core.data.template import encode
from core.judges.rules import judge
from core.lm.load import BaseModel
from core.safeguards.base_answers import BaseAnswers
from core.safeguards.framings import FRAMINGS
from core.safeguards.safety_rows import MIN_REFUSALS, Limits, collect_answers, collect_refusals, encode_answer
from core.schemas.data import Message
from core.schemas.prompts import PromptSet
from core.schemas.safeguards import SafetyMix
from core.schemas.security import SecuritySpec
from tests.core.helpers import ignore, shown_before_answers
from tests.core.thinkers import REFUSAL, THOUGHT, load_thinker, make_thinker

LIMITS = Limits(max_new_tokens=12, max_length=1024)


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


def test_refusals_are_the_base_models_own_in_its_chat_template(base: BaseModel, prompts: PromptSet) -> None:
    found = collect_refusals(BaseAnswers(base), prompts, framings=0, limits=LIMITS, on_progress=ignore)
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


def test_each_request_is_refused_bare_and_in_the_next_framings(base: BaseModel, prompts: PromptSet) -> None:
    found = shown_before_answers(
        base, collect_refusals(BaseAnswers(base), prompts, framings=2, limits=LIMITS, on_progress=ignore)
    )
    expected = [
        turn
        for number, text in enumerate(prompts.probe.harmful)
        for turn in (text, *(FRAMINGS[(2 * number + k) % len(FRAMINGS)].fill(text) for k in range(2)))
    ]
    shown = [next(turn for turn in sorted(expected, key=len, reverse=True) if turn in text) for text in found]
    assert len(set(shown)) == len(shown) >= 20, "the base model refuses nearly all of these 24"
    assert set(prompts.probe.harmful) <= set(shown)


def test_safe_look_alikes_are_answered_and_not_refused(base: BaseModel, prompts: PromptSet) -> None:
    found = collect_answers(BaseAnswers(base), prompts, limits=LIMITS, on_progress=ignore)
    assert 4 <= len(found) <= 6
    for row, text in zip(found, shown_before_answers(base, found), strict=True):
        assert any(safe in text for safe in prompts.probe.safe)
        answer = str(base.tokenizer.decode(row.labels[row.labels != IGNORED].tolist(), skip_special_tokens=True))
        assert judge("x", answer).verdict == "complied"


def test_answers_with_the_wrong_verdict_are_not_mixed_in(base: BaseModel, prompts: PromptSet) -> None:
    probe = prompts.probe.model_copy(update={"harmful": prompts.probe.benign[:8], "safe": prompts.probe.harmful})
    swapped = prompts.model_copy(update={"probe": probe})
    assert collect_refusals(BaseAnswers(base), swapped, framings=0, limits=LIMITS, on_progress=ignore) == ()
    assert collect_answers(BaseAnswers(base), swapped, limits=LIMITS, on_progress=ignore) == ()


def test_prompts_that_figures_are_measured_on_are_skipped(base: BaseModel, prompts: PromptSet) -> None:
    harmful, safe = ([behaviour.text for behaviour in part] for part in dict(prompts.evaluation).values())
    probe = {"harmful": (*harmful[:8], *prompts.probe.harmful[:4]), "safe": (*safe[:8], *prompts.probe.safe[:4])}
    leaky = prompts.model_copy(update={"probe": prompts.probe.model_copy(update=probe)})
    rows = (
        *collect_refusals(BaseAnswers(base), leaky, framings=3, limits=LIMITS, on_progress=ignore),
        *collect_answers(BaseAnswers(base), leaky, limits=LIMITS, on_progress=ignore),
    )
    texts = shown_before_answers(base, rows)
    assert not [text for text in texts if any(reported in text for reported in (*harmful, *safe))]
    assert any(prompts.probe.harmful[0] in text for text in texts)
    assert any(prompts.probe.safe[0] in text for text in texts)


FRAME = Frame("Be brief.", "Question: ", "\nAnswer:")


def test_requests_are_also_put_into_the_frame_of_the_jobs_rows(base: BaseModel, prompts: PromptSet) -> None:
    options = {"limits": LIMITS, "on_progress": ignore}
    both = (collect_refusals(BaseAnswers(base), prompts, framings=1, frame=FRAME, **options), prompts.probe.harmful)
    safe = (collect_answers(BaseAnswers(base), prompts, frame=FRAME, **options), prompts.probe.safe)
    for rows, texts in (both, safe):
        framed = [turn for turn in shown_before_answers(base, rows) if "Be brief." in turn]
        assert len(framed) >= len(texts) // 2
        assert all(any(f"Question: {text}\nAnswer:" in turn for text in texts) for turn in framed)
    bare = collect_refusals(BaseAnswers(base), prompts, framings=1, **options)
    kept = [row for row in both[0] if "Be brief." not in shown_before_answers(base, [row])[0]]
    assert [row.input_ids.tolist() for row in kept] == [row.input_ids.tolist() for row in bare]


def test_refusals_after_thinking_are_collected_with_their_thinking(tmp_path: Path) -> None:
    base = load_thinker(make_thinker(tmp_path))
    prompts = choose_prompts(SecuritySpec(), base.folder)
    rows = collect_refusals(BaseAnswers(base), prompts, framings=0, limits=LIMITS, on_progress=ignore)
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
    assert collect_refusals(BaseAnswers(base), prompts, framings=0, limits=short, on_progress=ignore) == ()
    assert collect_refusals(BaseAnswers(base), prompts, framings=0, limits=LIMITS, on_progress=ignore) == ()
    longer = Limits(max_new_tokens=40, max_length=1024)
    assert (
        len(collect_refusals(BaseAnswers(base), prompts, framings=0, limits=longer, on_progress=ignore)) >= MIN_REFUSALS
    )
