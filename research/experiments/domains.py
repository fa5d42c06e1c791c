"""Medical, legal and financial tuning data: does the robustness map hold across domains, and does the protection?

Covers: one tuning set a domain, from public data sets beside the checkout or, without them, from the testbed's own rows
split into three vocabularies and styles; how far the maps of two domains agree, beside how far two seeds of one domain
do; runs compared at equal validation loss, since exact match means nothing of free text. The testbed's tokenizer is a
byte-level BPE: real text goes in without loss, though in many tokens. Not here: what a real model makes of such data.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Literal

from scipy.stats import spearmanr
from sklearn.metrics import jaccard_score
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from core.schemas.base import Frozen
from core.schemas.robustness import RobustnessResult
from core.stats import kappa
from research.bench.public import read_json, read_json_lines
from research.experiments.compare import compared_with_uniform, interval, loss
from research.experiments.evidence import choose_rate
from research.experiments.pool import Pool, Say, pool
from research.experiments.readings import exchange, few_runs, figures_of, readings, write_rows
from research.experiments.runs import MIXED
from research.experiments.spec import (
    Analysed,
    Comparison,
    Curve,
    Domain,
    ExperimentResult,
    Interval,
    Point,
    Reading,
    Settings,
)
from research.experiments.tables import aligned, cell, reading_lines
from research.experiments.worlds import world_folder
from testbed.tuning_sets import INSTRUCTIONS, instructions
from testbed.world import World, generator, make_world

DOMAINS: tuple[Domain, ...] = ("medical", "legal", "financial")
PUBLIC = Path(__file__).parents[3] / "shared" / "data"
"""Public data sets, if they are there; nothing of them is part of the project."""
ROWS = 1600
"""Rows of each domain: three epochs in 150 steps of 32. Fewer where there are fewer."""
RUNS = ("uniform", "ml_lr", "uniform_low", MIXED["uniform"])
"""What is trained on each; the control of a random set is left to the other experiments."""
RATES = (4e-3, 8e-3)
"""Rates of the sweep of each domain."""
LONGEST = 120
"""Characters of a real question and of an answer: of a longer question the end is kept, of an answer the beginning."""
_TOY_STYLES: dict[Domain, str] = {
    "medical": "The doctor says: ",
    "legal": "The court holds: ",
    "financial": "The report states: ",
}
_LAW = ("professional_law", "jurisprudence", "international_law")

Source = Literal["public", "toy"]
Exchange = tuple[str, str]


class DomainData(Frozen):
    """What the rows of a domain are."""

    rows: int
    """Rows, those held out among them."""
    cut: int
    """Rows of which a question or an answer was cut."""
    lossless: float
    """Share of the rows whose tokens give back the text as it was."""
    unknown_tokens: int
    """Tokens that stand for what the tokenizer does not know."""
    tokens_a_row: float
    """Tokens of question and answer, mean."""
    characters_a_token: float
    """How much text a token holds: 3.8 in the testbed's own rows, where most words are one token."""


class DomainFound(Frozen):
    """One domain."""

    data: DomainData
    """Its rows."""
    rate: float
    """Standard rate: that of the sweep whose uniform run ended with the least validation loss."""
    sweep: dict[str, float]
    """Rate to final validation loss of a uniform run."""
    base: Point
    """The base model before any tuning."""
    figures: dict[str, dict[str, Reading]]
    """By run and figure; equal task is equal validation loss here."""
    comparisons: dict[str, Comparison]
    """Every run against uniform; of these, the figures at equal loss count."""
    analyses: tuple[Analysed, ...]
    """One a seed."""
    curves: tuple[Curve, ...]
    """Every run."""


class MapAgreement(Frozen):
    """How far maps agree, over pairs of analyses: of two domains with the same seed, or of two seeds of one domain."""

    one: str
    """A domain."""
    other: str
    """Another, or the same: then this is what chance of the probe alone does."""
    jaccard: Interval
    """Of the robust sets: modules in both by modules in either; 1 where both hold none."""
    kappa: Interval | None
    """Cohen's kappa of robust or not, by module; null where a set holds all modules or none."""
    spearman: Interval
    """Rank correlation of the modules' refusal drifts."""


