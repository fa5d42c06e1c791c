"""A small report, made by hand, in which every part that a report can have is there."""

import pytest

from core.spec.analysis import AnalysisSpec, UnitKind
from core.spec.data import DatasetSummary
from core.spec.job import DatasetRef, JobSpec
from core.spec.results import (
    Agreement,
    CategoryRate,
    Change,
    Chosen,
    Classifier,
    DataResult,
    Figure,
    GroupRobustness,
    JudgeUse,
    ModelIdentity,
    ModuleRobustness,
    Report,
    RobustnessResult,
    SearchStep,
    TrainedStep,
    TrainingResult,
)
from core.spec.strategy import UniformStrategy
from core.spec.training import LearningPlan

DATASET = "ds_" + "a" * 24
NAMES = ("layers.0.q", "layers.0.v", "layers.1.q", "layers.1.own")
CHANGE = Change(value=0.125, n=60, low=0.05, high=0.2)
CATEGORY = CategoryRate(
    arm="base", category="theft", judge="rules", value=0.25, n=8, undecided=1, low=0.071, high=0.591
)
AGREEMENT = Agreement(arm="base", judges=("rules", "rubric:big"), n=60, agree=0.9, kappa=0.8)
USE = JudgeUse(arm="base", judge="rubric:big", identity="rubric 1, big", judged=64, prompt_tokens=12_345)


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


def _trained(arm: str, scale: float) -> TrainingResult:
    return TrainingResult(
        arm=arm,
        plan=LearningPlan(strategy=arm, scales={name: 1.0 if name.endswith("q") else scale for name in NAMES}),
        learning_rate=2e-4,
        steps=3,
        curve=tuple(TrainedStep(step=step, loss=3.0 - step + scale, learning_rate=2e-4) for step in (1, 2, 3)),
        trainable_parameters=12_345,
        seconds=1.25,
        adapter=(),
    )


def _figures() -> tuple[Figure, ...]:
    found = []
    for number, arm in enumerate(("base", "ml_lr", "uniform")):
        rate = 0.125 * (number + 1)
        common = {"arm": arm, "n": 64, "undecided": number, "low": rate / 2, "high": rate * 2}
        attack = {"suite": "direct", "metric": "attack_success_rate", "judge": "rules", "value": rate}
        found.append(Figure.model_validate(common | attack | {"change": CHANGE if number == 1 else None}))
        loss = {"suite": "task", "metric": "loss", "judge": "none", "value": 10 * rate}
        found.append(Figure.model_validate(common | loss))
    over = {"suite": "over_refusal", "metric": "over_refusal_rate", "judge": "rules", "value": 0.0}
    nothing = {"arm": "base", "n": 0, "undecided": 64, "low": 0.0, "high": 1.0}
    return (*found, Figure.model_validate(over | nothing))


@pytest.fixture
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
        stretch=2.5,
        chosen=(
            Chosen(kind="type", name="q", robust=2, modules=2),
            Chosen(kind="band", name="layer 0", robust=1, modules=2),
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
        agreements=(AGREEMENT, AGREEMENT.model_copy(update={"arm": "ml_lr", "kappa": None})),
        judges=(USE,),
        notes=("Too few answers were decided.",),
        robustness=(found, unusable),
        training=(_trained("ml_lr", 0.1), _trained("uniform", 1.0)),
        software={"torch": "2.13.0"},
        device="CPU, 2 threads",
    )
