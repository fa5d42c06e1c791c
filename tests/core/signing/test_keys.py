"""core.signing.keys: one key whoever comes first, rotation, and files that others may not read."""

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
    """Moves on a second whenever it is looked at."""

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


def test_the_first_use_makes_a_key_that_only_its_owner_may_read(folder: Path) -> None:
    keys = SigningKeys(folder, clock=Clock())
    assert keys.trusted().keys == ()
    with keys.signer() as signer:
        signature = signer.sign(b"data")
    (listed,) = keys.trusted().keys
    assert (listed.keyid, listed.retired_at) == (signer.keyid, None)
    public_key(listed).verify(signature, b"data")
    assert stat.S_IMODE((folder / "signing_key.pem").stat().st_mode) == 0o600
    assert sorted(path.name for path in folder.iterdir()) == ["lock", "signing_key.pem", KEYS_FILE]


def test_the_key_stays_the_same(folder: Path) -> None:
    assert current(SigningKeys(folder)) == current(SigningKeys(folder))
    assert len(SigningKeys(folder).trusted().keys) == 1


def test_the_private_key_is_not_told(folder: Path) -> None:
    with SigningKeys(folder).signer() as signer:
        assert "Ed25519PrivateKey" not in repr(signer)
    assert "PRIVATE" not in (folder / KEYS_FILE).read_text()


def test_the_key_id_is_what_openssl_says(folder: Path) -> None:
    keyid = current(SigningKeys(folder))
    command = "openssl pkey -in signing_key.pem -pubout -outform DER | sha256sum"
    try:
        said = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, check=True).stdout
    except FileNotFoundError:
        pytest.skip("no bash here")
    if said.startswith("e3b0c442"):  # the digest of nothing
        pytest.skip("no openssl here")
    assert said.split()[0] == keyid


def test_processes_that_start_at_once_end_with_one_key(folder: Path) -> None:
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
    said = {process.communicate()[0] for process in started}
    assert len(said) == 1
    assert [key.keyid for key in SigningKeys(folder).trusted().keys] == [said.pop().strip()]


def test_rotation_exchanges_the_key_and_keeps_the_old_public_one(folder: Path) -> None:
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


def test_rotation_before_the_first_use_makes_one_key(folder: Path) -> None:
    keys = SigningKeys(folder)
    assert [keys.rotate()] == list(keys.trusted().keys)


def test_a_crash_between_key_and_list_is_mended(folder: Path) -> None:
    keys = SigningKeys(folder)
    old = current(keys)
    fresh = pem()
    private_file(folder / "signing_key.pem", fresh)
    (folder / "signing_key.pem.new").write_bytes(b"half")
    new = current(keys)
    assert [(key.keyid, key.retired_at is None) for key in keys.trusted().keys] == [(old, False), (new, True)]
    keys.rotate()
    assert [key.retired_at is None for key in keys.trusted().keys] == [False, False, True]


def test_an_old_key_that_is_put_back_signs_nothing(folder: Path) -> None:
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
def test_a_key_that_others_may_use_is_refused(folder: Path, mode: int) -> None:
    keys = SigningKeys(folder)
    current(keys)
    (folder / "signing_key.pem").chmod(mode)
    with pytest.raises(Unavailable, match="chmod 600") as caught:
        current(keys)
    assert caught.value.code == "signing_key_unsafe"
    with pytest.raises(Unavailable, match="chmod 600"):
        keys.rotate()


def test_a_key_may_be_kept_elsewhere(folder: Path, tmp_path: Path) -> None:
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
def test_what_is_no_key_is_refused(folder: Path, tmp_path: Path, data: bytes) -> None:
    with pytest.raises(Unavailable, match="openssl genpkey") as caught:
        current(SigningKeys(folder, private_file(tmp_path / "secret.pem", data)))
    assert caught.value.code == "signing_key_unusable"


def test_a_key_that_is_not_there_is_not_made_elsewhere(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="cannot be read"):
        current(SigningKeys(folder, tmp_path / "secret.pem"))
    assert list(tmp_path.glob("secret.pem*")) == []


def listed(folder: Path) -> dict[str, object]:
    current(SigningKeys(folder))
    return json.loads((folder / KEYS_FILE).read_text())["keys"][0]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"keyid": "0" * 64}, "another one"),
        ({"keyid": "short"}, "keyid"),
        ({"algorithm": "rsa"}, "algorithm"),
        ({"public_key": "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"}, "cannot be read"),
        ({"created_at": "2026-01-01T00:00:00"}, "created_at"),
        ({"revoked": True}, "revoked"),
    ],
)
def test_a_damaged_list_is_refused(folder: Path, change: dict[str, object], why: str) -> None:
    key = listed(folder) | change
    (folder / KEYS_FILE).write_text(json.dumps({"keys": [key]}))
    with pytest.raises(InvalidInput, match=why) as caught:
        read_keys(folder / KEYS_FILE)
    assert caught.value.code == "invalid_signing_keys"


def test_a_list_names_each_key_once(folder: Path) -> None:
    key = listed(folder)
    (folder / KEYS_FILE).write_text(json.dumps({"keys": [key, key]}))
    with pytest.raises(InvalidInput, match="twice"):
        read_keys(folder / KEYS_FILE)


def test_a_list_of_another_kind_of_key_is_refused(folder: Path) -> None:
    other = generate_private_key(SECP256R1()).public_key()
    text = other.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    key = {"keyid": "0" * 64, "public_key": text, "created_at": "2026-01-01T00:00:00Z"}
    folder.mkdir(parents=True)
    (folder / KEYS_FILE).write_text(json.dumps({"keys": [key]}))
    with pytest.raises(InvalidInput, match="no Ed25519 key"):
        read_keys(folder / KEYS_FILE)


def test_a_list_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as caught:
        read_keys(tmp_path / KEYS_FILE)
    assert caught.value.code == "signing_keys_missing"


def test_importing_it_needs_nothing_of_a_worker() -> None:
    code = "import sys, core.signing; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"numpy", "torch", "sklearn", "sqlalchemy", "fastapi", "celery"} & set(done.stdout.split())
