"""What an API key stands for: a project, and rights beyond ordinary use.

Not here: secrets of keys (core.db.keys), checking a request (api.deps).
"""

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from pydantic import Field

Right = Literal["policy", "override"]
"""`policy`: may set the project's policy. `override`: may let an adapter out that the gate withholds."""
RIGHTS: tuple[Right, ...] = get_args(Right)
DEFAULT_PROJECT = "default"
"""The project of keys that name none."""
Project = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-z0-9][a-z0-9-]*$")]


@dataclass(frozen=True)
class Caller:
    """Whoever holds a valid key."""

    key_id: str
    name: str
    project: str
    rights: frozenset[str] = frozenset()
