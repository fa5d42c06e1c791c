"""How much a base model's figures differ when it is measured twice, as a job measures the noise.

Attack success and over-refusal by the rules, and the loss of the testbed's rows. Not here: a trained model.
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer

from core import catalog
from core.attacks.evaluate import evaluate_by_rules
from core.attacks.prompts import choose_prompts
from core.data import load as load_rows
from core.data.template import encode_all
from core.lm.load import choose_device, load
from core.pipeline.changes import add_changes
from core.quality.evaluate import ValidationRows
from core.quality.evaluate import evaluate as evaluate_task
from core.schemas.evaluation import Evaluation
from core.schemas.quality import QualitySpec
from core.schemas.security import SecuritySpec, SuiteName
from research.bench.figures import benchmark, ignore, timed
from testbed import DATA_DIR

_OTHER_SEED = 2**30
_MAX_LENGTH = 512


def main(
    *,
    model: Annotated[str, typer.Option(help="Name in the list of models.")] = catalog.TESTBED.name,
    state: Annotated[Path | None, typer.Option(help="Folder with models.toml and converted models.")] = None,
    suite: Annotated[SuiteName, typer.Option(help="How much is asked.")] = "quick",
    max_prompts: Annotated[int, typer.Option(min=0, help="Prompts of each kind; 0 for the suite's own.")] = 0,
    bfloat16: Annotated[bool, typer.Option(help="Convert the weights to bfloat16.")] = False,
    rows: Annotated[int, typer.Option(min=1, help="Rows for the loss; a quarter of them are also answered.")] = 200,
    device: Annotated[str, typer.Option(help="Device of torch.")] = "cpu",
    threads: Annotated[int, typer.Option(min=0, help="Threads of torch; 0 leaves it the choice.")] = 0,
) -> None:
    """The difference of the second measurement from the first, by suite and metric."""
    if threads:
        torch.set_num_threads(threads)
    listed = catalog.read(state and state / "models.toml", (state or Path()) / "converted").models
    base = load(catalog.find(listed, model), choose_device(device))
    if bfloat16:
        base.model.bfloat16()
    options: dict[str, object] = {"suite": suite}
    spec = SecuritySpec.model_validate(options | ({"max_prompts": max_prompts} if max_prompts else {}))
    prompts = choose_prompts(spec, base.folder).evaluation
    conversations = load_rows(DATA_DIR / "instructions.jsonl", max_rows=1_000_000)[:rows]
    encoded = encode_all(conversations, base.tokenizer, max_length=_MAX_LENGTH).rows
    quality = QualitySpec(max_answers=max(1, rows // 4), max_new_tokens=spec.max_new_tokens)

    def measure(*, again: bool) -> Evaluation:
        measured = replace(base, half_batches=again)
        seeded = spec.model_copy(update={"seed": _OTHER_SEED if again else spec.seed})
        found = evaluate_by_rules(measured, base.model, prompts, seeded, run="base")
        figures, answers = evaluate_task(
            measured, base.model, ValidationRows(encoded, conversations), quality, {}, run="base", on_progress=ignore
        )
        return found.model_copy(update={"figures": found.figures + figures, "tasks": answers})

    with benchmark("noise") as figures:
        first, once, _ = timed(measure, again=False)
        second, twice, _ = timed(measure, again=True)
        figures |= {"model": model, "weights": base.weights, "suite": suite, "seconds": [round(once), round(twice)]}
        texts = [[answer.answer for answer in each.answers] for each in (first, second)]
        figures["answers_that_differ"] = [sum(a != b for a, b in zip(*texts, strict=True)), len(texts[0])]
        for figure in add_changes(first, second, second).figures:
            if figure.change is not None and figure.change.noise is not None:
                figures[f"{figure.suite} {figure.metric}"] = figure.change.noise.model_dump() | {"first": figure.value}


if __name__ == "__main__":
    typer.run(main)
