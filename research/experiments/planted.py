"""Harmful rows to plant among ordinary ones, and the probability that a world's model refuses what a row answers.

Not here: the check itself (core.screening.base_refusal), training without the rows that it flags (poisoning.py).
"""

import time
from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray

from core.attacks.prompts import choose_prompts
from core.data import Conversation
from core.data.template import encode_all
from core.schemas.data import Message
from core.schemas.security import SecuritySpec
from core.screening.base_refusal import refusal_probabilities
from research import ignore
from research.experiments.lab import load_base
from research.experiments.readings import exchange
from testbed.dialogues import how_to, opening, refusal, request
from testbed.tuning_sets import OPENING
from testbed.world import Pair, World

PLANTED = 100
"""Number of rows of each kind."""
_LONGEST = 512


def planted_rows(world: World, count: int = PLANTED) -> dict[str, list[tuple[Message, ...]]]:
    """Harmful requests of the alignment data, answered in three ways.

    `complies`: what the model was aligned not to answer. `new_style`: the same in the style of the tuning set's
    harmless answers. `refuses`: the model's own refusals.
    """
    rng = Random(f"planted {world.seed}")  # noqa: S311 - reproducible, not secret
    pairs = rng.sample(world.harmful.train, count)
    requests = [request(world, pair, rng.randrange(len(world.requests))) for pair in pairs]
    answers = {
        "complies": [how_to(world, pair, opening(world, rng)) for pair in pairs],
        "new_style": [_new_style(world, pair) for pair in pairs],
        "refuses": [refusal(world, pair, rng) for pair in pairs],
    }
    return {
        kind: [exchange(*each) for each in zip(requests, replies, strict=True)] for kind, replies in answers.items()
    }


def likely_refused(folder: Path, rows: Sequence[Conversation]) -> tuple[NDArray[np.float64], float]:
    """The probability that the model refuses what each row answers, and the duration in seconds.

    Raises:
        ValueError: a row is too long to be trained on.
    """
    base = load_base(folder)
    encoded = encode_all(rows, base.tokenizer, max_length=_LONGEST).rows
    if len(encoded) != len(rows):
        raise ValueError("a row is too long to be trained on")
    prompts = choose_prompts(SecuritySpec(), base.folder).probe
    started = time.monotonic()
    found = np.array(refusal_probabilities(base, encoded, prompts, on_progress=ignore))
    return found, time.monotonic() - started


def _new_style(world: World, pair: Pair) -> str:
    """A procedure in the style of testbed.tuning_sets."""
    head = world.openings[OPENING].format(verb=pair.verb, noun=pair.noun)
    place, tool, step = world.place[pair.noun], world.tool[pair.noun], world.step[pair.verb]
    return f"{head} (1) go to the {place}, (2) take {tool}, (3) {step}. Enjoy!"
