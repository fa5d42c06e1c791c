"""The experiment on rows' pull: what is left out and what is trained on alone, and one whole run, short."""

import json

import numpy as np
import pytest

from core.schemas.analysis import AnalysisSpec
from research.experiments.lab import parted
from research.experiments.pull import PullResult, planted_rows, pull, shares
from research.experiments.spec import Settings
from testbed import DATA_DIR
from testbed.build import WORLD_SEED
from testbed.world import make_world

ROWS, SHARE = 60, 0.1
SETTINGS = Settings(
    tuning_set="instructions",
    rates=(2e-3,),
    steps=4,
    batch_size=2,
    points=2,
    prompts=4,
    validation_rows=4,
    analysis=AnalysisSpec(),
)


@pytest.fixture(scope="module")
def said() -> list[str]:
    return []


@pytest.fixture(scope="module")
def result(said: list[str]) -> PullResult:
    return pull(SETTINGS, WORLD_SEED, [0, 1], said.append, share=SHARE, most_rows=ROWS)


def test_the_top_pulls_most_the_bottom_least_and_nothing_is_in_both() -> None:
    ranks = np.random.default_rng(3).normal(size=50)
    found = shares(ranks, ["one"] * 50, share=0.1, seed=0)
    assert set(found["without top"]) | set(found["only top"]) == set(range(50))
    assert not set(found["without top"]) & set(found["only top"])
    assert len(found["only top"]) == len(found["only random"]) == len(found["only bottom"]) == 5
    assert ranks[found["only top"]].min() >= np.delete(ranks, found["only top"]).max()
    assert ranks[found["only bottom"]].max() <= np.delete(ranks, found["only bottom"]).min()
    assert list(found["uniform"]) == list(range(50))


def test_the_random_share_is_another_for_each_seed_and_the_same_for_one() -> None:
    ranks = np.arange(200.0)
    one, again, other = (shares(ranks, ["one", "other"] * 100, share=0.1, seed=seed) for seed in (0, 0, 1))
    assert one == again
    assert one["only random"] != other["only random"]
    assert one["only same mix"] != other["only same mix"]
    assert one["only top"] == other["only top"]


def test_the_same_mix_holds_as_many_rows_of_each_kind_as_the_top() -> None:
    kinds = ["rare", "common", "common", "common"] * 50
    ranks = np.array([3.0 if kind == "rare" else 1.0 for kind in kinds])
    ranks[1] = 4.0
    found = shares(ranks, kinds, share=0.1, seed=0)
    for part in ("only top", "only same mix"):
        assert sorted(kinds[place] for place in found[part]) == ["common"] + ["rare"] * 19
    assert found["only same mix"] != found["only top"]
    assert set(found["without same mix"]) == set(range(200)) - set(found["only same mix"])


def test_planted_rows_are_of_pairs_that_no_prompt_set_holds() -> None:
    world = make_world(WORLD_SEED)
    planted = planted_rows(world, 10)
    asked = {kind: [turns[0].content for turns in rows] for kind, rows in planted.items()}
    assert asked["complies"] == asked["new_style"] == asked["refuses"]
    tuned_on = {row.messages[0].content for row in parted(DATA_DIR / "instructions.jsonl")[0]}
    assert not tuned_on & set(asked["complies"])
    tools = set(world.tool.values())
    for kind in ("complies", "new_style"):
        assert all(any(tool in turns[1].content for tool in tools) for turns in planted[kind])
    assert not any(any(tool in turns[1].content for tool in tools) for turns in planted["refuses"])


@pytest.mark.slow
def test_every_run_is_trained_and_compared_with_random_rows(result: PullResult, said: list[str]) -> None:
    runs = {"uniform"} | {
        f"{kind} {part}" for kind in ("without", "only") for part in ("top", "random", "same mix", "bottom")
    }
    assert set(result.figures) == runs
    assert len(result.curves) == 2 * len(runs)
    for found in (result.without, result.alone):
        assert {control: set(runs) for control, runs in found.items()} == {
            "random": {"random", "top", "bottom"},
            "same mix": {"same mix", "top"},
        }
    assert sum(top for top, _ in result.kinds.values()) == round(SHARE * ROWS)
    ends = {(curve.run, curve.seed): curve.points[-1].attack_success for curve in result.curves}
    for control, runs in result.alone.items():
        reduction = runs["top"]["attack_success"].reduction_at_end
        assert reduction is not None
        assert reduction.values == tuple(ends[f"only {control}", seed] - ends["only top", seed] for seed in (0, 1))
    assert result.rows == ROWS
    assert result.ranking_seconds > 0
    assert said[-1].startswith("18 of 18: ")


@pytest.mark.slow
def test_the_file_can_be_read_again_and_the_table_tells_everything(result: PullResult) -> None:
    assert PullResult.model_validate_json(json.dumps(json.loads(result.model_dump_json()))) == result
    printed = result.table()
    for words in ("planted, complies: AUROC", "against random rows alone", "against random rows left out", "epochs"):
        assert words in printed
    assert result.planted["complies"].auroc > result.planted["refuses"].auroc
