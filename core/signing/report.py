"""A job's report as a signed in-toto statement: signing and verifying.

Source: https://github.com/in-toto/attestation, spec/v1 (statement, predicate, field types). Nothing in an envelope is
interpreted before a trusted key's signature is verified. Not here: the envelope format (envelope.py), files on disk
(files.py).
"""

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from hmac import compare_digest
from pathlib import PurePosixPath

from cryptography.exceptions import InvalidSignature
from pydantic import ValidationError

from core.errors import TooLarge
from core.schemas.signing import GateSummary, ReportSummary, SignedFile, TrustedKey, TrustedKeys, Verification
from core.signing.envelope import MAX_BYTES, Envelope, Signature, as_object, get_text, pae, parse, read, write
from core.signing.keys import Signer, public_key

SIGNED_REPORT = "signed_report.json"
"""Name of the envelope among a job's files."""
REPORT_JSON = "report.json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:uuid:496fbba3-437a-4e75-8077-4a99fcf58e2f#securetune-report-v1"
"""The predicate has `report` (core.schemas.results.Report) and `signed_at` (RFC 3339, UTC). The type must be a URI
that nobody else uses; it is a UUID because the project owns no domain."""


def sign_report(report_json: bytes, files: Mapping[str, str], signer: Signer) -> bytes:
    """Sign a report together with the digests of a job's files.

    The result depends only on the report, the files, the key and the signer's time.

    Args:
        report_json: The whole report as JSON.
        files: SHA-256 in hex by the file names that users see.
        signer: The key, and the time of the signature.

    Raises:
        ValueError: the report is not a JSON object, a name leads out of its folder, a digest is malformed, or the
            digest of `report.json` is not that of `report_json`.
        TooLarge: code `signed_report_too_large`; the envelope would be too large to be verified.
    """
    expected = files.get(REPORT_JSON)
    if expected is not None and not compare_digest(expected, sha256(report_json).hexdigest()):
        raise ValueError(f"the digest of {REPORT_JSON} is not that of the report to sign")
    subjects = [_subject(SignedFile(name=name, sha256=digest)) for name, digest in sorted(files.items())]
    if not subjects:
        raise ValueError("an in-toto statement needs at least one file")
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": subjects,
        "predicateType": PREDICATE_TYPE,
        "predicate": {"report": as_object(parse(report_json), "the report"), "signed_at": _rfc3339(signer.at)},
    }
    payload = json.dumps(statement, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    signature = Signature(signer.keyid, signer.key.sign(pae(PAYLOAD_TYPE, payload)))
    envelope = write(Envelope(PAYLOAD_TYPE, payload, (signature,)))
    if len(envelope) > MAX_BYTES:
        raise TooLarge(
            f"The signed report would have {len(envelope)} bytes; the limit is {MAX_BYTES}.",
            code="signed_report_too_large",
        )
    return envelope


def verify(envelope: bytes, keys: TrustedKeys) -> Verification:
    """Verify a signed report. An invalid signature is a result, not an error.

    One signature by a trusted key is sufficient. The key is always taken from `keys`, never from the envelope.

    Raises:
        InvalidInput: code `invalid_signing_keys`; a trusted key is malformed.
    """
    try:
        parsed = read(envelope)
        signed_bytes = pae(parsed.payload_type, parsed.payload)
    except ValueError as error:
        return Verification(code="malformed", message=f"The file is not a signed report: {error}.")
    signers = [key for each in parsed.signatures if (key := _signing_key(each, signed_bytes, keys)) is not None]
    if not signers:
        return _reject(parsed.signatures, keys)
    try:
        return _accept(parsed, signers)
    except ValueError as error:
        return Verification(
            code="not_a_report",
            message="A trusted key signed this file, but this version cannot read it as a report: "
            f"{_first_line(error)}.",
            keyid=signers[0].keyid,
        )


def _first_line(error: ValueError) -> str:
    """One line: pydantic's message has several, and may repeat the input."""
    return error.errors(include_url=False)[0]["msg"] if isinstance(error, ValidationError) else str(error)


def is_envelope(data: bytes) -> bool:
    """Whether the data looks like a signed report and is worth verifying. This proves nothing."""
    try:
        return "payloadType" in as_object(parse(data), "it")
    except ValueError:
        return False


def _signing_key(signature: Signature, signed_bytes: bytes, keys: TrustedKeys) -> TrustedKey | None:
    """The trusted key that made a signature. A key id only selects which key to try; without one, all are tried."""
    for key in keys.keys:
        if signature.keyid in (None, key.keyid):
            try:
                public_key(key).verify(signature.sig, signed_bytes)
            except InvalidSignature:
                continue
            return key
    return None


def _reject(signatures: Iterable[Signature], keys: TrustedKeys) -> Verification:
    claimed = [each.keyid for each in signatures if each.keyid is not None]
    known = next((keyid for keyid in claimed if keys.find(keyid)), None)
    if known is not None:
        return Verification(
            code="altered",
            message="The signature is invalid: the report was altered after it was signed, or the key did not sign it.",
            keyid=known,
        )
    return Verification(
        code="unknown_key",
        message="No trusted key signed this report: it comes from another service or was forged.",
        keyid=claimed[0] if claimed else None,
    )


def _accept(envelope: Envelope, signers: list[TrustedKey]) -> Verification:
    """Parse the payload of a verified envelope, and check that one of the signing keys was in use at that time.

    Raises:
        ValueError: it is not a report; pydantic's errors are ValueErrors too.
    """
    if envelope.payload_type != PAYLOAD_TYPE:
        raise ValueError(f"the payload has the type {envelope.payload_type!r}")
    statement = as_object(parse(envelope.payload), "the statement")
    if get_text(statement, "_type") != STATEMENT_TYPE:
        raise ValueError(f"the statement has the type {statement['_type']!r}")
    if get_text(statement, "predicateType") != PREDICATE_TYPE:
        raise ValueError(f"the predicate has the type {statement['predicateType']!r}")
    subjects = statement.get("subject")
    if not isinstance(subjects, list):
        raise ValueError("`subject` is not a list")
    files = tuple(_signed_file(as_object(each, "a subject")) for each in subjects)
    if len({file.name for file in files}) < len(files):
        raise ValueError("two files have the same name")
    predicate = as_object(statement.get("predicate"), "the predicate")
    signed_at = datetime.fromisoformat(get_text(predicate, "signed_at"))
    if signed_at.tzinfo is None:
        raise ValueError("`signed_at` has no time zone")
    report = as_object(predicate.get("report"), "the report")
    active = [key for key in signers if key.retired_at is None or signed_at <= key.retired_at]
    if active:
        code, message = "verified", "A trusted key signed this report, and it has not been altered since."
    else:
        code, message = "retired_key", "The report claims to be signed after its key was retired."
    return Verification.model_validate(
        {
            "code": code,
            "message": message,
            "keyid": (active or signers)[0].keyid,
            "signed_at": signed_at,
            "files": files,
            "summary": _summarize(report),
            "report": report,
        }
    )


def _signed_file(subject: dict[str, object]) -> SignedFile:
    digest = as_object(subject.get("digest"), "a digest")
    return SignedFile(name=get_text(subject, "name"), sha256=get_text(digest, "sha256"))


def _subject(file: SignedFile) -> dict[str, object]:
    if not is_plain(file.name):
        raise ValueError(f"{file.name!r} is not the name of a file below one folder")
    return {"name": file.name, "digest": {"sha256": file.sha256}}


def is_plain(name: str) -> bool:
    """Whether a relative path stays inside the folder that it is resolved in."""
    parts = PurePosixPath(name).parts
    return (
        name == "/".join(parts) and ".." not in parts and not name.startswith("/") and name.isprintable() and name != ""
    )


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _summarize(report: dict[str, object]) -> ReportSummary:
    """Summarize a report of any version: fields that this version does not find are null."""
    decisions = report.get("gate")
    version = report.get("version")
    return ReportSummary(
        version=version if isinstance(version, int) else None,
        job_id=_text_at(report, "job_id"),
        model=_text_at(report, "model", "name"),
        model_sha256=_text_at(report, "model", "sha256"),
        dataset=_text_at(report, "dataset", "id"),
        dataset_sha256=_text_at(report, "dataset", "sha256"),
        gate=tuple(_summarize_decision(each) for each in decisions) if isinstance(decisions, list) else (),
    )


def _summarize_decision(decision: object) -> GateSummary:
    reasons = decision.get("reasons") if isinstance(decision, dict) else None
    messages = (
        [_text_at(each, "message") or _text_at(each, "code") for each in reasons] if isinstance(reasons, list) else []
    )
    return GateSummary(
        run=_text_at(decision, "run") or _text_at(decision, "arm"),  # `arm` in version 1
        outcome=_text_at(decision, "outcome"),
        reasons=tuple(each for each in messages if each),
    )


def _text_at(value: object, *path: str) -> str | None:
    """The string at the end of a path of keys, or None."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, str) else None
