"""`python -m research real MODEL …`: an experiment on a real model; `align MODEL …`: teaches a model to refuse;
`tables PAGE`: writes the tables of a page.

Covers: the command line. Progress goes to the error stream. Not here: what is trained and measured (research.real);
experiments on the testbed (research.experiments).
"""

from pathlib import Path
from typing import Annotated

import typer

from core.catalog import find, read
from core.data import promptsets
from core.schemas.prompts import Layout
from research.real.align import AlignmentFiles, AlignmentSettings
from research.real.align import align as real_align
from research.real.lab import Lab
from research.real.plan import digest_file, read_plan
from research.real.run import Experiment
from research.real.store import Store
from research.real.tables import fill

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
    arms: Annotated[str, typer.Option(help="Arms to train now, with commas; all of the plan without it.")] = "",
    seeds: Annotated[int | None, typer.Option(min=1, help="How many of the plan's seeds to train now.")] = None,
    harmful_layout: Annotated[Layout, typer.Option(help="Columns of --harmful.")] = "advbench",
    safe_layout: Annotated[Layout, typer.Option(help="Columns of --safe.")] = "xstest",
) -> None:
    """Train and attack every arm of a plan on a real model, and compare the arms at equal validation loss.

    An interrupted experiment is continued by the same command. The figures so far are written to --json after each run,
    and the table is printed at the end.
    """
    settings = read_plan(plan)
    chosen = [name for name in settings.arms if name in arms.split(",")]
    if unknown := set(filter(None, arms.split(","))) - set(settings.arms):
        raise typer.BadParameter(f"The plan has no arm {', '.join(sorted(unknown))}.", param_hint="--arms")
    digests = {"rows": digest_file(data), "harmful": digest_file(harmful), "safe": digest_file(safe)}
    entry = find(read(models, converted).models, model)
    requests = [each.full_text for each in promptsets.read(harmful, harmful_layout, "harmful")]
    look_alikes = [each.full_text for each in promptsets.read(safe, safe_layout, "safe")]
    table = ""
    try:
        lab = Lab(settings, entry, data, requests, look_alikes)
        common = settings.model_dump(mode="json", exclude={"arms", "seeds", "rates", "sweep_seed"})
        store = Store(out, {"plan": common, "model": lab.base.identity.sha256, "data": dict(digests)})
        experiment = Experiment(lab, store, _say, arms=chosen or None, seeds=seeds)
        for found in experiment.run(digests):
            fresh = json.with_suffix(json.suffix + ".part")
            fresh.write_text(found.model_dump_json(indent=1) + "\n", encoding="utf-8")
            fresh.replace(json)
            table = found.table()
    except KeyboardInterrupt:
        _say(f"Stopped. The same command continues with the finished runs in {out}.")
        raise typer.Exit(130) from None
    typer.echo(table)


@app.command()
def align(
    *,
    model: Annotated[str, typer.Argument(help="Name of a model in the server's list.")],
    requests: Annotated[list[Path], typer.Option(help="JSON file of harmful requests; may be repeated.", exists=True)],
    refusals: Annotated[Path, typer.Option(help="CSV of labelled responses (Response, label).", exists=True)],
    judged: Annotated[Path, typer.Option(help="CSV of judged completions, as XSTest's.", exists=True)],
    helpful: Annotated[Path, typer.Option(help="Ordinary instructions.", exists=True)],
    folder: Annotated[Path, typer.Option(help="New folder for the aligned model.")],
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps.")] = AlignmentSettings().steps,
    models: Annotated[Path | None, typer.Option(help="The server's list of models; none for the testbed.")] = None,
    converted: Annotated[Path, typer.Option(help="Folder of converted GGUF models.")] = Path("converted"),
) -> None:
    """Teach a chat model to refuse harmful requests, by full fine-tuning on public data, and save it as a folder."""
    entry = find(read(models, converted).models, model)
    files = AlignmentFiles(requests=tuple(requests), refusals=refusals, judged=judged, helpful=helpful)
    settings = AlignmentSettings(steps=steps)
    folder.mkdir(parents=True)

    def report(step: int, total: int, loss: float) -> None:
        if step % 10 == 0 or step == total:
            _say(f"step {step} of {total}: loss {loss:.3f}")

    rows = real_align(entry, files, settings, folder, report)
    _say(f"Trained on {rows} rows. To use the model, add it to the server's list with this folder as its source.")


@app.command()
def tables(
    page: Annotated[Path, typer.Argument(help="Markdown page that names files of results.", exists=True)],
) -> None:
    """Write the tables of a page anew from the results that it names, relative to the current folder."""
    page.write_text(fill(page.read_text(encoding="utf-8"), Path()), encoding="utf-8")


def _say(line: str) -> None:
    typer.echo(line, err=True)


if __name__ == "__main__":
    app()
