"""core.signing.files: which file on disk is which signed one, and whether it is."""

from hashlib import sha256
from pathlib import Path

import pytest

from core.schemas.signing import FileCheck, SignedFile
from core.signing import beside, named

CONTENT = {
    "adapter.tar": b"archive",
    "adapter/adapter_config.json": b"{}",
    "adapter/adapter_model.safetensors": b"weights",
    "report.html": b"<html>",
}
SIGNED = tuple(SignedFile(name=name, sha256=sha256(data).hexdigest()) for name, data in CONTENT.items())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Everything as it was signed."""
    for name, data in CONTENT.items():
        path = tmp_path / "job" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "job"


def states(checks: tuple[FileCheck, ...]) -> dict[str, str]:
    assert len({check.name for check in checks}) == len(checks)
    return {check.name: check.state for check in checks}


def test_all_that_lies_beside_is_held_against_what_was_signed(folder: Path) -> None:
    assert states(beside(SIGNED, folder)) == dict.fromkeys(CONTENT, "matches")
    (folder / "report.html").write_bytes(b"<html >")
    (folder / "adapter.tar").unlink()
    found = {check.name: check for check in beside(SIGNED, folder)}
    assert found["report.html"] == FileCheck(
        name="report.html",
        state="altered",
        path=str(folder / "report.html"),
        signed=sha256(b"<html>").hexdigest(),
        found=sha256(b"<html >").hexdigest(),
    )
    assert found["adapter.tar"] == FileCheck(name="adapter.tar", state="absent", signed=sha256(b"archive").hexdigest())
    assert states(beside(SIGNED, folder / "nowhere")) == dict.fromkeys(CONTENT, "absent")


def test_what_lies_unsigned_in_a_signed_folder_is_told(folder: Path) -> None:
    (folder / "adapter" / "deep").mkdir()
    (folder / "adapter" / "deep" / "adapter_model.bin").write_bytes(b"?")
    (folder / "elsewhere.bin").write_bytes(b"?")
    assert states(beside(SIGNED, folder)) == dict.fromkeys(CONTENT, "matches") | {
        "adapter/deep/adapter_model.bin": "unsigned"
    }


def test_downloads_have_the_job_before_their_name(folder: Path) -> None:
    for name in ("adapter.tar", "report.html"):
        (folder / name).rename(folder / f"job_1-{name}")
    assert states(beside(SIGNED, folder, "job_1-")) == dict.fromkeys(CONTENT, "matches")


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a\x00b"])
def test_a_name_that_leads_elsewhere_is_not_followed(folder: Path, name: str) -> None:
    (folder.parent / "secret").write_bytes(b"secret")
    (check,) = beside([SignedFile(name=name, sha256=sha256(b"secret").hexdigest())], folder)
    assert (check.state, check.path) == ("absent", None)


def test_a_file_that_has_a_signed_name_must_be_that_one(folder: Path) -> None:
    for name in CONTENT:
        assert states(named(SIGNED, folder / name)) == {name: "matches"}
    (folder / "adapter.tar").write_bytes(CONTENT["report.html"])
    assert states(named(SIGNED, folder / "adapter.tar")) == {"adapter.tar": "altered"}
    other = folder / "job_1-adapter.tar"
    other.write_bytes(b"?")
    assert states(named(SIGNED, other)) == {"adapter.tar": "altered"}


def test_a_file_of_another_name_is_known_by_its_content(folder: Path) -> None:
    path = folder / "download"
    path.write_bytes(CONTENT["adapter.tar"])
    assert states(named(SIGNED, path)) == {"adapter.tar": "matches"}
    path.write_bytes(b"?")
    (check,) = named(SIGNED, path)
    assert check == FileCheck(name="download", state="unknown", path=str(path), found=sha256(b"?").hexdigest())


def test_a_folder_is_held_against_the_signed_one(folder: Path) -> None:
    moved = (folder / "adapter").rename(folder.parent / "mine")
    inside = {name: "matches" for name in CONTENT if name.startswith("adapter/")}
    assert states(named(SIGNED, moved)) == inside
    (moved / "adapter_config.json").write_bytes(b"{ }")
    (moved / "more.py").write_bytes(b"?")
    changed = {"adapter/adapter_config.json": "altered", "adapter/more.py": "unsigned"}
    assert states(named(SIGNED, moved)) == inside | changed


def test_a_folder_with_nothing_signed_in_it_is_unknown(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert states(named(SIGNED, tmp_path / "empty")) == {"empty": "unknown"}
    assert states(named(SIGNED[:1], folder)) == {"job": "unknown"}


def test_a_file_that_is_not_there_is_an_error(folder: Path) -> None:
    with pytest.raises(FileNotFoundError):
        named(SIGNED, folder / "gone")
