"""What the recommended KL penalty costs: a training step with it beside one without, and what comes before training.

Steps with and without it take turns, round after round; each ratio is taken within a round. Before training, the base
model answers the requests that the penalty reads and predicts on its answers, once per job.
Not here: what the penalty keeps (research.real).
"""

from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer

from core import safeguards
from core.attacks.prompts import choose_prompts
from core.catalog import read
from core.data import load as load_rows
from core.data.template import encode_all
from core.lm.load import load
from core.lm.modules import find_modules
from core.safeguards import SafeguardContext
from core.safeguards.base_answers import BaseAnswers
from core.schemas.job import JobSpec
from core.schemas.prompts import PromptSet
from core.schemas.security import SecuritySpec
from core.schemas.strategy import RECOMMENDED
from core.schemas.training import TrainingSpec
from core.training.loop import Objective, next_token_loss
from research.bench.figures import benchmark, ignore, ratios, spread, take_turns, timed
from research.bench.models import learning_plan, step_seconds
from testbed import DATA_DIR

_RATE = 1e-4
_SETTLING_STEPS = 1
_TARGET = 1.15


def main(
    *,
    model: Annotated[str, typer.Option(help="Name of the base model in the list.")] = "testbed",
    models: Annotated[Path | None, typer.Option(help="The server's list of models; none for the testbed.")] = None,
    converted: Annotated[Path, typer.Option(help="Folder of converted GGUF models.")] = Path("converted"),
    rounds: Annotated[int, typer.Option(min=1, help="Measurements with and without the penalty.")] = 3,
    steps: Annotated[int, typer.Option(min=1, help="Measured training steps of a round.")] = 2,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows in a step.")] = 8,
    length: Annotated[int, typer.Option(min=2, help="Most tokens of a row; longer ones are cut.")] = 128,
    prompts: Annotated[int, typer.Option(min=4, help="Most probe prompts that the penalty uses of each kind.")] = 1000,
    data: Annotated[Path, typer.Option(help="Rows to train on, as in a job.")] = DATA_DIR / "instructions.jsonl",
) -> None:
    """Seconds of a step with and without the penalty, their ratio, and seconds before training."""
    with benchmark("penalty") as figures:
        entry = read(models, converted).models[model]
        base = load(entry, torch.device("cpu"))
        modules = find_modules(base.model)
        training = TrainingSpec(steps=_SETTLING_STEPS + steps, batch_size=batch_size, max_length=length)
        job = JobSpec(base_model=model, dataset="ds_" + "0" * 24, training=training)
        conversations = load_rows(data, None, max_rows=1_000_000)[: batch_size * (_SETTLING_STEPS + steps)]
        rows = encode_all(conversations, base.tokenizer, max_length=length).rows
        chosen = _choose_prompts(base.folder, prompts)
        context = SafeguardContext(job, entry, base, modules, chosen, BaseAnswers(base), conversations)
        (penalised, (effect,)), wall, cpu = timed(safeguards.objective, RECOMMENDED, context, ignore)
        losses: dict[str, Objective] = {"without": next_token_loss, "with": penalised}
        ways = {
            name: partial(
                step_seconds,
                base,
                modules,
                rows,
                learning_plan(modules, (), 1.0),
                training,
                learning_rate=_RATE,
                settling=_SETTLING_STEPS,
                objective=loss,
            )
            for name, loss in losses.items()
        }
        runs = take_turns(ways, rounds)
        figures |= {
            "model": model,
            "parameters": base.identity.parameters,
            "precision": base.weights,
            "rows": batch_size,
            "penalty": effect.summary,
            "seconds_before_training": {"wall": round(wall, 1), "cpu": round(cpu, 1)},
            "target": _TARGET,
        }
        for place, kind in enumerate(("seconds", "cpu_seconds")):
            found = {name: [run[place] for run in times] for name, times in runs.items()}
            figures[kind] = {name: spread(values) for name, values in found.items()}
            figures[f"{kind}_ratio"] = ratios(found["with"], found["without"])


def _choose_prompts(folder: Path, most: int) -> PromptSet:
    """The prompts of a job, with at most so many probe prompts of each kind."""
    whole = choose_prompts(SecuritySpec(), folder)
    probe = whole.probe.model_copy(update={"harmful": whole.probe.harmful[:most], "safe": whole.probe.safe[:most]})
    return whole.model_copy(update={"probe": probe})


if __name__ == "__main__":
    typer.run(main)
