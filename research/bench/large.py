"""A model of Llama-3-8B's shape on one GPU: memory, answering, a training step, gradients of the robustness map.

Weights are random, which costs the same time and memory as trained ones. What is compared takes turns within one run;
times are wall times between synchronised points. Not here: what the figures mean for safety, several GPUs, loading from
disk.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Annotated

import numpy as np
import torch
import typer
from transformers import GenerationConfig

from core.attacks.prompts import choose_prompts
from core.catalog import TESTBED
from core.data.encoded import Encoded
from core.lm.generate import continue_tokens
from core.lm.load import BaseModel, choose_device, load
from core.lm.modules import Module, find_modules
from core.robustness.gradient import Halves, attribute
from core.robustness.perturb import Swap
from core.robustness.probe_activations import ProbeActivations
from core.schemas.security import SecuritySpec
from core.schemas.training import LearningPlan, TrainingSpec
from research.bench.figures import Figures, Found, benchmark, ignore, ratios, spread, take_turns
from research.bench.generation import generate_batch
from research.bench.models import learning_plan, random_llama, step_seconds, synchronised_now, whole_probe

_SETTLING_STEPS = 2
_GIB = 2**30


def main(
    *,
    device: Annotated[str, typer.Option(help="Where.")] = "cuda",
    layers: Annotated[int, typer.Option(min=1, help="Decoder layers.")] = 32,
    hidden: Annotated[int, typer.Option(min=64, help="Width; the MLP is 3.5 times as wide.")] = 4096,
    prompts: Annotated[int, typer.Option(min=2, help="Prompts that are answered.")] = 256,
    tokens: Annotated[int, typer.Option(min=1, help="Tokens of an answer.")] = 64,
    length: Annotated[int, typer.Option(min=8, help="Tokens of a training row.")] = 512,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows in a step.")] = 16,
    steps: Annotated[int, typer.Option(min=1, help="Measured steps of each kind of run.")] = 6,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each way.")] = 2,
) -> None:
    """Seconds, tokens a second and GiB."""
    with benchmark("large") as figures:
        where = choose_device(device)
        base = _base(where, layers, hidden)
        modules = find_modules(base.model)
        figures["device"] = torch.cuda.get_device_name(where) if where.type == "cuda" else "CPU"
        figures["torch"] = torch.__version__
        figures["parameters"] = base.model.num_parameters()
        figures["weights_gib"] = _peak(where)
        figures["answering"] = _printed("answering", _answering(base, prompts, tokens, rounds))
        spec = TrainingSpec(
            steps=_SETTLING_STEPS + steps, batch_size=batch_size, micro_batch_size=min(8, batch_size), max_length=length
        )
        figures["training"] = _printed("training", _training(base, modules, spec, rounds))
        figures["gradient_map"] = _printed("gradient map", _gradients(base, modules, length))


def _printed(name: str, found: Figures) -> Figures:
    typer.echo(f"{name}: {found}")
    return found


def _base(device: torch.device, layers: int, hidden: int) -> BaseModel:
    """The testbed's tokenizer on a model of this shape: its tokens are a few of the model's."""
    testbed = load(TESTBED, torch.device("cpu"))
    model = random_llama(
        testbed,
        device,
        vocab_size=128256,
        hidden_size=hidden,
        intermediate_size=hidden * 7 // 2,
        num_hidden_layers=layers,
        num_attention_heads=max(2, hidden // 128),
        num_key_value_heads=max(1, hidden // 512),
        max_position_embeddings=8192,
        rope_theta=500000.0,
    )
    model.generation_config = GenerationConfig(eos_token_id=testbed.stop_ids, do_sample=False)
    return replace(testbed, model=model)


def _answering(base: BaseModel, count: int, tokens: int, rounds: int) -> Figures:
    """Prompts of 60 to 200 tokens, half of which is one beginning, as in an attack suite."""
    rng = np.random.default_rng(0)
    beginning = rng.integers(1000, 100_000, 60).tolist()
    questions = [beginning + rng.integers(1000, 100_000, rng.integers(8, 140)).tolist() for _ in range(count)]

    def engine() -> int:
        found = continue_tokens(base, base.model, questions, max_new_tokens=tokens, on_progress=ignore)
        return sum(map(len, found))

    def generate(size: int) -> int:
        return sum(
            generate_batch(base, questions[first : first + size], tokens).numel() for first in range(0, count, size)
        )

    ways = {"own": engine, "generate_64": partial(generate, 64), "generate_256": partial(generate, 256)}
    for way in ways.values():  # once for warmth
        way()
    _reset(base.device)
    runs = take_turns({name: partial(_time, base.device, way) for name, way in ways.items()}, rounds)
    return {
        "prompts": count,
        "peak_gib": _peak(base.device),
        **{
            name: {
                "seconds": spread([seconds for _, seconds in each]),
                "tokens_a_second": round(each[-1][0] / median(seconds for _, seconds in each)),
            }
            for name, each in runs.items()
        },
    }


def _training(base: BaseModel, modules: tuple[Module, ...], spec: TrainingSpec, rounds: int) -> Figures:
    rows = _rows(spec.batch_size * 4, spec.max_length)
    attention = [module.name for module in modules if module.type in ("q", "k", "v", "o")]
    plans = {
        "uniform": learning_plan(modules, (), 1.0),
        "ml_lr": learning_plan(modules, attention, 0.1),
        "ml_lr_ratio_0": learning_plan(modules, attention, 0.0),
    }

    def step(plan: LearningPlan) -> tuple[float, float]:
        _reset(base.device)
        seconds, _ = step_seconds(base, modules, rows, plan, spec, learning_rate=1e-5, settling=_SETTLING_STEPS)
        return seconds, _peak(base.device)

    runs = take_turns({name: partial(step, plan) for name, plan in plans.items()}, rounds)
    seconds = {name: [each for each, _ in taken] for name, taken in runs.items()}
    return {
        "rows": spec.batch_size,
        "tokens_a_row": spec.max_length,
        **{name: {"step_seconds": spread(seconds[name]), "peak_gib": runs[name][-1][1]} for name in plans},
        **{f"{name}_to_uniform": ratios(seconds[name], seconds["uniform"]) for name in ("ml_lr", "ml_lr_ratio_0")},
    }


def _gradients(base: BaseModel, modules: tuple[Module, ...], length: int) -> Figures:
    """The robustness map by gradients, after a probe of two steps: reading and attributing, without the search."""
    prompts = choose_prompts(SecuritySpec(), base.folder).probe
    rows = _rows(24, length)
    _reset(base.device)
    activations, read = _time(
        base.device, lambda: ProbeActivations(base, prompts, rows, count=48, seed=0, on_progress=ignore)
    )

    def gradient_map() -> dict[str, Halves]:
        with Swap(tuned).perturbed([module.name for module in modules]):
            return attribute(activations, tuned, modules, points=3, on_point=ignore)

    spec = TrainingSpec(batch_size=8, micro_batch_size=8, max_length=length)
    with whole_probe(base, modules, rows, spec, steps=2, learning_rate=1e-5) as tuned:
        shares, seconds = _time(base.device, gradient_map)
    return {
        "modules": len(shares),
        "readings_seconds": round(read, 2),
        "map_seconds": round(seconds, 2),
        "peak_gib": _peak(base.device),
    }


def _time(device: torch.device, work: Callable[[], Found]) -> tuple[Found, float]:
    """The result of `work` and its wall seconds, up to the end of the device's work."""
    started = synchronised_now(device)
    found = work()
    return found, synchronised_now(device) - started


def _rows(count: int, length: int) -> list[Encoded]:
    rng = np.random.default_rng(1)
    found: list[Encoded] = []
    for line in range(count):
        ids = rng.integers(1000, 100_000, length, dtype=np.int32)
        labels = ids.copy()
        labels[: length // 4] = -100
        found.append(Encoded(ids, labels, line + 1))
    return found


def _reset(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _peak(device: torch.device) -> float:
    return round(torch.cuda.max_memory_allocated(device) / _GIB, 2) if device.type == "cuda" else 0.0


if __name__ == "__main__":
    typer.run(main)
