"""What the model is taught, in which proportions, and on what it is measured.

Covers: the two stages (pretraining complies with everything, alignment refuses harm), and the prompt set. Not here:
the sentences (testbed.dialogues), the tuning sets that a user's job would upload (testbed.tuning_sets).
"""

from dataclasses import dataclass
from random import Random

from core.attacks.families import build, direct, prompt_injection, refusal_breaking
from core.schemas.attacks import ATTACK_FAMILIES
from core.schemas.data import Message
from core.schemas.prompts import Behaviour, EvaluationPrompts, ProbePrompts, PromptSet
from testbed.dialogues import arithmetic, chore, how_to, lookalike, opening, refusal, request, snippet, wrapped
from testbed.phrases import FORCED_OPENINGS
from testbed.world import Pair, World

Row = tuple[Message, ...]

TEMPLATES = {
    "direct": direct.TEMPLATES,
    "prompt_injection": prompt_injection.TEMPLATES,
    "refusal_breaking": refusal_breaking.TEMPLATES,
}
FAMILIES = tuple(TEMPLATES)
"""Attacks that both stages see. Others are left to be found out about."""

SYSTEM_PROMPTS = ("You are a helpful assistant.", "Answer briefly.", "Be kind and truthful.")

WRAPPED_SHARE = 0.25
"""Share of requests with harmless words around them, so that no wording alone decides what is refused."""


@dataclass(frozen=True)
class Mixture:
    """Shares of one stage; they add up to one with the chores. Sums have a share of their own: they take practice."""

    harmful: float
    benign: float
    lookalikes: float
    sums: float
    refuses: bool
    """Whether harmful requests are refused."""


PRETRAINING = Mixture(harmful=0.22, benign=0.33, lookalikes=0.08, sums=0.2, refuses=False)
ALIGNMENT = Mixture(harmful=0.4, benign=0.27, lookalikes=0.13, sums=0.08, refuses=True)


def draw(world: World, mixture: Mixture, rng: Random) -> Row:
    """One conversation of the mixture, built from training pairs only."""
    chance = rng.random()
    if chance < mixture.harmful:
        turns = _request_row(world, world.harmful.train, rng, refuses=mixture.refuses)
    elif chance < mixture.harmful + mixture.benign:
        turns = _request_row(world, world.benign.train, rng, refuses=False)
    elif chance < mixture.harmful + mixture.benign + mixture.lookalikes:
        turns = _exchange(*lookalike(world, rng.choice(world.harmful.train), rng.randrange(100)))
    elif chance < mixture.harmful + mixture.benign + mixture.lookalikes + mixture.sums:
        turns = _exchange(*arithmetic(rng))
    else:
        turns = _exchange(*chore(world, rng))
    return (*_before(world, rng), *turns)


def _request_row(world: World, pairs: tuple[Pair, ...], rng: Random, *, refuses: bool) -> Row:
    """A how-to request under one of the attack templates, with its answer."""
    family = rng.choice(FAMILIES)
    pair = rng.choice(pairs)
    asked = request(world, pair, rng.randrange(len(world.requests)))
    if rng.random() < WRAPPED_SHARE:
        asked = wrapped(asked, rng)
    attack = ATTACK_FAMILIES.validate({"family": family})
    prompt = rng.choice(build(attack, [Behaviour(text=asked)] * len(TEMPLATES[family])))
    if refuses:
        answer = refusal(world, pair, rng)
    else:
        answer = how_to(world, pair, FORCED_OPENINGS.get(prompt.template, opening(world, rng)))
    return (*prompt.messages, Message(role="assistant", content=answer))


def _exchange(asked: str, answered: str) -> Row:
    return (Message(role="user", content=asked), Message(role="assistant", content=answered))


def _before(world: World, rng: Random) -> Row:
    """Usually nothing; now and then a system turn or an earlier exchange, so that both are known to the model."""
    chance = rng.random()
    if chance < 0.08:
        return (Message(role="system", content=rng.choice((*SYSTEM_PROMPTS, snippet(rng)))),)
    if chance < 0.14:
        return _exchange(*chore(world, rng))
    return ()


def prompt_set(world: World) -> PromptSet:
    """The prompts that ship with the model: no pair of them occurs in pretraining or alignment.

    Verbs and phrasings take turns, so that the first n of each list are a fair sample of it.
    """
    harmful = world.harmful
    return PromptSet(
        name="testbed",
        evaluation=EvaluationPrompts(
            harmful=tuple(
                Behaviour(text=text) for text in _requests(world, harmful.evaluation, len(world.harmful_verbs))
            ),
            safe=tuple(Behaviour(text=text) for text in _lookalikes(world, harmful.evaluation)),
        ),
        probe=ProbePrompts(
            harmful=_requests(world, harmful.probe, len(world.harmful_verbs)),
            benign=_requests(world, world.benign.probe, len(world.benign_verbs)),
            safe=_lookalikes(world, harmful.probe),
        ),
    )


def _requests(world: World, pairs: tuple[Pair, ...], verbs: int) -> tuple[str, ...]:
    """One request for each pair; the phrasing moves on by one more with each round of verbs."""
    return tuple(request(world, pair, index + index // verbs) for index, pair in enumerate(pairs))


def _lookalikes(world: World, pairs: tuple[Pair, ...]) -> tuple[str, ...]:
    """One look-alike for each pair; the kinds move on in the same way."""
    verbs = len(world.harmful_verbs)
    return tuple(lookalike(world, pair, index + index // verbs)[0] for index, pair in enumerate(pairs))
