"""`securetune`: one thin function a command. Heavy imports happen inside the commands, so that `--help` is quick.

Not here: what the commands do (local, core.db.keys).
"""

from collections.abc import Generator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from core.config import Settings
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
app.add_typer(key_app, name="key", help="Make, list and revoke API keys; exchange the signing key.")


class KeyRight(StrEnum):
    """Rights that a key may be given: `core.schemas.keys.Right` for typer, which takes no list of literals."""

    POLICY = "policy"
    OVERRIDE = "override"


_ROWS_OF_OTHERS = 200
"""Rows that the demo takes of a file that is not its own, so that it stays a demo."""

StateOption = Annotated[
    Path | None,
    typer.Option(help="Where everything is kept; by default SECURETUNE_STATE, or below the user's data directory."),
]


@app.command()
def up(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the API; 0 takes any free one.")] = 8000,
    host: Annotated[str, typer.Option(help="Address that the API listens on.")] = "127.0.0.1",
    state: StateOption = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one line of JSON when ready; messages go to stderr.")
    ] = False,
) -> None:
    """Run the whole service on this machine until Ctrl-C: database, broker, API and worker."""
    from core.config import settings  # noqa: PLC0415
    from securetune.local import up as local  # noqa: PLC0415

    def say(line: str) -> None:
        typer.echo(line, err=as_json)

    def ready(address: "Address", new_key: bool) -> None:
        typer.echo(address.to_json() if as_json else local.welcome(address, new_key))

    with _errors_told():
        local.up(local.Options(state or settings().state, host, port), settings(), say, ready)


@app.command()
def demo(
    data: Annotated[
        Path | None, typer.Option(help="Any dataset file; by default the instructions that come with the testbed.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where results, and the demo's own service, are kept.")] = Path("var/demo"),
    rows: Annotated[
        int | None,
        typer.Option(min=0, help="Rows to use, spread over the file; 0 takes all. By default 200 of your own."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Training steps; by default three passes over your own rows, or 250.")
    ] = None,
    max_length: Annotated[int, typer.Option(min=16, help="Longest row, in tokens.")] = 256,
) -> None:
    """Tune the testbed with uniform and with module-wise learning rates, attack both, and compare."""
    from rich.console import Console  # noqa: PLC0415

    from securetune.cli import demo as program  # noqa: PLC0415

    most = rows if rows is not None else (0 if data is None else _ROWS_OF_OTHERS)
    with _errors_told():
        length = steps if steps is not None or data is not None else program.BUILTIN_STEPS
        program.demo(program.Options(data or program.BUILTIN_DATA, out, most, length, max_length), Console())


@app.command()
def migrate(state: StateOption = None) -> None:
    """Bring the database up to date: the one that DATABASE_URL names, or else the one that `securetune up` runs."""
    from core.db import migrate as program  # noqa: PLC0415
    from core.db import schema  # noqa: PLC0415

    with _errors_told(), _database_url(state) as url:
        program.upgrade(url)
        typer.echo(f"The database is up to date: revision {schema.newest()}.")


@app.command()
def verify(
    report: Annotated[
        Path, typer.Argument(help="A signed_report.json; or the folder it lies in; or a report.html or file beside it.")
    ],
    keys: Annotated[
        Path | None,
        typer.Option(envvar="SECURETUNE_TRUSTED_KEYS", help="Keys that you trust, as GET /signing-keys answers them."),
    ] = None,
    file: Annotated[
        list[Path] | None, typer.Option(help="Another file or folder to hold against the report; may be repeated.")
    ] = None,
    state: StateOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check a signed report and its files, offline. Exit status 1: they are not what a trusted key signed."""
    from securetune.cli import verify as program  # noqa: PLC0415

    options = program.Options(report, keys, _settings(state).signing, tuple(file or ()))
    raise typer.Exit(program.run(options, as_json, typer.echo, lambda line: typer.echo(line, err=True)))


@key_app.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="What the key is for; shown in lists.")],
    project: Annotated[str, typer.Option(help="The project whose policy holds for its jobs.")] = "default",
    right: Annotated[
        list[KeyRight] | None,
        typer.Option(
            help="A right beyond ordinary use; may be repeated. `policy`: set the project's policy. `override`: let "
            "out what the gate withholds."
        ),
    ] = None,
    state: StateOption = None,
) -> None:
    """Make an API key and print it. This is the only time it is shown."""
    from core.db import keys  # noqa: PLC0415

    with _errors_told(), _database(state) as session:
        typer.echo(keys.create(session, name, project=project, rights=[each.value for each in right or ()]))


@key_app.command("list")
def list_keys(state: StateOption = None) -> None:
    """List the API keys: id, state, when made, project, rights, name."""
    from core.db import keys  # noqa: PLC0415

    with _errors_told(), _database(state) as session:
        for key in keys.everyone(session):
            life = "revoked" if key.revoked_at else "valid"
            rights = ",".join(key.rights) or "-"
            typer.echo(f"{key.id}  {life:7}  {key.created_at:%Y-%m-%d %H:%M}  {key.project}  {rights}  {key.name}")


@key_app.command("revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(help="The id that `securetune key list` shows.")], state: StateOption = None
) -> None:
    """End a key's life at once."""
    from core.db import keys  # noqa: PLC0415

    with _errors_told(), _database(state) as session:
        keys.revoke(session, key_id)


@key_app.command("rotate-signing")
def rotate_signing(state: StateOption = None) -> None:
    """Sign reports with a new key from now on; what the old one signed stays good."""
    from core.signing import SigningKeys  # noqa: PLC0415

    with _errors_told():
        known = _settings(state)
        keyid = SigningKeys(known.signing, known.signing_key).rotate().keyid
        typer.echo(f"Reports are signed by key {keyid} from now on.")


def _settings(state: Path | None) -> "Settings":
    """The settings of this process, with the state directory that the user names."""
    from core.config import settings  # noqa: PLC0415

    return settings().model_copy(update={"state": state}) if state else settings()


@contextmanager
def _database(state: Path | None) -> Generator["Session"]:
    """One transaction in the database."""
    from core.db.session import once  # noqa: PLC0415

    with _database_url(state) as url, once(url) as session:
        yield session


@contextmanager
def _database_url(state: Path | None) -> Generator[str]:
    """What DATABASE_URL says, or else the database that `securetune up` runs. The API's image has the first only."""
    from core.config import settings  # noqa: PLC0415
    from core.errors import Unavailable  # noqa: PLC0415

    if url := settings().database_url.get_secret_value():
        yield url
        return
    try:
        from securetune.local.up import database  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise Unavailable("DATABASE_URL is not set: which database is meant?", code="not_configured") from error
    with database(state or settings().state, settings()) as url:
        yield url


@contextmanager
def _errors_told() -> Generator[None]:
    from core.errors import SecureTuneError  # noqa: PLC0415
    from securetune.client import ApiError  # noqa: PLC0415

    try:
        yield
    except (SecureTuneError, ApiError) as error:
        typer.echo(f"securetune: {error.message}", err=True)
        raise typer.Exit(1) from error


if __name__ == "__main__":
    app()
