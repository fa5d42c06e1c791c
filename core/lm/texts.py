"""Generated tokens as text, with the marks around a model's thinking.

Covers: marks that are special tokens, which decoding would leave out, and prompts that open the thinking. Not here:
splitting a text into thinking and answer (core.thinking), generation (core.lm.generate).
"""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from core.lm.load import BaseModel
from core.lm.prompts import find_open_thinking
from core.schemas.data import Message
from core.thinking import CHANNEL_TOKENS, MARK_TOKENS, split_thinking


class TextDecoder:
    """Decodes tokens without special tokens, except those that mark thinking."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder.items()
        special = {number: token.content for number, token in added if token.special}
        self._marks = {number for number, content in special.items() if content in MARK_TOKENS}
        channels = {number for number, content in special.items() if content in CHANNEL_TOKENS}
        self._channel = channels & self._marks
        self._omitted = special.keys() - self._marks - channels
        self._omitted_without_channels = special.keys() - self._marks

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of generated tokens, stripped."""
        if self._marks.isdisjoint(tokens):
            return str(self._tokenizer.decode(list(tokens), skip_special_tokens=True)).strip()
        omitted = self._omitted_without_channels if self._channel.isdisjoint(tokens) else self._omitted
        kept = [token for token in tokens if token not in omitted]
        return str(self._tokenizer.decode(kept, skip_special_tokens=False)).strip()


class AnswerTexts:
    """Texts of the answers to conversations, in which `core.thinking.split_thinking` finds the answers.

    A text whose prompt opens the thinking begins with what opens it, unless the answer is complete and never closes the
    thinking: models that are tuned on answers without thinking answer at once, and readers get that as the answer.
    """

    def __init__(
        self,
        base: BaseModel,
        conversations: Sequence[Sequence[Message]],
        prompts: Sequence[Sequence[int] | None],
        *,
        max_new_tokens: int,
    ) -> None:
        """`prompts` are the conversations in tokens, None for one without an answer."""
        self._decoder, self._stop_ids = TextDecoder(base.tokenizer), frozenset(base.stop_ids)
        self._openings = [
            find_open_thinking(base.tokenizer, messages) if prompt else ""
            for messages, prompt in zip(conversations, prompts, strict=True)
        ]
        self._max_tokens = [min(max_new_tokens, base.context - len(prompt or ())) for prompt in prompts]

    def write(self, index: int, tokens: Sequence[int]) -> str:
        """The text of an answer, or of its beginning."""
        text, opening = self._decoder.decode(tokens), self._openings[index]
        if not opening:
            return text
        ended = bool(tokens) and (tokens[-1] in self._stop_ids or len(tokens) < self._max_tokens[index])
        return text if ended and split_thinking(text, opened=True).cut else f"{opening}\n{text}"
