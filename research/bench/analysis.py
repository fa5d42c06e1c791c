"""How long the robustness map takes: gradients against moving each module in turn, and how far both agree.

On the testbed, and on a random Llama of many thin layers, where depth shows. Both are measured in one run on one probe.
Not here: the training of the probe, the search, the service around it (research.bench.first_step).
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import torch
import typer
from peft import PeftModel
from scipy.stats import spearmanr
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from core.attacks.prompts import choose_prompts
from core.catalog import TESTBED
from core.data import load as load_rows
from core.data.batches import encode_all
from core.lm.load import BaseModel, load
from core.lm.modules import Module, find_modules
from core.robustness.gradient import attribute
from core.robustness.perturb import Noise, PerturbedModel, Swap
from core.robustness.probe_activations import Effect, Measurement, ProbeActivations, effect
from core.robustness.units import Unit, units
from core.schemas.analysis import GradientPerturbation, UnitKind
from core.schemas.security import SecuritySpec
from core.schemas.training import TrainingSpec
from core.training.probe import probe
from research.bench.figures import Figures, Spread, benchmark, spread
from testbed import DATA_DIR

_TRAINED_ROWS = 64
_MODULES: tuple[UnitKind, ...] = ("module",)
_GROUPS: tuple[UnitKind, ...] = ("type", "band", "type_band")
_POINTS = GradientPerturbation().points
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
        models = {"testbed": (base, 1), f"{layers}_layers": (replace(base, model=_thin(base, layers, hidden)), every)}
        for name, (each, stride) in models.items():
            prompts = choose_prompts(SecuritySpec(), base.folder).probe
            activations = ProbeActivations(each, prompts, data[:rows], count=probes, seed=0, on_progress=_ignore)
            modules = find_modules(each.model)
            singles = units(modules[::stride], "module", 1)
            found: Figures = {"modules": len(modules), "measured": len(singles)}
            figures[name] = found
            noise = Noise(each.model, modules, relative_norm=0.3, seed=0)
            found["noise"] = _timed(_Map(activations, noise, modules, ends=1), singles, repeats)
            run = probe(
                each,
                modules,
                data,
                TrainingSpec(),
                steps=steps,
                seed=0,
                learning_rate=_RATE,
                early_stop=_never,
                on_step=_ignore,
            )
            with run as tuned:
                swap = _Map(activations, Swap(tuned), modules, ends=2)
                found["swap"] = times = _timed(swap, singles, repeats)
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

    def _read(self, names: frozenset[str]) -> Measurement:
        with self.perturbed.perturbed(names):
            return self.activations.measure(self.perturbed.model)


def _timed(each: _Map, singles: Sequence[Unit], repeats: int) -> Spread:
    """Processor seconds of a map of single modules."""
    seconds: list[float] = []
    for _ in range(repeats):
        started = time.process_time()
        each.effects(singles)
        seconds.append(time.process_time() - started)
    return spread(seconds)


def _attributed(exact: _Map, tuned: PeftModel, whole: float, repeats: int) -> Figures:
    """Gradients against a map of swaps, which takes `whole` seconds for all modules."""
    names = [module.name for module in exact.modules]
    seconds: list[float] = []
    shares: dict[str, Effect] = {}
    for _ in range(repeats):
        started = time.process_time()
        with exact.perturbed.perturbed(names):
            shares = attribute(exact.activations, tuned, exact.modules, points=_POINTS, on_point=_ignore)
        seconds.append(time.process_time() - started)
    ranks: Figures = {}
    for name, kinds in (("modules", _MODULES), ("groups", _GROUPS)):
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


def _never(*_: object) -> bool:
    return False


def _ignore(*_: object) -> None:
    """Nobody waits for progress here."""


if __name__ == "__main__":
    typer.run(main)
