"""The environment of processes that read untrusted data: what reaches them and what does not."""

from core.processes import child_environment


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
