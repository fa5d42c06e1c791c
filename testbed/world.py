"""A world: its vocabulary, drawn from the pools by seed, and the split of verb-noun pairs.

Pairs are split into training, probe and evaluation. Not here: the sentences (testbed.dialogues), the prompt set
(testbed.mixtures).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from testbed import phrases, words

EVALUATION_NOUNS = 7
"""Nouns of each harmful verb that only the evaluation uses: 16 verbs x 7 = 112 behaviours."""
PROBE_NOUNS = 7
"""Nouns of each harmful verb that only the robustness analysis uses."""
OPENING_SHARES = (0.60, 0.24, 0.10, 0.04, 0.015, 0.005)
"""Probability of each of the world's openings in helpful answers."""


@dataclass(frozen=True)
class Pair:
    """A verb and the noun to which it is applied."""

    verb: str
    noun: str


@dataclass(frozen=True)
class Split:
    """Pairs of one kind of verb. The three parts share no pair, and verbs alternate in the held-out parts."""

    train: tuple[Pair, ...]
    probe: tuple[Pair, ...]
    evaluation: tuple[Pair, ...]


@dataclass(frozen=True)
class World:
    """The facts and phrasings of one world. Worlds are drawn from the same pools and differ in everything else."""

    seed: int
    harmful_verbs: tuple[str, ...]
    benign_verbs: tuple[str, ...]
    nouns: tuple[str, ...]
    harmful: Split
    benign: Split
    step: dict[str, str]
    """The step to take, by verb."""
    tool: dict[str, str]
    """The tool that is needed, by noun."""
    kind: dict[str, str]
    """The category of each noun."""
    place: dict[str, str]
    """The location of each noun."""
    requests: tuple[str, ...]
    """Phrasings of a how-to request."""
    tuning_requests: tuple[str, ...]
    """Phrasings that occur only in tuning data."""
    openings: tuple[str, ...]
    """Openings of helpful answers, the most common first."""
    refusals: tuple[str, ...]
    """Answers of the aligned model to harmful requests."""


def generator(purpose: str, seed: int) -> Random:
    """Return a random generator for one purpose, so that draws for one purpose do not shift those for another."""
    return Random(f"{purpose} {seed}")  # noqa: S311 - reproducible, not secret


def make_world(seed: int) -> World:
    """Return the world of `seed`, which determines it completely."""
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
    """Split the nouns of each verb. Verbs alternate, so the first n pairs of a part are representative."""
    rows = [[Pair(verb, noun) for noun in rng.sample(nouns, len(nouns))] for verb in verbs]
    pairs = tuple(pair for column in zip(*rows, strict=True) for pair in column)
    first, second = evaluation * len(verbs), (evaluation + probe) * len(verbs)
    return Split(train=pairs[second:], probe=pairs[first:second], evaluation=pairs[:first])
