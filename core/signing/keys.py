"""The service's signing key and the list of all its public keys, in one folder.

    signing_key.pem     the current private key: PKCS #8, mode 0600, created on first use
    signing_keys.json   the public keys of all signatures so far (core.schemas.signing.TrustedKeys)
    lock                file lock for signing, creating and rotating a key

The private key is written before the list, so the next signature repairs the list after a crash.
Not here: what is signed (report.py), keys in hardware or in a key service.
"""

import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from hmac import compare_digest
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from pydantic import ValidationError

from core.errors import Conflict, InvalidInput, NotFound, Unavailable
from core.schemas.signing import TrustedKey, TrustedKeys
from core.storage.store import room

KEYS_FILE = "signing_keys.json"
"""Name of the file with the public keys."""
_KEY_FILE = "signing_key.pem"
_LOCK_FILE = "lock"
_MAX_KEY_BYTES = 64 * 2**10
_MAX_LIST_BYTES = 8 * 2**20


@dataclass(frozen=True)
class Signer:
    """The current signing key, valid while its folder is locked; see `SigningKeys.signer`."""

    keyid: str
    """SHA-256 of the public key, in hex."""
    at: datetime
    """Time to use as the time of the signature."""
    key: Ed25519PrivateKey = field(repr=False)
    """The private key."""


@dataclass(frozen=True)
class SigningKeys:
    """The folder of keys."""

    folder: Path
    key: Path | None = None
    """Path of a private key outside the folder, such as a mounted secret."""
    clock: Callable[[], datetime] = field(default=lambda: datetime.now(UTC), kw_only=True)

    def trusted(self) -> TrustedKeys:
        """All public keys, retired ones included; empty before the first use. The private key is not read.

        Raises:
            InvalidInput: code `invalid_signing_keys`; the list is damaged.
        """
        try:
            return read_keys(self.folder / KEYS_FILE)
        except NotFound:
            return TrustedKeys()

    @contextmanager
    def signer(self) -> Iterator[Signer]:
        """The current key, created on first use. No other process can rotate it inside the `with` block, so
        `Signer.at` is never later than the key's retirement.

        Raises:
            Unavailable: code `signing_key_unsafe`, other users can read the private key; `signing_key_unusable`, it is
                not an Ed25519 key.
            Conflict: code `signing_key_retired`; the key was retired.
            StorageFull: the disk is full.
        """
        with self._locked():
            key = self._load_or_create()
            now = self.clock()
            yield Signer(self._register(key.public_key(), now).keyid, now, key)

    def rotate(self) -> TrustedKey:
        """Replace the key with a new one. The old private key is deleted; its public key stays in the list, so its
        signatures so far remain valid.

        Raises:
            Conflict: code `signing_key_elsewhere`; the private key is outside this folder.
            StorageFull: the disk is full.
        """
        if self.key is not None:
            raise Conflict(
                f"The signing key is stored outside the keys folder, in {self.key}. To rotate it, replace that file "
                "with another private key: the next signature uses it and retires the old key.",
                code="signing_key_elsewhere",
            )
        with self._locked():
            if (self.folder / _KEY_FILE).exists():
                with suppress(Conflict):  # the key is retired already
                    # A crash may have left this key out of the list.
                    self._register(self._load_or_create().public_key(), self.clock())
            return self._register(self._create().public_key(), self.clock())

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with room():
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.folder / _LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _load_or_create(self) -> Ed25519PrivateKey:
        if self.key is not None:
            return _load(self.key)
        path = self.folder / _KEY_FILE
        return _load(path) if path.exists() else self._create()

    def _create(self) -> Ed25519PrivateKey:
        key = Ed25519PrivateKey.generate()
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        _replace(self.folder / _KEY_FILE, pem, 0o600)
        return key

    def _register(self, public: Ed25519PublicKey, now: datetime) -> TrustedKey:
        """The key's entry in the list. Adding a new key retires all earlier ones."""
        keys, keyid = self.trusted(), key_id(public)
        if known := keys.find(keyid):
            if known.retired_at is not None:
                raise Conflict(
                    f"The signing key {keyid} was retired on {known.retired_at:%Y-%m-%d}: replace it with a new one.",
                    code="signing_key_retired",
                )
            return known
        retired = tuple(key if key.retired_at else key.model_copy(update={"retired_at": now}) for key in keys.keys)
        added = TrustedKey(keyid=keyid, public_key=_pem(public), created_at=now)
        _replace(self.folder / KEYS_FILE, TrustedKeys(keys=(*retired, added)).model_dump_json(indent=1).encode(), 0o644)
        return added


def key_id(public: Ed25519PublicKey) -> str:
    """SHA-256 of the key as DER SubjectPublicKeyInfo, in hex, as `openssl pkey -pubin -outform DER | sha256sum`."""
    return sha256(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def public_key(key: TrustedKey) -> Ed25519PublicKey:
    """Load a public key from its PEM.

    Raises:
        InvalidInput: code `invalid_signing_keys`; the PEM is not an Ed25519 key, or not the key of this id.
    """
    try:
        loaded = load_pem_public_key(key.public_key.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _bad_list(f"the public key of {key.keyid} cannot be read") from error
    if not isinstance(loaded, Ed25519PublicKey):
        raise _bad_list(f"{key.keyid} is not an Ed25519 key")
    if not compare_digest(key_id(loaded), key.keyid):
        raise _bad_list(f"the public key of {key.keyid} has another fingerprint")
    return loaded


def read_keys(path: Path) -> TrustedKeys:
    """Read a file of trusted keys and check each key.

    Raises:
        NotFound: code `signing_keys_missing`; the file does not exist.
        InvalidInput: code `invalid_signing_keys`; the file is not a list of signing keys.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_LIST_BYTES + 1)
    except FileNotFoundError as error:
        raise NotFound(f"The file {path} does not exist.", code="signing_keys_missing") from error
    if len(data) > _MAX_LIST_BYTES:
        raise _bad_list(f"{path} is too large")
    try:
        keys = TrustedKeys.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise _bad_list(f"{path}: {'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}") from error
    for key in keys.keys:
        public_key(key)
    return keys


def _bad_list(why: str) -> InvalidInput:
    return InvalidInput(f"The list of signing keys is invalid: {why}.", code="invalid_signing_keys")


def _load(path: Path) -> Ed25519PrivateKey:
    """Load the private key from a file that only its owner may read."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode  # of the opened file: the path may change
            data = file.read(_MAX_KEY_BYTES)
    except OSError as error:
        raise Unavailable(
            f"The signing key {path} cannot be read: {error.strerror}.", code="signing_key_unusable"
        ) from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise Unavailable(
            f"The signing key {path} has mode {stat.S_IMODE(mode):04o}, so other users can access it. Run `chmod 600 "
            f"{path}`, and rotate the key if another user may have read it.",
            code="signing_key_unsafe",
        )
    try:
        key = load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _unusable(path) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _unusable(path)
    return key


def _unusable(path: Path) -> Unavailable:
    return Unavailable(
        f"{path} is not an unencrypted Ed25519 private key in PEM. Create one with "
        f"`openssl genpkey -algorithm ed25519 -out {path}`.",
        code="signing_key_unusable",
    )


def _pem(public: Ed25519PublicKey) -> str:
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def _replace(path: Path, data: bytes, mode: int) -> None:
    """Write a file atomically, with `mode` from its creation. The caller must hold the lock."""
    fresh = path.with_name(f"{path.name}.new")
    with room():
        fresh.unlink(missing_ok=True)  # left by a killed process
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
