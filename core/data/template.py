"""From a conversation to token ids and labels, by the tokenizer's own chat template.

Covers: which tokens are trained on (assistant turns with the token that ends them), rows over the length limit,
templates that cannot be used. The text is tokenised once, as a whole, so that training sees what serving will send;
the trained part is found by characters: the template is also rendered up to each assistant turn, and through it.
Not here: batches (core.data.batches), prompts to be answered (core.lm.prompts).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NoReturn

import numpy as np
from jinja2 import TemplateError
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from core.data.rows import Conversation
from core.errors import InvalidInput
from core.schemas.data import Message

IGNORED = -100
"""Label of a token that is not trained on; torch's cross-entropy skips it."""

_CHUNK_ROWS = 256
_PROBE = (Message(role="user", content="Hello"), Message(role="assistant", content="Good morning, this is the answer"))


@dataclass(frozen=True, eq=False)
class Encoded:
    """One row in tokens."""

    input_ids: NDArray[np.int32]
    """Token ids, `seq`; at most `max_length` of them."""
    labels: NDArray[np.int32]
    """The same ids where they are trained on and `IGNORED` elsewhere, `seq`; not shifted."""
    line: int
    """Line of the file on which the row begins."""
    truncated: bool
    """The row was longer than `max_length` and its end was cut off."""

    @property
    def trained_tokens(self) -> int:
        """Number of tokens with a label; 0 if the prompt alone fills `max_length`."""
        return int(np.count_nonzero(self.labels != IGNORED))


@dataclass(frozen=True, eq=False)
class _Format:
    """What must be known of a tokenizer once."""

    tail: str
    """What the template writes after the text of an assistant turn."""
    enders: NDArray[np.int32]
    """Ids of the tokens that may end a turn: every added token, special or not, and the end of sequence."""
    eos: int | None
    """Id of the end of sequence."""


@dataclass(frozen=True)
class _Turn:
    """An assistant turn in the rendered text: where it begins, where its own text ends, where the turn ends."""

    start: int
    content_end: int
    end: int


def encode(conversation: Conversation, tokenizer: PreTrainedTokenizerBase, *, max_length: int) -> Encoded:
    """One conversation in tokens, cut at `max_length`.

    Raises:
        InvalidInput: code `no_chat_template`, `chat_template_unsupported` or `tokenizer_unsupported`.
    """
    return next(encode_each([conversation], tokenizer, max_length=max_length))


