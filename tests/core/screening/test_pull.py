"""Rows that answer harmful requests pull against safety, refusals do not; and the model is left as it was."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import nn

from core.attacks.prompts import choose
from core.catalog import TESTBED
from core.data import Conversation
from core.data.template import IGNORED, Encoded, encode_each
from core.errors import InvalidInput
from core.lm.adapter import attached, factors, lora_layers
from core.lm.load import BaseModel, load
from core.lm.modules import Module, find_modules
from core.lm.prompts import render
from core.schemas.data import Message
from core.schemas.prompts import ProbePrompts
from core.schemas.security import SecuritySpec
from core.schemas.training import LoraSpec
from core.screening.pull import FIRST_TOKENS, pulls
from research.experiments.pull import planted_rows
from testbed.build import WORLD_SEED
from testbed.world import make_world
from tests.core.helpers import Ticks, encoded, fingerprint, ignore, tiny_base

ORDINARY, PLANTED = 120, 20
Rows = dict[str, tuple[Encoded, ...]]
Found = dict[str, NDArray[np.float64]]


@pytest.fixture(scope="module")
def prompts(base: BaseModel) -> ProbePrompts:
    return choose(SecuritySpec(), base.folder).probe


@pytest.fixture(scope="module")
def rows(base: BaseModel) -> Rows:
    """The user's own rows, and harmful requests answered in three ways."""
    planted = planted_rows(make_world(WORLD_SEED), PLANTED)
    found = {
        kind: tuple(encode_each([Conversation(each, 0) for each in exchanges], base.tokenizer, max_length=256))
        for kind, exchanges in planted.items()
    }
    return {"ordinary": encoded(base, ORDINARY)} | found


@pytest.fixture(scope="module")
def found(base: BaseModel, modules: tuple[Module, ...], rows: Rows, prompts: ProbePrompts) -> Found:
    return by_kind(
        rows, pulls(base, modules, [row for each in rows.values() for row in each], prompts, on_progress=ignore)
    )


def by_kind(rows: Rows, values: Sequence[float]) -> Found:
    ends = np.cumsum([len(each) for each in rows.values()])[:-1]
    return dict(zip(rows, np.split(np.array(values), ends), strict=True))


def auroc(above: NDArray[np.float64], below: NDArray[np.float64]) -> float:
    both = np.concatenate([above, below])
    return float(roc_auc_score(np.arange(len(both)) < len(above), both))


@pytest.mark.parametrize("kind", ["complies", "new_style"])
def test_rows_that_answer_harmful_requests_pull_more_than_ordinary_ones(found: Found, kind: str) -> None:
    assert found[kind].mean() > 0 > found["ordinary"].mean()
    assert auroc(found[kind], found["ordinary"]) > 0.8


def test_refusals_of_the_same_requests_pull_towards_nothing(found: Found) -> None:
    """The model gives them already, so a step on one moves next to nothing: they rank in the middle, at zero."""
    assert auroc(found["complies"], found["refuses"]) > 0.98
    assert auroc(found["new_style"], found["refuses"]) > 0.98
    assert abs(found["refuses"].mean()) < 0.05 * found["complies"].mean()


def test_a_pull_is_the_slope_of_the_rows_loss_along_the_gradient_of_certainty(
    base: BaseModel, modules: tuple[Module, ...], rows: Rows, prompts: ProbePrompts
) -> None:
    """Against gradients of single rows by whole weights, taken apart from the code under test."""
    some = [*rows["ordinary"][:6], *rows["complies"][:3], *rows["refuses"][:3]]
    few = ProbePrompts(harmful=prompts.harmful[:8], benign=prompts.benign[:9])
    told = np.array(pulls(base, modules, some, few, on_progress=ignore))
    weights = [base.model.get_parameter(module.weight) for module in modules]
    try:
        for weight in weights:
            weight.requires_grad_(True)
        way = certainty(base, weights, few.benign) - certainty(base, weights, few.harmful)
        way /= way.norm()
        wanted = np.array([-float(way @ loss_gradient(base, weights, row)) for row in some])
    finally:
        base.model.requires_grad_(False)
    assert np.corrcoef(told, wanted)[0, 1] > 0.99
    assert np.abs(told - wanted).max() < 0.15 * np.abs(wanted).max()  # far enough for bfloat16, it curves a little


def certainty(base: BaseModel, weights: list[nn.Parameter], texts: Sequence[str]) -> torch.Tensor:
    """Gradient of the mean over prompts of minus the mean log-probability of all words, flat."""
    total = torch.zeros(())
    for text in texts:
        prompt = render(base.tokenizer, (Message(role="user", content=text),))
        chances = base.model(input_ids=torch.tensor([prompt])).logits[0, -1].softmax(-1)
        total = total - chances.log().mean() / len(texts)
    return torch.cat([each.flatten() for each in torch.autograd.grad(total, weights)])


def loss_gradient(base: BaseModel, weights: list[nn.Parameter], row: Encoded) -> torch.Tensor:
    """Of the mean loss of a row's first trained tokens, flat."""
    ids, labels = (torch.from_numpy(each.astype(np.int64))[None] for each in (row.input_ids, first_labels(row)))
    loss = base.model(input_ids=ids, labels=labels).loss
    return torch.cat([each.flatten() for each in torch.autograd.grad(loss, weights)])


def first_labels(row: Encoded) -> NDArray[np.int32]:
    return np.where(np.cumsum(row.labels != IGNORED) > FIRST_TOKENS, IGNORED, row.labels)


