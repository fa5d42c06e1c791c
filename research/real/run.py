"""The runs of an experiment: every arm on the first seed, each after a sweep of its rates, then on the next seed.

Not here: one run (research.real.lab), figures (research.real.compare).
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product

from pydantic import Field, JsonValue

from core.pipeline.cache import software
from core.schemas.analysis import AnalysisSpec
from core.schemas.base import Frozen
from core.schemas.results import ModelIdentity
from core.schemas.robustness import RobustnessResult
from research.real.arms import Arm, ArmName, build_arm, needs_map
from research.real.compare import Comparison, compare_arm, write_table
from research.real.lab import Lab
from research.real.measure import Point
from research.real.plan import Plan
from research.real.store import FinishedRun, Store

Say = Callable[[str], None]


class Result(Frozen):
    """All figures of an experiment, and what they depend on."""

    plan: Plan
    model: ModelIdentity
    precision: str
    """Number format of the base weights."""
    data: dict[str, str]
    """SHA-256 of each file, by use."""
    requests: int
    """Harmful requests that were found to be refused by the base model."""
    base: Point
    """The base model."""
    sweep: dict[str, dict[str, float]]
    """Validation loss at the end of each run of the sweep: arm, then rate."""
    runs: tuple[FinishedRun, ...]
    """Every run that is compared."""
    compared: tuple[Comparison, ...]
    """Every arm, on the seeds that it has been trained with so far."""
    software: dict[str, str] = Field(default_factory=software)

    def table(self) -> str:
        """The comparisons as text."""
        head = f"{self.model.name}, {self.requests} requests that the base refuses, seeds {len(self.plan.seeds)}"
        return f"{head}\n{write_table(self.base, self.compared)}"


class Experiment:
    """Does the runs that are not in the store."""

    def __init__(self, lab: Lab, store: Store, say: Say) -> None:
        self._lab, self._store, self._say, self._settings = lab, store, say, lab.settings
        self._rates: dict[ArmName, float] = {}
        self._sweeps: dict[str, dict[str, float]] = {}

    def run(self, data: dict[str, str]) -> Iterator[Result]:
        """The figures after each run; the last ones are complete. `data` are digests of the files, by use."""
        lab, settings = self._lab, self._settings
        base = self._store.keep(Point, "base", None, lambda: lab.measure(lab.base.model, 0, attacks=True, answers=True))
        self._say(f"base model: {_describe(base)}")
        arms: tuple[ArmName, ...] = tuple(dict.fromkeys(("uniform", *settings.arms)))
        runs: list[FinishedRun] = []
        for seed, name in product(settings.seeds, arms):
            runs.append(self._train(name, self._rate(name, seed), seed))
            yield Result(
                plan=settings,
                model=lab.base.identity,
                precision=lab.base.weights,
                data=data,
                requests=len(lab.harmful),
                base=base,
                sweep=dict(self._sweeps),
                runs=tuple(runs),
                compared=_compare(base, arms, runs),
            )

    def _sweep(self, name: ArmName) -> None:
        """Choose the arm's rate by the validation loss at the end of a run at each rate."""
        rates, seed = self._settings.rates, self._settings.sweep_seed
        if len(rates) == 1:
            (self._rates[name],) = rates
            return
        losses = {rate: self._train(name, rate, seed, attacks=False).last.loss for rate in rates}
        self._rates[name] = min(losses, key=losses.__getitem__)
        self._sweeps[name] = {f"{rate:g}": loss for rate, loss in losses.items()}
        self._say(f"{name}: rate {self._rates[name]:g}")

    def _rate(self, name: ArmName, seed: int) -> float:
        """The rate that the arm's sweep chose, or that of the arm whose rate it uses, before its own factor."""
        chosen_by = self._arm(name, seed).rate_of or name
        if chosen_by not in self._rates:
            self._sweep(chosen_by)
        return self._rates[chosen_by]

    def _arm(self, name: ArmName, seed: int) -> Arm:
        return build_arm(name, self._lab.modules, partial(self._map, seed), seed=seed)

    def _map(self, seed: int) -> RobustnessResult:
        """The map of a seed. Its probe is trained at uniform's rate, which is chosen first."""
        analysis = AnalysisSpec()
        rate = self._rates["uniform"]
        return self._store.keep(
            RobustnessResult,
            f"map-{seed}",
            [analysis.model_dump(mode="json"), rate],
            lambda: self._lab.compute_map(analysis, rate=rate, seed=seed),
        )

    def _train(self, name: ArmName, rate: float, seed: int, *, attacks: bool = True) -> FinishedRun:
        arm = self._arm(name, seed)
        used = rate * arm.rate_factor
        title = f"{name}, rate {used:g}, seed {seed}"

        def train() -> FinishedRun:
            self._say(f"{title}: started")
            points, seconds = self._lab.train(
                arm,
                rate=used,
                seed=seed,
                compute_map=partial(self._map, seed),
                attacks=attacks,
                say=lambda point: self._say(f"  step {point.step}: {_describe(point)}"),
            )
            return FinishedRun(arm=name, rate=used, seed=seed, points=points, seconds=seconds)

        inputs: JsonValue = [
            arm.strategy.model_dump(mode="json"), used, seed, self._rates["uniform"] if needs_map(name) else None
        ]  # fmt: skip
        found = self._store.keep(FinishedRun, f"{name}-{seed}" + ("" if attacks else "-sweep"), inputs, train)
        self._say(f"{title}: {_describe(found.last)}, {found.seconds:.0f} s")
        return found


def _compare(base: Point, arms: Sequence[ArmName], runs: Sequence[FinishedRun]) -> tuple[Comparison, ...]:
    of = {name: [run for run in runs if run.arm == name] for name in arms}
    return tuple(compare_arm(base, of["uniform"][: len(own)], own) for own in of.values() if own)


def _describe(point: Point) -> str:
    if not point.harmful:
        return f"loss {point.loss:.3f}"
    success = f"{point.attack_success():.0f} / {point.attack_success('phrases'):.0f} % comply"
    return f"loss {point.loss:.3f}, {success}, {point.over_refusal:.0f} % over-refusal"
