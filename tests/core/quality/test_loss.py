"""The validation loss is the mean of the rows' own losses, in whatever order and batches they are read; perplexity is
the same in another unit."""

from dataclasses import replace
from math import exp

import pytest
import torch

from core.lm.load import BaseModel
from core.quality import loss as module
from core.quality.loss import MAX_PERPLEXITY, mean_loss, perplexity, row_losses
from core.stats import mean_interval
from tests.core.helpers import ProgressLog, encoded, ignore
from tests.core.quality.fakes import always


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_each_row_has_its_own_loss_in_the_order_of_the_rows(base: BaseModel, batch_size: int) -> None:
    rows = encoded(base, 10)
    assert len({len(row.input_ids) for row in rows}) > 3
    found = row_losses(base, base.model, rows, on_progress=ignore, batch_size=batch_size)
    for row, loss in zip(rows, found, strict=True):
        ids, labels = (torch.from_numpy(part).long()[None] for part in (row.input_ids, row.labels))
        with torch.inference_mode():
            assert loss == pytest.approx(base.model(input_ids=ids, labels=labels).loss.item(), abs=1e-5)
    assert row_losses(base, base.model, rows[::-1], on_progress=ignore, batch_size=batch_size) == pytest.approx(
        found[::-1]
    )


def test_the_figure_is_their_mean_with_its_interval(base: BaseModel) -> None:
    rows = encoded(base, 10)
    losses = row_losses(base, base.model, rows, on_progress=ignore)
    figure = mean_loss(row_losses(base, base.model, rows, on_progress=ignore), run="mine")
    assert (figure.run, figure.suite, figure.metric, figure.judge) == ("mine", "task", "loss", "none")
    assert (figure.n, figure.undecided) == (10, 0)
    assert (figure.value, figure.low, figure.high) == mean_interval(losses, minimum=0.0, maximum=1e6)
    assert figure.low < figure.value < figure.high


def test_progress_is_reported_and_may_stop(base: BaseModel) -> None:
    told = ProgressLog()
    row_losses(base, base.model, encoded(base, 5), on_progress=told, batch_size=2)
    assert told == [(0, 5), (2, 5), (4, 5), (5, 5)]

    def stop(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        row_losses(base, base.model, encoded(base, 2), on_progress=stop)


def test_rows_that_exceed_a_batch_run_one_by_one(base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = encoded(base, 6)
    together = row_losses(base, base.model, rows, on_progress=ignore)
    monkeypatch.setattr(module, "max_batch_tokens", always(1))
    told = ProgressLog()
    assert row_losses(base, base.model, rows, on_progress=told) == pytest.approx(together)
    assert told == [(done, 6) for done in range(7)]


def test_half_batches_have_half_the_rows(base: BaseModel) -> None:
    rows, told = encoded(base, 6), ProgressLog()
    halved = row_losses(replace(base, half_batches=True), base.model, rows, on_progress=told)
    assert told == [(0, 6), (3, 6), (6, 6)]
    assert halved == pytest.approx(row_losses(base, base.model, rows, on_progress=ignore))


def test_perplexity_is_the_exponential_of_the_loss_and_its_interval() -> None:
    loss = mean_loss([0.5, 1.5, 2.5], run="mine")
    figure = perplexity(loss)
    assert (figure.run, figure.suite, figure.metric, figure.judge, figure.n) == (
        "mine",
        "task",
        "perplexity",
        "none",
        3,
    )
    assert (figure.value, figure.low, figure.high) == (exp(1.5), exp(loss.low), exp(loss.high))


@pytest.mark.parametrize(("losses", "value"), [([], 1.0), ([1e5], MAX_PERPLEXITY), ([2.0], exp(2))])
def test_perplexity_is_finite_for_small_samples(losses: list[float], value: float) -> None:
    figure = perplexity(mean_loss(losses, run="mine"))
    assert (figure.value, figure.high, figure.n) == (
        pytest.approx(value),
        pytest.approx(MAX_PERPLEXITY),
        len(losses),
    )
