"""How fast the robustness map is read: from kept hidden states against whole passes, and by gradients against swaps.

On the testbed, and on a random Llama of many thin layers, where depth shows. What is compared is measured in turn, in
one run and on one probe, and the figures of both ways must agree. `plain` is a whole forward pass for each module and
end. Not here: the training of the probe, the search, the service around it (research.bench.first_step).
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import torch
import typer
from peft import PeftModel
from scipy.stats import spearmanr
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from core.attacks.prompts import choose
from core.catalog import TESTBED
from core.data import load as load_rows
from core.data.batches import encode_all
from core.lm.load import BaseModel, load
from core.lm.modules import Module, find_modules
from core.robustness.gradient import attribute
from core.robustness.perturb import Moved, Noise, Swap
from core.robustness.readings import Effect, Readings, effect
from core.robustness.states import StateReader
from core.robustness.units import Unit, units
from core.schemas.analysis import GradientPerturbation, UnitKind
from core.schemas.security import SecuritySpec
from core.schemas.training import TrainingSpec
from core.training.probe import probe
from research.bench.figures import Figures, benchmark, spread
from testbed import DATA_DIR

_TRAINED_ROWS = 64
_MEMORY_MB = 1024
_ALIKE = 1e-4
_MODULES: tuple[UnitKind, ...] = ("module",)
_GROUPS: tuple[UnitKind, ...] = ("type", "band", "type_band")
_POINTS = GradientPerturbation().points
_TARGETS = {"plain_to_kept": 2.5, "plain_swap_to_gradient": 20.0, "rank_correlation": 0.8}
_RATE = 4e-3
"""Of the probe: a rate that breaks the testbed, so that there is something to attribute."""


def main(
    *,
    repeats: Annotated[int, typer.Option(min=1, help="Maps of each kind.")] = 3,
    probes: Annotated[int, typer.Option(min=8, help="Harmful prompts, and as many benign ones.")] = 48,
    rows: Annotated[int, typer.Option(min=1, max=_TRAINED_ROWS, help="Rows of the task in each reading.")] = 32,
    steps: Annotated[int, typer.Option(min=1, help="Steps of the probe.")] = 40,
    layers: Annotated[int, typer.Option(min=1, help="Layers of the random model.")] = 32,
    hidden: Annotated[int, typer.Option(min=16, help="Its width.")] = 32,
    every: Annotated[int, typer.Option(min=1, help="Of the random model, every so many modules are measured.")] = 4,
) -> None:
    """Processor and wall seconds of the map of single modules, each way; one thread."""
    torch.set_num_threads(1)
    with benchmark("analysis") as figures:
        base = load(TESTBED, torch.device("cpu"))
        conversations = load_rows(DATA_DIR / "instructions.jsonl", None, max_rows=1_000_000)[:_TRAINED_ROWS]
        data = encode_all(conversations, base.tokenizer, max_length=256).rows
        figures["targets"] = _TARGETS
        models = {"testbed": (base, 1), f"{layers}_layers": (replace(base, model=_thin(base, layers, hidden)), every)}
        for name, (each, stride) in models.items():
            prompts = choose(SecuritySpec(), base.folder).probe
            readings = Readings(each, prompts, data[:rows], count=probes, seed=0, on_progress=_ignore)
            modules = find_modules(each.model)
            singles = units(modules[::stride], "module", 1)
            found: Figures = {"modules": len(modules), "measured": len(singles)}
            figures[name] = found
            noise = Noise(each.model, modules, relative_norm=0.3, seed=0)
            found["noise"] = _compared(_Reading(readings, noise, modules, ends=1), singles, repeats)
            run = probe(
                each,
                modules,
                data,
                TrainingSpec(),
                steps=steps,
                seed=0,
                learning_rate=_RATE,
                enough=_never,
                on_step=_ignore,
            )
            with run as tuned:
                reading = _Reading(readings, Swap(tuned), modules, ends=2)
                swap = _compared(reading, singles, repeats)
                found["swap"] = swap
                plain = _median(swap["plain_cpu_seconds"]) * len(modules) / len(singles)
                found["gradient"] = _attributed(reading, tuned, plain, repeats)
            typer.echo(f"{name}: {found}")


@dataclass(frozen=True)
class _Reading:
    """What is read, and of what."""

    readings: Readings
    moved: Moved
    modules: tuple[Module, ...]
    ends: int
    """1: units alone; 2: also everything without them."""

    def map(self, chosen: Sequence[Unit], memory_mb: int) -> dict[str, Effect]:
        """What each unit does, as the analysis measures it."""
        layers = {module.name: module.layer for module in self.modules}
        reader = StateReader(self.readings, self.moved, layers, memory_mb=memory_mb)
        everything = frozenset(layers)
        nothing, whole = reader.read(()), reader.read(everything)
        found: dict[str, Effect] = {}
        for unit in chosen:
            alone = effect(nothing, reader.read(unit.names))
            if self.ends == 2:
                alone = (alone + effect(reader.read(everything - unit.names), whole)) * 0.5
            found[unit.name] = alone
        return found


def _compared(reading: _Reading, singles: Sequence[Unit], repeats: int) -> Figures:
    """Whole passes and kept states, in turn.

    Raises:
        RuntimeError: their figures differ.
    """
    times: dict[int, list[tuple[float, float]]] = {0: [], _MEMORY_MB: []}
    off = 0.0
    for _ in range(repeats):
        maps: list[Mapping[str, Effect]] = []
        for memory_mb, taken in times.items():
            started = _now()
            maps.append(reading.map(singles, memory_mb))
            taken.append(_since(started))
        off = max(off, *(_distance(one, maps[1][name]) for name, one in maps[0].items()))
        if off > _ALIKE:
            raise RuntimeError(f"Readings from kept states and by whole passes differ by {off:g}.")
    plain, kept = times.values()
    return {
        "plain_cpu_seconds": spread([cpu for cpu, _ in plain]),
        "kept_cpu_seconds": spread([cpu for cpu, _ in kept]),
        "plain_to_kept": spread([one / other for (one, _), (other, _) in zip(plain, kept, strict=True)]),
        "plain_to_kept_wall": spread([one / other for (_, one), (_, other) in zip(plain, kept, strict=True)]),
        "greatest_difference": off,
    }


def _attributed(reading: _Reading, tuned: PeftModel, plain: float, repeats: int) -> Figures:
    """Gradients against the plain map of swaps, of which all modules would take `plain` seconds."""
    names = [module.name for module in reading.modules]
    times: list[tuple[float, float]] = []
    shares: dict[str, Effect] = {}
    for _ in range(repeats):
        started = _now()
        with reading.moved.moved(names):
            shares = attribute(reading.readings, tuned, reading.modules, points=_POINTS, count=_ignore)
        times.append(_since(started))
    ranks: Figures = {}
    for name, kinds in (("modules", _MODULES), ("groups", _GROUPS)):
        chosen = [unit for kind in kinds for unit in units(reading.modules, kind, 3)]
        exact = reading.map(chosen, _MEMORY_MB)
        one = [exact[unit.name].refusal_drift for unit in chosen]
        other = [sum(shares[module].refusal_drift for module in unit.names) for unit in chosen]
        ranks[name] = {"units": len(chosen), "spearman": round(float(spearmanr(one, other).statistic), 3)}
    return {
        "cpu_seconds": spread([cpu for cpu, _ in times]),
        "wall_seconds": spread([wall for _, wall in times]),
        "plain_swap_to_gradient": spread([plain / cpu for cpu, _ in times]),
        "rank_correlation_of_refusal_drift": ranks,
    }


def _thin(base: BaseModel, layers: int, hidden: int) -> PreTrainedModel:
    """A random model of the testbed's family and vocabulary."""
    config = AutoConfig.for_model(
        "llama",
        vocab_size=base.model.config.vocab_size,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        initializer_range=0.1,
        pad_token_id=base.pad_id,
        bos_token_id=None,
        eos_token_id=base.stop_ids[0],
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
    if not isinstance(model, PreTrainedModel):
        raise TypeError(type(model).__name__)
    return model.requires_grad_(False).eval()


def _numbers(found: Effect) -> tuple[float, float, float]:
    return found.feature_drift, found.refusal_drift, found.task_gain


def _distance(one: Effect, other: Effect) -> float:
    return float(np.abs(np.subtract(_numbers(one), _numbers(other))).max())


def _median(found: object) -> float:
    if not isinstance(found, dict):
        raise TypeError("no spread")
    return float(found["median"])


def _now() -> tuple[float, float]:
    return time.process_time(), time.perf_counter()


def _since(started: tuple[float, float]) -> tuple[float, float]:
    cpu, wall = _now()
    return cpu - started[0], wall - started[1]


def _never(*_: object) -> bool:
    return False


def _ignore(*_: object) -> None:
    """Nobody waits for progress here."""


if __name__ == "__main__":
    typer.run(main)
