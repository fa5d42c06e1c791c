"""Several files as one archive that is the same, byte for byte, whenever and wherever it is made.

Not here: compression; adapters do not compress.
"""

import tarfile
from collections.abc import Mapping
from pathlib import Path


def write_tar(target: Path, files: Mapping[str, Path]) -> None:
    """Pack files under the given names, sorted, without times, owners or modes of this machine."""
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, path in sorted(files.items()):
            info = tarfile.TarInfo(name)
            info.size = path.stat().st_size
            info.mode = 0o644
            with path.open("rb") as file:
                archive.addfile(info, file)
