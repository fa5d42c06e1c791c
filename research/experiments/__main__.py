"""`python -m research.experiments NAME --world-seed N --seeds K --json OUT`: repeat the evidence.

Covers: the command line and the table that is printed. Progress goes to the error stream; the file is written at the
end, whole or not at all. Not here: what the experiments do.
"""

from collections.abc import Callable
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Protocol, runtime_checkable

import typer

from core.schemas.base import Frozen
from research.experiments.ablation import ablation
from research.experiments.domains import domains
from research.experiments.evidence import GENERAL, MATHS, evidence
from research.experiments.extraction import extraction
from research.experiments.new_attack import new_attack
from research.experiments.poisoning import poisoning
from research.experiments.pool import Say
from research.experiments.readings import aligned, cell
from research.experiments.spec import Comparison, Result, Settings
from research.experiments.transfer import transfer

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class Name(StrEnum):
    """The experiments."""

    GENERAL = "general"
    MATHS = "maths"
    NEW_ATTACK = "new_attack"
    TRANSFER = "transfer"
    ABLATION = "ablation"
    DOMAINS = "domains"
    DOMAINS_TOY = "domains_toy"
    POISONING = "poisoning"
    EXTRACTION = "extraction"


@runtime_checkable
class Tabled(Protocol):
    """A result that says itself what is printed of it."""

    def table(self) -> str:
        """What was found, as text."""
        ...


@app.command()
def main(
    name: Annotated[Name, typer.Argument(help="Which experiment.")],
    json: Annotated[Path, typer.Option(help="File for the result.")],
    world_seed: Annotated[int, typer.Option(min=0, help="World; it is built first if it is not kept yet.")] = 1,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Runs of each arm, with seeds from 0.")] = 3,
    steps: Annotated[
        int | None, typer.Option(min=10, max=10_000, help="Optimizer steps of every arm, if not the experiment's own.")
    ] = None,
) -> None:
    """Run one experiment, print its comparisons, and write everything to a file."""
    json.parent.mkdir(parents=True, exist_ok=True)
    try:
        found = _run(name, world_seed, list(range(seeds)), steps)
    except KeyboardInterrupt:
        typer.echo("Stopped; nothing was written.", err=True)
        raise typer.Exit(130) from None
    fresh = json.with_suffix(json.suffix + ".part")
    fresh.write_text(found.model_dump_json(indent=1) + "\n", encoding="utf-8")
    fresh.replace(json)
    if isinstance(found, Result):
        typer.echo(table(found))
    elif isinstance(found, Tabled):
        typer.echo(found.table())
    typer.echo(f"Written to {json}.", err=True)


def _run(name: Name, world_seed: int, seeds: list[int], steps: int | None) -> Frozen:
    settings = (MATHS if name is Name.MATHS else GENERAL).with_steps(steps)
    if name in _OTHERS:
        return _OTHERS[name](settings, world_seed, seeds, _say)
    return evidence(name.value, settings, world_seed, seeds, _say)


def table(result: Result) -> str:
    """The comparisons as text: reductions against uniform, mean and 95 % interval."""
    titles = ("run", "ASR at equal task", "ASR at end", "ASR at worst", "harmfulness", "content", "task cost")
    compared = (*result.strategies.values(), *result.controls.values(), *result.safeguards.values())
    rows = [titles, *(_row(each) for each in compared)]
    return "\n".join(
        [
            f"{result.experiment}, world {result.world_seed}, seeds {len(result.seeds)}, rate {result.rate:g}; "
            "reductions against uniform",
            *aligned(rows),
        ]
    )


def _row(comparison: Comparison) -> tuple[str, str, str, str, str, str, str]:
    return (
        comparison.run,
        cell(comparison.asr_reduction_at_equal_task),
        cell(comparison.asr_reduction_at_end),
        cell(comparison.asr_reduction_at_worst),
        cell(comparison.harmfulness_reduction_at_equal_task, digits=2),
        cell(comparison.content_reduction_at_equal_task),
        cell(comparison.task_cost),
    )


def _say(line: str) -> None:
    typer.echo(line, err=True)


_OTHERS: dict[Name, Callable[[Settings, int, list[int], Say], Frozen]] = {
    Name.NEW_ATTACK: new_attack,
    Name.TRANSFER: transfer,
    Name.ABLATION: ablation,
    Name.DOMAINS: domains,
    Name.DOMAINS_TOY: partial(domains, source="toy"),
    Name.POISONING: poisoning,
    Name.EXTRACTION: extraction,
}
"""Experiments beside `general` and `maths`."""


if __name__ == "__main__":
    app()
