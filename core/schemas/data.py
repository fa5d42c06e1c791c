"""Rows of a dataset, column maps, and the summary that validation makes of a file.

Covers: messages, rows, column maps, the dataset summary. Not here: parsing (core.data).
"""

from collections.abc import Sequence
from operator import not_
from typing import Annotated, Any, Literal, Self

from pydantic import Field, JsonValue, model_validator

from core.schemas.base import Frozen

Role = Literal["system", "user", "assistant", "tool"]
RowFormat = Literal["messages", "sharegpt", "prompt_completion", "alpaca", "dolly", "openorca", "text", "mapped"]
FileFormat = Literal["jsonl", "json", "json_objects", "csv", "parquet", "arrow"]
Thinking = Literal["train", "drop", "reject"]
TrainedTurns = Literal["all", "last"]
Delimiter = Literal[",", ";", "\t"]


class ToolCall(Frozen):
    """A call of a tool in an assistant turn."""

    name: str
    """Name of the tool."""
    arguments: dict[str, JsonValue]
    """Arguments by name."""
    id: str | None = None
    """Id that the tool's result refers to."""


class Message(Frozen):
    """One turn of a conversation. Dumps leave out the optional fields that have their defaults."""

    role: Role
    """Author of the turn: `system`, `user`, `assistant`, or `tool` for the result of a tool call."""
    content: str
    """Text of the turn, without special tokens."""
    thinking: str | None = Field(default=None, exclude_if=not_)
    """What the assistant thought before its answer."""
    tool_calls: tuple[ToolCall, ...] = Field(default=(), exclude_if=not_)
    """Tools that the assistant calls."""
    name: str | None = Field(default=None, exclude_if=not_)
    """Name of the author, or of the tool."""
    tool_call_id: str | None = Field(default=None, exclude_if=not_)
    """Id of the call that a `tool` turn responds to."""
    trained: bool = Field(default=True, exclude_if=bool)
    """Whether an assistant turn is trained on; false for turns with weight 0."""

    def for_template(self, thinking_field: str = "reasoning_content") -> dict[str, Any]:
        """The turn with the names that chat templates read."""
        calls = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in self.tool_calls
        ]
        optional = {
            thinking_field: self.thinking,
            "tool_calls": calls,
            "name": self.name,
            "tool_call_id": self.tool_call_id,
        }
        return {"role": self.role, "content": self.content} | {name: value for name, value in optional.items() if value}


def merge_system(messages: Sequence[Message]) -> Sequence[Message]:
    """The same turns with a leading system turn in front of the first user turn's text.

    For chat templates without a place for system turns.
    """
    if [message.role for message in messages[:2]] != ["system", "user"]:
        return messages
    system, user, *rest = messages
    return (user.model_copy(update={"content": f"{system.content}\n\n{user.content}"}), *rest)


ColumnName = Annotated[str, Field(min_length=1, max_length=200)]


class ColumnMap(Frozen):
    """Names the columns of a file with other columns than the known layouts, such as GSM8K's question and answer."""

    prompt: ColumnName | None = Field(default=None, examples=["question"])
    """Name of the column with the user turn; used together with `completion`."""
    completion: ColumnName | None = Field(default=None, examples=["answer"])
    """Name of the column with the assistant turn, which is trained on."""
    system: ColumnName | None = None
    """Name of the column with the system turn; null if there is none."""
    extra: ColumnName | None = Field(default=None, examples=["context"])
    """Name of a column with text that is added to the user turn, such as a context; null if there is none."""
    messages: ColumnName | None = None
    """Name of the column with the list of messages, in place of `prompt` and `completion`."""
    text: ColumnName | None = None
    """Name of the column with text that is trained on as a whole, in place of `prompt` and `completion`."""

    @model_validator(mode="after")
    def _name_one_layout(self) -> Self:
        pair = [name for name in (self.prompt, self.completion) if name is not None]
        if (len(pair) == 2) + (self.messages is not None) + (self.text is not None) != 1 or len(pair) == 1:
            raise ValueError("name prompt and completion, or messages, or text")
        return self

    @property
    def needed(self) -> tuple[str, ...]:
        """The columns that every row must have."""
        names = (self.prompt, self.completion, self.system, self.messages, self.text)
        return tuple(name for name in names if name is not None)


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
    """Format of the file: JSON Lines, a JSON array, JSON objects one after the other, CSV, Parquet or Arrow."""
    delimiter: Delimiter | None = None
    """What separates the columns of a CSV file; null for other formats."""
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
    left_out: int = 0
    """Number of rows that are not trained on, because their own marks (`weight`, `train`) say so."""
    cut_turns: int = 0
    """Number of turns at the end of rows that are cut, because no answer follows."""
    ignored: dict[str, int] = Field(default_factory=dict)
    """Number of rows with each field that is not used, at most 50 fields."""
    columns: ColumnMap | None = None
    """The columns that are used: those that the upload names, or those with usual names for a prompt and a completion;
    null for known layouts."""
