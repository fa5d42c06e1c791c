"""Finished runs and maps as files: what is there is not computed again.

Not here: what is computed (research.real.lab).
"""

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, Field, JsonValue

from core.pipeline.cache import software
from core.schemas.base import Frozen
from research.real.measure import Point

Stored = TypeVar("Stored", bound=BaseModel)


class FinishedRun(Frozen):
    """One run with its figures."""

    arm: str
    rate: float
    """Learning rate of the modules at the full rate."""
    seed: int
    points: tuple[Point, ...]
    """In the order of steps."""
    seconds: float
    """Training without measuring and without the map, with what safeguards did before it."""
    software: dict[str, str] = Field(default_factory=software)
    """Versions that the figures depend on."""

    @property
    def last(self) -> Point:
        """The figures at the end."""
        return self.points[-1]


class Store:
    """A folder of results. The key of a result is everything that it depends on."""

    def __init__(self, folder: Path, common: dict[str, JsonValue]) -> None:
        """`common` is what all results of the experiment depend on: model, data, requests, sizes."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._common = folder, common

    def keep(self, kind: type[Stored], name: str, inputs: JsonValue, compute: Callable[[], Stored]) -> Stored:
        """The stored result, or the computed one, which is stored. `name` is for people who look into the folder."""
        if (stored := self.find(kind, name, inputs)) is not None:
            return stored
        found = compute()
        path = self._path(name, inputs)
        fresh = path.with_suffix(".part")
        fresh.write_text(found.model_dump_json() + "\n", encoding="utf-8")
        fresh.replace(path)
        return found

    def find(self, kind: type[Stored], name: str, inputs: JsonValue) -> Stored | None:
        """The stored result, if there is one."""
        path = self._path(name, inputs)
        return kind.model_validate_json(path.read_bytes()) if path.exists() else None

    def _path(self, name: str, inputs: JsonValue) -> Path:
        key = json.dumps([self._common, name, inputs], sort_keys=True)
        return self._folder / f"{name}-{sha256(key.encode()).hexdigest()[:12]}.json"
