"""What securetune is made of: one folder a noun, each importing only floors below it (see docs/how-it-is-built.md).

Not here: HTTP (api), running jobs (worker), what users import (securetune).
"""

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

_MOVED = {
    "core.spec": "core.schemas",
    "core.security": "core.attacks (judges: core.judges)",
    "core.verdicts": "core.judges.rules",
    "core.arms": "core.safeguards",
    "core.steps": "core.pipeline",
    "core.measuring": "core.pipeline.evaluate",
    "core.reporting": "core.pipeline.report",
    "core.screened": "core.pipeline.screen",
    "core.prepared": "core.pipeline.context",
    "core.stages": "core.pipeline.stages",
    "client": "securetune.client",
    "cli": "securetune.cli",
    "local": "securetune.local",
    "bench": "research.bench",
    "experiments": "research.experiments",
}
"""Modules of version 0.1, and where their contents are now."""


class _MovedModules:
    """A last finder for imports: names the new module instead of saying that there is none."""

    @staticmethod
    def find_spec(
        name: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Raises ModuleNotFoundError with the new name for a module that has moved; None for all others."""
        for old, new in _MOVED.items():
            if name == old or name.startswith(f"{old}."):
                raise ModuleNotFoundError(f"{old} is now {new}: change the import.", name=name)
        return None


sys.meta_path.append(_MovedModules)
