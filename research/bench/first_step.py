"""From `POST /jobs` to the first training step on a warm worker, over the real API.

Target: under 2 s, plus the measuring that the job asks for. All times are the server's, read from the job's events; the
worker's heartbeat is 0.1 s here instead of 1 s, because a step is recorded with the next beat.
The first job is reported apart: it is ordered while the worker still starts, and measures the base model's figures,
which all later jobs share.
"""

import statistics
from typing import Annotated

import typer

from core.schemas.analysis import AnalysisSpec, NoisePerturbation
from core.schemas.events import Figures, Metrics, StageFinished, StageStarted, StatusChanged
from core.schemas.strategy import MlLrStrategy, Strategy, UniformStrategy
from research.bench.figures import benchmark, spreads
from research.bench.service import Service, own_service, small_job

_STRATEGIES: tuple[Strategy, ...] = (
    UniformStrategy(),
    MlLrStrategy(analysis=AnalysisSpec(perturbation=NoisePerturbation(seeds=1), probes=16)),
)
_MEASURING = ("before", "robustness")
_ROWS = 16


def main(jobs: Annotated[int, typer.Option(min=0, help="Jobs for each strategy; 0: the cold one only.")] = 5) -> None:
    """Seconds from an order to its first training step."""
    with (
        benchmark("first_step") as figures,
        own_service({"SECURETUNE_HEARTBEAT_SECONDS": "0.1"}) as service,
    ):
        dataset = service.upload(_ROWS)
        figures["cold"] = _timed(service, dataset, _STRATEGIES[0])
        for strategy in _STRATEGIES if jobs else ():
            found = []
            for _ in range(jobs):
                service.await_warm()
                found.append(_timed(service, dataset, strategy))
            figures[strategy.label] = spreads(found)
            overheads = [times["overhead"] for times in found]
            figures[f"{strategy.label}_overhead_under_target"] = sum(seconds < 2 for seconds in overheads)
            typer.echo(f"{strategy.label}: overhead {statistics.median(overheads):.2f} s")
        figures["target_overhead_seconds"] = 2.0


def _timed(service: Service, dataset: str, strategy: Strategy) -> dict[str, float]:
    """Seconds of each phase. `measuring` is what the job asked for; the rest of the way is `overhead`."""
    job = service.finished(service.client.create_job(small_job(dataset, strategy, steps=2)).id)
    events = [
        ((each.created_at - job.created_at).total_seconds(), each.event) for each in service.client.events(job.id)
    ]
    begun = {event.stage: at for at, event in events if isinstance(event, StageStarted)}
    took = {event.stage: event.seconds for _, event in events if isinstance(event, StageFinished)}
    ended = {event.stage: at for at, event in events if isinstance(event, StageFinished)}
    claimed = next(at for at, event in events if isinstance(event, StatusChanged))
    base_known = next(at for at, event in events if isinstance(event, Figures))
    first_step = next(at for at, event in events if isinstance(event, Metrics))
    measuring = sum(took.get(stage, 0.0) for stage in _MEASURING) + base_known - ended["before"]
    phases = {
        "to_first_step": first_step,
        "measuring": measuring,
        "overhead": first_step - measuring,
        "until_claimed": claimed,
        "until_begun": begun["base_model"] - claimed,
        "base_model": took["base_model"],
        "dataset": took["dataset"],
        "before": took["before"],
        "task_figures": base_known - ended["before"],
        "robustness": took.get("robustness", 0.0),
        "training_until_first_step": first_step - begun["training"],
    }
    return {phase: round(seconds, 3) for phase, seconds in phases.items()}


if __name__ == "__main__":
    typer.run(main)
