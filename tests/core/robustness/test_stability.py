"""Agreement of maps: equal maps agree perfectly, random maps no better than chance, and what is missing is left out."""

import warnings

import numpy as np
import pytest

from core.lm.modules import Module
from core.robustness.gradient import Halves
from core.robustness.probe_activations import Effect
from core.robustness.stability import MIN_MODULES, SeedMap, measure_stability
from core.robustness.units import units
from core.schemas.analysis import AnalysisSpec, Proxy
from core.schemas.robustness import MapStability

ANALYSIS = AnalysisSpec()
COUNT = 40


def halves(*seeds: int, count: int = COUNT) -> dict[str, Halves]:
    """Random figures of modules, one seed for each half."""

    def draw(seed: int) -> list[Effect]:
        return [Effect(*row) for row in np.random.default_rng(seed).normal(size=(count, 3)).tolist()]

    first, second = (draw(seed) for seed in (seeds[0], seeds[-1]))
    return {f"layers.{number}.q": pair for number, pair in enumerate(zip(first, second, strict=True))}


def seed_map(
    found: dict[str, Halves], *, with_halves: bool = True, at_break: dict[str, Halves] | None = None
) -> SeedMap:
    modules = [Module(name, layer=number, type="q", parameters=1) for number, name in enumerate(found)]
    effects = {unit: sum(found[unit.name][1:], found[unit.name][0]) for unit in units(modules, "module", 1)}
    return SeedMap(effects, found if with_halves else None, at_break)


def only(found: tuple[MapStability, ...], between: str, at: str = "end") -> MapStability:
    (one,) = [each for each in found if (each.between, each.at) == (between, at)]
    return one


def test_halves_of_the_same_data_agree_perfectly() -> None:
    found = measure_stability([seed_map(halves(0))], ANALYSIS)
    (same,) = found
    assert (same.between, same.at, same.modules) == ("halves", "end", COUNT)
    assert (same.spearman, same.overlap, same.task_gain_spearman) == pytest.approx((1.0, 1.0, 1.0))
    assert same.p_value < 1e-9
    assert same.overlap_by_chance == 0.5


def test_random_halves_and_seeds_agree_no_better_than_chance() -> None:
    found = measure_stability([seed_map(halves(1, 2)), seed_map(halves(3, 4))], ANALYSIS)
    for between in ("seeds", "halves"):
        one = only(found, between)
        assert abs(one.spearman) < 0.4
        assert one.p_value > 0.05
        assert one.overlap == pytest.approx(one.overlap_by_chance, abs=0.2)


def test_opposite_maps_are_worse_than_chance() -> None:
    found = halves(0)
    turned = {name: (first * -1.0, second * -1.0) for name, (first, second) in found.items()}
    one = only(measure_stability([seed_map(found), seed_map(turned)], ANALYSIS), "seeds")
    assert (one.spearman, one.p_value, one.overlap) == pytest.approx((-1.0, 1.0, 0.0))


@pytest.mark.parametrize("proxy", ["refusal_drift", "feature_drift"])
def test_maps_are_compared_by_the_proxy(proxy: Proxy) -> None:
    found = halves(5)
    other = {name: (Effect(a.feature_drift, -a.refusal_drift, 0.0),) * 2 for name, (a, _) in found.items()}
    maps = [seed_map(found), seed_map(other)]
    one = only(measure_stability(maps, AnalysisSpec(proxy=proxy)), "seeds")
    assert one.spearman == pytest.approx(1.0 if proxy == "feature_drift" else -1.0)
    assert one.task_gain_spearman is None, "one map has no task gains"


def test_the_break_is_compared_if_every_probe_reached_it() -> None:
    end, at_break = halves(0), halves(6)
    both = [seed_map(end, at_break=at_break), seed_map(end, at_break=at_break)]
    found = measure_stability(both, ANALYSIS)
    assert [(each.between, each.at) for each in found] == [
        ("seeds", "break"),
        ("halves", "break"),
        ("break_and_end", "end"),
        ("seeds", "end"),
        ("halves", "end"),
    ]
    assert only(found, "seeds", "break").spearman == pytest.approx(1.0)
    assert abs(only(found, "break_and_end").spearman) < 0.4
    assert {each.at for each in measure_stability([both[0], seed_map(end)], ANALYSIS)} == {"end"}


def test_several_seeds_are_compared_half_by_half() -> None:
    one, other, third = halves(0), halves(1), halves(2)
    found = measure_stability([seed_map(one), seed_map(one), seed_map(one), seed_map(one)], ANALYSIS)
    assert only(found, "seeds").spearman == pytest.approx(1.0)
    mixed = [seed_map(each, with_halves=False) for each in (one, other, third)]
    (seeds,) = measure_stability(mixed, ANALYSIS)
    assert -1 < seeds.spearman < 1


def test_maps_that_rank_nothing_are_not_compared() -> None:
    flat = {name: (Effect(0.0, 1.0, 1.0),) * 2 for name in halves(0)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert measure_stability([seed_map(flat), seed_map(halves(0), with_halves=False)], ANALYSIS) == ()
        assert measure_stability([seed_map(halves(0, count=MIN_MODULES - 1))], ANALYSIS) == ()
        assert measure_stability([seed_map(halves(0), with_halves=False)], ANALYSIS) == ()
        assert len(measure_stability([seed_map(halves(0, count=MIN_MODULES))], ANALYSIS)) == 1