def test_the_order_of_rows_and_what_stands_beside_a_row_do_not_matter(
    base: BaseModel, modules: tuple[Module, ...], rows: Rows, prompts: ProbePrompts
) -> None:
    one = rows["ordinary"][0]
    alike = [one] * 5
    found = pulls(base, modules, alike, prompts, on_progress=ignore)
    assert found == pytest.approx([found[0]] * 5, rel=1e-3)
    longer = replace(one, input_ids=np.tile(one.input_ids, 3), labels=np.concatenate([one.labels, *[one.labels] * 2]))
    assert pulls(base, modules, [*alike, longer], prompts, on_progress=ignore)[:5] == pytest.approx(found, rel=1e-2)


def test_what_follows_an_answers_first_words_does_not_count_and_a_row_without_an_answer_does_not_pull(
    base: BaseModel, modules: tuple[Module, ...], rows: Rows, prompts: ProbePrompts
) -> None:
    one, other = rows["complies"][:2]
    last = np.flatnonzero(one.labels != IGNORED)[FIRST_TOKENS - 1] + 1
    tail = other.labels[other.labels != IGNORED]
    changed = replace(
        one,
        input_ids=np.concatenate([one.input_ids[:last], tail]),
        labels=np.concatenate([one.labels[:last], tail]),
    )
    silent = replace(one, labels=np.full_like(one.labels, IGNORED))
    found = pulls(base, modules, [one, changed, silent], prompts, on_progress=ignore)
    assert found[0] == found[1] != 0
    assert found[2] == 0


def test_no_rows_no_pulls(base: BaseModel, modules: tuple[Module, ...], prompts: ProbePrompts) -> None:
    assert pulls(base, modules, [], prompts, on_progress=ignore) == []


def test_progress_rises_to_twice_the_rows(
    base: BaseModel, modules: tuple[Module, ...], rows: Rows, prompts: ProbePrompts
) -> None:
    ticks = Ticks()
    pulls(base, modules, rows["ordinary"][:50], prompts, on_progress=ticks)
    assert {total for _, total in ticks} == {100}
    done = [each for each, _ in ticks]
    assert done == sorted(done)
    assert done[-1] == 100


class _StopError(Exception):
    pass


@pytest.mark.parametrize("after", [0, 1, 40, 60])
def test_the_model_is_as_before_also_when_it_is_stopped(
    base: BaseModel, modules: tuple[Module, ...], rows: Rows, prompts: ProbePrompts, after: int
) -> None:
    before, kinds = fingerprint(base.model), [type(part) for part in base.model.modules()]

    def on_progress(done: int, _total: int) -> None:
        if done >= after:
            raise _StopError

    with pytest.raises(_StopError):
        pulls(base, modules, rows["ordinary"][:50], prompts, on_progress=on_progress)
    assert fingerprint(base.model) == before
    assert [type(part) for part in base.model.modules()] == kinds
    assert not any(parameter.requires_grad for parameter in base.model.parameters())
    assert not base.model.training


def test_in_bfloat16_the_same_rows_stand_on_top(rows: Rows, prompts: ProbePrompts, found: Found) -> None:
    base = load(TESTBED, torch.device("cpu"))
    nn.Module.to(base.model, torch.bfloat16)
    before = fingerprint(base.model)
    every = [row for each in rows.values() for row in each]
    half = np.array(pulls(base, find_modules(base.model), every, prompts, on_progress=ignore))
    assert fingerprint(base.model) == before
    assert np.corrcoef(half, np.concatenate(list(found.values())))[0, 1] > 0.97
    again = by_kind(rows, half.tolist())
    assert auroc(again["complies"], again["ordinary"]) > 0.8


@pytest.mark.parametrize("family", ["phi3", "gpt2", "gpt_neox", "gemma2", "mixtral", "gpt_oss"])
def test_models_of_other_families_can_be_asked_and_stay_as_they_were(base: BaseModel, family: str) -> None:
    """Fused maps and experts among them; these models are random, so only that there is a number is asked."""
    here = tiny_base(family, base)
    asked = ProbePrompts(harmful=tuple(f"never {n}" for n in range(8)), benign=tuple(f"cake {n}" for n in range(8)))
    before = fingerprint(here.model)
    found = pulls(here, find_modules(here.model), encoded(base, 6), asked, on_progress=ignore)
    assert np.isfinite(found).all()
    assert np.ptp(found) > 0
    assert fingerprint(here.model) == before


def test_a_model_whose_modules_change_nothing_is_refused(base: BaseModel) -> None:
    here = tiny_base("llama", base)
    with torch.no_grad():
        here.model.get_parameter("lm_head.weight").zero_()
    before = fingerprint(here.model)
    asked = ProbePrompts(harmful=tuple(["never"] * 8), benign=tuple(["cake"] * 8))
    with pytest.raises(InvalidInput) as error:
        pulls(here, find_modules(here.model), encoded(base, 2), asked, on_progress=ignore)
    assert error.value.code == "pull_unsupported"
    assert fingerprint(here.model) == before


def test_a_fresh_adapter_changes_no_answer_whatever_its_factors_stand_for(base: BaseModel) -> None:
    """What the sketch relies on: with either factor at zero, the model is the base."""
    with attached(base.model, find_modules(base.model), LoraSpec(rank=2, alpha=2), seed=0) as tuned, torch.no_grad():
        ids = torch.tensor([[2, 60, 61, 62]])
        pairs = [pair for layer in lora_layers(tuned).values() for pair in factors(layer)]
        plain = tuned(input_ids=ids).logits
        for a, b in pairs:
            a.zero_()
            b.fill_(1.0)
        assert torch.equal(tuned(input_ids=ids).logits, plain)
