"""The generation benchmark on a few prompts, and what it says of answers that differ."""

import pytest
import torch

from core.catalog import TESTBED
from core.lm.load import BaseModel, load
from research.bench.generation import differing, main
from tests.research.bench.programs import run_for_figures


@pytest.fixture(scope="module")
def base() -> BaseModel:
    return load(TESTBED, torch.device("cpu"))


def likeliest(base: BaseModel, prompt: list[int]) -> list[int]:
    """Tokens by how likely they are to follow."""
    with torch.inference_mode():
        logits = base.model(input_ids=torch.tensor([prompt])).logits[0, -1]
    return logits.argsort(descending=True).tolist()


def test_it_says_how_many_times_as_long_the_others_take() -> None:
    options = ["--rounds=2", "--prompts=14", "--tokens=5", "--sizes=4", "--sizes=8"]
    figures = run_for_figures(main, *options)
    assert figures["benchmark"] == "generation"
    plain, longer = figures["without_system_prompt"], figures["with_system_prompt"]
    assert plain["prompt_tokens"]["mean"] < longer["prompt_tokens"]["mean"]
    for found in (plain, longer):
        assert found["answer_tokens"]["max"] <= 5
        for name in ("one_by_one", "batched", "sorted"):
            ratio = found[f"{name}_to_engine"]
            assert ratio["n"] == 2
            assert 0 < ratio["min"] <= ratio["median"] <= ratio["max"]
            assert ratio["best"].startswith(name)
        assert found["other_answers"]["engine"] == {"of": found["prompts"], "differ": 0, "widest_tie": 0.0}


def test_answers_that_part_at_a_tie_are_counted(base: BaseModel) -> None:
    prompt = [2, 60, 61, 4, 3]
    first, second, *_ = likeliest(base, prompt)
    head = base.model.get_output_embeddings()
    assert head is not None
    weight = head.weight
    assert isinstance(weight, torch.Tensor)
    kept = weight[second].clone()
    weight[second] = weight[first]
    try:
        found = differing(base, [prompt, prompt], [[first, 5], [7]], [[second, 9, 9], [7]])
    finally:
        weight[second] = kept
    assert found == {"of": 2, "differ": 1, "widest_tie": 0.0}


def test_other_answers_are_an_error(base: BaseModel) -> None:
    prompt = [2, 60, 61, 4, 3]
    first, *_, last = likeliest(base, prompt)
    for wanted, found in (([first], [last]), ([first, 4], [first])):
        with pytest.raises(RuntimeError, match="its prompt alone"):
            differing(base, [prompt], [wanted], [found])
