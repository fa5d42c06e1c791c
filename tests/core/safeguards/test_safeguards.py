"""Safeguards of a run are applied in order: rows, loss, system prompts and early checks."""

from dataclasses import replace
from pathlib import Path

import pytest

from core import safeguards
from core.attacks.prompts import choose_prompts
from core.catalog import TESTBED
from core.data import Conversation
from core.errors import InvalidModel, TrainingFailed
from core.lm.load import BaseModel
from core.lm.modules import Module
from core.safeguards import SafeguardContext
from core.safeguards.base_answers import BaseAnswers
from core.schemas.data import Message
from core.schemas.models import FolderSource
from core.schemas.prompts import PromptSet
from core.schemas.safeguards import ConstrainedFirstTokens, ProjectToSafe, Safeguards, SafeTemplate, SafetyMix
from core.schemas.security import SecuritySpec
from core.schemas.strategy import Strategy, UniformStrategy
from core.training.loop import next_token_loss
from tests.core.helpers import encoded, ignore, tiny, tiny_base
from tests.core.jobs import SPEC

TEMPLATE = SafeTemplate(system_prompt="Be kind.")
PROMPTED = UniformStrategy(label="prompted", safeguards=Safeguards(TEMPLATE))
MIXED = UniformStrategy(label="mixed", safeguards=Safeguards(SafetyMix(share=0.25)))
PROJECTED = UniformStrategy(label="projected", safeguards=Safeguards(ProjectToSafe()))
ROW = Conversation(
    (
        Message(role="system", content="You are a pirate."),
        Message(role="user", content="Hello"),
        Message(role="assistant", content="Ahoy"),
    ),
    7,
)


def context(base: BaseModel, modules: tuple[Module, ...] = (), *, prompts: PromptSet | None = None) -> SafeguardContext:
    chosen = prompts or choose_prompts(SecuritySpec(), base.folder)
    return SafeguardContext(SPEC, TESTBED, base, modules, chosen, BaseAnswers(base))


def test_a_safe_template_is_used_in_evaluation_and_not_in_training() -> None:
    (trained,) = safeguards.training_rows(PROMPTED, [ROW])
    assert (trained.messages, trained.line) == (ROW.messages[1:], 7)
    (served,) = safeguards.served_rows(PROMPTED, [ROW])
    assert served.line == 7
    assert served.messages == (Message(role="system", content="Be kind."), *ROW.messages[1:])
    plain = SecuritySpec(system_prompt="Hello.", max_prompts=9)
    assert safeguards.security_of(UniformStrategy(), plain) == plain
    assert safeguards.security_of(PROMPTED, plain) == plain.model_copy(update={"system_prompt": "Be kind."})


def test_refusals_are_added_in_the_requested_share_and_only_on_request(base: BaseModel, prompts: PromptSet) -> None:
    rows = encoded(base, 30)
    job = context(base, prompts=prompts)
    assert safeguards.extra_rows(UniformStrategy(), job, rows, ignore) == ()
    (added,) = safeguards.extra_rows(MIXED, job, rows, ignore)
    assert len(added.rows) == 10
    different = len({row.input_ids.tobytes() for row in added.rows})
    assert added.effect.counts == {"rows": 10, "distinct_rows": different}
    assert added.effect.summary == f"10 safety rows mixed in, {different} of them different"


def test_rows_that_no_safeguard_changes_are_the_same_object() -> None:
    rows, plain = [ROW], [Conversation(ROW.messages[1:], 7)]
    assert safeguards.training_rows(MIXED, rows) is rows
    assert safeguards.served_rows(MIXED, rows) is rows
    assert safeguards.training_rows(PROMPTED, plain) is plain


def test_a_run_without_a_safeguard_for_the_loss_has_the_usual_objective(base: BaseModel) -> None:
    assert safeguards.objective(MIXED, context(base), ignore) == (next_token_loss, ())
    constrained = UniformStrategy(safeguards=Safeguards(ConstrainedFirstTokens()))
    objective, effects = safeguards.objective(constrained, context(base), ignore)
    assert objective is not next_token_loss
    assert effects == ()


def test_a_base_model_that_does_not_refuse_fails_the_training(base: BaseModel, prompts: PromptSet) -> None:
    job = context(tiny_base("llama", base), prompts=prompts)
    with pytest.raises(TrainingFailed, match="refuses only 0") as caught:
        safeguards.extra_rows(MIXED, job, encoded(base, 4), ignore)
    assert caught.value.code == "no_safety_rows"
    going_on = UniformStrategy(safeguards=Safeguards(SafetyMix(on_too_few="skip")))
    (nothing,) = safeguards.extra_rows(going_on, job, encoded(base, 4), ignore)
    assert (nothing.rows, nothing.effect.counts) == ((), {"rows": 0})
    assert nothing.effect.summary.startswith("nothing: the base model refuses 0")


def test_inputs_change_with_what_a_safeguard_uses(base: BaseModel, prompts: PromptSet) -> None:
    job = context(base, prompts=prompts)
    other = prompts.model_copy(update={"name": "other"})
    entry = TESTBED.model_copy(update={"unaligned_base": FolderSource(path=Path("/elsewhere"))})
    run: Strategy
    for run, reads_prompts, reads_base in ((UniformStrategy(), False, False), (MIXED, True, False)):
        found = safeguards.inputs(run, job)
        assert (found != safeguards.inputs(run, replace(job, prompts=other))) == reads_prompts
        assert (found != safeguards.inputs(run, replace(job, entry=entry))) == reads_base
    assert safeguards.inputs(PROJECTED, job) != safeguards.inputs(PROJECTED, replace(job, entry=entry))
    assert safeguards.inputs(MIXED, job) != safeguards.inputs(UniformStrategy(), job)
    bare = UniformStrategy(label="mixed", safeguards=Safeguards(SafetyMix(share=0.25, framings=0)))
    assert safeguards.inputs(MIXED, job) != safeguards.inputs(bare, job)


def test_an_unusable_unaligned_base_is_rejected_early(
    base: BaseModel, modules: tuple[Module, ...], tmp_path: Path
) -> None:
    entry = TESTBED.model_copy(update={"unaligned_base": FolderSource(path=tmp_path / "other")})
    job = replace(context(base, modules), entry=entry)
    with pytest.raises(InvalidModel, match="its unaligned_base") as caught:
        safeguards.check(PROJECTED, job)
    assert caught.value.code == "model_missing"
    tiny("llama").save_pretrained(tmp_path / "other")
    with pytest.raises(InvalidModel) as caught:
        safeguards.check(PROJECTED, job)
    assert caught.value.code == "unaligned_base_mismatch"
    safeguards.check(PROJECTED, replace(job, entry=TESTBED.model_copy(update={"unaligned_base": TESTBED.source})))
