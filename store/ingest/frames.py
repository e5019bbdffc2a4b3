"""Frames as sources: pandas, polars, Arrow and `datasets`, by the Arrow stream that each offers.

A frame is written to a temporary Parquet file, a batch at a time, and read as any other: the same
content gives the same products, whether it comes as a file or as a frame. Pictures that come as
bytes are kept in the shelf's `images/` and named by what is in them.
"""

from __future__ import annotations

import base64
import contextlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable
from urllib.parse import unquote

from kinshelf.db.errors import ImageRejected, InputError
from kinshelf.db.images.cache import UPLOAD, ImageCache
from kinshelf.db.images.decode import content_hash
from kinshelf.db.sources.columns import resolve_columns

if TYPE_CHECKING:
    import pyarrow as pa

    from kinshelf.db.sources.batches import ReadBatch
    from kinshelf.store.results import AddOptions

_ROWS = 1024
_INDEX = "__index_level_"
_PARQUET, _ARROW = {".parquet", ".pq"}, {".feather", ".arrow", ".arrows"}
_SHOWN = 60
"""Characters that are kept of a `data:` URI that cannot be read."""
_PATHS = ("path", "url", "file_name", "filename", "src")
"""What stands beside the bytes in a structure, or in their place."""


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
    with contextlib.ExitStack() as stack:
        reader = _reader(source, stack)
        if reader is None or _picture_column(reader.schema, mapping) is None:
            yield source
            return
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="kinshelf-pictures-"))
        path = Path(folder) / source.with_suffix(".parquet").name
        _write(path, reader, images, mapping)
        yield path


def _reader(source: Path, stack: contextlib.ExitStack) -> pa.RecordBatchReader | None:
    """The batches of a Parquet or Arrow file; None of another, or of one that cannot be read."""
    if source.suffix.casefold() not in _PARQUET | _ARROW or not source.is_file():
        return None
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if source.suffix.casefold() in _PARQUET:
            file = stack.enter_context(pq.ParquetFile(source))
            return pa.RecordBatchReader.from_batches(file.schema_arrow, file.iter_batches(_ROWS))
        mapped = stack.enter_context(pa.memory_map(str(source)))
        begins = mapped.read(6)
        mapped.seek(0)
        if begins != b"ARROW1":
            return pa.ipc.open_stream(mapped)
        opened = pa.ipc.open_file(mapped)
        batches = (opened.get_batch(i) for i in range(opened.num_record_batches))
        return pa.RecordBatchReader.from_batches(opened.schema, batches)
    except (pa.ArrowInvalid, OSError):
        return None


def has_pictures(source: Path, mapping: Mapping[str, str]) -> bool:
    """Whether pictures stand in a Parquet or Arrow file as bytes."""
    with contextlib.ExitStack() as stack:
        reader = _reader(source, stack)
        return reader is not None and _picture_column(reader.schema, mapping) is not None


def unpacked(batches: Iterable[ReadBatch], images: Path) -> Iterator[ReadBatch]:
    """The batches, with the pictures that stand in their rows as base64 kept in `images`."""
    cache = ImageCache(images)
    for batch in batches:
        for place, product in enumerate(batch.products):
            if product.image and product.image.startswith("data:"):
                data = bytes_of(product.image)
                image = None if data is None else _kept(data, cache)
                batch.products[place] = product.replace(image=image or product.image[:_SHOWN])
        yield batch


def bytes_of(uri: str) -> bytes | None:
    """The bytes of a `data:` URI in base64 (RFC 2397); None for another."""
    head, _, text = uri.partition(",")
    if not head.endswith(";base64"):
        return None
    try:
        return base64.b64decode(unquote(text))
    except ValueError:
        return None


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
    plan = resolve_columns(schema.names, mapping, require_content=False)
    name = plan.fields.get("image")
    there = name in schema.names and _has_bytes(schema.field(name).type)
    return name if there else None


def _has_bytes(kind: pa.DataType) -> bool:
    """Whether bytes stand in a type, alone or in its lists, structures and dictionaries."""
    import pyarrow.types as of

    binary = (of.is_binary, of.is_large_binary, of.is_binary_view, of.is_fixed_size_binary)
    if any(check(kind) for check in binary):
        return True
    if of.is_dictionary(kind):
        return _has_bytes(kind.value_type)
    if of.is_map(kind):
        return _has_bytes(kind.item_type)
    lists = (of.is_list, of.is_large_list, of.is_fixed_size_list)
    if any(check(kind) for check in lists):
        return of.is_uint8(kind.value_type) or _has_bytes(kind.value_type)
    return of.is_struct(kind) and any(_has_bytes(field.type) for field in kind)


def _kept(cell: Any, cache: ImageCache) -> str | None:
    """What names the pictures of a cell, which the cache has from now on: a URL or path, or a list
    of them as JSON."""
    found = list(dict.fromkeys(_each_kept(cell, cache)))
    return json.dumps(found) if len(found) > 1 else next(iter(found), None)


def _each_kept(cell: Any, cache: ImageCache) -> Iterator[str]:
    if isinstance(cell, list) and cell and all(isinstance(each, int) for each in cell):
        cell = bytes(cell)
    if isinstance(cell, list):
        for each in cell:
            # An item of a map is a pair of a name and a value.
            yield from _each_kept(each[1] if isinstance(each, tuple) else each, cache)
    elif isinstance(cell, dict):
        inside = next((each for each in cell.values() if each and not isinstance(each, str)), None)
        path = next((cell[name] for name in _PATHS if isinstance(cell.get(name), str)), None)
        yield from _each_kept(inside if isinstance(inside, bytes | list) else path, cache)
    elif isinstance(cell, bytes) and cell.startswith((b"http://", b"https://")):
        yield cell.decode("utf-8", "replace")
    elif isinstance(cell, bytes) and cell:
        url = UPLOAD + content_hash(cell)
        with contextlib.suppress(ImageRejected):  # where it is fetched from, the row reports why
            cache.put(url, cell)
        yield url
    elif isinstance(cell, str) and cell:
        yield cell
