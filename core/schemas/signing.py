"""Signed reports: trusted keys, and the result of verifying a report.

Covers: the file of trusted keys, which is also the response of `GET /signing-keys`; the result of a verification.
Not here: signing and verifying (core.signing), the report itself (core.schemas.results).
"""

from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, Field, JsonValue, model_validator

from core.schemas.base import Frozen

KeyId = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

VerificationCode = Literal["verified", "altered", "unknown_key", "retired_key", "malformed", "not_a_report"]
"""`verified`: a trusted key signed the report. `altered`: the signature does not match its trusted key. `unknown_key`:
no trusted key signed it. `retired_key`: it was signed after its key was retired. `malformed`: the file is not an
envelope. `not_a_report`: a trusted key signed something else, or a format that this version cannot read."""
FileState = Literal["matches", "altered", "absent", "unknown", "unsigned"]
"""`matches`: the file has the signed digest. `altered`: it has another digest. `absent`: the signed file does not
exist. `unknown`: the user named a file that was not signed. `unsigned`: the file is in a folder of signed files, but
the signature does not cover it."""


class TrustedKey(Frozen):
    """A public key and the time that it was in use."""

    keyid: KeyId
    """Fingerprint of the key: SHA-256 of the public key as DER SubjectPublicKeyInfo, 64 hex digits."""
    algorithm: Literal["ed25519"] = "ed25519"
    """Signature algorithm; always Ed25519 (RFC 8032)."""
    public_key: str = Field(max_length=4096)
    """The public key as PEM SubjectPublicKeyInfo, at most 4096 characters."""
    created_at: AwareDatetime
    """When the key was first used."""
    retired_at: AwareDatetime | None = None
    """When the key was retired; null while it is in use. Later signatures are rejected."""


class TrustedKeys(Frozen):
    """Public keys whose signatures are accepted. Unknown fields are rejected, as one could revoke trust."""

    keys: tuple[TrustedKey, ...] = Field(default=(), max_length=1000)
    """The keys, oldest first, at most 1000. To stop trusting a key, for example a stolen one, delete it from the
    list."""

    @model_validator(mode="after")
    def _reject_duplicates(self) -> Self:
        if len({key.keyid for key in self.keys}) < len(self.keys):
            raise ValueError("the list has a duplicate key: list each key once")
        return self

    def find(self, keyid: str) -> TrustedKey | None:
        """The key with this id, or None."""
        return next((key for key in self.keys if key.keyid == keyid), None)


class SignedFile(Frozen):
    """A file of a job and its signed digest."""

    name: str
    """Path of the file as users see it, such as `adapter/adapter_config.json`."""
    sha256: Sha256
    """SHA-256 of the file's content, 64 hex digits."""


class GateSummary(Frozen):
    """The gate's decision about one run, as stated in a signed report."""

    run: str | None
    """Label of the run; the report's first decision is about the job's own run."""
    outcome: str | None
    """Outcome of the decision: `released`, `quarantined` or `undecided`."""
    reasons: tuple[str, ...] = ()
    """Reasons of the decision, in words."""


class ReportSummary(Frozen):
    """The main facts of a signed report of any version. A field that could not be read is null."""

    version: int | None = None
    """Version of the report's format."""
    job_id: str | None = None
    """Id of the job."""
    model: str | None = None
    """Name of the base model."""
    model_sha256: str | None = None
    """SHA-256 over the base model's files, in hex."""
    dataset: str | None = None
    """Id of the dataset."""
    dataset_sha256: str | None = None
    """SHA-256 of the dataset's file, in hex."""
    gate: tuple[GateSummary, ...] = ()
    """The gate's decisions; empty if nothing was decided."""


class Verification(Frozen):
    """Result of verifying one envelope. Its content is included only if a trusted key signed it."""

    code: VerificationCode
    """Stable code of the result."""
    message: str
    """The result in one sentence."""
    keyid: str | None = None
    """Id of the key that signed; if no trusted key did, the id that the envelope claims, which is unverified."""
    signed_at: AwareDatetime | None = None
    """Time of the signature as stated by the signer."""
    files: tuple[SignedFile, ...] = ()
    """Files that were signed together with the report."""
    summary: ReportSummary | None = None
    """The main facts of the report."""
    report: dict[str, JsonValue] | None = Field(default=None, exclude=True, repr=False)
    """The whole report as it was signed. It is left out of JSON because of its size."""

    @property
    def verified(self) -> bool:
        """Whether a trusted key signed this report."""
        return self.code == "verified"


class FileCheck(Frozen):
    """One file compared with its signed digest."""

    name: str
    """Signed name of the file; for an unknown or unsigned file, its own name."""
    state: FileState
    """Result of the comparison."""
    path: str | None = None
    """Path of the file on disk; null if it is absent."""
    expected: Sha256 | None = None
    """The signed SHA-256 in hex; null for an unknown or unsigned file."""
    actual: Sha256 | None = None
    """SHA-256 of the file on disk in hex; null if it is absent or was not read."""


class VerifyReply(Frozen):
    """Output of `securetune verify --json`."""

    ok: bool
    """Whether a trusted key signed the report and no checked file is altered or unknown."""
    envelope: str
    """Path of the signed report."""
    verification: Verification
    """Result of verifying the signature."""
    files: tuple[FileCheck, ...] = ()
    """Result for each file; empty unless the signature is valid."""
    keys: str
    """Path of the file with the trusted keys."""
    keys_beside_report: bool = False
    """Whether the keys come from the report's own folder. Then the result shows only that nothing was altered since
    that key signed, not who signed."""
