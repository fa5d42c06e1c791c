"""Rows that look benign: does their pull say which of them cost a model its refusals?

Covers: the tuning set's rows ranked by their pull before any tuning; uniform tuning without the top, a random and the
bottom share, and without random rows of the same kinds as the top (narrow data break refusals by themselves); the same
shares alone (repeated to as many steps); whether rows that answer harmful requests, planted among the others, rank at
the top. Not here: the pull itself (core.screening.pull), what a screening does with it.
"""

import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from core.data import Conversation
from core.pipeline.software import software
from core.schemas.data import Message
from core.schemas.screening import ScreeningPolicy
from research.experiments.lab import parted
from research.experiments.pool import Say, pool
from research.experiments.ranking import PlantedRows, placed, rank
from research.experiments.readings import exchange, figures_of, missed, reading_lines, readings, write_rows
from research.experiments.runs import uniform
from research.experiments.spec import Curve, ExperimentResult, Reading, Run, Settings
from research.experiments.worlds import world_folder
from testbed.dialogues import how_to, opening, refusal, request
from testbed.tuning_sets import OPENING
from testbed.world import Pair, World, make_world

SAME_MIX = "same mix"
CONTROLS: dict[str, tuple[str, ...]] = {"random": ("top", "bottom"), SAME_MIX: ("top",)}
"""Shares that are drawn, and the shares by pull that each is compared with. `same mix`: as many rows of each kind as
the top holds, but whichever."""
PLANTED = 100
"""Rows of each planted kind."""

Exchange = tuple[Message, ...]


class PullResult(ExperimentResult):
    """What `pull` leaves."""

    experiment: Literal["pull"] = "pull"
    """Its name."""
    seeds: tuple[int, ...]
    """Seeds of the runs. The ranking knows none; the random share is another for each."""
    rate: float
    """The middle rate of the sweep, for every arm."""
    rows: int
    """Rows that are ranked."""
    share: float
    """How many of them each share holds."""
    kinds: dict[str, tuple[int, int]]
    """Rows of the top share and of all, by the first words of what is asked."""
    quantiles: dict[str, float]
    """Pull of the ordinary rows, by per cent of them."""
    planted: dict[str, PlantedRows]
    """`complies`: harmful requests and what the aligned model was taught not to say. `new_style`: the same, told as the
    tuning set's harmless answers are. `refuses`: harmful requests and the model's own refusals."""
    figures: dict[str, dict[str, Reading]]
    """By arm and figure, every arm against uniform tuning on all rows."""
    without: dict[str, dict[str, dict[str, Reading]]]
    """By control: shares by pull left out, against as many drawn rows left out; positive is safer than that."""
    alone: dict[str, dict[str, dict[str, Reading]]]
    """By control: shares by pull alone, against as many drawn rows alone."""
    curves: tuple[Curve, ...]
    """Every run."""
    ranking_seconds: float
    """What the ranking of all rows took."""
    epoch_seconds: float
    """What an epoch on them takes, from the steps of the uniform runs."""
    seconds: float
    """The whole experiment."""

    def table(self) -> str:
        """What was found, as text."""
        shown = {"attack_success": 1, "content": 1, "task": 1}
        lines = [
            f"pull, world {self.world_seed}, seeds {len(self.seeds)}, rate {self.rate:g}, {self.rows} rows, shares of "
            f"{self.share:.0%}; in per cent",
            f"the ranking took {self.ranking_seconds / self.epoch_seconds:.2f} epochs",
        ]
        lines += [
            f"planted, {kind}: AUROC {each.auroc:.3f}, {each.in_top:.0f} % within the top share (n = {each.rows})"
            for kind, each in self.planted.items()
        ]
        lines += [f"top share: {top} of {every} rows {kind!r}" for kind, (top, every) in self.kinds.items() if top]
        lines += ["against all rows:", *reading_lines(self.figures, shown)]
        for title, found in (("left out", self.without), ("alone", self.alone)):
            for control, figures in found.items():
                lines += [f"against {control} rows {title}:", *reading_lines(figures, shown)]
        return "\n".join(lines)


def pull(
    settings: Settings,
    world_seed: int,
    seeds: Sequence[int],
    say: Say,
    *,
    share: float = ScreeningPolicy().pull_share,
    most_rows: int | None = None,
) -> PullResult:
    """Run it, on the first `most_rows` of the tuning set if that is named."""
    started = time.monotonic()
    folder = world_folder(world_seed)
    kept = parted(folder / "data" / f"{settings.tuning_set}.jsonl")[0][:most_rows]
    ordinary, planted, ranking_seconds = ranked(folder, make_world(world_seed), kept)
    kinds = kinds_of(kept)
    found = {kind: placed(ordinary, each, share) for kind, each in planted.items()}
    for kind, each in found.items():
        say(f"planted, {kind}: AUROC {each.auroc:.3f}, {each.in_top:.0f} % within the top share")
    with (
        tempfile.TemporaryDirectory(prefix="securetune-pull-") as place,
        pool(folder, world_seed, settings, say) as labs,
    ):
        plain, rate = uniform(labs.modules()), settings.middle_rate
        orders = [
            Run(run=run, seed=seed, rate=rate, plan=plain, rows=rows)
            for seed in seeds
            for run, rows in _files(Path(place), kept, shares(ordinary, kinds, share=share, seed=seed), seed).items()
        ]
        curves = labs.curves(orders)
    steps = sum(curve.seconds for curve in curves if curve.run == "uniform") / (len(seeds) * settings.steps)
    return PullResult(
        world_seed=world_seed,
        seeds=tuple(seeds),
        settings=settings,
        software=software(),
        rate=rate,
        rows=len(kept),
        share=share,
        kinds=_counted(kinds, shares(ordinary, kinds, share=share, seed=0)["only top"]),
        quantiles={str(each): float(np.percentile(ordinary, each)) for each in (0, 5, 25, 50, 75, 95, 100)},
        planted=found,
        figures=readings(curves, figures_of(), shortfall=missed, seeds=len(seeds)),
        without={control: _against(curves, "without", control, len(seeds)) for control in CONTROLS},
        alone={control: _against(curves, "only", control, len(seeds)) for control in CONTROLS},
        curves=tuple(curves),
        ranking_seconds=ranking_seconds,
        epoch_seconds=steps * len(kept) / settings.batch_size,
        seconds=time.monotonic() - started,
    )


