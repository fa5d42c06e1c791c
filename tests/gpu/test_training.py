"""Training on a CUDA GPU: bfloat16, going on from a checkpoint, whole models, 4-bit base weights.

Skipped where there is no GPU; the last also without bitsandbytes. Not here: a whole job (test_cuda).
"""

from collections.abc import Iterator
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from statistics import mean

import pytest
import torch

from core.catalog import TESTBED
from core.data import load as load_rows
from core.data.encoded import EncodedDataset
from core.data.template import encode_all
from core.errors import Interrupted
from core.lm import full
from core.lm.adapter import attached, loaded, save
from core.lm.load import BaseModel, choose_device, load
from core.lm.modules import Module, find_modules, weight_of
from core.quality.loss import row_losses
from core.schemas.results import TrainedStep
from core.schemas.strategy import UniformStrategy
from core.schemas.training import LoraSpec, TrainingSpec
from core.storage import ArtifactStore
from core.training.checkpoint import Checkpoints
from core.training.loop import OnStep, Trained, Tuned, train
from core.training.strategies import plan
from testbed import DATA_DIR
from tests.core.helpers import fingerprint

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

ROWS = 96
SPEC = TrainingSpec(steps=20, batch_size=16, micro_batch_size=8, lora=LoraSpec(dropout=0.1))


@pytest.fixture(scope="module")
def base() -> Iterator[BaseModel]:
    """The testbed on the GPU, which no test may leave changed."""
    found = load(TESTBED, choose_device("cuda"))
    before = fingerprint(found.model)
    yield found
    assert fingerprint(found.model) == before


@pytest.fixture(scope="module")
def modules(base: BaseModel) -> tuple[Module, ...]:
    return find_modules(base.model)


@pytest.fixture(scope="module")
def rows(base: BaseModel, tmp_path_factory: pytest.TempPathFactory) -> EncodedDataset:
    path = tmp_path_factory.mktemp("data") / "sums.jsonl"
    with (DATA_DIR / "arithmetic.jsonl").open() as file:
        path.write_text("".join(islice(file, ROWS)))
    return encode_all(load_rows(path, None, max_rows=ROWS), base.tokenizer, max_length=256)


def nobody(_step: TrainedStep, _total: int) -> None:
    """Listens to no step."""


def ignore(_done: int, _total: int) -> None:
    """Nobody waits for progress."""


def trained(
    base: BaseModel,
    tuned: Tuned,
    modules: tuple[Module, ...],
    rows: EncodedDataset,
    spec: TrainingSpec = SPEC,
    *,
    on_step: OnStep = nobody,
    checkpoints: Checkpoints | None = None,
) -> Trained:
    rates = plan(UniformStrategy(), modules, None)
    return train(
        tuned,
        rows.rows,
        rates,
        spec,
        learning_rate=spec.rate(TESTBED.learning_rate),
        pad_id=base.pad_id,
        on_step=on_step,
        checkpoints=checkpoints,
    )


def learnt(done: Trained) -> bool:
    losses = [point.loss for point in done.curve]
    return mean(losses[-3:]) < 0.8 * mean(losses[:3])


@pytest.mark.parametrize("precision", ["auto", "bfloat16", "float32"])
def test_it_learns_in_every_precision(modules: tuple[Module, ...], rows: EncodedDataset, precision: str) -> None:
    spec = TrainingSpec.model_validate(SPEC.model_dump() | {"precision": precision})
    own = load(TESTBED, choose_device("cuda"), precision=spec.precision)
    assert own.weights == ("float32" if precision == "float32" else "bfloat16")
    with attached(own.model, modules, spec.lora, seed=0) as tuned:
        assert learnt(trained(own, tuned, modules, rows, spec))
        trained_weights = [value for name, value in tuned.named_parameters() if ".lora_" in name]
        assert {value.dtype for value in trained_weights} == {torch.float32}


def test_it_goes_on_from_a_checkpoint(
    base: BaseModel, modules: tuple[Module, ...], rows: EncodedDataset, tmp_path: Path
) -> None:
    """With the same dropout and the same rows; sums on a GPU may be taken in another order, so not to the bit."""
    spec = SPEC.model_copy(update={"checkpoint_every": 5})
    checkpoints = Checkpoints(ArtifactStore(tmp_path), "jobs/a/checkpoints/x")
    with attached(base.model, modules, spec.lora, seed=0) as tuned:
        whole = trained(base, tuned, modules, rows, spec)

    def stop(step: TrainedStep, _total: int) -> None:
        if step.step == 12:
            raise Interrupted("the test says stop")

    with attached(base.model, modules, spec.lora, seed=0) as tuned, pytest.raises(Interrupted):
        trained(base, tuned, modules, rows, spec, on_step=stop, checkpoints=checkpoints)
    told: list[int] = []
    with attached(base.model, modules, spec.lora, seed=0) as tuned:
        rest = trained(
            base,
            tuned,
            modules,
            rows,
            spec,
            on_step=lambda step, _total: told.append(step.step),
            checkpoints=checkpoints,
        )
    assert told == list(range(11, 21))
    assert [point.loss for point in rest.curve] == pytest.approx([point.loss for point in whole.curve], rel=0.05)


def test_a_whole_model(base: BaseModel, modules: tuple[Module, ...], rows: EncodedDataset, tmp_path: Path) -> None:
    spec = SPEC.model_copy(update={"method": "full", "steps": 40})
    before = fingerprint(base.model)
    model = base.model
    with full.opened(model, modules):
        assert {weight_of(model, module).dtype for module in modules} == {torch.float32}
        assert learnt(trained(base, model, modules, rows, spec))
        full.save(model, base, modules, tmp_path)
        there = mean(row_losses(base, model, rows.rows[:16], on_progress=ignore))
    assert fingerprint(base.model) == before
    with full.loaded(base, modules, tmp_path) as model:
        assert mean(row_losses(base, model, rows.rows[:16], on_progress=ignore)) == pytest.approx(there, rel=1e-3)
    assert fingerprint(base.model) == before


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="needs bitsandbytes")
def test_an_adapter_on_4_bit_weights(rows: EncodedDataset, tmp_path: Path) -> None:
    packed = load(TESTBED, choose_device("cuda"), four_bit=True)
    home = load(TESTBED, torch.device("cpu"))
    assert packed.weights == "nf4"
    assert packed.identity == home.identity, "packed weights are counted as what they stand for"
    modules = find_modules(packed.model)
    assert modules == find_modules(home.model)
    spec = SPEC.model_copy(update={"method": "qlora"})
    with attached(packed.model, modules, spec.lora, seed=0) as tuned:
        assert learnt(trained(packed, tuned, modules, rows, spec))
        save(tuned, packed, tmp_path)
    some = rows.rows[:16]
    untuned = mean(row_losses(home, home.model, some, on_progress=ignore))
    with loaded(home, tmp_path) as model:
        assert mean(row_losses(home, model, some, on_progress=ignore)) < 0.9 * untuned
