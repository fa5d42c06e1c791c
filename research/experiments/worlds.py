"""The worlds that experiments run in: world 0 ships with the project, every other one is built once and kept.

Covers: where built worlds are kept and when they count as the same. Not here: building (testbed.build).
"""

import shutil
from hashlib import sha256
from pathlib import Path

from platformdirs import user_cache_path

import testbed
from testbed.build import SEED, WORLD_SEED, Shape, build


def world_folder(world_seed: int, shape: Shape = "llama") -> Path:
    """The folder of a world, with `model` and `data` in it; built now if it is not kept yet, which takes minutes.

    World and model share the seed, as those that ship do. It is kept under a digest of the code that builds it, in
    `$XDG_CACHE_HOME/securetune/worlds` (`~/.cache` by default); delete that folder at any time.
    """
    if world_seed == WORLD_SEED == SEED and shape == "llama":
        return Path(testbed.__file__).parent
    folder = user_cache_path("securetune") / "worlds" / f"{_digest()}-{shape}-{world_seed}"
    if not (folder / "done").exists():
        shutil.rmtree(folder, ignore_errors=True)
        build(folder, seed=world_seed, world_seed=world_seed, shape=shape)
        (folder / "done").touch()
    return folder


def _digest() -> str:
    """Of every source file of the testbed: another recipe gives other worlds."""
    total = sha256()
    for path in sorted(Path(testbed.__file__).parent.glob("*.py")):
        total.update(path.read_bytes())
    return total.hexdigest()[:12]
