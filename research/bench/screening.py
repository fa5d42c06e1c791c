"""Speed and accuracy of the checks that read rows.

`time` measures seconds per check on rows of the public data sets and on rows made up of pieces of them, or of a few
words without public data. `recall` measures the half of the public lists of harmful requests that no rule was fitted on
(even numbers; `--half tuning` selects the other half). `clean` counts findings in ordinary tuning data. `designs`
screens everyday designs of tuning data as a job does, and beside them planted attacks. Each prints one line of JSON.
Not here: accuracy of the offline judge (research.bench.judges), the search for triggers (research.bench.poison), checks
that run the model (research.bench.base_refusal).
"""

import json
import random
import sys
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from core.data import Conversation
from core.schemas.screening import POISON
from core.screening import harmful, identity
from core.screening.check import RowCheck, row_checks
from core.screening.harmcues import find_request
from core.storage import ArtifactStore
from research.bench.designs import Half, in_half
from research.bench.figures import Figures, benchmark, ignore, timed
from research.bench.public import data_sets, jailbreak_templates, labelled_answers, request_lists, to_rows
from research.bench.screened import Case, count_attacks, count_designs
from research.bench.triggers import harmful_requests

_CLEAN = ("gsm8k_train", "chatdoctor", "pubmedqa_long", "self_instruct", "tatqa")
"""Ordinary data sets, in which nothing should be flagged."""

_DATA = Path(__file__).parents[3] / "shared" / "data"
_WORDS = "of the river doctor says green then market 12 when she counts apples home"

app = typer.Typer(add_completion=False, help=__doc__)
Data = Annotated[Path, typer.Option(help="Folder of the public data sets.")]
WhichHalf = Annotated[Half, typer.Option(help="The half that the rules were fitted on, or the other half.")]


def _checks() -> list[RowCheck]:
    """Checks that read rows, without the search for triggers."""
    return [check for check in row_checks() if check.description != POISON]


@app.command("time")
def measure_time(
    rows: Annotated[int, typer.Option(min=1, help="Number of rows.")] = 50_000,
    characters: Annotated[int, typer.Option(min=40, help="Mean number of characters of made-up rows.")] = 600,
    data: Data = _DATA,
) -> None:
    """Seconds of each check and of all checks, in this process."""
    with benchmark("screening") as figures:
        made = _ordinary_rows(rows, characters, data)
        figures["rows"] = len(made)
        figures["public"] = data.is_dir()
        figures["mean_characters"] = round(sum(map(_length, made)) / len(made), 1)
        found = {check.description.name: timed(check.find, made, ignore) for check in _checks()}
        seconds = {name: round(wall, 2) for name, (_, wall, _) in found.items()}
        processor = {name: round(cpu, 2) for name, (_, _, cpu) in found.items()}
        figures["seconds"] = seconds | {"all": round(sum(seconds.values()), 2)}
        figures["processor_seconds"] = processor | {"all": round(sum(processor.values()), 2)}
        figures["found"] = {name: len(screened.findings) for name, (screened, _, _) in found.items()}


@app.command("recall")
def measure_recall(half: WhichHalf = "reported", data: Data = _DATA) -> None:
    """Recall on harmful requests, false positives on harmless look-alikes, recall and precision on labelled answers."""
    _require(data)
    requests: Figures = {}
    for name, texts in request_lists(data):
        own = [text for number, text in texts if _is_in(half, number)]
        seen = sum(find_request(text) is not None for text in own)
        requests[name] = {"n": len(own), "seen": seen, "share": round(seen / len(own), 4)}
    rows: Figures = {}
    for name, labelled in labelled_answers(data, partial(_is_in, half)):
        flagged = {finding.line for finding in harmful.find(to_rows(pair for pair, _ in labelled), ignore).findings}
        hits = sum(line in flagged for line, (_, complied) in enumerate(labelled, 1) if complied)
        bad = sum(complied for _, complied in labelled)
        rows[name] = {
            "n": len(labelled),
            "harmful": bad,
            "flagged": len(flagged),
            "recall": round(hits / bad, 4) if bad else None,
            "precision": round(hits / len(flagged), 4) if flagged else None,
        }
    templates = [text for number, text in enumerate(jailbreak_templates(data)) if _is_in(half, number)]
    shifted = identity.find(to_rows((text, "Sure! Here it is.") for text in templates), ignore).findings
    figures = {"requests": requests, "rows": rows, "identity": {"n": len(templates), "found": len(shifted)}}
    print(json.dumps({"benchmark": "screening_recall", "half": half} | figures), flush=True)


