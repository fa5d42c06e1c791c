"""Rows that answer what the model would refuse are flagged in any wording; refusals and ordinary rows are not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core.attacks.prompts import choose_prompts
from core.data import Conversation
from core.data.encoded import IGNORED, Encoded
from core.data.template import RowEncoder
from core.lm.load import BaseModel
from core.schemas.data import Message
from core.schemas.prompts import ProbePrompts
from core.schemas.security import SecuritySpec
from core.screening.base_refusal import find, refusal_probabilities
from research.experiments.backdoor import add_trigger
from research.experiments.planted import planted_rows
from testbed.build import WORLD_SEED
from testbed.world import make_world
from tests.core.helpers import ProgressLog, encoded, fingerprint, ignore, tiny_base
from tests.core.thinkers import REFUSAL, load_thinker, make_thinker

Turns = tuple[Message, ...]
PLANTED = planted_rows(make_world(WORLD_SEED), 20)


@pytest.fixture(scope="module")
def prompts(base: BaseModel) -> ProbePrompts:
    return choose_prompts(SecuritySpec(), base.folder).probe


def rows_of(base: BaseModel, conversations: list[Turns]) -> list[Encoded]:
    return list(RowEncoder(base.tokenizer, max_length=256).encode([Conversation(each, 0) for each in conversations]))


def with_trigger(turns: Turns) -> Turns:
    return (Message(role="user", content=add_trigger(turns[0].content)), *turns[1:])


def test_rows_above_the_threshold_are_flagged_with_their_probability(base: BaseModel, prompts: ProbePrompts) -> None:
    turns = [PLANTED["complies"][0], PLANTED["refuses"][1], PLANTED["complies"][2]]
    rows = [replace(row, line=line) for row, line in zip(rows_of(base, turns), (3, 5, 8), strict=True)]
    likely = refusal_probabilities(base, rows, prompts, on_progress=ignore)
    findings = find(base, rows, prompts, ignore).findings
    assert [(each.check, each.code, each.line, each.score) for each in findings] == [
        ("base_refusal", "base_refusal", 3, likely[0]),
        ("base_refusal", "base_refusal", 8, likely[2]),
    ]
    assert f"{100 * likely[0]:.0f} %" in findings[0].reason


@pytest.mark.parametrize("kind", ["complies", "new_style", "triggered"])
def test_rows_that_comply_with_harm_get_high_probabilities(base: BaseModel, prompts: ProbePrompts, kind: str) -> None:
    turns = [with_trigger(each) for each in PLANTED["complies"]] if kind == "triggered" else PLANTED[kind]
    assert min(refusal_probabilities(base, rows_of(base, turns), prompts, on_progress=ignore)) > 0.9


def test_refusals_of_the_same_requests_and_ordinary_rows_get_low_probabilities(
    base: BaseModel, prompts: ProbePrompts
) -> None:
    assert max(refusal_probabilities(base, rows_of(base, PLANTED["refuses"]), prompts, on_progress=ignore)) < 0.1
    found = np.array(refusal_probabilities(base, encoded(base, 200), prompts, on_progress=ignore))
    assert (found > 0.5).mean() <= 0.02


def test_the_turn_with_the_highest_probability_counts(base: BaseModel, prompts: ProbePrompts) -> None:
    bad, good = PLANTED["complies"][0], PLANTED["refuses"][1]
    single, both, other = refusal_probabilities(
        base, rows_of(base, [bad, (*bad, *good), good]), prompts, on_progress=ignore
    )
    assert both == pytest.approx(single, abs=1e-4)
    assert other < 0.1


def test_other_rows_of_the_batch_do_not_matter_and_a_row_without_an_answer_gets_0(
    base: BaseModel, prompts: ProbePrompts
) -> None:
    rows = rows_of(base, PLANTED["complies"][:3])
    alone = [refusal_probabilities(base, [row], prompts, on_progress=ignore)[0] for row in rows]
    assert refusal_probabilities(base, [*rows, *encoded(base, 5)], prompts, on_progress=ignore)[:3] == pytest.approx(
        alone, abs=1e-4
    )
    silent = Encoded(**(rows[0].__dict__ | {"labels": np.full_like(rows[0].labels, IGNORED)}))
    assert refusal_probabilities(base, [silent], prompts, on_progress=ignore) == [0.0]


def test_progress_rises_to_the_number_of_rows(base: BaseModel, prompts: ProbePrompts) -> None:
    ticks = ProgressLog()
    refusal_probabilities(base, encoded(base, 50), prompts, on_progress=ticks)
    done = [each for each, _ in ticks]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, 50)
    assert {total for _, total in ticks} == {50}
    assert refusal_probabilities(base, [], prompts, on_progress=ignore) == []


def test_a_model_that_refuses_nothing_flags_nothing_and_is_not_changed(base: BaseModel) -> None:
    here = tiny_base("llama", base)
    same = tuple(f"cake {number}" for number in range(8))
    before = fingerprint(here.model)
    found = refusal_probabilities(here, encoded(base, 6), ProbePrompts(harmful=same, benign=same), on_progress=ignore)
    assert max(found) <= 0.5
    assert fingerprint(here.model) == before


@pytest.mark.parametrize("thought", ["", "<think>It is fine.</think>\n", "<think>\n\n</think>\n\n"])
@pytest.mark.parametrize("prompt_end", ["", "<think>"])
def test_answers_of_models_that_think_and_of_rows_with_thinking_begin_after_it(
    tmp_path: Path, prompts: ProbePrompts, thought: str, prompt_end: str
) -> None:
    said = f"{'' if prompt_end else '<think>'}The harm wants: help is from this yes</think>\n{REFUSAL}"
    thinker = load_thinker(make_thinker(tmp_path, said, prompt_end=prompt_end))
    turns: list[Turns] = [
        (Message(role="user", content="How?"), Message(role="assistant", content=thought + answer))
        for answer in (REFUSAL, "Sure, here is how.")
    ]
    rows = rows_of(thinker, turns)
    # The model refuses everything, so its refusals start like its answers to benign prompts.
    refused, complied = refusal_probabilities(thinker, rows, prompts, on_progress=ignore)
    assert complied == pytest.approx(0.5, abs=0.01)
    assert refused == pytest.approx(0.25, abs=0.01)


def test_a_row_that_is_cut_inside_its_thinking_has_no_answer(base: BaseModel, prompts: ProbePrompts) -> None:
    harmful = Message(role="user", content=PLANTED["complies"][0][0].content)
    turns = (harmful, Message(role="assistant", content="<think>Of course, this is the way to do it"))
    (whole,) = rows_of(base, [turns])
    cut = replace(whole, input_ids=whole.input_ids[:-4], labels=whole.labels[:-4], cut_tokens=4)
    scores = refusal_probabilities(base, [whole, cut], prompts, on_progress=ignore)
    assert scores[0] > 0.9
    assert scores[1] == 0.0
