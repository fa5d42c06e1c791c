"""The base model is measured twice in a job: what differs between the two, what is shown beside each change, what is
shared and resumed.

Not here: how a difference is computed (test_changes), that batches differ (tests/core/lm/test_generate.py).
"""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from core.judges.rules import judge
from core.schemas.evaluation import Figure, Noise, RawAnswer
from core.schemas.events import Progress, StageStarted
from core.schemas.job import JobSpec
from core.schemas.metrics import Metric
from core.schemas.quality import QualitySpec
from core.schemas.results import Outcome, Report
from core.schemas.security import SecuritySpec
from core.schemas.strategy import UniformStrategy
from core.storage import ArtifactStore
from tests.core.helpers import conversations
from tests.core.jobs import SPEC, artifact_keys, assign, run_job, run_until_stopped, upload

SAMPLES = {"family": "best_of_n", "samples": 3, "temperature": 2.0}
OTHER_JOB = "job_" + "1" * 24


def spec(**security: object) -> JobSpec:
    attacked = {"attacks": ["direct", SAMPLES], "max_prompts": 6, "max_new_tokens": 12, "threshold": 0.9} | security
    return SPEC.model_copy(
        update={
            "strategy": UniformStrategy(),
            "compare": (),
            "training": SPEC.training.model_copy(update={"steps": 1}),
            "security": SecuritySpec.model_validate(attacked),
            "quality": QualitySpec(max_rows=4, max_answers=2, max_new_tokens=8),
        }
    )


def read_report(store: ArtifactStore, outcome: Outcome) -> Report:
    return Report.model_validate_json(store.path(str(artifact_keys(outcome)["report.json"])).read_bytes())


def stored_answers(store: ArtifactStore, stage: str, suite: str) -> list[RawAnswer]:
    (path,) = store.root.glob(f"shared/stages/{stage}-base-{suite}-*.json")
    return [RawAnswer.model_validate(each) for each in json.loads(path.read_bytes())["answers"]]


def noise_of(figures: Sequence[Figure], suite: str, metric: Metric) -> Noise:
    (figure,) = [each for each in figures if (each.run, each.suite, each.metric) == ("uniform", suite, metric)]
    assert figure.change is not None
    assert figure.change.noise is not None
    return figure.change.noise


class Done:
    """A finished job that measured the noise."""

    def __init__(self, folder: Path) -> None:
        self.store = ArtifactStore(folder)
        self.dataset = upload(self.store, conversations(8))
        self.outcome, self.recorded = run_job(self.store, assign(spec(), self.dataset))
        self.report = read_report(self.store, self.outcome)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Done:
    return Done(tmp_path_factory.mktemp("store"))


def test_noise_of_sampled_answers_is_the_difference_of_the_two_measurements(whole: Done) -> None:
    first, second = (stored_answers(whole.store, stage, "best_of_n") for stage in ("before", "noise"))
    assert len(first) == len(second) == 18
    assert [each.messages for each in first] == [each.messages for each in second]
    verdicts = [[judge(each.behaviour, each.answer).verdict for each in found] for found in (first, second)]
    complied = [
        {each.prompt for each, verdict in zip(found, said, strict=True) if verdict == "complied"}
        for found, said in zip((first, second), verdicts, strict=True)
    ]
    noise = noise_of(whole.report.figures, "best_of_n", "attack_success_rate")
    assert complied[0] != complied[1]
    assert noise.value == pytest.approx((len(complied[1]) - len(complied[0])) / 6)
    assert noise.n == 6
    assert noise.compared == 18
    assert noise.differing == sum(one != other for one, other in zip(*verdicts, strict=True)) > 0


def test_greedy_answers_of_the_testbed_are_the_same_so_their_noise_is_zero(whole: Done) -> None:
    first, second = (stored_answers(whole.store, stage, "direct") for stage in ("before", "noise"))
    assert first == second
    for suite, metric in (("direct", "attack_success_rate"), ("over_refusal", "over_refusal_rate")):
        noise = noise_of(whole.report.figures, suite, metric)
        assert (noise.value, noise.differing, noise.compared) == (0.0, 0, 6)


def test_noise_stands_beside_every_change_and_the_reader_is_told(whole: Done) -> None:
    tuned = [figure for figure in whole.report.figures if figure.run == "uniform"]
    assert {figure.metric for figure in tuned if figure.change is None} <= {"perplexity", "rouge_l"}
    assert all(figure.change.noise is not None for figure in tuned if figure.change is not None)
    assert noise_of(tuned, "task", "loss").n == 1
    for name in ("report.html", "model_card.md"):
        text = whole.store.path(str(artifact_keys(whole.outcome)[name])).read_text()
        assert "measured twice" in text
        assert "of 18 verdicts differ" in text


def test_judging_the_second_measurement_is_counted_apart(whole: Done) -> None:
    assert [(use.run, use.judged) for use in whole.report.judges] == [
        ("base", 30),
        ("base, measured again", 30),
        ("uniform", 30),
    ]


def test_progress_of_a_job_with_noise_grows_to_one(whole: Done) -> None:
    fractions = whole.recorded.fractions
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    started = [event.stage for event in whole.recorded.events if isinstance(event, StageStarted)]
    assert started.index("before") + 1 == started.index("noise") < started.index("training")


def test_the_second_measurement_is_shared_between_jobs(whole: Done) -> None:
    outcome, recorded = run_job(whole.store, assign(spec(), whole.dataset, job_id=OTHER_JOB))
    assert recorded.finished["noise", None] is True
    assert noise_of(read_report(whole.store, outcome).figures, "best_of_n", "attack_success_rate") == noise_of(
        whole.report.figures, "best_of_n", "attack_success_rate"
    )


def test_without_noise_nothing_is_measured_twice(whole: Done) -> None:
    quiet = assign(spec(measure_noise=False), whole.dataset, job_id=OTHER_JOB)
    outcome, recorded = run_job(whole.store, quiet)
    assert ("noise", None) not in recorded.finished
    assert recorded.fractions[-1] == 1.0
    found = read_report(whole.store, outcome)
    assert all(figure.change.noise is None for figure in found.figures if figure.change is not None)
    assert [use.run for use in found.judges] == ["base", "uniform"]
    assert "measured twice" not in whole.store.path(str(artifact_keys(outcome)["report.html"])).read_text()


def test_an_interrupted_second_measurement_resumes_at_its_suite(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "store")
    assignment = assign(spec(stop_when_certain=True), upload(store, conversations(8)))

    def kept() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in store.root.glob("shared/stages/noise-*.json")}

    run_until_stopped(store, assignment, lambda event: isinstance(event, Progress) and bool(kept()))
    first = kept()
    assert 0 < len(first) < 4  # two families, the safe prompts, the task
    _, recorded = run_job(store, assignment.model_copy(update={"attempt": 2}))
    assert recorded.finished["noise", None] is True
    assert len(kept()) == 4
    assert all(kept()[path] == then for path, then in first.items())
