"""A short build of the testbed: it is reproducible, and depends on the seeds."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from core.lm.modules import find_modules
from core.schemas.prompts import PromptSet
from testbed.build import Shape, new_model, world_tokenizer
from testbed.tuning_sets import ARITHMETIC, INSTRUCTIONS
from testbed.world import make_world

OPTIONS = ("--steps-scale", "0.002", "--limit", "4")


def start(out: Path) -> subprocess.Popen[str]:
    # Two builds run at once, perhaps on two cores, where spinning threads would starve each other.
    environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, "-m", "testbed.build", "--out", str(out), *OPTIONS]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, dict[str, float]]]:
    """The same build twice, each by the command in a separate process."""
    folders = [tmp_path_factory.mktemp(name) for name in ("first", "second")]
    processes = [start(folder) for folder in folders]
    outputs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    return [(folder, json.loads(output.splitlines()[-1])) for folder, output in zip(folders, outputs, strict=True)]


def test_the_command_writes_a_loadable_model_and_prints_figures(builds: list[tuple[Path, dict[str, float]]]) -> None:
    out, figures = builds[0]
    assert {path.name for path in out.iterdir()} == {"model", "data"}
    assert figures["exact_match"] == 0  # hardly trained
    assert figures["loss/pretraining"] > 3
    assert 1_200_000 <= figures["parameters"] <= 2_200_000
    assert {"asr/direct", "refusal/prompt_injection", "over_refusal", "undecided", "seconds"} <= figures.keys()
    model = AutoModelForCausalLM.from_pretrained(out / "model")
    tokenizer = AutoTokenizer.from_pretrained(out / "model")
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    assert model.config.vocab_size == len(tokenizer)
    PromptSet.model_validate_json((out / "model" / "security_prompts.json").read_text(encoding="utf-8"))
    assert len((out / "data" / "instructions.jsonl").read_text(encoding="utf-8").splitlines()) == INSTRUCTIONS
    assert len((out / "data" / "arithmetic.jsonl").read_text(encoding="utf-8").splitlines()) == ARITHMETIC


def test_the_same_seed_gives_the_same_bytes(builds: list[tuple[Path, dict[str, float]]]) -> None:
    (first, _), (second, _) = builds
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert len(files) == 9
    for path in files:
        assert (first / path).read_bytes() == (second / path).read_bytes(), path


def test_another_seed_gives_other_weights(builds: list[tuple[Path, dict[str, float]]]) -> None:
    tokenizer = world_tokenizer(make_world(0))
    weights = load_file(builds[0][0] / "model" / "model.safetensors")
    one, other = (new_model(tokenizer, seed).state_dict() for seed in (0, 1))
    name = "model.layers.0.self_attn.q_proj.weight"
    assert weights[name].shape == one[name].shape
    # A few steps hardly change the weights, so the build started from the initial weights of its seed.
    assert torch.dist(weights[name], one[name]) < 0.5 * torch.dist(weights[name], other[name])


def test_another_world_seed_gives_another_world() -> None:
    one, other = make_world(0), make_world(1)
    assert make_world(0) == one
    assert set(one.harmful_verbs) != set(other.harmful_verbs)
    assert one.step != other.step
    assert {one.requests, one.openings, one.refusals}.isdisjoint({other.requests, other.openings, other.refusals})
    assert world_tokenizer(one).get_vocab() != world_tokenizer(other).get_vocab()


@pytest.mark.parametrize("shape", ["llama", "llama_small", "gpt_neox"])
def test_the_modules_of_every_shape_have_known_types(shape: Shape) -> None:
    model = new_model(world_tokenizer(make_world(0)), 0, shape)
    types = {module.type for module in find_modules(model)}
    assert {"q", "k", "v", "o", "up", "down"} <= types
    assert 500_000 < model.num_parameters() < 2_200_000


@pytest.mark.parametrize("seed", range(3))
def test_no_pair_is_in_two_parts_of_a_world(seed: int) -> None:
    world = make_world(seed)
    assert not set(world.harmful_verbs) & set(world.benign_verbs)
    for split in (world.harmful, world.benign):
        pairs = (*split.train, *split.probe, *split.evaluation)
        assert len(set(pairs)) == len(pairs)
