"""The interface of one generation of a shelf that commands and probes use.

`Snapshot` has them in a directory, `cluster.engine_snapshot.EngineSnapshot` in a database.
What both share is defined here, once.
"""

from __future__ import annotations

import copy
import functools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np

from kinshelf.db.arrays import FloatArray, IntArray, ObjectArray
from kinshelf.db.errors import EmptyShelf, InvalidEmbeddings, ProductNotFound
from kinshelf.store.search import fusion
from kinshelf.store.search.neighbours import nearest_of

if TYPE_CHECKING:
    from kinshelf.db.catalog.facets import FacetList, Value
    from kinshelf.db.catalog.queries import View
    from kinshelf.db.catalog.records import CommitRecord, ProbeRecord, RejectRecord
    from kinshelf.db.catalog.tables import Catalog
    from kinshelf.db.filters.compiler import Filter
    from kinshelf.db.filters.names import Name
    from kinshelf.db.product import StoredProduct
    from kinshelf.store.search.neighbours import Neighbours

BLOCK = 4096
_HALVES = {"has_text": 1, "has_image": 0}
"""Which half of an embedding pair it is that a product may lack."""


class AnyView(Protocol):
    """Questions to the metadata of one generation; `db.catalog.queries.View` documents each."""

    catalog: Catalog
    generation: int

    def tabled(
        self, where: Filter | None, limit: int | None = None
    ) -> AbstractContextManager[View]:
        """See `View`."""

    def count(self, where: Filter | None = None) -> int:
        """See `View`."""

    def rows(self, where: Filter | None = None) -> IntArray:
        """See `View`."""

    def select(
        self, where: Filter | None = None, *, limit: int | None = None, offset: int = 0
    ) -> list[StoredProduct]:
        """See `View`."""

    def by_rows(self, rows: Sequence[int] | IntArray) -> dict[int, StoredProduct]:
        """See `View`."""

    def written_after(self, row: int) -> Iterator[list[tuple[Any, ...]]]:
        """See `View`."""

    def any_lack(self, modality: str) -> bool:
        """See `View`."""

    def decided(self) -> list[StoredProduct]:
        """See `View`."""

    def by_ids(self, ids: Sequence[str]) -> dict[str, StoredProduct]:
        """See `View`."""

    def versions(self, product_id: str) -> list[StoredProduct]:
        """See `View`."""

    def near_ids(self, product_id: str, limit: int = 3) -> list[str]:
        """See `View`."""

    def labelled(
        self, split: str | None = None, *, predicted: bool = False
    ) -> tuple[IntArray, ObjectArray]:
        """See `View`."""

    def categories(self) -> dict[str | None, int]:
        """See `View`."""

    def totals(self) -> dict[str, int]:
        """See `View`."""

    def attribute_types(self) -> dict[str, str]:
        """See `View`."""

    def changes_since(self, generation: int) -> list[tuple[int, str | None, bool, str | None]]:
        """See `View`."""

    def changed_in(self, generation: int, kind: str) -> dict[str, int]:
        """See `View`."""

    def replaced_since(self, generation: int) -> tuple[IntArray, IntArray]:
        """See `View`."""

    def removed_since(self, generation: int) -> int:
        """See `View`."""

    def commits(self, limit: int | None = None) -> list[CommitRecord]:
        """See `View`."""

    def rejects(self, *, kept: bool | None = None) -> list[RejectRecord]:
        """See `View`."""

    def probes(self) -> list[ProbeRecord]:
        """See `View`."""


@dataclass(frozen=True, slots=True, eq=False)
class ProductBlock:
    """Some products by row, and their embedding pairs, (n, 2 * dimension) float32, a copy."""

    products: list[StoredProduct]
    pairs: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class VectorBlock:
    """Rows (n,) int64 ascending, their ids, categories and splits (n,), and their embedding pairs,
    (n, 2 * dimension) float32."""

    rows: IntArray
    ids: list[str]
    categories: list[str | None]
    splits: list[str | None]
    pairs: FloatArray

    @classmethod
    def of(cls, block: ProductBlock, *, predicted: bool = False) -> Self:
        """Gather the training data of some products; a category that a probe predicted is none,
        unless `predicted`."""
        products = [stored.product for stored in block.products]
        return cls(
            np.array([stored.row for stored in block.products], dtype=np.int64),
            [product.id for product in products],
            [s.product.category if predicted else s.label for s in block.products],
            [product.split for product in products],
            block.pairs,
        )


