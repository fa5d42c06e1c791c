"""What an API key stands for: a project, and rights beyond ordinary use.

Not here: secrets of keys (core.db.keys), checking a request (api.deps).
"""

from dataclasses import dataclass
from typing import Literal

Right = Literal["policy", "override"]
"""`policy`: may set the project's policy. `override`: may let an adapter out that the gate withholds."""
DEFAULT_PROJECT = "default"
"""The project of keys that name none."""


@dataclass(frozen=True)
class Caller:
    """Whoever holds a valid key."""

    key_id: str
    name: str
    project: str
    rights: frozenset[str] = frozenset()
