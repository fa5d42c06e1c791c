"""Drift is 0 on the unchanged base model, repeatable, and changes with the model."""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from core.data.encoded import Encoded
from core.errors import InvalidModel
from core.lm.generate import continue_tokens
from core.lm.load import BaseModel
from core.lm.modules import Module
from core.lm.prompts import render
from core.quality.loss import row_losses
from core.robustness import refusals as here
from core.robustness.perturb import Noise
from core.robustness.probe_activations import Effect, Measurement, ProbeActivations, effect
from core.robustness.refusals import ProbeBatch
from core.schemas.prompts import ProbePrompts
from tests.core.helpers import encoded, ignore, user_turns
from tests.core.robustness.conftest import COUNT, FAR_APART
from tests.core.thinkers import REFUSAL, THOUGHT, load_thinker, make_thinker


def test_the_base_has_not_drifted(base: BaseModel, activations: ProbeActivations, rows: tuple[Encoded, ...]) -> None:
    found = activations.measure(base.model)
    assert found.feature_drift == pytest.approx(0.0, abs=1e-4)
    assert found.task_loss == pytest.approx(
        sum(row_losses(base, base.model, rows, on_progress=ignore)) / len(rows), abs=1e-4
    )
    assert activations.measure(base.model) == found
    assert activations.direction.quality.n_train + activations.direction.quality.n_test == 2 * COUNT


def test_refusal_nll_is_that_of_the_base_models_first_answer_tokens(
    base: BaseModel, activations: ProbeActivations, prompts: ProbePrompts
) -> None:
    each = []
    for messages in user_turns(*prompts.harmful[:COUNT]):
        prompt = render(base.tokenizer, messages)
        (own,) = continue_tokens(base, base.model, [prompt], max_new_tokens=4, on_progress=ignore)
        with torch.inference_mode():
            logits = base.model(input_ids=torch.tensor([prompt + own])).logits[0, len(prompt) - 1 : -1]
        each.append(-logits.log_softmax(-1)[range(len(own)), own].mean().item())
    assert activations.measure(base.model).refusal_nll == pytest.approx(sum(each) / len(each), abs=1e-4)
    assert activations.refusal_nll(base.model) == activations.measure(base.model).refusal_nll


def test_a_broken_model_has_other_figures(
    base: BaseModel, modules: tuple[Module, ...], activations: ProbeActivations
) -> None:
    before = activations.measure(base.model)
    with Noise(base.model, modules, relative_norm=10.0, seed=0).perturbed([module.name for module in modules]):
        after = activations.measure(base.model)
    assert after.refusal_nll > before.refusal_nll + 0.3
    assert abs(after.task_loss - before.task_loss) > 0.1
    assert abs(after.feature_drift) > 0.01
    assert activations.measure(base.model) == before


def test_security_can_be_measured_without_rows(
    base: BaseModel, modules: tuple[Module, ...], activations: ProbeActivations
) -> None:
    with Noise(base.model, modules, relative_norm=1.0, seed=0).perturbed([module.name for module in modules]):
        whole, security = activations.measure(base.model), activations.security_only().measure(base.model)
    assert (security.refusal_nll, security.feature_drift) == (whole.refusal_nll, whole.feature_drift)
    assert math.isnan(security.task_loss)
    assert activations.task, "those that it was made of are as before"


def test_more_drift_is_less_safe_and_more_gain_is_better_at_the_task() -> None:
    before = Measurement(feature_drift=0.25, refusal_nll=1.0, task_loss=4.0)
    after = Measurement(feature_drift=0.75, refusal_nll=3.0, task_loss=1.0)
    assert effect(before, after) == Effect(feature_drift=0.5, refusal_drift=2.0, task_gain=3.0)


