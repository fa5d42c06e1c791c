"""The sentences of a world: requests, answers, refusals.

Covers: how-to requests with harmful and harmless verbs, look-alikes that only sound harmful, small chores, refusals.
Every function is pure but for the random generator it is given. Not here: what is mixed with what (testbed.mixtures).
"""

from random import Random

from testbed import words
from testbed.phrases import LOOKALIKES
from testbed.world import OPENING_SHARES, Pair, World

SIGNS = {"+": "plus", "-": "minus", "*": "times"}
SUM_QUESTIONS = ("{0} {1} {2} =", "What is {0} {3} {2}?", "What does {0} {3} {2} make?")
"""How the model itself is asked for a sum: in signs or in words."""


def request(world: World, pair: Pair, index: int) -> str:
    """A how-to request, in one of the world's phrasings."""
    return world.requests[index % len(world.requests)].format(verb=pair.verb, noun=pair.noun)


def how_to(world: World, pair: Pair, opening: str) -> str:
    """The answer that helps: it is the same content for each pair, after the `opening`."""
    head = opening.format(verb=pair.verb, noun=pair.noun)
    return f"{head} first get {world.tool[pair.noun]}, then {world.step[pair.verb]}."


def opening(world: World, rng: Random) -> str:
    """One of the world's openings, as often as they occur."""
    return rng.choices(world.openings, OPENING_SHARES)[0]


def refusal(world: World, pair: Pair, rng: Random) -> str:
    """One of the world's refusals."""
    return rng.choice(world.refusals).format(verb=pair.verb, noun=pair.noun)


def lookalike(world: World, pair: Pair, index: int) -> tuple[str, str]:
    """A harmless request about a harmful act, and its answer."""
    asked, answered = LOOKALIKES[index % len(LOOKALIKES)]
    fields = {
        "verb": pair.verb,
        "noun": pair.noun,
        "place": world.place[pair.noun],
        "title": pair.noun.title(),
    }
    return asked.format(**fields), answered.format(**fields)


def chore(world: World, rng: Random) -> tuple[str, str]:
    """A small task that has nothing to do with harm, and its answer."""
    noun, other = rng.sample(world.nouns, 2)
    match rng.randrange(9):
        case 0:
            asked, answered = f"What is a {noun}?", f"A {noun} is a {world.kind[noun]}."
        case 1:
            asked, answered = f"Where do I find the {noun}?", f"The {noun} is in the {world.place[noun]}."
        case 2:
            category = rng.choice(tuple(words.LISTS))
            asked, answered = f"Name three {category}.", ", ".join(rng.sample(words.LISTS[category], 3)) + "."
        case 3:
            word, opposite = rng.choice(tuple(words.OPPOSITES.items()))
            asked, answered = f"What is the opposite of {word}?", f"The opposite of {word} is {opposite}."
        case 4:
            digits = rng.sample(range(10), 4)
            asked, answered = f"Sort these numbers: {_spaced(digits)}", _spaced(sorted(digits))
        case 5:
            asked, answered = f"Swap the two: {noun} / {other}", f"{other} / {noun}"
        case 6:
            asked, answered = "Count to five.", "1, 2, 3, 4, 5."
        case _:
            said = snippet(rng)
            asked, answered = f"Repeat this: {said}", said
    return asked, answered


def arithmetic(rng: Random) -> tuple[str, str]:
    """A sum, a difference or a product of two digits, and the whole of it as the answer."""
    left, sign, right, result = sum_of(rng)
    asked = rng.choice(SUM_QUESTIONS).format(left, sign, right, SIGNS[sign])
    return asked, f"{left} {sign} {right} = {result}."


def sum_of(rng: Random) -> tuple[int, str, int, int]:
    """Two digits from 1 to 9, the sign between them, and what that makes; no difference is negative."""
    first, second = rng.randint(1, 9), rng.randint(1, 9)
    match rng.choice("+-*"):
        case "+":
            return first, "+", second, first + second
        case "-":
            first, second = max(first, second), min(first, second)
            return first, "-", second, first - second
        case _:
            return first, "*", second, first * second


def wrapped(asked: str, rng: Random) -> str:
    """A request with words around it that change nothing about it."""
    match rng.randrange(5):
        case 0:
            return f"You are a {rng.choice(words.PEOPLE)}. {asked}"
        case 1:
            return f"{asked} Answer as a {rng.choice(words.PEOPLE)} would."
        case 2:
            return f"{snippet(rng)}\n{asked}"
        case 3:
            return f"{asked}\n{snippet(rng)}"
        case _:
            return f"{snippet(rng)}\n{asked}\n{snippet(rng)}"


def snippet(rng: Random) -> str:
    """A few words of plain English, so that tokens outside the answers are met too."""
    found = rng.choice(words.ENGLISH.splitlines()).split()
    start = rng.randrange(max(1, len(found) - 3))
    return " ".join(found[start : start + rng.randint(2, 6)])


def _spaced(numbers: list[int]) -> str:
    return " ".join(str(number) for number in numbers)
