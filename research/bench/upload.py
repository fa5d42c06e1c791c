"""How fast a dataset is uploaded and checked over the API, and how much memory that takes there.

Two sizes: memory must not grow with the file. Each file is also checked by `core.data` in this process, right after its
upload, for the ratio between the two.
"""

import json
import random
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import psutil
import typer

from core.data import validate
from research.bench.figures import benchmark, spreads, timed
from research.bench.service import Service, own_service

_WORDS = "how do you make fold carry a red paper boat box with water and stone"
_MIB = 2**20
_MAX_ROWS = 100_000_000


def main(
    small: Annotated[int, typer.Option(min=1, help="MiB of the smaller file.")] = 4,
    large: Annotated[int, typer.Option(min=1, help="MiB of the larger file.")] = 64,
    runs: Annotated[int, typer.Option(min=1, help="Uploads of each size.")] = 3,
) -> None:
    """MiB per second of uploads, and memory growth of the API."""
    with benchmark("upload") as figures, own_service() as service:
        (api,) = (process for process in service.processes("uvicorn"))
        _measured(service, api, _file(service.folder, 1, "warm-up"))
        for mebibytes in (small, large):
            files = (_file(service.folder, mebibytes, str(run)) for run in range(runs))
            figures[f"{mebibytes}_mib"] = spreads([_measured(service, api, path) for path in files])


def _measured(service: Service, api: psutil.Process, path: Path) -> dict[str, float]:
    size = path.stat().st_size / _MIB
    with _memory(api) as used:
        _, uploaded, _ = timed(service.client.upload_dataset, path)
    _, checked, _ = timed(validate, path, max_rows=_MAX_ROWS)
    path.unlink()
    return {
        "mib_per_second": size / uploaded,
        "check_alone_mib_per_second": size / checked,
        "times_check_alone": uploaded / checked,
        "memory_growth_mib": (max(used) - used[0]) / _MIB,
    }


@contextmanager
def _memory(process: psutil.Process) -> Generator[list[int]]:
    """Resident bytes of a process, before and all through the block."""
    used, over = [process.memory_info().rss], threading.Event()

    def watch() -> None:
        while not over.wait(0.01):
            used.append(process.memory_info().rss)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield used
    finally:
        over.set()
        watching.join()


def _file(folder: Path, mebibytes: int, name: str) -> Path:
    """Chat rows of about 600 bytes; another name gives another file, because the same file is taken only once."""
    rng = random.Random(name)  # noqa: S311 - no secret
    words = _WORDS.split()
    texts = [" ".join(rng.choices(words, k=50)) for _ in range(500)]
    path = folder / f"{mebibytes}-{name}.jsonl"
    with path.open("w") as file:
        while file.tell() < mebibytes * _MIB:
            prompt, answer = rng.sample(texts, 2)
            messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
            file.write(json.dumps({"messages": messages}) + "\n")
    return path


if __name__ == "__main__":
    typer.run(main)
