"""DSSE envelopes as JSON: read strictly, written, and the bytes that a signature is over.

Source: https://github.com/secure-systems-lab/dsse, protocol.md and envelope.md, version 1.0. The tests hold it against
the reference implementation (securesystemslib). Not here: keys (keys.py), what the payload means (report.py).
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
    """One signature. Its key id is a hint that proves nothing; null where the envelope gives none."""

    keyid: str | None
    sig: bytes


@dataclass(frozen=True)
class Envelope:
    """A payload with its type and signatures, none of them verified."""

    payload_type: str
    payload: bytes
    signatures: tuple[Signature, ...]


def pae(payload_type: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: what is signed, so that type and payload cannot run into each other."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def write(envelope: Envelope) -> bytes:
    """The envelope as JSON."""
    whole = {
        "payload": base64.b64encode(envelope.payload).decode(),
        "payloadType": envelope.payload_type,
        "signatures": [
            {"keyid": each.keyid or "", "sig": base64.b64encode(each.sig).decode()} for each in envelope.signatures
        ],
    }
    return json.dumps(whole, sort_keys=True, separators=(",", ":")).encode()


def read(data: bytes) -> Envelope:
    """The envelope that stands in `data`. Fields that DSSE does not know are ignored: nobody signs them.

    Raises:
        ValueError: it is none; the message says why, for people.
    """
    if len(data) > MAX_BYTES:
        raise ValueError(f"it is larger than {MAX_BYTES // 2**20} MiB")
    whole = fields(parse(data), "the envelope")
    signatures = whole.get("signatures")
    if not isinstance(signatures, list) or not 0 < len(signatures) <= _MAX_SIGNATURES:
        raise ValueError(f"`signatures` is no list of 1 to {_MAX_SIGNATURES}")
    return Envelope(
        payload_type=text(whole, "payloadType"),
        payload=_bytes(text(whole, "payload"), "payload"),
        signatures=tuple(_signature(fields(each, "a signature")) for each in signatures),
    )


def parse(data: bytes) -> object:
    """JSON that says one thing to every reader: UTF-8, no field twice, no number that JSON does not have, no half of a
    character (a lone surrogate, which cannot be printed or stored).

    Raises:
        ValueError: it is none.
    """
    try:
        found = json.loads(data.decode(), object_pairs_hook=_once, parse_constant=_refused)
        if rb"\ud" in data.lower():  # the only way in; most JSON has none
            json.dumps(found, ensure_ascii=False).encode()
        return found
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def fields(value: object, what: str) -> dict[str, object]:
    """The value as a JSON object.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(value, dict):
        raise ValueError(f"{what} is no JSON object")
    return value


def text(whole: dict[str, object], name: str) -> str:
    """A field that must be a string.

    Raises:
        ValueError: it is missing, or something else.
    """
    value = whole.get(name)
    if not isinstance(value, str):
        raise ValueError(f"`{name}` is no string")
    return value


def _signature(whole: dict[str, object]) -> Signature:
    keyid = whole.get("keyid") or None
    if keyid is not None and not isinstance(keyid, str):
        raise ValueError("`keyid` is no string")
    return Signature(keyid, _bytes(text(whole, "sig"), "sig"))


def _bytes(encoded: str, name: str) -> bytes:
    """Base64, plain or URL-safe. One text only stands for the same bytes: a changed character is never passed over."""
    plain = encoded.translate(_URL_SAFE)
    data = base64.b64decode(plain.encode("ascii"), validate=True)
    if base64.b64encode(data).decode() != plain:
        raise ValueError(f"`{name}` is no proper base64")
    return data


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a field stands twice in one object")
    return found


def _refused(constant: str) -> object:
    raise ValueError(f"{constant} is no JSON number")
