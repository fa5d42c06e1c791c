"""How fast the robustness analysis reads, and how long the testbed's whole map takes, with noise and with swap.

One thread and more are tried in turn in the same run: on a machine that others use too, more are far slower.
Not here: the service around it (bench.first_step).
"""

import time
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from typing import Annotated

import torch
import typer
from peft import PeftModel

from bench.figures import benchmark, spread
from core.catalog import TESTBED
from core.data import load as load_rows
from core.data.batches import EncodedDataset, encode_all
from core.lm.adapter import attached
from core.lm.load import BaseModel, load
from core.lm.modules import Module, find_modules
from core.robustness.analyse import analyse
from core.security.prompts import choose
from core.spec.analysis import AnalysisSpec, NoisePerturbation, Perturbation, SwapPerturbation
from core.spec.security import SecuritySpec
from core.spec.strategy import UniformStrategy
from core.spec.training import TrainingSpec
from core.training.loop import train
from core.training.strategies import plan
from testbed import DATA_DIR

_TRAINED_ROWS = 64


def main(
    *,
    repeats: Annotated[int, typer.Option(min=1, help="Maps for each perturbation and number of threads.")] = 2,
    probes: Annotated[int, typer.Option(min=8, help="Harmful prompts, and as many benign ones.")] = 48,
    seeds: Annotated[int, typer.Option(min=1, help="Draws of noise.")] = 3,
    steps: Annotated[int, typer.Option(min=0, help="Steps of the probe that swap trains; 0: no swap.")] = 40,
    rows: Annotated[int, typer.Option(min=1, max=_TRAINED_ROWS, help="Rows of the task in each reading.")] = 32,
    most_threads: Annotated[int, typer.Option(min=1, help="Threads to try, from 1 to this.")] = 2,
) -> None:
    """Readings per second, and seconds for a whole map."""
    with benchmark("analysis") as figures:
        base = load(TESTBED, torch.device("cpu"))
        modules = find_modules(base.model)
        conversations = load_rows(DATA_DIR / "instructions.jsonl", None, max_rows=1_000_000)[:_TRAINED_ROWS]
        data = encode_all(conversations, base.tokenizer, max_length=256)
        kinds: dict[str, Perturbation] = {"noise": NoisePerturbation(seeds=seeds)}
        if steps:
            kinds["swap"] = SwapPerturbation(steps=steps)
        found: dict[str, list[dict[str, float]]] = {}
        for _ in range(repeats):
            for kind, perturbation in kinds.items():
                for threads in range(1, most_threads + 1):
                    torch.set_num_threads(threads)
                    analysis = AnalysisSpec(perturbation=perturbation, probes=probes)
                    times = _map(base, modules, data, analysis, rows)
                    found.setdefault(f"{kind}_{threads}_threads", []).append(times)
                    typer.echo(f"{kind}, {threads} threads: {times['seconds']:.1f} s")
        figures["modules"] = len(modules)
        for name, runs in found.items():
            figures[name] = {figure: spread([times[figure] for times in runs]) for figure in runs[0]}
        for kind in kinds if most_threads > 1 else ():
            one, most = found[f"{kind}_1_threads"], found[f"{kind}_{most_threads}_threads"]
            ratios = [a["seconds"] / b["seconds"] for a, b in zip(one, most, strict=True)]
            figures[f"{kind}_speedup_of_{most_threads}_threads"] = spread(ratios)


def _map(
    base: BaseModel, modules: tuple[Module, ...], data: EncodedDataset, analysis: AnalysisSpec, rows: int
) -> dict[str, float]:
    """Seconds of one whole analysis, and of its readings alone."""
    started, cpu_started, moments = time.perf_counter(), time.process_time(), list[float]()

    def count(_done: int, _expected: int) -> None:
        moments.append(time.perf_counter())

    analyse(
        base,
        modules,
        analysis,
        choose(SecuritySpec(), base.folder).probe,
        data.rows[:rows],
        train_probe=partial(_probe, base, modules, data),
        prepared=_ignore,
        tick=count,
    )
    ended = time.perf_counter()
    return {
        "seconds": ended - started,
        "cpu_seconds": time.process_time() - cpu_started,
        "readings": len(moments),
        "readings_per_second": len(moments) / (ended - moments[0]),
        "seconds_before_the_first_reading": moments[0] - started,
    }


@contextmanager
def _probe(
    base: BaseModel, modules: tuple[Module, ...], data: EncodedDataset, steps: int, seed: int
) -> Generator[PeftModel]:
    spec = TrainingSpec(steps=steps, seed=seed, schedule="constant")
    rates = plan(UniformStrategy(), [module.name for module in modules], ())
    with attached(base.model, modules, spec.lora, seed=seed) as tuned:
        train(tuned, data.rows, rates, spec, learning_rate=TESTBED.learning_rate, pad_id=base.pad_id, on_step=_ignore)
        yield tuned


def _ignore(*_: object) -> None:
    """Nobody waits for progress here."""


if __name__ == "__main__":
    typer.run(main)
