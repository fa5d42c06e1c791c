"""What a training step costs: module-wise rates against one rate, frozen modules, and batches of like length.

All kinds of run take turns, round after round, on the same rows in the same order (but for the batches of like length);
each ratio is taken within a round. Processor time holds better than wall time on a machine that others use too.
Not here: what the rates do to safety (experiments), the analysis before training (research.bench.analysis).
"""

from collections.abc import Sequence
from functools import partial
from typing import Annotated

import torch
import typer

from core.catalog import TESTBED
from core.data import load as load_rows
from core.data.order import epoch_batches
from core.data.template import encode_all
from core.lm.load import load
from core.lm.modules import Module, find_modules
from core.schemas.training import LearningPlan, TrainingSpec
from research.bench.figures import benchmark, ratios, spread, take_turns
from research.bench.models import learning_plan, step_seconds
from testbed import DATA_DIR

_SETTLING_STEPS = 3
_TARGETS = {
    "ml_lr": 1.02,
    "a_rate_for_each_module": 1.02,
    "ratio_0_attention": 0.8,
    "ratio_0_upper_layers": 0.8,
    "ratio_0_every_second_module": 0.8,
}


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
        step = partial(step_seconds, base, modules, data, learning_rate=TESTBED.learning_rate, settling=_SETTLING_STEPS)
        kinds = {name: partial(step, plan, own) for name, (plan, own) in _kinds(modules, spec).items()}
        milliseconds = {
            name: [[1000 * seconds for seconds in each] for each in zip(*runs, strict=True)]
            for name, runs in take_turns(kinds, rounds).items()
        }
        for name, (wall, cpu) in milliseconds.items():
            figures[name] = {"milliseconds": spread(wall, 2), "cpu_milliseconds": spread(cpu, 2)}
            if name != "uniform":
                to_uniform = ratios(cpu, milliseconds["uniform"][1])
                figures[f"{name}_to_uniform"] = to_uniform | {"target": _TARGETS.get(name)}
        lengths = [len(row.input_ids) for row in data]
        figures["padding_share"] = _padding(lengths, batch_size, by_length=False)
        figures["padding_share_by_length"] = _padding(lengths, batch_size, by_length=True)


def _kinds(modules: Sequence[Module], spec: TrainingSpec) -> dict[str, tuple[LearningPlan, TrainingSpec]]:
    """Every kind of run by name; the first is what the others are compared with."""
    half = max(module.layer for module in modules) // 2
    names = [module.name for module in modules]
    every_second = names[1::2]
    attention = [module.name for module in modules if module.type in ("q", "k", "v", "o")]
    upper = [module.name for module in modules if module.layer > half]
    uniform = learning_plan(modules, names, 1.0)
    own_rates = {name: number / len(names) for number, name in enumerate(names, 1)}
    return {
        "uniform": (uniform, spec),
        "ml_lr": (learning_plan(modules, every_second, 0.1), spec),
        "a_rate_for_each_module": (LearningPlan(strategy="bench", scales=own_rates), spec),
        "ratio_0_attention": (learning_plan(modules, attention, 0.0), spec),
        "ratio_0_upper_layers": (learning_plan(modules, upper, 0.0), spec),
        "ratio_0_every_second_module": (learning_plan(modules, every_second, 0.0), spec),
        "by_length": (uniform, spec.model_copy(update={"group_by_length": True})),
    }


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
