"""Whole jobs that combine strategies with safeguards, and jobs on models without a template or without alignment."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.catalog import TESTBED
from core.errors import InvalidInput, InvalidModel, TrainingFailed
from core.lm.chat import PLAIN_TEMPLATE
from core.lm.load import BaseModel
from core.schemas.attacks import Direct
from core.schemas.evaluation import Answer
from core.schemas.models import BaseModelEntry, FolderSource
from core.schemas.results import Outcome, PrecisionUsed, Report, TrainingResult
from core.schemas.safeguards import (
    ConstrainedFirstTokens,
    ProjectToSafe,
    Safeguards,
    SafeTemplate,
    SafetyMix,
)
from core.schemas.strategy import (
    FreezeLayersStrategy,
    LayerNumbers,
    MlLrContinuousStrategy,
    MlLrStrategy,
    ModulesStrategy,
    Strategy,
    SwatStrategy,
    UniformStrategy,
)
from core.schemas.training import LoraSpec, TrainingSpec
from core.storage import ArtifactStore
from core.storage.store import digest
from tests.core.helpers import conversations, tiny
from tests.core.jobs import NOISE, SPEC, RecordedEvents, assign, run_job, upload, with_few_probes

pytestmark = pytest.mark.slow

PROMPT = "Decline what is harmful."
MAIN = SwatStrategy(
    label="guarded",
    warmup_ratio=0.5,
    analysis=NOISE,
    safeguards=Safeguards(
        SafetyMix(share=0.25),
        ConstrainedFirstTokens(),
        SafeTemplate(system_prompt=PROMPT),
    ),
)
RUNS: tuple[Strategy, ...] = (
    MAIN,
    MlLrStrategy(analysis=NOISE),
    MlLrStrategy(label="mixed", analysis=NOISE, safeguards=Safeguards(SafetyMix(share=0.25))),
    MlLrStrategy(label="held", analysis=NOISE, safeguards=Safeguards(ConstrainedFirstTokens())),
    MlLrStrategy(label="projected", analysis=NOISE, safeguards=Safeguards(ProjectToSafe(threshold=1.0))),
    MlLrStrategy(label="prompted", analysis=NOISE, safeguards=Safeguards(SafeTemplate())),
    MlLrContinuousStrategy(analysis=NOISE),
    FreezeLayersStrategy(layers=LayerNumbers(first=0, last=3)),
)
SMALL = SPEC.model_copy(update={"security": SPEC.security.model_copy(update={"attacks": (Direct(),)})})
STEPS = 3
PROBES = 16


@dataclass(frozen=True)
class Done:
    """A finished job."""

    store: ArtifactStore
    outcome: Outcome
    recorded: RecordedEvents

    def text(self, name: str) -> str:
        (file,) = [file for file in self.outcome.artifacts if file.name == name]
        return self.store.path(file.key).read_text()

    @property
    def report(self) -> Report:
        return Report.model_validate_json(self.text("report.json"))

    def run(self, label: str) -> TrainingResult:
        (found,) = [result for result in self.report.training if result.run == label]
        return found

    def weights(self, label: str) -> dict[str, torch.Tensor]:
        (file,) = [file for file in self.run(label).adapter if file.name.endswith(".safetensors")]
        return load_file(self.store.path(file.key))


def with_unaligned_base(folder: Path) -> BaseModelEntry:
    """The testbed with an unaligned base: its own weights, slightly changed."""
    model = with_few_probes(folder / "model", PROBES)
    assert isinstance(TESTBED.source, FolderSource)
    unaligned = shutil.copytree(TESTBED.source.path, folder / "unaligned")
    chance = torch.Generator().manual_seed(0)
    tensors = {
        name: value + 0.01 * torch.randn(value.shape, generator=chance).to(value.dtype)
        for name, value in load_file(unaligned / "model.safetensors").items()
    }
    save_file(tensors, unaligned / "model.safetensors", metadata={"format": "pt"})
    return model.model_copy(update={"unaligned_base": FolderSource(path=unaligned)})


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """One job whose runs combine strategies and safeguards, on rows with a system turn."""
    folder = tmp_path_factory.mktemp("runs")
    store = ArtifactStore(folder / "store")
    rows = [[("system", "Be brief."), *((m.role, m.content) for m in row.messages)] for row in conversations(14)]
    training = SPEC.training.model_copy(update={"steps": STEPS})
    spec = SMALL.model_copy(update={"strategy": MAIN, "compare": RUNS[1:], "training": training})
    return Done(store, *run_job(store, assign(spec, upload(store, rows)), model=with_unaligned_base(folder / "base")))


def test_runs_with_the_same_analysis_share_one_map(done: Done) -> None:
    (found,) = done.report.robustness
    (swat, ml_lr, continuous) = (done.run(label).plan for label in ("guarded", "ml_lr", "ml_lr_continuous"))
    assert swat.warmup_scales == {name: 1.0 if name in found.robust else 0.0 for name in swat.scales}
    assert (set(swat.scales.values()), swat.warmup_ratio) == ({1.0}, 0.5)
    assert ml_lr.scales == {name: 1.0 if name in found.robust else 0.1 for name in ml_lr.scales}
    assert min(continuous.scales.values()) == pytest.approx(0.1)
    assert max(continuous.scales.values()) == 1.0
    assert len(set(continuous.scales.values())) > 2
    frozen = done.run("freeze_layers").plan.scales
    assert {int(name.split(".")[2]) for name, scale in frozen.items() if scale == 0} == {0, 1, 2, 3}


def test_each_safeguard_changes_the_trained_weights(done: Done) -> None:
    digests = {}
    for label in ("ml_lr", "mixed", "held", "projected", "prompted"):
        (file,) = [file for file in done.run(label).adapter if file.name.endswith(".safetensors")]
        digests[label] = file.sha256
        assert digest(done.store.path(file.key)) == file.sha256
    assert len(set(digests.values())) == len(digests)
    assert all(done.run(run.label).steps == STEPS for run in RUNS)


def test_added_refusals_are_counted(done: Done) -> None:
    rows = done.report.data.training_rows
    for label in ("guarded", "mixed"):
        (effect,) = [each for each in done.run(label).safeguards if each.safeguard == "safety_mix"]
        assert effect.counts["rows"] == round(rows / 3)
        assert 0 < effect.counts["distinct_rows"] <= effect.counts["rows"]
    assert done.run("ml_lr").safeguards == ()


def test_a_projection_changes_only_b_and_is_reported_by_module(done: Done) -> None:
    (effect,) = done.run("projected").safeguards
    modules = set(done.run("projected").plan.scales)
    assert set(effect.by_module) == modules
    assert effect.counts == {"updates": len(modules), "projected": len(modules)}
    plain, projected = done.weights("ml_lr"), done.weights("projected")
    for name, value in plain.items():
        assert torch.equal(value, projected[name]) == (".lora_A." in name)


def test_the_first_loss_is_the_base_models_under_the_constrained_loss_too(done: Done) -> None:
    plain, held = done.run("ml_lr").curve, done.run("held").curve
    assert held[0].loss == pytest.approx(plain[0].loss, abs=1e-4)
    assert held[-1].loss != plain[-1].loss


def test_a_run_is_evaluated_with_the_system_prompt_to_serve_with(done: Done) -> None:
    answers = [Answer.model_validate_json(line) for line in done.text("answers.jsonl").splitlines()]
    first = {run: {answer.messages[0].role for answer in answers if answer.run == run} for run in ("base", "ml_lr")}
    assert first == {"base": {"user"}, "ml_lr": {"user"}}
    asked = {answer.messages[0].content for answer in answers if answer.run == "guarded"}
    assert asked == {PROMPT}
    asked = {answer.messages[0].content for answer in answers if answer.run == "prompted"}
    assert asked == {SafeTemplate().system_prompt}


def test_the_report_names_the_combinations_and_how_to_serve(done: Done) -> None:
    page = " ".join(done.text("report.html").split())
    assert "tuned with guarded: swat + safety_mix 25 % + first_tokens + safe_template" in page
    assert '<th scope="col">projected<small>ml_lr + project_to_safe</small></th>' in page
    assert "42 of 42 updates projected" in page
    assert f"&ldquo;{PROMPT}&rdquo;" in page
    assert "<small>ml_lr</small>" not in page
    note = done.text("adapter/README.md")
    assert PROMPT in note
    assert not [file for file in done.run("ml_lr").adapter if file.name.endswith("README.md")]


def test_every_strategy_and_safeguard_works_beside_bfloat16_weights(tmp_path: Path) -> None:
    """On a CPU, where other kernels compute in bfloat16 than on a GPU."""
    store = ArtifactStore(tmp_path / "store")
    training = SPEC.training.model_copy(update={"steps": STEPS, "precision": "bfloat16"})
    runs = {"strategy": MAIN, "compare": (RUNS[4], UniformStrategy())}
    spec = SMALL.model_copy(update=runs | {"training": training})
    model = with_unaligned_base(tmp_path / "base")
    done = Done(store, *run_job(store, assign(spec, upload(store, conversations(14))), model=model))
    assert done.report.precision == PrecisionUsed(weights="bfloat16")
    assert {proof.run for proof in done.report.weights} == {"guarded", "projected", "uniform"}
    assert all(0 <= proof.noise < proof.change for proof in done.report.weights)
    assert all(each.dtype == torch.float32 for each in done.weights("projected").values())
    assert {effect.safeguard for effect in done.run("projected").safeguards} == {"project_to_safe"}
    assert all(point.refusal_drift == point.refusal_drift for point in done.run("guarded").security)
    assert "Computed in bfloat16" in done.text("report.html")


def test_progress_never_decreases_while_refusals_are_collected(done: Done) -> None:
    assert done.recorded.fractions == sorted(done.recorded.fractions)
    assert done.recorded.fractions[-1] == 1.0
    assert done.recorded.warnings == []


@pytest.mark.parametrize(
    ("run", "code"),
    [
        (ModulesStrategy(label="mine", full_rate=("model.layers.0.self_attn.q",)), "unknown_module"),
        (ModulesStrategy(label="mine", full_rate=(), ratio=0), "nothing_to_train"),
        (FreezeLayersStrategy(layers=LayerNumbers(first=0, last=5)), "nothing_to_train"),
        (FreezeLayersStrategy(layers=LayerNumbers(first=5, last=6)), "no_such_layers"),
        (UniformStrategy(label="mine", safeguards=Safeguards(ProjectToSafe())), "no_unaligned_base"),
    ],
)
def test_an_impossible_run_fails_the_job_before_rows_are_encoded(tmp_path: Path, run: Strategy, code: str) -> None:
    store, recorded = ArtifactStore(tmp_path), RecordedEvents()
    spec = SPEC.model_copy(update={"compare": (run,)})
    with pytest.raises((InvalidInput, InvalidModel, TrainingFailed)) as caught:
        run_job(store, assign(spec, upload(store, conversations(4))), stop=lambda event: recorded(event) or False)
    assert caught.value.code == code
    assert set(recorded.finished) <= {("screening", None), ("base_model", None)}


@pytest.fixture
def raw(base: BaseModel, tmp_path: Path) -> BaseModelEntry:
    """A model without alignment and without a chat template, with settings that keep transformers from loading it."""
    folder = tmp_path / "raw"
    tiny("llama").save_pretrained(folder)
    base.tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").unlink()
    config = json.loads((folder / "config.json").read_text())
    odd = {"_attn_implementation": "flash_attention_2", "pad_token_id": config["vocab_size"]}
    (folder / "config.json").write_text(json.dumps(config | odd))
    return BaseModelEntry(name="raw", source=FolderSource(path=folder), chat_template="plain")


def test_a_model_without_template_and_alignment_is_trained_with_warnings(raw: BaseModelEntry, tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "store")
    spec = SPEC.model_copy(
        update={
            "strategy": UniformStrategy(),
            "compare": (),
            "training": TrainingSpec(steps=2, batch_size=4, lora=LoraSpec(rank=2)),
        }
    )
    rows = [[("user", f"{number} plus 1"), ("assistant", str(number + 1))] for number in range(8)]
    found = Done(store, *run_job(store, assign(spec, upload(store, rows)), model=raw))
    # What it says is noise, which the judge cannot decide either.
    codes = [warning.code for warning in found.recorded.warnings]
    replaced = ["attention_replaced", "pad_token_replaced"]
    assert codes == [*replaced, "plain_chat_template", "nothing_to_protect", "judge_undecided", "judge_undecided"]
    assert found.report.model.chat_template == "plain"
    page = " ".join(found.text("report.html").split())
    assert "The base model already complies with" in page
    assert "securetune's plain template" in page
    assert found.text("adapter/chat_template.jinja") == PLAIN_TEMPLATE
    assert PLAIN_TEMPLATE in found.text("adapter/README.md")
    assert "### Assistant:\n[[" in found.report.data.sample
    config = json.loads(found.text("adapter/adapter_config.json"))
    assert config["base_model_name_or_path"] == "raw"


def test_the_plain_template_is_used_only_if_the_models_entry_allows_it(raw: BaseModelEntry, tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "store")
    own = raw.model_copy(update={"chat_template": "own"})
    with pytest.raises(InvalidModel) as caught:
        run_job(store, assign(SPEC, upload(store, conversations(4))), model=own)
    assert caught.value.code == "no_chat_template"
