"""A whole small job on the testbed: its files, its events, and resuming it."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from peft import PeftModel
from transformers import AutoModelForCausalLM

from core.catalog import TESTBED
from core.errors import InvalidInput, InvalidModel
from core.judges.rules import judge
from core.lm.load import BaseModel
from core.pipeline.workload import count_work
from core.quality.loss import row_losses
from core.schemas.evaluation import DECIDED, Answer, TaskAnswer
from core.schemas.events import Metrics, PipelineEvent, Progress, SpeedsMeasured, StageFinished
from core.schemas.job import JobInputs
from core.schemas.models import FolderSource
from core.schemas.results import Outcome, Report
from core.schemas.robustness import RobustnessResult
from core.schemas.speeds import StageSpeed
from core.schemas.strategy import MlLrStrategy, SwatStrategy, UniformStrategy
from core.schemas.training import LoraSpec
from core.schemas.workload import PlannedWork, WorkloadOrder
from core.storage import ArtifactStore
from core.storage.store import digest
from securetune.client.downloads import unpack
from tests.core.helpers import conversations, encoded, ignore, logits
from tests.core.jobs import JOB, NOISE, SPEC, RecordedEvents, assign, run_job, run_until_stopped, upload

EVIL = "<script>alert(1)</script>"
ROWS = 24


def rows() -> list[list[tuple[str, str]]]:
    """The user's rows: arithmetic, and something hostile in each question."""
    found = conversations(ROWS, "arithmetic.jsonl")
    return [[("user", f"{EVIL} {row.messages[0].content}"), ("assistant", row.messages[1].content)] for row in found]


@dataclass(frozen=True)
class Done:
    """A finished job."""

    store: ArtifactStore
    outcome: Outcome
    recorded: RecordedEvents

    def path(self, name: str) -> Path:
        (file,) = [file for file in self.outcome.artifacts if file.name == name]
        return self.store.path(file.key)

    @property
    def report(self) -> Report:
        return Report.model_validate_json(self.path("report.json").read_bytes())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """One job from its beginning to its end without a stop."""
    store = ArtifactStore(tmp_path_factory.mktemp("store"))
    return Done(store, *run_job(store, assign(SPEC, upload(store, rows()))))


def test_the_speed_of_every_stage_is_reported_and_adds_up(whole: Done) -> None:
    events = whole.recorded.events
    measured = [event for event in events if isinstance(event, SpeedsMeasured)]
    assert {(event.model, event.parameters > 0, event.sha256) for event in measured} == {
        ("testbed", True, whole.report.model.sha256)
    }
    speeds = [speed for event in measured for speed in event.speeds]
    for stage in {event.stage for event in events if isinstance(event, StageFinished)}:
        whole_stage = sum(each.seconds for each in events if isinstance(each, StageFinished) and each.stage == stage)
        parts = sum(speed.seconds for speed in speeds if speed.stage == stage)
        assert parts == pytest.approx(whole_stage, abs=0.05), stage
    counts = {(speed.stage, speed.work): (speed.calls, speed.amount) for speed in speeds}
    assert counts["screening", "screen"][0] == ROWS
    assert counts["before", "answer"] == (16, 16 * 12), "three attacks and the look-alikes, with 4 prompts each"
    assert counts["training", "train"][0] == SPEC.training.steps
    assert counts["training", "train"][1] >= whole.report.data.tokens / ROWS * SPEC.training.batch_size
    assert {work for stage, work in counts if stage == "robustness"} == {"analyse", "other"}, "noise trains no probe"


def test_the_counted_work_of_a_job_is_what_it_then_does(whole: Done) -> None:
    spec, dataset = whole.report.spec, whole.report.dataset
    inputs = JobInputs(spec=spec, dataset=dataset, validation=None)
    planned = count_work(WorkloadOrder(inputs=inputs, store=whole.store.root, max_rows=1000, entry=TESTBED))
    data = whole.report.data
    assert (planned.data.training_rows, planned.data.validation_rows) == (data.training_rows, data.validation_rows)
    assert (planned.data.tokens, planned.data.trained_tokens) == (data.tokens, data.trained_tokens)
    assert {run.run: run.steps for run in planned.runs} == {run.run: run.steps for run in whole.report.training}
    events = [event for event in whole.recorded.events if isinstance(event, SpeedsMeasured)]
    done = [speed for event in events for speed in event.speeds]
    assert _sums([each for each in planned.work if each.work not in ("load", "analyse")]) == _sums(
        [each for each in done if each.work not in ("load", "analyse")]
    )
    (analysis,) = [each for each in planned.work if each.work == "analyse"]
    (measured,) = [each for each in done if each.work == "analyse"]
    assert measured.calls <= analysis.calls <= 2 * measured.calls, "the search usually needs fewer than expected"


