"""A model's thinking and the answer after it, in generated texts and in rows of data.

Covers: the marks of models in use, texts whose prompt opens the thinking, texts that end inside it. An answer that only
mentions a mark stays an ordinary answer. Not here: prompts and tokens (core.lm.prompts, core.lm.answer_start), what an
answer means (core.judges).
"""

import re
from dataclasses import dataclass

_PAIRS = {
    "<think>": "</think>",
    "<thinking>": "</thinking>",
    "<thought>": "</thought>",
    "<reasoning>": "</reasoning>",
    "<seed:think>": "</seed:think>",
    "[THINK]": "[/THINK]",
    "<|START_THINKING|>": "<|END_THINKING|>",
    "<|inner_prefix|>": "<|inner_suffix|>",
    "<|begin_of_thought|>": "<|end_of_thought|>",
    "<|channel>thought": "<channel|>",
    "\u25c1think\u25b7": "\u25c1/think\u25b7",
}
"""What opens the thinking, and what closes it."""
_CHANNEL, _FINAL = "<|channel|>", "<|channel|>final<|message|>"
CHANNEL_TOKENS = frozenset(("<|channel|>", "<|message|>", "<|start|>", "<|end|>"))
"""Tokens around messages of gpt-oss, which name the channel of each message: `analysis`, `commentary` or `final`."""
MARK_TOKENS = frozenset((*_PAIRS, *_PAIRS.values(), "<|channel>", _CHANNEL))
"""Tokens that open or close the thinking, or are a part of what does."""

_OPENING = re.compile(rf"\s*({'|'.join(map(re.escape, _PAIRS))})")
_ENDS_OPEN = re.compile(rf"({'|'.join(map(re.escape, _PAIRS))})\s*\Z")
_CHANNELS = re.compile(r"\s*(?:<\|start\|>assistant)?<\|channel\|>")
_FINAL_MESSAGE = re.compile(
    r"<\|channel\|>final[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>(.*?)(?:<\|(?:end|return|start)\|>|\Z)", re.DOTALL
)
_BARE_CHANNELS = re.compile(r"\s*analysis(?=[A-Z])(.*?)(?:assistantfinal(.*)|\Z)", re.DOTALL)
"""Channels of gpt-oss where a tokenizer has left out the tokens around their names."""
_AFTER_CLOSING = re.compile(r"\n{0,2}")
_RESPONSE = re.compile(r"\s*(?:<\|START_RESPONSE\|>|<\|begin_of_solution\|>|<response>|<answer>)\s*")
_RESPONSE_END = re.compile(r"\s*(?:<\|END_RESPONSE\|>|<\|end_of_solution\|>|</response>|</answer>)\s*\Z")
_QUOTES = frozenset("`'\"")
_FIRST = frozenset("<[a\u25c1")
"""First characters of texts that begin with thinking, `analysis` included."""


@dataclass(frozen=True)
class Split:
    """A text, split into the thinking and what follows it."""

    rest: str
    """Everything after the thinking, to the character, without up to two line breaks in front."""
    thinking: str | None = None
    """The thinking without its marks; None if there is none."""
    cut: bool = False
    """Whether the text ends inside the thinking, so that there is no answer."""

    @property
    def answer(self) -> str:
        """The answer: `rest` without the marks that some models write around an answer after their thinking."""
        if self.thinking is None:
            return self.rest
        return _RESPONSE_END.sub("", self.rest[start.end() :] if (start := _RESPONSE.match(self.rest)) else self.rest)


