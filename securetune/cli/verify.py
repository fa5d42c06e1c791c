"""`securetune verify`: verifies a signed report and its files, offline.

Covers: finding the report and the trusted keys, the output. Not here: cryptography (core.signing).
"""

import json
from collections.abc import Iterator
from pathlib import Path

import typer

from core.errors import NotFound, SecureTuneError
from core.schemas.signing import FileCheck, FileState, TrustedKeys, Verification, VerifyReply
from core.signing import KEYS_FILE, MAX_BYTES, SIGNED_REPORT, check_folder, check_path, read_keys, verify
from core.signing.envelope import read
from core.signing.report import is_envelope

_MAX_CHARACTERS = 500
_STATES: dict[FileState, str] = {
    "matches": "matches",
    "altered": "ALTERED",
    "absent": "not found",
    "unknown": "UNKNOWN: not among the signed files",
    "unsigned": "not covered by the signature",
}
_FAILED: frozenset[FileState] = frozenset({"altered", "unknown"})


def run(report: Path, keys: Path | None, signing: Path, files: tuple[Path, ...], *, as_json: bool) -> int:
    """Verify and print the result.

    Args:
        report: a signed report, the folder that contains it, or another file in that folder.
        keys: file of trusted keys, if given.
        signing: folder of the keys of a service on this machine; it may not exist.
        files: more files and folders to compare with the report.

    Returns the exit status: 0 verified, 1 tampered or untrusted key, 2 no report or no keys.
    """
    try:
        reply = _verify(report, keys, signing, files)
    except SecureTuneError as error:
        typer.echo(f"securetune: {visible(error.message)}", err=True)
        return 2
    except OSError as error:
        typer.echo(f"securetune: {visible(str(error.filename))} cannot be read: {error.strerror}.", err=True)
        return 2
    if as_json:  # ASCII only, because the output may go to a terminal
        typer.echo(json.dumps(reply.model_dump(mode="json"), indent=1))
    else:
        for line in _lines(reply):
            typer.echo(line)
    return 0 if reply.ok else 1


def _verify(report: Path, keys: Path | None, signing: Path, files: tuple[Path, ...]) -> VerifyReply:
    """Verify the signature, then compare the files.

    Raises:
        NotFound: code `no_signed_report` or `signing_keys_missing`.
        InvalidInput: code `invalid_signing_keys`; the file of trusted keys is invalid.
        OSError: a file cannot be read.
    """
    path, requested = _find_report(report)
    data = _read(path)
    trusted, source, beside = _find_keys(keys, signing / KEYS_FILE, path, data)
    verification = verify(data, trusted)
    checks = _check_files(verification, path, (*requested, *files)) if verification.verified else ()
    return VerifyReply(
        ok=verification.verified and not any(each.state in _FAILED for each in checks),
        envelope=str(path),
        verification=verification,
        files=checks,
        keys=str(source),
        keys_beside_report=beside,
    )


def _lines(reply: VerifyReply) -> Iterator[str]:
    """The result as text. Every value from a file is made safe to print on a terminal."""
    result = reply.verification
    if result.verified and not reply.ok:
        headline = "ALTERED"
        message = "The signature is valid, but a file does not match it; see the list of files."
    elif result.verified and reply.keys_beside_report:
        headline = "UNALTERED"
        message = "The report matches the keys in its own folder. This does not show who owns the signing key."
    else:
        headline = {"verified": "VERIFIED", "altered": "ALTERED"}.get(result.code, "NOT VERIFIED")
        message = result.message
    yield f"{headline}: {visible(reply.envelope)}"
    yield visible(message)
    for name, value in _facts(reply):
        yield f"  {name:9}{visible(value)}"
    if result.verified:
        yield from _file_lines(reply.files)
    if reply.keys_beside_report:
        yield "Note: the trusted keys come from the folder of the report; a forger could have created both. This result"
        yield "shows that nothing was altered since that key signed, not who signed. Compare the key id with those that"
        yield "the service returns at GET /signing-keys, or pass a file of keys that you trust: --keys FILE."


def visible(text: str) -> str:
    """Escape control, format and other invisible characters, and cut long text."""
    cut = text if len(text) <= _MAX_CHARACTERS else f"{text[:_MAX_CHARACTERS]}..."
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)