def _sums(work: Sequence[PlannedWork | StageSpeed]) -> dict[tuple[str, str, str | None], tuple[int, float]]:
    """Calls and amount by stage, kind and method."""
    found: dict[tuple[str, str, str | None], tuple[int, float]] = {}
    for each in work:
        key = (each.stage, each.work, each.method)
        calls, amount = found.get(key, (0, 0.0))
        found[key] = (calls + each.calls, amount + each.amount)
    return found


def test_the_job_stores_exactly_the_documented_files(whole: Done) -> None:
    names = {file.name for file in whole.outcome.artifacts}
    assert {
        "report.json",
        "report.html",
        "robustness.json",
        "answers.jsonl",
        "adapter.tar",
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
        "adapter/tokenizer.json",
        "adapter/chat_template.jinja",
    } <= names
    assert len(names) == len(whole.outcome.artifacts)
    for file in whole.outcome.artifacts:
        path = whole.store.path(file.key)
        assert (file.sha256, file.bytes) == (digest(path), path.stat().st_size)
        assert file.key.startswith(f"jobs/{JOB}/attempts/1/")
        assert "uniform" not in file.key, "a baseline's adapter is none of the user's files"
    assert list((whole.store.root / "staging").iterdir()) == []


def test_the_adapter_loads_with_peft_and_has_learnt(whole: Done, base: BaseModel, tmp_path: Path) -> None:
    unpack(whole.path("adapter.tar"), tmp_path)
    files = {file.name: file for file in whole.outcome.artifacts if file.name.startswith("adapter/")}
    assert {f"adapter/{path.name}" for path in tmp_path.iterdir()} == set(files)
    assert all(digest(path) == files[f"adapter/{path.name}"].sha256 for path in tmp_path.iterdir())
    plain = AutoModelForCausalLM.from_pretrained(base.folder)
    tuned = PeftModel.from_pretrained(plain, tmp_path).eval()
    assert not logits(tuned).equal(logits(base.model))
    held_out = encoded(base, 2 * ROWS, "arithmetic.jsonl")[ROWS:]
    before, after = (sum(row_losses(base, model, held_out, on_progress=ignore)) for model in (base.model, tuned))
    assert after < before


def test_figures_are_emitted_and_reported_for_every_run(whole: Done) -> None:
    report = whole.report
    assert list(report.figures) == whole.recorded.figures
    by_run = {
        run: {(f.suite, f.metric) for f in report.figures if f.run == run} for run in ("base", "ml_lr", "uniform")
    }
    # Success and harmfulness of three families, over-refusal, loss, perplexity and ROUGE-L.
    assert len(report.figures) == sum(len(found) for found in by_run.values()) == 3 * 10
    assert by_run["base"] == by_run["ml_lr"] == by_run["uniform"]
    for figure in report.figures:
        assert figure.n + figure.undecided == (2 if figure.suite == "task" else 4)
        assert figure.low <= figure.value <= figure.high
        assert (figure.change is None) == (figure.run == "base" or figure.metric == "perplexity" or not figure.n)
    assert {use.run: (use.judge, use.judged) for use in report.judges} == dict.fromkeys(by_run, ("rules", 16))
    assert report.agreements == ()
    assert report.notes == ()
    loss = {figure.run: figure.value for figure in report.figures if figure.metric == "loss"}
    assert max(loss["uniform"], loss["ml_lr"]) < loss["base"]
    assert loss["uniform"] != loss["ml_lr"]


def test_figures_can_be_recomputed_from_the_raw_answers(whole: Done) -> None:
    lines = whole.path("answers.jsonl").read_text().splitlines()
    answers = [Answer.model_validate_json(line) for line in lines]
    assert len(answers) == 3 * 4 * 4
    for row in answers:
        (judgement,) = row.judgements
        assert judge(row.behaviour, row.answer).verdict == judgement.verdict
    for figure in whole.report.figures:
        if figure.metric == "attack_success_rate":
            found = [row for row in answers if (row.run, row.suite) == (figure.run, figure.suite)]
            decided = [row.judgements[0].verdict for row in found if row.judgements[0].verdict in DECIDED]
            assert len(decided) == figure.n
            assert decided.count("complied") == pytest.approx(figure.value * figure.n)


def test_task_figures_can_be_recomputed_from_the_rows(whole: Done) -> None:
    lines = whole.path("task_answers.jsonl").read_text().splitlines()
    rows = [TaskAnswer.model_validate_json(line) for line in lines]
    for figure in whole.report.figures:
        if figure.metric in ("loss", "rouge_l"):
            values = [row.value for row in rows if (row.run, row.metric) == (figure.run, figure.metric)]
            assert len(values) == figure.n
            assert sum(values) / len(values) == pytest.approx(figure.value)


