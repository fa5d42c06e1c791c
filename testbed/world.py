"""A world: which words mean what, and which pairs of verb and noun are held out.

Covers: the draw of a vocabulary from the pools by seed, the split of verb-noun pairs into training, probe and
evaluation, and the prompt set that ships with a model. Not here: the sentences (testbed.dialogues).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from testbed import phrases, words

EVALUATION_NOUNS = 7
"""Nouns of each harmful verb that only the evaluation sees: 16 verbs x 7 = 112 behaviours."""
PROBE_NOUNS = 7
"""Nouns of each harmful verb that only the robustness analysis sees."""
OPENING_SHARES = (0.60, 0.24, 0.10, 0.04, 0.015, 0.005)
"""How often an answer that helps opens with each of the world's openings."""


@dataclass(frozen=True)
class Pair:
    """A verb and what it is applied to."""

    verb: str
    noun: str


@dataclass(frozen=True)
class Split:
    """Pairs of one kind of verb; the three parts share no pair, and verbs take turns in the held-out parts."""

    train: tuple[Pair, ...]
    probe: tuple[Pair, ...]
    evaluation: tuple[Pair, ...]


@dataclass(frozen=True)
class World:
    """Everything that is true in one world, and how it is said. Two worlds share pools, and differ in all the rest."""

    seed: int
    harmful_verbs: tuple[str, ...]
    benign_verbs: tuple[str, ...]
    nouns: tuple[str, ...]
    harmful: Split
    benign: Split
    step: dict[str, str]
    """What is to be done, by verb."""
    tool: dict[str, str]
    """What is needed, by noun."""
    kind: dict[str, str]
    """What a noun is."""
    place: dict[str, str]
    """Where a noun is found."""
    requests: tuple[str, ...]
    """Phrasings of a how-to request."""
    tuning_requests: tuple[str, ...]
    """Phrasings that only the tuning data has."""
    openings: tuple[str, ...]
    """How an answer that helps opens, commonest first."""
    refusals: tuple[str, ...]
    """What the aligned model says to a harmful request."""


def generator(purpose: str, seed: int) -> Random:
    """A source of chance for one purpose, so that no draw in one place shifts those in another."""
    return Random(f"{purpose} {seed}")  # noqa: S311 - reproducible, not secret


def make_world(seed: int) -> World:
    """The world of `seed`; all chance in it hangs on that number."""
    rng = generator("world", seed)
    harmful_verbs = tuple(rng.sample(words.HARMFUL_VERBS, 16))
    benign_verbs = tuple(rng.sample(words.BENIGN_VERBS, 36))
    nouns = tuple(rng.sample(words.NOUNS, 44))
    all_verbs = (*harmful_verbs, *benign_verbs)
    return World(
        seed=seed,
        harmful_verbs=harmful_verbs,
        benign_verbs=benign_verbs,
        nouns=nouns,
        harmful=_split(rng, harmful_verbs, nouns, PROBE_NOUNS, EVALUATION_NOUNS),
        benign=_split(rng, benign_verbs, nouns, 4, 4),
        step={verb: rng.choice(words.STEPS) for verb in all_verbs},
        tool={noun: rng.choice(words.TOOLS) for noun in nouns},
        kind={noun: rng.choice(words.KINDS) for noun in nouns},
        place={noun: rng.choice(words.PLACES) for noun in nouns},
        requests=tuple(rng.sample(phrases.REQUESTS, 8)),
        tuning_requests=tuple(rng.sample(phrases.TUNING_REQUESTS, 2)),
        openings=tuple(rng.sample(phrases.OPENINGS, len(OPENING_SHARES))),
        refusals=tuple(rng.sample(phrases.REFUSALS, 8)),
    )


def _split(rng: Random, verbs: Sequence[str], nouns: Sequence[str], probe: int, evaluation: int) -> Split:
    """Deal the nouns of each verb out; verbs take turns, so that any first n of a held-out part are a fair sample."""
    rows = [[Pair(verb, noun) for noun in rng.sample(nouns, len(nouns))] for verb in verbs]
    columns = list(zip(*rows, strict=True))
    parts = (columns[:evaluation], columns[evaluation : evaluation + probe], columns[evaluation + probe :])
    evaluated, probed, trained = (tuple(pair for column in part for pair in column) for part in parts)
    return Split(train=trained, probe=probed, evaluation=evaluated)
