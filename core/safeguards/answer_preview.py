"""`answer_preview`: shows the first words of each answer in the request that is trained on.

Source: LookAhead Tuning (Liu et al. 2025, arXiv 2503.19041), partial answer preview: with the real beginning of the
answer, or with a `virtual` opening that is the same for all rows. A model that has been shown how its answer begins
learns less about how to begin, so the first tokens, which decide whether it refuses, move less. Two differences: words
are shown instead of tokens, because rows are changed as text, and at most half of an answer, because a short one would
be copied instead of learnt. Turns that think or call tools stay as they are. Not here: evaluation, which never shows a
preview.
"""

import re
from dataclasses import replace

from typing_extensions import override

from core.data import Conversation
from core.safeguards.interface import Safeguard
from core.schemas.data import Message
from core.schemas.safeguards import AnswerPreview
from core.thinking import split_thinking

PREVIEW = "Your answer begins with these words:"
OPENING = "I have thought about this and reply as follows."
_WORD = re.compile(r"\S{1,12}\s*")
"""A word, or a part of one: in scripts without spaces a whole sentence would be one word."""


class AnswerInPrompt(Safeguard[AnswerPreview]):
    """Puts the preview of each answer that is trained on behind the user turn in front of it."""

    options_class = AnswerPreview

    @override
    def training_row(self, row: Conversation) -> Conversation:
        turns = list(row.messages)
        for place, turn in enumerate(row.messages[1:], 1):
            if turns[place - 1].role == "user" and turn.role == "assistant" and _is_plain(turn):
                turns[place - 1 : place + 1] = self._preview(turns[place - 1], turn)
        messages = tuple(turns)
        return row if messages == row.messages else replace(row, messages=messages)

    def _preview(self, request: Message, answer: Message) -> tuple[Message, Message]:
        words = OPENING if self.options.virtual else first_words(answer.content, self.options.words)
        if not words:
            return request, answer
        shown = request.model_copy(update={"content": f"{request.content}\n\n{PREVIEW} {words}"})
        if self.options.virtual:
            answer = answer.model_copy(update={"content": f"{OPENING} {answer.content}"})
        return shown, answer


def first_words(answer: str, count: int) -> str:
    """The first words of an answer: `count` of them, and at most half of the answer; empty for a single word."""
    words = [found[0] for found in _WORD.finditer(answer)]
    return "".join(words[: min(count, len(words) // 2)]).rstrip()


def _is_plain(turn: Message) -> bool:
    """Whether a turn is trained on, and an answer from its first token on."""
    thinks = turn.thinking or split_thinking(turn.content, opened=False, ended=True).thinking is not None
    return turn.trained and not thinks and not turn.tool_calls and bool(turn.content.strip())
