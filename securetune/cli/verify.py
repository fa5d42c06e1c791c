"""`securetune verify`: whether a signed report, and the files that came with it, are what a service signed. Offline.

Covers: which files are meant, whose keys are trusted, what is printed. Not here: cryptography (core.signing).
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from core.errors import NotFound, SecureTuneError
from core.schemas.signing import FileCheck, TrustedKeys, Verification, VerifyReply
from core.signing import KEYS_FILE, MAX_BYTES, SIGNED_REPORT, beside, named, read_keys, verify
from core.signing.envelope import read
from core.signing.report import is_envelope

_MOST_CHARACTERS = 500
_TOLD = {
    "matches": "matches",
    "altered": "ALTERED",
    "absent": "not here",
    "unknown": "UNKNOWN: nothing like it was signed",
    "unsigned": "not covered by the signature",
}
_BAD = {"altered", "unknown"}
_HEADLINES = {
    "verified": "VERIFIED",
    "altered": "ALTERED",
    "unknown_key": "NOT VERIFIED",
    "retired_key": "NOT VERIFIED",
    "malformed": "NOT VERIFIED",
    "not_a_report": "NOT VERIFIED",
}


@dataclass(frozen=True)
class Options:
    """What the user typed."""

    report: Path
    """A signed report, a folder that holds one, or a file that it lies beside."""
    keys: Path | None
    """The trusted keys, if the user names them."""
    signing: Path
    """Where a service on this machine has its keys; it need not be there."""
    files: tuple[Path, ...] = ()
    """More files to hold against the report."""


def run(options: Options, as_json: bool, say: Callable[[str], None], complain: Callable[[str], None]) -> int:
    """Verify and tell. Exit status: 0, all is as it was signed; 1, it is not; 2, there is no report, or no key."""
    try:
        reply = check(options)
    except SecureTuneError as error:
        complain(f"securetune: {visible(error.message)}")
        return 2
    except OSError as error:
        complain(f"securetune: {visible(str(error.filename))} cannot be read: {error.strerror}.")
        return 2
    if as_json:  # in ASCII: a terminal may be at the other end
        say(json.dumps(reply.model_dump(mode="json"), indent=1))
    else:
        for line in lines(reply):
            say(line)
    return 0 if reply.ok else 1


def check(options: Options) -> VerifyReply:
    """What the signature says, and how the files stand.

    Raises:
        NotFound: code `no_signed_report` or `signing_keys_missing`.
        InvalidInput: code `invalid_signing_keys`; the file of trusted keys is none.
        OSError: a file cannot be read.
    """
    path, wanted = _find(options.report)
    data = _read(path)
    trusted = _trusted(options, path, data)
    verification = verify(data, trusted.keys)
    checks = _checks(verification, path, (*wanted, *options.files)) if verification.verified else ()
    return VerifyReply(
        ok=verification.verified and not any(each.state in _BAD for each in checks),
        envelope=str(path),
        verification=verification,
        files=checks,
        keys=str(trusted.path),
        keys_beside_report=trusted.beside,
    )


def lines(reply: VerifyReply) -> Iterator[str]:
    """The same for people. Whatever came from a file is made harmless to a terminal."""
    found = reply.verification
    files_bad = found.verified and not reply.ok
    unproved = found.verified and reply.keys_beside_report
    headline = "ALTERED" if files_bad else "UNALTERED" if unproved else _HEADLINES[found.code]
    yield f"{headline}: {visible(reply.envelope)}"
    if files_bad:
        yield "The report is what was signed, but a file is not the one that was signed with it: see below."
    elif unproved:
        yield "The key that lies beside it signed this report. Who has that key, this does not show."
    else:
        yield visible(found.message)
    for name, value in _facts(reply):
        yield f"  {name:9}{visible(value)}"
    if found.verified:
        yield from _file_lines(reply.files)
    if reply.keys_beside_report:
        yield "Note: the keys lie beside the report, so whoever made the report may have made them too. This shows that"
        yield "nothing was altered since that key signed, not who signed. Compare the key with the one that the service"
        yield "shows at GET /signing-keys, or name a file of keys that you trust: --keys FILE."


def visible(text: str) -> str:
    """Text with control, format and other invisible characters spelled out, and cut where it is very long."""
    cut = text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}..."
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)


@dataclass(frozen=True)
class _Trusted:
    """Trusted keys and the file that they are from."""

    keys: TrustedKeys
    path: Path
    beside: bool = False


def _find(report: Path) -> tuple[Path, tuple[Path, ...]]:
    """The envelope that is meant, and the file that it is to be held against where the user names that file."""
    if report.is_dir():
        if (report / SIGNED_REPORT).is_file():
            return report / SIGNED_REPORT, ()
        raise NotFound(f"There is no {SIGNED_REPORT} in {report}.", code="no_signed_report")
    if not report.exists():
        raise NotFound(f"There is no file {report}.", code="no_signed_report")
    if report.name.endswith(SIGNED_REPORT) or is_envelope(_read(report)):
        return report, ()
    before, _, kind = report.name.rpartition("report.")
    names = dict.fromkeys([f"{before}{SIGNED_REPORT}", SIGNED_REPORT] if kind in ("html", "json") else [SIGNED_REPORT])
    for name in names:
        if report.with_name(name).is_file():
            return report.with_name(name), (report,)
    raise NotFound(
        f"{report} is not signed itself, and no {SIGNED_REPORT} lies beside it. A job's signed report is among its "
        "files: download it into the same folder.",
        code="no_signed_report",
    )


def _read(path: Path) -> bytes:
    """A file, or so much of it that it is known to be too large."""
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)


def _trusted(options: Options, report: Path, data: bytes) -> _Trusted:
    """Keys that the user names, or else this machine's own if the report's is among them, or else those beside it.

    Raises:
        NotFound: code `signing_keys_missing`; there are none.
        InvalidInput: code `invalid_signing_keys`.
    """
    if options.keys is not None:
        return _Trusted(read_keys(options.keys), options.keys)
    own = options.signing / KEYS_FILE
    claimed = _claimed(data)
    keys = _perhaps(own)
    if keys is not None and any(keys.by(keyid) for keyid in claimed):
        return _Trusted(keys, own)
    path = report.with_name(KEYS_FILE)
    if path.is_file():
        return _Trusted(read_keys(path), path, beside=True)
    if keys is not None and keys.keys:
        return _Trusted(keys, own)
    raise NotFound(
        "There are no trusted keys to verify with. Ask the service that you have the report from (GET /signing-keys), "
        "keep the answer in a file, and name it: --keys FILE, or the environment variable SECURETUNE_TRUSTED_KEYS.",
        code="signing_keys_missing",
    )


def _perhaps(path: Path) -> TrustedKeys | None:
    """Keys that nobody asked for: none if they are not there, or belong to another user."""
    try:
        return read_keys(path)
    except (NotFound, OSError):
        return None


def _claimed(data: bytes) -> set[str]:
    """The keys that an envelope says it was signed with: a hint which list to take."""
    try:
        return {each.keyid for each in read(data).signatures if each.keyid is not None}
    except ValueError:
        return set()


def _checks(verification: Verification, envelope: Path, more: tuple[Path, ...]) -> tuple[FileCheck, ...]:
    """Files that the user names, and all other signed files as they lie beside the report."""
    asked = dict.fromkeys(check for path in more for check in named(verification.files, path))
    seen = {check.name for check in asked if check.state in ("matches", "altered")}
    paths = {_whole(check) for check in asked}
    around = beside(verification.files, envelope.parent, envelope.name.removesuffix(SIGNED_REPORT))
    others = (
        check
        for check in around
        if not (check.state == "absent" and check.name in seen) and (check.path is None or _whole(check) not in paths)
    )
    return (*asked, *others)


def _whole(check: FileCheck) -> Path | None:
    return Path(check.path).resolve() if check.path else None


def _facts(reply: VerifyReply) -> Iterator[tuple[str, str]]:
    found, summary = reply.verification, reply.verification.summary
    if found.signed_at is not None:
        yield "signed", f"{found.signed_at:%Y-%m-%d %H:%M:%S %Z}"
    if found.keyid is not None:
        proved = found.code in ("verified", "retired_key", "not_a_report")
        yield "key", found.keyid if proved else f"{found.keyid} (claimed)"
    yield "trusted", reply.keys
    if summary is None:
        return
    yield "job", summary.job_id or "unknown"
    yield "model", _with_digest(summary.model, summary.model_sha256)
    yield "dataset", _with_digest(summary.dataset, summary.dataset_sha256)
    if not summary.gate:
        yield "gate", "no decision in this report"
    for decision in summary.gate:
        yield "gate", f"{(decision.outcome or 'unknown').upper()}, {decision.run or 'unknown run'}"
        for reason in decision.reasons:
            yield "", f"- {reason}"


def _with_digest(name: str | None, digest: str | None) -> str:
    return f"{name or 'unknown'}, sha256 {digest or 'unknown'}"


def _file_lines(checks: tuple[FileCheck, ...]) -> Iterator[str]:
    width = max((len(visible(check.name)) for check in checks), default=0)
    for number, check in enumerate(checks):
        line = f"{visible(check.name):{width}}  {_TOLD[check.state]}"
        if check.state == "altered":
            line += f": sha256 {check.found}, signed was {check.signed}"
        yield f"  {'' if number else 'files':9}{line}"
    if not any(check.state == "matches" for check in checks):
        yield "No signed file was looked at: name those that you have with --file."
