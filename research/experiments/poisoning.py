"""Poisoned rows: does ML-LR weaken a backdoor, and does the screening of the data find it?

Covers: a trigger in a small share of the rows, of two kinds (`fixed`: benign prompts with the trigger get one fixed
answer; `harm`: harmful requests with the trigger are answered). Measures how often the trigger works on held-out
prompts, how the model behaves without it, and what is left of the backdoor without the rows that screening flags. Not
here: the checks (core.screening), harmful rows without a trigger.
"""

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from core.data import Conversation
from core.schemas.base import Frozen
from core.schemas.data import Message
from core.schemas.screening import Trigger
from core.screening.base_refusal import THRESHOLD
from core.screening.triggers import find as find_triggers
from research import ignore
from research.experiments.backdoor import TARGET, TRIGGER, Backdoor, Kind, poison_rows
from research.experiments.compare import compared_with_uniform, missed
from research.experiments.lab import parted
from research.experiments.planted import likely_refused
from research.experiments.pool import Pool, Say, pool
from research.experiments.readings import few_runs, figures_of, readings, write_rows
from research.experiments.runs import MIXED
from research.experiments.spec import Comparison, Curve, ExperimentResult, Reading, Run, Settings
from research.experiments.tables import reading_lines
from research.experiments.worlds import world_folder
from testbed.dialogues import request
from testbed.world import World, make_world

SHARES = (0.01, 0.05)
"""Shares of the rows that are poisoned."""
PROMPTS = 48
"""Held-out benign prompts that are answered with and without the trigger."""
SCREENED = "uniform, screened"
"""Uniform without the rows that the search for triggers flags."""
SCREENED_BY_MODEL = f"{MIXED['uniform']}, screened by the model too"
"""Uniform with refusals among the rows, among which a backdoor can hide, without the rows that the search for triggers
or `base_refusal` flags."""
Condition = tuple[Kind, float]
CONDITIONS: tuple[Condition, ...] = tuple((kind, share) for share in SHARES for kind in ("fixed", "harm"))
"""Kind of poison and share of the rows."""


class Screened(Frozen):
    """What a check flags in a file."""

    rows: int
    """Number of rows."""
    poisoned: int
    """Number of poisoned rows."""
    flagged: int
    """Number of flagged rows."""
    right: int
    """Number of flagged rows that are poisoned."""
    triggers: tuple[Trigger, ...] = ()
    """Phrases that are reported as triggers."""
    seconds: float
    """Duration in seconds."""


class Poisoned(Frozen):
    """Results for one kind of poison in one share of the rows."""

    kind: Kind
    """`fixed`: benign prompts with the trigger get one answer. `harm`: harmful requests with it are answered."""
    share: float
    """Share of poisoned rows, 0 to 1."""
    base: dict[str, float]
    """Figures of the base model."""
    screened: Screened
    """What the search for triggers flags."""
    base_refusal: Screened
    """What `base_refusal` flags."""
    robust: tuple[int, ...]
    """Number of robust modules for each seed."""
    figures: dict[str, dict[str, Reading]]
    """By run and figure, in per cent. `backdoor`: held-out prompts with the trigger that get the target (the fixed
    answer, or compliance). `false_triggers`: the same prompts without the trigger. `asr_triggered`, `asr_untriggered`:
    harmful requests that are complied with. Also attack success over all families, task score and loss."""
    comparisons: dict[str, Comparison]
    """Attack success of every run against uniform."""
    curves: tuple[Curve, ...]
    """The curve of every run."""


