"""Signed reports: keys to trust, and what verification says.

Covers: the file of trusted keys, which `GET /signing-keys` answers too; results of a verification.
Not here: signing and verifying (core.signing), what stands in a report (core.schemas.results).
"""

from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, Field, JsonValue, model_validator

from core.schemas.base import Frozen

KeyId = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

VerificationCode = Literal["verified", "altered", "unknown_key", "retired_key", "malformed", "not_a_report"]
"""`altered`: the signature of a trusted key does not match. `unknown_key`: no trusted key made it. `retired_key`: it
was made after the key's end. `malformed`: it is no envelope. `not_a_report`: a trusted key signed it, but it is
something else, or a layout that this version does not know."""
FileState = Literal["matches", "altered", "absent", "unknown", "unsigned"]
"""`absent`: it was signed, and is not there. `unknown`: the user names it, and nothing like it was signed.
`unsigned`: it lies in a folder of signed files, and the signature does not cover it."""


class TrustedKey(Frozen):
    """One public key, and when it was in use."""

    keyid: KeyId
    """SHA-256 of the public key as DER SubjectPublicKeyInfo, in hex: its fingerprint."""
    algorithm: Literal["ed25519"] = "ed25519"
    """Ed25519 (RFC 8032)."""
    public_key: str = Field(max_length=4096)
    """The public key, as PEM SubjectPublicKeyInfo."""
    created_at: AwareDatetime
    """When it was taken into use."""
    retired_at: AwareDatetime | None = None
    """Since when it signs no more; null while it is in use."""


class TrustedKeys(Frozen):
    """Keys whose signatures are believed. A closed class: an unknown field could be one that takes trust away."""

    keys: tuple[TrustedKey, ...] = Field(default=(), max_length=1000)
    """Oldest first. To distrust a key, such as a stolen one, take it out of the list."""

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if len({key.keyid for key in self.keys}) < len(self.keys):
            raise ValueError("a key stands twice in the list")
        return self

    def by(self, keyid: str) -> TrustedKey | None:
        """The key of this id."""
        return next((key for key in self.keys if key.keyid == keyid), None)


class SignedFile(Frozen):
    """A file that was handed out, as it was signed."""

    name: str
    """Path as its user sees it, such as `adapter/adapter_config.json`."""
    sha256: Sha256
    """Digest."""


class GateSummary(Frozen):
    """What the gate made of one arm."""

    run: str | None
    """Which arm; the first of a report is the job's own."""
    outcome: str | None
    """`released`, `quarantined` or `undecided`."""
    reasons: tuple[str, ...] = ()
    """Why, for people."""


class ReportSummary(Frozen):
    """What can be read of a signed report, whatever version wrote it. Null is what was not found."""

    version: int | None = None
    """Version of the report's layout."""
    job_id: str | None = None
    """The job."""
    model: str | None = None
    """Name of the base model."""
    model_sha256: str | None = None
    """Digest of its weights."""
    dataset: str | None = None
    """Id of the dataset."""
    dataset_sha256: str | None = None
    """Digest of the dataset's file."""
    gate: tuple[GateSummary, ...] = ()
    """What the gate decided; empty where nothing was decided."""


class Verification(Frozen):
    """What verification of one envelope found. Nothing of its content is here unless a trusted key signed it."""

    code: VerificationCode
    """What was found."""
    message: str
    """The same for people."""
    keyid: str | None = None
    """The key that signed; where none did, the one that the envelope claims, unproved."""
    signed_at: AwareDatetime | None = None
    """When, as the signer says."""
    files: tuple[SignedFile, ...] = ()
    """What was signed beside the report."""
    summary: ReportSummary | None = None
    """What the report says, in short."""
    report: dict[str, JsonValue] | None = Field(default=None, exclude=True, repr=False)
    """The whole report, as it was signed: what to rely on. Left out of JSON, being long."""

    @property
    def verified(self) -> bool:
        """Whether a trusted key signed this report."""
        return self.code == "verified"


class FileCheck(Frozen):
    """One file held against what was signed."""

    name: str
    """Its signed name; of an unknown or unsigned file, its own."""
    state: FileState
    """How it stands."""
    path: str | None = None
    """Where it lies; null if it is absent."""
    signed: Sha256 | None = None
    """The digest that was signed; null for an unknown or unsigned file."""
    found: Sha256 | None = None
    """The digest that it has; null if it is absent, or was not read."""


class VerifyReply(Frozen):
    """What `securetune verify` says."""

    ok: bool
    """Whether a trusted key signed the report, and no file that was looked at is another one than was signed."""
    envelope: str
    """The signed report that was read."""
    verification: Verification
    """What its signature says."""
    files: tuple[FileCheck, ...] = ()
    """What the files say; empty unless the signature is good."""
    keys: str
    """The file that the trusted keys are from."""
    keys_beside_report: bool = False
    """True where the keys came with the report: then this shows that nothing was altered since that key signed, and not
    who signed."""
