"""core.signing.files: matching files on disk with signed files and comparing their digests."""

from hashlib import sha256
from pathlib import Path

import pytest

from core.schemas.signing import FileCheck, SignedFile
from core.signing import check_folder, check_path

CONTENT = {
    "adapter.tar": b"archive",
    "adapter/adapter_config.json": b"{}",
    "adapter/adapter_model.safetensors": b"weights",
    "report.html": b"<html>",
}
SIGNED = tuple(SignedFile(name=name, sha256=sha256(data).hexdigest()) for name, data in CONTENT.items())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """All files as they were signed."""
    for name, data in CONTENT.items():
        path = tmp_path / "job" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "job"


def states(checks: tuple[FileCheck, ...]) -> dict[str, str]:
    assert len({check.name for check in checks}) == len(checks)
    return {check.name: check.state for check in checks}


def test_files_beside_the_report_are_compared(folder: Path) -> None:
    assert states(check_folder(SIGNED, folder)) == dict.fromkeys(CONTENT, "matches")
    (folder / "report.html").write_bytes(b"<html >")
    (folder / "adapter.tar").unlink()
    found = {check.name: check for check in check_folder(SIGNED, folder)}
    assert found["report.html"] == FileCheck(
        name="report.html",
        state="altered",
        path=str(folder / "report.html"),
        expected=sha256(b"<html>").hexdigest(),
        actual=sha256(b"<html >").hexdigest(),
    )
    assert found["adapter.tar"] == FileCheck(
        name="adapter.tar", state="absent", expected=sha256(b"archive").hexdigest()
    )
    assert states(check_folder(SIGNED, folder / "nowhere")) == dict.fromkeys(CONTENT, "absent")


def test_unsigned_file_in_a_signed_folder_is_reported(folder: Path) -> None:
    (folder / "adapter" / "deep").mkdir()
    (folder / "adapter" / "deep" / "adapter_model.bin").write_bytes(b"?")
    (folder / "elsewhere.bin").write_bytes(b"?")
    assert states(check_folder(SIGNED, folder)) == dict.fromkeys(CONTENT, "matches") | {
        "adapter/deep/adapter_model.bin": "unsigned"
    }


def test_downloads_may_have_a_prefix(folder: Path) -> None:
    for name in ("adapter.tar", "report.html"):
        (folder / name).rename(folder / f"job_1-{name}")
    assert states(check_folder(SIGNED, folder, "job_1-")) == dict.fromkeys(CONTENT, "matches")


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a\x00b"])
def test_name_outside_the_folder_is_not_followed(folder: Path, name: str) -> None:
    (folder.parent / "secret").write_bytes(b"secret")
    (check,) = check_folder([SignedFile(name=name, sha256=sha256(b"secret").hexdigest())], folder)
    assert (check.state, check.path) == ("absent", None)


def test_file_with_a_signed_name_must_be_that_file(folder: Path) -> None:
    for name in CONTENT:
        assert states(check_path(SIGNED, folder / name)) == {name: "matches"}
    (folder / "adapter.tar").write_bytes(CONTENT["report.html"])
    assert states(check_path(SIGNED, folder / "adapter.tar")) == {"adapter.tar": "altered"}
    other = folder / "job_1-adapter.tar"
    other.write_bytes(b"?")
    assert states(check_path(SIGNED, other)) == {"adapter.tar": "altered"}


def test_file_with_another_name_is_matched_by_content(folder: Path) -> None:
    path = folder / "download"
    path.write_bytes(CONTENT["adapter.tar"])
    assert states(check_path(SIGNED, path)) == {"adapter.tar": "matches"}
    path.write_bytes(b"?")
    (check,) = check_path(SIGNED, path)
    assert check == FileCheck(name="download", state="unknown", path=str(path), actual=sha256(b"?").hexdigest())


def test_folder_is_compared_with_the_signed_folder(folder: Path) -> None:
    moved = (folder / "adapter").rename(folder.parent / "mine")
    inside = {name: "matches" for name in CONTENT if name.startswith("adapter/")}
    assert states(check_path(SIGNED, moved)) == inside
    (moved / "adapter_config.json").write_bytes(b"{ }")
    (moved / "more.py").write_bytes(b"?")
    changed = {"adapter/adapter_config.json": "altered", "adapter/more.py": "unsigned"}
    assert states(check_path(SIGNED, moved)) == inside | changed


def test_folder_without_signed_files_is_unknown(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert states(check_path(SIGNED, tmp_path / "empty")) == {"empty": "unknown"}
    assert states(check_path(SIGNED[:1], folder)) == {"job": "unknown"}


def test_missing_file_is_an_error(folder: Path) -> None:
    with pytest.raises(FileNotFoundError):
        check_path(SIGNED, folder / "gone")
