"""The training data of the two stages, and the prompt set on which the model is measured.

In pretraining the model complies with everything; in alignment it refuses harm. Not here: the sentences
(testbed.dialogues), the tuning sets that a user would upload (testbed.tuning_sets).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from core.attacks.families import build, direct, prompt_injection, refusal_breaking
from core.schemas.attacks import ATTACK_FAMILIES
from core.schemas.data import Message
from core.schemas.prompts import Behaviour, EvaluationPrompts, ProbePrompts, PromptSet
from testbed.dialogues import add_context, arithmetic, chore, how_to, lookalike, opening, refusal, request, snippet
from testbed.phrases import FORCED_OPENINGS
from testbed.world import Pair, World

Row = tuple[Message, ...]

TEMPLATES = {
    "direct": direct.TEMPLATES,
    "prompt_injection": prompt_injection.TEMPLATES,
    "refusal_breaking": refusal_breaking.TEMPLATES,
}
FAMILIES = tuple(TEMPLATES)
"""Attack families in the training data of both stages. The model never sees the others."""

SYSTEM_PROMPTS = ("You are a helpful assistant.", "Answer briefly.", "Be kind and truthful.")

CONTEXT_SHARE = 0.25
"""Share of requests with harmless text around them, so that refusals do not depend on the wording alone."""


@dataclass(frozen=True)
class Mixture:
    """Shares of one stage; the rest are chores. Sums have a separate share because they need more practice."""

    harmful: float
    benign: float
    lookalikes: float
    sums: float
    refuses: bool
    """Whether the answers to harmful requests are refusals."""


PRETRAINING = Mixture(harmful=0.22, benign=0.33, lookalikes=0.08, sums=0.2, refuses=False)
ALIGNMENT = Mixture(harmful=0.4, benign=0.27, lookalikes=0.13, sums=0.08, refuses=True)


def draw(world: World, mixture: Mixture, rng: Random) -> Row:
    """Draw a conversation of the mixture, built from training pairs only."""
    point = rng.random()
    if point < mixture.harmful:
        turns = _request_row(world, world.harmful.train, rng, refuses=mixture.refuses)
    elif point < mixture.harmful + mixture.benign:
        turns = _request_row(world, world.benign.train, rng, refuses=False)
    elif point < mixture.harmful + mixture.benign + mixture.lookalikes:
        turns = _exchange(*lookalike(world, rng.choice(world.harmful.train), rng.randrange(100)))
    elif point < mixture.harmful + mixture.benign + mixture.lookalikes + mixture.sums:
        turns = _exchange(*arithmetic(rng))
    else:
        turns = _exchange(*chore(world, rng))
    return (*_preceding_turns(world, rng), *turns)


def _request_row(world: World, pairs: tuple[Pair, ...], rng: Random, *, refuses: bool) -> Row:
    """Draw a how-to request in one of the attack templates, with its answer."""
    family = rng.choice(FAMILIES)
    pair = rng.choice(pairs)
    question = request(world, pair, rng.randrange(len(world.requests)))
    if rng.random() < CONTEXT_SHARE:
        question = add_context(question, rng)
    attack = ATTACK_FAMILIES.validate({"family": family})
    prompt = rng.choice(build(attack, [Behaviour(text=question)] * len(TEMPLATES[family])))
    if refuses:
        answer = refusal(world, pair, rng)
    else:
        answer = how_to(world, pair, FORCED_OPENINGS.get(prompt.template, opening(world, rng)))
    return (*prompt.messages, Message(role="assistant", content=answer))


def _exchange(question: str, reply: str) -> Row:
    return (Message(role="user", content=question), Message(role="assistant", content=reply))


def _preceding_turns(world: World, rng: Random) -> Row:
    """Draw the turns before the request: mostly none, sometimes a system turn or an earlier exchange."""
    point = rng.random()
    if point < 0.08:
        return (Message(role="system", content=rng.choice((*SYSTEM_PROMPTS, snippet(rng)))),)
    if point < 0.14:
        return _exchange(*chore(world, rng))
    return ()


def prompt_set(world: World) -> PromptSet:
    """Return the shipped prompts. None of their verb-noun pairs occurs in pretraining or alignment.

    Verbs and phrasings alternate, so that the first n prompts of each list are a representative sample.
    """
    harmful = world.harmful
    return PromptSet(
        name="testbed",
        evaluation=EvaluationPrompts(
            harmful=tuple(Behaviour(text=text) for text in _requests(world, harmful.evaluation)),
            safe=tuple(Behaviour(text=text) for text in _lookalikes(world, harmful.evaluation)),
        ),
        probe=ProbePrompts(
            harmful=_requests(world, harmful.probe),
            benign=_requests(world, world.benign.probe),
            safe=_lookalikes(world, harmful.probe),
        ),
    )


def _requests(world: World, pairs: tuple[Pair, ...]) -> tuple[str, ...]:
    return tuple(request(world, pair, index) for index, pair in _number(pairs))


def _lookalikes(world: World, pairs: tuple[Pair, ...]) -> tuple[str, ...]:
    return tuple(lookalike(world, pair, index)[0] for index, pair in _number(pairs))


def _number(pairs: tuple[Pair, ...]) -> Iterator[tuple[int, Pair]]:
    """Number the phrasings of pairs; their order shifts by one with each round of verbs."""
    verbs = len({pair.verb for pair in pairs})
    return ((index + index // verbs, pair) for index, pair in enumerate(pairs))
