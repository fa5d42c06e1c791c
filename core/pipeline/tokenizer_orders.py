"""Carries out the orders of the process with a tokenizer: previews and workloads. Errors become values.

Not here: the process (core.pipeline.tokenizer_process).
"""

from core.errors import InvalidInput, NotFound, SecureTuneError, TooLarge, TrainingFailed, Unavailable
from core.pipeline.preview import preview
from core.pipeline.workload import count_work
from core.schemas.preview import PreviewOrder
from core.schemas.tokenizing import TokenizerAnswer, TokenizerFailed
from core.schemas.workload import WorkloadOrder


def answer(order: PreviewOrder | WorkloadOrder) -> TokenizerAnswer:
    """The preview or the workload, or why there is none."""
    try:
        if isinstance(order, PreviewOrder):
            return TokenizerAnswer(preview=preview(order))
        return TokenizerAnswer(workload=count_work(order))
    except (InvalidInput, NotFound, TooLarge, TrainingFailed, Unavailable) as error:
        return TokenizerAnswer(failed=_failed(error))


def _failed(error: SecureTuneError) -> TokenizerFailed:
    return TokenizerFailed(
        unavailable=isinstance(error, Unavailable), code=error.code, message=error.message, param=error.param
    )