def test_preparation_can_be_stopped(base: BaseModel, prompts: ProbePrompts, rows: tuple[Encoded, ...]) -> None:
    def stop(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ProbeActivations(base, prompts, rows, count=COUNT, seed=0, on_progress=stop)


@pytest.mark.parametrize("emptied", [1, COUNT + 1])
def test_a_prompt_without_an_answer_has_no_refusal_to_drift(
    base: BaseModel,
    prompts: ProbePrompts,
    rows: tuple[Encoded, ...],
    monkeypatch: pytest.MonkeyPatch,
    emptied: int,
) -> None:
    found: list[list[int]] = []

    def answers(*args: object, **options: object) -> list[list[int]]:
        found[:] = continue_tokens(*args, **options)  # pyrefly: ignore
        return [[]] * emptied + found[emptied:]

    monkeypatch.setattr(here, "continue_tokens", answers)
    if emptied > COUNT:
        with pytest.raises(InvalidModel) as caught:
            ProbeActivations(base, prompts, rows, count=COUNT + 1, seed=0, on_progress=ignore)
        assert caught.value.code == "no_answers"
        return
    fewer = ProbeActivations(base, prompts, rows, count=COUNT + 1, seed=0, on_progress=ignore)
    assert sum(int((chunk.per_row > 0).sum()) for chunk in fewer.harmful) == COUNT
    others = ProbePrompts(harmful=prompts.harmful[emptied:], benign=prompts.benign)
    monkeypatch.setattr(here, "continue_tokens", continue_tokens)
    wanted = ProbeActivations(base, others, rows, count=COUNT, seed=0, on_progress=ignore)
    assert fewer.measure(base.model).refusal_nll == pytest.approx(wanted.measure(base.model).refusal_nll, abs=1e-4)
    assert fewer.measure(base.model).feature_drift == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize("prompt_end", ["", "<think>"])
def test_the_reference_answers_of_a_model_that_thinks_are_its_refusals(
    tmp_path: Path, rows: tuple[Encoded, ...], prompt_end: str
) -> None:
    said = f"{'' if prompt_end else '<think>'}{THOUGHT}</think>\n{REFUSAL}"
    thinker = load_thinker(make_thinker(tmp_path, said, prompt_end=prompt_end))
    found = ProbeActivations(thinker, FAR_APART, rows, count=COUNT, seed=0, on_progress=ignore)
    (batch,) = found.harmful
    first = thinker.tokenizer(REFUSAL, add_special_tokens=False)["input_ids"][:4]
    assert batch.wanted.tolist() == first * COUNT
    assert batch.last_prompt is not None
    last = batch.input_ids[torch.arange(COUNT), batch.last_prompt].tolist()
    assert thinker.tokenizer.decode(last) == "\n" * COUNT


def in_batches(batches: Sequence[ProbeBatch], half: int) -> Counter[str]:
    """The prompts or rows of a half, as text."""
    found: Counter[str] = Counter()
    for batch in (each for each in batches if each.half == half):
        for number in range(len(batch.input_ids)):
            answer = batch.wanted[batch.counted[:, 0] == number]
            prompt = batch.input_ids[number][batch.attention_mask[number].bool()]
            found[str((answer if batch.last_prompt is None else prompt).tolist())] += 1
    return found


def test_probes_share_the_prompts_and_rows_if_they_suffice(base: BaseModel, prompts: ProbePrompts) -> None:
    many = encoded(base, 16)
    whole = ProbeActivations(base, prompts, many, count=33, seed=0, on_progress=ignore)
    first, second, again = (whole.share(number, of=3) for number in range(3))
    halves = [in_batches(share.harmful, half) for share in (first, second) for half in (0, 1)]
    assert [each.total() for each in halves] == [9, 8, 8, 8]
    assert sum(halves, Counter()) == in_batches(whole.harmful, 0), "every prompt is in one half of one share"
    rows = [in_batches(share.task, half) for share in (first, second) for half in (0, 1)]
    assert [each.total() for each in rows] == [4, 4, 4, 4]
    assert sum(rows, Counter()) == in_batches(whole.task, 0)
    assert in_batches(again.harmful, 0) == halves[0], "33 prompts do not suffice for a third share"
