"""securetune.cli.verify: the output and exit status of `securetune verify`, run as a user does."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from core.config import settings
from core.schemas.signing import TrustedKeys, VerifyReply
from core.signing import KEYS_FILE, SIGNED_REPORT, SigningKeys, sign_report
from securetune.cli.main import app
from securetune.cli.verify import visible

REASON = "ASR of direct is 40 % (30-50), n 80: [bold]above[/bold] 10 %."
REPORT: dict[str, object] = {
    "version": 1,
    "job_id": "job_1",
    "model": {"name": "testbed", "sha256": "a" * 64},
    "dataset": {"id": "ds_1", "sha256": "b" * 64},
    "gate": [{"run": "ml_lr", "outcome": "quarantined", "reasons": [{"code": "rise", "message": REASON}]}],
}


@dataclass(frozen=True)
class Job:
    """The files that a user downloaded, and a file of trusted keys."""

    folder: Path
    keys: Path
    signing: SigningKeys

    @property
    def report(self) -> Path:
        return self.folder / SIGNED_REPORT

    def sign(self, report: dict[str, object]) -> None:
        """Write the report and sign all files in the folder."""
        text = json.dumps(report)
        (self.folder / "report.json").write_text(text)
        self.report.unlink(missing_ok=True)
        files = {
            path.relative_to(self.folder).as_posix(): sha256(path.read_bytes()).hexdigest()
            for path in self.folder.rglob("*")
            if path.is_file()
        }
        with self.signing.signer() as signer:
            self.report.write_bytes(sign_report(text.encode(), files, signer))
        self.keys.write_text(self.signing.trusted().model_dump_json())


@pytest.fixture(autouse=True)
def no_service_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An unused state directory."""
    monkeypatch.delenv("SECURETUNE_TRUSTED_KEYS", raising=False)
    state = tmp_path / "state"
    monkeypatch.setenv("SECURETUNE_STATE", str(state))
    settings.cache_clear()
    return state


@pytest.fixture
def job(tmp_path: Path) -> Job:
    made = Job(tmp_path / "job", tmp_path / "trusted.json", SigningKeys(tmp_path / "service"))
    (made.folder / "adapter").mkdir(parents=True)
    (made.folder / "adapter" / "adapter_model.safetensors").write_bytes(b"weights")
    (made.folder / "adapter.tar").write_bytes(b"archive")
    (made.folder / "report.html").write_text("<html>")
    made.sign(REPORT)
    return made


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["verify", *map(str, arguments)])


def reply(*arguments: object) -> VerifyReply:
    return VerifyReply.model_validate_json(run(*arguments, "--json").stdout)


def test_verified_report_prints_the_signed_facts(job: Job) -> None:
    command = [sys.executable, "-m", "securetune.cli.main", "verify", str(job.report), "--keys", str(job.keys)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "80"})
    (key,) = job.signing.trusted().keys
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"VERIFIED: {job.report}\n")
    for text in (key.keyid, "job_1", f"testbed, sha256 {'a' * 64}", f"ds_1, sha256 {'b' * 64}", "QUARANTINED, ml_lr"):
        assert text in done.stdout
    assert f"- {REASON}\n" in done.stdout
    assert done.stdout.count("  matches\n") == 4


def test_altered_file_beside_the_report_is_reported(job: Job) -> None:
    (job.folder / "adapter" / "adapter_model.safetensors").write_bytes(b"other weights")
    done = run(job.report, "--keys", job.keys)
    assert done.exit_code == 1
    assert done.output.startswith("ALTERED: ")
    assert f"adapter/adapter_model.safetensors  ALTERED: sha256 {sha256(b'other weights').hexdigest()}" in done.output


def test_altered_report_is_reported_and_not_shown(job: Job) -> None:
    whole = json.loads(job.report.read_bytes())
    whole["payload"] = whole["payload"][:40] + "AAAA" + whole["payload"][44:]
    job.report.write_text(json.dumps(whole))
    done = run(job.report, "--keys", job.keys)
    assert done.exit_code == 1
    assert done.output.startswith("ALTERED: ")
    assert "job_1" not in done.output.replace(str(job.folder), "")
    assert "(claimed)" in done.output


def test_absent_files_are_not_a_failure(job: Job) -> None:
    (job.folder / "adapter.tar").unlink()
    done = run(job.report, "--keys", job.keys)
    assert done.exit_code == 0
    assert "adapter.tar                        not found" in done.output


def test_report_without_files_says_that_no_file_was_checked(job: Job, tmp_path: Path) -> None:
    alone = shutil.copy(job.report, tmp_path / "mine.json")
    done = run(alone, "--keys", job.keys)
    assert done.exit_code == 0
    assert "No signed file was checked" in done.output


@pytest.mark.parametrize("name", ["", "report.html", "report.json", "adapter.tar"])
def test_folder_or_file_beside_the_report_is_accepted(job: Job, name: str) -> None:
    found = reply(job.folder / name, "--keys", job.keys)
    assert found.ok
    assert found.envelope == str(job.report)
    if name:
        assert found.files[0].name == name
        (job.folder / name).write_text("?")
        assert run(job.folder / name, "--keys", job.keys).exit_code == 1


