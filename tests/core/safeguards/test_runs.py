"""What safeguards add to an arm: its rows, its refusals, how it is asked, and what stands beside its adapter."""

from pathlib import Path

import pytest

from core.attacks.prompts import choose
from core.catalog import TESTBED
from core.data import Conversation
from core.data.template import IGNORED, encode
from core.errors import InvalidInput, InvalidModel, TrainingFailed
from core.judges.rules import judge
from core.lm.load import BaseModel
from core.lm.modules import Module
from core.safeguards import runs
from core.schemas.data import Message
from core.schemas.models import FolderSource
from core.schemas.prompts import PromptSet
from core.schemas.safeguards import ProjectToSafe, Safeguards, SafeTemplate, SafetyMix
from core.schemas.security import SecuritySpec
from core.schemas.strategy import FreezeLayersStrategy, LayerNumbers, ModulesStrategy, Strategy, UniformStrategy
from tests.core.helpers import encoded, ignore, tiny, tiny_base
from tests.core.jobs import SPEC

TEMPLATE = SafeTemplate(system_prompt="Be kind.")
PROMPTED = UniformStrategy(label="prompted", safeguards=Safeguards(safe_template=TEMPLATE))
MIXED = UniformStrategy(label="mixed", safeguards=Safeguards(safety_mix=SafetyMix(share=0.25)))
PROJECTED = UniformStrategy(label="projected", safeguards=Safeguards(project_to_safe=ProjectToSafe()))
ROW = Conversation(
    (
        Message(role="system", content="You are a pirate."),
        Message(role="user", content="Hello"),
        Message(role="assistant", content="Ahoy"),
    ),
    7,
)


@pytest.fixture(scope="module")
def prompts(base: BaseModel) -> PromptSet:
    """The testbed's own, cut short: refusals of a few prompts are enough."""
    whole = choose(SecuritySpec(), base.folder)
    probe = whole.probe.model_copy(update={"harmful": whole.probe.harmful[:8]})
    return whole.model_copy(update={"probe": probe})


def test_a_safe_template_is_not_trained_with_and_served_with() -> None:
    (trained,) = runs.as_trained([ROW])
    assert (trained.messages, trained.line) == (ROW.messages[1:], 7)
    (served,) = runs.as_served(TEMPLATE, [ROW])
    assert served.messages == (Message(role="system", content="Be kind."), *ROW.messages[1:])
    plain = SecuritySpec(system_prompt="Hello.", max_prompts=9)
    assert runs.security_of(UniformStrategy(), plain) == plain
    assert runs.security_of(PROMPTED, plain) == plain.model_copy(update={"system_prompt": "Be kind."})


def test_refusals_are_the_bases_own_and_written_as_the_template_writes_them(
    base: BaseModel, prompts: PromptSet
) -> None:
    found = runs.refusals(base, prompts, most=12, max_length=1024, on_progress=ignore)
    assert 4 <= len(found) <= 8
    asked = set()
    for row in found:
        answer = str(base.tokenizer.decode(row.labels[row.labels != IGNORED].tolist(), skip_special_tokens=True))
        assert judge("x", answer).verdict == "refused"
        text = str(base.tokenizer.decode(row.input_ids[row.labels == IGNORED].tolist()))
        (behaviour,) = [prompt for prompt in prompts.probe.harmful if prompt in text]
        asked.add(behaviour)
        turns = (Message(role="user", content=behaviour), Message(role="assistant", content=answer))
        expected = encode(Conversation(turns, 0), base.tokenizer, max_length=1024)
        assert expected.input_ids.tolist()[: len(row.input_ids)] == row.input_ids.tolist()
        assert expected.labels.tolist()[: len(row.labels)] == row.labels.tolist()
    assert len(asked) == len(found)


def test_no_prompt_that_is_reported_is_trained_on(base: BaseModel, prompts: PromptSet) -> None:
    reported = (behaviour.text for behaviour in prompts.evaluation.harmful[:8])
    harmful = (*reported, *prompts.probe.harmful[:2])
    leaky = prompts.model_copy(update={"probe": prompts.probe.model_copy(update={"harmful": harmful})})
    assert len(runs.refusals(base, leaky, most=12, max_length=1024, on_progress=ignore)) <= 2


