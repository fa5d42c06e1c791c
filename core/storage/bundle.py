"""Reproducible archives: the same files give the same bytes. Not here: compression, which does not help adapters."""

import tarfile
from collections.abc import Mapping
from pathlib import Path


def write_tar(target: Path, files: Mapping[str, Path]) -> None:
    """Write files to a tar archive under the given names, sorted, without times, owners and modes."""
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, path in sorted(files.items()):
            info = tarfile.TarInfo(name)
            info.size = path.stat().st_size
            info.mode = 0o644
            with path.open("rb") as file:
                archive.addfile(info, file)
