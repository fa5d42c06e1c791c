"""core.signing.keys: creation, rotation, concurrent use, and file permissions."""

import json
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from core.errors import Conflict, InvalidInput, NotFound, Unavailable
from core.signing import KEYS_FILE, SigningKeys, read_keys
from core.signing.keys import public_key

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Clock:
    """Advances one second at each call."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state" / "signing"


def current(keys: SigningKeys) -> str:
    with keys.signer() as signer:
        return signer.keyid


def pem(key: Ed25519PrivateKey | None = None) -> bytes:
    return (key or Ed25519PrivateKey.generate()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def private_file(path: Path, data: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(data)
    path.chmod(mode)
    return path


def test_first_use_creates_a_key_that_only_its_owner_can_read(folder: Path) -> None:
    keys = SigningKeys(folder, clock=Clock())
    assert keys.trusted().keys == ()
    with keys.signer() as signer:
        signature = signer.key.sign(b"data")
    (listed,) = keys.trusted().keys
    assert (listed.keyid, listed.retired_at) == (signer.keyid, None)
    public_key(listed).verify(signature, b"data")
    assert stat.S_IMODE((folder / "signing_key.pem").stat().st_mode) == 0o600
    assert sorted(path.name for path in folder.iterdir()) == ["lock", "signing_key.pem", KEYS_FILE]


def test_key_is_reused(folder: Path) -> None:
    assert current(SigningKeys(folder)) == current(SigningKeys(folder))
    assert len(SigningKeys(folder).trusted().keys) == 1


def test_private_key_is_not_exposed(folder: Path) -> None:
    with SigningKeys(folder).signer() as signer:
        assert "Ed25519PrivateKey" not in repr(signer)
    assert "PRIVATE" not in (folder / KEYS_FILE).read_text()


def test_key_id_matches_openssl(folder: Path) -> None:
    keyid = current(SigningKeys(folder))
    command = "openssl pkey -in signing_key.pem -pubout -outform DER | sha256sum"
    try:
        output = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, check=True).stdout
    except FileNotFoundError:
        pytest.skip("no bash here")
    if output.startswith("e3b0c442"):  # the digest of nothing
        pytest.skip("no openssl here")
    assert output.split()[0] == keyid


def test_concurrent_processes_create_one_key(folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from core.signing import SigningKeys\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "with SigningKeys(Path(sys.argv[1])).signer() as signer: print(signer.keyid)"
    )
    command = [sys.executable, "-c", code, str(folder)]
    started = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    output = {process.communicate()[0] for process in started}
    assert len(output) == 1
    assert [key.keyid for key in SigningKeys(folder).trusted().keys] == [output.pop().strip()]


def test_rotation_replaces_the_key_and_keeps_the_old_public_key(folder: Path) -> None:
    clock = Clock()
    keys = SigningKeys(folder, clock=clock)
    old = current(keys)
    before = (folder / "signing_key.pem").read_bytes()
    made = keys.rotate()
    first, second = keys.trusted().keys
    assert (first.keyid, first.retired_at) == (old, clock.now)
    assert (second.keyid, second.created_at, second.retired_at) == (made.keyid, clock.now, None)
    assert current(keys) == made.keyid
    assert before not in [path.read_bytes() for path in folder.iterdir()]


def test_rotation_before_the_first_use_creates_one_key(folder: Path) -> None:
    keys = SigningKeys(folder)
    assert [keys.rotate()] == list(keys.trusted().keys)


def test_crash_between_key_and_list_is_repaired(folder: Path) -> None:
    keys = SigningKeys(folder)
    old = current(keys)
    fresh = pem()
    private_file(folder / "signing_key.pem", fresh)
    (folder / "signing_key.pem.new").write_bytes(b"half")
    new = current(keys)
    assert [(key.keyid, key.retired_at is None) for key in keys.trusted().keys] == [(old, False), (new, True)]
    keys.rotate()
    assert [key.retired_at is None for key in keys.trusted().keys] == [False, False, True]


def test_retired_key_cannot_sign(folder: Path) -> None:
    keys = SigningKeys(folder)
    current(keys)
    old = (folder / "signing_key.pem").read_bytes()
    keys.rotate()
    private_file(folder / "signing_key.pem", old)
    with pytest.raises(Conflict, match="retired") as caught:
        current(keys)
    assert caught.value.code == "signing_key_retired"
    assert keys.rotate().keyid == current(keys)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o620])
def test_key_with_open_permissions_is_rejected(folder: Path, mode: int) -> None:
    keys = SigningKeys(folder)
    current(keys)
    (folder / "signing_key.pem").chmod(mode)
    with pytest.raises(Unavailable, match="chmod 600") as caught:
        current(keys)
    assert caught.value.code == "signing_key_unsafe"
    with pytest.raises(Unavailable, match="chmod 600"):
        keys.rotate()


def test_key_outside_the_folder_is_used(folder: Path, tmp_path: Path) -> None:
    path = private_file(tmp_path / "secret.pem", pem())
    keys = SigningKeys(folder, path)
    old = current(keys)
    assert not (folder / "signing_key.pem").exists()
    with pytest.raises(Conflict, match=r"secret\.pem"):
        keys.rotate()
    private_file(path, pem())
    new = current(keys)
    assert [(key.keyid, key.retired_at is None) for key in keys.trusted().keys] == [(old, False), (new, True)]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no key",
        generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"word")),
    ],
    ids=["empty", "text", "other kind", "with password"],
)
def test_file_that_is_not_a_key_is_rejected(folder: Path, tmp_path: Path, data: bytes) -> None:
    with pytest.raises(Unavailable, match="openssl genpkey") as caught:
        current(SigningKeys(folder, private_file(tmp_path / "secret.pem", data)))
    assert caught.value.code == "signing_key_unusable"


def test_missing_key_outside_the_folder_is_not_created(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="cannot be read"):
        current(SigningKeys(folder, tmp_path / "secret.pem"))
    assert list(tmp_path.glob("secret.pem*")) == []


def listed(folder: Path) -> dict[str, object]:
    current(SigningKeys(folder))
    return json.loads((folder / KEYS_FILE).read_text())["keys"][0]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"keyid": "0" * 64}, "another fingerprint"),
        ({"keyid": "short"}, "keyid"),
        ({"algorithm": "rsa"}, "algorithm"),
        ({"public_key": "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"}, "cannot be read"),
        ({"created_at": "2026-01-01T00:00:00"}, "created_at"),
        ({"revoked": True}, "revoked"),
    ],
)
def test_damaged_list_is_rejected(folder: Path, change: dict[str, object], why: str) -> None:
    key = listed(folder) | change
    (folder / KEYS_FILE).write_text(json.dumps({"keys": [key]}))
    with pytest.raises(InvalidInput, match=why) as caught:
        read_keys(folder / KEYS_FILE)
    assert caught.value.code == "invalid_signing_keys"


def test_duplicate_key_is_rejected(folder: Path) -> None:
    key = listed(folder)
    (folder / KEYS_FILE).write_text(json.dumps({"keys": [key, key]}))
    with pytest.raises(InvalidInput, match="duplicate key"):
        read_keys(folder / KEYS_FILE)


def test_list_with_another_kind_of_key_is_rejected(folder: Path) -> None:
    other = generate_private_key(SECP256R1()).public_key()
    text = other.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    key = {"keyid": "0" * 64, "public_key": text, "created_at": "2026-01-01T00:00:00Z"}
    folder.mkdir(parents=True)
    (folder / KEYS_FILE).write_text(json.dumps({"keys": [key]}))
    with pytest.raises(InvalidInput, match="not an Ed25519 key"):
        read_keys(folder / KEYS_FILE)


def test_missing_list_is_reported(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as caught:
        read_keys(tmp_path / KEYS_FILE)
    assert caught.value.code == "signing_keys_missing"


def test_import_needs_no_worker_packages() -> None:
    code = "import sys, core.signing; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"numpy", "torch", "sklearn", "sqlalchemy", "fastapi", "celery"} & set(done.stdout.split())
