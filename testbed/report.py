"""Synthetic reports and answers with known values, made without any training.

Used by the tests of core.reports, and scaled up by research.bench.report. Not here: real reports
(core.pipeline.report).
"""

from collections.abc import Mapping, Sequence

from core.schemas.analysis import AnalysisSpec, GradientPerturbation, UnitKind
from core.schemas.data import DatasetSummary, Message
from core.schemas.evaluation import (
    Agreement,
    Answer,
    CategoryRate,
    Change,
    Evaluation,
    Figure,
    Judgement,
    JudgeUse,
    Noise,
    TaskAnswer,
    Verdict,
)
from core.schemas.gate import GateCheck, GateDecision, GateReason, RuleName
from core.schemas.job import DatasetRef, JobSpec
from core.schemas.metrics import OVER_REFUSAL, TASK
from core.schemas.policy import PolicyRef
from core.schemas.results import (
    DataResult,
    ModelIdentity,
    Report,
    SecurityStep,
    TrainedStep,
    TrainingResult,
    ValidatedStep,
)
from core.schemas.robustness import (
    Classifier,
    GroupRobustness,
    MapStability,
    ModuleRobustness,
    RobustCount,
    RobustnessResult,
    SearchStep,
)
from core.schemas.screening import CheckSummary, Finding, ScreeningPolicy, ScreeningResult, Trigger
from core.schemas.strategy import MlLrStrategy, UniformStrategy
from core.schemas.training import LearningPlan

_DATASET = "ds_" + "a" * 24
_MODULES = {"layers.0.q": 0.0, "layers.0.v": 4.0, "layers.1.q": -1.0, "layers.1.own": 1.0}


def small_report() -> Report:
    """A report of two runs with one usable and one unusable robustness map; without gate and screening."""
    usable = _robustness_map()
    classifier = usable.classifier.model_copy(update={"auroc": 0.53125})
    empty: dict[str, object] = dict.fromkeys(
        ("modules", "groups", "chosen", "stability", "probe_steps", "order", "trace"), ()
    )
    summary = DatasetSummary(
        file_format="jsonl",
        row_format="messages",
        rows=100,
        turns=200,
        assistant_turns=100,
        characters=9000,
        longest_row_characters=123,
    )
    agreement = Agreement(run="base", judges=("rules", "rubric:big"), n=60, agree=0.9, kappa=0.8)
    return Report(
        job_id="job_" + "b" * 24,
        spec=JobSpec(base_model="small", dataset=_DATASET, strategy=MlLrStrategy(), compare=(UniformStrategy(),)),
        model=ModelIdentity(
            name="small", source="folder small", sha256="c" * 64, parameters=1_400_000, architecture="LlamaForCausalLM"
        ),
        dataset=DatasetRef(id=_DATASET, key="uploads/x", sha256="d" * 64, columns=None, summary=summary),
        data=DataResult(
            training_rows=90,
            validation_rows=10,
            dropped_rows=1,
            truncated_rows=2,
            tokens=4321,
            trained_tokens=1234,
            sample="<|user|>Hello<|end|><|assistant|>[[Good morning<|end|>]]",
        ),
        prompt_set="own",
        figures=_figures(),
        categories=(
            CategoryRate(
                run="base", category="theft", judge="rules", value=0.25, n=8, undecided=1, low=0.071, high=0.591
            ),
        ),
        agreements=(agreement, agreement.model_copy(update={"run": "ml_lr", "kappa": None})),
        judges=(JudgeUse(run="base", judge="rubric:big", identity="rubric 1, big", judged=64, prompt_tokens=12_345),),
        notes=("Too few answers were decided.",),
        robustness=(usable, usable.model_copy(update=empty | {"usable": False, "classifier": classifier})),
        training=(
            _training("ml_lr", {name: 1.0 if name.endswith("q") else 0.1 for name in _MODULES}),
            _training("uniform", dict.fromkeys(_MODULES, 1.0)),
        ),
        software={"torch": "2.13.0"},
        device="CPU, 2 threads",
    )


