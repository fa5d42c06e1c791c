"""The address, first key and state folder of a running `securetune up`, and how to find one.

Not here: the HTTP client (securetune.client).
"""

import json
from pathlib import Path

from pydantic import ValidationError

from core.errors import Unavailable
from core.schemas.base import Frozen


class Address(Frozen):
    """The address of a running service and its files."""

    address: str
    """Base URL, such as `http://127.0.0.1:8000`."""
    api_key_file: Path
    """File with the first API key; only its owner can read it."""
    state: Path
    """State folder of the service."""
    pid: int
    """Process id of the supervisor."""

    @property
    def api_key(self) -> str:
        """The first API key."""
        return self.api_key_file.read_text().strip()

    def to_json(self) -> str:
        """Return one line of JSON."""
        return json.dumps(self.model_dump(mode="json"))


def find_running(state: Path) -> Address:
    """The service that runs on a state folder.

    Raises:
        Unavailable: code `not_running`; none has run there.
    """
    try:
        return Address.model_validate_json((state / "lock").read_text())
    except (OSError, ValidationError) as error:
        raise Unavailable(
            f"No service runs on {state}. Start it with `securetune up`, or name another one with --url and --api-key "
            "(SECURETUNE_URL and SECURETUNE_API_KEY).",
            code="not_running",
        ) from error