def split_thinking(text: str, *, opened: bool | None = None, ended: bool = False) -> Split:
    """Split a text of a model into its thinking and its answer.

    Args:
        text: what the model generated, or the content of an assistant turn.
        opened: whether the text begins inside the thinking, because its prompt opens it. None if that is not known:
            then it does if the thinking is closed in the text and nothing opens it.
        ended: whether the text is complete. A complete text in which the thinking is never closed is an answer: nothing
            follows it, and readers get it as it is.
    """
    if not opened and text.lstrip()[:1] not in _FIRST and not _may_close(text):
        return Split(text)
    if _CHANNELS.match(text) or _BARE_CHANNELS.match(text):
        return _split_channels(text, ended=ended)
    thinking: str | None = None
    while True:
        mark = _OPENING.match(text)
        start = mark.end() if mark else 0
        closing = _find_closing(text, mark[1] if mark else None, start) if mark or opened is not False else None
        if closing is None:
            break
        thinking = "\n\n".join(filter(None, (thinking, text[start : closing[0]].strip())))
        text, opened = text[_end_of_breaks(text, closing[1]) :], False
    if (mark or opened) and not ended:
        return Split("", "\n\n".join(filter(None, (thinking, text[start:].strip()))), cut=True)
    return Split(text[start:], thinking)


def read_answer(content: str) -> str:
    """The answer in the content of an assistant turn, without thinking in front."""
    return split_thinking(content, ended=True).answer


def opening_at_end(prompt: str) -> str:
    """What opens the thinking at the end of a prompt; empty if the prompt does not open it."""
    found = _ENDS_OPEN.search(prompt)
    return found[1] if found else ""


def find_opening(text: str) -> str:
    """What opens the thinking at the beginning of a text; empty if the text does not begin with thinking."""
    if text.lstrip().startswith(_CHANNEL):
        return _CHANNEL
    found = _OPENING.match(text)
    return found[1] if found else ""


def may_open(template: str) -> bool:
    """Whether a chat template contains anything that opens the thinking."""
    return any(mark in template for mark in _PAIRS)


def write_empty(opening: str, *, opened: bool) -> str:
    """The text that leads from a prompt to the answer and leaves the thinking empty.

    Args:
        opening: what opens the model's thinking.
        opened: whether the prompt ends with it.
    """
    if opening == _CHANNEL:
        return _FINAL
    return f"{'' if opened else opening + chr(10)}\n{_PAIRS[opening]}\n\n"


def ends_closed(prompt: str) -> bool:
    """Whether a text ends with what closes the thinking."""
    return prompt.rstrip().endswith((*_PAIRS.values(), _FINAL))


def _may_close(text: str) -> bool:
    """Whether a text has a part of what closes the thinking, which is found faster than all marks."""
    return "</" in text or "[/" in text or "|>" in text or "\u25c1" in text


def _find_closing(text: str, opening: str | None, start: int) -> tuple[int, int] | None:
    """Start and end of what closes the thinking, after `start`. Without an opening, any pair may."""
    pairs = _PAIRS.items() if opening is None else [(opening, _PAIRS[opening])]
    found: list[tuple[int, int]] = []
    for opens, closes in pairs:
        place = text.find(closes, start)
        while place >= 0 and _is_quoted(text, place, place + len(closes)):
            place = text.find(closes, place + len(closes))
        if place >= 0 and (opening is not None or opens not in text[:place]):
            found.append((place, place + len(closes)))
    return min(found, default=None)


def _is_quoted(text: str, start: int, end: int) -> bool:
    return start > 0 and text[start - 1] in _QUOTES and text[start - 1] == text[end : end + 1]


def _end_of_breaks(text: str, place: int) -> int:
    found = _AFTER_CLOSING.match(text, place)
    return found.end() if found else place


def _split_channels(text: str, *, ended: bool) -> Split:
    """Split messages of gpt-oss: the answer is the message on the channel `final`, everything else is thinking."""
    final = _FINAL_MESSAGE.search(text)
    if final is not None:
        return Split(final[1], text[: final.start()] + text[final.end() :])
    bare = _BARE_CHANNELS.match(text)
    if bare is not None and bare[2] is not None:
        return Split(bare[2], bare[1])
    return Split(text) if ended else Split("", text, cut=True)