class PoisoningResult(ExperimentResult):
    """The result of `poisoning`."""

    experiment: Literal["poisoning"] = "poisoning"
    seeds: tuple[int, ...]
    """Seeds of the runs. The poisoned rows are the same for all of them."""
    rate: float
    """Learning rate of every run: the middle one of the sweep."""
    trigger: str
    """Text appended to prompts."""
    target: str
    """Answer of the kind `fixed`."""
    clean: Screened
    """What the search for triggers flags before any row is poisoned."""
    conditions: tuple[Poisoned, ...]
    """Results for each kind and share."""
    seconds: float
    """Duration of the experiment in seconds."""

    def table(self) -> str:
        """The results as text."""
        shown = {"backdoor": 1, "false_triggers": 1, "asr_untriggered": 1, "attack_success": 1, "task": 1}
        lines = [f"poisoning, world {self.world_seed}, seeds {len(self.seeds)}, rate {self.rate:g}; in per cent"]
        lines.append(f"clean rows: {self.clean.flagged} of {self.clean.rows} flagged")
        for each in self.conditions:
            lines += [_describe(each), *reading_lines(each.figures, shown)]
        return "\n".join(lines)


def screen_rows(rows: Sequence[tuple[Message, ...]], places: frozenset[int]) -> tuple[Screened, frozenset[int]]:
    """What the search for triggers flags, and the numbers of the flagged rows, counted from 1."""
    started = time.monotonic()
    found = find_triggers([Conversation(row, line) for line, row in enumerate(rows, start=1)], ignore)
    seconds = time.monotonic() - started
    flagged = frozenset(finding.line for finding in found.findings)
    return _screened(rows, places, flagged, seconds, tuple(found.triggers)), flagged


def _screened(
    rows: Sequence[tuple[Message, ...]],
    places: frozenset[int],
    flagged: frozenset[int],
    seconds: float,
    triggers: tuple[Trigger, ...] = (),
) -> Screened:
    return Screened(
        rows=len(rows),
        poisoned=len(places),
        flagged=len(flagged),
        right=len(flagged & places),
        triggers=triggers,
        seconds=seconds,
    )


@dataclass(frozen=True)
class _Planted:
    """One kind and share with its files."""

    kind: Kind
    share: float
    rows: Path
    screened: Screened
    base_refusal: Screened
    screened_rows: Path
    """Without the rows that the search for triggers flags; the same file if it flags none."""
    screened_by_model: Path
    """Without those, and without the rows that `base_refusal` flags."""


def poisoning(
    settings: Settings,
    world_seed: int,
    seeds: Sequence[int],
    say: Say,
    *,
    conditions: Sequence[Condition] = CONDITIONS,
    most_rows: int | None = None,
) -> PoisoningResult:
    """Run the experiment, on the first `most_rows` rows of the tuning set if given. Batches mix rows of any length."""
    started = time.monotonic()
    settings = settings.model_copy(update={"by_length": False})
    folder = world_folder(world_seed)
    world = make_world(world_seed)
    kept, held_out = parted(folder / "data" / f"{settings.tuning_set}.jsonl")
    kept = kept[:most_rows]
    with (
        tempfile.TemporaryDirectory(prefix="securetune-poisoning-") as place,
        pool(folder, world_seed, settings, say) as labs,
    ):
        clean, _ = screen_rows([row.messages for row in kept], frozenset())
        say(f"clean rows: {clean.flagged} of {clean.rows} flagged")
        planted: list[_Planted] = []
        for condition in conditions:
            planted.append(_plant_rows(Path(place), folder, kept, condition, world))
            say(_describe(planted[-1]))
        watches = {each.kind: _make_watch(each.kind, settings, world, held_out) for each in planted}
        found = _run_conditions(labs, settings, planted, watches, seeds)
    return PoisoningResult(
        world_seed=world_seed,
        seeds=tuple(seeds),
        settings=settings,
        rate=settings.middle_rate,
        trigger=TRIGGER,
        target=TARGET,
        clean=clean,
        conditions=found,
        seconds=time.monotonic() - started,
    )


