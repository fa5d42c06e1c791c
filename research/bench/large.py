"""A model of Llama-3-8B's shape on one GPU: memory, answering, a training step, ranking of rows, gradients of the map.

Weights are random, which costs the same time and memory as trained ones. What is compared takes turns within one run;
times are wall times between synchronised points. Not here: what the figures mean for safety, several GPUs, loading from
disk.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Annotated, cast

import numpy as np
import torch
import typer
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from core.attacks.prompts import choose_prompts
from core.catalog import TESTBED
from core.data.template import Encoded
from core.lm.adapter import attached
from core.lm.generate import continue_tokens
from core.lm.load import BaseModel, choose_device, load
from core.lm.modules import Module, find_modules
from core.lm.prompts import pad
from core.robustness.gradient import attribute
from core.robustness.perturb import Swap
from core.robustness.probe_activations import ProbeActivations
from core.schemas.results import TrainedStep
from core.schemas.security import SecuritySpec
from core.schemas.training import LearningPlan, TrainingSpec
from core.training.loop import train
from core.training.probe import probe
from research.bench.figures import Figures, benchmark, spread
from research.bench.generation import Generates

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
        figures["answering"] = _told("answering", _answering(base, prompts, tokens, rounds))
        spec = TrainingSpec(
            steps=_SETTLING_STEPS + steps, batch_size=batch_size, micro_batch_size=min(8, batch_size), max_length=length
        )
        figures["training"] = _told("training", _training(base, modules, spec, rounds))
        figures["gradient_map"] = _told("gradient map", _gradients(base, modules, length))


def _told(name: str, found: Figures) -> Figures:
    typer.echo(f"{name}: {found}")
    return found


def _base(device: torch.device, layers: int, hidden: int) -> BaseModel:
    """The testbed's tokenizer on a model of this shape: its tokens are a few of the model's."""
    testbed = load(TESTBED, torch.device("cpu"))
    config = AutoConfig.for_model(
        "llama",
        vocab_size=128256,
        hidden_size=hidden,
        intermediate_size=hidden * 7 // 2,
        num_hidden_layers=layers,
        num_attention_heads=max(2, hidden // 128),
        num_key_value_heads=max(1, hidden // 512),
        max_position_embeddings=8192,
        rope_theta=500000.0,
        pad_token_id=testbed.pad_id,
        bos_token_id=None,
        eos_token_id=testbed.stop_ids[0],
    )
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(
            config, dtype=torch.bfloat16 if device.type == "cuda" else torch.float32
        )
    if not isinstance(model, PreTrainedModel):
        raise TypeError(type(model).__name__)
    model.requires_grad_(False).eval()
    model.generation_config = GenerationConfig(eos_token_id=testbed.stop_ids, do_sample=False)
    return BaseModel(model, testbed.tokenizer, testbed.identity, Path(testbed.folder))


def _answering(base: BaseModel, count: int, tokens: int, rounds: int) -> Figures:
    """Prompts of 60 to 200 tokens, half of which is one beginning, as in an attack suite."""
    rng = np.random.default_rng(0)
    beginning = rng.integers(1000, 100_000, 60).tolist()
    asked = [beginning + rng.integers(1000, 100_000, rng.integers(8, 140)).tolist() for _ in range(count)]

    def engine() -> int:
        found = continue_tokens(base, base.model, asked, max_new_tokens=tokens, on_progress=_ignore)
        return sum(map(len, found))

    def generate(size: int) -> Callable[[], int]:
        return lambda: _generated(base, asked, tokens, size)

    ways = {"own": engine, "generate_64": generate(64), "generate_256": generate(256)}
    for way in ways.values():  # once for warmth
        way()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    written: dict[str, int] = {}
    _reset(base.device)
    for number in range(rounds):
        names = list(ways)
        for name in names[number % 3 :] + names[: number % 3]:
            started = _now(base.device)
            written[name] = ways[name]()
            seconds[name].append(_now(base.device) - started)
    return {
        "prompts": count,
        "peak_gib": _peak(base.device),
        **{
            name: {"seconds": spread(taken), "tokens_a_second": round(written[name] / median(taken))}
            for name, taken in seconds.items()
        },
    }


def _generated(base: BaseModel, asked: Sequence[Sequence[int]], tokens: int, size: int) -> int:
    model = cast(Generates, base.model)
    written = 0
    for first in range(0, len(asked), size):
        ids, mask = (each.to(base.device) for each in pad(asked[first : first + size], base.pad_id, side="left"))
        with torch.inference_mode():
            found = model.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=tokens, do_sample=False, pad_token_id=base.pad_id
            )
        written += (found.shape[1] - ids.shape[1]) * len(ids)
    return written


def _training(base: BaseModel, modules: tuple[Module, ...], spec: TrainingSpec, rounds: int) -> Figures:
    rows = _rows(spec.batch_size * 4, spec.max_length)
    attention = ("q", "k", "v", "o")
    plans = {
        "uniform": _plan(modules, 1.0),
        "ml_lr": _plan(modules, 0.1, attention),
        "ml_lr_ratio_0": _plan(modules, 0.0, attention),
    }
    seconds: dict[str, list[float]] = {name: [] for name in plans}
    peak: dict[str, float] = {}
    for _ in range(rounds):
        for name, each in plans.items():
            _reset(base.device)
            seconds[name].append(_step_seconds(base, modules, rows, each, spec))
            peak[name] = _peak(base.device)
    return {
        "rows": spec.batch_size,
        "tokens_a_row": spec.max_length,
        **{name: {"step_seconds": spread(taken), "peak_gib": peak[name]} for name, taken in seconds.items()},
        **{
            f"{name}_to_uniform": spread(
                [one / other for one, other in zip(seconds[name], seconds["uniform"], strict=True)]
            )
            for name in ("ml_lr", "ml_lr_ratio_0")
        },
    }


def _step_seconds(
    base: BaseModel, modules: tuple[Module, ...], rows: Sequence[Encoded], plan: LearningPlan, spec: TrainingSpec
) -> float:
    moments: list[float] = []

    def told(_step: TrainedStep, _total: int) -> None:
        moments.append(_now(base.device))

    with attached(base.model, modules, spec.lora, seed=0) as tuned:
        train(tuned, rows, plan, spec, learning_rate=1e-5, pad_id=base.pad_id, on_step=told)
    return (moments[-1] - moments[_SETTLING_STEPS - 1]) / (len(moments) - _SETTLING_STEPS)


def _gradients(base: BaseModel, modules: tuple[Module, ...], length: int) -> Figures:
    """The robustness map by gradients, after a probe of two steps: reading and attributing, without the search."""
    prompts = choose_prompts(SecuritySpec(), base.folder).probe
    rows = _rows(24, length)
    _reset(base.device)
    started = _now(base.device)
    activations = ProbeActivations(base, prompts, rows, count=48, seed=0, on_progress=_ignore)
    read = _now(base.device) - started
    spec = TrainingSpec(batch_size=8, micro_batch_size=8, max_length=length)
    run = probe(
        base,
        modules,
        rows,
        spec,
        steps=2,
        seed=0,
        learning_rate=1e-5,
        early_stop=lambda *_: False,
        on_step=_ignore,
    )
    with run as tuned:
        started = _now(base.device)
        shares = _attributed(activations, tuned, modules)
        seconds = _now(base.device) - started
    return {
        "modules": len(shares),
        "readings_seconds": round(read, 2),
        "map_seconds": round(seconds, 2),
        "peak_gib": _peak(base.device),
    }


def _attributed(activations: ProbeActivations, tuned: PeftModel, modules: tuple[Module, ...]) -> Sequence[str]:
    with Swap(tuned).perturbed([module.name for module in modules]):
        return list(attribute(activations, tuned, modules, points=3, on_point=_ignore))


def _plan(modules: Sequence[Module], rest: float, full: Sequence[str] = ()) -> LearningPlan:
    scales = {module.name: 1.0 if module.type in full or not full else rest for module in modules}
    return LearningPlan(strategy="bench", scales=scales)


def _rows(count: int, length: int) -> list[Encoded]:
    rng = np.random.default_rng(1)
    found: list[Encoded] = []
    for line in range(count):
        ids = rng.integers(1000, 100_000, length, dtype=np.int32)
        labels = ids.copy()
        labels[: length // 4] = -100
        found.append(Encoded(ids, labels, line + 1, truncated=False))
    return found


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _reset(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _peak(device: torch.device) -> float:
    return round(torch.cuda.max_memory_allocated(device) / _GIB, 2) if device.type == "cuda" else 0.0


def _ignore(*_: object) -> None:
    """Nobody waits for progress here."""


if __name__ == "__main__":
    typer.run(main)
