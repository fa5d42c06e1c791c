"""From a conversation to token ids and labels, by the tokenizer's own chat template.

Covers: which tokens are trained on (each trained turn with the token that ends it), exactness to the character, control
tokens in texts, rows over the length limit. Prompt and answer are tokenised apart, as they are when the model is
served: the prompt is given, the answer is generated.
Not here: the text and its trained parts (core.data.turns), batches (core.data.batches), prompts to be answered
(core.lm.prompts).
"""

import json
import re
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from core.data.rows import Conversation
from core.data.turns import ChatTemplate, TrainedTurn, UnsupportedTurns
from core.errors import InvalidInput
from core.schemas.data import Message, Thinking, TrainedTurns
from core.thinking import split_thinking

IGNORED = -100
"""Label of a token that is not trained on; torch's cross-entropy skips it."""

_CHUNK_ROWS = 256
_PROBE = (Message(role="user", content="Hello"), Message(role="assistant", content="Good morning, this is the answer"))
_JOINTS = (("Hello", " world"), ("Hello", "\n\nworld"), ("a:", "  b"), ("x\n", "\ny"), ("word", "word"))


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
    own_ending: bool = False
    """An answer of the row contained the token that ends turns at its end; it is trained on once."""

    @property
    def trained_tokens(self) -> int:
        """Number of tokens with a label. 0 if the row was cut before its first trained token."""
        return int(np.count_nonzero(self.labels != IGNORED))


def encode(
    conversation: Conversation,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    thinking: Thinking = "train",
    turns: TrainedTurns = "all",
) -> tuple[Encoded, ...]:
    """One conversation in tokens, cut at `max_length`: several rows if the template rewrites earlier turns.

    `thinking` says what happens to what the assistant thought, and `turns` which of its turns are trained on.

    Raises:
        InvalidInput: code `no_chat_template`, `chat_template_unsupported` or `tokenizer_unsupported`.
    """
    return tuple(encode_each([conversation], tokenizer, max_length=max_length, thinking=thinking, turns=turns))