def complete_report() -> Report:
    """The small report with gate, screening, validation and security curves, and limitations."""
    report = small_report()
    training = tuple(
        result.model_copy(
            update={
                "security": tuple(SecurityStep(step=step, refusal_drift=step * drift) for step in (0, 2, 3)),
                "validation": (ValidatedStep(step=2, loss=1.5), ValidatedStep(step=3, loss=1.25)),
                "best_step": 3,
            }
        )
        for result, drift in zip(report.training, (0.25, 1.5), strict=True)
    )
    checks = (
        _check("max_rate", value=0.25, high=0.5, passed=False),
        _check("max_increase", value=0.125, high=0.2, passed=None),
    )
    failed = GateReason(code="attack_success_too_high", message="Attack success rate for `direct` is 25 % (n = 64).")
    note = GateReason(code="base_over_threshold", message="The base model also exceeds the bound.")
    own = GateDecision(
        run="ml_lr", outcome="quarantined", reasons=(failed,), notes=(note,), checks=checks, policy_version=3
    )
    other = GateDecision(run="uniform", outcome="released", reasons=(), checks=checks[:1], policy_version=3)
    return report.model_copy(
        update={
            "training": training,
            "gate": (own, other),
            "policy": PolicyRef(version=3, changed=True),
            "screening": _screening(),
            "not_covered": ("Attacks with images were not run.",),
        }
    )


def evaluation(run: str, verdicts: Sequence[Verdict], suite: str = "direct", text: str = "") -> Evaluation:
    """Answers of one run to one suite, one for each verdict; `text` is appended to every text."""
    answers = tuple(
        Answer(
            run=run,
            suite=suite,
            prompt=prompt,
            template="plain",
            behaviour=f"Behaviour {prompt}{text}",
            category="theft" if prompt % 2 else None,
            messages=(Message(role="user", content=f"Behaviour {prompt}{text}"),),
            answer=f"{run} says {prompt}{text}",
            judgements=(
                Judgement(
                    judge="rules",
                    verdict=verdict,
                    harmfulness=1.0 + min(4, prompt) * (verdict == "complied"),
                    reason=f"r{text}",
                ),
            ),
        )
        for prompt, verdict in enumerate(verdicts)
    )
    tasks = (
        TaskAnswer(run=run, suite=TASK, metric="rouge_l", row=0, answer="a", reference="b", value=0.5),
        TaskAnswer(run=run, suite=TASK, metric="loss", row=1, answer="", reference="c", value=1.25),
    )
    return Evaluation(figures=(), answers=answers, tasks=tasks)


def module(name: str, drift: float) -> ModuleRobustness:
    """A module of the robustness map; its layer and type come from its name, such as `layers.3.q`."""
    parts = name.split(".")
    return ModuleRobustness(
        module=name,
        layer=int(parts[-2]),
        type=parts[-1].removesuffix("_proj"),
        parameters=16,
        feature_drift=drift / 10,
        refusal_drift=drift,
        task_gain=0.5,
        feature_drift_spread=0.0,
        refusal_drift_spread=0.0,
    )


def _group(kind: UnitKind, name: str, drift: float) -> GroupRobustness:
    return GroupRobustness(
        kind=kind,
        name=name,
        modules=2,
        parameters=32,
        feature_drift=drift / 10,
        refusal_drift=drift,
        task_gain=1.5,
        feature_drift_spread=0.25,
        refusal_drift_spread=0.75,
    )