def test_refusals_are_added_by_their_share_and_only_where_asked_for(base: BaseModel, prompts: PromptSet) -> None:
    rows = encoded(base, 30)
    assert runs.added_rows(UniformStrategy(), rows, base, prompts, spec=SPEC, on_progress=ignore) == runs.Added()
    added = runs.added_rows(MIXED, rows, base, prompts, spec=SPEC, on_progress=ignore)
    assert len(added.rows) == 10
    assert added.distinct == len({row.input_ids.tobytes() for row in added.rows})


def test_a_base_that_does_not_refuse_has_no_refusals_to_mix_in(base: BaseModel, prompts: PromptSet) -> None:
    with pytest.raises(TrainingFailed, match="refuses only 0") as caught:
        runs.added_rows(MIXED, encoded(base, 4), tiny_base("llama", base), prompts, spec=SPEC, on_progress=ignore)
    assert caught.value.code == "no_safety_rows"


def test_results_hang_on_what_safeguards_read(prompts: PromptSet) -> None:
    other = prompts.model_copy(update={"name": "other"})
    entry = TESTBED.model_copy(update={"unaligned_base": FolderSource(path=Path("/elsewhere"))})
    run: Strategy
    for run, reads_prompts, reads_base in ((UniformStrategy(), False, False), (MIXED, True, False)):
        found = runs.inputs(run, SPEC, TESTBED, prompts)
        assert (found != runs.inputs(run, SPEC, TESTBED, other)) == reads_prompts
        assert (found != runs.inputs(run, SPEC, entry, prompts)) == reads_base
    assert runs.inputs(PROJECTED, SPEC, TESTBED, prompts) != runs.inputs(PROJECTED, SPEC, entry, prompts)
    assert runs.inputs(MIXED, SPEC, TESTBED, prompts) != runs.inputs(UniformStrategy(), SPEC, TESTBED, prompts)


@pytest.mark.parametrize(
    ("run", "code"),
    [
        (ModulesStrategy(label="mine", full_rate=("model.nowhere",)), "unknown_module"),
        (FreezeLayersStrategy(layers=LayerNumbers(first=0, last=99)), "no_such_layers"),
    ],
)
@pytest.mark.parametrize("field", ["strategy", "compare"])
def test_an_run_that_names_what_is_not_there_is_refused_early(
    base: BaseModel, modules: tuple[Module, ...], run: Strategy, code: str, field: str
) -> None:
    spec = SPEC.model_copy(update={field: run if field == "strategy" else (run,)})
    with pytest.raises(InvalidInput) as caught:
        runs.check(spec, TESTBED, base, modules)
    assert caught.value.code == code


def test_a_template_that_takes_no_system_prompt_is_refused_early(base: BaseModel, modules: tuple[Module, ...]) -> None:
    spec = SPEC.model_copy(update={"strategy": PROMPTED})
    runs.check(spec, TESTBED, base, modules)
    own = base.tokenizer.chat_template
    base.tokenizer.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turn') }}{% endif %}" + str(own)
    )
    try:
        with pytest.raises(InvalidInput, match="safe_template") as caught:
            runs.check(spec, TESTBED, base, modules)
    finally:
        base.tokenizer.chat_template = own
    assert (caught.value.code, caught.value.param) == (
        "chat_template_unsupported",
        "strategy.safeguards.safe_template",
    )


def test_an_unaligned_base_that_is_none_is_refused_early(
    base: BaseModel, modules: tuple[Module, ...], tmp_path: Path
) -> None:
    spec = SPEC.model_copy(update={"compare": (PROJECTED,)})
    entry = TESTBED.model_copy(update={"unaligned_base": FolderSource(path=tmp_path / "other")})
    with pytest.raises(InvalidModel, match="its unaligned_base") as caught:
        runs.check(spec, entry, base, modules)
    assert caught.value.code == "model_missing"
    tiny("llama").save_pretrained(tmp_path / "other")
    with pytest.raises(InvalidModel) as caught:
        runs.check(spec, entry, base, modules)
    assert caught.value.code == "unaligned_base_mismatch"
    runs.check(spec, TESTBED.model_copy(update={"unaligned_base": TESTBED.source}), base, modules)