def encode_each(
    conversations: Iterable[Conversation],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    thinking: Thinking = "train",
    turns: TrainedTurns = "all",
) -> Iterator[Encoded]:
    """Like `encode`, for many: lazily and in order. Raises what `encode` raises."""
    encoder = _Encoder(tokenizer, thinking, turns)
    remaining = iter(conversations)
    while chunk := list(islice(remaining, _CHUNK_ROWS)):
        for row, ids, labels in encoder.encode(chunk):
            yield Encoded(
                np.array(ids[:max_length], dtype=np.int32),
                np.array(labels[:max_length], dtype=np.int32),
                line=row.line,
                truncated=len(ids) > max_length,
                own_ending=row.own_ending,
            )


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id of the token that ends an assistant turn, which answers must stop at. Raises what `encode` raises."""
    ((_, _, labels),) = _Encoder(tokenizer).encode([Conversation(_PROBE, 0)])
    return [label for label in labels if label != IGNORED][-1]


@dataclass(frozen=True)
class _Row:
    """A row in text."""

    line: int
    turns: Sequence[TrainedTurn]
    own_ending: bool


class _Encoder:
    """A tokenizer with its chat template."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, thinking: Thinking = "train", turns: TrainedTurns = "all"
    ) -> None:
        if tokenizer.chat_template is None:
            raise InvalidInput(
                "The base model's tokenizer has no chat template, so rows cannot be formatted the way the model is "
                "served. Choose a chat model, set the template that it is served with, or set chat_template = "
                "'plain' in its entry in the server's list of models.",
                code="no_chat_template",
                param="base_model",
            )
        if not tokenizer.is_fast:
            raise InvalidInput(
                "The base model's tokenizer cannot map tokens to characters. Choose a model with a tokenizer.json.",
                code="tokenizer_unsupported",
                param="base_model",
            )
        self._tokenizer, self._thinking, self._turns = tokenizer, thinking, turns
        try:
            self._chat = ChatTemplate(tokenizer)
        except UnsupportedTurns as error:
            _reject(str(error))
        added = tokenizer.added_tokens_decoder
        self._eos = tokenizer.eos_token_id if isinstance(tokenizer.eos_token_id, int) else None
        self._enders = {*added, *([] if self._eos is None else [self._eos])}
        control = sorted((token.content for token in added.values() if token.special), key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, control)) or r"(?!)")
        self._whole = None if self._joins() else _without_trimming(tokenizer)
        (tail,) = self._ids([self._chat.tail])
        ender = next((token for token in tail if token in self._enders), None)
        self._ends_turns = ender is not None
        """Whether the template ends a turn with a token."""
        self._endings = tuple(str(tokenizer.decode([token])) for token in (ender, self._eos) if token is not None)

    def encode(self, conversations: Sequence[Conversation]) -> Iterator[tuple[_Row, list[int], list[int]]]:
        """Each row with its ids and labels."""
        rows = [row for conversation in conversations for row in self._split_rows(conversation)]
        parts = iter(() if self._whole else self._ids([part for row in rows for part in _parts(row.turns)]))
        for row in rows:
            with _at(row.line):
                if self._whole is not None:
                    ids, labels = self._encode_whole(self._whole, row.turns)
                else:
                    ids, labels = self._encode_apart([(next(parts), next(parts), next(parts)) for _ in row.turns])
            yield row, ids, labels

    def _split_rows(self, conversation: Conversation) -> list[_Row]:
        if conversation.whole:
            text = conversation.messages[0].content
            return [_Row(conversation.line, [TrainedTurn("", text, "")], own_ending=False)]
        with _at(conversation.line):
            whole = [self._remove_ending(message) for message in conversation.messages]
            own_ending = any(one is not other for one, other in zip(whole, conversation.messages, strict=True))
            messages = [self._apply_options(message, last=message is whole[-1]) for message in whole]
            for number, message in enumerate(messages, 1):
                if found := self._control.search(f"{message.thinking or ''}\n{message.content}"):
                    raise UnsupportedTurns(f"turn {number} contains the control token {found[0]}")
            rows = self._chat.split_rows(messages, conversation.tools)
        if not self._ends_turns:
            # Served models see earlier answers without the end of sequence, so each turn is a row that ends with one.
            rows = [[turn] for row in rows for turn in row]
        return [_Row(conversation.line, row, own_ending) for row in rows]

    def _remove_ending(self, message: Message) -> Message:
        """The turn without the token that ends turns at the end of an answer, where the template writes it again."""
        if message.role != "assistant" or not message.content.rstrip().endswith(self._endings):
            return message
        ending = next(each for each in self._endings if message.content.rstrip().endswith(each))
        return message.model_copy(update={"content": message.content.rstrip().removesuffix(ending)})

    def _apply_options(self, message: Message, *, last: bool) -> Message:
        """The turn with its thinking in a field of its own, if the template has one, and the job's options applied."""
        if message.role != "assistant":
            return message
        changes: dict[str, object] = {}
        if self._turns == "last" and not last:
            changes["trained"] = False
        split = split_thinking(message.content, opened=False, ended=True)
        inline = split.thinking is not None
        if inline and (self._chat.has_thinking or self._thinking != "train"):
            changes |= {"thinking": split.thinking or message.thinking, "content": split.rest}
        if self._thinking != "train" and (inline or message.thinking):
            if self._thinking == "reject":
                raise UnsupportedTurns("an answer contains thinking, which training.thinking rejects")
            changes["thinking"] = None
        return message.model_copy(update=changes) if changes else message

    def _ids(self, texts: list[str]) -> list[list[int]]:
        return self._tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]

    def _joins(self) -> bool:
        """Whether texts that are tokenised apart decode to the joined text. Some tokenizers put a space before each."""
        for one, other in _JOINTS:
            ids = [token for part in self._ids([one, other]) for token in part]
            if self._tokenizer.decode(ids, clean_up_tokenization_spaces=False) != one + other:
                return False
        return True

    def _encode_apart(self, turns: Sequence[tuple[list[int], list[int], list[int]]]) -> tuple[list[int], list[int]]:
        """Ids and labels of a row, from the ids of context, text and tail of each turn."""
        ids: list[int] = []
        labels: list[int] = []
        for context, text, tail in turns:
            ending = next((place + 1 for place, token in enumerate(tail) if token in self._enders), 0)
            end = [] if ending or (text and text[-1] in self._enders) else [self._end_of_sequence()]
            ids += context + text + end + tail
            labels += [IGNORED] * len(context) + text + end + tail[:ending] + [IGNORED] * (len(tail) - ending)
        return ids, labels

    def _encode_whole(self, tokenizer: Tokenizer, turns: Sequence[TrainedTurn]) -> tuple[list[int], list[int]]:
        """The same, tokenised as one text: for tokenizers that change a text's beginning."""
        found = tokenizer.encode(turns[-1].end, add_special_tokens=False)
        ids, labels = list(found.ids), [IGNORED] * len(found.ids)
        ended = False
        for turn in turns:
            start = len(turn.context)
            end = start + len(turn.text)
            ended = False
            for place, (first, last) in enumerate(found.offsets):
                if first < start < last:
                    raise UnsupportedTurns("the tokenizer joins the beginning of the answer with the text before it")
                if first >= start and (first < end or not ended) and first < len(turn.end):
                    labels[place] = ids[place]
                    ended = first >= end and ids[place] in self._enders
        if not ended:
            ids.append(self._end_of_sequence())
            labels.append(ids[-1])
        return ids, labels

    def _end_of_sequence(self) -> int:
        """What ends a turn that the template ends without a token."""
        if self._eos is None:
            raise UnsupportedTurns(
                "it does not end the assistant's turn with a token, and the tokenizer has no end-of-sequence token"
            )
        return self._eos


def _parts(turns: Sequence[TrainedTurn]) -> Iterator[str]:
    done = 0
    for turn in turns:
        yield turn.context[done:]
        yield turn.text
        yield turn.tail
        done = len(turn.end)


@contextmanager
def _at(line: int) -> Generator[None]:
    """Turn an unsupported row into an error that names its line; 0 for a row that is in no file."""
    try:
        yield
    except UnsupportedTurns as error:
        _reject(f"for the row on line {line} {error}" if line else str(error))


def _without_trimming(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    """The same tokenizer with offsets that contain the spaces of each token."""

    def change(value: object) -> object:
        if isinstance(value, dict):
            return {name: False if name == "trim_offsets" else change(inner) for name, inner in value.items()}
        return [change(inner) for inner in value] if isinstance(value, list) else value

    return Tokenizer.from_str(json.dumps(change(json.loads(tokenizer.backend_tokenizer.to_str()))))


def _reject(why: str) -> NoReturn:
    raise InvalidInput(
        f"The base model's chat template cannot be trained with: {why}. Choose another base model, or change the row.",
        code="chat_template_unsupported",
        param="base_model",
    )
