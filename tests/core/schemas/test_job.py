"""A job spec: two names are a whole job, and what makes no sense is refused with the place that is wrong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from core.schemas.analysis import AnalysisSpec, NoisePerturbation
from core.schemas.data import DatasetSummary
from core.schemas.job import Assignment, DatasetRef, JobSpec, PromptFile, UploadedFile
from core.schemas.judges import JudgeEntry, RulesJudge
from core.schemas.prompts import HubFileSource, PromptFileSource
from core.schemas.quality import BenchmarkEntry
from core.schemas.security import SUITES
from core.schemas.strategy import RECOMMENDED, MlLrStrategy, UniformStrategy
from core.schemas.training import LoraSpec, TrainingSpec

DATASET = "ds_0123456789abcdef01234567"
MINIMAL = {"base_model": "testbed", "dataset": DATASET}
SUMMARY = DatasetSummary(
    file_format="jsonl",
    row_format="messages",
    rows=1,
    turns=2,
    assistant_turns=1,
    characters=2,
    longest_row_characters=2,
)


def test_two_names_are_a_whole_job() -> None:
    spec = JobSpec.model_validate(MINIMAL)
    assert spec.training.epochs is None
    assert spec.training.steps is None
    assert spec.training.lora.targets == "all"
    assert spec.security.attacks == SUITES["standard"].attacks
    assert spec.security.judges == (RulesJudge(),)
    assert spec.strategy == RECOMMENDED == JobSpec.model_validate(MINIMAL | {"strategy": "recommended"}).strategy
    assert spec.compare == ()
    assert spec.runs == (spec.strategy,)
    assert spec.validation_dataset is None


def test_json_comes_back_as_it_went() -> None:
    spec = JobSpec(
        base_model="testbed",
        dataset=DATASET,
        validation_dataset="ds_" + "f" * 24,
        training=TrainingSpec(steps=7, learning_rate=1e-3, lora=LoraSpec(targets=("q", "v"))),
        strategy=MlLrStrategy(ratio=0, analysis=AnalysisSpec(perturbation=NoisePerturbation(seeds=2))),
        compare=(UniformStrategy(), MlLrStrategy(label="other")),
    )
    assert JobSpec.model_validate_json(spec.model_dump_json()) == spec
    assert JobSpec.model_validate(spec.model_dump(mode="json")) == spec
    assert JobSpec.model_validate_json(JobSpec.model_validate(MINIMAL).model_dump_json()).runs
    assert hash(spec) == hash(JobSpec.model_validate_json(spec.model_dump_json()))


def test_noise_cannot_be_added_to_4_bit_weights() -> None:
    noise = {"kind": "ml_lr", "analysis": {"perturbation": {"kind": "noise"}}}
    order = MINIMAL | {"training": {"method": "qlora"}}
    assert JobSpec.model_validate(order).training.method == "qlora"
    for part in ({"strategy": noise}, {"compare": [noise | {"label": "other"}]}):
        with pytest.raises(ValidationError, match="noise cannot be added to"):
            JobSpec.model_validate(order | part)
        JobSpec.model_validate(MINIMAL | part)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"base_model": ""}, ("base_model",)),
        ({"base_model": "x" * 201}, ("base_model",)),
        ({"dataset": "ds_1"}, ("dataset",)),
        ({"dataset": DATASET + "\n"}, ("dataset",)),
        ({"validation_dataset": "file-x"}, ("validation_dataset",)),
        ({"colour": "red"}, ("colour",)),
        ({"training": {"learning_rate": float("nan")}}, ("training", "learning_rate")),
        ({"training": {"learning_rate": 0}}, ("training", "learning_rate")),
        ({"training": {"learning_rate": 1.5}}, ("training", "learning_rate")),
        ({"training": {"max_grad_norm": float("inf")}}, ("training", "max_grad_norm")),
        ({"training": {"epochs": 0}}, ("training", "epochs")),
        ({"training": {"steps": 0}}, ("training", "steps")),
        ({"training": {"epochs": 1, "steps": 1}}, ("training",)),
        ({"training": {"batch_size": 0}}, ("training", "batch_size")),
        ({"training": {"validation_split": 1}}, ("training", "validation_split")),
        ({"training": {"seed": 2**31}}, ("training", "seed")),
        ({"training": {"lora": {"dropout": 1}}}, ("training", "lora", "dropout")),
        ({"training": {"lora": {"targets": []}}}, ("training", "lora", "targets")),
        ({"training": {"lora": {"targets": ["a.b"]}}}, ("training", "lora", "targets")),
        ({"strategy": {"kind": "magic"}}, ("strategy",)),
        ({"strategy": {"ratio": 0.5}}, ("strategy",)),
        ({"strategy": {"kind": "ml_lr", "ratio": 1.1}}, ("strategy", "ml_lr", "ratio")),
        ({"strategy": {"kind": "uniform", "ratio": 0.1}}, ("strategy", "uniform", "ratio")),
        ({"strategy": {"kind": "uniform", "label": "../up"}}, ("strategy", "uniform", "label")),
        ({"strategy": {"kind": "uniform", "label": "base"}}, ()),
        ({"compare": ["recommended"]}, ()),
        ({"strategy": "best"}, ("strategy",)),
        ({"compare": [{"kind": "uniform"}, {"kind": "uniform"}]}, ()),
        ({"compare": [{"kind": "uniform", "label": f"run{number}"} for number in range(9)]}, ("compare",)),
        ({"security": {"attacks": []}}, ("security", "attacks")),
        ({"security": {"attacks": ["direct", "direct"]}}, ("security",)),
        ({"security": {"attacks": ["voodoo"]}}, ("security", "attacks", 0)),
        ({"security": {"prompts": "/etc/passwd"}}, ("security", "prompts")),
        ({"security": {"max_prompts": 3}}, ("security", "max_prompts")),
        ({"security": {"judge": "my.module.Judge"}}, ("security", "judge")),
        ({"quality": {"max_rows": 0}}, ("quality", "max_rows")),
    ],
)
def test_what_makes_no_sense_is_refused_at_its_place(change: dict[str, object], place: tuple[str | int, ...]) -> None:
    with pytest.raises(ValidationError) as caught:
        JobSpec.model_validate(MINIMAL | change)
    assert any(error["loc"][: len(place)] == place for error in caught.value.errors()), caught.value.errors()


@pytest.mark.parametrize(
    ("analysis", "place"),
    [
        ({"perturbation": {"kind": "noise", "relative_norm": 0}}, "perturbation"),
        ({"perturbation": {"kind": "noise", "steps": 3}}, "perturbation"),
        ({"perturbation": {"kind": "swap", "steps": 0}}, "perturbation"),
        ({"perturbation": {"kind": "swap", "points": 4}}, "perturbation"),
        ({"perturbation": {"kind": "gradient", "points": 0}}, "perturbation"),
        ({"perturbation": {"kind": "gradient", "stop_at_drift": 0}}, "perturbation"),
        ({"unit": "head"}, "unit"),
        ({"bands": 0}, "bands"),
        ({"parameter_share": 0}, "parameter_share"),
        ({"parameter_share": 1.01}, "parameter_share"),
        ({"memory_mb": 64}, "memory_mb"),
        ({"budget": 0}, "budget"),
        ({"budget": 1.01}, "budget"),
        ({"probes": 7}, "probes"),
        ({"min_auroc": 0.4}, "min_auroc"),
        ({"on_no_signal": "hope"}, "on_no_signal"),
    ],
)
def test_an_analysis_that_cannot_be_done_is_refused(analysis: dict[str, object], place: str) -> None:
    with pytest.raises(ValidationError) as caught:
        AnalysisSpec.model_validate(analysis)
    assert caught.value.errors()[0]["loc"][0] == place


LABELS = st.from_regex(r"[a-z][a-z0-9_]{0,5}", fullmatch=True).filter(lambda label: label != "base")


def test_repairs_and_other_runs_are_not_mixed() -> None:
    plain = {"base_model": "testbed", "dataset": "ds_" + "0" * 24}
    repair, other = {"kind": "repair", "steps": 0}, "job_" + "1" * 24
    found = JobSpec.model_validate(plain | {"strategy": repair, "repairs": other})
    assert (found.repairs, found.training_of(found.strategy).steps) == (other, 0)
    for part in ({"strategy": repair}, {"compare": [repair]}):
        with pytest.raises(ValidationError, match="use POST /jobs"):
            JobSpec.model_validate(plain | part)
    with pytest.raises(ValidationError, match="every run"):
        JobSpec.model_validate(plain | {"strategy": repair, "repairs": other, "compare": [{"kind": "uniform"}]})


@given(st.lists(LABELS, min_size=1, max_size=9, unique=True))
def test_runs_are_the_strategy_then_its_baselines(labels: list[str]) -> None:
    strategies = [UniformStrategy(label=label) for label in labels]
    spec = JobSpec(base_model="m", dataset=DATASET, strategy=strategies[0], compare=tuple(strategies[1:]))
    assert [run.label for run in spec.runs] == labels


@pytest.mark.parametrize("job_id", ["", "job_1", "job_" + "g" * 24, "../" + "0" * 24, "job_" + "0" * 24 + "\n"])
def test_an_assignment_has_a_job(job_id: str) -> None:
    data = DatasetRef(id=DATASET, key="uploads/x", sha256="0" * 64, columns=None, summary=SUMMARY)
    whole = Assignment(
        job_id="job_" + "0" * 24, attempt=1, spec=JobSpec.model_validate(MINIMAL), dataset=data, validation=None
    )
    assert Assignment.model_validate_json(whole.model_dump_json()) == whole
    assert (whole.judges, whole.benchmarks, whole.harmful, whole.safe) == ((), (), None, None)
    with pytest.raises(ValidationError):
        Assignment.model_validate(whole.model_dump() | {"job_id": job_id})


HUB = HubFileSource(id="org/set", revision="a" * 40, file="data/set.csv")
ENDPOINT = {"kind": "endpoint", "url": "https://judge.example.org/v1", "model": "big"}


@pytest.mark.parametrize("source", [UploadedFile(key="prompts/x", sha256="0" * 64), PromptFileSource(path="/x"), HUB])
def test_an_assignment_says_where_everything_is(source: UploadedFile | PromptFileSource | HubFileSource) -> None:
    whole = Assignment(
        job_id="job_" + "0" * 24,
        attempt=1,
        spec=JobSpec.model_validate(MINIMAL),
        dataset=DatasetRef(id=DATASET, key="uploads/x", sha256="0" * 64, columns=None, summary=SUMMARY),
        validation=None,
        judges=(JudgeEntry.model_validate({"name": "house", "source": ENDPOINT}),),
        benchmarks=(BenchmarkEntry(name="law", source=HUB),),
        harmful=PromptFile(name="mine", layout="plain", source=source),
        safe=PromptFile(name="mine", layout="xstest", source=source),
    )
    assert Assignment.model_validate_json(whole.model_dump_json()) == whole