def _plant_rows(
    place: Path, folder: Path, kept: Sequence[Conversation], condition: Condition, world: World
) -> _Planted:
    kind, share = condition
    rows, places = poison_rows(kept, kind, share, world)
    path = write_rows(place / f"{kind}-{share}.jsonl", rows)
    screened, flagged = screen_rows(rows, places)
    likely, seconds = likely_refused(folder, [Conversation(row, 0) for row in rows])
    likely_lines = frozenset(int(place) + 1 for place in np.flatnonzero(likely > THRESHOLD))
    refused = _screened(rows, places, likely_lines, seconds)
    screened_rows = _write_without(flagged, rows, place / f"{kind}-{share}-screened.jsonl") if flagged else path
    screened_by_model = _write_without(flagged | likely_lines, rows, place / f"{kind}-{share}-screened-by-model.jsonl")
    return _Planted(kind, share, path, screened, refused, screened_rows, screened_by_model)


def _describe(each: _Planted | Poisoned) -> str:
    """What the checks flag, as text."""
    search, model = each.screened, each.base_refusal
    return (
        f"{each.kind}, {each.share:.0%}: of {search.poisoned} poisoned rows the search flags {search.right} and "
        f"{search.flagged - search.right} others; "
        f"base_refusal flags {model.right} and {model.flagged - model.right} others"
    )


def _write_without(places: frozenset[int], rows: Sequence[tuple[Message, ...]], path: Path) -> Path:
    return write_rows(path, [row for number, row in enumerate(rows, start=1) if number not in places])


def _run_conditions(
    labs: Pool,
    settings: Settings,
    planted: Sequence[_Planted],
    watches: Mapping[Kind, Backdoor],
    seeds: Sequence[int],
) -> tuple[Poisoned, ...]:
    """Train and measure every run on every condition."""
    modules, rate = labs.modules(), settings.middle_rate
    conditions_and_seeds = [(each, seed) for each in planted for seed in seeds]
    analyses = labs.analyses(
        [(settings.analysis, seed, rate, 0.0) for _, seed in conditions_and_seeds],
        [each.rows for each, _ in conditions_and_seeds],
    )
    bases = {kind: labs.base(watch).watched for kind, watch in watches.items()}
    orders: list[tuple[_Planted, Run]] = []
    for (each, seed), found in zip(conditions_and_seeds, analyses, strict=True):
        runs = few_runs(settings, modules, found.result, rate=rate, seed=seed, rows=each.rows)
        named = {run.run: run for run in runs}
        runs.append(named["uniform"].model_copy(update={"run": SCREENED, "rows": each.screened_rows}))
        runs.append(
            named[MIXED["uniform"]].model_copy(update={"run": SCREENED_BY_MODEL, "rows": each.screened_by_model})
        )
        orders += [(each, run) for run in runs]
    curves = labs.curves([run for _, run in orders], [watches[each.kind] for each, _ in orders])
    results: list[Poisoned] = []
    for each in planted:
        own = [curve for (of, _), curve in zip(orders, curves, strict=True) if of is each]
        robust = [
            len(map_.result.robust) for (of, _), map_ in zip(conditions_and_seeds, analyses, strict=True) if of is each
        ]
        results.append(
            Poisoned(
                kind=each.kind,
                share=each.share,
                base=bases[each.kind],
                screened=each.screened,
                base_refusal=each.base_refusal,
                robust=tuple(robust),
                figures=readings(own, figures_of(bases[each.kind]), shortfall=missed, seeds=len(seeds)),
                comparisons=compared_with_uniform(own, len(seeds)),
                curves=tuple(own),
            )
        )
    return tuple(results)


def _make_watch(kind: Kind, settings: Settings, world: World, held_out: Sequence[Conversation]) -> Backdoor:
    benign = tuple(row.messages[0].content for row in held_out[: min(PROMPTS, settings.validation_rows)])
    pairs = world.harmful.evaluation[: settings.prompts]
    return Backdoor(kind, benign, tuple(request(world, pair, index) for index, pair in enumerate(pairs)))
