"""How long a report takes to write, and how large it is: JSON, HTML with pictures, model card, raw answers as Parquet.

The job is made up: random figures of a deep model, answers of random words. `cold` is the first report of a process,
with the import of matplotlib and pyarrow in it, which every job pays once; `warm` are later ones. Not here: where the
figures come from (research.bench.evaluation, research.bench.analysis).
"""

import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from core.schemas.analysis import AnalysisSpec
from core.schemas.attacks import ATTACK_FAMILIES
from core.schemas.data import DatasetSummary, Message
from core.schemas.gate import GateCheck, GateDecision, GateReason
from core.schemas.job import BASE_RUN, DatasetRef, JobSpec
from core.schemas.metrics import OVER_REFUSAL, TASK
from core.schemas.results import (
    Answer,
    Change,
    Classifier,
    DataResult,
    Evaluation,
    Figure,
    Judgement,
    ModelIdentity,
    ModuleRobustness,
    Report,
    RobustnessResult,
    SearchStep,
    SecurityStep,
    TaskAnswer,
    TrainedStep,
    TrainingResult,
    ValidatedStep,
)
from core.schemas.safeguards import Safeguards, SafetyMix
from core.schemas.screening import CheckSummary, Finding, ScreeningPolicy, ScreeningResult
from core.schemas.strategy import MlLrContinuousStrategy, MlLrStrategy, SwatStrategy, UniformStrategy
from core.schemas.training import LearningPlan
from research.bench.figures import Figures, benchmark, spread

_SECONDS, _BYTES = 10.0, 2_000_000
_TYPES = ("q", "k", "v", "o", "gate", "up", "down")
_SUITES = (*[*ATTACK_FAMILIES][:9], OVER_REFUSAL)
_STEPS = 500
_WORDS = ("make", "fold", "carry", "red", "paper", "boat", "box", "with", "water", "and", "stone", "first", "then")
_RUNS = (
    MlLrStrategy(safeguards=Safeguards(safety_mix=SafetyMix())),
    UniformStrategy(),
    MlLrContinuousStrategy(),
    SwatStrategy(),
)


def main(
    answers: Annotated[int, typer.Option(min=50, help="Answers of all models together.")] = 10_000,
    layers: Annotated[int, typer.Option(min=1, help="Layers of the model, of seven modules each.")] = 32,
    runs: Annotated[int, typer.Option(min=1, help="Warm runs.")] = 1,
) -> None:
    """Seconds and bytes of a made-up job's report."""
    report, evaluations = made_up(answers, layers)
    with benchmark("report") as figures, TemporaryDirectory() as folder:
        cold = _written(report, evaluations, Path(folder))
        warm = [_written(report, evaluations, Path(folder)) for _ in range(runs)]
        figures["answers"] = sum(len(each.answers) for each in evaluations)
        figures["cold_seconds"] = _spreads([cold.seconds])
        figures["warm_seconds"] = _spreads([run.seconds for run in warm])
        figures["bytes"] = dict(cold.sizes)
        figures["targets"] = {"total_seconds": _SECONDS, "html_bytes": _BYTES}


