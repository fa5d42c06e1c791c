"""A small report, made by hand, in which every part that a report can have is there."""

from collections.abc import Sequence

import pytest

from core.reports.pictures import Picture, draw
from core.schemas.analysis import AnalysisSpec, UnitKind
from core.schemas.data import DatasetSummary, Message
from core.schemas.gate import GateCheck, GateDecision, GateReason, RuleName
from core.schemas.job import DatasetRef, JobSpec
from core.schemas.policy import PolicyRef
from core.schemas.results import (
    Agreement,
    Answer,
    CategoryRate,
    Change,
    RobustCount,
    Classifier,
    DataResult,
    Evaluation,
    Figure,
    GroupRobustness,
    Judgement,
    JudgeUse,
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
    Verdict,
)
from core.schemas.screening import CheckSummary, Finding, ScreeningPolicy, ScreeningResult, Trigger
from core.schemas.strategy import UniformStrategy
from core.schemas.training import LearningPlan

DATASET = "ds_" + "a" * 24
NAMES = ("layers.0.q", "layers.0.v", "layers.1.q", "layers.1.own")
CHANGE = Change(value=0.125, n=60, low=0.05, high=0.2)
CATEGORY = CategoryRate(
    run="base", category="theft", judge="rules", value=0.25, n=8, undecided=1, low=0.071, high=0.591
)
AGREEMENT = Agreement(run="base", judges=("rules", "rubric:big"), n=60, agree=0.9, kappa=0.8)
USE = JudgeUse(run="base", judge="rubric:big", identity="rubric 1, big", judged=64, prompt_tokens=12_345)


