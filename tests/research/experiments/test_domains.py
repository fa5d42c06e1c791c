"""Maps agree as they should, rows are what they say, and the whole experiment runs."""

from pathlib import Path

import pytest

from core.lm.load import BaseModel
from core.schemas.analysis import AnalysisSpec, GradientPerturbation
from core.schemas.robustness import RobustnessResult
from research.experiments import domains as experiment
from research.experiments.domains import (
    DOMAINS,
    LONGEST,
    PUBLIC,
    ROWS,
    DomainsResult,
    agreements,
    beginning,
    domain_rows,
    domains,
    ending,
    rank_correlation,
)
from research.experiments.spec import Domain, Settings
from testbed.build import WORLD_SEED
from testbed.world import make_world
from tests.research.experiments.test_runs import MODULES, ROBUST, found

WORLD = make_world(WORLD_SEED)
SETTINGS = Settings(
    tuning_set="instructions",
    rates=(8e-3,),
    steps=2,
    batch_size=2,
    points=1,
    prompts=4,
    validation_rows=4,
    analysis=AnalysisSpec(probes=8, rows=2, perturbation=GradientPerturbation(steps=2, points=1)),
)
OTHERS = tuple(module.name for module in MODULES if module.name not in ROBUST)


def drifting(result: RobustnessResult, drifts: dict[str, float]) -> RobustnessResult:
    rows = tuple(each.model_copy(update={"refusal_drift": drifts[each.module]}) for each in result.modules)
    return result.model_copy(update={"modules": rows})


def test_a_map_agrees_with_itself_and_not_with_its_opposite() -> None:
    one, other = found(MODULES, ROBUST), found(MODULES, OTHERS)
    maps = {"medical": [one, one], "legal": [one, other]}
    between, medical, legal = agreements(maps)
    assert (medical.jaccard.mean, medical.kappa and medical.kappa.mean) == (1.0, 1.0)
    assert medical.spearman.mean == pytest.approx(1.0)
    assert (legal.jaccard.mean, legal.spearman.mean) == (0.0, pytest.approx(-1.0))
    assert legal.kappa is not None
    assert legal.kappa.mean < -0.5
    assert (between.one, between.other, between.jaccard.values) == ("medical", "legal", (1.0, 0.0))


def test_sets_that_hold_everything_have_no_kappa() -> None:
    everything = found(MODULES, tuple(module.name for module in MODULES))
    mixed = drifting(everything, {module.name: float(place) for place, module in enumerate(MODULES)})
    (pair,) = agreements({"medical": [mixed], "legal": [mixed]})
    assert pair.jaccard.mean == 1.0
    assert pair.kappa is None


def test_ranks_are_compared_by_name_and_not_by_place() -> None:
    drifts = {module.name: float(place) for place, module in enumerate(MODULES)}
    one = drifting(found(MODULES, ROBUST), drifts)
    other = one.model_copy(update={"modules": one.modules[::-1]})
    assert rank_correlation(one, other) == pytest.approx(1.0)
    turned = drifting(one, {name: -drift for name, drift in drifts.items()})
    assert rank_correlation(one, turned) == pytest.approx(-1.0)


def test_jaccard() -> None:
    names = [module.name for module in MODULES]
    drifts = {name: float(place) for place, name in enumerate(names)}
    one, other, none = (drifting(found(MODULES, robust), drifts) for robust in ((*names[:2],), (*names[1:3],), ()))
    assert agreements({"medical": [one], "legal": [other]})[0].jaccard.mean == pytest.approx(1 / 3)
    assert agreements({"medical": [none], "legal": [none]})[0].jaccard.mean == 1.0


def test_long_texts_are_cut_between_words() -> None:
    assert beginning("one two three", 8) == "one two"
    assert ending("one two three", 9) == "two three"
    assert ending("one two three", 8) == "three"
    assert beginning("one", 8) == ending("one", 8) == "one"
    assert len(beginning("a" * 50, 8)) <= 8
    assert len(ending("a" * 50, 8)) <= 8


@pytest.mark.parametrize("domain", DOMAINS)
def test_toy_domains_share_no_noun(base: BaseModel, domain: Domain) -> None:
    rows, data = domain_rows(domain, "toy", WORLD, base.tokenizer)
    assert (len(rows), data.rows, data.cut, data.lossless, data.unknown_tokens) == (ROWS, ROWS, 0, 1.0, 0)
    others = [noun for place, noun in enumerate(WORLD.nouns) if DOMAINS[place % 3] != domain]
    assert not any(noun in asked for noun in others for asked, _ in rows)
    assert rows == domain_rows(domain, "toy", WORLD, base.tokenizer)[0]


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.skipif(not PUBLIC.is_dir(), reason="the public data sets are not beside the repository")
def test_real_text_goes_in_without_loss(base: BaseModel, domain: Domain) -> None:
    rows, data = domain_rows(domain, "public", WORLD, base.tokenizer)
    assert (data.rows, data.lossless, data.unknown_tokens) == (ROWS, 1.0, 0)
    assert max(len(text) for row in rows for text in row) <= LONGEST
    assert len({asked for asked, _ in rows}) > 0.9 * ROWS


@pytest.mark.usefixtures("short_experiments")
def test_the_whole_experiment_runs_without_the_public_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(experiment, "PUBLIC", tmp_path / "nowhere")
    monkeypatch.setattr(experiment, "DOMAINS", DOMAINS[:1])
    monkeypatch.setattr(experiment, "RATES", (8e-3,))
    result = domains(SETTINGS, WORLD_SEED, [0], lambda _: None)
    assert DomainsResult.model_validate_json(result.model_dump_json()) == result
    assert result.source == "toy"
    assert set(result.domains) == {"medical"}
    assert [(each.one, each.other) for each in result.agreement] == [("medical", "instructions")]
    for each in result.domains.values():
        assert set(experiment.RUNS) == set(each.figures)
        assert each.rate == 8e-3
    assert "medical" in result.table()
