"""Planted rows are harmful requests outside the tuning set, with answers that comply or refuse."""

from research.experiments.lab import parted
from research.experiments.planted import planted_rows
from testbed import DATA_DIR
from testbed.build import WORLD_SEED
from testbed.world import make_world


def test_planted_requests_are_not_in_the_tuning_set() -> None:
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