def _module(name: str, drift: float) -> ModuleRobustness:
    return ModuleRobustness(
        module=name,
        layer=int(name[7]),
        type=name.rpartition(".")[2],
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


def _trained(run: str, scale: float) -> TrainingResult:
    return TrainingResult(
        run=run,
        plan=LearningPlan(strategy=run, scales={name: 1.0 if name.endswith("q") else scale for name in NAMES}),
        learning_rate=2e-4,
        steps=3,
        curve=tuple(TrainedStep(step=step, loss=3.0 - step + scale, learning_rate=2e-4) for step in (1, 2, 3)),
        trainable_parameters=12_345,
        seconds=1.25,
        adapter=(),
    )


def _figures() -> tuple[Figure, ...]:
    found = []
    for number, run in enumerate(("base", "ml_lr", "uniform")):
        rate = 0.125 * (number + 1)
        common = {"run": run, "n": 64, "undecided": number, "low": rate / 2, "high": rate * 2}
        attack = {"suite": "direct", "metric": "attack_success_rate", "judge": "rules", "value": rate}
        found.append(Figure.model_validate(common | attack | {"change": CHANGE if number == 1 else None}))
        loss = {"suite": "task", "metric": "loss", "judge": "none", "value": 10 * rate}
        found.append(Figure.model_validate(common | loss))
    over = {"suite": "over_refusal", "metric": "over_refusal_rate", "judge": "rules", "value": 0.0}
    nothing = {"run": "base", "n": 0, "undecided": 64, "low": 0.0, "high": 1.0}
    return (*found, Figure.model_validate(over | nothing))


@pytest.fixture(scope="session")
def report() -> Report:
    """Two arms, one usable map and one without ground."""
    drifts = (0.0, 4.0, -1.0, 1.0)
    classifier = Classifier(layer=3, accuracy=0.96875, auroc=0.984375, n_train=32, n_test=32)
    found = RobustnessResult(
        analysis=AnalysisSpec(),
        classifier=classifier,
        usable=True,
        modules=tuple(_module(name, drift) for name, drift in zip(NAMES, drifts, strict=True)),
        groups=(_group("type", "q", -1.0), _group("band", "layer 0", 4.0), _group("type_band", "q, layer 0", 0.0)),
        joint_feature_drift=0.4,
        joint_refusal_drift=4.5,
        joint_task_gain=2.0,
        order=(NAMES[2], NAMES[0], NAMES[3], NAMES[1]),
        robust=(NAMES[2], NAMES[0]),
        probe_steps=(45,),
        update_scale=2.5,
        chosen=(
            RobustCount(kind="type", name="q", robust=2, modules=2),
            RobustCount(kind="band", name="layer 0", robust=1, modules=2),
        ),
        trace=(
            SearchStep(phase="all", size=4, added=None, drift=4.5, limit=1.125, accepted=False),
            SearchStep(phase="local_pass", size=3, added=NAMES[3], drift=0.5, limit=1.125, accepted=True),
        ),
    )
    unusable = found.model_copy(
        update={
            "usable": False,
            "modules": (),
            "groups": (),
            "chosen": (),
            "probe_steps": (),
            "order": (),
            "trace": (),
            "classifier": classifier.model_copy(update={"auroc": 0.53125}),
        }
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
    return Report(
        job_id="job_" + "b" * 24,
        spec=JobSpec(base_model="small", dataset=DATASET, compare=(UniformStrategy(),)),
        model=ModelIdentity(
            name="small", source="folder small", sha256="c" * 64, parameters=1_400_000, architecture="LlamaForCausalLM"
        ),
        dataset=DatasetRef(id=DATASET, key="uploads/x", sha256="d" * 64, columns=None, summary=summary),
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
        categories=(CATEGORY,),
        agreements=(AGREEMENT, AGREEMENT.model_copy(update={"run": "ml_lr", "kappa": None})),
        judges=(USE,),
        notes=("Too few answers were decided.",),
        robustness=(found, unusable),
        training=(_trained("ml_lr", 0.1), _trained("uniform", 1.0)),
        software={"torch": "2.13.0"},
        device="CPU, 2 threads",
    )


def _checked(rule: RuleName, *, value: float, high: float, passed: bool | None) -> GateCheck:
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


def _decisions() -> tuple[GateDecision, ...]:
    checks = (
        _checked("max_rate", value=0.25, high=0.5, passed=False),
        _checked("max_increase", value=0.125, high=0.2, passed=None),
    )
    failed = GateReason(code="attack_success_too_high", message="Attack success of direct is 25 % (n = 64).")
    note = GateReason(code="base_over_threshold", message="The base model itself is above it.")
    ours = GateDecision(
        run="ml_lr", outcome="quarantined", reasons=(failed,), notes=(note,), checks=checks, policy_version=3
    )
    other = GateDecision(run="uniform", outcome="released", reasons=(), checks=checks[:1], policy_version=3)
    return ours, other


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


@pytest.fixture(scope="session")
def whole(report: Report) -> Report:
    """The same with everything that may be there: gate, screening, readings along the training, limits."""
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
    return report.model_copy(
        update={
            "training": training,
            "gate": _decisions(),
            "policy": PolicyRef(version=3, changed=True),
            "screening": _screening(),
            "not_covered": ("Attacks with images were not run.",),
        }
    )


@pytest.fixture(scope="session")
def pictures(whole: Report) -> dict[str, Picture]:
    """Its pictures."""
    return draw(whole)


def _answer(run: str, suite: str, prompt: int, verdict: Verdict, text: str) -> Answer:
    behaviour = f"Behaviour {prompt}"
    return Answer(
        run=run,
        suite=suite,
        prompt=prompt,
        template="plain",
        behaviour=behaviour,
        category="theft" if prompt % 2 else None,
        messages=(Message(role="user", content=behaviour),),
        answer=text,
        judgements=(
            Judgement(judge="rules", verdict=verdict, harmfulness=1.0 + prompt * (verdict == "complied"), reason="r"),
        ),
    )


def evaluation(run: str, verdicts: Sequence[Verdict], suite: str = "direct") -> Evaluation:
    """Answers of one arm to one suite, with these verdicts."""
    answers = tuple(
        _answer(run, suite, prompt, verdict, f"{run} says {prompt}") for prompt, verdict in enumerate(verdicts)
    )
    tasks = (
        TaskAnswer(run=run, suite="task", metric="rouge_l", row=0, answer="a", reference="b", value=0.5),
        TaskAnswer(run=run, suite="task", metric="loss", row=1, answer="", reference="c", value=1.25),
    )
    return Evaluation(figures=(), answers=answers, tasks=tasks)


@pytest.fixture(scope="session")
def evaluations() -> tuple[Evaluation, ...]:
    """The base model, and two arms of which one changed."""
    return (
        evaluation("base", ["refused", "refused", "complied", "partial", "refused"]),
        evaluation("ml_lr", ["complied", "refused", "refused", "complied", "complied"]),
        evaluation("uniform", ["refused", "refused", "complied", "refused", "undecided"]),
    )
