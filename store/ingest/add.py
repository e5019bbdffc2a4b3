"""`Shelf.add` from its source on: open it, read batches, hand them to `Ingest`."""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kinshelf.db.arrays import FloatArray
from kinshelf.db.errors import DuplicateId, InvalidEmbeddings
from kinshelf.db.text import clean_key
from kinshelf.store.ingest.pipeline import ENCODED_BATCH, SUPPLIED_BATCH, Ingest
from kinshelf.store.log import records
from kinshelf.store.results import AddOptions, AddReport, OnConflict, TrainingSetSummary

if TYPE_CHECKING:
    from kinshelf.db.catalog.records import RejectRecord
    from kinshelf.db.formats.remote import Fetched
    from kinshelf.db.images.download import Downloader
    from kinshelf.db.product import Product
    from kinshelf.db.sources.parts import PartsManifest
    from kinshelf.db.sources.prepare import Preparation
    from kinshelf.db.sources.readers import Opened, ReadBatch, ReadOptions
    from kinshelf.store.base import AnyShelf
    from kinshelf.store.ingest.frames import Frame

Progress = Callable[[int, AddReport], None]


def open_downloader(directory: Path, *, allow_private_hosts: bool) -> Downloader:
    """A downloader whose cache is `directory`; nothing is made there until an image comes."""
    from kinshelf.db.images.cache import ImageCache
    from kinshelf.db.images.download import Downloader

    return Downloader(ImageCache(directory), allow_private_hosts=allow_private_hosts)


@contextlib.contextmanager
def _downloader(
    shelf: AnyShelf, options: AddOptions, *, supplied: bool
) -> Iterator[Downloader | None]:
    # Making one takes longer than a change; who brings embeddings has no use for it.
    if supplied:
        yield None
        return
    private = options.allow_private_hosts
    with open_downloader(shelf.path / "images", allow_private_hosts=private) as downloader:
        yield downloader


def reading_options(options: AddOptions, *, updates: bool = False) -> ReadOptions:
    """The readers' options for `options`; `updates`: rows may be of products of the shelf."""
    from kinshelf.db.sources.readers import ReadOptions

    supplies = options.supplies_embeddings
    size = options.batch_size or (SUPPLIED_BATCH if supplies else ENCODED_BATCH)
    return ReadOptions(
        options.mapping, options.images, size, options.delimiter,
        require_content=not supplies, encoding=options.encoding, updates=updates,
        skip_rows=options.skip_rows, sheet=options.sheet, image_by_id=options.image_by_id,
    )  # fmt: skip


def read_batches(
    source: Path,
    options: AddOptions,
    opened: Opened | None = None,
    preparation: Preparation | None = None,
    *,
    updates: bool = False,
) -> Iterator[ReadBatch]:
    """The source's batches, prepared for training if wanted, with their embeddings."""
    from kinshelf.db.sources.readers import exact_rows, open_source, read_planned
    from kinshelf.store.ingest.supplied import SuppliedEmbeddings, checked_columns

    reading = reading_options(options, updates=updates)
    rows, columns = opened = opened or open_source(source, reading)
    if preparation is None:
        batches = read_planned(rows, columns, source, reading)
    else:
        batches = preparation.read(source, reading, opened)
    if not options.supplies_embeddings:
        return checked_columns(batches)
    # Text must be read to be counted: a batch that was added with the rows of others' embeddings
    # would be worse than the time that it takes.
    count = exact_rows(rows)
    supplied = SuppliedEmbeddings(options.image_embeddings, options.text_embeddings, count)
    return supplied.attach(batches)


def _take_identity(shelf: AnyShelf, parts: PartsManifest, source: Path) -> None:
    """Make sure that the shelf's encoder made the parts; one never used is known from then on."""
    from kinshelf.store.compatibility import check_parts

    check_parts(parts, source, shelf.name, shelf.manifest)
    if shelf.manifest.fingerprint is None:
        shelf.fit_dimension(**parts.identity())


def add_source(
    shelf: AnyShelf,
    source: Path | str | Frame,
    options: AddOptions | None = None,
    *,
    stop: Callable[[], bool] = lambda: False,
    progress: Progress = lambda _done, _report: None,
) -> AddReport:
    """See `kinshelf.face.Shelf.add`."""
    from kinshelf.store.ingest.frames import spooled, with_pictures

    options = options or AddOptions()
    images = shelf.path / "images"
    if isinstance(source, str):
        from kinshelf.db.formats.remote import fetched

        with (
            fetched(source, allow_private_hosts=options.allow_private_hosts) as copy,
            with_pictures(copy.path, images, options.mapping) as path,
        ):
            return _add_file(shelf, path, options, stop, progress, copy)
    if not isinstance(source, Path):
        with spooled(source, images, options.mapping) as path:
            return _add_file(shelf, path, options, stop, progress)
    with with_pictures(source, images, options.mapping) as path:
        if path != source:  # what stands beside its pictures' bytes is relative to the source
            options = replace(options, images=options.images or source.parent)
        return _add_file(shelf, path, options, stop, progress)


