"""Measures how long a report takes to write and how large it is: JSON, HTML with pictures, model card, Parquet.

The job is synthetic (testbed.report). `cold` is the first report of a process, including the import of matplotlib and
pyarrow, which every job pays once; `warm` are later ones. Not here: computing the figures (research.bench.evaluation,
research.bench.analysis).
"""

import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from core.schemas.attacks import ATTACK_FAMILIES
from core.schemas.evaluation import Change, Evaluation, Figure
from core.schemas.job import BASE_RUN
from core.schemas.metrics import OVER_REFUSAL
from core.schemas.results import Report, SecurityStep, TrainedStep, TrainingResult, ValidatedStep
from core.schemas.robustness import RobustnessResult, SearchStep
from core.schemas.safeguards import Safeguards, SafetyMix
from core.schemas.strategy import MlLrContinuousStrategy, MlLrStrategy, Strategy, SwatStrategy, UniformStrategy
from core.schemas.training import LearningPlan
from research.bench.figures import benchmark, spreads
from testbed.report import complete_report, evaluation, module

_SECONDS, _BYTES = 10.0, 2_000_000
_SUITES = (*list(ATTACK_FAMILIES)[:9], OVER_REFUSAL)
_RUNS: tuple[Strategy, ...] = (
    MlLrStrategy(safeguards=Safeguards(SafetyMix())),
    UniformStrategy(),
    MlLrContinuousStrategy(),
    SwatStrategy(),
)
_STEPS = 500
_WORDS = ("make", "fold", "carry", "red", "paper", "boat", "box", "with", "water", "and", "stone", "first", "then")


def main(
    answers: Annotated[int, typer.Option(min=50, help="Number of answers of all models together.")] = 10_000,
    layers: Annotated[int, typer.Option(min=1, help="Number of layers with seven modules each.")] = 32,
    runs: Annotated[int, typer.Option(min=1, help="Number of warm runs.")] = 1,
) -> None:
    """Print seconds and bytes of a synthetic job's report."""
    report, evaluations = large_report(answers, layers)
    with benchmark("report") as figures, TemporaryDirectory() as folder:
        cold, sizes = _write(report, evaluations, Path(folder))
        warm = [_write(report, evaluations, Path(folder))[0] for _ in range(runs)]
        figures["answers"] = sum(len(each.answers) for each in evaluations)
        figures["cold_seconds"] = spreads([cold])
        figures["warm_seconds"] = spreads(warm)
        figures["bytes"] = sizes
        figures["targets"] = {"total_seconds": _SECONDS, "html_bytes": _BYTES}


def _write(report: Report, evaluations: Sequence[Evaluation], folder: Path) -> tuple[dict[str, float], dict[str, int]]:
    """Seconds of each part of one report, and bytes of each file."""
    seconds: dict[str, float] = {}
    sizes: dict[str, int] = {}
    last = time.perf_counter()

    def record(part: str, size: int) -> None:
        nonlocal last
        now = time.perf_counter()
        seconds[part], sizes[part], last = now - last, size, now

    # Imported here because a cold run includes it.
    from core.reports.card import card  # noqa: PLC0415
    from core.reports.examples import changed  # noqa: PLC0415
    from core.reports.parquet import answers_parquet, task_answers_parquet  # noqa: PLC0415
    from core.reports.pictures import draw  # noqa: PLC0415
    from core.reports.render import html  # noqa: PLC0415

    record("imports", 0)
    record("json", len(report.model_dump_json(indent=1).encode()))
    pictures = draw(report)
    record("pictures", sum(len(picture.svg.encode()) for picture in pictures.values()))
    record("html", len(html(report, changed(evaluations), pictures).encode()))
    record("card", len(card(report).encode()))
    answers_parquet(evaluations, folder / "answers.parquet")
    task_answers_parquet(evaluations, folder / "task_answers.parquet")
    record("parquet", (folder / "answers.parquet").stat().st_size)
    seconds["total"] = sum(seconds.values())
    sizes["largest_picture"] = max(len(picture.svg.encode()) for picture in pictures.values())
    return seconds, sizes


