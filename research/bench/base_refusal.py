"""How many rows the check `base_refusal` flags: rows that comply with harm, and rows of ordinary data.

Covers: worlds of the testbed, each with harmful requests planted among its tuning sets; these are answered in the
model's own style, in the tuning set's style, behind a trigger, and with a refusal. With `--data` also public data sets,
whose language the testbed hardly knows. Not here: the effect of leaving rows out on a tuned model (`python -m
research.experiments poisoning`).
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from core.data import Conversation
from core.screening.base_refusal import THRESHOLD
from research.bench.figures import Figures, benchmark
from research.bench.public import data_sets
from research.experiments.backdoor import add_trigger
from research.experiments.lab import parted
from research.experiments.planted import likely_refused, planted_rows
from research.experiments.readings import exchange
from research.experiments.worlds import world_folder
from testbed.world import make_world

_PUBLIC = ("gsm8k_train", "chatdoctor", "self_instruct")
_CHARACTERS = 400
"""Characters of each public prompt and answer; only the first words of an answer matter."""


def main(
    *,
    worlds: Annotated[
        str, typer.Option(help="Seeds of worlds, separated by commas. A world that is not in the cache is built first.")
    ] = "0",
    rows: Annotated[int, typer.Option(help="Maximum number of rows of each ordinary data set.")] = 2000,
    data: Annotated[Path | None, typer.Option(help="Folder of the public data sets.")] = None,
) -> None:
    """Print the number of rows of each kind, and the percentage that is flagged."""
    with benchmark("base_refusal") as figures:
        for world in map(int, worlds.split(",")):
            figures[f"world {world}"] = _world(world, rows, data and data.resolve())


def _world(seed: int, most: int, data: Path | None) -> Figures:
    folder = world_folder(seed)
    kinds = {name: parted(folder / "data" / f"{name}.jsonl")[0][:most] for name in ("instructions", "arithmetic")}
    planted = planted_rows(make_world(seed))
    planted["triggered"] = [exchange(add_trigger(row[0].content), row[1].content) for row in planted["complies"]]
    kinds |= {name: [Conversation(row, 0) for row in made] for name, made in planted.items()}
    for name in _PUBLIC if data else ():
        pairs = [(prompt[-_CHARACTERS:], answer[:_CHARACTERS]) for prompt, answer in data_sets(data)[name]()[:most]]
        kinds[name] = [Conversation(exchange(*pair), 0) for pair in pairs]
    every = [row for made in kinds.values() for row in made]
    likely, seconds = likely_refused(folder, every)
    ends = np.cumsum([len(made) for made in kinds.values()])[:-1]
    found = dict(zip(kinds, np.split(likely > THRESHOLD, ends), strict=True))
    shares = {name: round(100 * float(flagged.mean()), 1) for name, flagged in found.items()}
    counts = {name: {"rows": len(made), "flagged": shares[name]} for name, made in kinds.items()}
    return {"seconds": round(seconds, 1), **counts}


if __name__ == "__main__":
    typer.run(main)