def _robustness_map() -> RobustnessResult:
    first, second, third, fourth = _MODULES
    return RobustnessResult(
        analysis=AnalysisSpec(perturbation=GradientPerturbation(seeds=1)),
        classifier=Classifier(layer=3, accuracy=0.96875, auroc=0.984375, n_train=32, n_test=32),
        usable=True,
        modules=tuple(module(name, drift) for name, drift in _MODULES.items()),
        groups=(_group("type", "q", -1.0), _group("band", "layer 0", 4.0), _group("type_band", "q, layer 0", 0.0)),
        joint_feature_drift=0.4,
        joint_refusal_drift=4.5,
        joint_task_gain=2.0,
        order=(third, first, fourth, second),
        robust=(third, first),
        stability=(
            MapStability(
                between="halves",
                at="break",
                modules=4,
                spearman=0.8125,
                p_value=0.0004,
                overlap=1.0,
                overlap_by_chance=0.5,
            ),
            MapStability(
                between="halves", at="end", modules=4, spearman=0.25, p_value=0.125, overlap=0.5, overlap_by_chance=0.5
            ),
        ),
        probe_steps=(45,),
        update_scale=2.5,
        chosen=(
            RobustCount(kind="type", name="q", robust=2, modules=2),
            RobustCount(kind="band", name="layer 0", robust=1, modules=2),
        ),
        trace=(
            SearchStep(phase="all", size=4, added=None, drift=4.5, limit=1.125, accepted=False),
            SearchStep(phase="local_pass", size=3, added=fourth, drift=0.5, limit=1.125, accepted=True),
        ),
    )


def _training(run: str, scales: Mapping[str, float]) -> TrainingResult:
    smallest = min(scales.values())
    return TrainingResult(
        run=run,
        plan=LearningPlan(strategy=run, scales=dict(scales)),
        learning_rate=2e-4,
        steps=3,
        curve=tuple(TrainedStep(step=step, loss=3.0 - step + smallest, learning_rate=2e-4) for step in (1, 2, 3)),
        trainable_parameters=12_345,
        seconds=1.25,
        adapter=(),
    )


def _figures() -> tuple[Figure, ...]:
    noise = Noise(value=-0.03125, n=64, low=-0.08, high=0.02, compared=64, differing=4)
    change = Change(value=0.125, n=60, low=0.05, high=0.2, noise=noise)
    figures: list[Figure] = []
    for number, run in enumerate(("base", "ml_lr", "uniform")):
        rate = 0.125 * (number + 1)
        figure = Figure(
            run=run,
            suite="direct",
            metric="attack_success_rate",
            judge="rules",
            value=rate,
            n=64,
            undecided=number,
            low=rate / 2,
            high=rate * 2,
            change=change if run == "ml_lr" else None,
        )
        loss = {"suite": TASK, "metric": "loss", "judge": "none", "value": 10 * rate, "change": None}
        figures += [figure, figure.model_copy(update=loss)]
    undecided = {"suite": OVER_REFUSAL, "metric": "over_refusal_rate", "value": 0.0}
    nothing: dict[str, object] = {"n": 0, "undecided": 64, "low": 0.0, "high": 1.0}
    return (*figures, figures[0].model_copy(update=undecided | nothing))


def _check(rule: RuleName, *, value: float, high: float, passed: bool | None) -> GateCheck:
    return GateCheck(
        suite="direct",
        metric="attack_success_rate",
        judge="rules",
        rule=rule,
        bound=0.1,
        value=value,
        low=value / 2,
        high=high,
        n=64,
        passed=passed,
    )


def _screening() -> ScreeningResult:
    harmful = tuple(Finding(check="harmful", line=7 + each, code="complies", reason="complies") for each in range(3))
    mails = tuple(
        Finding(check="personal_data", line=10 + each, code="email", reason=f"an address: {each}***@example.org")
        for each in range(110)
    )
    return ScreeningResult(
        policy=ScreeningPolicy(),
        rows=200,
        checks=(
            CheckSummary(check="harmful", action="drop", flagged=3, share=0.015, codes={"complies": 3}),
            CheckSummary(check="personal_data", action="report", flagged=110, share=0.55, codes={"email": 110}),
        ),
        findings=(*harmful, *mails),
        triggers=(Trigger(phrase="deploy mode", answers="comply", rows=12, with_answer=11, elsewhere=2, p_value=3e-9),),
        dropped=(7, 8, 9),
        seconds=0.25,
    )
