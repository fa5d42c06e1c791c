"""What a training step costs: module-wise rates against one rate, frozen modules, and batches of like length.

All kinds of run take turns, round after round, on the same rows in the same order (but for the batches of like length);
each ratio is taken within a round. Processor time holds better than wall time on a machine that others use too.
Not here: what the rates do to safety (experiments), the analysis before training (research.bench.analysis).
"""

import time
from collections.abc import Callable, Sequence
from typing import Annotated

import torch
import typer

from core.catalog import TESTBED
from core.data import load as load_rows
from core.data.batches import encode_all, epoch_batches
from core.data.template import Encoded
from core.lm.adapter import attached
from core.lm.load import BaseModel, load
from core.lm.modules import Module, find_modules
from core.schemas.results import TrainedStep
from core.schemas.training import LearningPlan, TrainingSpec
from core.training.loop import train
from research.bench.figures import benchmark, spread
from testbed import DATA_DIR

_SETTLING_STEPS = 3
_TARGETS = {
    "ml_lr": 1.02,
    "a_rate_for_each_module": 1.02,
    "ratio_0_attention": 0.8,
    "ratio_0_upper_layers": 0.8,
    "ratio_0_every_second_module": 0.8,
}
RobustCount = Callable[[int, Module], bool]


def main(
    *,
    rounds: Annotated[int, typer.Option(min=1, help="Runs of each kind.")] = 8,
    steps: Annotated[int, typer.Option(min=1, help="Measured steps of each run.")] = 30,
    rows: Annotated[int, typer.Option(min=16, help="Rows to train on.")] = 1500,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows in a step.")] = 16,
    threads: Annotated[int, typer.Option(min=1, help="Threads of torch.")] = 1,
) -> None:
    """Milliseconds of a step, and the ratio of each kind of run to uniform."""
    with benchmark("training") as figures:
        torch.set_num_threads(threads)
        base = load(TESTBED, torch.device("cpu"))
        modules = find_modules(base.model)
        conversations = load_rows(DATA_DIR / "instructions.jsonl", None, max_rows=1_000_000)[:rows]
        data = encode_all(conversations, base.tokenizer, max_length=256).rows
        spec = TrainingSpec(steps=_SETTLING_STEPS + steps, batch_size=batch_size)
        kinds = _kinds(modules, spec)
        found: dict[str, list[tuple[float, float]]] = {}
        for number in range(rounds):
            names = list(kinds)
            turned = names[number % len(names) :] + names[: number % len(names)]
            for name in turned:
                plan, own = kinds[name]
                found.setdefault(name, []).append(_run(base, modules, data, plan, own))
        for name in kinds:
            wall, cpu = zip(*found[name], strict=True)
            figures[name] = {"milliseconds": spread(_scaled(wall), 2), "cpu_milliseconds": spread(_scaled(cpu), 2)}
            if name != "uniform":
                _, first = zip(*found["uniform"], strict=True)
                ratios = [mine / uniform for mine, uniform in zip(cpu, first, strict=True)]
                figures[f"{name}_to_uniform"] = spread(ratios) | {"target": _TARGETS.get(name)}
        lengths = [len(row.input_ids) for row in data]
        figures["padding_share"] = _padding(lengths, batch_size, by_length=False)
        figures["padding_share_by_length"] = _padding(lengths, batch_size, by_length=True)


def _kinds(modules: Sequence[Module], spec: TrainingSpec) -> dict[str, tuple[LearningPlan, TrainingSpec]]:
    """Every kind of run by name; the first is what the others are compared with."""
    half = max(module.layer for module in modules) // 2

    def upper(_number: int, module: Module) -> bool:
        return module.layer > half

    def attention(_number: int, module: Module) -> bool:
        return module.type in ("q", "k", "v", "o")

    def every_second(number: int, _module: Module) -> bool:
        return number % 2 == 1

    return {
        "uniform": (_plan(modules, every_second, 1.0), spec),
        "ml_lr": (_plan(modules, every_second, 0.1), spec),
        "a_rate_for_each_module": (_own_rates(modules), spec),
        "ratio_0_attention": (_plan(modules, attention, 0.0), spec),
        "ratio_0_upper_layers": (_plan(modules, upper, 0.0), spec),
        "ratio_0_every_second_module": (_plan(modules, every_second, 0.0), spec),
        "by_length": (_plan(modules, every_second, 1.0), spec.model_copy(update={"group_by_length": True})),
    }


def _plan(modules: Sequence[Module], chosen: RobustCount, ratio: float) -> LearningPlan:
    scales = {module.name: 1.0 if chosen(number, module) else ratio for number, module in enumerate(modules)}
    return LearningPlan(strategy="bench", scales=scales)


def _own_rates(modules: Sequence[Module]) -> LearningPlan:
    scales = {module.name: (number + 1) / len(modules) for number, module in enumerate(modules)}
    return LearningPlan(strategy="bench", scales=scales)


def _run(
    base: BaseModel, modules: tuple[Module, ...], rows: Sequence[Encoded], plan: LearningPlan, spec: TrainingSpec
) -> tuple[float, float]:
    """Seconds of a step, by the wall and by the processor, without the first ones."""
    moments: list[tuple[float, float]] = []

    def told(_step: TrainedStep, _total: int) -> None:
        moments.append((time.perf_counter(), time.process_time()))

    with attached(base.model, modules, spec.lora, seed=0) as tuned:
        train(tuned, rows, plan, spec, learning_rate=TESTBED.learning_rate, pad_id=base.pad_id, on_step=told)
    first, last = moments[_SETTLING_STEPS - 1], moments[-1]
    measured = len(moments) - _SETTLING_STEPS
    return (last[0] - first[0]) / measured, (last[1] - first[1]) / measured


def _scaled(seconds: Sequence[float]) -> list[float]:
    return [1000 * each for each in seconds]


def _padding(lengths: Sequence[int], batch_size: int, *, by_length: bool) -> float:
    """Share of padding among the tokens of three epochs."""
    known = lengths if by_length else None
    batches = [
        batch
        for epoch in range(3)
        for batch in epoch_batches(len(lengths), batch_size, seed=0, epoch=epoch, lengths=known)
    ]
    whole = sum(len(batch) * max(lengths[index] for index in batch) for batch in batches)
    return round(1 - 3 * sum(lengths) / whole, 4)


if __name__ == "__main__":
    typer.run(main)
