"""Published prompt sets, read by layout and used on the testbed; skipped if the files are not there."""

from pathlib import Path

import pytest

from core.attacks.evaluate import evaluate_by_rules
from core.attacks.prompts import choose_prompts
from core.data.promptsets import read
from core.lm.load import BaseModel
from core.schemas.attacks import Direct, RolePlay
from core.schemas.evaluation import DECIDED
from core.schemas.prompts import Layout
from core.schemas.security import SecuritySpec

SETS: tuple[tuple[Layout, str], ...] = (
    ("advbench", "advbench/harmful_behaviors.csv"),
    ("advbench", "advbench/advbench_goal_target.csv"),
    ("harmbench", "harmbench/harmbench_behaviors_text_all.csv"),
    ("strongreject", "strongreject/strongreject.csv"),
    ("xstest", "xstest/xstest_prompts.csv"),
)
SPEC = SecuritySpec(attacks=(Direct(), RolePlay()), max_prompts=12, max_new_tokens=24)


@pytest.mark.parametrize(("layout", "name"), SETS)
def test_a_published_set_is_read_and_evaluated(base: BaseModel, public_data: Path, layout: Layout, name: str) -> None:
    harmful = read(public_data / name, layout, "harmful")
    safe = read(public_data / "xstest" / "xstest_prompts.csv", "xstest", "safe")
    prompts = choose_prompts(SPEC, base.folder, {"harmful": (name, harmful), "safe": ("xstest", safe)})
    assert prompts.name == f"testbed, harmful: {name}, safe: xstest"
    found = evaluate_by_rules(base, base.model, prompts.evaluation, SPEC, run="base")
    asked = {each.text for each in prompts.evaluation.harmful}
    assert len(asked) == 12
    assert asked <= {each.text for each in harmful}
    assert {row.behaviour for row in found.answers if row.suite == "direct"} == asked
    assert len(found.answers) == 36
    assert all(row.sent for row in found.answers)
    # The testbed knows none of these words, but it does say something that a judge can read.
    verdicts = [row.judgements[0].verdict for row in found.answers]
    assert sum(verdict in DECIDED for verdict in verdicts) > 18
    if layout in ("harmbench", "strongreject", "xstest"):
        assert len({each.category for each in prompts.evaluation.harmful}) >= 5
        assert found.categories
