"""What a user installs and imports: the Python client, the command line, and everything on one machine.

    from securetune import SecureTune

Not here: the service itself (api, worker, core).
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from securetune.client import ApiError, SecureTune

__all__ = ["ApiError", "SecureTune"]


def __getattr__(name: str) -> object:
    """Import the client when it is first used: the command line starts in a tenth of the time without it."""
    if name in __all__:
        from securetune import client  # noqa: PLC0415

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
