"""A shelf with every verb: what `import kinshelf as ks` gives as `ks.Shelf`.

`store` knows how products are kept and `probe` how they are judged; a user looks for both on the
shelf. Each method here calls one function of theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from kinshelf.store.base import AnyShelf
from kinshelf.store.engines.shelf import EngineShelf
from kinshelf.store.shelf import DirectoryShelf

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

    from kinshelf.db.arrays import FloatArray
    from kinshelf.db.product import Product
    from kinshelf.probe.audit.audit import Audit
    from kinshelf.probe.evaluate.held_out import Evaluation
    from kinshelf.probe.fill.answers import StoredAnswers
    from kinshelf.probe.fit.settings import ProbeSettings
    from kinshelf.probe.predict.prediction import Prediction
    from kinshelf.probe.train import TrainReport
    from kinshelf.store.encode.encoder import Encoder
    from kinshelf.store.feeds.prune import Prune, PruneReport
    from kinshelf.store.ingest.frames import Frame
    from kinshelf.store.operations.diff import Change
    from kinshelf.store.operations.undo import UndoReport
    from kinshelf.store.query import Query, QueryFields
    from kinshelf.store.results import (
        AddOptions,
        AddReport,
        CompactReport,
        OnConflict,
        Rows,
        SearchResult,
    )


class Shelf(AnyShelf):
    """A handle on a shelf, in a directory or on an engine; use it in a `with` statement.

    >>> import kinshelf as ks
    >>> with ks.create(f"{tmp}/toys.shelf") as shelf:
    ...     shelf.generation
    0
    """

    @staticmethod
    def open(address: Path | str, *, wait: float = 0.0, encoder: Encoder | None = None) -> Shelf:
        """Open a shelf by its directory or its address on an engine.

        `wait` is how many seconds a write may wait for another writer; `encoder` is one that is
        loaded already. Raises ShelfNotFound, ShelfDamaged, UnsupportedFormat, EncoderMismatch, and
        for an address InputError, EngineUnavailable or EngineRefused.
        """
        from kinshelf.store.engines.open import open_shelf

        kinds = (_InDirectory, _OnEngine)
        shelf = open_shelf(address, wait=wait, encoder=encoder, kinds=kinds)
        assert isinstance(shelf, Shelf)
        return shelf

    @staticmethod
    def create(
        address: Path | str,
        *,
        encoder: str | None = None,
        revision: str | None = None,
        precision: str | None = None,
        pictures: str | None = None,
    ) -> Shelf:
        """Make an empty shelf and open it; the encoder is loaded only when it is first needed.

        `encoder` is a hub id or a local directory; None is `openai/clip-vit-base-patch32`.
        `precision` is a class of store/encode/precision.py; None is the best of the machine where
        the encoder is first used. `pictures` "mean" (the default) embeds all pictures of a product
        and keeps their normalised mean, "first" the first alone. Raises ShelfExists,
        EncoderUnavailable for no such precision, InputError for no such pooling.
        """
        from kinshelf.store.engines.open import create_shelf

        create_shelf(
            address, encoder=encoder, revision=revision, precision=precision, pictures=pictures
        ).close()
        return Shelf.open(address)

    # ---- products in and out

    def add(
        self,
        source: Path | str | Frame,
        options: AddOptions | None = None,
        *,
        stop: Callable[[], bool] = lambda: False,
        progress: Callable[[int, AddReport], None] = lambda _done, _report: None,
    ) -> AddReport:
        """Upsert the products of a file, a folder or a frame by id; see `AddOptions`.

        A frame is anything with `__arrow_c_stream__`: pandas, polars, Arrow, DuckDB, `datasets`.
        Its columns are those of a file; pictures may stand in it as bytes.

        Commits a batch at a time; `stop` is asked after each. Raises InputError subclasses for a
        source that cannot be read at all; a bad row is counted in the report and nothing is lost.
        """
        from kinshelf.store.ingest.add import add_source

        place = Path(source) if isinstance(source, str) else source
        return add_source(self, place, options, stop=stop, progress=progress)

    def upsert(
        self,
        products: Sequence[Product],
        image_embeddings: FloatArray | None = None,
        text_embeddings: FloatArray | None = None,
        *,
        on_conflict: OnConflict = "update",
    ) -> AddReport:
        """Insert products, or replace them by id, as one change if embeddings come with them.

        A product is taken whole: a field without a value is emptied. What a person decided stays
        where the product states what its source stated before.

        Embeddings are (len(products), dimension) float, row i that of product i, a row of zeros
        for a missing modality; without any, the shelf's encoder makes them, a batch at a time.
        Raises InvalidEmbeddings for arrays that do not fit; a bad row is a reject in the report.
        """
        from kinshelf.store.ingest.add import upsert

        return upsert(self, products, image_embeddings, text_embeddings, on_conflict)

    def retry_rejects(
        self,
        options: AddOptions | None = None,
        *,
        stop: Callable[[], bool] = lambda: False,
        progress: Callable[[int, AddReport], None] = lambda _done, _report: None,
    ) -> AddReport:
        """Try again every product that was rejected, or kept without its picture."""
        from kinshelf.store.ingest.add import retry_rejects

        return retry_rejects(self, options, stop=stop, progress=progress)

    def remove(self, ids: Sequence[str]) -> int:
        """Remove products; all or, if an id is not there (ProductNotFound), none."""
        from kinshelf.store.ingest import edit

        return edit.remove(self, ids)

    def prune(
        self,
        kept: Collection[str],
        *,
        how: Prune = "mark",
        limit: float = 0.05,
        where: str | None = None,
    ) -> PruneReport:
        """Mark products as `gone`, or remove them, that are not among the ids `kept` of a feed.

        Nothing is done where more than `limit` of those that match `where` would go: see the
        report. `add(..., AddOptions(list_ids=True))` gives a source's ids.
        """
        from kinshelf.store.feeds.prune import prune

        return prune(self, kept, how=how, limit=limit, where=where)

    def relabel(self, changes: Mapping[str, str | None]) -> int:
        """Give products other categories, as one change; returns how many had another.

        All or, if an id is not there (ProductNotFound), none. Nothing is encoded.
        """
        from kinshelf.store.ingest import edit

        return edit.relabel(self, changes)

    def operations(self, limit: int | None = None) -> Rows:
        """What was done, a command at a time, newest first: see `kinshelf history`."""
        from kinshelf.store.operations.history import operations

        return operations(self, limit)

    def diff(self, before: int, after: int | None = None) -> Iterator[Change]:
        """The products added, removed and changed between two generations, `after` None: the
        newest. Raises GenerationNotFound or InputError."""
        from kinshelf.store.operations.diff import differences

        return differences(self, before, after)

    def undo(self, operation: int | None = None) -> UndoReport:
        """Take back an operation, None: the newest, as a new one; an undo can be taken back too.

        Fields that later operations changed are left, and listed in the report. Raises InputError
        or GenerationNotFound.
        """
        from kinshelf.store.operations.undo import undo

        return undo(self, operation)

    def export(self, path: Path | str, *, where: str | None = None) -> int:
        """Write products to `.parquet` (with embeddings), `.csv`, `.tsv` or `.jsonl`."""
        from kinshelf.store.maintain.export import export

        return export(self.snapshot(), Path(path), where)

    def compact(self, keep: int = 1) -> CompactReport:
        """Give back the space of all but the newest `keep` generations; rows get new numbers.

        Cached pictures that no product of these has go too, but for those of the last hour. Can be
        killed anywhere; readers go on meanwhile. Raises InputError or ShelfError.
        """
        from kinshelf.store.maintain.compact import compact

        return compact(self, keep)

    # ---- answers

    def similar(self, query: Query | None = None, /, **fields: Unpack[QueryFields]) -> SearchResult:
        """The k products nearest to a stored product, a picture, a text or both, or to examples.

        Takes a `Query`, or its fields as keywords: `similar(id="T1", k=5)`. The stored product
        itself is left out. Similarity is
        `weight_image * image cosine + (1 - weight_image) * text cosine`, over what query and
        product both have. A text or picture alone is compared with pictures and texts: see
        `Query.against`.
        Raises GenerationNotFound, ProductNotFound, FilterError, EmptyShelf, ImageRejected,
        InputError or EncoderError.
        """
        from kinshelf.store.similar.search import similar

        return similar(self, query, **fields)

    def classify(
        self,
        *,
        image: str | bytes | None = None,
        text: str | None = None,
        k: int | None = None,
        where: str | None = None,
    ) -> Prediction:
        """The category of a picture, a text or both, with its evidence; see `ks.classify`."""
        from kinshelf.probe.predict.predictor import classify

        return classify(self, image=image, text=text, k=k, where=where)

    def classify_all(self, source: Path | str | Frame, options: AddOptions | None = None) -> Rows:
        """The answer to every product of a source, as one row each; nothing is stored.

        Columns: `id`, `title`, then those of `classify --json`. Rows that cannot be used are left
        out; `kinshelf classify --input` reports them.
        """
        from kinshelf.probe.predict.predictor import classify_source
        from kinshelf.store.ingest.frames import opened
        from kinshelf.store.results import AddOptions, Rows

        options = options or AddOptions()
        found = Rows()
        with opened(source, options) as path:
            for batch, answers in classify_source(self, path, options):
                for product, answer in zip(batch.products, answers, strict=True):
                    found.append({"id": product.id, "title": product.title, **answer.as_dict()})
        return found

    def classify_stored(
        self, where: str | None = None, *, probe: int | None = None, include_predicted: bool = False
    ) -> StoredAnswers:
        """The answers to products on the shelf, from their stored vectors; nothing is encoded.

        Iterate over them, or take `to_pandas()`, or `run(file=..., apply=True)`, which writes the
        accepted categories as one operation that `undo` takes back. See
        `kinshelf.probe.fill.answers.classify_stored`.
        """
        from kinshelf.probe.fill.answers import classify_stored

        return classify_stored(self, where, probe=probe, include_predicted=include_predicted)

    def suggest(self, n: int = 50, where: str | None = None) -> Rows:
        """The products whose labels would teach most, uncertain and spread out, as one row each."""
        from kinshelf.probe.fill.suggest import suggest

        return suggest(self, n, where)

    def train(self, settings: ProbeSettings | None = None) -> TrainReport:
        """Train and calibrate a probe from the categorised products; see `ks.train`."""
        from kinshelf.probe.train import train_shelf

        return train_shelf(self, settings)

    def evaluate(self, *, split: str = "val") -> Evaluation:
        """Probe, neighbours and hybrid side by side on products held out; see `ks.evaluate`."""
        from kinshelf.probe.evaluate.held_out import evaluate_shelf

        return evaluate_shelf(self, split=split)

    def audit(self) -> Audit:
        """Wrong labels, duplicates, outliers and conflicts, ranked; see `ks.audit`."""
        from kinshelf.probe.audit.audit import audit_shelf

        return audit_shelf(self)

    def facets(self, *columns: str, where: str | None = None) -> dict[str, list[dict[str, Any]]]:
        """How many products that match have each value of some columns or attributes; numbers by
        bands. The counts of a column sum to the number of those products. Raises FilterError.

        >>> facet = shelf.facets("category")["category"]
        >>> sum(entry["count"] for entry in facet) == shelf.snapshot().count
        True
        """
        return self.snapshot().facets(columns, where)

    def products(
        self, where: str | None = None, *, search: str | None = None, limit: int | None = None
    ) -> Rows:
        """The products that match, in the order they were added, as plain dicts.

        With `search`, such as "bear -brown", those that have all its words, the best first.

        Raises FilterError.
        """
        from kinshelf.store.results import Rows
        from kinshelf.store.similar.listing import products

        found = products(self.snapshot(), where, search=search, limit=limit)
        return Rows(each.as_dict() for each in found.products)

    def to_pandas(
        self,
        where: str | None = None,
        columns: Sequence[str] | None = None,
        *,
        embeddings: bool = False,
    ) -> pd.DataFrame:
        """The products that match as a pandas.DataFrame; attributes become columns of their own.

        `columns` names those that are given; with `embeddings` each embedding is an array of
        float32, None where the product lacks it. Raises FilterError or UnknownColumn.
        """
        from kinshelf.store.results import Rows

        if columns is not None or embeddings:
            return self.to_arrow(where, columns, embeddings=embeddings).to_pandas()
        rows = self.products(where)
        return Rows({**row.pop("attributes"), **row} for row in rows).to_pandas()

    def to_arrow(
        self,
        where: str | None = None,
        columns: Sequence[str] | None = None,
        *,
        embeddings: bool = False,
    ) -> pa.Table:
        """The products that match as an Arrow table; `add` of it gives the same products.

        `datasets.Dataset(table)` and DuckDB take it as it is. Raises FilterError or UnknownColumn.
        """
        from kinshelf.store.maintain.frames import table

        return table(self.snapshot(), where, columns, embeddings=embeddings)

    def to_polars(
        self,
        where: str | None = None,
        columns: Sequence[str] | None = None,
        *,
        embeddings: bool = False,
    ) -> pl.DataFrame:
        """As `to_arrow`, as a polars.DataFrame over the same memory. Raises InputError where polars
        is not installed."""
        try:
            import polars as pl
        except ImportError:
            from kinshelf.db.errors import InputError

            raise InputError("polars is not installed: pip install polars") from None
        found = pl.from_arrow(self.to_arrow(where, columns, embeddings=embeddings))
        assert isinstance(found, pl.DataFrame)
        return found


class _InDirectory(Shelf, DirectoryShelf):
    """A shelf in a directory."""


class _OnEngine(Shelf, EngineShelf):
    """A shelf in a database."""


open = Shelf.open  # noqa: A001 - the name that users look for
create = Shelf.create
