"""The benchmark of screening prints its figures, and ordinary tuning data is hardly flagged."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
SHARED = ROOT.parent / "shared" / "data"
CHECKS = {"harmful", "identity", "secrets", "personal_data", "near_duplicate"}

needs_data = pytest.mark.skipif(not SHARED.is_dir(), reason="the public data sets are not beside the repository")


def run(*options: str | Path) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "research.bench.screening", *map(str, options)]
    return subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False)


def figures(*options: str | Path) -> dict[str, Any]:
    done = run(*options)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    return json.loads(line)


def test_time_without_public_data(tmp_path: Path) -> None:
    found = figures("time", "--rows", "300", "--data", tmp_path / "none")
    assert (found["benchmark"], found["rows"], found["public"]) == ("screening", 300, False)
    assert found["seconds"].keys() == found["processor_seconds"].keys() == CHECKS | {"all"}
    assert found["found"].keys() == CHECKS
    assert 400 < found["mean_characters"] < 800


@pytest.mark.parametrize("command", ["recall", "clean"])
def test_a_missing_data_folder_is_an_error(tmp_path: Path, command: str) -> None:
    done = run(command, "--data", tmp_path / "none")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no such folder" in done.stderr


@pytest.mark.slow
@needs_data
def test_ordinary_tuning_data_is_hardly_flagged() -> None:
    found = figures("clean")
    assert found.pop("benchmark") == "screening_clean"
    assert {name: one["rows"] for name, one in found.items()} == {
        "gsm8k_train": 7473,
        "chatdoctor": 5452,
        "pubmedqa_long": 1000,
        "self_instruct": 427,
        "tatqa": 1668,
    }
    assert all(one["share"] < 0.005 for one in found.values())
    assert not any(
        code.startswith(("harmful", "identity", "secrets")) for one in found.values() for code in one["codes"]
    )
