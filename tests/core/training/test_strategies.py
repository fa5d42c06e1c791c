"""Strategies are pure: modules and a robust subset in, one factor a module out."""

from hypothesis import given
from hypothesis import strategies as st

from core.spec.strategy import MlLrStrategy, UniformStrategy
from core.training.strategies import plan

NAMES = st.lists(st.text("abc.0", min_size=1, max_size=8), unique=True, max_size=30)
RATIOS = st.floats(0, 1)


@given(NAMES)
def test_uniform_trains_everything_alike(names: list[str]) -> None:
    found = plan(UniformStrategy(label="plain"), names, robust=names[:1])
    assert found.strategy == "plain"
    assert found.scales == dict.fromkeys(names, 1.0)
    assert found.full_rate == tuple(names)


@given(NAMES, RATIOS, st.data())
def test_ml_lr_gives_the_robust_the_whole_rate_and_the_rest_its_share(
    names: list[str], ratio: float, data: st.DataObject
) -> None:
    robust = data.draw(st.sets(st.sampled_from(names)) if names else st.just(set[str]()))
    found = plan(MlLrStrategy(ratio=ratio), names, robust)
    assert found.strategy == "ml_lr"
    assert list(found.scales) == names
    assert all(found.scales[name] == (1.0 if name in robust else ratio) for name in names)
    if ratio < 1:
        assert set(found.full_rate) == robust


def test_a_robust_module_that_is_not_trained_is_no_matter() -> None:
    assert plan(MlLrStrategy(), ["a"], ["a", "b"]).scales == {"a": 1.0}