class _Run:
    """One report: seconds of each part, and bytes of each file."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.sizes: dict[str, int] = {}
        self._last = time.perf_counter()

    def took(self, part: str, size: int) -> None:
        now = time.perf_counter()
        self.seconds[part] = now - self._last
        self.sizes[part] = size
        self._last = now


def _written(report: Report, evaluations: Sequence[Evaluation], folder: Path) -> _Run:
    run, path = _Run(), folder / "answers.parquet"
    # Imported here because a cold run pays for it.
    from core.reports.card import card  # noqa: PLC0415
    from core.reports.examples import changed  # noqa: PLC0415
    from core.reports.parquet import answers_parquet, task_answers_parquet  # noqa: PLC0415
    from core.reports.pictures import draw  # noqa: PLC0415
    from core.reports.render import html  # noqa: PLC0415

    run.took("imports", 0)
    run.took("json", len(report.model_dump_json(indent=1).encode()))
    pictures = draw(report)
    run.took("pictures", sum(len(picture.svg.encode()) for picture in pictures.values()))
    run.took("html", len(html(report, changed(evaluations), pictures).encode()))
    run.took("card", len(card(report).encode()))
    answers_parquet(evaluations, path)
    task_answers_parquet(evaluations, folder / "task_answers.parquet")
    run.took("parquet", path.stat().st_size)
    run.seconds["total"] = sum(run.seconds.values())
    run.sizes["largest_picture"] = max(len(picture.svg.encode()) for picture in pictures.values())
    return run


def _spreads(runs: Sequence[Mapping[str, float]]) -> Figures:
    return {part: spread([run[part] for run in runs]) for part in runs[0]}


def made_up(answers: int, layers: int) -> tuple[Report, tuple[Evaluation, ...]]:
    """A report and the answers of its five models, the same every time."""
    rng = random.Random(0)  # noqa: S311 - no secret
    models = (BASE_RUN, *(run.label for run in _RUNS))
    each = max(1, answers // (len(models) * len(_SUITES)))
    evaluations = tuple(_evaluation(rng, run, each) for run in models)
    modules = [(f"model.layers.{layer}.{kind}_proj", layer, kind) for layer in range(layers) for kind in _TYPES]
    return (
        Report(
            job_id="job_" + "0" * 24,
            spec=JobSpec(base_model="made-up", dataset="ds_" + "0" * 24, strategy=_RUNS[0], compare=_RUNS[1:]),
            model=ModelIdentity(
                name="made-up", source="folder made-up", sha256="0" * 64, parameters=7 * 10**9, architecture="Llama"
            ),
            dataset=DatasetRef(id="ds_" + "0" * 24, key="x", sha256="1" * 64, columns=None, summary=_summary()),
            data=DataResult(
                training_rows=9000,
                validation_rows=200,
                dropped_rows=0,
                truncated_rows=12,
                tokens=2_000_000,
                trained_tokens=1_500_000,
                sample=_text(rng, 200),
            ),
            prompt_set="made-up",
            figures=tuple(figure for one in evaluations for figure in one.figures),
            screening=_screening(),
            gate=tuple(_decision(one) for one in evaluations[1:]),
            not_covered=("Everything: nothing was measured.",),
            robustness=(_map(rng, modules),),
            training=tuple(_trained(rng, run, [name for name, _, _ in modules]) for run in models[1:]),
            software={"torch": "0"},
            device="none",
        ),
        evaluations,
    )


def _text(rng: random.Random, words: int) -> str:
    return " ".join(rng.choices(_WORDS, k=words))


def _evaluation(rng: random.Random, run: str, each: int) -> Evaluation:
    share = 0.05 if run == BASE_RUN else 0.5
    answers = tuple(_answer(rng, run, suite, prompt, share) for suite in _SUITES for prompt in range(each))
    tasks = tuple(
        TaskAnswer(run=run, suite=TASK, metric="loss", row=row, answer="", reference=_text(rng, 30), value=1.0)
        for row in range(200)
    )
    return Evaluation(figures=tuple(_figures(rng, run, each, share)), answers=answers, tasks=tasks)


def _answer(rng: random.Random, run: str, suite: str, prompt: int, share: float) -> Answer:
    complied = rng.random() < share
    behaviour = f"{suite} {prompt}: {_text(rng, 12)}"
    return Answer(
        run=run,
        suite=suite,
        prompt=prompt,
        template="plain",
        behaviour=behaviour,
        category=f"category {prompt % 10}",
        messages=(Message(role="user", content=f"{behaviour} {_text(rng, 40)}"),),
        answer=_text(rng, 150),
        judgements=(
            Judgement(
                judge="rules",
                verdict="complied" if complied else "refused",
                harmfulness=5.0 if complied else 1.0,
                reason=_text(rng, 6),
            ),
        ),
    )


def _figures(rng: random.Random, run: str, each: int, share: float) -> list[Figure]:
    found = []
    for suite in _SUITES:
        value = min(0.95, max(0.0, rng.gauss(share, 0.15)))
        change = None if run == BASE_RUN else Change(value=value - 0.05, n=each, low=value - 0.1, high=value)
        found.append(
            Figure(
                run=run,
                suite=suite,
                metric="over_refusal_rate" if suite == OVER_REFUSAL else "attack_success_rate",
                judge="rules",
                value=value,
                n=each,
                low=max(0.0, value - 0.05),
                high=min(1.0, value + 0.05),
                change=change,
            )
        )
    loss = rng.uniform(0.8, 1.2)
    task = Figure(run=run, suite=TASK, metric="loss", judge="none", value=loss, n=200, low=loss - 0.1, high=loss + 0.1)
    return [*found, task]


def _decision(evaluation: Evaluation) -> GateDecision:
    checks = tuple(
        GateCheck(
            suite=row.suite,
            metric=row.metric,
            judge=row.judge,
            rule="max_rate",
            bound=0.1,
            value=row.value,
            low=row.low,
            high=row.high,
            n=row.n,
            passed=row.high <= 0.1,
        )
        for row in evaluation.figures
        if row.metric == "attack_success_rate"
    )
    reasons = tuple(
        GateReason(code="attack_success_too_high", message=f"Attack success of {check.suite} is too high.")
        for check in checks
        if not check.passed
    )
    run = evaluation.figures[0].run
    return GateDecision(run=run, outcome="quarantined", reasons=reasons, checks=checks, policy_version=1)


def _screening() -> ScreeningResult:
    findings = tuple(
        Finding(check="personal_data", line=line, code="email", reason="an address: a***@example.org")
        for line in range(1, 1001)
    )
    summary = CheckSummary(check="personal_data", action="report", flagged=1000, share=0.1, codes={"email": 1000})
    return ScreeningResult(policy=ScreeningPolicy(), rows=9200, checks=(summary,), findings=findings, seconds=1.0)


def _summary() -> DatasetSummary:
    return DatasetSummary(
        file_format="jsonl",
        row_format="messages",
        rows=9200,
        turns=18_400,
        assistant_turns=9200,
        characters=9_000_000,
        longest_row_characters=4000,
    )


def _map(rng: random.Random, modules: Sequence[tuple[str, int, str]]) -> RobustnessResult:
    drifts = {name: rng.expovariate(1.0) for name, _, _ in modules}
    order = sorted(drifts, key=lambda name: drifts[name])
    return RobustnessResult(
        analysis=AnalysisSpec(),
        classifier=Classifier(layer=1, accuracy=1.0, auroc=1.0, n_train=48, n_test=48),
        usable=True,
        modules=tuple(
            ModuleRobustness(
                module=name,
                layer=layer,
                type=kind,
                parameters=2**24,
                feature_drift=drifts[name] / 10,
                refusal_drift=drifts[name],
                task_gain=rng.random(),
                feature_drift_spread=0.0,
                refusal_drift_spread=0.0,
            )
            for name, layer, kind in modules
        ),
        joint_feature_drift=1.0,
        joint_refusal_drift=10.0,
        joint_task_gain=1.0,
        order=tuple(order),
        robust=tuple(order[: len(order) // 2]),
        trace=tuple(
            SearchStep(phase="local_pass", size=size, added=name, drift=size / 10, limit=3.5, accepted=size < 35)
            for size, name in enumerate(order, 1)
        ),
    )


def _trained(rng: random.Random, run: str, modules: Sequence[str]) -> TrainingResult:
    factors = (lambda: 1.0) if run == "uniform" else (rng.random if run == "ml_lr_continuous" else (lambda: 0.1))
    scales = {name: factors() if number % 2 else 1.0 for number, name in enumerate(modules)}
    frozen = {name: 0.0 if number % 2 else 1.0 for number, name in enumerate(modules)}
    return TrainingResult(
        run=run,
        plan=LearningPlan(
            strategy=run,
            scales=scales,
            warmup_scales=frozen if run == "swat" else None,
            warmup_ratio=0.3 if run == "swat" else 0.0,
        ),
        learning_rate=2e-4,
        steps=_STEPS,
        curve=tuple(
            TrainedStep(step=step, loss=1 + 2 / step + 0.1 * rng.random(), learning_rate=2e-4)
            for step in range(1, _STEPS + 1)
        ),
        trainable_parameters=40_000_000,
        seconds=1000.0,
        adapter=(),
        validation=tuple(ValidatedStep(step=step, loss=1 + 10 / step) for step in range(10, _STEPS + 1, 10)),
        security=tuple(SecurityStep(step=step, refusal_drift=step / 100) for step in range(0, _STEPS + 1, 10)),
        best_step=_STEPS,
    )


if __name__ == "__main__":
    typer.run(main)