def test_files_from_other_folders_are_compared(job: Job, tmp_path: Path) -> None:
    moved = shutil.move(job.folder / "adapter.tar", tmp_path / "download.tar")
    shutil.move(job.folder / "adapter", tmp_path / "adapter")
    found = reply(job.report, "--keys", job.keys, "--file", moved, "--file", tmp_path / "adapter")
    assert found.ok
    assert {check.name: check.state for check in found.files} == {
        "adapter.tar": "matches",
        "adapter/adapter_model.safetensors": "matches",
        "report.html": "matches",
        "report.json": "matches",
    }
    (tmp_path / "download.tar").write_text("?")
    done = run(job.report, "--keys", job.keys, "--file", moved)
    assert done.exit_code == 1
    assert "download.tar                       UNKNOWN" in done.output


def test_unsigned_file_is_reported(job: Job) -> None:
    (job.folder / "adapter" / "adapter_model.bin").write_text("?")
    done = run(job.report, "--keys", job.keys)
    assert done.exit_code == 0
    assert "adapter/adapter_model.bin          not covered by the signature" in done.output


def another_key(job: Job, tmp_path: Path) -> Path:
    path = tmp_path / "other.json"
    other = SigningKeys(tmp_path / "other")
    with other.signer():
        path.write_text(other.trusted().model_dump_json())
    return path


def test_report_of_another_service_is_not_verified(job: Job, tmp_path: Path) -> None:
    done = run(job.report, "--keys", another_key(job, tmp_path))
    assert done.exit_code == 1
    assert done.output.startswith("NOT VERIFIED: ")


def test_rotated_key_verifies_only_earlier_signatures(job: Job) -> None:
    job.signing.rotate()
    job.keys.write_text(job.signing.trusted().model_dump_json())
    assert run(job.report, "--keys", job.keys).exit_code == 0
    first, second = job.signing.trusted().keys
    early = first.model_copy(update={"retired_at": first.created_at.replace(year=2000)})
    job.keys.write_text(TrustedKeys(keys=(early, second)).model_dump_json())
    done = run(job.report, "--keys", job.keys)
    assert done.exit_code == 1
    assert "after its key was retired" in done.output


def test_environment_variable_names_the_trusted_keys(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECURETUNE_TRUSTED_KEYS", str(job.keys))
    assert reply(job.report).keys == str(job.keys)
    assert reply(job.report, "--keys", another_key(job, tmp_path)).verification.code == "unknown_key"


def test_keys_of_the_local_service_are_trusted(job: Job, no_service_here: Path) -> None:
    shutil.copytree(job.keys.parent / "service", no_service_here / "signing")
    shutil.copy(job.keys, job.folder / KEYS_FILE)
    found = reply(job.report)
    assert (found.ok, found.keys) == (True, str(no_service_here / "signing" / KEYS_FILE))
    assert not found.keys_beside_report
    assert reply(job.report, "--state", no_service_here.parent / "elsewhere").keys_beside_report


def test_keys_beside_the_report_come_before_local_keys_without_its_key(job: Job, no_service_here: Path) -> None:
    with SigningKeys(no_service_here / "signing").signer():
        pass
    assert reply(job.report).verification.code == "unknown_key"
    shutil.copy(job.keys, job.folder / KEYS_FILE)
    found = reply(job.report)
    assert (found.ok, found.keys_beside_report) == (True, True)


def test_keys_beside_the_report_do_not_prove_the_signer(job: Job) -> None:
    shutil.copy(job.keys, job.folder / KEYS_FILE)
    done = run(job.report)
    assert done.exit_code == 0
    assert done.output.startswith("UNALTERED: ")
    assert "not who signed" in done.output
    assert "VERIFIED" not in done.output


def test_missing_keys_exit_with_2(job: Job) -> None:
    done = run(job.report)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "GET /signing-keys" in done.stderr


def test_missing_report_keys_or_file_exits_with_2(job: Job, tmp_path: Path) -> None:
    for arguments in (
        (tmp_path / "gone",),
        (tmp_path,),
        (job.keys,),
        (job.report, "--keys", tmp_path / "gone"),
        (job.report, "--keys", job.report),
        (job.report, "--keys", job.folder),
        (job.report, "--keys", job.keys, "--file", tmp_path / "gone"),
    ):
        done = run(*arguments)
        assert (done.exit_code, done.stdout) == (2, ""), arguments
        assert done.stderr.startswith("securetune: "), arguments


def test_damaged_report_is_not_verified(job: Job) -> None:
    job.report.write_bytes(b"{")
    done = run(job.report, "--keys", job.keys)
    assert done.exit_code == 1
    assert "not a signed report" in done.output


def test_text_from_a_report_cannot_control_the_terminal(job: Job) -> None:
    evil = "\x1b[2Jgone\nVERIFIED\x9b\u202e"
    gate = [{"run": evil, "outcome": evil, "reasons": [{"message": evil}]}]
    job.sign(REPORT | {"job_id": evil, "gate": gate, "model": {"name": evil}})
    for arguments in ((), ("--json",)):
        done = run(job.report, "--keys", job.keys, *arguments)
        assert done.exit_code == 0
        assert all(character.isprintable() or character == "\n" for character in done.output)
        assert "\nVERIFIED\\x9b" not in done.output
    assert "\\x1b[2Jgone\\nVERIFIED\\x9b\\u202e" in run(job.report, "--keys", job.keys).output


def test_long_text_is_cut() -> None:
    assert visible("é" * 501) == "é" * 500 + "..."
    assert visible("\ud800") == "\\ud800"


def test_json_contains_everything_except_the_report(job: Job) -> None:
    done = run(job.report, "--keys", job.keys, "--json")
    found = json.loads(done.stdout)
    assert done.exit_code == 0
    assert (found["ok"], found["verification"]["code"]) == (True, "verified")
    assert found["verification"]["summary"]["gate"][0]["outcome"] == "quarantined"
    assert "report" not in found["verification"]
