"""What an API key allows: a project, and rights beyond ordinary use.

Not here: secrets of keys (core.db.keys), authentication (api.deps).
"""

from dataclasses import dataclass
from typing import Literal

Right = Literal["policy", "override"]
"""`policy` allows setting the project's policy, `override` allows overriding the gate."""
DEFAULT_PROJECT = "default"
"""The project of keys without a named project."""


@dataclass(frozen=True)
class Caller:
    """The holder of a valid API key."""

    key_id: str
    name: str
    project: str
    rights: frozenset[str] = frozenset()
