"""A job's report as a signed in-toto statement: made from report and digests, verified and read.

Source: https://github.com/in-toto/attestation, spec/v1 (statement, predicate, field types). Whatever is read of an
envelope was signed by a trusted key first. Not here: the envelope's bytes (envelope.py), files on disk (files.py).
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from hmac import compare_digest
from pathlib import PurePosixPath

from cryptography.exceptions import InvalidSignature
from pydantic import ValidationError

from core.errors import TooLarge
from core.schemas.signing import GateSummary, ReportSummary, SignedFile, TrustedKey, TrustedKeys, Verification
from core.signing.envelope import MAX_BYTES, Envelope, Signature, fields, pae, parse, read, text, write
from core.signing.keys import Signer, public_key

SIGNED_REPORT = "signed_report.json"
"""What the envelope is called among a job's files."""
REPORT_JSON = "report.json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:uuid:496fbba3-437a-4e75-8077-4a99fcf58e2f#securetune-report-v1"
"""Says what the predicate is: `report` (core.schemas.results.Report) and `signed_at` (RFC 3339, UTC). A UUID, because a
type is named by a URI that nobody else has, and this project owns no domain."""


def signed(report_json: bytes, files: Mapping[str, str], signer: Signer) -> bytes:
    """The signed report: `report_json` whole, and `files` (SHA-256 in hex by the names that users see).

    The same report, files, key and time give the same bytes.

    Raises:
        ValueError: the report is no JSON object, a name leads out of its folder, a digest is none, or the digest of
            `report.json` is not that of `report_json`.
        TooLarge: code `signed_report_too_large`; nobody would verify it.
    """
    wanted = files.get(REPORT_JSON)
    if wanted is not None and not compare_digest(wanted, sha256(report_json).hexdigest()):
        raise ValueError(f"{REPORT_JSON} is not the report that is signed")
    subjects = [_subject(SignedFile(name=name, sha256=digest)) for name, digest in sorted(files.items())]
    if not subjects:
        raise ValueError("in-toto wants a statement to be about one file at least")
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": subjects,
        "predicateType": PREDICATE_TYPE,
        "predicate": {"report": fields(parse(report_json), "the report"), "signed_at": _rfc3339(signer.at)},
    }
    payload = json.dumps(statement, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    signature = Signature(signer.keyid, signer.sign(pae(PAYLOAD_TYPE, payload)))
    whole = write(Envelope(PAYLOAD_TYPE, payload, (signature,)))
    if len(whole) > MAX_BYTES:
        raise TooLarge(
            f"The signed report would have {len(whole)} bytes; {MAX_BYTES} is the limit.",
            code="signed_report_too_large",
        )
    return whole


def verify(envelope: bytes, keys: TrustedKeys) -> Verification:
    """What the signature says. A bad one is an answer, no error.

    One signature of a trusted key is enough. The key is always taken from `keys`, never from the envelope.

    Raises:
        InvalidInput: code `invalid_signing_keys`; a trusted key is none.
    """
    try:
        found = read(envelope)
        signed_bytes = pae(found.payload_type, found.payload)
    except ValueError as error:
        return Verification(code="malformed", message=f"This is no signed report: {error}.")
    makers = [key for each in found.signatures if (key := _maker(each, signed_bytes, keys)) is not None]
    if not makers:
        return _unproved(found.signatures, keys)
    try:
        return _judged(_content(found), makers)
    except ValueError as error:
        return Verification(
            code="not_a_report",
            message=f"A trusted key signed this, but it is no report that this version knows: {_why(error)}.",
            keyid=makers[0].keyid,
        )


def _why(error: ValueError) -> str:
    """In one line: pydantic's own words are many, and may repeat what they are about."""
    return error.errors(include_url=False)[0]["msg"] if isinstance(error, ValidationError) else str(error)


def is_envelope(data: bytes) -> bool:
    """Whether this looks like a signed report, so that it is worth verifying. Proves nothing."""
    try:
        return "payloadType" in fields(parse(data), "it")
    except ValueError:
        return False


def _maker(signature: Signature, signed_bytes: bytes, keys: TrustedKeys) -> TrustedKey | None:
    """The trusted key that made the signature. The id only says which to try; without one all are tried."""
    for key in keys.keys:
        if signature.keyid in (None, key.keyid):
            try:
                public_key(key).verify(signature.sig, signed_bytes)
            except InvalidSignature:
                continue
            return key
    return None


def _unproved(signatures: Iterable[Signature], keys: TrustedKeys) -> Verification:
    claimed = [each.keyid for each in signatures if each.keyid is not None]
    known = next((keyid for keyid in claimed if keys.by(keyid)), None)
    if known is not None:
        return Verification(
            code="altered",
            message="The signature does not match: the report was altered after it was signed, or never signed so.",
            keyid=known,
        )
    return Verification(
        code="unknown_key",
        message="None of the trusted keys signed this report: it is another service's, or somebody made it up.",
        keyid=claimed[0] if claimed else None,
    )


@dataclass(frozen=True)
class _Content:
    """What a trusted key signed."""

    report: dict[str, object]
    signed_at: datetime
    files: tuple[SignedFile, ...]


def _judged(content: _Content, makers: Iterable[TrustedKey]) -> Verification:
    """Whether one of the keys that signed was in use then. Of a report of another version, what can be read is told."""
    makers = tuple(makers)
    in_time = [key for key in makers if key.retired_at is None or content.signed_at <= key.retired_at]
    if in_time:
        code, message = "verified", "A trusted key signed this report, and it is what was signed."
    else:
        code, message = "retired_key", "The report says that it was signed after its key had been retired."
    return Verification.model_validate(
        {
            "code": code,
            "message": message,
            "keyid": (in_time or makers)[0].keyid,
            "signed_at": content.signed_at,
            "files": content.files,
            "summary": _summary(content.report),
            "report": content.report,
        }
    )


def _content(envelope: Envelope) -> _Content:
    """What stands in an envelope whose signature was verified.

    Raises:
        ValueError: it is no report; pydantic's errors are such too.
    """
    if envelope.payload_type != PAYLOAD_TYPE:
        raise ValueError(f"its payload is {envelope.payload_type!r}")
    statement = fields(parse(envelope.payload), "the statement")
    if text(statement, "_type") != STATEMENT_TYPE:
        raise ValueError(f"its statement is {statement['_type']!r}")
    if text(statement, "predicateType") != PREDICATE_TYPE:
        raise ValueError(f"its predicate is {statement['predicateType']!r}")
    subjects = statement.get("subject")
    if not isinstance(subjects, list):
        raise ValueError("`subject` is no list")
    files = tuple(_signed_file(fields(each, "a subject")) for each in subjects)
    if len({file.name for file in files}) < len(files):
        raise ValueError("a file stands twice in it")
    predicate = fields(statement.get("predicate"), "the predicate")
    signed_at = datetime.fromisoformat(text(predicate, "signed_at"))
    if signed_at.tzinfo is None:
        raise ValueError("`signed_at` has no time zone")
    return _Content(fields(predicate.get("report"), "the report"), signed_at, files)


def _signed_file(subject: dict[str, object]) -> SignedFile:
    return SignedFile(name=text(subject, "name"), sha256=text(fields(subject.get("digest"), "a digest"), "sha256"))


def _subject(file: SignedFile) -> dict[str, object]:
    if not is_plain(file.name):
        raise ValueError(f"{file.name!r} is no name of a file below one folder")
    return {"name": file.name, "digest": {"sha256": file.sha256}}


def is_plain(name: str) -> bool:
    """Whether a name stays below the folder that it is looked up in."""
    parts = PurePosixPath(name).parts
    return (
        name == "/".join(parts) and ".." not in parts and not name.startswith("/") and name.isprintable() and name != ""
    )


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _summary(report: dict[str, object]) -> ReportSummary:
    decisions = report.get("gate")
    version = report.get("version")
    return ReportSummary(
        version=version if isinstance(version, int) else None,
        job_id=_said(report, "job_id"),
        model=_said(report, "model", "name"),
        model_sha256=_said(report, "model", "sha256"),
        dataset=_said(report, "dataset", "id"),
        dataset_sha256=_said(report, "dataset", "sha256"),
        gate=tuple(_gate(each) for each in decisions) if isinstance(decisions, list) else (),
    )


def _gate(decision: object) -> GateSummary:
    reasons = decision.get("reasons") if isinstance(decision, dict) else None
    messages = [_said(each, "message") or _said(each, "code") for each in reasons] if isinstance(reasons, list) else []
    return GateSummary(
        run=_said(decision, "run"), outcome=_said(decision, "outcome"), reasons=tuple(each for each in messages if each)
    )


def _said(value: object, *names: str) -> str | None:
    """The text at the end of a path of fields; null where there is none."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, str) else None