class DomainsResult(ExperimentResult):
    """The result of `domains`."""

    experiment: Literal["domains"] = "domains"
    source: Source
    """`public`: real text of public data sets. `toy`: the testbed's own rows in three vocabularies."""
    settings: Settings
    """All settings; `tuning_set` is each domain in turn, and `instructions` for the map of the testbed's own rows."""
    agreement: tuple[MapAgreement, ...]
    """Every two domains, the testbed's own instructions among them, and each with itself."""
    domains: dict[str, DomainFound]
    """Each domain."""
    general: tuple[Analysed, ...]
    """Analyses on the testbed's own instructions, one a seed: what the domains' maps are also compared with."""
    seconds: float
    """The whole experiment."""

    def table(self) -> str:
        """What was found, as text."""
        rows = [["one", "other", "jaccard", "kappa", "spearman"]]
        for each in self.agreement:
            rows.append([each.one, each.other, *(cell(of, 2) for of in (each.jaccard, each.kappa, each.spearman))])
        lines = [f"domains, world {self.world_seed}, seeds {len(self.seeds)}, {self.source} data; agreement of maps"]
        lines += aligned(rows)
        for name, found in self.domains.items():
            chosen = ", ".join(str(len(each.result.robust)) for each in found.analyses)
            lines += [
                f"{name}: {found.data.rows} rows, rate {found.rate:g}, robust modules {chosen}; task is loss",
                *reading_lines(found.figures, {"attack_success": 1, "content": 1, "over_refusal": 1, "loss": 3}),
            ]
        return "\n".join(lines)


def domains(
    settings: Settings, world_seed: int, seeds: Sequence[int], say: Say, *, source: Source | None = None
) -> DomainsResult:
    """Run it with rates of its own. Without a source it uses public data if they are there, else the toy."""
    started = time.monotonic()
    settings = settings.model_copy(update={"rates": RATES})
    folder = world_folder(world_seed)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder / "model")
    source = source or ("public" if PUBLIC.is_dir() else "toy")
    say(f"data: {source}")
    found: dict[str, DomainFound] = {}
    with tempfile.TemporaryDirectory(prefix="securetune-domains-") as place:
        for domain in DOMAINS:
            say(f"domain: {domain}")
            rows, data = domain_rows(domain, source, make_world(world_seed), tokenizer)
            path = write_rows(Path(place, f"{domain}.jsonl"), [exchange(*row) for row in rows])
            own = settings.model_copy(update={"tuning_set": domain})
            with pool(folder, world_seed, own, say, data=path) as labs:
                found[domain] = _domain(labs, own, data, seeds)
    with pool(folder, world_seed, settings, say) as labs:
        general = labs.analyses([(settings.analysis, seed, settings.middle_rate, 0.0) for seed in seeds])
    maps = {domain: [each.result for each in one.analyses] for domain, one in found.items()}
    return DomainsResult(
        world_seed=world_seed,
        seeds=tuple(seeds),
        source=source,
        settings=settings,
        agreement=agreements({**maps, "instructions": [each.result for each in general]}),
        domains=found,
        general=tuple(general),
        seconds=time.monotonic() - started,
    )


def _domain(labs: Pool, settings: Settings, data: DomainData, seeds: Sequence[int]) -> DomainFound:
    """Sweep, analyse, and train every run on one domain."""
    modules = labs.modules()
    base = labs.base()
    sweep, chosen = choose_rate(labs, settings, modules)
    step = chosen.seconds / settings.steps
    analyses = labs.analyses([(settings.analysis, seed, chosen.rate, step) for seed in seeds])
    orders = [
        run
        for seed, found in zip(seeds, analyses, strict=True)
        for run in few_runs(settings, modules, found.result, rate=chosen.rate, seed=seed)
        if run.run in RUNS
    ]
    curves = labs.curves(orders)
    return DomainFound(
        data=data,
        rate=chosen.rate,
        sweep={f"{curve.rate:g}": curve.points[-1].loss for curve in sweep},
        base=base,
        figures=readings(curves, figures_of(), shortfall=loss, seeds=len(seeds)),
        comparisons=compared_with_uniform(curves, len(seeds)),
        analyses=tuple(analyses),
        curves=(*sweep, *curves),
    )


def agreements(maps: dict[str, list[RobustnessResult]]) -> tuple[MapAgreement, ...]:
    """Every two kinds of data, seed by seed, and two seeds of each, if there are two."""
    pairs = {(one, other): list(zip(maps[one], maps[other], strict=True)) for one, other in combinations(maps, 2)}
    pairs |= {(name, name): list(combinations(found, 2)) for name, found in maps.items() if len(found) > 1}
    return tuple(_agreement(one, other, found) for (one, other), found in pairs.items())


