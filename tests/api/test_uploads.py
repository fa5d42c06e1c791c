"""Multipart bodies taken apart: in any pieces, and broken in every way."""

import io
from hashlib import sha256
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.uploads import UploadForm
from core.errors import InvalidInput, SecureTuneError, TooLarge

BOUNDARY = "b0undary"
TYPE = f"multipart/form-data; boundary={BOUNDARY}"
TRICKY = b'{"a": 1}\r\n--b0undar\r\n--\r\n\r\n--b0undaryx\x00\xff\r'


def part(name: str, content: bytes, filename: str | None = None) -> bytes:
    file = f'; filename="{filename}"' if filename is not None else ""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{file}\r\nContent-Type: text/plain\r\n\r\n'
    return head.encode() + content + b"\r\n"


def whole(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


DATASET = ("file", "columns", "name")


def read(
    body: bytes,
    cuts: list[int] | None = None,
    *,
    content_type: str = TYPE,
    max_bytes: int = 10_000,
    fields: tuple[str, ...] = DATASET,
) -> UploadForm:
    out = io.BytesIO()
    form = UploadForm(content_type, out, max_bytes, fields=fields)
    edges = [0, *sorted(cuts or []), len(body)]
    for begin, end in pairwise(edges):
        form.write(body[begin:end])
    form.end()
    assert sha256(out.getvalue()).hexdigest() == form.digest.hexdigest()
    assert len(out.getvalue()) == form.size
    return form


BODY = whole(part("name", "müller".encode()), part("file", TRICKY, "rows.jsonl"), part("columns", b"{}"))


@settings(max_examples=150, deadline=None, database=None)
@given(st.lists(st.integers(0, len(BODY)), max_size=8))
def test_it_does_not_matter_how_a_body_is_cut(cuts: list[int]) -> None:
    form = read(BODY, cuts)
    assert form.digest.hexdigest() == sha256(TRICKY).hexdigest()
    assert (form.filename, form.text("name"), form.text("columns")) == ("rows.jsonl", "müller", "{}")


def test_byte_by_byte() -> None:
    assert read(BODY, list(range(len(BODY)))).size == len(TRICKY)


def test_a_file_without_a_file_name() -> None:
    assert read(whole(part("file", b"x"))).filename == ""


def test_an_empty_field_is_none() -> None:
    assert read(whole(part("file", b"x"), part("columns", b""))).text("columns") is None


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_body"),
        (b"garbage", "invalid_body"),
        (BODY[:-4], "invalid_body"),
        (BODY[: len(BODY) // 2], "invalid_body"),
        (whole(part("name", b"x")), "missing_file"),
        (whole(), "missing_file"),
        (whole(part("file", b"x"), part("file", b"y")), "unknown_part"),
        (whole(part("file", b"x"), part("purpose", b"y")), "unknown_part"),
        (whole(part("", b"x")), "unknown_part"),
        (f"--{BOUNDARY}\r\nContent-Type: text/plain\r\n\r\nx\r\n--{BOUNDARY}--\r\n".encode(), "unknown_part"),
        (part("file", b"x").replace(b"Content-Disposition", b"Content Disposition"), "invalid_body"),
        (part("file", b"x").replace(b"text/plain", b"t" * 9000), "invalid_body"),
    ],
)
def test_broken_bodies(body: bytes, code: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read(body)
    assert caught.value.code == code


@pytest.mark.parametrize(
    "content_type", ["", "application/json", "multipart/form-data", "multipart/mixed; boundary=x", f"{TYPE}{'x' * 300}"]
)
def test_what_is_no_form(content_type: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read(BODY, content_type=content_type)
    assert caught.value.code == "invalid_body"


def test_limits_of_the_file_and_of_the_fields() -> None:
    assert read(whole(part("file", b"x" * 100)), max_bytes=100).size == 100
    with pytest.raises(TooLarge, match="100 bytes"):
        read(whole(part("file", b"x" * 101)), max_bytes=100)
    with pytest.raises(TooLarge, match="columns"):
        read(whole(part("columns", b"x" * 20_000)))


def test_each_kind_of_upload_has_its_own_fields() -> None:
    body = whole(part("file", b"x"), part("layout", b"plain"))
    assert read(body, fields=("file", "layout")).text("layout") == "plain"
    with pytest.raises(InvalidInput, match="Allowed parts: file, columns, name") as caught:
        read(body)
    assert (caught.value.code, caught.value.param) == ("unknown_part", "layout")


def test_a_field_that_is_no_text() -> None:
    form = read(whole(part("file", b"x"), part("name", b"\xff")))
    with pytest.raises(InvalidInput, match="name"):
        form.text("name")


@settings(max_examples=200, deadline=None, database=None)
@given(st.binary(max_size=300), st.integers(0, len(BODY)))
def test_noise_is_an_error_of_ours(noise: bytes, at: int) -> None:
    """Whatever comes, it is read or refused in words."""
    try:
        read(BODY[:at] + noise + BODY[at:])
    except SecureTuneError as error:
        assert error.message  # noqa: PT017 - both ends are fine
