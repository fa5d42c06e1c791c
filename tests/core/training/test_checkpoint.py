"""A run that is killed and goes on from its checkpoint ends as one that was not, byte for byte."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from core.errors import Interrupted
from core.lm.load import BaseModel
from core.schemas.results import TrainedStep
from core.storage import ArtifactStore
from core.training.checkpoint import Checkpoint, Checkpoints
from core.training.loop import Trained
from core.training.position import Position
from tests.core.training.killed import KEY, SPEC, trained

ROOT = Path(__file__).parents[3]
ADAPTER = "adapter_model.safetensors"


class Told(list[int]):
    """Steps that were told; stops behind one of them, if it is named."""

    def __init__(self, last: int | None = None) -> None:
        self.last = last

    def __call__(self, step: TrainedStep, _total: int) -> None:
        self.append(step.step)
        if step.step == self.last:
            raise Interrupted("the test says stop")


@pytest.fixture(scope="module")
def straight(base: BaseModel, tmp_path_factory: pytest.TempPathFactory) -> tuple[Trained, bytes]:
    """The run without a stop and without a store."""
    folder = tmp_path_factory.mktemp("straight")
    done = trained(base, folder, Told())
    return done, (folder / ADAPTER).read_bytes()


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store")


def same(done: Trained, straight: Trained) -> bool:
    return replace(done, seconds=0.0) == replace(straight, seconds=0.0)


def test_the_whole_run_uses_what_it_is_to_prove(straight: tuple[Trained, bytes]) -> None:
    done, _ = straight
    assert done.steps == 14
    assert [point.step for point in done.validation] == [2, 4, 6, 8, 10, 12, 14]
    assert done.best_step is not None
    assert [point.step for point in done.security] == list(range(15))
    assert done.security[-1].refusal_drift != 0


def test_checkpoints_change_nothing(
    base: BaseModel, straight: tuple[Trained, bytes], store: ArtifactStore, tmp_path: Path
) -> None:
    done = trained(base, tmp_path, Told(), store=store.root)
    assert same(done, straight[0])
    assert (tmp_path / ADAPTER).read_bytes() == straight[1]


def test_killed_by_the_system_and_taken_up_again(
    base: BaseModel, straight: tuple[Trained, bytes], store: ArtifactStore, tmp_path: Path
) -> None:
    program = [sys.executable, "-m", "tests.core.training.killed", str(store.root), "8"]
    ended = subprocess.run(program, cwd=ROOT, env=dict(os.environ) | {"OMP_NUM_THREADS": "1"}, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert not (store.root / "never").exists()
    told = Told()
    done = trained(base, tmp_path, told, store=store.root)
    assert told == list(range(7, 15)), "it goes on behind the checkpoint of step 6"
    assert same(done, straight[0]), "the curve and the validations of the first attempt are kept"
    assert (tmp_path / ADAPTER).read_bytes() == straight[1]


@pytest.mark.parametrize("every", [1, 5])
def test_stopped_anywhere_it_ends_alike(
    base: BaseModel, straight: tuple[Trained, bytes], store: ArtifactStore, tmp_path: Path, every: int
) -> None:
    """Also on both sides of the border between the phases, which lies behind step 5."""
    spec = SPEC.model_copy(update={"checkpoint_every": every})
    told: list[int] = []
    for last in (4, 5, 6, 11):
        part = Told(last)
        with pytest.raises(Interrupted):
            trained(base, tmp_path / "never", part, spec=spec, store=store.root)
        told += part
    rest = Told()
    done = trained(base, tmp_path, rest, spec=spec, store=store.root)
    if every == 1:
        assert [*told, *rest] == list(range(1, 15)), "no step is done twice"
    assert same(done, straight[0])
    assert (tmp_path / ADAPTER).read_bytes() == straight[1]


def test_the_best_weights_so_far_are_kept_too(base: BaseModel, store: ArtifactStore, tmp_path: Path) -> None:
    """Stopped behind the best step, and again behind the last: it ends early all the same, with those weights."""
    spec = SPEC.model_copy(update={"patience": 2, "checkpoint_every": 1, "validate_every": 1, "steps": 60})
    whole = trained(base, tmp_path / "whole", Told(), spec=spec, rate=3e-2)
    assert whole.stopped_early
    assert whole.best_step == whole.steps - 2
    for last in (whole.steps - 1, whole.steps):
        with pytest.raises(Interrupted):
            trained(base, tmp_path / "never", Told(last), spec=spec, rate=3e-2, store=store.root)
    told = Told()
    done = trained(base, tmp_path / "rest", told, spec=spec, rate=3e-2, store=store.root)
    assert told == [whole.steps]
    assert same(done, whole)
    assert (tmp_path / "whole" / ADAPTER).read_bytes() == (tmp_path / "rest" / ADAPTER).read_bytes()


def test_a_short_run_takes_none_unless_it_is_asked_to(base: BaseModel, store: ArtifactStore, tmp_path: Path) -> None:
    spec = SPEC.model_copy(update={"checkpoint_every": None, "steps": 3})
    trained(base, tmp_path, Told(), spec=spec, store=store.root)
    assert not store.has(KEY)


def test_without_a_number_of_steps_time_decides(
    base: BaseModel, store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.training.loop._SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    spec = SPEC.model_copy(update={"checkpoint_every": None, "steps": 3})
    trained(base, tmp_path, Told(), spec=spec, store=store.root)
    found = Checkpoints(store, KEY).load()
    assert found is not None
    assert found.position.step == 2, "none is taken behind the last step"


def test_it_is_one_plain_file(base: BaseModel, store: ArtifactStore, tmp_path: Path) -> None:
    trained(base, tmp_path, Told(), store=store.root)
    assert [path for path in store.root.rglob("*") if path.is_file()] == [store.path(KEY)]
    with safe_open(store.path(KEY), framework="pt") as file:
        kinds = {name.partition("/")[0] for name in file.keys()}  # noqa: SIM118
    assert kinds == {"weight", "optimizer", "best", "chance"}


def test_what_cannot_be_read_is_as_good_as_none(store: ArtifactStore, tmp_path: Path) -> None:
    checkpoints = Checkpoints(store, KEY)
    assert checkpoints.load() is None
    checkpoints.save(Checkpoint(Position(step=3), {"weight/a": torch.ones(2)}))
    found = checkpoints.load()
    assert found is not None
    assert (found.position, found.tensors["weight/a"].tolist()) == (Position(step=3), [1.0, 1.0])
    whole = store.path(KEY).read_bytes()
    for broken in (b"", whole[: len(whole) // 2], b"\0" * 100):
        store.path(KEY).write_bytes(broken)
        assert checkpoints.load() is None
    for told in (None, {"version": "0", "position": "{}"}, {"version": "1"}, {"version": "1", "position": "{"}):
        save_file({"weight/a": torch.ones(2)}, tmp_path / "other", metadata=told)
        (tmp_path / "other").replace(store.path(KEY))
        assert checkpoints.load() is None
    checkpoints.remove()
    checkpoints.remove()
    assert not store.has(KEY)