def _add_file(
    shelf: AnyShelf,
    source: Path,
    options: AddOptions,
    stop: Callable[[], bool],
    progress: Progress,
    copied: Fetched | None = None,
) -> AddReport:
    from kinshelf.db.sources.parts import PartsSource
    from kinshelf.db.sources.prepare import Preparation
    from kinshelf.db.sources.readers import open_source, reading_notes
    from kinshelf.db.sources.summary import Tally
    from kinshelf.store.ingest.frames import unpacked

    updates = shelf.snapshot().count > 0
    reading = reading_options(options, updates=updates)
    opened = open_source(source, reading)
    parts = opened[0].manifest if isinstance(opened[0], PartsSource) else None
    if parts is not None:
        options = replace(options, batch_size=options.batch_size or SUPPLIED_BATCH)
    training = options.training
    preparation = Preparation.of(source, reading, training, opened) if training else None
    batches = read_batches(source, options, opened, preparation, updates=updates)
    if copied is not None:
        batches = _named_as(batches, copied)
    supplied = options.supplies_embeddings or parts is not None
    with shelf.writing(), _downloader(shelf, options, supplied=supplied) as d:
        if parts is not None:
            _take_identity(shelf, parts, source)
        ingest = Ingest(shelf, options, d, stop=stop, progress=progress)
        ingest.command = f"add {source.name}"
        notes = reading_notes(opened[0]) + opened[1].notes()
        ingest.report.notes = [f"{source.name}: {note}" for note in notes]
        ingest.prepared = preparation
        tally = Tally(*opened)
        counted = unpacked(tally.counted(batches), shelf.path / "images")
        report = ingest.run(_listed(counted, ingest.report.ids) if options.list_ids else counted)
        report.notes += [f"{source.name}: {line}" for line in tally.lines()]
        report.training_set = TrainingSetSummary.of(preparation) if preparation else None
        return report


def _named_as(batches: Iterator[ReadBatch], copied: Fetched) -> Iterator[ReadBatch]:
    """Batches of a copy as those of what it is a copy of."""
    from kinshelf.db.product import pictures_of, with_pictures

    for batch in batches:
        batch.source = copied.name
        batch.rejects = [replace(reject, source=copied.name) for reject in batch.rejects]
        for place, product in enumerate(batch.products):
            moved = [copied.located(name) for name in pictures_of(product)]
            if moved != pictures_of(product):
                batch.products[place] = with_pictures(product, moved)
        yield batch


def _listed(batches: Iterator[ReadBatch], ids: set[str]) -> Iterator[ReadBatch]:
    """The batches, and the ids of their rows, of rejected ones too."""
    for batch in batches:
        ids.update(product.id for product in batch.products)
        ids.update(entry.id for entry in batch.rejects if entry.id is not None)
        yield batch


def retry_rejects(
    shelf: AnyShelf,
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


def _rejected(shelf: AnyShelf, size: int) -> Iterator[ReadBatch]:
    from kinshelf.db.sources.columns import RowFields
    from kinshelf.db.sources.readers import ReadBatch

    view = shelf.snapshot().view
    latest = {r["id"]: r for r in view.rejects() if r["record"]}
    by_source: dict[str, list[RejectRecord]] = defaultdict(list)
    for entry in latest.values():
        by_source[entry["source"]].append(entry)
    for source, entries in by_source.items():
        for start in range(0, len(entries), size):
            part = entries[start : start + size]
            # What was kept may have been changed since: try again with what the shelf has now.
            known = view.by_ids([name for r in part if (name := r["id"]) and r["kept"]])
            products = [
                known[r["id"]].product if r["id"] in known else records.product_of(r) for r in part
            ]
            row_fields: list[RowFields | None] = [RowFields.of(product) for product in products]
            yield ReadBatch(
                source, products, [r["position"] for r in part], [], row_fields=row_fields
            )


def upsert(
    shelf: AnyShelf,
    products: Sequence[Product],
    image_embeddings: FloatArray | None,
    text_embeddings: FloatArray | None,
    on_conflict: OnConflict,
    *,
    by_person: bool = False,
) -> AddReport:
    """See `Shelf.upsert`; `by_person`: what changes is a person's decision."""
    from kinshelf.db.sources.readers import ReadBatch
    from kinshelf.store.ingest.supplied import checked_columns, checked_products

    _refuse_duplicates(products)
    given = [_checked(e, len(products)) for e in (image_embeddings, text_embeddings)]
    supplied = any(e is not None for e in given)
    size = len(products) if supplied else ENCODED_BATCH
    options = AddOptions(on_conflict=on_conflict, refresh_images=False)
    batches = (
        ReadBatch(
            "upsert", list(products[i : i + size]), list(range(i, min(i + size, len(products)))),
            [], given[0], given[1],
        )
        for i in range(0, len(products), max(size, 1))
    )  # fmt: skip
    with shelf.writing(), _downloader(shelf, options, supplied=supplied) as d:
        ingest = Ingest(shelf, options, d, command="upsert", by_person=by_person)
        return ingest.run(checked_columns(checked_products(batches)))


def _refuse_duplicates(products: Sequence[Product]) -> None:
    counts = Counter(clean_key(product.id) for product in products)
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise DuplicateId(f"id {twice[0]!r} stands in the products twice: give each once")


def _checked(embeddings: FloatArray | None, rows: int) -> FloatArray | None:
    if embeddings is None:
        return None
    if embeddings.ndim != 2 or len(embeddings) != rows:
        raise InvalidEmbeddings(
            f"embeddings of shape {embeddings.shape} for {rows} products: give one row a product"
        )
    return np.asarray(embeddings, dtype=np.float32)