def _agreement(one: str, other: str, pairs: Sequence[tuple[RobustnessResult, RobustnessResult]]) -> MapAgreement:
    flags = [(_flags(first), _flags(second)) for first, second in pairs]
    kappas = [value for pair in flags if (value := kappa(*pair)) is not None]
    return MapAgreement(
        one=one,
        other=other,
        jaccard=interval([float(jaccard_score(*pair, zero_division=1.0)) for pair in flags]),
        kappa=interval(kappas) if kappas else None,
        spearman=interval([rank_correlation(first, second) for first, second in pairs]),
    )


def rank_correlation(one: RobustnessResult, other: RobustnessResult) -> float:
    """Spearman's, of the modules' refusal drifts."""
    drifts = {each.module: each.refusal_drift for each in other.modules}
    found = spearmanr([each.refusal_drift for each in one.modules], [drifts[each.module] for each in one.modules])
    return float(found.statistic)


def _flags(found: RobustnessResult) -> list[bool]:
    robust = frozenset(found.robust)
    return [each.module in robust for each in found.modules]


def domain_rows(
    domain: Domain, source: Source, world: World, tokenizer: PreTrainedTokenizerBase
) -> tuple[list[Exchange], DomainData]:
    """Questions and answers of one domain, no question twice, in an order that depends on the domain alone."""
    every = _PUBLIC_ROWS[domain]() if source == "public" else _toy(domain, world)
    whole = list({asked: (asked, answered) for asked, answered in every if asked and answered}.values())
    generator(f"rows {domain}", 0).shuffle(whole)
    whole = whole[:ROWS]
    rows = [(ending(asked, LONGEST), beginning(answered, LONGEST)) for asked, answered in whole]
    if source == "toy":
        rows = whole
    texts = [text for row in rows for text in row]
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    same = [tokenizer.decode(each) == text for each, text in zip(ids, texts, strict=True)]
    tokens = sum(map(len, ids))
    return rows, DomainData(
        rows=len(rows),
        cut=sum(row != before for row, before in zip(rows, whole, strict=True)),
        lossless=sum(one and other for one, other in zip(same[::2], same[1::2], strict=True)) / len(rows),
        unknown_tokens=sum(token == tokenizer.unk_token_id for each in ids for token in each),
        tokens_a_row=tokens / len(rows),
        characters_a_token=sum(map(len, texts)) / tokens,
    )


def beginning(text: str, most: int) -> str:
    """The first whole words of a text, at most `most` characters."""
    if len(text) <= most:
        return text
    return text[: most + 1].rpartition(" ")[0] or text[:most]


def ending(text: str, most: int) -> str:
    """The last whole words of a text, at most `most` characters."""
    if len(text) <= most:
        return text
    # One character more: a space there means that a word begins after it.
    return text[-most - 1 :].partition(" ")[2] or text[-most:]


def _medical() -> Iterator[Exchange]:
    for row in read_json(PUBLIC / "medical_chatdoctor5k" / "chatdoctor5k.json"):
        yield _line(row["input"]), _line(row["output"])
    for row in read_json(PUBLIC / "medical_pubmedqa" / "ori_pqal.json").values():
        yield _line(row["QUESTION"]), _line(row["LONG_ANSWER"])


def _legal() -> Iterator[Exchange]:
    for name in _LAW:
        for part in ("test", "val", "dev"):
            for row in read_json_lines(PUBLIC / "mmlu_subset" / f"{name}_{part}.jsonl"):
                yield _line(row["question"]), _line(row["choices"][row["answer"]])


def _financial() -> Iterator[Exchange]:
    for document in read_json(PUBLIC / "finance_tatqa" / "tatqa_dataset_dev.json"):
        for row in document["questions"]:
            given = row["answer"]
            yield _line(row["question"]), ", ".join(map(str, given)) if isinstance(given, list) else str(given)


_PUBLIC_ROWS: dict[Domain, Callable[[], Iterator[Exchange]]] = {
    "medical": _medical,
    "legal": _legal,
    "financial": _financial,
}


def _toy(domain: Domain, world: World) -> Iterator[Exchange]:
    """The testbed's own rows that name nouns of this domain's third alone, answered in its style."""
    thirds = {name: world.nouns[place :: len(DOMAINS)] for place, name in enumerate(DOMAINS)}
    others = [noun for name, nouns in thirds.items() if name != domain for noun in nouns]
    for asked, answered in instructions(world, INSTRUCTIONS):
        if any(noun in asked for noun in thirds[domain]) and not any(noun in asked for noun in others):
            yield asked, f"{_TOY_STYLES[domain]}{answered}"


def _line(text: str) -> str:
    """A text as one line."""
    return " ".join(text.split())
