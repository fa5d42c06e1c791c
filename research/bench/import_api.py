"""How long `import api.main` takes in a fresh interpreter, and that nothing heavy comes with it.

Target: under 1.5 s. Each round imports fastapi alone as well, for a ratio that depends less on the machine.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Annotated

import typer

from research.bench.figures import benchmark, spread

HEAVY = ("torch", "transformers", "peft", "sklearn", "scipy", "numpy", "core.pipeline", "worker")
_PROGRAM = """
import json, sys, time
wall, cpu = time.perf_counter(), time.process_time()
import {module}
took = time.perf_counter() - wall, time.process_time() - cpu
print(json.dumps([*took, len(sys.modules), [name for name in {heavy!r} if name in sys.modules]]))
"""


def main(runs: Annotated[int, typer.Option(min=1, help="Interpreters for each module.")] = 10) -> None:
    """Import time of the API."""
    with benchmark("import_api") as figures:
        for module in ("fastapi", "api.main"):
            _imported(module)  # the first may have to compile, and to read from the disk
        rounds = [(_imported("fastapi"), _imported("api.main")) for _ in range(runs)]
        figures["seconds"] = spread([ours.seconds for _, ours in rounds])
        figures["cpu_seconds"] = spread([ours.cpu_seconds for _, ours in rounds])
        figures["fastapi_alone_seconds"] = spread([fastapi.seconds for fastapi, _ in rounds])
        figures["cpu_ratio_to_fastapi"] = spread([ours.cpu_seconds / fastapi.cpu_seconds for fastapi, ours in rounds])
        figures["modules"] = rounds[0][1].modules
        figures["heavy_modules"] = rounds[0][1].heavy
        figures["target_seconds"] = 1.5


@dataclass(frozen=True)
class _Import:
    seconds: float
    cpu_seconds: float
    modules: int
    heavy: list[str]


def _imported(module: str) -> _Import:
    program = _PROGRAM.format(module=module, heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return _Import(*json.loads(done.stdout))


if __name__ == "__main__":
    typer.run(main)
