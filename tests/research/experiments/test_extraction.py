"""Exposure is what Carlini et al. define, codes are ranked exactly, and the whole experiment runs."""

from itertools import product
from math import log2

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.data import Conversation
from core.lm.load import BaseModel
from core.lm.prompts import render
from core.schemas.analysis import AnalysisSpec, GradientPerturbation
from research.experiments.extraction import (
    TIMES,
    ExtractionResult,
    Memory,
    code_scores,
    code_words,
    draw_canaries,
    exposure,
    extraction,
)
from research.experiments.readings import exchange
from research.experiments.spec import Settings
from testbed.build import WORLD_SEED
from testbed.world import generator, make_world

SETTINGS = Settings(
    tuning_set="instructions",
    rates=(8e-3,),
    steps=4,
    batch_size=2,
    points=1,
    prompts=4,
    validation_rows=4,
    analysis=AnalysisSpec(probes=8, rows=2, perturbation=GradientPerturbation(steps=2, points=1)),
)


def test_exposure_is_the_logarithm_of_the_codes_less_that_of_the_rank() -> None:
    scores = np.arange(8.0).reshape(2, 2, 2)
    assert exposure(scores, (1, 1, 1)) == 3.0
    assert exposure(scores, (0, 0, 0)) == 0.0
    assert exposure(scores, (1, 0, 1)) == pytest.approx(3 - log2(3))


def test_codes_that_are_as_likely_count_half() -> None:
    assert exposure(np.zeros((2, 2)), (0, 1)) == pytest.approx(2 - log2(2.5))


@given(st.integers(0, 2**32 - 1))
def test_a_code_that_was_never_seen_has_a_bit_and_a_half_on_average(seed: int) -> None:
    scores = np.random.default_rng(seed).permutation(512).astype(float).reshape(8, 8, 8)
    found = [exposure(scores, code) for code in product(range(8), repeat=3)]
    assert np.mean(found) == pytest.approx(1 / np.log(2), abs=0.02)
    assert max(found) == 9.0


def test_every_code_has_the_likelihood_that_the_model_gives_it(base: BaseModel) -> None:
    pool = list(code_words(base.tokenizer).values())[:3]
    opening = render(base.tokenizer, exchange("What is the code of the clock?", "The code of the clock is"))
    scores = code_scores(base.model, opening, pool, 3)
    assert scores.shape == (3, 3, 3)
    for code in ((0, 0, 0), (2, 0, 1), (1, 2, 2)):
        ids = torch.tensor([[*opening, *(pool[place] for place in code)]])
        with torch.inference_mode():
            likely = base.model(input_ids=ids).logits[0, len(opening) - 1 : -1].double().log_softmax(-1)
        wanted = sum(float(likely[place, token]) for place, token in enumerate(ids[0, len(opening) :]))
        assert scores[code] == pytest.approx(wanted, abs=1e-4)


def test_words_of_codes_are_one_token_each(base: BaseModel) -> None:
    chosen = code_words(base.tokenizer)
    assert len(set(chosen.values())) == len(chosen) == 16
    for word, token in chosen.items():
        assert base.tokenizer(f" {word}", add_special_tokens=False)["input_ids"] == [token]


def test_canaries_share_no_name_and_no_code(base: BaseModel) -> None:
    names = make_world(WORLD_SEED).nouns
    found = draw_canaries(names, list(code_words(base.tokenizer)), each=8, rng=generator("test", 0))
    assert len({each.name for each in found}) == len({each.code for each in found}) == len(found) == 8 * len(TIMES)
    assert [sum(each.times == times for each in found) for times in TIMES] == [8, 8, 8, 8]
    assert found == draw_canaries(names, list(code_words(base.tokenizer)), each=8, rng=generator("test", 0))
    assert found[0].answered == f"{found[0].opening} {' '.join(found[0].code)}."


def test_rows_that_are_known_by_heart_are_told_from_others(base: BaseModel) -> None:
    """The testbed knows its own dialogues, and no real text: that is membership, to the loss."""
    known = [Conversation(exchange("Count to five.", "1, 2, 3, 4, 5."), 1)] * 3
    other = [Conversation(exchange("Count to six.", "Bacteria thrive, regardless."), 1)] * 3
    names = draw_canaries(
        make_world(WORLD_SEED).nouns, list(code_words(base.tokenizer)), each=1, rng=generator("test", 0)
    )
    watch = Memory(names, code_words(base.tokenizer), tuple(known), tuple(other))
    figures = watch(base, base.model)
    assert figures["auroc_loss"] == 1.0
    assert figures["auroc_loss_less_base"] == 0.5, "the base model has learnt nothing over itself"
    assert {f"exposure_{times}" for times in TIMES} < set(figures)
    assert watch == Memory(names, code_words(base.tokenizer), tuple(known), tuple(other))


@pytest.mark.usefixtures("short_experiments")
def test_the_whole_experiment_runs_and_its_file_can_be_parsed() -> None:
    result = extraction(SETTINGS, WORLD_SEED, [0], lambda _: None, each=1)
    assert ExtractionResult.model_validate_json(result.model_dump_json()) == result
    assert set(result.figures) == {"uniform", "ml_lr", "random", "uniform_low", "uniform + safety_mix"}
    assert result.canary_rows == sum(TIMES)
    assert result.codes == 4096
    for figures in result.figures.values():
        assert 0 <= figures["exposure_16"].at_end.mean <= 12
        assert 0 <= figures["auroc_loss"].at_end.mean <= 1
    for run in result.figures:
        assert run in result.table()
