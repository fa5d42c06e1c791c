"""Compares files on disk with the digests that a report signs.

Not here: verifying the signature (report.py), which must come first.
"""

from collections.abc import Iterable, Iterator, Sequence
from hmac import compare_digest
from pathlib import Path

from core.schemas.signing import FileCheck, SignedFile
from core.signing.report import is_plain
from core.storage.store import digest


def check_folder(files: Iterable[SignedFile], folder: Path, prefix: str = "") -> tuple[FileCheck, ...]:
    """Check every signed file at its place in `folder`, and list unsigned files in folders of signed ones.

    A file is found under its signed name, or under its name with `prefix`.

    Raises:
        OSError: a file cannot be read.
    """
    files = tuple(files)
    checks = tuple(_check(file, _place(folder, file.name, prefix)) for file in files)
    return (*checks, *(each for name in _folders(files) for each in _unsigned(files, folder / name, name)))


def check_path(files: Iterable[SignedFile], path: Path) -> tuple[FileCheck, ...]:
    """Check a file or folder at any place.

    A file with the name of a signed file must be that file; the name may have a prefix, as in `job_1-adapter.tar`. A
    file with another name may be any signed file. A folder is compared with the signed folder of its name, or with the
    only signed folder.

    Raises:
        OSError: the path does not exist or cannot be read.
    """
    files = tuple(files)
    if path.is_dir():
        return _check_signed_folder(files, path)
    actual = digest(path)
    file = _by_name(files, path) or next((each for each in files if compare_digest(each.sha256, actual)), None)
    if file is None:
        return (FileCheck(name=path.name, state="unknown", path=str(path), actual=actual),)
    return (_compare(file, path, actual),)


def _place(folder: Path, name: str, prefix: str) -> Path | None:
    if not is_plain(name):
        return None
    there = folder / name
    return there if there.is_file() else folder / f"{prefix}{name}"


def _check(file: SignedFile, path: Path | None) -> FileCheck:
    if path is None or not path.is_file():
        return FileCheck(name=file.name, state="absent", expected=file.sha256)
    return _compare(file, path, digest(path))


def _compare(file: SignedFile, path: Path, actual: str) -> FileCheck:
    state = "matches" if compare_digest(file.sha256, actual) else "altered"
    return FileCheck(name=file.name, state=state, path=str(path), expected=file.sha256, actual=actual)


def _by_name(files: Sequence[SignedFile], path: Path) -> SignedFile | None:
    """The signed file that a path is named after; the longest name wins."""
    whole = path.absolute().as_posix()
    matching = [file for file in files if whole.endswith((f"/{file.name}", f"-{file.name}"))]
    return max(matching, key=lambda file: len(file.name), default=None)


def _folders(files: Iterable[SignedFile]) -> list[str]:
    """The first folder of each signed name, such as `adapter`."""
    return sorted({file.name.split("/", 1)[0] for file in files if "/" in file.name and is_plain(file.name)})


def _check_signed_folder(files: Sequence[SignedFile], path: Path) -> tuple[FileCheck, ...]:
    names = _folders(files)
    name = path.resolve().name
    if name not in names:
        name = names[0] if len(names) == 1 else ""
    inside = [file for file in files if name and file.name.startswith(f"{name}/")]
    checks = [_check(file, path / file.name.removeprefix(f"{name}/")) for file in inside if is_plain(file.name)]
    if all(check.state == "absent" for check in checks):
        return (FileCheck(name=path.name, state="unknown", path=str(path)),)
    return (*checks, *_unsigned(files, path, name))


def _unsigned(files: Iterable[SignedFile], folder: Path, name: str) -> Iterator[FileCheck]:
    signed = {file.name for file in files}
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        own = f"{name}/{path.relative_to(folder).as_posix()}"
        if own not in signed and not path.is_dir():
            yield FileCheck(name=own, state="unsigned", path=str(path))
