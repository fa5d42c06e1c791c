"""What several commands share: options, the settings, a client for the service, and how errors are reported.

Not here: any command.
"""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from core.config import Settings
    from securetune.client import SecureTune

StateOption = Annotated[
    Path | None,
    typer.Option(help="State folder. Default: SECURETUNE_STATE, or a folder in the user's data directory."),
]


UrlOption = Annotated[
    str | None,
    typer.Option(envvar="SECURETUNE_URL", help="Address of the service. Default: the one that `securetune up` runs."),
]
ApiKeyOption = Annotated[
    str | None,
    typer.Option(
        envvar="SECURETUNE_API_KEY",
        show_envvar=True,
        help="API key. Default: the first key of the service that `securetune up` runs.",
    ),
]


def settings_of(state: Path | None) -> "Settings":
    """The settings of this process, with the state folder from the command line."""
    from core.config import settings  # noqa: PLC0415

    return settings().model_copy(update={"state": state}) if state else settings()


@contextmanager
def service_at(url: str | None, api_key: str | None, state: Path | None) -> Generator["SecureTune"]:
    """A client for the given service, or for the one that `securetune up` runs."""
    from securetune.client import SecureTune  # noqa: PLC0415

    if url is None or api_key is None:
        from securetune.local.address import find_running  # noqa: PLC0415

        running = find_running(settings_of(state).state)
        url, api_key = url or running.address, api_key or running.api_key
    with SecureTune(url, api_key) as service:
        yield service


@contextmanager
def stoppable() -> Generator[None]:
    """End with a sentence on Ctrl-C. What is not finished is removed on the way."""
    try:
        yield
    except KeyboardInterrupt as error:
        typer.echo("securetune: Stopped. Nothing unfinished was kept.", err=True)
        raise typer.Exit(130) from error


@contextmanager
def report_errors() -> Generator[None]:
    """End with a sentence on stderr and status 1 if the block raises an error of securetune."""
    from core.errors import SecureTuneError  # noqa: PLC0415
    from securetune.client import ApiError  # noqa: PLC0415

    try:
        yield
    except (SecureTuneError, ApiError) as error:
        typer.echo(f"securetune: {error.message}", err=True)
        raise typer.Exit(1) from error