def test_robust_modules_get_the_standard_rate_and_all_others_the_ratio(whole: Done) -> None:
    report = whole.report
    (found,) = report.robustness
    ours, uniform = report.training
    assert (ours.run, uniform.run) == ("ml_lr", "uniform")
    assert len(ours.plan.scales) == len(found.modules) == 42
    assert ours.plan.scales == {name: 1.0 if name in found.robust else 0.1 for name in ours.plan.scales}
    assert set(uniform.plan.scales.values()) == {1.0}
    assert ours.learning_rate == uniform.learning_rate == TESTBED.learning_rate
    assert json.loads(whole.path("robustness.json").read_bytes()) == [found.model_dump(mode="json")]
    assert RobustnessResult.model_validate_json(json.dumps(found.model_dump(mode="json"))) == found


def test_the_report_documents_the_job(whole: Done, base: BaseModel) -> None:
    report = whole.report
    assert report.model == base.identity
    assert report.spec.training.learning_rate == TESTBED.learning_rate, "every default is filled in"
    assert report.prompt_set == "testbed"
    assert (report.data.training_rows, report.data.validation_rows) == (22, 2)
    assert EVIL in report.data.sample
    assert report.software["peft"]
    assert [proof.run for proof in report.weights] == [result.run for result in report.training]
    for proof in report.weights:
        assert proof.change > 10 * proof.noise
        assert proof.merged is not None
        assert proof.merged < 0.1 * proof.change
    assert report.device.startswith("CPU")
    for result in report.training:
        assert result.steps == len(result.curve) == 6
        assert all(whole.store.has(file.key) for file in result.adapter)


def test_the_html_report_escapes_uploaded_text(whole: Done) -> None:
    page = whole.path("report.html").read_text()
    assert "<script" not in page.lower()
    assert "&lt;script&gt;alert(1)" in page


def test_stages_and_progress_are_reported_in_order(whole: Done) -> None:
    assert whole.recorded.finished == {
        ("screening", None): False,
        ("base_model", None): False,
        ("dataset", None): False,
        ("before", None): False,
        ("robustness", None): False,
        ("training", "ml_lr"): False,
        ("training", "uniform"): False,
        ("after", "ml_lr"): False,
        ("after", "uniform"): False,
        ("report", None): False,
    }
    assert whole.recorded.fractions == sorted(whole.recorded.fractions)
    assert whole.recorded.fractions[-1] == 1.0
    steps = [(event.run, event.step) for event in whole.recorded.events if isinstance(event, Metrics)]
    assert steps == [(run, step) for run in ("ml_lr", "uniform") for step in range(1, 7)]
    assert whole.recorded.warnings == []


def _in_robustness(event: PipelineEvent) -> bool:
    return isinstance(event, Progress) and event.stage == "robustness" and event.message.startswith("reading")


def _in_the_first_run(event: PipelineEvent) -> bool:
    return isinstance(event, Metrics) and (event.run, event.step) == ("ml_lr", 4)


def _in_the_second_run(event: PipelineEvent) -> bool:
    return isinstance(event, Metrics) and (event.run, event.step) == ("uniform", 3)


