"""How long the robustness map takes: gradients against moving each module in turn, and how far both agree.

On the testbed, and on a random Llama of many thin layers, where depth shows. Both are measured in one run on one probe.
Not here: the training of the probe, the search, the service around it (research.bench.first_step).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import torch
import typer
from peft import PeftModel
from scipy.stats import spearmanr

from core.attacks.prompts import choose_prompts
from core.catalog import TESTBED
from core.data import load as load_rows
from core.data.template import encode_all
from core.lm.load import load
from core.lm.modules import Module, find_modules
from core.robustness.gradient import attribute
from core.robustness.perturb import Noise, PerturbedModel, Swap
from core.robustness.probe_activations import Effect, Measurement, ProbeActivations, effect
from core.robustness.units import Unit, units
from core.schemas.analysis import GradientPerturbation, UnitKind
from core.schemas.security import SecuritySpec
from core.schemas.training import TrainingSpec
from research.bench.figures import Figures, benchmark, ignore, spread, timed
from research.bench.models import random_llama, whole_probe
from testbed import DATA_DIR

_TRAINED_ROWS = 64
_KINDS: dict[str, tuple[UnitKind, ...]] = {"modules": ("module",), "groups": ("type", "band", "type_band")}
_TARGETS = {"swap_to_gradient": 20.0, "rank_correlation": 0.8}
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
        thin = random_llama(
            base,
            base.device,
            vocab_size=base.model.config.vocab_size,
            hidden_size=hidden,
            intermediate_size=2 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=4,
            initializer_range=0.1,
        )
        models = {"testbed": (base, 1), f"{layers}_layers": (replace(base, model=thin), every)}
        for name, (each, stride) in models.items():
            prompts = choose_prompts(SecuritySpec(), base.folder).probe
            activations = ProbeActivations(each, prompts, data[:rows], count=probes, seed=0, on_progress=ignore)
            modules = find_modules(each.model)
            singles = units(modules[::stride], "module", 1)
            found: Figures = {"modules": len(modules), "measured": len(singles)}
            figures[name] = found
            noise = _Map(activations, Noise(each.model, modules, relative_norm=0.3, seed=0), modules, ends=1)
            found["noise"] = spread([timed(noise.effects, singles)[2] for _ in range(repeats)])
            with whole_probe(each, modules, data, TrainingSpec(), steps=steps, learning_rate=_RATE) as tuned:
                swap = _Map(activations, Swap(tuned), modules, ends=2)
                found["swap"] = times = spread([timed(swap.effects, singles)[2] for _ in range(repeats)])
                whole = times["median"] * len(modules) / len(singles)
                found["gradient"] = _attributed(swap, tuned, whole, repeats)
            typer.echo(f"{name}: {found}")


@dataclass(frozen=True)
class _Map:
    """The effects of units, measured by moving each of them."""

    activations: ProbeActivations
    perturbed: PerturbedModel
    modules: tuple[Module, ...]
    ends: int
    """1: units alone; 2: also everything without them."""

    def effects(self, chosen: Sequence[Unit]) -> dict[str, Effect]:
        """The effect of each unit, as the analysis measures it."""
        everything = frozenset(module.name for module in self.modules)
        base, whole = self._read(frozenset()), self._read(everything)
        found: dict[str, Effect] = {}
        for unit in chosen:
            found[unit.name] = effect(base, self._read(unit.names))
            if self.ends == 2:
                without = effect(self._read(everything - unit.names), whole)
                found[unit.name] = (found[unit.name] + without) * 0.5
        return found

    def attribute(self, tuned: PeftModel) -> dict[str, Effect]:
        """The effect of each module by gradients."""
        with self.perturbed.perturbed([module.name for module in self.modules]):
            points = GradientPerturbation().points
            halves = attribute(self.activations, tuned, self.modules, points=points, on_point=ignore)
        return {name: first + second for name, (first, second) in halves.items()}

    def _read(self, names: frozenset[str]) -> Measurement:
        with self.perturbed.perturbed(names):
            return self.activations.measure(self.perturbed.model)


def _attributed(exact: _Map, tuned: PeftModel, whole: float, repeats: int) -> Figures:
    """Gradients against a map of swaps, which takes `whole` seconds for all modules."""
    maps = [timed(exact.attribute, tuned) for _ in range(repeats)]
    shares, seconds = maps[-1][0], [cpu for _, _, cpu in maps]
    ranks: Figures = {}
    for name, kinds in _KINDS.items():
        chosen = [unit for kind in kinds for unit in units(exact.modules, kind, 3)]
        effects = exact.effects(chosen)
        one = [effects[unit.name].refusal_drift for unit in chosen]
        other = [sum(shares[module].refusal_drift for module in unit.names) for unit in chosen]
        ranks[name] = {"units": len(chosen), "spearman": round(float(spearmanr(one, other).statistic), 3)}
    return {
        "cpu_seconds": spread(seconds),
        "swap_to_gradient": spread([whole / each for each in seconds]),
        "rank_correlation_of_refusal_drift": ranks,
    }


if __name__ == "__main__":
    typer.run(main)
