"""The command line `securetune`: one thin function per command. Imports are inside them, so that `--help` is quick.

Not here: what the commands do (securetune.local, securetune.cli.demo, securetune.cli.verify, core.db.keys).
"""

from collections.abc import Generator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from securetune.cli import models_app
from securetune.cli.common import (
    ApiKeyOption,
    StateOption,
    UrlOption,
    report_errors,
    service_at,
    settings_of,
)
from securetune.cli.estimate import command as estimate

if TYPE_CHECKING:
    from core.db.session import Session
    from securetune.local.address import Address

app = typer.Typer(
    name="securetune",
    help="Self-hosted secure fine-tuning of language models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,  # they may hold a key
)
key_app = typer.Typer(no_args_is_help=True)
datasets_app = typer.Typer(no_args_is_help=True)
app.add_typer(datasets_app, name="datasets", help="Look at datasets before they are trained on.")
app.add_typer(models_app.app, name="models", help="Fetch, convert and check base models.")
app.command("estimate")(estimate)
app.add_typer(key_app, name="key", help="Create, list and revoke API keys; rotate the signing key.")


class KeyRight(StrEnum):
    """Rights of a key: `core.schemas.keys.Right` as an enum, because typer does not accept lists of literals."""

    POLICY = "policy"
    OVERRIDE = "override"


_DEMO_ROWS = 200
"""Rows that the demo uses from a file of the user's, so that it ends in minutes."""


def _show_version(wanted: bool) -> None:
    from importlib.metadata import version  # noqa: PLC0415

    if wanted:
        typer.echo(version("securetune"))
        raise typer.Exit


@app.callback()
def main(
    _version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_show_version,
            is_eager=True,
            help="Print the version.",
        ),
    ] = False,
) -> None:
    """Self-hosted secure fine-tuning of language models."""


@app.command()
def up(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the API; 0 chooses a free one.")] = 8000,
    host: Annotated[str, typer.Option(help="Address that the API listens on.")] = "127.0.0.1",
    state: StateOption = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one line of JSON when ready; send messages to stderr.")
    ] = False,
) -> None:
    """Run the whole service on this machine until Ctrl-C: PostgreSQL, Valkey, API and worker."""
    from securetune.local import up as local  # noqa: PLC0415

    def show(line: str) -> None:
        typer.echo(line, err=as_json)

    def ready(address: "Address", new_key: bool) -> None:
        typer.echo(address.to_json() if as_json else local.welcome(address, new_key))

    with report_errors():
        local.up(settings_of(state), host, port, show, ready)