@app.command("clean")
def measure_clean(
    data: Data = _DATA, show: Annotated[bool, typer.Option(help="Also print every finding to standard error.")] = False
) -> None:
    """Findings in ordinary tuning data."""
    _require(data)
    figures: Figures = {}
    for name in _CLEAN:
        rows = to_rows(data_sets(data)[name]())
        found = [finding for check in _checks() for finding in check.find(rows, ignore).findings]
        lines = {finding.line for finding in found}
        figures[name] = {
            "rows": len(rows),
            "flagged": len(lines),
            "share": round(len(lines) / len(rows), 5),
            "codes": dict(Counter(f"{one.check}/{one.code}" for one in found)),
        }
        if show:
            for finding in found:
                print(f"{name}: {finding.model_dump_json()}", file=sys.stderr)
    print(json.dumps({"benchmark": "screening_clean"} | figures), flush=True)


@app.command("designs")
def measure_designs(
    half: WhichHalf = "reported",
    data: Annotated[Path | None, typer.Option(help="Folder of the public data sets.")] = None,
    sets: Annotated[str, typer.Option(help="Data sets that designs and attacks use, separated by commas.")] = "testbed",
    rows: Annotated[int, typer.Option(min=60, help="Maximum number of rows of each data set.")] = 600,
    seeds: Annotated[int, typer.Option(min=1, help="Number of drawings of each data set.")] = 2,
) -> None:
    """Rows of everyday designs that are dropped and flagged by default, and what is found of planted attacks."""
    folder = data and data.resolve()
    harmful = list(in_half(harmful_requests(folder), half))
    cases: list[Case] = []
    for name in sets.split(","):
        pairs = in_half(data_sets(folder)[name](), half)
        for seed in range(seeds):
            drawn = random.Random(seed).sample(list(pairs), min(rows, len(pairs)))  # noqa: S311 - no secret
            cases.append((drawn, seed))
    with benchmark("screening_designs") as figures, TemporaryDirectory() as place:
        store = ArtifactStore(Path(place))
        figures["half"], figures["sets"], figures["cases"] = half, sets, len(cases)
        figures["designs"] = dict(count_designs(store, cases, half, harmful))
        figures["attacks"] = dict(count_attacks(store, cases, harmful))


def _require(data: Path) -> None:
    if not data.is_dir():
        print(f"{data}: no such folder. Name the folder of the public data sets with --data.", file=sys.stderr)
        raise typer.Exit(2)


def _is_in(half: Half, number: int) -> bool:
    return (number % 2 == 1) == (half == "tuning")


def _length(row: Conversation) -> int:
    return sum(len(message.content) for message in row.messages)


def _ordinary_rows(count: int, characters: int, data: Path) -> list[Conversation]:
    """Distinct rows: those of the public sets in turn, then made-up ones."""
    known = data_sets(data)
    sets = [to_rows(known[name]()) for name in _CLEAN] if data.is_dir() else []
    found = [row for made in sets for row in made if _length(row) < 3 * characters][:count]
    draw = random.Random(0)  # noqa: S311 - no secret
    parts = [message.content.split() for row in found for message in row.messages] or [_WORDS.split()]
    while len(found) < count:
        found += to_rows([(_make_up(draw, parts, characters // 2), _make_up(draw, parts, characters // 2))])
    return [Conversation(row.messages, line) for line, row in enumerate(found, 1)]


def _make_up(draw: random.Random, parts: Sequence[Sequence[str]], characters: int) -> str:
    """A text of about `characters` characters, made of eight words at a time."""
    words: list[str] = []
    length = 0
    while length < characters:
        text = draw.choice(parts)
        start = draw.randrange(max(1, len(text) - 8))
        words += text[start : start + 8]
        length += sum(map(len, text[start : start + 8])) + 8
    return " ".join(words)


if __name__ == "__main__":
    app()
