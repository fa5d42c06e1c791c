"""`python -m research real MODEL --plan FILE --data FILE …`: an experiment on a real model.

Covers: the command line. Progress goes to the error stream. Not here: what is trained and measured (research.real);
experiments on the testbed (research.experiments).
"""

from pathlib import Path
from typing import Annotated

import typer

from core.catalog import find, read
from core.data import promptsets
from core.schemas.prompts import Layout
from research.real.lab import Lab
from research.real.plan import digest_file, read_plan
from research.real.run import Experiment
from research.real.store import Store

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True)


@app.callback()
def main() -> None:
    """Experiments behind the product's recommendations."""


@app.command()
def real(
    *,
    model: Annotated[str, typer.Argument(help="Name of a model in the server's list.")],
    plan: Annotated[Path, typer.Option(help="The plan, a Markdown file with the settings as TOML.", exists=True)],
    data: Annotated[Path, typer.Option(help="Rows to train on, in any format of an upload.", exists=True)],
    harmful: Annotated[Path, typer.Option(help="Harmful requests, in the layout --harmful-layout.", exists=True)],
    safe: Annotated[Path, typer.Option(help="Safe look-alikes, in the layout --safe-layout.", exists=True)],
    json: Annotated[Path, typer.Option(help="File for all figures.")],
    out: Annotated[Path, typer.Option(help="Folder of finished runs; what is there is not repeated.")],
    models: Annotated[Path | None, typer.Option(help="The server's list of models; none for the testbed.")] = None,
    converted: Annotated[Path, typer.Option(help="Folder of converted GGUF models.")] = Path("converted"),
    harmful_layout: Annotated[Layout, typer.Option(help="Columns of --harmful.")] = "advbench",
    safe_layout: Annotated[Layout, typer.Option(help="Columns of --safe.")] = "xstest",
) -> None:
    """Train and attack every arm of a plan on a real model, and compare the arms at equal validation loss.

    An interrupted experiment is continued by the same command. The figures so far are written to --json after each run,
    and the table is printed at the end.
    """
    settings = read_plan(plan)
    digests = {"rows": digest_file(data), "harmful": digest_file(harmful), "safe": digest_file(safe)}
    entry = find(read(models, converted).models, model)
    requests = [each.full_text for each in promptsets.read(harmful, harmful_layout, "harmful")]
    look_alikes = [each.full_text for each in promptsets.read(safe, safe_layout, "safe")]
    table = ""
    try:
        lab = Lab(settings, entry, data, requests, look_alikes)
        common = settings.model_dump(mode="json", exclude={"arms", "seeds", "rates", "sweep_seed"})
        store = Store(out, {"plan": common, "model": lab.base.identity.sha256, "data": dict(digests)})
        for found in Experiment(lab, store, _say).run(digests):
            fresh = json.with_suffix(json.suffix + ".part")
            fresh.write_text(found.model_dump_json(indent=1) + "\n", encoding="utf-8")
            fresh.replace(json)
            table = found.table()
    except KeyboardInterrupt:
        _say(f"Stopped. The same command continues with the finished runs in {out}.")
        raise typer.Exit(130) from None
    typer.echo(table)


def _say(line: str) -> None:
    typer.echo(line, err=True)


if __name__ == "__main__":
    app()
