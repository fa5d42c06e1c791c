"""What a dataset row is, how a file's columns map to it, and what validation says of a file.

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
    """Who speaks."""
    content: str
    """What is said."""


class ColumnMap(Frozen):
    """Names the columns of a file that is in none of the known layouts, such as GSM8K's question and answer."""

    prompt: str = Field(min_length=1, max_length=200, examples=["question"])
    """The column that holds the user's turn."""
    completion: str = Field(min_length=1, max_length=200, examples=["answer"])
    """The column that holds the assistant's turn, which is trained on."""
    system: str | None = Field(default=None, min_length=1, max_length=200)
    """An optional column that holds the system turn."""


class RowError(Frozen):
    """Why one row of an upload was refused."""

    line: int
    """Line of the file, from 1; in a JSON array the line on which the row begins."""
    column: str | None
    """The column or field path at fault, such as `messages[1].content`; null when the whole row is."""
    reason: str
    """What is wrong and what was expected."""


class DatasetSummary(Frozen):
    """What is known of a valid dataset before any tokenizer has seen it."""

    file_format: FileFormat
    """How the file is written."""
    row_format: RowFormat
    """The layout of its rows."""
    rows: int
    """Number of conversations."""
    turns: int
    """Number of messages in all rows."""
    assistant_turns: int
    """Number of messages that are trained on."""
    characters: int
    """Characters in all messages."""
    longest_row_characters: int
    """Characters in the longest conversation."""
