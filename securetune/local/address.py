"""The address, first key and state folder of a running `securetune up`.

Not here: the HTTP client (securetune.client).
"""

import json
from pathlib import Path

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
