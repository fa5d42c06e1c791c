"""The environment of processes that read untrusted data: what reaches them and what does not; and their memory."""

from pathlib import Path

import pytest

from core import processes
from core.processes import child_environment, memory_limit


def test_only_what_is_listed_reaches_the_process() -> None:
    secrets = {"DATABASE_URL": "x", "REDIS_URL": "x", "PGPASSWORD": "x", "SECURETUNE_STATE": "x", "OPENAI_API_KEY": "x"}
    needed = {
        "PATH": "/bin",
        "HF_TOKEN": "t",
        "SECURETUNE_JUDGE_BIG": "k",
        "CUDA_VISIBLE_DEVICES": "1",
        "OMP_NUM_THREADS": "4",
        "PYTHONPATH": "/p",
    }
    found = child_environment(secrets | needed, "SECURETUNE_JUDGE_")
    assert found == needed | {"TQDM_DISABLE": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    assert child_environment({"OMP_WAIT_POLICY": "ACTIVE"})["OMP_WAIT_POLICY"] == "ACTIVE"
    assert "SECURETUNE_JUDGE_BIG" not in child_environment(needed)


def test_a_container_limits_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = (tmp_path / "memory.max", tmp_path / "memory.limit_in_bytes")
    monkeypatch.setattr(processes, "_MEMORY_LIMITS", limits)
    machine = memory_limit()
    limits[0].write_text("max\n")
    assert memory_limit() == machine
    limits[1].write_text(f"{machine // 2}\n")
    assert memory_limit() == machine // 2
    limits[1].write_text(f"{2**63}\n")
    assert memory_limit() == machine, "no limit, as version 1 writes it"