@dataclass(frozen=True, slots=True)
class Among:
    """The products that a search covers: a filter, rows left out, with a category, rows to choose
    from, and a second filter."""

    where: str | None
    exclude: tuple[int, ...]
    labelled_only: bool
    rows: IntArray | None
    also: str | None = None


class AnySnapshot(ABC):
    """A shelf as of one generation: what every answer is computed from. It never changes."""

    generation: int
    fingerprint: str
    view: AnyView
    include_predicted = False
    """Whether categories that a probe predicted count as labels."""

    def with_predicted(self) -> Self:
        """The same generation, where predicted categories count as labels: they train and vote."""
        other = copy.copy(self)
        other.include_predicted = True
        other.__dict__.pop("_labelled", None)
        return other

    @property
    @abstractmethod
    def count(self) -> int:
        """The number of products."""

    @property
    @abstractmethod
    def dimension(self) -> int:
        """The dimension of one modality."""

    @abstractmethod
    def pairs(self, rows: IntArray | Sequence[int]) -> FloatArray:
        """Unit image and text embeddings as stored, (len(rows), 2 * dimension) float32, a copy."""

    def kneighbors(
        self,
        queries: FloatArray,
        k: int,
        *,
        where: str | None = None,
        labelled_only: bool = False,
        among: IntArray | None = None,
        exclude: Sequence[int] = (),
        weight_image: float = 0.5,
    ) -> Neighbours:
        """The k products nearest to each query, by the modalities that both have.

        `queries` are embedding pairs as stored, (n, 2 * dimension) float32: image and text side by
        side, each of norm 1 or all 0, not fused (only `Shelf.search` checks it). `labelled_only`
        leaves out products without a category, `among` names the rows to choose from, `exclude`
        those to leave out. Fewer than k come back only if fewer match. Raises FilterError,
        EmptyShelf, InvalidEmbeddings, or InputError: nothing of a query has any weight.
        """
        self._check_queries(queries)
        fusion.Weighting(weight_image).check(queries)
        among_them = Among(where, tuple(exclude), labelled_only, among)
        k = min(k, self.count)
        found = [self._nearest(queries, k, among_them, weight_image)]
        if 0 < weight_image < 1:
            found += self._nearest_that_lack_one(queries, k, among_them, weight_image, found[0])
        # That 0 ranks them before whole products only among those unlike the query.
        if len(found) > 1 and (found[0].similarities[found[0].rows >= 0] < 0).any():
            whole = replace(among_them, also="has_image AND has_text")
            found.append(self._nearest(queries, k, whole, weight_image))
        return nearest_of(found, k)

    def _nearest_that_lack_one(
        self, queries: FloatArray, k: int, among: Among, weight_image: float, found: Neighbours
    ) -> Iterator[Neighbours]:
        """Those of products that lack a modality of the query, where they may be among the nearest.

        The inner product that the search ranks by counts 0 for what a product lacks, so they are
        searched for by the other modality alone.
        """
        lacked = [modality for modality in _HALVES if self._any_lack(modality)]
        both = np.all([half.any(axis=1) for half in fusion.split(queries)], axis=0) if lacked else 0
        for modality in lacked if np.any(both) else ():
            alone, lacking = queries.copy(), f"NOT {modality}"
            fusion.split(alone)[_HALVES[modality]][both] = 0
            if self._may_come_among(found, alone, lacking):
                yield self._nearest(alone, k, replace(among, also=lacking), weight_image)

    @abstractmethod
    def _nearest(
        self, queries: FloatArray, k: int, among: Among, weight_image: float
    ) -> Neighbours:
        """The k nearest, ranked by the weighted sum of the cosines."""

    def _any_lack(self, lacking: str) -> bool:
        """Whether a product may lack "has_text" or "has_image"."""
        if lacking not in self._lacking:
            self._lacking[lacking] = self.view.any_lack(lacking)
        return self._lacking[lacking]

    def _may_come_among(self, found: Neighbours, alone: FloatArray, lacking: str) -> bool:
        """Whether a product that lacks a modality may be nearer than what was found, by the other
        one alone. True where finding out costs as much as searching for them."""
        return True

    @functools.cached_property
    def _lacking(self) -> dict[str, bool]:
        return {}

    def _check_queries(self, queries: FloatArray) -> None:
        if not self.count:
            raise EmptyShelf("the shelf holds no products: add some with `kinshelf add SOURCE`")
        if queries.shape[1] != 2 * self.dimension:
            raise InvalidEmbeddings(
                f"the query has embeddings of dimension {queries.shape[1] // 2}, the shelf of"
                f" {self.dimension}: use the encoder that the shelf was built with"
            )

    def fused(self, rows: IntArray | Sequence[int]) -> FloatArray:
        """Fused embeddings, (len(rows), 2 * dimension) float32."""
        return fusion.fused(self.pairs(rows))

    def labelled(self, split: str | None = None) -> tuple[IntArray, ObjectArray]:
        """Rows that have a category, and the categories; of one split if named.

        Those that a probe predicted are left out (see `with_predicted`).
        """
        return self.view.labelled(split, predicted=self.include_predicted)

    def filter(self, where: str | None) -> Filter | None:
        """A user's expression, checked; raises FilterError."""
        if where is None:
            return None
        from kinshelf.db.catalog.queries import FILTER_COLUMNS
        from kinshelf.db.filters.filter import compile_where

        return compile_where(where, FILTER_COLUMNS, self.view.attribute_types(), folds=True)

    def facets(
        self, columns: Sequence[str], where: str | None = None, *, rows: IntArray | None = None
    ) -> dict[str, FacetList]:
        """How many products that match, or are in some rows, have each value of some columns or
        attributes; the counts of each sum to the number of those products. Raises FilterError."""
        if not columns:
            return {}
        from kinshelf.db.catalog.facets import MOST, count_facets, facets_of

        if rows is None:
            found = count_facets(self.view, columns, self.filter(where), limit=MOST)
        else:
            names = [self._named(column) for column in dict.fromkeys(columns)]
            found = facets_of(names, list(self.view.by_rows(rows).values()), MOST)
        return found.as_lists()

    def value_of(self, column: str) -> Value:
        """How a column or attribute is read off a stored product. Raises FilterError."""
        from kinshelf.db.catalog.facets import value_of

        return value_of(self._named(column))

    def _named(self, column: str) -> Name:
        from kinshelf.db.catalog.queries import FILTER_COLUMNS
        from kinshelf.db.filters.names import Names

        return Names(FILTER_COLUMNS, self.view.attribute_types()).find(column)

    def get(self, product_id: str) -> StoredProduct:
        """The product of an id. Raises ProductNotFound, naming ids that look like it."""
        found = self.view.by_ids([product_id])
        if product_id not in found:
            near = self.view.near_ids(product_id)
            hint = f"; did you mean {', '.join(near)}?" if near else ""
            empty = "" if self.count else ": the shelf is empty"
            raise ProductNotFound(f"no product has the id {product_id!r}{hint}{empty}")
        return found[product_id]

    def rows(self, where: str | None = None) -> IntArray:
        """Row numbers of the products that match, ascending, (n,) int64. Raises FilterError."""
        return self.view.rows(self.filter(where))

    @abstractmethod
    def sample(self, count: int) -> IntArray:
        """Rows of at most so many products, evenly spaced and always the same, (n,) int64."""

    def select(
        self, where: str | None = None, *, limit: int | None = None, offset: int = 0
    ) -> list[StoredProduct]:
        """Products that match, in the order they were added. Raises FilterError."""
        return self.view.select(self.filter(where), limit=limit, offset=offset)

    def iter_products(
        self, where: str | None = None, *, after: int = -1, size: int = BLOCK
    ) -> Iterator[ProductBlock]:
        """The products that match with their vectors, by row, those past `after`; blocks of at
        most `size`. Raises FilterError."""
        rows = self.view.rows(self.filter(where))
        rows = rows[rows > after]
        for start in range(0, len(rows), size):
            block = rows[start : start + size]
            found = self.view.by_rows(block)
            yield ProductBlock([found[int(row)] for row in block], self.pairs(block))

    def iter_vectors(self, where: str | None = None, *, size: int = BLOCK) -> Iterator[VectorBlock]:
        """Vectors, categories and splits of the products that match, by row, at most `size` rows
        at a time: memory does not grow with the shelf. Raises FilterError."""
        of = functools.partial(VectorBlock.of, predicted=self.include_predicted)
        return map(of, self.iter_products(where, size=size))
