"""securetune.client.downloads: interrupted and corrupt downloads, and unsafe archives."""

import io
import tarfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import httpx2
import pytest

from securetune import ApiError
from securetune.client.downloads import fetch, unpack
from tests.securetune.conftest import Served

CONTENT = bytes(range(251)) * 8000
PART = f".{sha256(CONTENT).hexdigest()[:16]}.part"


@pytest.fixture(scope="module")
def url(served: Served) -> str:
    job_id = served.behind.job("download")
    served.behind.end(job_id, "succeeded", {"adapter.tar": (CONTENT, "application/x-tar")})
    return f"{served.url}/jobs/{job_id}/adapter"


@pytest.fixture
def requests() -> list[tuple[str, str]]:
    """Method and range of every request."""
    return []


@pytest.fixture
def http(served: Served, requests: list[tuple[str, str]]) -> Iterator[httpx2.Client]:
    def note(request: httpx2.Request) -> None:
        requests.append((request.method, request.headers.get("range", "")))

    headers = {"authorization": f"Bearer {served.key}"}
    with httpx2.Client(headers=headers, event_hooks={"request": [note]}) as client:
        yield client


def test_a_file_is_downloaded(http: httpx2.Client, url: str, tmp_path: Path, requests: list[tuple[str, str]]) -> None:
    assert fetch(http, url, tmp_path).read_bytes() == CONTENT
    assert requests == [("HEAD", ""), ("GET", "")]


@pytest.mark.parametrize("have", [1, 1_000_000, len(CONTENT) - 1])
def test_an_interrupted_download_is_resumed(
    http: httpx2.Client, url: str, tmp_path: Path, requests: list[tuple[str, str]], have: int
) -> None:
    (tmp_path / PART).write_bytes(CONTENT[:have])
    assert fetch(http, url, tmp_path).read_bytes() == CONTENT
    assert requests == [("HEAD", ""), ("GET", f"bytes={have}-")]


def test_a_complete_download_is_not_repeated(
    http: httpx2.Client, url: str, tmp_path: Path, requests: list[tuple[str, str]]
) -> None:
    (tmp_path / PART).write_bytes(CONTENT)
    assert fetch(http, url, tmp_path).read_bytes() == CONTENT
    assert requests == [("HEAD", "")]


@pytest.mark.parametrize("damaged", [b"\xff" * 1000, b"\xff" * len(CONTENT), CONTENT + b"more"])
def test_a_corrupt_part_is_an_error_and_the_next_call_starts_again(
    http: httpx2.Client, url: str, tmp_path: Path, damaged: bytes
) -> None:
    (tmp_path / PART).write_bytes(damaged)
    with pytest.raises(ApiError) as caught:
        fetch(http, url, tmp_path)
    assert caught.value.code == "digest_mismatch"
    assert fetch(http, url, tmp_path).read_bytes() == CONTENT


def test_the_error_of_the_service_is_raised(http: httpx2.Client, url: str, tmp_path: Path) -> None:
    with pytest.raises(ApiError) as caught:
        fetch(http, url.replace("/adapter", "/adapter/none"), tmp_path)
    assert (caught.value.status, caught.value.code) == (404, "artifact_not_found")
    assert list(tmp_path.iterdir()) == []


def tar(folder: Path, *members: tarfile.TarInfo, mode: str = "w") -> Path:
    path = folder / "adapter.tar"
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(b"x" * member.size))
    path.write_bytes(out.getvalue())
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, *, target: str = "", size: int = 3) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    info.size = size if kind == tarfile.REGTYPE else 0
    return info


def test_plain_files_are_unpacked_and_replace_older_ones(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "a").mkdir(parents=True)
    (out / "a" / "b").write_text("older")
    path = tar(tmp_path, member("a", tarfile.DIRTYPE), member("a/b"), member("./c"))
    assert {str(name) for name in unpack(path, out)} == {"a/b", "c"}
    assert (out / "a" / "b").read_text() == (out / "c").read_text() == "xxx"
    assert sorted(path.name for path in out.iterdir()) == ["a", "c"]


@pytest.mark.parametrize(
    "bad",
    [
        member("../out.txt"),
        member("a/../../out.txt"),
        member("/etc/securetune-test"),
        member("link", tarfile.SYMTYPE, target="/etc/passwd"),
        member("hard", tarfile.LNKTYPE, target="good"),
        member("fifo", tarfile.FIFOTYPE),
        member("device", tarfile.CHRTYPE),
    ],
)
def test_an_unsafe_archive_is_not_unpacked_at_all(tmp_path: Path, bad: tarfile.TarInfo) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(ApiError) as caught:
        unpack(tar(tmp_path, member("good"), bad), out)
    assert caught.value.code == "unsafe_archive"
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"no tar" * 200, b"\x1f\x8b\x08" + b"\0" * 600])
def test_a_file_that_is_not_a_tar_archive_is_an_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "adapter.tar"
    path.write_bytes(content)
    with pytest.raises(ApiError) as caught:
        unpack(path, tmp_path)
    assert caught.value.code == "unsafe_archive"
