"""Files on disk held against the digests that were signed.

Not here: whether the signature is good (report.py); ask that first.
"""

from collections.abc import Iterable, Iterator, Sequence
from hmac import compare_digest
from pathlib import Path

from core.schemas.signing import FileCheck, SignedFile
from core.signing.report import is_plain
from core.storage.store import digest


def beside(files: Iterable[SignedFile], folder: Path, prefix: str = "") -> tuple[FileCheck, ...]:
    """Every signed file as it lies in `folder` under its name, or its name after `prefix`; and whatever else lies in
    folders of signed files.

    Raises:
        OSError: a file cannot be read.
    """
    files = tuple(files)
    checks = tuple(_held(file, _place(folder, file.name, prefix)) for file in files)
    return (*checks, *(each for name in _folders(files) for each in _unsigned(files, folder / name, name)))


def named(files: Iterable[SignedFile], path: Path) -> tuple[FileCheck, ...]:
    """A file or folder that the user names, wherever it lies.

    A file that has a signed file's name must be that one, also as `job_1-adapter.tar`, the name of a download. One of
    another name may be any of them. A folder stands for the signed folder of its name, or else for the only one.

    Raises:
        OSError: it is not there, or cannot be read.
    """
    files = tuple(files)
    if path.is_dir():
        return _folder(files, path)
    found = digest(path)
    file = _meant(files, path) or next((each for each in files if compare_digest(each.sha256, found)), None)
    if file is None:
        return (FileCheck(name=path.name, state="unknown", path=str(path), found=found),)
    return (_compared(file, path, found),)


def _place(folder: Path, name: str, prefix: str) -> Path | None:
    if not is_plain(name):
        return None
    there = folder / name
    return there if there.is_file() else folder / f"{prefix}{name}"


def _held(file: SignedFile, path: Path | None) -> FileCheck:
    if path is None or not path.is_file():
        return FileCheck(name=file.name, state="absent", signed=file.sha256)
    return _compared(file, path, digest(path))


def _compared(file: SignedFile, path: Path, found: str) -> FileCheck:
    same = compare_digest(file.sha256, found)
    state = "matches" if same else "altered"
    return FileCheck(name=file.name, state=state, path=str(path), signed=file.sha256, found=found)


def _meant(files: Sequence[SignedFile], path: Path) -> SignedFile | None:
    """The signed file that a path's name says it is; the longest name wins."""
    whole = path.absolute().as_posix()
    fit = [file for file in files if whole.endswith((f"/{file.name}", f"-{file.name}"))]
    return max(fit, key=lambda file: len(file.name), default=None)


def _folders(files: Iterable[SignedFile]) -> list[str]:
    """First folders of the signed names, such as `adapter`."""
    return sorted({file.name.split("/", 1)[0] for file in files if "/" in file.name and is_plain(file.name)})


def _folder(files: Sequence[SignedFile], path: Path) -> tuple[FileCheck, ...]:
    names = _folders(files)
    name = path.resolve().name
    if name not in names:
        name = names[0] if len(names) == 1 else ""
    inside = [file for file in files if name and file.name.startswith(f"{name}/")]
    checks = [_held(file, path / file.name.removeprefix(f"{name}/")) for file in inside if is_plain(file.name)]
    if all(check.state == "absent" for check in checks):
        return (FileCheck(name=path.name, state="unknown", path=str(path)),)
    return (*checks, *_unsigned(files, path, name))


def _unsigned(files: Iterable[SignedFile], folder: Path, name: str) -> Iterator[FileCheck]:
    signed = {file.name for file in files}
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        own = f"{name}/{path.relative_to(folder).as_posix()}"
        if own not in signed and not path.is_dir():
            yield FileCheck(name=own, state="unsigned", path=str(path))
