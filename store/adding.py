"""`Shelf.add` from its source on: open it, read batches, hand them to `Ingest`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kinshelf.store import records
from kinshelf.store.ingest import BROUGHT_BATCH, ENCODED_BATCH, Ingest
from kinshelf.store.report import AddOptions, AddReport

if TYPE_CHECKING:
    from kinshelf.db.download import Downloader
    from kinshelf.db.readers import ReadBatch
    from kinshelf.store.shelf import Shelf

Progress = Callable[[int, AddReport], None]


def open_downloader(directory: Path, *, allow_private_hosts: bool) -> Downloader:
    """A downloader whose cache is `directory`; nothing is made there until an image comes."""
    from kinshelf.db.download import Downloader
    from kinshelf.db.image_cache import ImageCache

    return Downloader(ImageCache(directory), allow_private_hosts=allow_private_hosts)


def read_batches(source: Path, options: AddOptions) -> Iterator[ReadBatch]:
    """The source's batches, with the embeddings that the options name attached."""
    from kinshelf.db.readers import ReadOptions, open_source, read_source

    brings = options.brings_embeddings
    size = options.batch_size or (BROUGHT_BATCH if brings else ENCODED_BATCH)
    reading = ReadOptions(
        options.mapping, options.images, size, options.delimiter, require_content=not brings
    )
    if options.training is not None:
        from kinshelf.db.prepare import prepare

        batches = prepare(source, reading, options.training)
    else:
        batches = read_source(source, reading)
    from kinshelf.store.brought import BroughtEmbeddings, checked_columns

    if not brings:
        return checked_columns(batches)
    rows = sum(1 for _ in open_source(source, reading)[0].rows(()))
    brought = BroughtEmbeddings(options.image_embeddings, options.text_embeddings, rows)
    return brought.attach(batches)


def add_source(
    shelf: Shelf,
    source: Path,
    options: AddOptions | None = None,
    *,
    stop: Callable[[], bool],
    progress: Progress,
) -> AddReport:
    """See `Shelf.add`."""
    options = options or AddOptions()
    batches = read_batches(source, options)
    private = options.allow_private_hosts
    with shelf.writing(), open_downloader(shelf.path / "images", allow_private_hosts=private) as d:
        ingest = Ingest(shelf, options, d, stop=stop, progress=progress)
        ingest.command = f"add {source.name}"
        return ingest.run(batches)


def retry_rejects(
    shelf: Shelf,
    options: AddOptions | None = None,
    *,
    stop: Callable[[], bool],
    progress: Progress,
) -> AddReport:
    """Try again every product that was rejected, or kept without its picture."""
    options = options or AddOptions()
    private = options.allow_private_hosts
    with shelf.writing(), open_downloader(shelf.path / "images", allow_private_hosts=private) as d:
        ingest = Ingest(shelf, options, d, retry=True, stop=stop, progress=progress)
        ingest.command = "add --retry-rejects"
        return ingest.run(_rejected(shelf, options.batch_size or ENCODED_BATCH))


def _rejected(shelf: Shelf, size: int) -> Iterator[ReadBatch]:
    from kinshelf.db.readers import ReadBatch

    view = shelf.snapshot().view
    latest = {r["id"]: r for r in view.rejects() if r["record"]}
    by_source: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for entry in latest.values():
        by_source[entry["source"]].append(entry)
    for source, entries in by_source.items():
        for start in range(0, len(entries), size):
            part = entries[start : start + size]
            # What was kept may have been changed since: try again with what the shelf has now.
            known = view.by_ids([r["id"] for r in part])
            products = [
                known[r["id"]].product if r["id"] in known else records.product_of(r["record"])
                for r in part
            ]
            yield ReadBatch(source, products, [r["position"] for r in part], [])
