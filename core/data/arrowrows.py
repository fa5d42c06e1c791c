"""Parquet and Arrow files, read as a stream of rows. A row's line is its number.

Covers: Parquet, Arrow files and Arrow streams, a bound on the size in memory. Not here: what a row must contain.
"""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, BinaryIO

from core.data.records import Record
from core.data.streams import MAX_UNPACKED_BYTES, unreadable_file
from core.errors import TooLarge
from core.schemas.data import RowError

if TYPE_CHECKING:
    import pyarrow as pa

PARQUET_FILE = b"PAR1"
ARROW_FILE = b"ARROW1"
ARROW_STREAM = b"\xff\xff\xff\xff"
_BATCH_ROWS = 256


def read_parquet(stream: BinaryIO) -> Iterator[Record | RowError]:
    """A record for every row of a Parquet file.

    Raises:
        InvalidDataset: the file is damaged.
        TooLarge: it has more than `MAX_UNPACKED_BYTES` of data.
    """
    import pyarrow as pa  # noqa: PLC0415 - only such files need it
    from pyarrow import parquet  # noqa: PLC0415

    try:
        file = parquet.ParquetFile(stream)
        groups = (file.metadata.row_group(index) for index in range(file.metadata.num_row_groups))
        if sum(group.total_byte_size for group in groups) > MAX_UNPACKED_BYTES:
            raise TooLarge(f"The file unpacks to more than {MAX_UNPACKED_BYTES // 2**30} GiB. Split it.", param="file")
        yield from _records(file.iter_batches(batch_size=_BATCH_ROWS))
    except (pa.ArrowException, OSError) as error:
        raise unreadable_file(1, f"the Parquet file is damaged: {error}") from error


def read_arrow(stream: BinaryIO) -> Iterator[Record | RowError]:
    """A record for every row of an Arrow file or stream.

    Raises:
        InvalidDataset: the file is damaged.
    """
    import pyarrow as pa  # noqa: PLC0415 - only such files need it

    try:
        if stream.read(len(ARROW_FILE)) == ARROW_FILE:
            file = pa.ipc.open_file(stream)
            yield from _records(file.get_batch(index) for index in range(file.num_record_batches))
        else:
            stream.seek(0)
            yield from _records(pa.ipc.open_stream(stream))
    except (pa.ArrowException, OSError) as error:
        raise unreadable_file(1, f"the Arrow file is damaged: {error}") from error


def _records(batches: "Iterable[pa.RecordBatch]") -> Iterator[Record]:
    rows = chain.from_iterable(batch.to_pylist() for batch in batches)
    return (Record(line, row) for line, row in enumerate(rows, 1))
