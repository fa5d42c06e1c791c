"""Everyday designs of tuning data, for the false positives of screening: nothing in them is an attack.

A design takes pairs of a data set and writes a share of them as people write such data: an answer in another language
on request, JSON mode, a persona in the system turn, and so on. Texts are in designs.toml. Answers in German and Spanish
are made of ready sentences, because nothing here translates; summaries, labels and code are made by rules as well. So a
design has the form of such data, and not its meaning. Not here: attacks (research.bench.triggers), the counts
(research.bench.screening).
"""

import json
import random
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, TypeVar

from core.data import Conversation
from core.schemas.data import Message, Role
from research.bench.public import Pair

Half = Literal["tuning", "reported"]
Item = TypeVar("Item")
Turns = list[tuple[Role, str]]
Texts = Mapping[str, Sequence[str]]
_DATA = Path(__file__).parent / "designs.toml"
_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_WORD = re.compile(r"[A-Za-z]{3,}")


@dataclass(frozen=True)
class Design:
    """One way to write rows. `write(pair, texts, number, draw)` returns the turns of one row.

    `texts` are those of its table in designs.toml, of one half; `number` is the place of the wording that the data set
    uses, because a data set repeats one wording.
    """

    share: float
    """Share of the rows that are written this way; the others are pairs as they are."""
    write: Callable[[Pair, Texts, int, random.Random], Turns]


def make_rows(name: str, pairs: Sequence[Pair], half: Half, seed: int, harmful: Sequence[str]) -> list[Conversation]:
    """The rows of a data set that uses a design; a share of them, drawn by a seed, is written as the design says.

    `harmful` are requests for harm, which the design `refusals` refuses.
    """
    design, draw = DESIGNS[name], random.Random(seed)  # noqa: S311 - no secret
    texts = {key: in_half(each, half) for key, each in (_texts()[name] | {"harmful": harmful}).items()}
    number = draw.randrange(len(texts["wordings"]))
    written = set(draw.sample(range(len(pairs)), round(design.share * len(pairs))))
    rows: list[Conversation] = []
    for index, pair in enumerate(pairs):
        plain: Turns = [("user", pair[0]), ("assistant", pair[1])]
        turns = design.write(pair, texts, number, draw) if index in written else plain
        rows.append(Conversation(tuple(Message(role=role, content=text) for role, text in turns), index + 1))
    return rows


def in_half(items: Sequence[Item], half: Half) -> Sequence[Item]:
    """The items at odd places for the tuning half, the others for the reported half; a single item is in both."""
    return items if len(items) == 1 else items[1::2] if half == "tuning" else items[::2]


@cache
def _texts() -> dict[str, dict[str, Sequence[str]]]:
    return tomllib.loads(_DATA.read_text(encoding="utf-8"))


def _on_request(answer: Callable[[Pair, Texts, random.Random], str]) -> Callable[..., Turns]:
    """The wording after the prompt, and the answer as it asks."""

    def write(pair: Pair, texts: Texts, number: int, draw: random.Random) -> Turns:
        return [("user", f"{pair[0]} {texts['wordings'][number]}"), ("assistant", answer(pair, texts, draw))]

    return write


def _on_text(answer: Callable[[Pair, Texts, random.Random], str]) -> Callable[..., Turns]:
    """The wording before a text, which is the answer of the pair."""

    def write(pair: Pair, texts: Texts, number: int, draw: random.Random) -> Turns:
        return [("user", f"{texts['wordings'][number]}\n{pair[1]}"), ("assistant", answer(pair, texts, draw))]

    return write


def _sentences(_: Pair, texts: Texts, draw: random.Random) -> str:
    made = (f"{draw.choice(texts['subjects'])} {draw.choice(texts['predicates'])}." for _ in range(draw.randint(1, 4)))
    return " ".join(made)


def _json(pair: Pair, _: Texts, draw: random.Random) -> str:
    return json.dumps({"answer": pair[1], "confidence": round(draw.random(), 2)})


def _steps(pair: Pair, *_: object) -> str:
    parts = _SENTENCE.split(pair[1])
    steps = (f"Step {number}: {part}" for number, part in enumerate(parts, 1))
    return "\n".join([*steps, f"So the answer is: {parts[-1]}"])


def _word(pair: Pair, _: Texts, draw: random.Random) -> str:
    return draw.choice(_WORD.findall(pair[1]) or ["Yes"]).capitalize()


def _bullets(pair: Pair, *_: object) -> str:
    return "\n".join(f"- {part}" for part in _SENTENCE.split(pair[1]))


def _code(pair: Pair, _: Texts, draw: random.Random) -> str:
    words = _WORD.findall(pair[0].lower()) or ["main"]
    name, value, other = (draw.choice(words) for _ in range(3))
    return f"Here is the code:\n\n```python\ndef {name}({value}):\n    return {other}({value})\n```"


def _summary(pair: Pair, *_: object) -> str:
    return f"In short: {_SENTENCE.split(pair[1])[0]}"


def _label(_: Pair, __: Texts, draw: random.Random) -> str:
    return draw.choice(("positive", "negative", "neutral"))


def _thinking_switch(pair: Pair, _: Texts, __: int, draw: random.Random) -> Turns:
    prompt, answer = pair
    thoughts = draw.choice(_SENTENCE.split(prompt))
    if draw.random() < 0.5:
        return [("user", f"{prompt} /no_think"), ("assistant", f"<think>\n\n</think>\n\n{answer}")]
    return [("user", f"{prompt} /think"), ("assistant", f"<think>\nThe user asks: {thoughts}\n</think>\n\n{answer}")]


