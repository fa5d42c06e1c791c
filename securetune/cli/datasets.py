"""The commands `securetune datasets`. They speak HTTP to a service.

Not here: computing previews (core.pipeline.preview), the page (core.reports.preview).
"""

from itertools import groupby
from pathlib import Path

from rich.console import Console
from rich.text import Text

from core.errors import NotFound
from core.reports.numbers import percent, plural
from core.reports.text import visible
from core.schemas.preview import Preview, PreviewRequest, PreviewRow
from securetune.client import SecureTune


def preview(service: SecureTune, dataset: str, request: PreviewRequest, console: Console, page: Path | None) -> None:
    """Show the rows of a dataset, or save them as a page.

    `dataset` is the id of a dataset, or a file, which is uploaded first.

    Raises:
        NotFound: it is neither.
        ApiError: as the client does.
    """
    dataset_id = find_dataset(service, dataset)
    if page is not None:
        page.write_bytes(service.preview_page(dataset_id, request))
        console.print(f"Saved {page}.", highlight=False)
        return
    _show(service.preview(dataset_id, request), console)


def find_dataset(service: SecureTune, dataset: str) -> str:
    """The id of a dataset that is given by its id, or as a file, which is uploaded.

    Raises:
        NotFound: it is neither.
        ApiError: as the client does.
    """
    path = Path(dataset)
    if not path.is_file() and not dataset.startswith("ds_"):
        raise NotFound(f"There is no file {dataset}, and it is not the id of a dataset (ds_...).", param="dataset")
    return service.upload_dataset(path).id if path.is_file() else dataset


def _show(preview: Preview, console: Console) -> None:
    counts = preview.counts
    read = plural(counts.rows, "row") if counts.all_rows else f"the first {plural(counts.rows, 'row')}"
    share = f" ({percent(counts.trained_tokens / counts.tokens)})" if counts.tokens else ""
    for line in (
        f"Model {preview.model}: turns end with {preview.end_of_turn}, rows are cut at {preview.max_length:,} tokens.",
        f"Of {read}, {plural(counts.training_rows, 'is', 'are')} trained on: {plural(counts.tokens, 'token')}, "
        f"{counts.trained_tokens:,} of them trained{share}; the longest row has {counts.longest:,}.",
        f"Cut: {plural(counts.cut_rows, 'row')}, {plural(counts.cut_trained_tokens, 'token')} of answers. Dropped: "
        f"{plural(counts.dropped_rows, 'row')}. Rejected: {plural(counts.rejected_rows, 'row')}.",
    ):
        console.print(Text(line))
    for warning in preview.warnings:
        console.print(Text(f"Warning: {warning.message} [{warning.code}]", style="yellow"))
    for rejected in preview.rejected:
        console.print(Text(f"Line {rejected.line}: {rejected.message}", style="red"))
    for row in preview.rows:
        console.print()
        console.print(_title(row))
        console.print(_tokens(row, marks=not console.is_terminal))


def _title(row: PreviewRow) -> Text:
    part = f", part {row.part} of {row.parts}" if row.parts > 1 else ""
    cut = f", {row.cut_tokens:,} more are cut" if row.cut_tokens else ""
    dropped = "" if row.trained_tokens else ", so the row is dropped"
    return Text(
        f"Line {row.line}{part}: {plural(len(row.tokens), 'token')}, {row.trained_tokens:,} trained{cut}{dropped}",
        style="bold",
    )


def _tokens(row: PreviewRow, *, marks: bool) -> Text:
    """The row with its trained parts underlined, or between `[[` and `]]`."""
    shown = Text()
    for trained, group in groupby(row.tokens, key=lambda token: token.trained):
        text = visible("".join(token.text for token in group))
        if marks:
            shown.append(f"[[{text}]]" if trained else text)
        else:
            shown.append(text, style="green underline" if trained else "dim")
    return shown
