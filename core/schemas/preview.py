"""The preview of a dataset: its rows in the tokens of a base model, with what is trained on.

Not here: how it is computed (core.data.preview), how it is shown (core.reports.preview).
"""

from pathlib import Path
from typing import Literal

from pydantic import Field

from core.schemas.base import Frozen
from core.schemas.data import ColumnMap, Thinking, TrainedTurns
from core.schemas.events import Warned
from core.schemas.models import BaseModelEntry, ModelName, Template
from core.schemas.training import TrainingSpec

_TRAINING = TrainingSpec()


class PreviewRequest(Frozen):
    """What to show. The options of training are those of a job; the preview shows what a job with them trains on."""

    model: ModelName = Field(examples=["testbed"])
    """Name of the base model whose tokenizer and chat template are used, from `GET /models`."""
    rows: int = Field(default=5, ge=1, le=50)
    """Number of rows to show, 1 to 50."""
    line: int = Field(default=1, ge=1)
    """Line of the file to begin at: rows that begin before it are counted and not shown."""
    max_length: int = Field(default=_TRAINING.max_length, ge=16, le=131_072)
    """Longest row in tokens, as `training.max_length`."""
    thinking: Thinking = _TRAINING.thinking
    """What happens to what the assistant thought, as `training.thinking`."""
    turns: TrainedTurns = _TRAINING.turns
    """Which assistant turns are trained on, as `training.turns`."""


class PreviewToken(Frozen):
    """One token of a row."""

    id: int
    """Id of the token."""
    text: str
    """Text that the token adds. Empty where a character needs more tokens; the last of them has the character."""
    trained: bool
    """Whether the token is trained on."""


class PreviewRow(Frozen):
    """One row as it is trained on."""

    line: int
    """Line of the file on which the row begins."""
    part: int = 1
    """Number of this row among those that the conversation becomes, from 1."""
    parts: int = 1
    """Number of rows that the conversation becomes: more than 1 if the chat template rewrites earlier turns."""
    tokens: tuple[PreviewToken, ...]
    """The tokens, special ones included; at most `max_length` of them."""
    trained_tokens: int
    """Number of tokens that are trained on. The row is left out of training if it is 0."""
    cut_tokens: int = 0
    """Number of tokens beyond `max_length`, which are cut off."""
    cut_trained_tokens: int = 0
    """Number of those that would have been trained on."""


class RejectedRow(Frozen):
    """A row that a job would fail on."""

    line: int
    """Line of the file on which the row begins."""
    message: str
    """Why it cannot be trained on with this model and these options."""


class TokenCounts(Frozen):
    """Counts over the rows that were read."""

    rows: int
    """Number of rows of the file that were read."""
    all_rows: bool
    """Whether this is the whole file. Of large files, only the beginning is counted."""
    training_rows: int
    """Number of rows in tokens that are trained on."""
    tokens: int
    """Number of tokens in them."""
    trained_tokens: int
    """Number of tokens that are trained on."""
    longest: int
    """Number of tokens of the longest row before it is cut."""
    cut_rows: int
    """Number of rows that are cut at `max_length`."""
    cut_trained_tokens: int
    """Number of tokens that would be trained on if no row was cut."""
    dropped_rows: int
    """Number of rows that are left out, because their prompt alone fills `max_length`."""
    rejected_rows: int
    """Number of rows that a job would fail on."""


class Preview(Frozen):
    """Rows of a dataset in the tokens of a base model, as a job trains on them.

    Rows that screening would drop are shown; rows that safeguards add are not.
    """

    model: ModelName
    """Name of the base model."""
    chat_template: Template
    """Whether the template is the model's own or securetune's plain one."""
    end_of_turn: str = Field(examples=["<|im_end|>"])
    """The token that ends the assistant's turns. It is trained on."""
    max_length: int
    """Longest row in tokens: that of the request, or the model's context length if it is shorter."""
    counts: TokenCounts
    """Counts over all rows, or over the first ones of a large file."""
    rows: tuple[PreviewRow, ...]
    """The rows that are shown, fewer than requested if they are long."""
    rejected: tuple[RejectedRow, ...]
    """The first 20 rows that a job would fail on."""
    warnings: tuple[Warned, ...]
    """What a job would warn about, judged by the rows that were counted."""


class PreviewOrder(Frozen):
    """What the process that computes a preview gets."""

    kind: Literal["preview"] = "preview"
    """Always `preview`."""
    path: Path
    """File of the dataset."""
    columns: ColumnMap | None
    """Names of its columns, if they were given."""
    sha256: str
    """Digest of the file when it was uploaded."""
    max_rows: int
    """Largest number of rows that the server accepts in a dataset."""
    entry: BaseModelEntry
    """The base model."""
    request: PreviewRequest
    """What to show."""
