"""Rows of a dataset, column maps, and the summary that validation makes of a file.

Covers: messages, rows, column maps, the dataset summary. Not here: parsing (core.data).
"""

from typing import Literal

from pydantic import Field

from core.schemas.base import Frozen

Role = Literal["system", "user", "assistant"]
RowFormat = Literal["messages", "prompt_completion", "alpaca", "mapped"]
FileFormat = Literal["jsonl", "json", "csv"]


class Message(Frozen):
    """One turn of a conversation."""

    role: Role
    """Author of the turn: `system`, `user` or `assistant`."""
    content: str
    """Text of the turn, without special tokens."""


class ColumnMap(Frozen):
    """Names the columns of a file with other columns than the known layouts, such as GSM8K's question and answer."""

    prompt: str = Field(min_length=1, max_length=200, examples=["question"])
    """Name of the column with the user turn."""
    completion: str = Field(min_length=1, max_length=200, examples=["answer"])
    """Name of the column with the assistant turn, which is trained on."""
    system: str | None = Field(default=None, min_length=1, max_length=200)
    """Name of the column with the system turn; null if there is none."""


class RowError(Frozen):
    """Why one row of an upload is invalid."""

    line: int
    """Line of the file on which the row begins, counted from 1."""
    column: str | None
    """The invalid column or field, such as `messages[1].content`; null for the whole row."""
    reason: str
    """What is wrong with the row and what was expected."""


class DatasetSummary(Frozen):
    """Counts and formats of a valid dataset; no tokenizer is involved."""

    file_format: FileFormat
    """Format of the file: JSON Lines, a JSON array or CSV."""
    row_format: RowFormat
    """Layout of the rows; `mapped` if a column map was given."""
    rows: int = Field(examples=[320])
    """Number of conversations in the file."""
    turns: int = Field(examples=[640])
    """Number of messages in all rows."""
    assistant_turns: int
    """Number of assistant messages, which are trained on."""
    characters: int
    """Number of characters in all messages."""
    longest_row_characters: int
    """Number of characters in the longest conversation."""
