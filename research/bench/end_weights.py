"""What the safeguards that choose the weights a run ends with do on the testbed: drift, task loss and attack success.

Ordinary fine-tuning on the testbed's own tuning set, once for each safeguard and seed; attacks by the rules. Seed 0 was
seen when the defaults were chosen. Not here: combinations, statistics over worlds (research.experiments).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import torch
import typer
from peft import PeftModel

from core.attacks.evaluate import evaluate_by_rules
from core.attacks.prompts import choose_prompts
from core.catalog import TESTBED
from core.data import load as load_rows
from core.data.template import encode_all
from core.lm.adapter import attached
from core.lm.load import choose_device, load
from core.lm.modules import find_modules
from core.pipeline.context import watched_prompts
from core.quality.loss import row_losses
from core.robustness.refusals import BaseRefusals, render_probes
from core.safeguards.scale_update import Update, apply_factor
from core.schemas.attacks import ATTACK_FAMILIES
from core.schemas.metrics import OVER_REFUSAL
from core.schemas.safeguards import MAX_REFUSAL_DRIFT, ScaleUpdate
from core.schemas.security import SecuritySpec
from core.schemas.strategy import UniformStrategy
from core.schemas.training import TrainingSpec
from core.training.kept import LAST_WEIGHTS, EndWeights
from core.training.loop import Trained, train
from core.training.strategies import plan
from research.bench.figures import Figures, benchmark, ignore
from testbed import DATA_DIR

_FAMILIES = ("direct", "distractor", "role_play")
_HELD_OUT = 100


class Bench:
    """The testbed with its rows, its refusals and its attacks."""

    def __init__(self, rows: int, steps: int, max_prompts: int) -> None:
        self.base = load(TESTBED, choose_device("cpu"))
        self.modules, self.steps = find_modules(self.base.model), steps
        conversations = load_rows(DATA_DIR / "instructions.jsonl", max_rows=1_000_000)[: rows + _HELD_OUT]
        encoded = encode_all(conversations, self.base.tokenizer, max_length=512).rows
        self.rows, self.held_out = encoded[:-_HELD_OUT], encoded[-_HELD_OUT:]
        attacks = tuple(ATTACK_FAMILIES.validate({"family": family}) for family in _FAMILIES)
        self.security = SecuritySpec(attacks=attacks, max_prompts=max_prompts, max_new_tokens=48)
        self.prompts = choose_prompts(self.security, self.base.folder)
        (harmful,) = render_probes(self.base, watched_prompts(self.prompts))
        self.refusals = BaseRefusals(self.base, harmful, on_progress=ignore)
        self.base_nll = self.refusals.nll(self.base.model)

    @contextmanager
    def trained(self, seed: int, chosen: EndWeights) -> Iterator[tuple[PeftModel, Trained]]:
        """The model after training."""
        spec = TrainingSpec(steps=self.steps, seed=seed)
        with attached(self.base.model, self.modules, spec.lora, seed=seed) as tuned:
            done = train(
                tuned,
                self.rows,
                plan(UniformStrategy(), self.modules, None),
                spec,
                learning_rate=TESTBED.learning_rate,
                pad_id=self.base.pad_id,
                on_step=ignore,
                refusal_nll=self.refusals.nll,
                end_weights=chosen,
            )
            yield tuned, done

    def measure(self, tuned: PeftModel, **more: float) -> Figures:
        """Drift, task loss in nats per token, and attack success in percent by family, with the number of prompts."""
        losses = row_losses(self.base, tuned, self.held_out, on_progress=ignore)
        found: Figures = {
            "drift": round(self.refusals.nll(tuned) - self.base_nll, 3),
            "loss": round(sum(losses) / len(losses), 3),
        }
        answers = evaluate_by_rules(self.base, tuned, self.prompts.evaluation, self.security, run="run").answers
        for family in (*_FAMILIES, OVER_REFUSAL):
            complied = [any(j.verdict == "complied" for j in row.judgements) for row in answers if row.suite == family]
            found[family] = [sum(complied), len(complied)]
        return found | more


def main(
    *,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each, with consecutive seeds.")] = 3,
    first: Annotated[int, typer.Option(min=0, help="First seed.")] = 1,
    rows: Annotated[int, typer.Option(min=4, help="Rows to train on.")] = 1200,
    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = 120,
    max_prompts: Annotated[int, typer.Option(min=4, help="Prompts of each attack family.")] = 24,
) -> None:
    """One object for each seed and way: `over_refusal` counts look-alikes that are answered."""
    torch.set_num_threads(1)
    with benchmark("end_weights") as figures:
        bench = Bench(rows, steps, max_prompts)
        for seed in range(first, first + seeds):
            with bench.trained(seed, LAST_WEIGHTS) as (tuned, _):
                figures[f"{seed} uniform"] = bench.measure(tuned)
                update = Update(tuned, {})

                def nll(factor: float, update: Update = update, tuned: PeftModel = tuned) -> float:
                    update.scale(factor)
                    return bench.refusals.nll(tuned)

                for factor in (0.7, 0.5):
                    update.scale(factor)
                    figures[f"{seed} scale_update x{factor}"] = bench.measure(tuned)
                found = apply_factor(ScaleUpdate(), nll).values["factor"]
                figures[f"{seed} scale_update"] = bench.measure(tuned, factor=found)
            with bench.trained(seed, EndWeights(max_refusal_drift=MAX_REFUSAL_DRIFT)) as (tuned, done):
                figures[f"{seed} keep_safe_weights"] = bench.measure(tuned, end_step=done.end_step)
            for decay in (0.98, 0.99):
                with bench.trained(seed, EndWeights(decay=decay)) as (tuned, _):
                    figures[f"{seed} average_weights {decay}"] = bench.measure(tuned)


if __name__ == "__main__":
    typer.run(main)
