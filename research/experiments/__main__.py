"""`python -m research.experiments NAME --world-seed N --seeds K --json OUT`: repeat the evidence.

Covers: the command line. Progress goes to the error stream; the file is written at the end, whole or not at all. Not
here: what the experiments do.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from core.schemas.base import Frozen
from research.experiments.ablation import ablation
from research.experiments.domains import DomainsResult, domains
from research.experiments.evidence import GENERAL, MATHS, Result, evidence
from research.experiments.extraction import ExtractionResult, extraction
from research.experiments.new_attack import new_attack
from research.experiments.poisoning import PoisoningResult, poisoning
from research.experiments.pool import Say
from research.experiments.spec import Settings
from research.experiments.transfer import transfer

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

Name = Literal[
    "general", "maths", "new_attack", "transfer", "ablation", "domains", "domains_toy", "poisoning", "extraction"
]
_EXPERIMENTS: dict[Name, Callable[[Settings, int, list[int], Say], Frozen]] = {
    "general": partial(evidence, "general"),
    "maths": partial(evidence, "maths"),
    "new_attack": new_attack,
    "transfer": transfer,
    "ablation": ablation,
    "domains": domains,
    "domains_toy": partial(domains, source="toy"),
    "poisoning": poisoning,
    "extraction": extraction,
}


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
    settings = (MATHS if name == "maths" else GENERAL).with_steps(steps)
    try:
        found = _EXPERIMENTS[name](settings, world_seed, list(range(seeds)), _say)
    except KeyboardInterrupt:
        _say("Stopped; nothing was written.")
        raise typer.Exit(130) from None
    fresh = json.with_suffix(json.suffix + ".part")
    fresh.write_text(found.model_dump_json(indent=1) + "\n", encoding="utf-8")
    fresh.replace(json)
    if isinstance(found, Result | DomainsResult | PoisoningResult | ExtractionResult):
        typer.echo(found.table())
    _say(f"Written to {json}.")


def _say(line: str) -> None:
    typer.echo(line, err=True)


if __name__ == "__main__":
    app()
