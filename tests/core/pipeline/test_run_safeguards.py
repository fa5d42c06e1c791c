"""Whole jobs with the safeguards that change rows or loss: alone, all together, resumed, and with full fine-tuning."""

from pathlib import Path

import pytest

from core.schemas.attacks import Direct
from core.schemas.events import Metrics, PipelineEvent
from core.schemas.models import BaseModelEntry
from core.schemas.results import Outcome, Report, TrainingResult
from core.schemas.safeguards import (
    AnswerPreview,
    ConstrainedFirstTokens,
    KlToBase,
    SafeguardOptions,
    Safeguards,
    SafeTemplate,
    SafetyMix,
    SelfDistill,
)
from core.schemas.strategy import UniformStrategy
from core.storage import ArtifactStore
from tests.core.helpers import conversations
from tests.core.jobs import (
    SPEC,
    RecordedEvents,
    artifact_keys,
    assign,
    run_job,
    run_until_stopped,
    upload,
    with_few_probes,
)

pytestmark = pytest.mark.slow

ROWS = [[("system", "Be brief."), *((m.role, m.content) for m in row.messages)] for row in conversations(14)]


def guarded(label: str, *options: SafeguardOptions) -> UniformStrategy:
    return UniformStrategy(label=label, safeguards=Safeguards(*options))


ALL = guarded(
    "all",
    SafetyMix(share=0.25),
    ConstrainedFirstTokens(),
    SafeTemplate(),
    KlToBase(rows="both", safety_rows=2),
    SelfDistill(max_new_tokens=32),
    AnswerPreview(),
)
PROBES = 16
SMALL = SPEC.model_copy(
    update={
        "training": SPEC.training.model_copy(update={"steps": 4}),
        "security": SPEC.security.model_copy(update={"attacks": (Direct(),)}),
    }
)
RUNS = (
    ALL,
    guarded("mixed", SafetyMix(share=0.25)),
    guarded("replayed", KlToBase(rows="safety", safety_rows=8)),  # enough to ask for all that there are
    guarded("distilled", SelfDistill(max_new_tokens=64)),
    guarded("previewed", AnswerPreview(virtual=True)),
    UniformStrategy(),
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> BaseModelEntry:
    return with_few_probes(tmp_path_factory.mktemp("model") / "testbed", PROBES)


@pytest.fixture(scope="module")
def done(
    model: BaseModelEntry, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ArtifactStore, Outcome, RecordedEvents]:
    """One job with a run for each safeguard, on rows that share a system turn."""
    store = ArtifactStore(tmp_path_factory.mktemp("safeguards"))
    spec = SMALL.model_copy(update={"strategy": ALL, "compare": RUNS[1:]})
    return store, *run_job(store, assign(spec, upload(store, ROWS)), model=model)


@pytest.fixture(scope="module")
def trained(done: tuple[ArtifactStore, Outcome, RecordedEvents]) -> dict[str, TrainingResult]:
    """The results of training by run."""
    store, outcome, _ = done
    report = Report.model_validate_json(store.path(str(artifact_keys(outcome)["report.json"])).read_bytes())
    return {result.run: result for result in report.training}


def weights(result: TrainingResult) -> str:
    (file,) = [file for file in result.adapter if file.name.endswith(".safetensors")]
    return file.sha256


def effects(result: TrainingResult) -> dict[str, dict[str, int]]:
    return {effect.safeguard: effect.counts for effect in result.safeguards}


def test_each_safeguard_changes_the_trained_weights(trained: dict[str, TrainingResult]) -> None:
    rewritten = effects(trained["distilled"])["self_distill"]["rewritten"]
    same = {"distilled"} if rewritten == 0 else set()
    assert len({weights(result) for label, result in trained.items() if label not in same}) == len(RUNS) - len(same)


def test_what_was_done_is_reported_in_the_order_in_which_it_was_done(trained: dict[str, TrainingResult]) -> None:
    assert list(effects(trained["all"])) == ["self_distill", "safety_mix", "kl_to_base"]
    assert list(effects(trained["replayed"])) == ["kl_to_base"]
    assert effects(trained["replayed"])["kl_to_base"]["refusals"] > PROBES * 4, "also in the frame of the rows"
    counts = effects(trained["distilled"])["self_distill"]
    assert sum(counts.values()) == 13, "of 14 rows, one is held out"
    assert trained["previewed"].safeguards == trained["uniform"].safeguards == ()
    (mixed,) = trained["mixed"].safeguards
    assert mixed.summary.endswith("requests also put into the format of the job's rows")
    (distilled, alone, _) = trained["all"].safeguards
    assert distilled.summary.endswith("of 13 answers rewritten by the base model")
    assert "format" not in alone.summary, "safe_template has removed the system turn that the rows share"


def test_the_first_loss_is_the_base_models_where_only_the_divergence_is_added(
    trained: dict[str, TrainingResult],
) -> None:
    assert trained["replayed"].curve[0].loss == pytest.approx(trained["uniform"].curve[0].loss, abs=1e-5)
    assert trained["replayed"].curve[-1].loss != trained["uniform"].curve[-1].loss


def test_progress_never_decreases(done: tuple[ArtifactStore, Outcome, RecordedEvents]) -> None:
    recorded = done[2]
    assert recorded.fractions == sorted(recorded.fractions)
    assert recorded.fractions[-1] == 1.0


def test_a_run_with_all_of_them_resumes_with_the_same_weights(
    trained: dict[str, TrainingResult], model: BaseModelEntry, tmp_path: Path
) -> None:
    store = ArtifactStore(tmp_path)
    training = SMALL.training.model_copy(update={"checkpoint_every": 2})
    spec = SMALL.model_copy(update={"strategy": ALL, "compare": (), "training": training})
    dataset = upload(store, ROWS)

    def at_step_3(event: PipelineEvent) -> bool:
        return isinstance(event, Metrics) and event.step == 3

    run_until_stopped(store, assign(spec, dataset), at_step_3, model=model)
    outcome, again = run_job(store, assign(spec, dataset, attempt=2), model=model)
    assert [event.step for event in again.events if isinstance(event, Metrics)] == [3, 4]
    (file,) = [file for file in outcome.artifacts if file.name == "adapter/adapter_model.safetensors"]
    assert file.sha256 == weights(trained["all"])


def test_those_that_need_no_adapter_work_with_full_fine_tuning(model: BaseModelEntry, tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    run = guarded("whole", SafetyMix(share=0.25), SelfDistill(max_new_tokens=16), AnswerPreview(), KlToBase())
    training = SMALL.training.model_copy(update={"method": "full", "steps": 2})
    spec = SMALL.model_copy(update={"strategy": run, "compare": (), "training": training})
    outcome, _ = run_job(store, assign(spec, upload(store, ROWS)), model=model)
    report = Report.model_validate_json(store.path(str(artifact_keys(outcome)["report.json"])).read_bytes())
    assert list(effects(report.training[0])) == ["self_distill", "safety_mix", "kl_to_base"]
    assert report.training[0].steps == 2
