"""Computes the preview of a dataset: with the tokenizer of a model, and without torch.

Not here: the process in which this runs (core.pipeline.tokenizer_process), what a preview shows (core.data.preview).
"""

from core.data import preview as rows
from core.data.encoded import EncodedDataset
from core.data.rows import Rows
from core.data.tables import only_valid
from core.data.template import RowEncoder, end_of_turn
from core.lm.files import fetch
from core.lm.reading import context_of, read_config
from core.lm.tokenizer import load_tokenizer
from core.pipeline.advise import advise
from core.schemas.preview import Preview, PreviewOrder
from core.schemas.training import TrainingSpec
from core.storage import check_digest


def preview(order: PreviewOrder) -> Preview:
    """The preview of a dataset.

    Raises:
        InvalidInput, Unavailable: the model's tokenizer or its chat template cannot be used, or the file has changed.
    """
    request, entry = order.request, order.entry
    check_digest(order.path, order.sha256)
    folder = fetch(entry, weights=False)
    config = read_config(entry, folder)
    tokenizer = load_tokenizer(entry, folder, config)
    limit = min(request.max_length, context_of(config))
    encoder = RowEncoder(tokenizer, max_length=limit, thinking=request.thinking, turns=request.turns)
    conversations = only_valid(Rows(order.path, order.columns, max_rows=order.max_rows))
    found = rows.preview_rows(conversations, encoder, tokenizer, rows=request.rows, line=request.line)
    training = TrainingSpec(max_length=request.max_length, thinking=request.thinking, turns=request.turns)
    encoded = EncodedDataset(tuple(found.encoded), dropped=found.dropped_rows)
    return Preview(
        model=entry.name,
        chat_template=entry.chat_template,
        end_of_turn=str(tokenizer.decode([end_of_turn(tokenizer)])),
        max_length=limit,
        counts=found.counts,
        rows=tuple(found.shown),
        rejected=tuple(found.rejected),
        warnings=tuple(advise(training, found.originals, (), encoded)),
    )
