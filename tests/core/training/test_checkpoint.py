"""A run that is killed and resumed from its checkpoint gives the same bytes as an uninterrupted run."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from core.catalog import TESTBED
from core.errors import Interrupted
from core.lm.load import BaseModel, load
from core.schemas.results import TrainedStep
from core.storage import ArtifactStore
from core.training.checkpoint import Checkpoints, Position
from core.training.kept import EndWeights
from core.training.loop import Trained
from tests.core.training.killed import KEY, SPEC, trained

ROOT = Path(__file__).parents[3]
ADAPTER = "adapter_model.safetensors"


class Told(list[int]):
    """The reported steps. Raises after step `last`, if it is given."""

    def __init__(self, last: int | None = None) -> None:
        self.last = last

    def __call__(self, step: TrainedStep, _total: int) -> None:
        self.append(step.step)
        if step.step == self.last:
            raise Interrupted("the test says stop")


@pytest.fixture(scope="module")
def straight(base: BaseModel, tmp_path_factory: pytest.TempPathFactory) -> tuple[Trained, bytes]:
    """The run without an interruption and without a store."""
    folder = tmp_path_factory.mktemp("straight")
    done = trained(base, folder, Told())
    return done, (folder / ADAPTER).read_bytes()


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store")


def same(done: Trained, straight: Trained) -> bool:
    return replace(done, seconds=0.0) == replace(straight, seconds=0.0)


def test_the_reference_run_uses_all_options(straight: tuple[Trained, bytes]) -> None:
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


def test_a_run_beside_bfloat16_weights_resumes_with_the_same_result(store: ArtifactStore, tmp_path: Path) -> None:
    base = load(TESTBED, torch.device("cpu"), precision="bfloat16")
    whole = trained(base, tmp_path / "whole", Told())
    with pytest.raises(Interrupted):
        trained(base, tmp_path / "never", Told(last=8), store=store.root)
    reported = Told()
    resumed = trained(base, tmp_path / "resumed", reported, store=store.root)
    assert reported == list(range(7, 15))
    assert same(resumed, whole)
    one, other = ((tmp_path / name / ADAPTER).read_bytes() for name in ("whole", "resumed"))
    assert one == other


def test_a_killed_run_resumes_with_the_same_result(
    base: BaseModel, straight: tuple[Trained, bytes], store: ArtifactStore, tmp_path: Path
) -> None:
    program = [sys.executable, "-m", "tests.core.training.killed", str(store.root), "8"]
    ended = subprocess.run(program, cwd=ROOT, env=dict(os.environ) | {"OMP_NUM_THREADS": "1"}, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert not (store.root / "never").exists()
    reported = Told()
    done = trained(base, tmp_path, reported, store=store.root)
    assert reported == list(range(7, 15)), "it goes on behind the checkpoint of step 6"
    assert same(done, straight[0]), "the curve and the validations of the first attempt are kept"
    assert (tmp_path / ADAPTER).read_bytes() == straight[1]


@pytest.mark.parametrize("every", [1, 5])
def test_a_run_stopped_at_any_step_resumes_with_the_same_result(
    base: BaseModel, straight: tuple[Trained, bytes], store: ArtifactStore, tmp_path: Path, every: int
) -> None:
    """Also just before and after step 5, where the phase changes."""
    spec = SPEC.model_copy(update={"checkpoint_every": every})
    reported: list[int] = []
    for last in (4, 5, 6, 11):
        part = Told(last)
        with pytest.raises(Interrupted):
            trained(base, tmp_path / "never", part, spec=spec, store=store.root)
        reported += part
    disable_idle_adapters = Told()
    done = trained(base, tmp_path, disable_idle_adapters, spec=spec, store=store.root)
    if every == 1:
        assert [*reported, *disable_idle_adapters] == list(range(1, 15)), "no step is done twice"
    assert same(done, straight[0])
    assert (tmp_path / ADAPTER).read_bytes() == straight[1]


def test_the_best_weights_are_part_of_the_checkpoint(base: BaseModel, store: ArtifactStore, tmp_path: Path) -> None:
    """Stopped after the best step and again after the last one, it still ends early with the best weights."""
    spec = SPEC.model_copy(update={"patience": 2, "checkpoint_every": 1, "validate_every": 1, "steps": 60})
    whole = trained(base, tmp_path / "whole", Told(), spec=spec, rate=3e-2)
    assert whole.stopped_early
    assert whole.best_step == whole.steps - 2
    for last in (whole.steps - 1, whole.steps):
        with pytest.raises(Interrupted):
            trained(base, tmp_path / "never", Told(last), spec=spec, rate=3e-2, store=store.root)
    reported = Told()
    done = trained(base, tmp_path / "rest", reported, spec=spec, rate=3e-2, store=store.root)
    assert reported == [whole.steps]
    assert same(done, whole)
    assert (tmp_path / "whole" / ADAPTER).read_bytes() == (tmp_path / "rest" / ADAPTER).read_bytes()


train_averaged = partial(
    trained,
    spec=SPEC.model_copy(update={"patience": None}),
    end_weights=EndWeights(decay=0.8, max_refusal_drift=0.2),
    forgetting=True,
)


@pytest.fixture(scope="module")
def averaged(base: BaseModel, tmp_path_factory: pytest.TempPathFactory) -> tuple[Trained, bytes]:
    """A run that ends with the averaged weights of an earlier step, without an interruption."""
    folder = tmp_path_factory.mktemp("averaged")
    done = train_averaged(base, folder, Told())
    return done, (folder / ADAPTER).read_bytes()


@pytest.mark.parametrize("last", [4, 9, 13])
def test_average_and_safe_weights_are_part_of_the_checkpoint(
    base: BaseModel, averaged: tuple[Trained, bytes], store: ArtifactStore, tmp_path: Path, last: int
) -> None:
    """Killed before and after step 5, whose averaged weights the run ends with."""
    whole, weights = averaged
    assert (whole.steps, whole.end_step) == (14, 5)
    with pytest.raises(Interrupted):
        train_averaged(base, tmp_path / "never", Told(last), store=store.root)
    reported = Told()
    done = train_averaged(base, tmp_path, reported, store=store.root)
    assert reported[0] == 1 + last // 3 * 3, "it goes on behind the newest checkpoint"
    assert same(done, whole)
    assert (tmp_path / ADAPTER).read_bytes() == weights


def test_a_short_run_saves_no_checkpoint_by_default(base: BaseModel, store: ArtifactStore, tmp_path: Path) -> None:
    spec = SPEC.model_copy(update={"checkpoint_every": None, "steps": 3})
    trained(base, tmp_path, Told(), spec=spec, store=store.root)
    assert not store.has(KEY)


def test_checkpoints_are_saved_by_time_by_default(
    base: BaseModel, store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.training.loop._SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    spec = SPEC.model_copy(update={"checkpoint_every": None, "steps": 3})
    trained(base, tmp_path, Told(), spec=spec, store=store.root)
    found = Checkpoints(store, KEY).load()
    assert found is not None
    position, _ = found
    assert position.step == 2, "none is taken behind the last step"


def test_a_checkpoint_is_one_safetensors_file(base: BaseModel, store: ArtifactStore, tmp_path: Path) -> None:
    trained(base, tmp_path, Told(), store=store.root)
    assert [path for path in store.root.rglob("*") if path.is_file()] == [store.path(KEY)]
    with safe_open(store.path(KEY), framework="pt") as file:
        kinds = {name.partition("/")[0] for name in file.keys()}  # noqa: SIM118
    assert kinds == {"weight", "optimizer", "kept", "chance"}


def test_an_unreadable_checkpoint_is_ignored(store: ArtifactStore, tmp_path: Path) -> None:
    checkpoints = Checkpoints(store, KEY)
    assert checkpoints.load() is None
    checkpoints.save(Position(step=3), {"weight/a": torch.ones(2)})
    found = checkpoints.load()
    assert found is not None
    position, tensors = found
    assert (position, tensors["weight/a"].tolist()) == (Position(step=3), [1.0, 1.0])
    whole = store.path(KEY).read_bytes()
    for broken in (b"", whole[: len(whole) // 2], b"\0" * 100):
        store.path(KEY).write_bytes(broken)
        assert checkpoints.load() is None
    for reported in (None, {"version": "0", "position": "{}"}, {"version": "1"}, {"version": "1", "position": "{"}):
        save_file({"weight/a": torch.ones(2)}, tmp_path / "other", metadata=reported)
        (tmp_path / "other").replace(store.path(KEY))
        assert checkpoints.load() is None
    checkpoints.remove()
    checkpoints.remove()
    assert not store.has(KEY)
