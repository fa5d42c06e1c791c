"""The sentences of a world: requests, answers, refusals.

Covers: how-to requests with harmful and harmless verbs, look-alikes that only sound harmful, small chores, refusals.
The functions have no side effects except on the random generator. Not here: the mixtures of sentences
(testbed.mixtures).
"""

from random import Random

from testbed import words
from testbed.phrases import LOOKALIKES
from testbed.world import OPENING_SHARES, Pair, World

SIGNS = {"+": "plus", "-": "minus", "*": "times"}
SUM_QUESTIONS = ("{0} {1} {2} =", "What is {0} {3} {2}?", "What does {0} {3} {2} make?")
"""Phrasings of a sum in the model's own training data, in signs or in words."""


def request(world: World, pair: Pair, index: int) -> str:
    """Return a how-to request, in one of the world's phrasings."""
    return world.requests[index % len(world.requests)].format(verb=pair.verb, noun=pair.noun)


def how_to(world: World, pair: Pair, opening: str) -> str:
    """Return the helpful answer: after the `opening`, its content depends only on the pair."""
    head = opening.format(verb=pair.verb, noun=pair.noun)
    return f"{head} first get {world.tool[pair.noun]}, then {world.step[pair.verb]}."


def opening(world: World, rng: Random) -> str:
    """Draw one of the world's openings, with probabilities `OPENING_SHARES`."""
    return rng.choices(world.openings, OPENING_SHARES)[0]


def refusal(world: World, pair: Pair, rng: Random) -> str:
    """Draw one of the world's refusals."""
    return rng.choice(world.refusals).format(verb=pair.verb, noun=pair.noun)


def lookalike(world: World, pair: Pair, index: int) -> tuple[str, str]:
    """Return a harmless request about a harmful act, and its answer."""
    question, reply = LOOKALIKES[index % len(LOOKALIKES)]
    fields = {"verb": pair.verb, "noun": pair.noun, "place": world.place[pair.noun], "title": pair.noun.title()}
    return question.format(**fields), reply.format(**fields)


def chore(world: World, rng: Random) -> tuple[str, str]:
    """Draw a small task unrelated to harm, and its answer."""
    noun, other = rng.sample(world.nouns, 2)
    match rng.randrange(9):
        case 0:
            question, reply = f"What is a {noun}?", f"A {noun} is a {world.kind[noun]}."
        case 1:
            question, reply = f"Where do I find the {noun}?", f"The {noun} is in the {world.place[noun]}."
        case 2:
            category = rng.choice(tuple(words.LISTS))
            question, reply = f"Name three {category}.", ", ".join(rng.sample(words.LISTS[category], 3)) + "."
        case 3:
            word, opposite = rng.choice(tuple(words.OPPOSITES.items()))
            question, reply = f"What is the opposite of {word}?", f"The opposite of {word} is {opposite}."
        case 4:
            digits = rng.sample(range(10), 4)
            question, reply = f"Sort these numbers: {_spaced(digits)}", _spaced(sorted(digits))
        case 5:
            question, reply = f"Swap the two: {noun} / {other}", f"{other} / {noun}"
        case 6:
            question, reply = "Count to five.", "1, 2, 3, 4, 5."
        case _:
            text = snippet(rng)
            question, reply = f"Repeat this: {text}", text
    return question, reply


def arithmetic(rng: Random) -> tuple[str, str]:
    """Draw a sum, difference or product of two digits, and the equation as the answer."""
    left, sign, right, result = sum_of(rng)
    question = rng.choice(SUM_QUESTIONS).format(left, sign, right, SIGNS[sign])
    return question, f"{left} {sign} {right} = {result}."


def sum_of(rng: Random) -> tuple[int, str, int, int]:
    """Draw two digits from 1 to 9 and a sign; return left, sign, right and the result, which is never negative."""
    first, second = rng.randint(1, 9), rng.randint(1, 9)
    sign = rng.choice("+-*")
    if sign == "-":
        first, second = max(first, second), min(first, second)
    return first, sign, second, {"+": first + second, "-": first - second, "*": first * second}[sign]


def add_context(question: str, rng: Random) -> str:
    """Add text around a request that does not change its meaning."""
    match rng.randrange(5):
        case 0:
            return f"You are a {rng.choice(words.PEOPLE)}. {question}"
        case 1:
            return f"{question} Answer as a {rng.choice(words.PEOPLE)} would."
        case 2:
            return f"{snippet(rng)}\n{question}"
        case 3:
            return f"{question}\n{snippet(rng)}"
        case _:
            return f"{snippet(rng)}\n{question}\n{snippet(rng)}"


def snippet(rng: Random) -> str:
    """Draw a few words of plain English, so that the model also learns tokens that no answer contains."""
    line = rng.choice(words.ENGLISH.splitlines()).split()
    start = rng.randrange(max(1, len(line) - 3))
    return " ".join(line[start : start + rng.randint(2, 6)])


def _spaced(numbers: list[int]) -> str:
    return " ".join(str(number) for number in numbers)