def large_report(answers: int, layers: int) -> tuple[Report, tuple[Evaluation, ...]]:
    """The synthetic report scaled to four runs, and the answers of its five models; the same every time.

    Args:
        answers: Number of answers of all models together.
        layers: Number of layers with seven modules each.
    """
    rng = random.Random(0)  # noqa: S311 - not used for security
    models = (BASE_RUN, *(run.label for run in _RUNS))
    prompts = max(1, answers // (len(models) * len(_SUITES)))
    kinds = ("q", "k", "v", "o", "gate", "up", "down")
    drifts = {f"model.layers.{layer}.{kind}_proj": rng.expovariate(1.0) for layer in range(layers) for kind in kinds}
    report = complete_report()
    checks = report.gate[0].checks[:1] * len(_SUITES)
    decision = report.gate[0].model_copy(update={"checks": checks, "reasons": report.gate[0].reasons * len(_SUITES)})
    large = report.model_copy(
        update={
            "spec": report.spec.model_copy(update={"strategy": _RUNS[0], "compare": _RUNS[1:]}),
            "figures": tuple(figure for model in models for figure in _large_figures(report, rng, model, prompts)),
            "gate": tuple(decision.model_copy(update={"run": model}) for model in models[1:]),
            "robustness": (_large_map(report.robustness[0], drifts),),
            "training": tuple(_large_training(report.training[0], rng, model, list(drifts)) for model in models[1:]),
        }
    )
    return large, tuple(_large_evaluation(rng, model, prompts) for model in models)


def _large_map(small: RobustnessResult, drifts: Mapping[str, float]) -> RobustnessResult:
    order = sorted(drifts, key=lambda name: drifts[name])
    trace = tuple(
        SearchStep(phase="local_pass", size=size, added=name, drift=size / 10, limit=3.5, accepted=size < 35)
        for size, name in enumerate(order, 1)
    )
    modules = tuple(module(name, drift) for name, drift in drifts.items())
    robust = tuple(order[: len(order) // 2])
    return small.model_copy(update={"modules": modules, "order": tuple(order), "robust": robust, "trace": trace})


def _large_training(small: TrainingResult, rng: random.Random, run: str, modules: Sequence[str]) -> TrainingResult:
    scale = {"uniform": lambda: 1.0, "ml_lr_continuous": rng.random}.get(run, lambda: 0.1)
    plan = LearningPlan(
        strategy=run,
        scales={name: scale() if number % 2 else 1.0 for number, name in enumerate(modules)},
        warmup_scales={name: float(number % 2) for number, name in enumerate(modules)} if run == "swat" else None,
        warmup_ratio=0.3 if run == "swat" else 0.0,
    )
    steps = range(10, _STEPS + 1, 10)
    return small.model_copy(
        update={
            "run": run,
            "plan": plan,
            "curve": tuple(
                TrainedStep(step=step, loss=1 + 2 / step + 0.1 * rng.random(), learning_rate=2e-4)
                for step in range(1, _STEPS + 1)
            ),
            "validation": tuple(ValidatedStep(step=step, loss=1 + 10 / step) for step in steps),
            "security": tuple(SecurityStep(step=step, refusal_drift=step / 100) for step in (0, *steps)),
            "best_step": _STEPS,
        }
    )


def _large_figures(small: Report, rng: random.Random, run: str, prompts: int) -> list[Figure]:
    attack, loss, *_ = small.figures
    figures = [loss.model_copy(update={"run": run, "value": 1.0, "low": 0.9, "high": 1.1})]
    for suite in _SUITES:
        value = rng.betavariate(1, 15) if run == BASE_RUN else rng.betavariate(5, 5)
        metric = "over_refusal_rate" if suite == OVER_REFUSAL else "attack_success_rate"
        change = None if run == BASE_RUN else Change(value=value - 0.05, n=prompts, low=value - 0.1, high=value)
        low, high = max(0.0, value - 0.05), min(1.0, value + 0.05)
        named: dict[str, object] = {"run": run, "suite": suite, "metric": metric, "n": prompts, "change": change}
        figures.append(attack.model_copy(update=named | {"value": value, "low": low, "high": high}))
    return figures


def _large_evaluation(rng: random.Random, run: str, prompts: int) -> Evaluation:
    share = 0.05 if run == BASE_RUN else 0.5
    parts = [
        evaluation(
            run,
            ["complied" if rng.random() < share else "refused" for _ in range(prompts)],
            suite,
            " ".join(rng.choices(_WORDS, k=100)),
        )
        for suite in _SUITES
    ]
    answers = tuple(answer for part in parts for answer in part.answers)
    return Evaluation(figures=(), answers=answers, tasks=parts[0].tasks * 100)


if __name__ == "__main__":
    typer.run(main)
