"""Rows as they are trained on, token by token, for people to check before anything is trained.

Covers: text and mark of every token, counts, rows that cannot be trained on. Not here: what becomes of a row
(core.data.template), warnings (core.pipeline.advise), pages (core.reports.preview).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from transformers import PreTrainedTokenizerBase

from core.data.encoded import IGNORED, Encoded
from core.data.rows import Conversation
from core.data.template import RowEncoder
from core.errors import InvalidInput
from core.schemas.preview import PreviewRow, PreviewToken, RejectedRow, TokenCounts

MAX_COUNTED_ROWS = 10_000
MAX_COUNTED_CHARACTERS = 10_000_000
"""Counting ends after this many rows or characters, so that a preview takes seconds whatever the file."""
MAX_SHOWN_TOKENS = 50_000
"""No further row is shown once this many tokens are."""
MAX_REJECTED = 20


@dataclass
class PreviewedRows:
    """Rows in tokens: those to be shown, and counts of all."""

    shown: list[PreviewRow] = field(default_factory=list)
    rejected: list[RejectedRow] = field(default_factory=list)
    originals: list[Conversation] = field(default_factory=list)
    """The conversations that were read and can be trained on."""
    encoded: list[Encoded] = field(default_factory=list)
    """Their rows in tokens that have a trained token."""
    rows: int = 0
    all_rows: bool = True
    dropped_rows: int = 0
    rejected_rows: int = 0
    cut_trained_tokens: int = 0

    @property
    def counts(self) -> TokenCounts:
        """The counts as they are replied."""
        return TokenCounts(
            rows=self.rows,
            all_rows=self.all_rows,
            training_rows=len(self.encoded),
            tokens=sum(len(row.input_ids) for row in self.encoded),
            trained_tokens=sum(row.trained_tokens for row in self.encoded),
            longest=max((len(row.input_ids) + row.cut_tokens for row in self.encoded), default=0),
            cut_rows=sum(row.cut_tokens > 0 for row in self.encoded),
            cut_trained_tokens=self.cut_trained_tokens,
            dropped_rows=self.dropped_rows,
            rejected_rows=self.rejected_rows,
        )


def preview_rows(
    conversations: Iterable[Conversation],
    encoder: RowEncoder,
    tokenizer: PreTrainedTokenizerBase,
    *,
    rows: int,
    line: int,
) -> PreviewedRows:
    """Tokenise rows one by one. The first `rows` conversations from `line` of the file are shown.

    A conversation that cannot be trained on is counted and named, and the next one is read.
    """
    found = PreviewedRows()
    characters = tokens = shown = 0
    for conversation in conversations:
        counted = found.rows < MAX_COUNTED_ROWS and characters <= MAX_COUNTED_CHARACTERS
        wanted = shown < rows and tokens < MAX_SHOWN_TOKENS
        found.all_rows &= counted
        if not counted and not wanted:
            break
        wanted &= conversation.line >= line
        if not counted and not wanted:
            continue
        characters += sum(len(message.content) for message in conversation.messages)
        encoded = _encode(conversation, encoder, found)
        if counted:
            _count(found, conversation, encoded)
        if wanted and encoded:
            shown += 1
            tokens += sum(len(row.input_ids) for row in encoded)
            found.shown += _show(encoded, tokenizer)
    return found


def read_bounded(conversations: Iterable[Conversation]) -> tuple[list[Conversation], bool]:
    """The first conversations, with the same bounds as a preview's counts, and whether these are all."""
    found: list[Conversation] = []
    characters = 0
    for conversation in conversations:
        if len(found) == MAX_COUNTED_ROWS or characters > MAX_COUNTED_CHARACTERS:
            return found, False
        characters += sum(len(message.content) for message in conversation.messages)
        found.append(conversation)
    return found, True


def masked_sample(encoded: Encoded, tokenizer: PreTrainedTokenizerBase) -> str:
    """The row as text, special tokens included, with `[[ ]]` around what is trained on."""
    parts: list[str] = []
    for trained, group in groupby(show_tokens(encoded, tokenizer), key=lambda token: token.trained):
        text = "".join(token.text for token in group)
        parts.append(f"[[{text}]]" if trained else text)
    return "".join(parts)


def show_tokens(encoded: Encoded, tokenizer: PreTrainedTokenizerBase) -> tuple[PreviewToken, ...]:
    """Every token with the text that it adds and its mark."""
    ids, labels = encoded.input_ids.tolist(), encoded.labels.tolist()
    texts = _added_texts(ids, tokenizer)
    return tuple(
        PreviewToken(id=token, text=text, trained=label != IGNORED)
        for token, text, label in zip(ids, texts, labels, strict=True)
    )


def _added_texts(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """What each token adds to the text before it.

    A token alone may be part of a character, and some decoders remove the space before the first token. So each token
    is decoded together with those before it, back to the last but one whole piece of text.
    """
    added: list[str] = []
    start = whole = 0
    before = ""
    for place in range(len(ids)):
        text = _decode(ids[start : place + 1], tokenizer)
        if text.endswith("\ufffd") and place + 1 < len(ids):  # perhaps the beginning of a character
            added.append("")
            continue
        added.append(text[len(before) :])
        start, whole = whole, place + 1
        before = _decode(ids[start:whole], tokenizer)
    return added


def _decode(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _encode(conversation: Conversation, encoder: RowEncoder, found: PreviewedRows) -> tuple[Encoded, ...]:
    """The rows of a conversation; none if it cannot be trained on, which is noted."""
    try:
        return tuple(encoder.encode([conversation]))
    except InvalidInput as error:
        if len(found.rejected) < MAX_REJECTED:
            found.rejected.append(RejectedRow(line=conversation.line, message=error.message))
        return ()


def _count(found: PreviewedRows, conversation: Conversation, encoded: Sequence[Encoded]) -> None:
    usable = [row for row in encoded if row.trained_tokens]
    found.rows += 1
    found.rejected_rows += not encoded
    found.dropped_rows += len(encoded) - len(usable)
    found.cut_trained_tokens += sum(row.cut_trained_tokens for row in encoded)
    found.encoded += usable
    if usable:
        found.originals.append(conversation)


def _show(encoded: Sequence[Encoded], tokenizer: PreTrainedTokenizerBase) -> Iterator[PreviewRow]:
    for part, row in enumerate(encoded, 1):
        yield PreviewRow(
            line=row.line,
            part=part,
            parts=len(encoded),
            tokens=show_tokens(row, tokenizer),
            trained_tokens=row.trained_tokens,
            cut_tokens=row.cut_tokens,
            cut_trained_tokens=row.cut_trained_tokens,
        )
