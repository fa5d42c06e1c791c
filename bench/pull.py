"""Where rows that comply with harm stand in the ranking by pull, among a world's own rows.

Covers: worlds of the testbed, each with rows planted among its tuning set: harmful requests answered in the model's
own style, in the tuning set's, and refused. Not here: what leaving rows out does to a tuned model (python -m
experiments pull, poisoning).
"""

from typing import Annotated

import typer

from bench.figures import Figures, benchmark
from core.spec.screening import ScreeningPolicy
from experiments.lab import parted
from experiments.pull import ranked
from experiments.ranking import placed
from experiments.worlds import world_folder
from testbed.world import make_world


def main(
    *,
    worlds: Annotated[str, typer.Option(help="Worlds, with commas between; each is built if it is not kept.")] = "0",
    rows: Annotated[int, typer.Option(help="Ordinary rows, at most.")] = 2000,
) -> None:
    """For each kind of planted rows: AUROC, and the per cent of them that pull as the top share of the others does."""
    with benchmark("pull") as figures:
        for world in map(int, worlds.split(",")):
            figures[f"world {world}"] = _world(world, rows)


def _world(seed: int, most: int) -> Figures:
    folder = world_folder(seed)
    rows = parted(folder / "data" / "instructions.jsonl")[0][:most]
    ordinary, planted, seconds = ranked(folder, make_world(seed), rows)
    share = ScreeningPolicy().pull_share
    kinds = {kind: placed(ordinary, each, share).model_dump() for kind, each in planted.items()}
    return {"rows": len(rows), "seconds": round(seconds, 1), **kinds}


if __name__ == "__main__":
    typer.run(main)
