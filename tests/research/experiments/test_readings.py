"""Figures are read at the end and at equal task score; files of rows and tables are what they say."""

from pathlib import Path

import pytest

from core.data import load
from research.experiments.compare import loss, missed
from research.experiments.readings import RUNS, exchange, few_runs, figures_of, readings, write_rows
from research.experiments.spec import Curve, Interval, Point, Settings
from research.experiments.tables import aligned, cell
from tests.research.experiments.test_runs import MODULES, ROBUST, found

SETTINGS = Settings(tuning_set="instructions", rates=(1e-3,))


def point(step: int, task: float, backdoor: float) -> Point:
    return Point(
        step=step,
        loss=1 / step,
        task=task,
        attack_success=0.0,
        by_family={},
        harmfulness=1.0,
        content=0.0,
        over_refusal=0.0,
        watched={"backdoor": backdoor},
    )


def curve(run: str, seed: int, *points: Point) -> Curve:
    return Curve(run=run, seed=seed, rate=1e-3, full_rate_modules=1, points=points, seconds=1.0)


UNIFORM = curve("uniform", 0, point(1, 0.0, 0.0), point(2, 80.0, 100.0))
SLOW = curve("slow", 0, point(1, 0.0, 0.0), point(2, 40.0, 30.0))


def test_a_watched_figure_is_read_where_both_are_as_good_at_the_task() -> None:
    read = readings([UNIFORM, SLOW], figures_of(["backdoor"]), shortfall=missed, seeds=1)
    slow = read["slow"]["backdoor"]
    assert slow.at_end.mean == 30.0
    assert slow.reduction_at_end is not None
    assert slow.reduction_at_end.mean == 70.0
    assert slow.uniform_at_equal_task is not None
    assert slow.uniform_at_equal_task.mean == pytest.approx(50.0), "40 of 80 is reached half way"
    assert slow.reduction_at_equal_task is not None
    assert slow.reduction_at_equal_task.mean == pytest.approx(20.0)
    assert read["uniform"]["backdoor"].reduction_at_end is None
    assert read["uniform"]["task"].at_end.mean == 80.0


def test_at_equal_loss_runs_that_are_as_far_are_compared_as_they_are() -> None:
    read = readings([UNIFORM, SLOW], figures_of(["backdoor"]), shortfall=loss, seeds=1)["slow"]["backdoor"]
    assert read.reduction_at_equal_task is not None
    assert read.reduction_at_equal_task.mean == pytest.approx(70.0)


def test_an_run_that_did_not_run_for_every_seed_is_left_out() -> None:
    again = UNIFORM.model_copy(update={"seed": 1})
    assert set(readings([UNIFORM, again, SLOW], figures_of(), shortfall=missed, seeds=2)) == {"uniform"}


def test_few_runs_are_the_named_ones_on_the_named_rows() -> None:
    runs = few_runs(SETTINGS, MODULES, found(MODULES, ROBUST), rate=1e-3, seed=3, rows=Path("rows.jsonl"))
    assert tuple(sorted(run.run for run in runs)) == tuple(sorted(RUNS))
    assert {run.rows for run in runs} == {Path("rows.jsonl")}
    by_run = {run.run: run for run in runs}
    assert by_run["uniform_low"].rate == 1e-3 * SETTINGS.low
    assert by_run["uniform + safety_mix"].safety_share > 0
    assert set(by_run["ml_lr"].plan.full_rate) == set(ROBUST) != set(by_run["random"].plan.full_rate)


def test_without_robust_modules_there_is_no_random_set_to_match() -> None:
    runs = few_runs(SETTINGS, MODULES, found(MODULES, ()), rate=1e-3, seed=0)
    assert "random" not in {run.run for run in runs}


def test_rows_that_are_written_can_be_read_again(tmp_path: Path) -> None:
    rows = [exchange("Größe?\n2", "Two."), exchange("b", "c")]
    read = load(write_rows(tmp_path / "rows.jsonl", rows), None, max_rows=10)
    assert [each.messages for each in read] == rows
    assert [each.line for each in read] == [1, 2]


def test_tables_have_columns() -> None:
    assert aligned([("a", "bb"), ("ccc", "d")]) == ["a    bb", "ccc  d"]
    assert cell(None) == "-"
    assert cell(Interval(mean=1.25, ci95=None, values=(1.25,))) == "1.2"
    assert cell(Interval(mean=1.0, ci95=(0.5, 1.5), values=(1.0, 1.0)), 2) == "1.00 (0.50 to 1.50)"
