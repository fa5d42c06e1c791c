"""The messages between the API and its process with a tokenizer: one order, one answer.

Not here: what the orders ask for (core.schemas.preview, core.schemas.workload), the process
(core.pipeline.tokenizer_process).
"""

from typing import Annotated

from pydantic import Field, TypeAdapter

from core.schemas.base import Frozen
from core.schemas.preview import Preview, PreviewOrder
from core.schemas.workload import Workload, WorkloadOrder

TokenizerOrder = Annotated[PreviewOrder | WorkloadOrder, Field(discriminator="kind")]
TOKENIZER_ORDER: TypeAdapter[PreviewOrder | WorkloadOrder] = TypeAdapter(TokenizerOrder)


class TokenizerFailed(Frozen):
    """Why there is no result."""

    unavailable: bool
    """Whether it may work later, without a change."""
    code: str
    """Stable code."""
    message: str
    """What to do."""
    param: str | None
    """The field that is wrong."""


class TokenizerAnswer(Frozen):
    """What the process answers: one of the three."""

    preview: Preview | None = None
    """The preview that was ordered."""
    workload: Workload | None = None
    """The workload that was ordered."""
    failed: TokenizerFailed | None = None
    """Why there is neither."""