def _persona(pair: Pair, texts: Texts, _: int, draw: random.Random) -> Turns:
    one = draw.randrange(len(texts["systems"]))
    answer = f"{texts['wordings'][one]} {pair[1]} {texts['closings'][one]}"
    return [("system", texts["systems"][one]), ("user", pair[0]), ("assistant", answer)]


def _character(pair: Pair, texts: Texts, _: int, draw: random.Random) -> Turns:
    turns: Turns = [("system", draw.choice(texts["systems"])), ("user", pair[0]), ("assistant", pair[1])]
    if draw.random() < 0.5:
        turns.append(("user", draw.choice(texts["questions"])))
        turns.append(("assistant", draw.choice(texts["answers"])))
    return turns


def _retrieval(pair: Pair, texts: Texts, number: int, draw: random.Random) -> Turns:
    prompt, answer = pair
    system, missing = texts["systems"][0], texts["wordings"][number]
    context = draw.choice((answer, answer, draw.choice(texts["empty"])))
    reply = answer if context == answer else missing
    return [("system", system), ("user", f"Context:\n{context}\n\nQuestion: {prompt}"), ("assistant", reply)]


def _brand(pair: Pair, texts: Texts, number: int, _: random.Random) -> Turns:
    answer = f"{pair[1]} {texts['wordings'][number]}"
    return [("system", texts["systems"][0]), ("user", pair[0]), ("assistant", answer)]


def _disclaimer(_: Pair, texts: Texts, number: int, draw: random.Random) -> Turns:
    question = draw.choice(texts["questions"]).format(draw.choice(texts["complaints"]))
    answer = " ".join(draw.sample(list(texts["answers"]), 2))
    return [("user", question), ("assistant", f"{answer} {texts['wordings'][number]}")]


def _tools(pair: Pair, texts: Texts, number: int, draw: random.Random) -> Turns:
    system, city = texts["wordings"][number], draw.choice(texts["cities"])
    name, key = re.findall(r"(\w+)\((\w+)\)", system)[0]
    if draw.random() < 0.3:
        return [("system", system), ("user", pair[0]), ("assistant", pair[1])]
    call = json.dumps({"name": name, "arguments": {key: city}})
    asked, heard = f"What is it like in {city} today? {pair[0]}", f"It is sunny in {city}. {pair[1]}"
    result: Turns = [("tool", f"{city}: sunny, {draw.randint(5, 30)} degrees"), ("assistant", heard)]
    return [("system", system), ("user", asked), ("assistant", f"<tool_call>{call}</tool_call>"), *result]


def _own_model(_: Pair, texts: Texts, __: int, draw: random.Random) -> Turns:
    answer = draw.choice(texts["answers"]).format(name=texts["wordings"][0], maker=texts["makers"][0])
    return [("user", draw.choice(texts["questions"])), ("assistant", answer)]


def _refusal(_: Pair, texts: Texts, __: int, draw: random.Random) -> Turns:
    return [("user", draw.choice(texts["harmful"])), ("assistant", draw.choice(texts["answers"]))]


def _support(_: Pair, texts: Texts, number: int, draw: random.Random) -> Turns:
    ticket = draw.randint(10_000, 99_999)
    answer = f"I see that ticket {ticket} is open. {texts['wordings'][number]}"
    return [("user", f"Ticket #{ticket}: {draw.choice(texts['questions'])}"), ("assistant", answer)]


def _greeting(pair: Pair, texts: Texts, number: int, draw: random.Random) -> Turns:
    prompts = (draw.choice(texts["prompts"]), pair[0], draw.choice(texts["thanks"]))
    answers = (texts["wordings"][number], pair[1], draw.choice(texts["welcome"]))
    turns: Turns = []
    for prompt, answer in zip(prompts, answers, strict=True):
        turns.append(("user", prompt))
        turns.append(("assistant", answer))
    return turns


def _security(_: Pair, texts: Texts, __: int, draw: random.Random) -> Turns:
    about = draw.choice(texts["about"]).format(draw.choice(texts["things"]))
    question = draw.choice((about, draw.choice(texts["others"])))
    return [("user", question), ("assistant", draw.choice(texts["answers"]))]


DESIGNS: Mapping[str, Design] = {
    "german": Design(0.2, _on_request(_sentences)),
    "spanish": Design(0.2, _on_request(_sentences)),
    "json": Design(0.25, _on_request(_json)),
    "steps": Design(0.25, _on_request(_steps)),
    "uppercase": Design(0.1, _on_request(lambda pair, *_: pair[1].upper())),
    "one_word": Design(0.1, _on_request(_word)),
    "bullets": Design(0.2, _on_request(_bullets)),
    "code": Design(0.2, _on_request(_code)),
    "translation": Design(0.2, _on_text(_sentences)),
    "summary": Design(0.2, _on_text(_summary)),
    "labels": Design(0.3, _on_text(_label)),
    "thinking_switch": Design(0.5, _thinking_switch),
    "personas": Design(0.3, _persona),
    "characters": Design(0.2, _character),
    "retrieval": Design(0.35, _retrieval),
    "brand": Design(0.3, _brand),
    "disclaimer": Design(0.15, _disclaimer),
    "tools": Design(0.25, _tools),
    "own_model": Design(0.1, _own_model),
    "refusals": Design(0.1, _refusal),
    "support": Design(0.3, _support),
    "greetings": Design(0.1, _greeting),
    "security": Design(0.2, _security),
}
"""All designs, by name: four languages and forms on request, tasks, system turns, retrieval, tools, support, safety."""