@app.command()
def demo(
    *,
    data: Annotated[
        Path | None, typer.Option(help="Dataset file. Default: the instructions that come with the testbed.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the results and the demo's own service.")] = Path("var/demo"),
    rows: Annotated[
        int | None,
        typer.Option(
            min=0, help="Rows to use, spread evenly over the file; 0 uses all. Default: 200 of your own file."
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Training steps. Default: 250, or three passes over your own rows.")
    ] = None,
    max_length: Annotated[int, typer.Option(min=16, help="Longest row in tokens.")] = 256,
    suite: Annotated[
        Literal["quick", "standard", "full"],
        typer.Option(help="Attacks that are run. With `quick`, the gate has too few answers to release anything."),
    ] = "standard",
) -> None:
    """Tune the testbed three ways, attack each result, and show which one the gate releases."""
    from rich.console import Console  # noqa: PLC0415

    from securetune.cli import demo as program  # noqa: PLC0415

    if data is None:
        data, rows, steps = program.BUILTIN_DATA, rows or 0, steps or program.BUILTIN_STEPS
    elif rows is None:
        rows = _DEMO_ROWS
    with report_errors():
        program.demo(data, out, Console(), rows=rows, steps=steps, max_length=max_length, suite=suite)


@app.command()
def migrate(state: StateOption = None) -> None:
    """Migrate the database named by DATABASE_URL, or the one that `securetune up` runs, to this version."""
    from core.db import migrate as program  # noqa: PLC0415
    from core.db import schema  # noqa: PLC0415

    with report_errors(), _database_url(state) as url:
        program.upgrade(url)
        typer.echo(f"The database is up to date: revision {schema.newest()}.")


@app.command()
def verify(
    report: Annotated[
        Path, typer.Argument(help="A signed_report.json, the folder that contains it, or another file in that folder.")
    ],
    keys: Annotated[
        Path | None,
        typer.Option(
            envvar="SECURETUNE_TRUSTED_KEYS",
            help="File with the public keys that you trust, as returned by GET /signing-keys.",
        ),
    ] = None,
    file: Annotated[
        list[Path] | None, typer.Option(help="Another file or folder to compare with the report; may be repeated.")
    ] = None,
    state: StateOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Verify a signed report and its files, offline.

    Exit status: 0 verified, 1 tampered or untrusted key, 2 no report or no keys.
    """
    from securetune.cli import verify as program  # noqa: PLC0415

    raise typer.Exit(program.run(report, keys, settings_of(state).signing, tuple(file or ()), as_json=as_json))


@datasets_app.command("preview")
def preview_dataset(
    *,
    dataset: Annotated[str, typer.Argument(help="Id of a dataset, or a file, which is uploaded first.")],
    model: Annotated[str, typer.Option(help="Base model whose chat template is used, as in GET /models.")],
    rows: Annotated[int, typer.Option(min=1, max=50, help="Number of rows to show.")] = 5,
    line: Annotated[int, typer.Option(min=1, help="Line of the file to begin at.")] = 1,
    max_length: Annotated[int, typer.Option(min=16, max=131_072, help="Longest row in tokens.")] = 1024,
    thinking: Annotated[
        Literal["train", "drop", "reject"], typer.Option(help="What happens to what the assistant thought.")
    ] = "train",
    turns: Annotated[Literal["all", "last"], typer.Option(help="Which assistant turns are trained on.")] = "all",
    html: Annotated[Path | None, typer.Option(help="File to save a page to, instead of printing rows.")] = None,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    state: StateOption = None,
) -> None:
    """Show what a job would train on, token by token, with the model's chat template."""
    from rich.console import Console  # noqa: PLC0415

    from core.schemas.preview import PreviewRequest  # noqa: PLC0415
    from securetune.cli import datasets as program  # noqa: PLC0415

    request = PreviewRequest(model=model, rows=rows, line=line, max_length=max_length, thinking=thinking, turns=turns)
    with report_errors(), service_at(url, api_key, state) as service:
        program.preview(service, dataset, request, Console(soft_wrap=True), html)


@key_app.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="What the key is for; shown in lists.")],
    project: Annotated[str, typer.Option(help="Project whose policy applies to the key's jobs.")] = "default",
    right: Annotated[
        list[KeyRight] | None,
        typer.Option(
            help="Additional right; may be repeated. `policy`: set the project's policy. `override`: release an "
            "adapter that the gate withholds."
        ),
    ] = None,
    state: StateOption = None,
) -> None:
    """Create an API key and print it. It is shown only once."""
    from core.db import keys  # noqa: PLC0415

    with report_errors(), _database(state) as session:
        typer.echo(keys.create(session, name, project=project, rights=[each.value for each in right or ()]))


@key_app.command("list")
def list_keys(state: StateOption = None) -> None:
    """List API keys: id, state, creation time, project, rights, name."""
    from core.db import keys  # noqa: PLC0415

    with report_errors(), _database(state) as session:
        for key in keys.everyone(session):
            state_of_key = "revoked" if key.revoked_at else "valid"
            rights = ",".join(key.rights) or "-"
            typer.echo(
                f"{key.id}  {state_of_key:7}  {key.created_at:%Y-%m-%d %H:%M}  {key.project}  {rights}  {key.name}"
            )


@key_app.command("revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(help="Id of the key, as listed by `securetune key list`.")],
    state: StateOption = None,
) -> None:
    """Revoke an API key, with immediate effect."""
    from core.db import keys  # noqa: PLC0415

    with report_errors(), _database(state) as session:
        keys.revoke(session, key_id)


@key_app.command("rotate-signing")
def rotate_signing(state: StateOption = None) -> None:
    """Sign reports with a new key from now on. Reports signed by the old key stay valid."""
    from core.signing import SigningKeys  # noqa: PLC0415

    with report_errors():
        known = settings_of(state)
        keyid = SigningKeys(known.signing, known.signing_key).rotate().keyid
        typer.echo(f"New reports are signed with key {keyid}.")


@contextmanager
def _database(state: Path | None) -> Generator["Session"]:
    """One transaction in the database."""
    from core.db.session import once  # noqa: PLC0415

    with _database_url(state) as url, once(url) as session:
        yield session


@contextmanager
def _database_url(state: Path | None) -> Generator[str]:
    """The address in DATABASE_URL, or of the database that `securetune up` runs. The API image only has the former."""
    from core.config import settings  # noqa: PLC0415
    from core.errors import Unavailable  # noqa: PLC0415

    if url := settings().database_url.get_secret_value():
        yield url
        return
    try:
        from securetune.local.up import database  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise Unavailable(
            "DATABASE_URL is not set. Set it to the address of the database.", code="not_configured"
        ) from error
    with database(state or settings().state, settings()) as url:
        yield url


if __name__ == "__main__":
    app()
