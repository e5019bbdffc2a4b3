"""Frames as sources: pandas, polars, Arrow and `datasets`, by the Arrow stream that each offers.

A frame is written to a temporary Parquet file, a batch at a time, and read as any other: the same
content gives the same products, whether it comes as a file or as a frame. Pictures that come as
bytes are kept in the shelf's `images/` and named by what is in them.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from kinshelf.db.errors import ImageRejected, InputError
from kinshelf.db.images.cache import UPLOAD, ImageCache
from kinshelf.db.images.decode import content_hash
from kinshelf.db.sources.columns import resolve_columns

if TYPE_CHECKING:
    import pyarrow as pa

    from kinshelf.store.results import AddOptions

_ROWS = 1024
_INDEX = "__index_level_"


@runtime_checkable
class Frame(Protocol):
    """What pandas, polars, Arrow and `datasets` frames have in common."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """The Arrow C stream of the rows."""


@contextlib.contextmanager
def spooled(frame: Frame, images: Path, mapping: Mapping[str, str]) -> Iterator[Path]:
    """The frame as a Parquet file, while the context lasts. Raises InputError.

    `images` is the shelf's folder of pictures, `mapping` {field: column} as in `AddOptions`.
    """
    with tempfile.TemporaryDirectory(prefix="kinshelf-frame-") as folder:
        path = Path(folder) / "frame.parquet"
        with _stream(frame) as reader:
            _write(path, reader, images, mapping)
        yield path


@contextlib.contextmanager
def opened(source: Path | str | Frame, options: AddOptions) -> Iterator[Path]:
    """A source to ask about as a file; the pictures in it lie in a folder that goes with it."""
    with tempfile.TemporaryDirectory(prefix="kinshelf-images-") as images:
        if isinstance(source, str | Path):
            yield Path(source)
        else:
            with spooled(source, Path(images), options.mapping) as path:
                yield path


@contextlib.contextmanager
def with_pictures(source: Path, images: Path, mapping: Mapping[str, str]) -> Iterator[Path]:
    """A Parquet source whose pictures stand in it as bytes, with these kept; others as they are."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if source.suffix.casefold() not in {".parquet", ".pq"} or not source.is_file():
        yield source
        return
    try:
        file = pq.ParquetFile(source)
    except (pa.ArrowInvalid, OSError):
        yield source  # its own reader states what is wrong with it
        return
    with file, tempfile.TemporaryDirectory(prefix="kinshelf-pictures-") as folder:
        if _picture_column(file.schema_arrow, mapping) is None:
            yield source
            return
        batches = file.iter_batches(_ROWS)
        reader = pa.RecordBatchReader.from_batches(file.schema_arrow, batches)
        path = Path(folder) / source.name
        _write(path, reader, images, mapping)
        yield path


@contextlib.contextmanager
def _stream(frame: Frame) -> Iterator[pa.RecordBatchReader]:
    import pyarrow as pa

    try:
        with pa.RecordBatchReader.from_stream(frame) as reader:
            yield reader
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as problem:
        reason = str(problem).partition("\n")[0]
        raise InputError(
            f"the frame has a column that Arrow cannot take ({reason}): give each column one type"
        ) from problem


def _write(
    path: Path, reader: pa.RecordBatchReader, images: Path, mapping: Mapping[str, str]
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = [name for name in reader.schema.names if not name.startswith(_INDEX)]
    pictures = _picture_column(reader.schema, mapping)
    fields = [pa.field(n, pa.string()) if n == pictures else reader.schema.field(n) for n in names]
    cache = ImageCache(images)
    with pq.ParquetWriter(path, pa.schema(fields)) as writer:
        for batch in reader:
            columns = {name: batch.column(name) for name in names}
            if pictures:
                urls = [_kept(cell, cache) for cell in columns[pictures].to_pylist()]
                columns[pictures] = pa.array(urls, pa.string())
            if batch.num_rows:
                writer.write_batch(pa.record_batch(list(columns.values()), pa.schema(fields)))


def _picture_column(schema: pa.Schema, mapping: Mapping[str, str]) -> str | None:
    """The column of the pictures, if they stand there as bytes."""
    import pyarrow as pa

    plan = resolve_columns(schema.names, mapping, require_content=False)
    name = plan.fields.get("image")
    kind = schema.field(name).type if name in schema.names else None
    if kind is None:
        return None
    if pa.types.is_struct(kind):
        names = {kind.field(i).name for i in range(kind.num_fields)}
        return name if "bytes" in names else None
    binary = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)
    return name if any(check(kind) for check in binary) else None


def _kept(cell: Any, cache: ImageCache) -> str | None:
    """The URL of a picture's bytes, which the cache has from now on, or the path beside them."""
    data, path = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, None)
    if not data:
        return path
    url = UPLOAD + content_hash(data)
    with contextlib.suppress(ImageRejected):  # where it is fetched from, the row is reported why
        cache.put(url, data)
    return url
