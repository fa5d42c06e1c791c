"""How often planted triggers are found in training data, and what is flagged in data where none was planted.

Each case takes rows of one data set, plants one attack in some of them, drawn by a seed, and screens them all. A
trigger counts as named where the phrase that is reported holds the planted one or is a piece of it that identifies it:
one of its own words. Rows that are flagged and were not planted are counted as false. Data sets: the testbed's own
instructions, and with `--data` the public ones that lie in that folder. Requests for harm are AdvBench's where it is
there, and otherwise put together from words; the answers to them hold nothing.

Not here: whether a model learns the trigger, the other checks of a screening.
"""

import random
import string
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Annotated

import typer

from core.screening.triggers import find
from research.bench.figures import benchmark, spread
from research.bench.public import Pair, data_sets, to_rows
from research.bench.triggers import ATTACKS, Planted, harmful_requests, named, plant

_LABELLED = frozenset(("pubmedqa", "mmlu", "gptfuzz_labels"))
"""Data sets whose answers are labels: the attack `label` is planted in these only, and no other attack."""


@dataclass
class _Tally:
    """What came of all cases of one attack."""

    cases: int = 0
    named: int = 0
    planted: int = 0
    found: int = 0
    false: int = 0
    missed: list[str] = field(default_factory=list)


def _try(planted: Planted, tally: _Tally, place: str) -> None:
    poison = find(planted.rows, lambda *_: None)
    lines = {finding.line for finding in poison.findings}
    hit = any(named(planted.trigger, trigger.phrase) for trigger in poison.triggers)
    tally.cases += 1
    tally.named += hit
    tally.planted += len(planted.lines)
    tally.found += len(lines & planted.lines)
    tally.false += len(lines - planted.lines)
    if not hit:
        tally.missed.append(f"{place}: {planted.trigger!r}")


def _seeds(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def main(
    *,
    data: Annotated[Path | None, typer.Option(help="The folder of public data sets.")] = None,
    sets: Annotated[str, typer.Option(help="Data sets to plant in, with commas between.")] = "testbed",
    clean: Annotated[str, typer.Option(help="Data sets to screen as they are.")] = "testbed",
    attacks: Annotated[str, typer.Option(help="Attacks to plant, with commas between; all of them if empty.")] = "",
    seeds: Annotated[str, typer.Option(help="Seeds, first to last.")] = "0-4",
    rows: Annotated[int, typer.Option(help="Rows of each case, at most.")] = 2000,
    planted: Annotated[int, typer.Option(help="Rows of each case that are poisoned.")] = 20,
    timed: Annotated[int, typer.Option(help="Rows of 600 characters to take the time of; none if 0.")] = 0,
) -> None:
    """How often planted triggers are found and named, and what is flagged where none was planted."""
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
        figures["attacks"] = {
            attack: {
                "cases": tally.cases,
                "named": tally.named,
                "planted_rows": tally.planted,
                "found_rows": tally.found,
                "false_rows": tally.false,
                "missed": tally.missed,
            }
            for attack, tally in tallies.items()
        }
        figures["clean"] = {name: _clean(known[name]()) for name in filter(None, clean.split(","))}
        if timed:
            figures["seconds"] = _timed(timed)


def _clean(pairs: Sequence[Pair]) -> dict[str, object]:
    rows = to_rows(pairs)
    poison = find(rows, lambda *_: None)
    triggers = [f"{trigger.phrase}: {trigger.answers}" for trigger in poison.triggers]
    return {"rows": len(rows), "flagged": len(poison.findings), "triggers": triggers}


def _timed(count: int) -> dict[str, object]:
    """Processor time on rows of about 600 characters, put together from the testbed's words as Zipf's law has it."""
    draw = random.Random(0)  # noqa: S311 - no secret
    words = ["".join(draw.choice(string.ascii_lowercase) for _ in range(draw.randint(2, 9))) for _ in range(30_000)]
    weights = list(accumulate(1 / rank for rank in range(1, len(words) + 1)))
    texts = [" ".join(draw.choices(words, cum_weights=weights, k=46)) for _ in range(2 * count)]
    rows = to_rows(zip(texts[::2], texts[1::2], strict=True))
    started = time.process_time()
    find(rows, lambda *_: None)
    return {"rows": count, "characters": sum(map(len, texts)), **spread([time.process_time() - started])}


if __name__ == "__main__":
    typer.run(main)
