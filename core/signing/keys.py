"""The service's signing key and the list of all its public keys, in one folder.

    signing_key.pem     the private key that signs now: PKCS #8, mode 0600, made on first use
    signing_keys.json   every public key that ever signed here (core.schemas.signing.TrustedKeys)
    lock                held while a key signs, is made or is exchanged

The private key is written first and the list follows it, so that a crash in between is mended by the next signature.
Not here: what is signed (report.py); keys in hardware or in a key service.
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
"""Name of the list of public keys."""
_KEY_FILE = "signing_key.pem"
_LOCK_FILE = "lock"
_MAX_KEY_BYTES = 64 * 2**10
_MAX_LIST_BYTES = 8 * 2**20


def utc_now() -> datetime:
    """This moment."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Signer:
    """The key that signs now, for as long as the folder is held; see `SigningKeys.signer`."""

    keyid: str
    """SHA-256 of the public key, in hex."""
    at: datetime
    """When it was taken up: the time to put into what it signs."""
    key: Ed25519PrivateKey = field(repr=False)
    """The private key."""

    def sign(self, data: bytes) -> bytes:
        """The signature, 64 bytes."""
        return self.key.sign(data)


class SigningKeys:
    """The folder of keys. `key` names a private key that is kept elsewhere, such as a mounted secret."""

    def __init__(self, folder: Path, key: Path | None = None, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._folder = folder
        self._key = key
        self._clock = clock

    def trusted(self) -> TrustedKeys:
        """Every public key that ever signed here; none before the first use. Needs no access to the private key.

        Raises:
            InvalidInput: the list was damaged.
        """
        try:
            return read_keys(self._folder / KEYS_FILE)
        except NotFound:
            return TrustedKeys()

    @contextmanager
    def signer(self) -> Iterator[Signer]:
        """The key that signs now, made on first use. No other process exchanges it inside the `with` block, so what is
        signed in it at `Signer.at` is never later than the key's end.

        Raises:
            Unavailable: code `signing_key_unsafe`, others may read the private key; `signing_key_unusable`, it is no
                Ed25519 key.
            Conflict: code `signing_key_retired`, it was exchanged for another.
            StorageFull: there is no room for a new key.
        """
        with self._locked():
            key = self._private()
            now = self._clock()
            yield Signer(self._listed(key.public_key(), now).keyid, now, key)

    def rotate(self) -> TrustedKey:
        """Exchange the key: a new one signs from now on. The old private key is deleted; its public key stays in the
        list, for what it signed until now.

        Raises:
            Conflict: code `signing_key_elsewhere`; the private key is not kept in this folder.
            StorageFull: there is no room for a new key.
        """
        if self._key is not None:
            raise Conflict(
                f"The signing key is kept in {self._key}. Put another private key there: the next signature is made "
                "with it, and the old key is retired.",
                code="signing_key_elsewhere",
            )
        with self._locked():
            if (self._folder / _KEY_FILE).exists():
                with suppress(Conflict):  # an old key that was put back: no reason to keep it
                    self._listed(self._private().public_key(), self._clock())  # a crash may have left it out
            return self._listed(self._made().public_key(), self._clock())

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with room():
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self._folder / _LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _private(self) -> Ed25519PrivateKey:
        if self._key is not None:
            return _load(self._key)
        path = self._folder / _KEY_FILE
        return _load(path) if path.exists() else self._made()

    def _made(self) -> Ed25519PrivateKey:
        key = Ed25519PrivateKey.generate()
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        _replace(self._folder / _KEY_FILE, pem, 0o600)
        return key

    def _listed(self, public: Ed25519PublicKey, now: datetime) -> TrustedKey:
        """The key's entry in the list. A new one ends the use of those before it."""
        keys, keyid = self.trusted(), key_id(public)
        if known := keys.by(keyid):
            if known.retired_at is not None:
                raise Conflict(
                    f"The signing key {keyid} was retired on {known.retired_at:%Y-%m-%d}: exchange it for a new one.",
                    code="signing_key_retired",
                )
            return known
        before = tuple(key if key.retired_at else key.model_copy(update={"retired_at": now}) for key in keys.keys)
        made = TrustedKey(keyid=keyid, public_key=_pem(public), created_at=now)
        whole = TrustedKeys(keys=(*before, made))
        _replace(self._folder / KEYS_FILE, whole.model_dump_json(indent=1).encode(), 0o644)
        return made


def key_id(public: Ed25519PublicKey) -> str:
    """SHA-256 of the key as DER SubjectPublicKeyInfo, in hex: `openssl pkey -pubin -outform DER | sha256sum`."""
    return sha256(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def public_key(key: TrustedKey) -> Ed25519PublicKey:
    """The key itself.

    Raises:
        InvalidInput: code `invalid_signing_keys`; its PEM is no Ed25519 key, or not the one that its id says.
    """
    try:
        loaded = load_pem_public_key(key.public_key.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _bad_list(f"the public key of {key.keyid} cannot be read") from error
    if not isinstance(loaded, Ed25519PublicKey):
        raise _bad_list(f"{key.keyid} is no Ed25519 key")
    if not compare_digest(key_id(loaded), key.keyid):
        raise _bad_list(f"the public key of {key.keyid} is another one")
    return loaded


def read_keys(path: Path) -> TrustedKeys:
    """A list of trusted keys, each of them looked at.

    Raises:
        NotFound: code `signing_keys_missing`; there is no such file.
        InvalidInput: code `invalid_signing_keys`; it is no such list.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_LIST_BYTES + 1)
    except FileNotFoundError as error:
        raise NotFound(f"There is no file {path}.", code="signing_keys_missing") from error
    if len(data) > _MAX_LIST_BYTES:
        raise _bad_list(f"{path} is too large")
    try:
        keys = TrustedKeys.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise _bad_list(f"{path}: {'.'.join(map(str, first['loc'])) or 'the whole'}: {first['msg']}") from error
    for key in keys.keys:
        public_key(key)
    return keys


def _bad_list(why: str) -> InvalidInput:
    return InvalidInput(f"This is no list of signing keys: {why}.", code="invalid_signing_keys")


def _load(path: Path) -> Ed25519PrivateKey:
    """The private key of a file that nobody but its owner may read."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode  # of what is read, not of what may lie there a moment later
            data = file.read(_MAX_KEY_BYTES)
    except OSError as error:
        raise Unavailable(
            f"The signing key {path} cannot be read: {error.strerror}.", code="signing_key_unusable"
        ) from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise Unavailable(
            f"The signing key {path} has mode {stat.S_IMODE(mode):04o}: others may use it. Run `chmod 600 {path}`; if "
            "anybody else may have read it, exchange it.",
            code="signing_key_unsafe",
        )
    try:
        key = load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _no_key(path) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _no_key(path)
    return key


def _no_key(path: Path) -> Unavailable:
    return Unavailable(
        f"{path} holds no Ed25519 private key in PEM without a password. Make one with "
        f"`openssl genpkey -algorithm ed25519 -out {path}`.",
        code="signing_key_unusable",
    )


def _pem(public: Ed25519PublicKey) -> str:
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def _replace(path: Path, data: bytes, mode: int) -> None:
    """Write a file whole or not at all; only its owner ever sees it wider than `mode`. The caller holds the lock."""
    fresh = path.with_name(f"{path.name}.new")
    with room():
        fresh.unlink(missing_ok=True)  # of a process that was killed
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
