"""What is needed to preview a dataset. Not here: computing it (api.tokenizers)."""

from core import catalog
from core.catalog import Catalog
from core.schemas.job import DatasetRef
from core.schemas.preview import PreviewOrder, PreviewRequest
from core.storage import ArtifactStore


def order_preview(
    listed: Catalog, store: ArtifactStore, dataset: DatasetRef, request: PreviewRequest, max_rows: int
) -> PreviewOrder:
    """The order for the process that computes a preview.

    Raises:
        InvalidModel: the base model is not allowed, or its files cannot be used.
        NotFound: code `artifact_missing`; the file has been removed.
    """
    return PreviewOrder(
        path=store.path(dataset.key),
        columns=dataset.columns,
        sha256=dataset.sha256,
        max_rows=max_rows,
        entry=catalog.find(listed.models, request.model),
        request=request,
    )
