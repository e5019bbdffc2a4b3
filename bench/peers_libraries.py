"""Libraries that hold vectors alone: their metadata lies in arrays beside them."""

from __future__ import annotations

from typing import Any

import numpy as np
from peers_base import (
    CORES,
    Filter,
    FloatArray,
    IntArray,
    Peer,
    Rows,
    Setting,
    Unsupported,
    written,
)

STEPS = (10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)


class Library(Peer):
    """An index in memory, written whole after each change, and columns of metadata."""

    index: Any

    def columns(self, rows: Rows) -> None:
        """Take the metadata of rows that come after all others."""
        new = {"category": rows.categories, "brand": rows.brands, "price": rows.prices}
        old = getattr(self, "metadata", {})
        self.metadata = {
            name: np.concatenate([old[name], column]) if old else np.asarray(column)
            for name, column in new.items()
        }

    def save(self) -> None:
        """Everything, durably."""
        self.write()
        with (self.directory / "columns.npz").open("wb") as file:
            np.savez(file, **self.metadata)  # type: ignore[arg-type]
        written(self.directory / "columns.npz")
        written(self.directory / "index")

    def write(self) -> None:
        """The index to its file."""
        raise NotImplementedError

    def open(self) -> None:
        self.read()
        with np.load(self.directory / "columns.npz") as columns:
            self.metadata = {name: columns[name] for name in columns.files}

    def read(self) -> None:
        """The index from its file."""
        raise NotImplementedError

    def keep(self, where: Filter) -> Any:
        """One flag a row."""
        column = self.metadata[where.column]
        return column == where.value if isinstance(where.value, str) else column < where.value

    def add(self, rows: Rows) -> None:
        self.append(rows)
        self.columns(rows)
        self.save()

    def append(self, rows: Rows) -> None:
        """The vectors into the index."""
        raise NotImplementedError


class FaissFlat(Library):
    """Every row is scored."""

    name, package = "FAISS flat", "faiss-cpu"

    def create(self, width: int) -> None:
        import faiss

        self.index = faiss.IndexIDMap2(faiss.IndexFlatIP(width))

    def append(self, rows: Rows) -> None:
        self.index.add_with_ids(rows.vectors, rows.ids)

    def write(self) -> None:
        import faiss

        faiss.write_index(self.index, str(self.directory / "index"))

    def read(self) -> None:
        import faiss

        self.faiss = faiss
        self.index = faiss.read_index(str(self.directory / "index"))

    def parameters(self, where: Filter | None) -> Any:
        """How to search."""
        return None if where is None else self.faiss.SearchParameters(sel=self.selector(where))

    def selector(self, where: Filter) -> Any:
        """A bitmap of the rows that match."""
        self.bits = np.packbits(self.keep(where), bitorder="little")
        return self.faiss.IDSelectorBitmap(self.bits)

    def search(self, query: FloatArray, k: int, where: Filter | None = None) -> list[int]:
        self.faiss.omp_set_num_threads(1)
        found = self.index.search(query[None], k, params=self.parameters(where))[1][0]
        return [place for place in found.tolist() if place >= 0]

    def batch(self, queries: FloatArray, k: int) -> list[list[int]]:
        self.faiss.omp_set_num_threads(CORES)
        found: list[list[int]] = self.index.search(queries, k, params=self.parameters(None))[
            1
        ].tolist()
        return found

    def delete(self, ids: IntArray) -> None:
        self.index.remove_ids(ids)
        self.save()


class FaissHnsw(FaissFlat):
    """Its graph of 32 links; the filter works inside the search of the graph."""

    name = "FAISS HNSW32"
    settings = tuple({"efSearch": steps} for steps in STEPS)

    def create(self, width: int) -> None:
        import faiss

        self.index = faiss.IndexHNSWFlat(width, 32, faiss.METRIC_INNER_PRODUCT)

    def append(self, rows: Rows) -> None:
        self.index.add(rows.vectors)

    def use(self, setting: Setting) -> None:
        self.steps = setting["efSearch"]

    def parameters(self, where: Filter | None) -> Any:
        selector = None if where is None else self.selector(where)
        return self.faiss.SearchParametersHNSW(sel=selector, efSearch=self.steps)

    def delete(self, ids: IntArray) -> None:
        raise Unsupported


class Hnswlib(Library):
    """Its graph of 16 links, efConstruction 200; the filter is a Python function."""

    name, package = "hnswlib", "hnswlib"
    settings = tuple({"ef": steps} for steps in STEPS)

    def create(self, width: int) -> None:
        import hnswlib

        self.index = hnswlib.Index(space="ip", dim=width)
        self.index.init_index(max_elements=1000, ef_construction=200, M=16)

    def append(self, rows: Rows) -> None:
        self.index.resize_index(self.index.element_count + len(rows))
        self.index.add_items(rows.vectors, rows.ids, num_threads=CORES)

    def write(self) -> None:
        self.index.save_index(str(self.directory / "index"))

    def read(self) -> None:
        import hnswlib

        self.index = hnswlib.Index(space="ip", dim=1024)
        self.index.load_index(str(self.directory / "index"))

    def use(self, setting: Setting) -> None:
        self.index.set_ef(setting["ef"])

    def search(self, query: FloatArray, k: int, where: Filter | None = None) -> list[int]:
        if where is None:
            found = self.index.knn_query(query, k, num_threads=1)[0]
        else:
            keep = self.keep(where)
            k = min(k, int(np.count_nonzero(keep)))
            accepted = keep.__getitem__
            found = self.index.knn_query(query, k, num_threads=1, filter=accepted)[0]
        return [int(i) for i in found[0]]

    def batch(self, queries: FloatArray, k: int) -> list[list[int]]:
        found: list[list[int]] = self.index.knn_query(queries, k, num_threads=CORES)[0].tolist()
        return found

    def delete(self, ids: IntArray) -> None:
        for number in ids.tolist():
            self.index.mark_deleted(number)
        self.save()


class Usearch(Library):
    """Its graph of 16 links over float32; it has no filters in Python."""

    name, package = "usearch", "usearch"
    settings = tuple({"expansion_search": steps} for steps in STEPS)

    def create(self, width: int) -> None:
        from usearch.index import Index

        self.index = Index(ndim=width, metric="ip", dtype="f32")

    def append(self, rows: Rows) -> None:
        self.index.add(rows.ids, rows.vectors, threads=CORES)

    def write(self) -> None:
        self.index.save(str(self.directory / "index"))

    def read(self) -> None:
        from usearch.index import Index

        self.index = Index.restore(str(self.directory / "index"))

    def use(self, setting: Setting) -> None:
        self.index.expansion_search = setting["expansion_search"]

    def search(self, query: FloatArray, k: int, where: Filter | None = None) -> list[int]:
        if where is not None:
            raise Unsupported
        return [int(i) for i in self.index.search(query, k, threads=1).keys]

    def batch(self, queries: FloatArray, k: int) -> list[list[int]]:
        found: list[list[int]] = self.index.search(queries, k, threads=CORES).keys.tolist()
        return found

    def delete(self, ids: IntArray) -> None:
        self.index.remove(ids)
        self.save()