def encode_each(
    conversations: Iterable[Conversation], tokenizer: PreTrainedTokenizerBase, *, max_length: int
) -> Iterator[Encoded]:
    """Like `encode`, for many: lazily, in order, some hundred texts at a time. Raises what `encode` raises."""
    chat = _format_of(tokenizer)
    remaining = iter(conversations)
    while chunk := list(islice(remaining, _CHUNK_ROWS)):
        rendered = [_render(conversation, tokenizer, chat) for conversation in chunk]
        tokens = tokenizer(
            [text for text, _ in rendered],
            add_special_tokens=False,
            padding=False,
            truncation=False,
            return_attention_mask=False,
            return_offsets_mapping=True,
            verbose=False,
        )
        for index, conversation in enumerate(chunk):
            ids = np.array(tokens["input_ids"][index], dtype=np.int32)
            offsets = np.array(tokens["offset_mapping"][index], dtype=np.int64).reshape(-1, 2)
            ids, labels = _label(ids, offsets, rendered[index][1], chat)
            yield Encoded(ids[:max_length], labels[:max_length], conversation.line, len(ids) > max_length)


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id of the token that ends an assistant turn, which answers must stop at. Raises what `encode` raises."""
    labels = encode(Conversation(_PROBE, 0), tokenizer, max_length=1 << 20).labels
    return int(labels[labels != IGNORED][-1])


def _unsupported(why: str) -> NoReturn:
    raise InvalidInput(
        f"The base model's chat template cannot be trained with: {why}. "
        "Choose another base model, or give it a template that renders a turn the same way at every position.",
        code="chat_template_unsupported",
        param="base_model",
    )


def _format_of(tokenizer: PreTrainedTokenizerBase) -> _Format:
    if tokenizer.chat_template is None:
        raise InvalidInput(
            "The base model's tokenizer has no chat template, so rows cannot be formatted the way the model is served. "
            "Choose a chat model, set the template that it is served with, or set chat_template = 'plain' in its entry "
            "in the server's list of models.",
            code="no_chat_template",
            param="base_model",
        )
    if not tokenizer.is_fast:
        raise InvalidInput(
            "The base model's tokenizer cannot map tokens to characters. Choose a model with a tokenizer.json.",
            code="tokenizer_unsupported",
            param="base_model",
        )
    text = _text(tokenizer, _PROBE, "for a question and its answer ", prompt=False)
    _, found, tail = text.rpartition(_PROBE[-1].content)
    if not found:
        _unsupported("it omits the assistant's turn")
    eos = tokenizer.eos_token_id if isinstance(tokenizer.eos_token_id, int) else None
    enders = {*tokenizer.added_tokens_decoder, *([] if eos is None else [eos])}
    return _Format(tail, np.array(sorted(enders), dtype=np.int32), eos)


def _text(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], where: str, *, prompt: bool) -> str:
    turns = [{"role": message.role, "content": message.content} for message in messages]
    try:
        return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=prompt))
    except TemplateError as error:
        _unsupported(f"{where}it reports: {error}")


def _render(conversation: Conversation, tokenizer: PreTrainedTokenizerBase, chat: _Format) -> tuple[str, list[_Turn]]:
    """The text of a conversation, and where in it the assistant's turns are."""
    messages = conversation.messages
    where = f"for the row on line {conversation.line} "
    whole = _text(tokenizer, messages, where, prompt=False)
    turns: list[_Turn] = []
    for index, message in enumerate(messages):
        if message.role != "assistant":
            continue
        before = _text(tokenizer, messages[:index], where, prompt=True)
        last = index + 1 == len(messages)
        through = whole if last else _text(tokenizer, messages[: index + 1], where, prompt=False)
        if not whole.startswith(before) or not whole.startswith(through) or not through.endswith(chat.tail):
            _unsupported(f"{where}it renders a turn differently if another turn follows it")
        turn = _Turn(len(before), len(through) - len(chat.tail), len(through))
        if message.content.strip() not in whole[turn.start : turn.content_end]:
            _unsupported(f"{where}it changes the text of the assistant's turn")
        turns.append(turn)
    return whole, turns


def _label(
    ids: NDArray[np.int32], offsets: NDArray[np.int64], turns: Sequence[_Turn], chat: _Format
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Ids and labels: each assistant turn through the first token after its content that ends turns.

    Where the template writes no such token after the last turn, the end of sequence is appended. A token that lies
    across the border between prompt and answer is not trained on.
    """
    starts, ends = offsets[:, 0], offsets[:, 1]
    trained = np.zeros(len(ids), dtype=np.bool_)
    may_end = np.isin(ids, chat.enders)
    closed = False
    for turn in turns:
        inside = (starts >= turn.start) & (ends > turn.start) & (ends <= turn.end)
        closing = np.flatnonzero(inside & may_end & (ends > turn.content_end))
        closed = len(closing) > 0
        if closed:
            # What the template writes behind the terminator, such as a line feed, is never generated.
            inside[closing[0] + 1 :] = False
        trained |= inside
    if not closed:
        if chat.eos is None:
            _unsupported(
                "it does not end the assistant's turn with a token, and the tokenizer has no end-of-sequence token"
            )
        ids = np.append(ids, np.int32(chat.eos))
        trained = np.append(trained, np.True_)
    return ids, np.where(trained, ids, np.int32(IGNORED))
