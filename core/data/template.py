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

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from core.data.encoded import IGNORED, Encoded, EncodedDataset
from core.data.rows import Conversation
from core.data.turns import ChatTemplate, TrainedTurn, UnsupportedTurns
from core.errors import InvalidInput, TrainingFailed
from core.schemas.data import Message, Thinking, TrainedTurns
from core.thinking import split_thinking

_CHUNK_ROWS = 256
_UNLIMITED = 1 << 30
_PROBE = (Message(role="user", content="Hello"), Message(role="assistant", content="Good morning, this is the answer"))
_JOINTS = (("Hello", " world"), ("Hello", "\n\nworld"), ("a:", "  b"), ("x\n", "\ny"), ("word", "word"))


def encode(
    conversation: Conversation,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    thinking: Thinking = "train",
    turns: TrainedTurns = "all",
) -> tuple[Encoded, ...]:
    """One conversation in tokens: several rows if the template rewrites earlier turns. Raises what `RowEncoder` raises.

    `thinking` says what happens to what the assistant thought, and `turns` which of its turns are trained on.
    """
    return tuple(RowEncoder(tokenizer, max_length=max_length, thinking=thinking, turns=turns).encode([conversation]))


def encode_all(
    conversations: Iterable[Conversation],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    thinking: Thinking = "train",
    turns: TrainedTurns = "all",
) -> EncodedDataset:
    """All rows in tokens, with counts. `conversations` is read once, so a generator can watch the progress.

    Raises:
        TrainingFailed: code `no_trainable_rows`; every row was dropped, or there was none.
        InvalidInput: as `RowEncoder` does.
    """
    rows: list[Encoded] = []
    dropped = 0
    for encoded in RowEncoder(tokenizer, max_length=max_length, thinking=thinking, turns=turns).encode(conversations):
        if encoded.trained_tokens:
            rows.append(encoded)
        else:
            dropped += 1
    if not rows:
        raise TrainingFailed(
            f"No row can be trained on: the prompt alone fills max_length ({max_length} tokens) in each of {dropped} "
            "rows. Raise training.max_length, or shorten the prompts.",
            code="no_trainable_rows",
            param="training.max_length",
        )
    return EncodedDataset(rows=tuple(rows), dropped=dropped)


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id of the token that ends an assistant turn, which answers must stop at. Raises what `RowEncoder` raises."""
    (row,) = encode(Conversation(_PROBE, 0), tokenizer, max_length=_UNLIMITED)
    return int(row.labels[row.labels != IGNORED][-1])


@dataclass(frozen=True)
class _Row:
    """A row in text."""

    line: int
    turns: Sequence[TrainedTurn]
    own_ending: bool = False
    inline_thinking: bool = False


class RowEncoder:
    """A tokenizer with its chat template, and the options of a training that decide what a row becomes.

    Raises:
        InvalidInput: code `no_chat_template`, `chat_template_unsupported` or `tokenizer_unsupported`.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_length: int,
        thinking: Thinking = "train",
        turns: TrainedTurns = "all",
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
        self._tokenizer, self._max_length, self._thinking, self._turns = tokenizer, max_length, thinking, turns
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

    def encode(self, conversations: Iterable[Conversation]) -> Iterator[Encoded]:
        """The conversations in tokens: lazily, in order, and in several rows where the template rewrites earlier turns.

        Raises:
            InvalidInput: code `chat_template_unsupported`, at the first row that cannot be trained on as it is.
        """
        remaining = iter(conversations)
        while chunk := list(islice(remaining, _CHUNK_ROWS)):
            for row, ids, labels in self._encode_chunk(chunk):
                yield Encoded.cut(
                    ids,
                    labels,
                    max_length=self._max_length,
                    line=row.line,
                    own_ending=row.own_ending,
                    inline_thinking=row.inline_thinking,
                )

    def _encode_chunk(self, conversations: Sequence[Conversation]) -> Iterator[tuple[_Row, list[int], list[int]]]:
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
            return [_Row(conversation.line, [TrainedTurn("", text, "")])]
        with _at(conversation.line):
            whole = [self._remove_ending(message) for message in conversation.messages]
            own_ending = any(one is not other for one, other in zip(whole, conversation.messages, strict=True))
            messages = [self._apply_options(message, last=message is whole[-1]) for message in whole]
            for number, message in enumerate(messages, 1):
                if found := self._control.search(f"{message.thinking or ''}\n{message.content}"):
                    raise UnsupportedTurns(f"turn {number} contains the control token {found[0]}")
            rows = self._chat.split_rows(messages, conversation.tools)
            inline = not self._chat.has_thinking and any(message.thinking and message.trained for message in messages)
        if not self._ends_turns:
            # Served models see earlier answers without the end of sequence, so each turn is a row that ends with one.
            rows = [[turn] for row in rows for turn in row]
        return [_Row(conversation.line, row, own_ending, inline) for row in rows]

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
        _reject(str(error), line)


def _without_trimming(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    """The same tokenizer with offsets that contain the spaces of each token."""

    def change(value: object) -> object:
        if isinstance(value, dict):
            return {name: False if name == "trim_offsets" else change(inner) for name, inner in value.items()}
        return [change(inner) for inner in value] if isinstance(value, list) else value

    return Tokenizer.from_str(json.dumps(change(json.loads(tokenizer.backend_tokenizer.to_str()))))


def _reject(why: str, line: int = 0) -> NoReturn:
    what = f"The row on line {line}" if line else "A row"
    raise InvalidInput(
        f"{what} cannot be trained on with the base model's chat template: {why}. Change the row, or choose another "
        "base model.",
        code="chat_template_unsupported",
        param="base_model",
    )