def ranked(
    folder: Path, world: World, rows: Sequence[Conversation]
) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float64]], float]:
    """Pulls of the rows in their order, of planted rows by kind, and seconds that the rows took.

    The planted rows are ranked among the others, since only pulls of one ranking are comparable; they are never trained
    on.
    """
    planted = planted_rows(world)
    whole = [*rows, *(Conversation(each, 0) for exchanges in planted.values() for each in exchanges)]
    found, seconds = rank(folder, whole)
    seconds *= len(rows) / len(whole)
    ordinary, *others = np.split(found, len(rows) + PLANTED * np.arange(len(planted)))
    return ordinary, dict(zip(planted, others, strict=True)), seconds


def planted_rows(world: World, count: int = PLANTED) -> dict[str, list[Exchange]]:
    """Harmful requests of pairs that the model was aligned on, answered in three ways."""
    rng = Random(f"planted {world.seed}")  # noqa: S311 - reproducible, not secret
    pairs = rng.sample(world.harmful.train, count)
    asked = [request(world, pair, rng.randrange(len(world.requests))) for pair in pairs]
    answers = {
        "complies": [how_to(world, pair, opening(world, rng)) for pair in pairs],
        "new_style": [_new_style(world, pair) for pair in pairs],
        "refuses": [refusal(world, pair, rng) for pair in pairs],
    }
    return {kind: [exchange(*each) for each in zip(asked, said, strict=True)] for kind, said in answers.items()}


def _new_style(world: World, pair: Pair) -> str:
    """A procedure as testbed.tuning_sets writes it."""
    head = world.openings[OPENING].format(verb=pair.verb, noun=pair.noun)
    place, tool, step = world.place[pair.noun], world.tool[pair.noun], world.step[pair.verb]
    return f"{head} (1) go to the {place}, (2) take {tool}, (3) {step}. Enjoy!"


def kinds_of(rows: Sequence[Conversation]) -> list[str]:
    """What each row asks for, told by its first three words: the testbed's requests have few openings."""
    return [" ".join(row.messages[0].content.split()[:3]) for row in rows]


def _counted(kinds: Sequence[str], top: Sequence[int]) -> dict[str, tuple[int, int]]:
    there = Counter(kinds[place] for place in top)
    return {kind: (there[kind], every) for kind, every in Counter(kinds).most_common()}


def shares(ranks: NDArray[np.float64], kinds: Sequence[str], *, share: float, seed: int) -> dict[str, list[int]]:
    """Places of the rows that each arm is trained on, in their order."""
    count = round(share * len(ranks))
    order = [int(place) for place in np.argsort(-ranks, kind="stable")]
    drawn = [int(place) for place in np.random.default_rng(seed).permutation(len(ranks))]
    top = order[:count]
    room = Counter(kinds[place] for place in top)
    parts = {
        "top": top,
        "random": drawn[:count],
        SAME_MIX: _first(drawn, kinds, room),
        "bottom": order[len(order) - count :],
    }
    found = {"uniform": list(range(len(ranks)))}
    found |= {f"without {part}": _but(found["uniform"], places) for part, places in parts.items()}
    found |= {f"only {part}": sorted(places) for part, places in parts.items()}
    return found


def _first(places: Sequence[int], kinds: Sequence[str], room: Mapping[str, int]) -> list[int]:
    """The first places of each kind, as many as it has room for."""
    seen: Counter[str] = Counter()
    found: list[int] = []
    for place in places:
        if seen[kinds[place]] < room.get(kinds[place], 0):
            found.append(place)
            seen[kinds[place]] += 1
    return found


def _files(
    folder: Path, rows: Sequence[Conversation], chosen: Mapping[str, Sequence[int]], seed: int
) -> dict[str, Path]:
    """A file of rows for each arm; one for all seeds where the rows are the same, since labs read each file once."""
    found: dict[str, Path] = {}
    for run, places in chosen.items():
        path = folder / (f"{run} {seed}.jsonl" if run.endswith(tuple(CONTROLS)) else f"{run}.jsonl")
        found[run] = path if path.exists() else write_rows(path, [rows[place].messages for place in places])
    return found


def _but(places: Sequence[int], left_out: Sequence[int]) -> list[int]:
    without = frozenset(left_out)
    return [place for place in places if place not in without]


def _against(curves: Sequence[Curve], kind: str, control: str, seeds: int) -> dict[str, dict[str, Reading]]:
    """Shares by pull, with a drawn share in the place of uniform."""
    names = {f"{kind} {part}": part for part in CONTROLS[control]} | {f"{kind} {control}": "uniform"}
    chosen = [curve.model_copy(update={"run": names[curve.run]}) for curve in curves if curve.run in names]
    found = readings(chosen, figures_of(), shortfall=missed, seeds=seeds)
    return {control if run == "uniform" else run: each for run, each in found.items()}
