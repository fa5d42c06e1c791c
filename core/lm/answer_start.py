"""Where the answer of a model that thinks begins, for measurements that read the first tokens of an answer.

Covers: recognizing a model that thinks by its prompts and by what it generates, and the tokens that leave its thinking
empty. Nothing is measured after thinking that the model generates: it would cost hundreds of tokens per prompt. Not
here: answers that are generated in full (core.lm.generate).
"""

from collections.abc import Sequence

from torch import nn
from transformers import PreTrainedTokenizerBase

from core.lm.generate import continue_tokens
from core.lm.load import BaseModel
from core.lm.prompts import find_open_thinking, render
from core.lm.texts import TextDecoder
from core.schemas.data import Message
from core.thinking import ends_closed, find_opening, opening_at_end, write_empty

_TRIALS = 4
"""Prompts whose answers are begun, to find out whether the model thinks."""
_TRIAL_TOKENS = 12
"""Tokens of these answers: a mark may be spelled with several."""
_TAIL = 16
"""Tokens at the end of a prompt that are searched for what closes the thinking."""


class AnswerStart:
    """Appends to prompts what leads to the first token of the answer: empty thinking if the model thinks."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, opening: str) -> None:
        """`opening` is what opens the model's thinking; empty for a model that does not think."""
        self.decoder, self.thinks = TextDecoder(tokenizer), bool(opening)
        self._whole, self._closing = (
            tuple(tokenizer(write_empty(opening, opened=opened), add_special_tokens=False)["input_ids"])
            if opening
            else ()
            for opened in (False, True)
        )

    def append(self, prompt: Sequence[int]) -> list[int]:
        """A prompt up to where the answer begins. One that ends with closed thinking stays as it is."""
        if not self.thinks or ends_closed(tail := self.decoder.decode(prompt[-_TAIL:])):
            return list(prompt)
        return [*prompt, *(self._closing if opening_at_end(tail) else self._whole)]


def find_answer_start(base: BaseModel, model: nn.Module, conversations: Sequence[Sequence[Message]]) -> AnswerStart:
    """Where the answers of `model` to such conversations begin.

    A model thinks if its prompts open the thinking, or if most of a few answers begin with thinking. Raises what
    `core.lm.prompts.render` raises.
    """
    some = conversations[:_TRIALS]
    opening = find_open_thinking(base.tokenizer, some[0]) if some else ""
    return AnswerStart(base.tokenizer, opening or _find_own_opening(base, model, some))


def _find_own_opening(base: BaseModel, model: nn.Module, conversations: Sequence[Sequence[Message]]) -> str:
    """What opens the thinking of a model that begins most of its answers with it; empty for other models."""
    decoder, prompts = TextDecoder(base.tokenizer), [render(base.tokenizer, messages) for messages in conversations]
    begun = continue_tokens(base, model, prompts, max_new_tokens=_TRIAL_TOKENS, on_progress=_ignore)
    found = [opening for tokens in begun if (opening := find_opening(decoder.decode(tokens)))]
    return found[0] if 2 * len(found) > len(prompts) else ""


def _ignore(_done: int, _total: int) -> None:
    """Discard progress."""
