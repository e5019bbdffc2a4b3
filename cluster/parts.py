"""Parts of an encoding on the disk: written once, found again, put together at the end.

The layout is described in `db.parts`. What is recorded of a part beside its products (its rejects,
its counts) stands in the Parquet file's own metadata, so that part and rejects appear together.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kinshelf.db.errors import ClusterError
from kinshelf.db.layouts.names import ATTRIBUTES, FIELDS
from kinshelf.db.sources.parts import NAME, PartEntry, PartsManifest
from kinshelf.store.ingest.candidate import Candidate
from kinshelf.store.log import disk
from kinshelf.store.maintain import export

REJECTS = "rejects.jsonl"
_KEY = b"kinshelf"
_READERS = 8


@dataclass(frozen=True, slots=True)
class PartCounts:
    """Counts of a part's rows; each is either among `products` or `rejected`."""

    name: str
    rows: int
    products: int
    image_failed: int

    @property
    def rejected(self) -> int:
        """Rows that are not in the part."""
        return self.rows - self.products


def _lacking(encoded: Sequence[Candidate]) -> set[str]:
    """The columns that no row has: what is on a shelf must stay where the source has none."""
    if any(c.row_fields is None for c in encoded):
        return set()
    fields = {name for c in encoded if c.row_fields for name in c.row_fields.fields}
    lacking = {name for name in FIELDS[1:] if name not in fields}
    if not any(c.product.attributes for c in encoded):
        lacking.add(ATTRIBUTES)
    if "image" in lacking:
        lacking.add("image_embedding")
    if not fields & {"title", "description"}:
        lacking.add("text_embedding")
    return lacking


def part_bytes(
    encoded: Sequence[Candidate], counts: PartCounts, fingerprint: str, rejects: Iterable[Any]
) -> bytes:
    """A part as Parquet: the products that were encoded, and the part's summary."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    summary = {
        **asdict(counts),
        "fingerprint": fingerprint,
        "rejects": [asdict(r) for r in rejects],
    }
    table = export.columns(
        [c.product for c in encoded], [c.image for c in encoded], [c.text for c in encoded]
    )
    table = {name: values for name, values in table.items() if name not in _lacking(encoded)}
    whole = export.schema()
    layout = pa.schema([whole.field(name) for name in whole.names if name in table])
    layout = layout.with_metadata({_KEY: json.dumps(summary).encode()})
    stream = pa.BufferOutputStream()
    with pq.ParquetWriter(stream, layout, compression="zstd") as writer:
        writer.write_table(pa.table(table, schema=layout))
    return bytes(stream.getvalue())


def write_once(path: Path, data: bytes) -> None:
    """Put a file at `path`, whole and on the disk, unless it is there already.

    Two that write the same at once leave one file. Raises OSError.
    """
    if path.exists():
        return
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        disk.write_synced(temporary, data, 0)
        disk.rename(temporary, path)
    finally:
        disk.unlink(temporary)


def read_summary(path: Path) -> dict[str, Any]:
    """Read a part's summary. Raises ClusterError for a damaged one."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        summary: dict[str, Any] = json.loads(pq.read_schema(path).metadata[_KEY])
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as problem:
        raise ClusterError(
            f"{path} is damaged ({problem}): delete it and run the same command again"
        ) from problem
    return summary


def begin(directory: Path, wanted: PartsManifest) -> None:
    """Make the folder, or take up what was begun in it. Raises ClusterError if that differs."""
    disk.make_directory(directory)
    if (directory / NAME).is_file():
        _check_same(directory, PartsManifest.read(directory), wanted)
    elif any(not entry.name.startswith(".") for entry in directory.iterdir()):
        raise ClusterError(f"{directory} is not empty and holds no encoding: choose another folder")
    else:
        disk.replace(directory / NAME, wanted.dump())


def _check_same(directory: Path, found: PartsManifest, wanted: PartsManifest) -> None:
    for name in ("source", "fingerprint", "part_rows"):
        before, now = getattr(found, name), getattr(wanted, name)
        if before != now:
            raise ClusterError(
                f"{directory} holds an encoding with {name} {before!r}, not {now!r}: choose"
                " another folder, or encode as it was begun"
            )


def finish(directory: Path, manifest: PartsManifest, names: Sequence[str]) -> PartsManifest:
    """Write the rejects and the manifest of a folder whose parts are all there.

    Parts of rows that the source no longer has are removed. Raises ClusterError or OSError.
    """
    temporary = directory / f".{REJECTS}.tmp"
    entries, counts = [], PartCounts("", 0, 0, 0)
    with temporary.open("w", encoding="utf-8", errors="surrogatepass") as file:
        for name, summary in _all_summaries(directory, names):
            file.writelines(json.dumps(r, ensure_ascii=False) + "\n" for r in summary["rejects"])
            size = (directory / name).stat().st_size
            entries.append(PartEntry(name, summary["products"], size))
            counts = _sum(counts, summary)
    disk.sync_file(temporary)
    disk.rename(temporary, directory / REJECTS)
    done = manifest.replace(
        finished=True, rows=counts.rows, products=counts.products, rejected=counts.rejected,
        image_failed=counts.image_failed, parts=tuple(entries),
    )  # fmt: skip
    disk.replace(directory / NAME, done.dump())
    _sweep(directory, names)
    return done


def _all_summaries(directory: Path, names: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    with ThreadPoolExecutor(_READERS, "kinshelf-parts") as pool:
        yield from zip(names, pool.map(lambda n: read_summary(directory / n), names), strict=True)


def _sum(counts: PartCounts, summary: dict[str, Any]) -> PartCounts:
    whole = {
        name: value + summary[name] for name, value in asdict(counts).items() if name != "name"
    }
    return PartCounts("", **whole)


def _sweep(directory: Path, names: Sequence[str]) -> None:
    kept = set(names)
    for entry in os.scandir(directory):
        stale = entry.name.startswith("part-") and entry.name not in kept
        if stale or (entry.name.startswith(".part-") and entry.name.endswith(".tmp")):
            disk.unlink(Path(entry.path))
