"""What a caller needs to know of a running `securetune up`.

Not here: the HTTP client (client/).
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True)
class Address:
    """Where a service runs, and where its things are. One line of JSON, for programs."""

    address: str
    """Such as `http://127.0.0.1:8000`."""
    api_key_file: Path
    """Readable by its owner only."""
    state: Path
    pid: int
    """Process id of the supervisor."""

    @property
    def api_key(self) -> str:
        """The first API key."""
        return self.api_key_file.read_text().strip()

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, line: str) -> Self:
        """Read `to_json`'s line.

        Raises:
            ValueError, KeyError: it is no such line.
        """
        found = json.loads(line)
        return cls(found["address"], Path(found["api_key_file"]), Path(found["state"]), int(found["pid"]))
