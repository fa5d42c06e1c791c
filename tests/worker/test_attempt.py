"""However the work ends, it becomes one word."""

import errno
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from core.errors import Interrupted as InterruptedJob
from core.errors import InvalidModel, StorageFull, TrainingFailed
from core.schemas.results import Outcome
from tests.worker.helpers import ROOT
from worker.attempt import conclude
from worker.protocol import Failed, Stopped, Succeeded


def raising(error: BaseException) -> Callable[[], Outcome]:
    """Work that ends like this."""

    def work() -> Outcome:
        raise error

    return work


def test_done() -> None:
    outcome = Outcome(artifacts=())
    assert conclude(lambda: outcome) == Succeeded(outcome=outcome)


def test_stopped() -> None:
    assert conclude(raising(InterruptedJob("stop"))) == Stopped()


@pytest.mark.parametrize(
    ("error", "code", "param"),
    [
        (TrainingFailed("The loss is not finite.", code="loss_not_finite"), "loss_not_finite", None),
        (InvalidModel("No.", param="base_model"), "invalid_model", "base_model"),
        (StorageFull("Full."), "storage_full", None),
        (OSError(errno.ENOSPC, "No space left on device"), "storage_full", None),
        (torch.OutOfMemoryError("CUDA out of memory"), "cuda_oom", None),
        (MemoryError(), "out_of_memory", None),
        (ZeroDivisionError("password=hunter2"), "internal_error", None),
    ],
)
def test_failures_have_codes(error: Exception, code: str, param: str | None) -> None:
    ending = conclude(raising(error))
    assert isinstance(ending, Failed)
    assert (ending.error.code, ending.error.param) == (code, param)
    assert "hunter2" not in ending.error.message


def save_weights(folder: Path) -> None:
    save_file({"weight": torch.zeros(100_000)}, folder / "adapter.safetensors")


def save_tokenizer(folder: Path) -> None:
    Tokenizer.from_file(str(ROOT / "testbed" / "model" / "tokenizer.json")).save(str(folder / "tokenizer.json"))


def save_report(folder: Path) -> None:
    (folder / "report.json").write_bytes(bytes(100_000))


@pytest.mark.parametrize("save", [save_weights, save_tokenizer, save_report])
def test_a_full_disk_is_one_error_whoever_meets_it(save: Callable[[Path], None], tmp_path: Path, no_room: None) -> None:
    def work() -> Outcome:
        save(tmp_path)
        return Outcome(artifacts=())

    ending = conclude(work)
    assert isinstance(ending, Failed)
    assert ending.error.code == "storage_full"
    assert "Free some space" in ending.error.message


def test_an_unexpected_error_leaves_its_traceback_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    conclude(raising(ZeroDivisionError("here")))
    assert "ZeroDivisionError: here" in caplog.text


def test_a_forced_exit_is_no_ending() -> None:
    with pytest.raises(SystemExit):
        conclude(raising(SystemExit(1)))


def test_a_process_listens_to_its_worker_before_anything_takes_long() -> None:
    program = "import sys, worker.process; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {"torch", "transformers", "sqlalchemy", "celery", "core.config"}.isdisjoint(loaded.stdout.split())
