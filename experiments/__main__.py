"""`python -m experiments NAME --world-seed N --seeds K --json OUT`: repeat the evidence.

Covers: the command line and the table that is printed. Progress goes to the error stream; the file is written at the
end, whole or not at all. Not here: what the experiments do.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from core.spec.base import Frozen
from experiments.ablation import ablation
from experiments.evidence import GENERAL, MATHS, evidence
from experiments.new_attack import new_attack
from experiments.spec import Comparison, Interval, Result
from experiments.transfer import transfer

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class Name(StrEnum):
    """The experiments."""

    GENERAL = "general"
    MATHS = "maths"
    NEW_ATTACK = "new_attack"
    TRANSFER = "transfer"
    ABLATION = "ablation"


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
    typer.echo(f"Written to {json}.", err=True)


def _run(name: Name, world_seed: int, seeds: list[int], steps: int | None) -> Frozen:
    settings = (MATHS if name is Name.MATHS else GENERAL).with_steps(steps)
    match name:
        case Name.GENERAL | Name.MATHS:
            return evidence(name.value, settings, world_seed, seeds, _say)
        case Name.NEW_ATTACK:
            return new_attack(settings, world_seed, seeds, _say)
        case Name.TRANSFER:
            return transfer(settings, world_seed, seeds, _say)
        case Name.ABLATION:
            return ablation(settings, world_seed, seeds, _say)


def table(result: Result) -> str:
    """The comparisons as text: reductions against uniform, mean and 95 % interval."""
    titles = ("arm", "ASR at equal task", "ASR at end", "ASR at worst", "harmfulness", "content", "task cost")
    compared = (*result.strategies.values(), *result.controls.values(), *result.safeguards.values())
    rows = [titles, *(_row(each) for each in compared)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(
        [
            f"{result.experiment}, world {result.world_seed}, seeds {len(result.seeds)}, rate {result.rate:g}; "
            "reductions against uniform",
            *lines,
        ]
    )


def _row(comparison: Comparison) -> tuple[str, str, str, str, str, str, str]:
    return (
        comparison.arm,
        _cell(comparison.asr_reduction_at_equal_task),
        _cell(comparison.asr_reduction_at_end),
        _cell(comparison.asr_reduction_at_worst),
        _cell(comparison.harmfulness_reduction_at_equal_task, digits=2),
        _cell(comparison.content_reduction_at_equal_task),
        _cell(comparison.task_cost),
    )


def _cell(interval: Interval, digits: int = 1) -> str:
    if interval.ci95 is None:
        return f"{interval.mean:.{digits}f}"
    low, high = interval.ci95
    return f"{interval.mean:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def _say(line: str) -> None:
    typer.echo(line, err=True)


if __name__ == "__main__":
    app()
