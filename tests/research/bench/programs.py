"""Runs the command line of a benchmark in this process, because starting Python and its imports takes seconds.

Not here: the benchmarks' options and figures (the tests).
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer
from typer.testing import CliRunner, Result


def run(program: typer.Typer | Callable[..., None], *options: str | Path) -> Result:
    """Run a Typer application, or a function like `typer.run` does."""
    app = program
    if not isinstance(app, typer.Typer):
        app = typer.Typer(add_completion=False)
        app.command()(program)
    return CliRunner().invoke(app, [str(option) for option in options])


def run_for_figures(program: typer.Typer | Callable[..., None], *options: str | Path) -> dict[str, Any]:
    """Run a benchmark and parse its output, which must be one line of JSON."""
    done = run(program, *options)
    assert done.exit_code == 0, done.output
    (line,) = done.stdout.splitlines()
    return json.loads(line)
