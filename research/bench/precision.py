"""What bfloat16 saves on a CPU: a training step, and the answers of an evaluation before and after training.

The same model is in memory in both precisions, and all ways take turns, round after round; each ratio is taken within a
round. A training step is also measured in float32 with transformers' own loss, which is computed at every position; the
service computes it only where a label is. Prompts are a sample of the suite's, the same number of each family. The
answers after training are those of an adapter with random weights, loaded from its file as an evaluation loads it.
Not here: what rounding does to figures, and other stages of a job.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor, nn

from core.attacks.ask import build_suites
from core.attacks.prompts import choose_prompts
from core.catalog import read
from core.data import load as load_rows
from core.data.batches import Batch, collate
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
from core.training.loop import Objective, next_token_loss
from research.bench.figures import Figures, benchmark, ignore, ratios, spread, take_turns, timed
from research.bench.models import learning_plan, step_seconds
from testbed import DATA_DIR

_PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")
_ALL_POSITIONS = "float32, loss at all positions"
_TARGET = 2.0
_RATE = 1e-4
_SETTLING_STEPS = 1
_PARTS = "training_step,answers"
_Times = dict[str, tuple[float, float]]
"""Wall and processor seconds of each part."""


def main(
    *,
    model: Annotated[str, typer.Option(help="Name of the base model in the list.")] = "testbed",
    models: Annotated[Path | None, typer.Option(help="The server's list of models; none for the testbed.")] = None,
    converted: Annotated[Path, typer.Option(help="Folder of converted GGUF models.")] = Path("converted"),
    rounds: Annotated[int, typer.Option(min=1, help="Measurements of each precision.")] = 3,
    steps: Annotated[int, typer.Option(min=1, help="Measured training steps of a round.")] = 1,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows in a step.")] = 8,
    length: Annotated[int, typer.Option(min=2, help="Most tokens of a row; longer ones are cut.")] = 128,
    data: Annotated[Path, typer.Option(help="Rows to train on, as in a job.")] = DATA_DIR / "instructions.jsonl",
    suite: Annotated[SuiteName, typer.Option(help="Whose prompts.")] = "standard",
    prompts: Annotated[int, typer.Option(min=1, help="Prompts of each family; a sample of the suite's.")] = 4,
    tokens: Annotated[int, typer.Option(min=1, help="Most tokens of an answer.")] = 32,
    parts: Annotated[str, typer.Option(help="What is measured, separated by commas.")] = _PARTS,
    threads: Annotated[int, typer.Option(min=0, help="Threads of torch; 0 leaves it the choice.")] = 0,
) -> None:
    """Seconds of each way, and how many times as fast bfloat16 is."""
    with benchmark("precision") as figures, tempfile.TemporaryDirectory() as folder:
        if threads:
            torch.set_num_threads(threads)
        entry = read(models, converted).models[model]
        bases = {each: load(entry, torch.device("cpu"), precision=each) for each in _PRECISIONS}
        (base, _) = bases.values()
        figures |= {"model": model, "parameters": base.identity.parameters, "threads": torch.get_num_threads()}
        figures["self_test"] = measure_speedup(main_shapes(base.folder)) if main_shapes(base.folder) else None

        if "training_step" in parts.split(","):
            spec = TrainingSpec(steps=_SETTLING_STEPS + steps, batch_size=batch_size, max_length=length)
            conversations = load_rows(data, None, max_rows=1_000_000)[: batch_size * spec.total_steps(1)]
            rows = encode_all(conversations, base.tokenizer, max_length=length).rows
            ways = {
                _ALL_POSITIONS: partial(_step, bases["float32"], rows, spec, transformers_loss),
                **{each: partial(_step, bases[each], rows, spec, next_token_loss) for each in bases},
            }
            figures["training_step"] = _describe(rows, batch_size) | _compare(ways, rounds)
        if "answers" in parts.split(","):
            adapter, asked = _adapter(base, Path(folder)), _prompts(base, suite, prompts)
            ways = {str(each): partial(_answers, bases[each], adapter, asked, tokens) for each in bases}
            sizes: Figures = {"suite": suite, "prompts": len(asked), "max_new_tokens": tokens}
            figures["answers"] = sizes | _compare(ways, rounds)


def transformers_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Transformers' own loss, from logits of every position."""
    return model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels).loss


def _describe(rows: Sequence[Encoded], batch_size: int) -> Figures:
    """Of the measured steps: how many tokens a batch has with its padding, and how many of them are trained on."""
    measured = rows[_SETTLING_STEPS * batch_size :]
    batches = [collate(measured[first : first + batch_size], 0) for first in range(0, len(measured), batch_size)]
    return {
        "rows": batch_size,
        "batch_tokens": spread([batch.input_ids.numel() for batch in batches], 0),
        "trained_tokens": spread([batch.trained_tokens for batch in batches], 0),
    }


def _compare(ways: Mapping[str, Callable[[], _Times]], rounds: int) -> Figures:
    """Wall and processor seconds of each way and part, and how many times as long as bfloat16 the others take."""
    runs = take_turns({name: partial(_printed, name, way) for name, way in ways.items()}, rounds)
    return {
        part: _compare_part({name: [run[part] for run in runs[name]] for name in runs}) for part in runs["float32"][0]
    }


def _compare_part(times: Mapping[str, Sequence[tuple[float, float]]]) -> Figures:
    walls, cpus = ({name: [each[kind] for each in found] for name, found in times.items()} for kind in (0, 1))
    return {
        "seconds": {name: spread(found) for name, found in walls.items()},
        "cpu_seconds": {name: spread(found) for name, found in cpus.items()},
        "speedup": {name: ratios(walls[name], walls["bfloat16"]) for name in times if name != "bfloat16"},
        "cpu_speedup": {name: ratios(cpus[name], cpus["bfloat16"]) for name in times if name != "bfloat16"},
        "target": _TARGET,
    }


def _printed(name: str, way: Callable[[], _Times]) -> _Times:
    """Print each measurement as it is taken: a round of a large model takes minutes."""
    found = way()
    typer.echo(f"{name}: {found}")
    return found


def _step(base: BaseModel, rows: Sequence[Encoded], spec: TrainingSpec, objective: Objective) -> _Times:
    modules = find_modules(base.model)
    plan = learning_plan(modules, (), 1.0)
    seconds = step_seconds(
        base, modules, rows, plan, spec, learning_rate=_RATE, settling=_SETTLING_STEPS, objective=objective
    )
    return {"step": seconds}


def _answers(base: BaseModel, adapter: Path, prompts: Sequence[Sequence[int]], tokens: int) -> _Times:
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
