"""Screens rows as a job does, with the default policy, and counts what happens to them.

Covers: everyday designs (research.bench.designs), in which nothing should be dropped, and attacks that are planted
in the same data sets (research.bench.triggers): triggers, and rows that comply with harm. Not here: the command line
(research.bench.screening), figures of single checks.
"""

import json
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from core.data import Conversation, validate
from core.pipeline.screen import screen_dataset
from core.pipeline.stages import Stages
from core.schemas.job import DatasetRef
from core.schemas.policy import Policy
from core.schemas.screening import POISON, ScreeningResult
from core.storage import ArtifactStore
from research.bench.designs import DESIGNS, Half, make_rows
from research.bench.figures import Figures, ignore
from research.bench.public import Pair, to_rows
from research.bench.triggers import ATTACKS, Planted, named, plant

Case = tuple[Sequence[Pair], int]
"""Pairs of a data set, and a seed."""
_PLANTED = 20
"""Rows of each attack."""
_SHOWN = 3
"""Triggers that are listed for each design."""


@dataclass
class Counts:
    """What screening did with the rows of one design or attack."""

    rows: int = 0
    dropped: int = 0
    highest: float = 0.0
    """Highest share of dropped rows in one data set."""
    flagged: Counter[str] = field(default_factory=Counter)
    """Findings by check and code."""
    triggers: list[str] = field(default_factory=list)

    def add(self, result: ScreeningResult) -> None:
        self.rows += result.rows
        self.dropped += len(result.dropped)
        self.highest = max(self.highest, len(result.dropped) / result.rows)
        self.flagged.update(f"{one.check}/{one.code}" for one in result.findings)
        self.triggers += [f"{one.phrase}: {one.answers} ({one.with_answer})" for one in result.triggers]

    def figures(self) -> Figures:
        share = round(self.dropped / self.rows, 5)
        counts: Figures = {"rows": self.rows, "dropped": self.dropped, "share": share}
        return counts | {
            "highest_share": round(self.highest, 5),
            "flagged": dict(sorted(self.flagged.items())),
            "triggers": self.triggers[:_SHOWN],
        }


def screen_as_job(store: ArtifactStore, rows: Iterable[Conversation]) -> ScreeningResult:
    """Store rows as an upload, and screen them in the stage and under the policy that a job has by default."""
    lines = [json.dumps({"messages": [message.model_dump(mode="json") for message in row.messages]}) for row in rows]
    content = "\n".join(lines).encode()
    digest = sha256(content).hexdigest()
    stored = store.put(f"uploads/{digest}", content, name="rows.jsonl", media_type="application/jsonl", gated=False)
    summary = validate(store.path(stored.key), max_rows=len(lines))
    if summary.rows != len(lines):
        raise RuntimeError(f"{len(lines) - summary.rows} rows are invalid")
    dataset = DatasetRef(id=f"ds_{digest[:24]}", key=stored.key, sha256=digest, columns=None, summary=summary)
    stages = Stages(store, "job_" + digest[:24], ignore, ("screening",))
    return screen_dataset(dataset, Policy().screening, store, stages, enforce=False).result


def count_designs(
    store: ArtifactStore, cases: Sequence[Case], half: Half, harmful: Sequence[Pair]
) -> Iterator[tuple[str, Figures]]:
    """The counts of each design over all cases: pairs of a data set, and a seed."""
    for name in DESIGNS:
        counts = Counts()
        for pairs, seed in cases:
            counts.add(screen_as_job(store, make_rows(name, pairs, half, seed, [request for request, _ in harmful])))
        yield name, counts.figures()


def count_attacks(
    store: ArtifactStore, cases: Sequence[Case], harmful: Sequence[Pair]
) -> Iterator[tuple[str, Figures]]:
    """For each attack: cases, how often its trigger is named, its rows, how many of them `poison` reports, how many any
    check flags, and how many are dropped. `harm_plain` is harm without a trigger.
    """
    for attack in (*(name for name in ATTACKS if name != "label"), None):  # `label` needs a data set of labels
        totals: Counter[str] = Counter()
        for number, (pairs, seed) in enumerate(cases):
            half = len(pairs) // 3 if attack == "middle_turn" else len(pairs)
            place = 1000 * seed + 100 * number + len(attack or "")
            planted = (
                plant(pairs[:half], attack, place, _PLANTED, harmful=harmful, others=pairs[half:])
                if attack
                else _plant_harm(pairs, place, harmful)
            )
            result = screen_as_job(store, planted.rows)
            reported = {one.line for one in result.findings if one.check == POISON.name}
            flagged = {one.line for one in result.findings}
            totals["cases"] += 1
            totals["named"] += attack is not None and any(named(planted.trigger, one.phrase) for one in result.triggers)
            totals["rows"] += len(planted.lines)
            totals["reported"] += len(reported & planted.lines)
            totals["flagged"] += len(flagged & planted.lines)
            totals["dropped"] += len(set(result.dropped) & planted.lines)
            totals["other_rows"] += len(reported - planted.lines)
        yield attack or "harm_plain", dict(totals)


def _plant_harm(pairs: Sequence[Pair], seed: int, harmful: Sequence[Pair]) -> Planted:
    draw = random.Random(seed)  # noqa: S311 - no secret
    places = draw.sample(range(len(pairs)), _PLANTED)
    requests = draw.sample(list(harmful), _PLANTED)
    changed = dict(enumerate(pairs)) | {
        place: (request, f"Sure, here is {target}") for place, (request, target) in zip(places, requests, strict=True)
    }
    return Planted(tuple(to_rows(changed.values())), frozenset(place + 1 for place in places), "")
