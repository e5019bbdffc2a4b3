"""Stores: vectors and metadata in one, as their own documentation recommends."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from peers_base import Filter, FloatArray, IntArray, Peer, Rows, Setting


class Kinshelf(Peer):
    """A shelf with supplied embeddings; the index is chosen and tuned by the shelf itself."""

    name, package = "kinshelf", "."
    curve = tuple(
        {"steps": steps} for steps in (24, 32, 40, 48, 64, 80, 96, 128, 192, 256, 384, 512)
    )
    batch_rows = 1 << 14

    def create(self, width: int) -> None:
        from kinshelf import Shelf

        self.shelf = Shelf.create(self.directory / "shelf", encoder="supplied")

    def fill(self, rows: Rows) -> None:
        for part in rows.parts(self.batch_rows):
            self.add(part)

    def build(self) -> None:
        self.shelf.build_index()

    def open(self) -> None:
        from kinshelf import Shelf

        self.shelf = Shelf.open(self.directory / "shelf")
        graph = self.shelf.snapshot().searched().graph
        self.efforts = {} if graph is None else graph.efforts
        self.tuned = dict(self.efforts)

    def use(self, setting: Setting) -> None:
        """Its own choice, or so many steps."""
        self.efforts.update(self.tuned)
        if "steps" in setting and self.efforts:
            self.efforts["both"] = replace(self.tuned["both"], steps=setting["steps"])

    def search(self, query: FloatArray, k: int, where: Filter | None = None) -> list[int]:
        expression = None if where is None else where.sql
        found = self.shelf.snapshot().kneighbors(query[None], k, where=expression)
        return [row for row in found.rows[0].tolist() if row >= 0]

    def batch(self, queries: FloatArray, k: int) -> list[list[int]]:
        found: list[list[int]] = self.shelf.snapshot().kneighbors(queries, k).rows.tolist()
        return found

    def add(self, rows: Rows) -> None:
        from kinshelf.store import Product

        columns = rows.ids.tolist(), rows.titles, rows.categories, rows.brands, rows.prices.tolist()
        products = [
            Product(str(i), title, category=category, brand=brand, price=price)
            for i, title, category, brand, price in zip(*columns, strict=True)
        ]
        half = rows.vectors.shape[1] // 2
        self.shelf.upsert(products, rows.vectors[:, :half], rows.vectors[:, half:])

    def delete(self, ids: IntArray) -> None:
        self.shelf.remove([str(i) for i in ids.tolist()])

    def close(self) -> None:
        self.shelf.close()


class LanceFlat(Peer):
    """A table without an index."""

    name, package = "LanceDB flat", "lancedb"

    def create(self, width: int) -> None:
        import lancedb

        self.database = lancedb.connect(self.directory)

    def fill(self, rows: Rows) -> None:
        self.table = self.database.create_table("products", rows.arrow())

    def open(self) -> None:
        import lancedb

        self.table = lancedb.connect(self.directory).open_table("products")

    def asked(self, query: FloatArray) -> Any:
        """A question, before its filter and its number of answers."""
        return self.table.search(query).distance_type("dot")

    def search(self, query: FloatArray, k: int, where: Filter | None = None) -> list[int]:
        asked = self.asked(query).select(["id"]).limit(k)
        if where is not None:
            asked = asked.where(where.sql, prefilter=True)
        found: list[int] = asked.to_arrow()["id"].to_pylist()
        return found

    def add(self, rows: Rows) -> None:
        self.table.add(rows.arrow())

    def delete(self, ids: IntArray) -> None:
        self.table.delete(f"id IN ({', '.join(map(str, ids.tolist()))})")


class Lance(LanceFlat):
    """IVF-PQ, re-ranked from the vectors, and indexes on the columns."""

    name = "LanceDB IVF-PQ"
    settings = tuple(
        {"nprobes": probes, "refine_factor": refine}
        for probes, refine in ((20, 10), (20, 30), (40, 30), (80, 30), (80, 60), (160, 60))
    )

    def build(self) -> None:
        self.table.create_index("dot", index_type="IVF_PQ")
        for column in ("category", "brand"):
            self.table.create_scalar_index(column, index_type="BITMAP")
        self.table.create_scalar_index("price", index_type="BTREE")
        self.table.create_scalar_index("id", index_type="BTREE")

    def use(self, setting: Setting) -> None:
        self.setting = setting

    def asked(self, query: FloatArray) -> Any:
        asked = super().asked(query).nprobes(self.setting["nprobes"])
        return asked.refine_factor(self.setting["refine_factor"])


class Chroma(Peer):
    """A persistent client; its HNSW as it comes, efSearch tuned."""

    name, package = "Chroma", "chromadb"
    settings = tuple({"ef_search": steps} for steps in (10, 20, 50, 100, 200, 400, 800))

    def client(self) -> Any:
        """Without telemetry."""
        import chromadb

        settings = chromadb.Settings(anonymized_telemetry=False)
        return chromadb.PersistentClient(str(self.directory), settings)

    def create(self, width: int) -> None:
        configuration = {"hnsw": {"space": "ip"}}
        self.most = (client := self.client()).get_max_batch_size()
        self.collection = client.create_collection(
            "products", configuration=configuration, embedding_function=None
        )

    def open(self) -> None:
        self.most = (client := self.client()).get_max_batch_size()
        self.collection = client.get_collection("products", embedding_function=None)

    def use(self, setting: Setting) -> None:
        from chromadb.api.client import SharedSystemClient

        # What is loaded keeps its efSearch: only who opens it again gets the new one.
        self.collection.modify(configuration={"hnsw": setting})
        SharedSystemClient.clear_system_cache()
        self.open()

    def search(self, query: FloatArray, k: int, where: Filter | None = None) -> list[int]:
        found = self.collection.query(query[None], n_results=k, where=_chroma(where), include=[])
        return [int(i) for i in found["ids"][0]]

    def batch(self, queries: FloatArray, k: int) -> list[list[int]]:
        found = self.collection.query(queries, n_results=k, include=[])
        return [[int(i) for i in ids] for ids in found["ids"]]

    def add(self, rows: Rows) -> None:
        for part in rows.parts(self.most):
            columns = part.titles, part.categories, part.brands, part.prices.tolist()
            metadata = [
                {"title": title, "category": category, "brand": brand, "price": price}
                for title, category, brand, price in zip(*columns, strict=True)
            ]
            self.collection.add([str(i) for i in part.ids.tolist()], part.vectors, metadata)

    def delete(self, ids: IntArray) -> None:
        self.collection.delete([str(i) for i in ids.tolist()])


def _chroma(where: Filter | None) -> dict[str, Any] | None:
    if where is None:
        return None
    operator = "$eq" if isinstance(where.value, str) else "$lt"
    return {where.column: {operator: where.value}}


class Qdrant(Peer):
    """The engine without its server (Qdrant Edge), payload indexes on the columns."""

    name, package = "Qdrant Edge", "qdrant-edge-py"
    settings = tuple({"hnsw_ef": steps} for steps in (16, 32, 64, 128, 256, 512))

    def create(self, width: int) -> None:
        import qdrant_edge as qdrant

        vector = qdrant.EdgeVectorParams(size=width, distance=qdrant.Distance.Dot)
        self.shard = qdrant.EdgeShard.create(str(self.directory), qdrant.EdgeConfig(vectors=vector))
        kinds = qdrant.PayloadSchemaType
        for column, kind in (("category", kinds.Keyword), ("brand", kinds.Keyword),
                             ("price", kinds.Float)):  # fmt: skip
            self.shard.update(qdrant.UpdateOperation.create_field_index(column, kind))

    def build(self) -> None:
        while self.shard.optimize():
            pass
        self.shard.flush()

    def open(self) -> None:
        import qdrant_edge as qdrant

        self.shard = qdrant.EdgeShard.load(str(self.directory))

    def use(self, setting: Setting) -> None:
        self.setting = setting

    def request(self, query: FloatArray, k: int, where: Filter | None) -> Any:
        """One question."""
        import qdrant_edge as qdrant

        nearest = qdrant.Query.Nearest(query.tolist())
        params = qdrant.SearchParams(**self.setting)
        return qdrant.QueryRequest(
            limit=k, query=nearest, filter=_qdrant(where), params=params, with_payload=False
        )

    def search(self, query: FloatArray, k: int, where: Filter | None = None) -> list[int]:
        return [point.id for point in self.shard.query(self.request(query, k, where))]

    def batch(self, queries: FloatArray, k: int) -> list[list[int]]:
        import qdrant_edge as qdrant

        requests = [self.request(query, k, None) for query in queries]
        found = self.shard.query_batch(qdrant.QueryBatchRequest(requests))
        return [[point.id for point in points] for points in found]

    def add(self, rows: Rows) -> None:
        import qdrant_edge as qdrant

        for part in rows.parts(1000):
            columns = part.titles, part.categories, part.brands, part.prices.tolist()
            points = [
                qdrant.Point(i, vector, {"title": title, "category": category, "brand": brand,
                                         "price": price})
                for i, vector, title, category, brand, price in zip(
                    part.ids.tolist(), part.vectors.tolist(), *columns, strict=True)
            ]  # fmt: skip
            self.shard.update(qdrant.UpdateOperation.upsert_points(points))
        self.shard.flush()

    def delete(self, ids: IntArray) -> None:
        import qdrant_edge as qdrant

        self.shard.update(qdrant.UpdateOperation.delete_points(ids.tolist()))
        self.shard.flush()

    def close(self) -> None:
        self.shard.close()


def _qdrant(where: Filter | None) -> Any:
    if where is None:
        return None
    import qdrant_edge as qdrant

    if isinstance(where.value, str):
        rule = qdrant.FieldCondition(where.column, match=qdrant.MatchValue(where.value))
    else:
        rule = qdrant.FieldCondition(where.column, range=qdrant.RangeFloat(lt=where.value))
    return qdrant.Filter(must=[rule])


class SqliteVec(Peer):
    """A virtual table with metadata columns; every row is scored. (apsw can load extensions.)"""

    name, package = "sqlite-vec", "sqlite-vec apsw"

    def open(self) -> None:
        import apsw
        import sqlite_vec

        self.connection = apsw.Connection(str(self.directory / "products.db"))
        self.connection.enable_load_extension(True)
        self.connection.load_extension(sqlite_vec.loadable_path())

    def create(self, width: int) -> None:
        self.open()
        self.connection.execute(
            f"CREATE VIRTUAL TABLE products USING vec0(id INTEGER PRIMARY KEY,"
            f" vector float[{width}], category TEXT, brand TEXT, price FLOAT, +title TEXT)"
        )

    def search(self, query: FloatArray, k: int, where: Filter | None = None) -> list[int]:
        rule = "" if where is None else f" AND {where.sql}"
        asked = f"SELECT id FROM products WHERE vector MATCH ? AND k = {k}{rule} ORDER BY distance"
        return [row[0] for row in self.connection.execute(asked, (query.tobytes(),))]

    def batch(self, queries: FloatArray, k: int) -> list[list[int]]:
        return [self.search(query, k) for query in queries]

    def add(self, rows: Rows) -> None:
        columns = rows.categories, rows.brands, rows.prices.tolist(), rows.titles
        vectors = (vector.tobytes() for vector in rows.vectors)
        with self.connection:
            self.connection.executemany(
                "INSERT INTO products(id, vector, category, brand, price, title)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                zip(rows.ids.tolist(), vectors, *columns, strict=True),
            )

    def delete(self, ids: IntArray) -> None:
        with self.connection:
            self.connection.executemany(
                "DELETE FROM products WHERE id = ?", [(i,) for i in ids.tolist()]
            )

    def close(self) -> None:
        self.connection.close()


class DuckDB(Peer):
    """A table with a column of arrays, and plain SQL over all of it."""

    name, package = "DuckDB", "duckdb"

    def open(self) -> None:
        import duckdb

        self.connection = duckdb.connect(self.directory / "products.duckdb")

    def create(self, width: int) -> None:
        self.open()
        self.connection.execute(
            "CREATE TABLE products(id BIGINT, title VARCHAR, category VARCHAR, brand VARCHAR,"
            f" price DOUBLE, vector FLOAT[{width}])"
        )

    def search(self, query: FloatArray, k: int, where: Filter | None = None) -> list[int]:
        rule = "" if where is None else f"WHERE {where.sql}"
        asked = (
            f"SELECT id FROM products {rule}"
            f" ORDER BY array_inner_product(vector, ?::FLOAT[{len(query)}]) DESC LIMIT {k}"
        )
        return [row[0] for row in self.connection.execute(asked, [query]).fetchall()]

    def batch(self, queries: FloatArray, k: int) -> list[list[int]]:
        return [self.search(query, k) for query in queries]

    def add(self, rows: Rows) -> None:
        table = rows.arrow()
        self.connection.register("added", table)
        self.connection.execute("INSERT INTO products SELECT * FROM added")
        self.connection.unregister("added")

    def delete(self, ids: IntArray) -> None:
        self.connection.execute("DELETE FROM products WHERE list_contains(?, id)", [ids.tolist()])

    def close(self) -> None:
        self.connection.close()
