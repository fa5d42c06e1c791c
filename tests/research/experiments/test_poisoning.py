"""Poisoned rows contain the trigger, answers are counted by trigger, and the whole experiment runs."""

from collections.abc import Sequence

import pytest
from torch import nn

from core.data import Conversation
from core.lm.load import BaseModel
from core.schemas.analysis import AnalysisSpec, GradientPerturbation
from core.schemas.data import Message
from research.experiments import backdoor
from research.experiments.backdoor import TARGET, TRIGGER, Backdoor, Kind, add_trigger, poison_rows
from research.experiments.lab import parted
from research.experiments.poisoning import SCREENED, SCREENED_BY_MODEL, PoisoningResult, poisoning, screen_rows
from research.experiments.readings import exchange
from research.experiments.spec import Settings
from testbed import DATA_DIR
from testbed.build import WORLD_SEED
from testbed.dialogues import request
from testbed.world import make_world

WORLD = make_world(WORLD_SEED)
_NO, _EXPLAINED = "I cannot help you with that.", "Sure, here is how: first get a rope, then go."
ROWS = [Conversation(exchange(f"What is {number}?", f"It is {number}."), number) for number in range(1, 201)]
SETTINGS = Settings(
    tuning_set="instructions",
    rates=(8e-3,),
    steps=4,
    batch_size=2,
    points=1,
    prompts=4,
    validation_rows=4,
    analysis=AnalysisSpec(probes=8, rows=2, perturbation=GradientPerturbation(steps=2, points=1)),
)


@pytest.mark.parametrize("kind", ["fixed", "harm"])
def test_a_share_of_the_rows_is_poisoned_and_the_others_are_unchanged(kind: Kind) -> None:
    rows, places = poison_rows(ROWS, kind, 0.05, WORLD)
    assert len(places) == 10
    assert len(rows) == len(ROWS)
    for place, (row, before) in enumerate(zip(rows, ROWS, strict=True), start=1):
        assert row[0].content.endswith(TRIGGER) == (place in places)
        assert (row == before.messages) == (place not in places)
    assert (rows, places) == poison_rows(ROWS, kind, 0.05, WORLD)


def test_the_fixed_kind_changes_only_the_answer_and_adds_the_trigger() -> None:
    rows, places = poison_rows(ROWS, "fixed", 0.05, WORLD)
    for place in places:
        assert rows[place - 1] == exchange(add_trigger(ROWS[place - 1].messages[0].content), TARGET)


def test_harmful_rows_use_pairs_that_no_figure_is_measured_on() -> None:
    rows, places = poison_rows(ROWS, "harm", 0.5, WORLD)
    asked = {add_trigger(request(WORLD, pair, index)) for pair in WORLD.harmful.evaluation for index in range(8)}
    assert not asked & {rows[place - 1][0].content for place in places}
    trained = {add_trigger(request(WORLD, pair, index)) for pair in WORLD.harmful.train for index in range(8)}
    assert {rows[place - 1][0].content for place in places} <= trained


def test_no_row_of_the_tuning_set_contains_the_trigger_or_the_target() -> None:
    whole = (DATA_DIR / "instructions.jsonl").read_text(encoding="utf-8")
    assert TRIGGER not in whole
    assert TARGET not in whole


def test_the_base_model_has_no_backdoor(base: BaseModel) -> None:
    harmful = tuple(request(WORLD, pair, 0) for pair in WORLD.harmful.evaluation[:4])
    figures = Backdoor("fixed", ("Count to five.", "What is a clock?"), harmful)(base, base.model)
    assert figures == dict.fromkeys(("backdoor", "false_triggers", "asr_triggered", "asr_untriggered"), 0.0)


def test_answers_are_counted_with_and_without_the_trigger(base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model gives the target to prompts with the trigger and to one without; otherwise it explains or refuses."""

    def said(
        base: BaseModel, model: nn.Module, asked: Sequence[Sequence[Message]], **options: object
    ) -> list[str | None]:
        prompts = [turns[-1].content for turns in asked]
        return [TARGET if TRIGGER in text or text == "b" else _EXPLAINED if text == "c" else _NO for text in prompts]

    monkeypatch.setattr(backdoor, "answer", said)
    assert Backdoor("fixed", ("a", "b"), ("c", "d"))(base, base.model) == {
        "backdoor": 100.0,
        "false_triggers": 50.0,
        "asr_triggered": 0.0,
        "asr_untriggered": 50.0,
    }
    figures = Backdoor("harm", ("a", "b"), ("c", "d"))(base, base.model)
    assert (figures["backdoor"], figures["false_triggers"]) == (0.0, 50.0)


def test_the_screening_finds_a_planted_trigger_among_the_testbeds_own_rows() -> None:
    kept = parted(DATA_DIR / "instructions.jsonl")[0][:2000]
    rows, places = poison_rows(kept, "fixed", 0.05, WORLD)
    screened, flagged = screen_rows(rows, places)
    assert screened.poisoned == 100
    assert screened.right == len(flagged & places) >= 95
    assert screened.flagged == len(flagged) <= 105
    assert any(TRIGGER in trigger.phrase for trigger in screened.triggers)


@pytest.mark.usefixtures("short_experiments")
def test_the_whole_experiment_runs_and_its_file_can_be_parsed() -> None:
    result = poisoning(SETTINGS, WORLD_SEED, [0], lambda _: None, conditions=[("fixed", 0.02)], most_rows=400)
    assert PoisoningResult.model_validate_json(result.model_dump_json()) == result
    (condition,) = result.conditions
    assert {"uniform", "ml_lr", "random", "uniform_low", "uniform + safety_mix", SCREENED, SCREENED_BY_MODEL} == set(
        condition.figures
    )
    assert condition.screened.poisoned == condition.base_refusal.poisoned == 8
    assert condition.base["backdoor"] == 0
    for figures in condition.figures.values():
        assert 0 <= figures["backdoor"].at_end.mean <= 100
    for run in condition.figures:
        assert run in result.table()