def _find_report(report: Path) -> tuple[Path, tuple[Path, ...]]:
    """The signed report, and the file to compare with it if `report` is another file."""
    if report.is_dir():
        if (report / SIGNED_REPORT).is_file():
            return report / SIGNED_REPORT, ()
        raise NotFound(f"The folder {report} contains no {SIGNED_REPORT}.", code="no_signed_report")
    if not report.exists():
        raise NotFound(f"The file {report} does not exist.", code="no_signed_report")
    if report.name.endswith(SIGNED_REPORT) or is_envelope(_read(report)):
        return report, ()
    before, _, kind = report.name.rpartition("report.")
    names = dict.fromkeys([f"{before}{SIGNED_REPORT}", SIGNED_REPORT] if kind in ("html", "json") else [SIGNED_REPORT])
    for name in names:
        if report.with_name(name).is_file():
            return report.with_name(name), (report,)
    raise NotFound(
        f"{report} is not signed, and its folder contains no {SIGNED_REPORT}. Download the job's {SIGNED_REPORT} into "
        "the same folder.",
        code="no_signed_report",
    )


def _read(path: Path) -> bytes:
    """Read a file up to one byte more than the largest envelope."""
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)


def _find_keys(given: Path | None, local: Path, report: Path, data: bytes) -> tuple[TrustedKeys, Path, bool]:
    """The keys that the user names; else this machine's if they include the report's; else those beside the report.

    Returns the keys, their file, and whether it is the one beside the report.

    Raises:
        NotFound: code `signing_keys_missing`; there are no keys.
        InvalidInput: code `invalid_signing_keys`.
    """
    if given is not None:
        return read_keys(given), given, False
    try:
        keys = read_keys(local)
    except (NotFound, OSError):  # this machine runs no service, or another user's
        keys = TrustedKeys(keys=())
    if any(keys.find(keyid) for keyid in _claimed_keys(data)):
        return keys, local, False
    path = report.with_name(KEYS_FILE)
    if path.is_file():
        return read_keys(path), path, True
    if keys.keys:
        return keys, local, False
    raise NotFound(
        "There are no trusted keys to verify with. Save the response of GET /signing-keys from the service that issued "
        "the report, and pass the file with --keys FILE or the environment variable SECURETUNE_TRUSTED_KEYS.",
        code="signing_keys_missing",
    )


def _claimed_keys(data: bytes) -> set[str]:
    """The key ids that an envelope claims, unverified: they only select a list of keys."""
    try:
        return {each.keyid for each in read(data).signatures if each.keyid is not None}
    except ValueError:
        return set()


def _check_files(verification: Verification, envelope: Path, requested: tuple[Path, ...]) -> tuple[FileCheck, ...]:
    """Check the files that the user names, and all other signed files at their places beside the report."""
    named = dict.fromkeys(each for path in requested for each in check_path(verification.files, path))
    checked = {each.name for each in named if each.state in ("matches", "altered")}
    paths = {_resolve(each) for each in named}
    around = check_folder(verification.files, envelope.parent, envelope.name.removesuffix(SIGNED_REPORT))
    others = (
        each
        for each in around
        if not (each.state == "absent" and each.name in checked) and (each.path is None or _resolve(each) not in paths)
    )
    return (*named, *others)


def _resolve(file: FileCheck) -> Path | None:
    return Path(file.path).resolve() if file.path else None


def _facts(reply: VerifyReply) -> Iterator[tuple[str, str]]:
    result, summary = reply.verification, reply.verification.summary
    if result.signed_at is not None:
        yield "signed", f"{result.signed_at:%Y-%m-%d %H:%M:%S %Z}"
    if result.keyid is not None:
        proven = result.code in ("verified", "retired_key", "not_a_report")
        yield "key", result.keyid if proven else f"{result.keyid} (claimed)"
    yield "trusted", reply.keys
    if summary is None:
        return
    yield "job", summary.job_id or "unknown"
    yield "model", _with_digest(summary.model, summary.model_sha256)
    yield "dataset", _with_digest(summary.dataset, summary.dataset_sha256)
    if not summary.gate:
        yield "gate", "the report contains no decision"
    for decision in summary.gate:
        yield "gate", f"{(decision.outcome or 'unknown').upper()}, {decision.run or 'unknown run'}"
        for reason in decision.reasons:
            yield "", f"- {reason}"


def _with_digest(name: str | None, digest: str | None) -> str:
    return f"{name or 'unknown'}, sha256 {digest or 'unknown'}"


def _file_lines(checks: tuple[FileCheck, ...]) -> Iterator[str]:
    width = max((len(visible(each.name)) for each in checks), default=0)
    for number, each in enumerate(checks):
        line = f"{visible(each.name):{width}}  {_STATES[each.state]}"
        if each.state == "altered":
            line += f": sha256 {each.actual}, expected {each.expected}"
        yield f"  {'' if number else 'files':9}{line}"
    if not any(each.state == "matches" for each in checks):
        yield "No signed file was checked: pass the files that you have with --file."
