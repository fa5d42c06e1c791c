"""What bfloat16 saves on a CPU: a training step, and the answers of an evaluation before and after training.

The same model is in memory in both precisions, and the two take turns, round after round; each ratio is taken within a
round. Prompts are a sample of the suite's, the same number of each family. The answers after training are those of an
adapter with random weights, loaded from its file as an evaluation loads it.
Not here: what rounding does to figures, and other stages of a job.
"""

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from core.attacks.ask import build_suites
from core.attacks.prompts import choose_prompts
from core.catalog import read
from core.data import load as load_rows
from core.data.encoded import Encoded
from core.data.template import encode_all
from core.lm.adapter import attached, factors, loaded, lora_layers, save
from core.lm.generate import continue_tokens
from core.lm.load import BaseModel, load
from core.lm.modules import find_modules
from core.lm.precision import main_shapes, measure_speedup
from core.lm.prompts import render
from core.schemas.security import SecuritySpec, SuiteName
from core.schemas.training import LoraSpec, Precision, TrainingSpec
from research.bench.figures import Figures, benchmark, ignore, ratios, spread, take_turns, timed
from research.bench.models import learning_plan, step_seconds
from testbed import DATA_DIR

_PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")
_TARGET = 2.0
_RATE = 1e-4
_SETTLING_STEPS = 1
_PARTS = "training_step,answers"


def main(
    *,
    model: Annotated[str, typer.Option(help="Name of the base model in the list.")] = "testbed",
    models: Annotated[Path | None, typer.Option(help="The server's list of models; none for the testbed.")] = None,
    converted: Annotated[Path, typer.Option(help="Folder of converted GGUF models.")] = Path("converted"),
    rounds: Annotated[int, typer.Option(min=1, help="Measurements of each precision.")] = 3,
    steps: Annotated[int, typer.Option(min=1, help="Measured training steps of a round.")] = 1,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows in a step.")] = 8,
    length: Annotated[int, typer.Option(min=2, help="Tokens of a row.")] = 128,
    suite: Annotated[SuiteName, typer.Option(help="Whose prompts.")] = "standard",
    prompts: Annotated[int, typer.Option(min=1, help="Prompts of each family; a sample of the suite's.")] = 4,
    tokens: Annotated[int, typer.Option(min=1, help="Most tokens of an answer.")] = 32,
    parts: Annotated[str, typer.Option(help="What is measured, separated by commas.")] = _PARTS,
    threads: Annotated[int, typer.Option(min=0, help="Threads of torch; 0 leaves it the choice.")] = 0,
) -> None:
    """Seconds in float32 and bfloat16, and how many times as fast bfloat16 is."""
    with benchmark("precision") as figures, tempfile.TemporaryDirectory() as folder:
        if threads:
            torch.set_num_threads(threads)
        entry = read(models, converted).models[model]
        bases = {each: load(entry, torch.device("cpu"), precision=each) for each in _PRECISIONS}
        (base, _) = bases.values()
        figures |= {"model": model, "parameters": base.identity.parameters, "threads": torch.get_num_threads()}
        figures["self_test"] = measure_speedup(main_shapes(base.folder)) if main_shapes(base.folder) else None

        if "training_step" in parts.split(","):
            rows = _rows(base, batch_size * (_SETTLING_STEPS + steps), length)
            spec = TrainingSpec(steps=_SETTLING_STEPS + steps, batch_size=batch_size, max_length=length)
            ways = {each: partial(_step, bases[each], rows, spec) for each in bases}
            figures["training_step"] = {"rows": batch_size, "row_tokens": length} | _compare(ways, rounds)
        if "answers" in parts.split(","):
            adapter, asked = _adapter(base, Path(folder)), _prompts(base, suite, prompts)
            ways = {each: partial(_answers, bases[each], adapter, asked, tokens) for each in bases}
            sizes: Figures = {"suite": suite, "prompts": len(asked), "max_new_tokens": tokens}
            figures["answers"] = sizes | _compare(ways, rounds)


def _compare(ways: dict[Precision, Callable[[], dict[str, tuple[float, float]]]], rounds: int) -> Figures:
    """Wall and processor seconds of each part in both precisions, and their ratios."""
    runs = take_turns({str(name): way for name, way in ways.items()}, rounds)
    found: Figures = {}
    for part in runs["float32"][0]:
        exact, half = ([run[part] for run in runs[name]] for name in ("float32", "bfloat16"))
        found[part] = {
            "float32_seconds": spread([wall for wall, _ in exact]),
            "bfloat16_seconds": spread([wall for wall, _ in half]),
            "speedup": ratios([wall for wall, _ in exact], [wall for wall, _ in half]) | {"target": _TARGET},
            "cpu_speedup": ratios([cpu for _, cpu in exact], [cpu for _, cpu in half]),
        }
    return found


def _step(base: BaseModel, rows: Sequence[Encoded], spec: TrainingSpec) -> dict[str, tuple[float, float]]:
    modules = find_modules(base.model)
    plan = learning_plan(modules, (), 1.0)
    return {"step": step_seconds(base, modules, rows, plan, spec, learning_rate=_RATE, settling=_SETTLING_STEPS)}


def _answers(
    base: BaseModel, adapter: Path, prompts: Sequence[Sequence[int]], tokens: int
) -> dict[str, tuple[float, float]]:
    answer = partial(continue_tokens, base, prompts=prompts, max_new_tokens=tokens, on_progress=ignore)
    before = timed(answer, model=base.model)[1:]
    with loaded(base, adapter) as tuned:
        after = timed(answer, model=tuned)[1:]
    return {"before": before, "after": after, "both": (before[0] + after[0], before[1] + after[1])}


def _adapter(base: BaseModel, folder: Path) -> Path:
    """An adapter on all modules with small random weights."""
    generator = torch.Generator().manual_seed(0)
    with attached(base.model, find_modules(base.model), LoraSpec(), seed=0) as tuned:
        for layer in lora_layers(tuned).values():
            factors(layer)[1].data.normal_(std=1e-3, generator=generator)
        save(tuned, base, folder)
    return folder


def _rows(base: BaseModel, count: int, length: int) -> list[Encoded]:
    """Rows of exactly `length` tokens, which are all trained on."""
    conversations = load_rows(DATA_DIR / "instructions.jsonl", None, max_rows=1_000_000)
    encoded = encode_all(conversations[: count * length // 8 + 1], base.tokenizer, max_length=length).rows
    stream = np.resize(np.concatenate([row.input_ids for row in encoded]), count * length).astype(np.int32)
    return [Encoded(ids, ids, line) for line, ids in enumerate(stream.reshape(count, length), 1)]


def _prompts(base: BaseModel, suite: SuiteName, count: int) -> list[list[int]]:
    spec = SecuritySpec(suite=suite)
    chosen = choose_prompts(spec.model_copy(update={"max_prompts": count}), base.folder).evaluation
    return [
        render(base.tokenizer, prompt.messages)
        for family in build_suites(chosen, spec, base.tokenizer)
        for prompt in family.prompts
    ]


if __name__ == "__main__":
    typer.run(main)
