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
    """Harmful requests that were asked."""
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
        head = f"{self.model.name}, {self.requests} harmful requests, seeds {len(self.plan.seeds)}"
        return f"{head}\n{write_table(self.base, self.compared)}"


class Experiment:
    """Does the runs that are not in the store."""

    def __init__(
        self,
        lab: Lab,
        store: Store,
        say: Say,
        *,
        arms: Sequence[ArmName] | None = None,
        seeds: int | None = None,
    ) -> None:
        """`arms` and `seeds` limit what is done now: some of the plan's arms, and its first seeds."""
        self._lab, self._store, self._say, self._settings = lab, store, say, lab.settings
        self._arms: tuple[ArmName, ...] = tuple(
            dict.fromkeys(("uniform", *(lab.settings.arms if arms is None else arms)))
        )
        self._seeds = lab.settings.seeds[:seeds]
        self._rates: dict[ArmName, float] = {}
        self._sweeps: dict[str, dict[str, float]] = {}

    def run(self, data: dict[str, str]) -> Iterator[Result]:
        """The figures after each run, of all finished runs of the plan. `data` are digests of the files, by use."""
        lab = self._lab
        base = self._store.keep(Point, "base", None, lambda: lab.measure(lab.base.model, 0, attacks=True, answers=True))
        self._say(f"base model: {_describe(base)}")
        for seed, name in product(self._seeds, self._arms):
            self._make(name, seed)
            yield self._collect(base, data)

    def _collect(self, base: Point, data: dict[str, str]) -> Result:
        """All finished runs, also of arms and seeds that are not done now."""
        lab, settings = self._lab, self._settings
        arms: tuple[ArmName, ...] = tuple(dict.fromkeys(("uniform", *settings.arms)))
        found = [self._find(name, seed) for seed, name in product(settings.seeds, arms)]
        runs = [run for run in found if run is not None]
        return Result(
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

    def _make(self, name: ArmName, seed: int) -> FinishedRun:
        """The run of an arm and a seed, after the sweep of its rate."""
        chosen_by = self._rated_by(name, seed)
        rate = self._find_rate(chosen_by)
        if rate is None:
            for each in self._settings.rates:
                self._train(chosen_by, each, self._settings.sweep_seed, attacks=False)
            return self._make(name, seed)
        return self._train(name, rate, seed)

    def _find(self, name: ArmName, seed: int) -> FinishedRun | None:
        """The same, if it is stored."""
        if needs_map(name) and not self._has_map(seed):
            return None
        rate = self._find_rate(self._rated_by(name, seed))
        return None if rate is None else self._stored(name, rate, seed)

    def _find_rate(self, name: ArmName) -> float | None:
        """The rate with the lowest validation loss in the arm's sweep; None if that is not finished."""
        if name not in self._rates and (losses := self._find_sweep(name)) is not None:
            self._rates[name] = min(losses, key=losses.__getitem__)
            if len(losses) > 1:
                self._sweeps[name] = {f"{rate:g}": loss for rate, loss in losses.items()}
                self._say(f"{name}: rate {self._rates[name]:g}")
        return self._rates.get(name)

    def _find_sweep(self, name: ArmName) -> dict[float, float] | None:
        """Validation loss at the end of each run of the arm's sweep. A single rate needs no run, and has none."""
        rates, seed = self._settings.rates, self._settings.sweep_seed
        if len(rates) == 1:
            return dict.fromkeys(rates, 0.0)
        if needs_map(name) and not self._has_map(seed):
            return None
        ends = {rate: self._stored(name, rate, seed, attacks=False) for rate in rates}
        losses = {rate: run.last.loss for rate, run in ends.items() if run is not None}
        return losses if len(losses) == len(rates) else None

    def _rated_by(self, name: ArmName, seed: int) -> ArmName:
        """The arm whose sweep chooses the rate."""
        return self._arm(name, seed).rate_of or name

    def _arm(self, name: ArmName, seed: int) -> Arm:
        return build_arm(name, self._lab.modules, partial(self._map, seed), seed=seed)

    def _map(self, seed: int) -> RobustnessResult:
        """The map of a seed. Its probe is trained at uniform's rate, which is chosen first."""
        analysis, rate = AnalysisSpec(), self._rates["uniform"]
        return self._store.keep(
            RobustnessResult,
            f"map-{seed}",
            self._map_inputs(),
            lambda: self._lab.compute_map(analysis, rate=rate, seed=seed),
        )

    def _has_map(self, seed: int) -> bool:
        return self._store.find(RobustnessResult, f"map-{seed}", self._map_inputs()) is not None

    def _map_inputs(self) -> JsonValue:
        return [AnalysisSpec().model_dump(mode="json"), self._rates["uniform"]]

    def _stored(self, name: ArmName, rate: float, seed: int, *, attacks: bool = True) -> FinishedRun | None:
        return self._store.find(FinishedRun, _title(name, seed, attacks=attacks), self._run_inputs(name, rate, seed))

    def _run_inputs(self, name: ArmName, rate: float, seed: int) -> JsonValue:
        arm = self._arm(name, seed)
        mapped = self._rates["uniform"] if needs_map(name) else None
        return [arm.strategy.model_dump(mode="json"), rate * arm.rate_factor, seed, mapped]

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

        inputs = self._run_inputs(name, rate, seed)
        found = self._store.keep(FinishedRun, _title(name, seed, attacks=attacks), inputs, train)
        self._say(f"{title}: {_describe(found.last)}, {found.seconds:.0f} s")
        return found


def _title(name: ArmName, seed: int, *, attacks: bool) -> str:
    return f"{name}-{seed}" + ("" if attacks else "-sweep")


def _compare(base: Point, arms: Sequence[ArmName], runs: Sequence[FinishedRun]) -> tuple[Comparison, ...]:
    """Every arm with the seeds that `uniform` has been trained with too."""
    uniform = {run.seed: run for run in runs if run.arm == "uniform"}
    of = {name: [run for run in runs if run.arm == name and run.seed in uniform] for name in arms}
    return tuple(compare_arm(base, [uniform[run.seed] for run in own], own) for own in of.values() if own)


def _describe(point: Point) -> str:
    if not point.harmful:
        return f"loss {point.loss:.3f}"
    success = f"{point.attack_success():.0f} / {point.attack_success('phrases'):.0f} % comply"
    return f"loss {point.loss:.3f}, {success}, {point.over_refusal:.0f} % over-refusal"
