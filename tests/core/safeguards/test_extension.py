"""A safeguard added from outside, with one class of options, one class and one registration, works in every part."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from peft import PeftModel
from pydantic import Field, ValidationError
from safetensors.torch import load_file
from transformers import PreTrainedModel
from typing_extensions import override

from core import safeguards
from core.catalog import TESTBED, Catalog
from core.data.encoded import Encoded
from core.errors import InvalidInput
from core.orders.check import complete
from core.safeguards import ExtraRows, Safeguard, SafeguardContext
from core.schemas.evaluation import Answer
from core.schemas.job import JobSpec
from core.schemas.progress import OnProgress
from core.schemas.results import Report, SafeguardEffect, TrainingResult
from core.schemas.safeguards import SafeguardOptions
from core.storage import ArtifactStore
from tests.core.helpers import conversations
from tests.core.jobs import SPEC, artifact_keys, assign, run_job, upload

PROMPT = "Answer in one sentence."


class ShrinkOptions(SafeguardOptions):
    """Makes the trained update smaller, and repeats the first rows."""

    name: ClassVar[str] = "shrink"

    factor: float = Field(default=0.5, gt=0, lt=1)
    """Factor on the update, above 0 and below 1."""
    repeat: int = Field(default=2, ge=0)
    """How many rows are repeated, 0 or more."""

    @property
    @override
    def needs_adapter(self) -> bool:
        return True

    @property
    @override
    def title(self) -> str:
        return f"shrink x{self.factor:g}"

    @property
    @override
    def serving_system_prompt(self) -> str | None:
        return PROMPT

    @property
    @override
    def serving_note(self) -> str | None:
        return "Its update was made smaller."


class Shrink(Safeguard[ShrinkOptions]):
    """Multiplies B of every adapter."""

    options_class = ShrinkOptions

    @override
    def check(self, context: SafeguardContext) -> None:
        if self.options.factor < 0.1:
            raise InvalidInput("The factor is too small.", code="too_small", param="strategy.safeguards.shrink")

    @override
    def extra_rows(self, context: SafeguardContext, rows: Sequence[Encoded], on_progress: OnProgress) -> ExtraRows:
        added = tuple(rows[: self.options.repeat])
        return ExtraRows(added, SafeguardEffect(safeguard="shrink", summary=f"{len(added)} rows repeated"))

    @override
    def after_training(self, context: SafeguardContext, tuned: PeftModel | PreTrainedModel) -> SafeguardEffect:
        shrunk = [parameter for name, parameter in tuned.named_parameters() if ".lora_B." in name]
        with torch.no_grad():
            for parameter in shrunk:
                parameter.mul_(self.options.factor)
        return SafeguardEffect(
            safeguard="shrink", summary=f"{len(shrunk)} updates made smaller", counts={"updates": len(shrunk)}
        )


@pytest.fixture
def shrink() -> Iterator[type[Shrink]]:
    yield safeguards.register(Shrink)
    safeguards.unregister(Shrink)


def order(**options: object) -> str:
    """A job as a client sends it: an ordinary run with the safeguard, and the same run without."""
    guarded = {"kind": "uniform", "label": "guarded", "safeguards": {"shrink": options, "safety_mix": None}}
    spec = SPEC.model_dump(mode="json") | {"strategy": guarded, "compare": [{"kind": "uniform"}]}
    return JobSpec.model_validate(spec).model_dump_json()


def weights(store: ArtifactStore, trained: TrainingResult) -> dict[str, torch.Tensor]:
    (file,) = [file for file in trained.adapter if file.name.endswith(".safetensors")]
    return load_file(store.path(file.key))


def test_a_safeguard_is_unknown_until_it_is_registered() -> None:
    with pytest.raises(ValidationError) as caught:
        order()
    assert [(error["loc"], error["type"]) for error in caught.value.errors()] == [
        (("strategy", "uniform", "safeguards", "shrink"), "extra_forbidden")
    ]
    assert "shrink" not in JobSpec.model_json_schema()["$defs"]["Safeguards"]["properties"]


def test_a_registered_safeguard_is_documented_and_its_options_are_validated(shrink: type[Shrink]) -> None:
    properties = JobSpec.model_json_schema()["$defs"]["Safeguards"]["properties"]
    assert list(properties) == [
        "safety_mix",
        "constrained_first_tokens",
        "project_to_safe",
        "safe_template",
        "kl_to_base",
        "self_distill",
        "answer_preview",
        "average_weights",
        "keep_safe_weights",
        "scale_update",
        shrink.options_class.name,
    ]
    assert properties["shrink"]["description"] == "Makes the trained update smaller, and repeats the first rows."
    with pytest.raises(ValidationError) as caught:
        order(factor=2)
    assert caught.value.errors()[0]["loc"] == ("strategy", "uniform", "safeguards", "shrink", "factor")


@pytest.mark.usefixtures("shrink")
def test_an_order_is_checked_by_what_the_options_declare() -> None:
    listed = Catalog(models={TESTBED.name: TESTBED})
    spec = JobSpec.model_validate_json(order())
    full = spec.model_copy(update={"training": spec.training.model_copy(update={"method": "full"})})
    with pytest.raises(InvalidInput, match="shrink") as caught:
        complete(full, listed)
    assert caught.value.code == "safeguard_needs_adapter"


@pytest.mark.usefixtures("shrink")
def test_a_job_applies_the_safeguard_and_its_report_and_card_name_it(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    spec = complete(JobSpec.model_validate_json(order(factor=0.25, repeat=0)), Catalog(models={TESTBED.name: TESTBED}))
    outcome, _ = run_job(store, assign(spec, upload(store, conversations(10))))
    files = {name: store.path(str(key)) for name, key in artifact_keys(outcome).items()}

    report = Report.model_validate_json(files["report.json"].read_bytes())
    guarded, plain = report.training
    assert [effect.summary for effect in guarded.safeguards] == ["0 rows repeated", "42 updates made smaller"]
    assert plain.safeguards == ()
    expected = {name: value * (0.25 if ".lora_B." in name else 1.0) for name, value in weights(store, plain).items()}
    found = weights(store, guarded)
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert any(bool(value.any()) for name, value in expected.items() if ".lora_B." in name)
    answers = [Answer.model_validate_json(line) for line in files["answers.jsonl"].read_text().splitlines()]
    assert {answer.messages[0].content for answer in answers if answer.run == "guarded"} == {PROMPT}
    assert PROMPT not in {answer.messages[0].content for answer in answers if answer.run != "guarded"}

    card = files["model_card.md"].read_text()
    assert "guarded: uniform + shrink x0.25" in card
    assert "Its update was made smaller." in card
    assert PROMPT in card
    assert "42 updates made smaller" in files["report.html"].read_text()


@pytest.mark.usefixtures("shrink")
def test_a_job_that_the_safeguard_rejects_ends_before_it_is_measured(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    with pytest.raises(InvalidInput) as caught:
        run_job(store, assign(JobSpec.model_validate_json(order(factor=0.01)), upload(store, conversations(10))))
    assert caught.value.code == "too_small"
    assert not list(store.root.rglob("shared/stages/before*"))


@pytest.mark.usefixtures("shrink")
def test_a_name_is_registered_once() -> None:
    other = type("Other", (ShrinkOptions,), {"__module__": __name__})
    with pytest.raises(ValueError, match="already registered"):
        safeguards.register(type("OtherShrink", (Shrink,), {"options_class": other}))
