"""DSSE envelopes: parsing, writing, and the bytes that a signature covers.

Source: https://github.com/secure-systems-lab/dsse, protocol.md and envelope.md, version 1.0. Tests compare it with the
reference implementation, securesystemslib. Not here: keys (keys.py), the meaning of the payload (report.py).
"""

import base64
import json
from dataclasses import dataclass

MAX_BYTES = 64 * 2**20
"""Largest envelope that is written or read."""
_MAX_SIGNATURES = 16
_URL_SAFE = str.maketrans("-_", "+/")


@dataclass(frozen=True)
class Signature:
    """One signature. The key id is an unverified hint; None if the envelope has none."""

    keyid: str | None
    sig: bytes


@dataclass(frozen=True)
class Envelope:
    """A payload with its type and its signatures, none of them verified."""

    payload_type: str
    payload: bytes
    signatures: tuple[Signature, ...]


def pae(payload_type: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: the bytes that are signed, with type and payload delimited."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def write(envelope: Envelope) -> bytes:
    """Serialize an envelope as JSON."""
    document = {
        "payload": base64.b64encode(envelope.payload).decode(),
        "payloadType": envelope.payload_type,
        "signatures": [
            {"keyid": each.keyid or "", "sig": base64.b64encode(each.sig).decode()} for each in envelope.signatures
        ],
    }
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def read(data: bytes) -> Envelope:
    """Parse an envelope. Unknown fields are ignored, because no signature covers them.

    Raises:
        ValueError: `data` is not an envelope; the message says why.
    """
    if len(data) > MAX_BYTES:
        raise ValueError(f"it is larger than {MAX_BYTES // 2**20} MiB")
    document = as_object(parse(data), "the envelope")
    signatures = document.get("signatures")
    if not isinstance(signatures, list) or not 0 < len(signatures) <= _MAX_SIGNATURES:
        raise ValueError(f"`signatures` is not a list of 1 to {_MAX_SIGNATURES} signatures")
    return Envelope(
        payload_type=get_text(document, "payloadType"),
        payload=_decode(document, "payload"),
        signatures=tuple(_read_signature(as_object(each, "a signature")) for each in signatures),
    )


def parse(data: bytes) -> object:
    """Parse JSON that every parser reads alike: UTF-8, no duplicate keys, no NaN or infinity, no lone surrogates.

    Raises:
        ValueError: `data` is not such JSON.
    """
    try:
        value = json.loads(data.decode(), object_pairs_hook=_reject_duplicates, parse_constant=_reject_constant)
        if rb"\ud" in data.lower():  # the only way to write a lone surrogate; most documents have none
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def as_object(value: object, name: str) -> dict[str, object]:
    """Check that a parsed value is a JSON object.

    Raises:
        ValueError: it is another value.
    """
    if not isinstance(value, dict):
        raise ValueError(f"{name} is not a JSON object")
    return value


def get_text(document: dict[str, object], name: str) -> str:
    """Return a field that must be a string.

    Raises:
        ValueError: the field is missing or has another type.
    """
    value = document.get(name)
    if not isinstance(value, str):
        raise ValueError(f"`{name}` is not a string")
    return value


def _read_signature(document: dict[str, object]) -> Signature:
    keyid = get_text(document, "keyid") if document.get("keyid") else None
    return Signature(keyid, _decode(document, "sig"))


def _decode(document: dict[str, object], name: str) -> bytes:
    """Decode plain or URL-safe base64, and reject every second spelling of the same bytes."""
    plain = get_text(document, name).translate(_URL_SAFE)
    data = base64.b64decode(plain.encode("ascii"), validate=True)
    if base64.b64encode(data).decode() != plain:
        raise ValueError(f"`{name}` is not canonical base64")
    return data


def _reject_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("an object has a duplicate key")
    return value


def _reject_constant(constant: str) -> object:
    raise ValueError(f"{constant} is not a JSON number")
