"""The address, first key and state folder of a running `securetune up`.

Not here: the HTTP client (securetune.client).
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True)
class Address:
    """The address of a running service and its files; serialised as one line of JSON."""

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
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, line: str) -> Self:
        """Parse the output of `to_json`.

        Raises:
            ValueError, KeyError: the line is not JSON, or a field is missing.
        """
        fields = json.loads(line)
        return cls(fields["address"], Path(fields["api_key_file"]), Path(fields["state"]), int(fields["pid"]))