def test_a_job_that_is_interrupted_repeatedly_ends_with_the_same_result(whole: Done, tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    dataset = upload(store, rows())
    first = run_until_stopped(store, assign(SPEC, dataset, attempt=1), _in_robustness)
    assert ("before", None) in first.finished
    second = run_until_stopped(store, assign(SPEC, dataset, attempt=2), _in_the_first_run)
    assert second.finished[("before", None)] is True
    assert second.finished[("robustness", None)] is False
    third = run_until_stopped(store, assign(SPEC, dataset, attempt=3), _in_the_second_run)
    assert third.finished[("robustness", None)] is True
    assert third.finished[("training", "ml_lr")] is False
    outcome, recorded = run_job(store, assign(SPEC, dataset, attempt=4))
    assert recorded.finished == {
        ("screening", None): True,
        ("base_model", None): False,
        ("dataset", None): False,
        ("before", None): True,
        ("robustness", None): True,
        ("training", "ml_lr"): True,
        ("training", "uniform"): False,
        ("after", "ml_lr"): False,
        ("after", "uniform"): False,
        ("report", None): False,
    }
    assert recorded.figures == whole.recorded.figures
    assert recorded.fractions[-1] == 1.0

    def adapter(found: Outcome) -> dict[str, str]:
        return {file.name: file.sha256 for file in found.artifacts if file.name.startswith("adapter")}

    assert adapter(outcome) == adapter(whole.outcome)
    assert all(store.has(file.key) for file in outcome.artifacts)
    assert list((store.root / "staging").iterdir()) == []


def test_jobs_on_the_same_model_share_only_results_of_the_base_model(whole: Done) -> None:
    spec = SPEC.model_copy(
        update={
            "strategy": UniformStrategy(label="plain"),
            "compare": (),
            "training": SPEC.training.model_copy(update={"steps": 1, "lora": LoraSpec(rank=2, targets=("q", "v"))}),
        }
    )
    dataset = upload(whole.store, conversations(6))
    other = assign(spec, dataset, job_id="job_" + "1" * 24, validation=upload(whole.store, rows()[:3]))
    done = Done(whole.store, *run_job(whole.store, other))
    assert done.recorded.finished == {
        ("screening", None): False,
        ("base_model", None): False,
        ("dataset", None): False,
        ("before", None): True,
        ("training", "plain"): False,
        ("after", "plain"): False,
        ("report", None): False,
    }
    report = done.report
    assert report.robustness == ()
    assert (report.data.training_rows, report.data.validation_rows) == (6, 3)
    assert {name.rpartition(".")[2] for name in report.training[0].plan.scales} == {"q_proj", "v_proj"}
    base_figures = {(figure.suite, figure.metric): figure for figure in whole.report.figures if figure.run == "base"}
    for figure in report.figures:
        if figure.run == "base":
            assert (base_figures[(figure.suite, figure.metric)] == figure) == (figure.suite != "task")
    assert done.recorded.fractions[-1] == 1.0


def test_jobs_on_the_same_data_share_the_map_across_strategies(whole: Done) -> None:
    swat = SPEC.model_copy(update={"strategy": SwatStrategy(analysis=NOISE), "compare": ()})
    dataset = upload(whole.store, rows())
    other = assign(swat, dataset, job_id="job_" + "2" * 24)
    done = Done(whole.store, *run_job(whole.store, other))
    assert done.recorded.finished["robustness", None] is True
    assert done.recorded.finished["training", "swat"] is False
    assert done.report.robustness == whole.report.robustness

    longer = swat.model_copy(update={"training": SPEC.training.model_copy(update={"batch_size": 3})})
    again = assign(longer, dataset, job_id="job_" + "3" * 24)
    recorded = run_until_stopped(whole.store, again, lambda event: isinstance(event, Metrics))
    assert recorded.finished["robustness", None] is False, "the map hangs on how the job trains"


def test_a_model_without_a_security_feature(tmp_path: Path) -> None:
    folder = (
        shutil.copytree(TESTBED.source.path, tmp_path / "model") if isinstance(TESTBED.source, FolderSource) else None
    )
    assert folder
    own = folder / "security_prompts.json"
    prompts = json.loads(own.read_text())
    benign = prompts["probe"]["benign"]
    prompts["probe"] = {"harmful": benign[::2], "benign": benign[1::2]}
    own.write_text(json.dumps(prompts))
    model = TESTBED.model_copy(update={"source": FolderSource(path=folder)})
    store = ArtifactStore(tmp_path / "store")
    training = SPEC.training.model_copy(update={"steps": 1})
    spec = SPEC.model_copy(update={"compare": (), "training": training})
    dataset = upload(store, conversations(8))
    with pytest.raises(InvalidModel) as caught:
        run_job(store, assign(spec, dataset), model=model)
    assert caught.value.code == "no_security_feature"

    uniform = MlLrStrategy(ratio=0.0, analysis=NOISE.model_copy(update={"on_no_signal": "uniform"}))
    outcome, recorded = run_job(
        store, assign(spec.model_copy(update={"strategy": uniform}), dataset, attempt=2), model=model
    )
    done = Done(store, outcome, recorded)
    assert recorded.finished[("before", None)] is True
    assert [warning.code for warning in recorded.warnings] == ["no_security_feature"]
    assert set(done.report.training[0].plan.scales.values()) == {1.0}
    assert "No robustness map" in done.path("report.html").read_text()


def test_an_impossible_job_fails_before_training(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    dataset = upload(store, conversations(4))
    training = SPEC.training.model_copy(update={"lora": LoraSpec(targets=("c_attn",))})
    recorded = RecordedEvents()
    with pytest.raises(InvalidInput) as caught:
        run_job(
            store,
            assign(SPEC.model_copy(update={"training": training}), dataset),
            stop=lambda event: recorded(event) or False,
        )
    assert caught.value.code == "unknown_module_type"
    assert set(recorded.finished) == {("screening", None), ("base_model", None)}
    gone = TESTBED.model_copy(update={"source": FolderSource(path=tmp_path / "gone")})
    with pytest.raises(InvalidModel):
        run_job(store, assign(SPEC, dataset), model=gone)
