"""What is filled into an order, and which orders make no sense."""

from pathlib import Path

import pytest

from core.catalog import Catalog
from core.errors import InvalidInput, InvalidModel
from core.orders.check import complete
from core.schemas.job import JobSpec
from core.schemas.judges import JudgeEntry
from core.schemas.models import BaseModelEntry, FolderSource, HubSource
from core.schemas.strategy import RECOMMENDED

DATASET, OTHER = "ds_" + "a" * 24, "ds_" + "b" * 24
PRETRAINED = HubSource(id="org/pretrained", revision="1" * 40)
BASE = HubSource(id="org/model", revision="0" * 40)
LISTED = Catalog(
    models={
        "pair": BaseModelEntry(name="pair", source=BASE, unaligned_base=PRETRAINED),
        "plain": BaseModelEntry(name="plain", source=BASE, learning_rate=3e-4, description="One."),
    },
    judges={"house": JudgeEntry(name="house", source=FolderSource(path=Path("/models/house")))},
)


def order(**fields: object) -> JobSpec:
    return JobSpec.model_validate({"base_model": "plain", "dataset": DATASET} | fields)


def test_defaults_that_hang_on_the_model_are_filled_in() -> None:
    training = complete(order(), LISTED).training
    assert (training.learning_rate, training.epochs, training.steps) == (3e-4, 3.0, None)


def test_a_full_run_takes_a_tenth_of_an_adapters_rate() -> None:
    assert complete(order(training={"method": "full"}), LISTED).training.learning_rate == pytest.approx(3e-5)
    assert complete(order(training={"method": "full", "learning_rate": 0.5}), LISTED).training.learning_rate == 0.5


def test_what_was_said_stays() -> None:
    asked = order(training={"learning_rate": 1e-5, "steps": 7}, security={"max_prompts": 9})
    filled = complete(asked, LISTED)
    assert (filled.training.learning_rate, filled.training.epochs, filled.training.steps) == (1e-5, None, 7)
    assert filled == asked
    assert complete(order(training={"epochs": 0.5}), LISTED).training.epochs == 0.5


def test_a_completed_order_is_complete_and_valid() -> None:
    filled = complete(order(), LISTED)
    assert complete(filled, LISTED) == filled == JobSpec.model_validate(filled.model_dump(mode="json"))


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"training": {"lora": {"targets": ["q", "v", "q"]}}}, "training.lora.targets"),
        ({"training": {"lora": {"targets": ["q_proj"]}}}, "training.lora.targets"),
        ({"security": {"system_prompt": "a\0b"}}, "security.system_prompt"),
        ({"validation_dataset": DATASET}, "validation_dataset"),
    ],
)
def test_orders_that_make_no_sense(fields: dict[str, object], param: str) -> None:
    with pytest.raises(InvalidInput, match=param) as caught:
        complete(order(**fields), LISTED)
    assert (caught.value.param, caught.value.code) == (param, "invalid_parameter")


def test_orders_that_make_sense() -> None:
    complete(order(training={"lora": {"targets": ["q", "down"]}}, validation_dataset=OTHER), LISTED)
    complete(order(training={"lora": {"targets": ["in_proj"]}}), LISTED)


PROJECTING = {"kind": "uniform", "safeguards": {"project_to_safe": {"threshold": 0.5}}}
NEAR = {"kind": "uniform", "label": "near", "safeguards": {"kl_to_base": {"rows": "own"}}}
HELD = {"kind": "uniform", "label": "held", "safeguards": {"constrained_first_tokens": {"tokens": 5}}}


def test_a_projection_needs_the_model_that_the_base_was_aligned_from() -> None:
    complete(order(base_model="pair", strategy=PROJECTING), LISTED)
    for fields in ({"strategy": PROJECTING}, {"compare": [PROJECTING]}):
        with pytest.raises(InvalidModel, match="unaligned_base") as caught:
            complete(order(**fields), LISTED)
        assert (caught.value.code, caught.value.param) == ("no_unaligned_base", "base_model")


@pytest.mark.parametrize("run", [PROJECTING, HELD, NEAR])
def test_safeguards_that_work_on_an_adapter_do_not_go_with_a_full_run(run: dict[str, object]) -> None:
    with pytest.raises(InvalidInput, match="adapter") as caught:
        complete(order(base_model="pair", compare=[run], training={"method": "full"}), LISTED)
    assert (caught.value.code, caught.value.param) == ("safeguard_needs_adapter", "training.method")
    complete(order(base_model="pair", compare=[run], training={"method": "qlora"}), LISTED)


def test_what_is_recommended_goes_with_every_method() -> None:
    for method in ("lora", "qlora", "full"):
        assert complete(order(training={"method": method}), LISTED).strategy == RECOMMENDED


def test_safe_weights_and_early_stopping_do_not_both_choose_the_weights() -> None:
    run: dict[str, object] = {"kind": "uniform", "label": "kept"}
    kept = run | {"safeguards": {"keep_safe_weights": {"max_refusal_drift": 1}}}
    moved = run | {"safeguards": {"average_weights": {"decay": 0.9}, "scale_update": {"factor": 0.5}}}
    training = {"validate_every": 5, "patience": 2}
    with pytest.raises(InvalidInput, match="keep_safe_weights") as caught:
        complete(order(compare=[kept], training=training), LISTED)
    assert (caught.value.code, caught.value.param) == ("safeguard_excludes_patience", "training.patience")
    complete(order(compare=[kept], training={"validate_every": 5}), LISTED)
    complete(order(compare=[moved], training=training | {"method": "full"}), LISTED)


def test_models_that_are_not_allowed_or_not_safe(tmp_path: Path) -> None:
    with pytest.raises(InvalidModel) as caught:
        complete(order(base_model="gpt-4"), LISTED)
    assert (caught.value.code, caught.value.param) == ("model_not_allowed", "base_model")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    pickled = BaseModelEntry(name="pickled", source=FolderSource(path=tmp_path))
    with pytest.raises(InvalidModel) as caught:
        complete(order(base_model="pickled"), Catalog(models={"pickled": pickled}))
    assert caught.value.code == "unsafe_checkpoint"


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"security": {"judges": [{"kind": "rubric", "model": "none"}]}}, "unknown_judge", "security.judges"),
        (
            {"security": {"judges": [{"kind": "classifier", "model": "house"}]}},
            "judge_protocol_mismatch",
            "security.judges",
        ),
        ({"security": {"prompts": {"harmful": "none"}}}, "unknown_prompt_set", "security.prompts"),
        (
            {"quality": {"tasks": [{"kind": "multiple_choice", "benchmark": "none"}]}},
            "unknown_benchmark",
            "quality.tasks",
        ),
    ],
)
def test_what_judges_and_measures_must_be_listed(fields: dict[str, object], code: str, param: str) -> None:
    with pytest.raises(InvalidInput, match=param) as caught:
        complete(order(**fields), LISTED)
    assert (caught.value.code, caught.value.param) == (code, param)
    complete(order(security={"judges": [{"kind": "strongreject", "model": "house"}]}), LISTED)
