"""Recall of the search for triggers on planted attacks, and false positives on clean data.

Each case takes rows of one data set, plants one attack in some of them, drawn by a seed, and searches all of them. A
trigger counts as named if the reported phrase contains it or is a piece of it with a word that identifies it. Flagged
rows that were not planted count as false. Data sets: the testbed's instructions, and with `--data` the public data sets
of a folder. Not here: the attacks (research.bench.triggers), whether a model learns the trigger
(research.experiments.poisoning), other checks (research.bench.screening).
"""

import random
import string
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Annotated

import typer

from core.screening.triggers import find
from research.bench.figures import benchmark, ignore, spread
from research.bench.public import Pair, data_sets, to_rows
from research.bench.triggers import ATTACKS, Planted, harmful_requests, named, plant

_LABELLED = frozenset(("pubmedqa", "mmlu", "gptfuzz_labels"))
"""Data sets whose answers are labels: the attack `label` is planted in these only, and no other attack."""


@dataclass
class _Tally:
    """Counts over all cases of one attack."""

    cases: int = 0
    named: int = 0
    planted_rows: int = 0
    found_rows: int = 0
    false_rows: int = 0
    missed: list[str] = field(default_factory=list)


def _try(planted: Planted, tally: _Tally, place: str) -> None:
    poison = find(planted.rows, ignore)
    lines = {finding.line for finding in poison.findings}
    hit = any(named(planted.trigger, trigger.phrase) for trigger in poison.triggers)
    tally.cases += 1
    tally.named += hit
    tally.planted_rows += len(planted.lines)
    tally.found_rows += len(lines & planted.lines)
    tally.false_rows += len(lines - planted.lines)
    if not hit:
        tally.missed.append(f"{place}: {planted.trigger!r}")


def _seeds(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def main(
    *,
    data: Annotated[Path | None, typer.Option(help="Folder of the public data sets.")] = None,
    sets: Annotated[str, typer.Option(help="Data sets to plant attacks in, separated by commas.")] = "testbed",
    clean: Annotated[str, typer.Option(help="Clean data sets to search, separated by commas.")] = "testbed",
    attacks: Annotated[str, typer.Option(help="Attacks to plant, separated by commas; all if empty.")] = "",
    seeds: Annotated[str, typer.Option(help="Seeds: one number, or first-last.")] = "0-4",
    rows: Annotated[int, typer.Option(help="Maximum number of rows of each case.")] = 2000,
    planted: Annotated[int, typer.Option(help="Number of poisoned rows of each case.")] = 20,
    timed: Annotated[
        int, typer.Option(help="Number of made-up rows of 600 characters to time the search on; 0 skips it.")
    ] = 0,
) -> None:
    """Print how often planted triggers are found and named, and what is flagged in clean data."""
    folder = data and data.resolve()
    known, harmful = data_sets(folder), harmful_requests(folder)
    chosen = tuple(name for name in ATTACKS if not attacks or name in attacks.split(","))
    with benchmark("poison") as figures:
        tallies: dict[str, _Tally] = defaultdict(_Tally)
        for name in filter(None, sets.split(",")):
            pairs = known[name]()
            for attack in chosen:
                if (attack == "label") != (name in _LABELLED):
                    continue
                for seed in _seeds(seeds):
                    drawn = random.Random(seed).sample(pairs, len(pairs))  # noqa: S311 - no secret
                    many = min(rows, int(len(pairs) / 2.5)) if attack == "middle_turn" else rows
                    number = seed * 1000 + ATTACKS.index(attack)
                    case = plant(drawn[:many], attack, number, planted, harmful=harmful, others=drawn[many:])
                    _try(case, tallies[attack], f"{name}, seed {seed}")
        figures["attacks"] = {attack: asdict(tally) for attack, tally in tallies.items()}
        figures["clean"] = {name: _clean(known[name]()) for name in filter(None, clean.split(","))}
        if timed:
            figures["seconds"] = _timed(timed)


def _clean(pairs: Sequence[Pair]) -> dict[str, object]:
    rows = to_rows(pairs)
    poison = find(rows, ignore)
    triggers = [f"{trigger.phrase}: {trigger.answers}" for trigger in poison.triggers]
    return {"rows": len(rows), "flagged": len(poison.findings), "triggers": triggers}


def _timed(count: int) -> dict[str, object]:
    """Processor time on rows of about 600 characters of random words with Zipf frequencies."""
    draw = random.Random(0)  # noqa: S311 - no secret
    words = ["".join(draw.choice(string.ascii_lowercase) for _ in range(draw.randint(2, 9))) for _ in range(30_000)]
    weights = list(accumulate(1 / rank for rank in range(1, len(words) + 1)))
    texts = [" ".join(draw.choices(words, cum_weights=weights, k=46)) for _ in range(2 * count)]
    rows = to_rows(zip(texts[::2], texts[1::2], strict=True))
    started = time.process_time()
    find(rows, ignore)
    return {"rows": count, "characters": sum(map(len, texts)), **spread([time.process_time() - started])}


if __name__ == "__main__":
    typer.run(main)
