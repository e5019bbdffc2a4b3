"""A shelf in Milvus, or in Milvus Lite.

Milvus has no transactions. A change is written so that no generation sees it: new rows bear the
generation that is to come, and so does the mark of removed ones. The entry `state`, one entity that
names the newest generation, is the commit point. What a writer left that was ended before is taken
back by the next one.
"""

from __future__ import annotations

import base64
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from kinshelf.db.arrays import FloatArray, IntArray
from kinshelf.db.errors import EngineRefused, KinshelfError, ShelfExists
from kinshelf.db.logs import tolerated
from kinshelf.store.engines.backend import (
    EXACT_ROWS,
    SPARE,
    Backend,
    Batch,
    Candidates,
    Condition,
    Fetch,
    Scanned,
    State,
    Where,
    entry_text,
    lacking,
    no_shelf,
    overtaken,
    padded,
)
from kinshelf.store.engines.milvus.client import PAGE, Link
from kinshelf.store.engines.milvus.filters import quoted, to_milvus
from kinshelf.store.engines.milvus.lease import Lease
from kinshelf.store.engines.milvus.records import ELSEWHERE, NEVER, entities, read_fields, rows_of
from kinshelf.store.log.manifest import Manifest
from kinshelf.store.search.exact import exact

if TYPE_CHECKING:
    from kinshelf.db.catalog.tables import Change
    from kinshelf.db.filters.compiler import Filter
    from kinshelf.store.engines.address import Address

NEEDED = (2, 6)
FLUSHED = 256
"""The number of rows from which on Milvus Lite is asked to flush."""
_WRITTEN_BYTES = 1 << 23
_HNSW = {"index_type": "HNSW", "params": {"M": 24, "efConstruction": 200}}
_EFFORT = 256
"""Of HNSW's ef; it grows as the share of matches falls."""
_MOST_EFFORT = 8192


class MilvusBackend(Backend):
    """See `Backend`."""

    kind = "Milvus"

    def __init__(self, address: Address) -> None:
        self._address = address
        self._link = Link(address)
        self._lease = Lease(self._link, address.shown)
        self._unflushed = 0

    def close(self) -> None:
        self._link.close()

    # ---- the shelf as a whole

    def create(self, manifest: Manifest) -> None:
        if self._link.has(self._link.meta) and self._link.get("state", "state"):
            raise ShelfExists(
                f"{self._address.shown} holds a shelf already: choose another collection, or drop"
                " that one and its _meta"
            )
        self._check_version()
        if not self._link.has(self._link.meta):
            self._link.create_meta()
        self.set_manifest(manifest)
        self._put_state({"generation": 0, "next_row": 0, "base": 0, "indexed": 0, "token": ""})

    def _check_version(self) -> None:
        found = re.match(r"v?(\d+)\.(\d+)", str(self._link.call("get_server_version")))
        if found and (int(found[1]), int(found[2])) < NEEDED:
            raise EngineRefused(
                f"{self._address.shown} is Milvus {found[0]}: 2.6 or newer is needed, which can"
                " change a field of a row"
            )

    def state(self) -> State:
        known = self._read_state()
        manifest = Manifest(**self._link.read_json("state", "manifest"))
        return State(
            known["generation"], known["next_row"], known["base"], known["indexed"], manifest
        )

    def _read_state(self) -> dict[str, Any]:
        known = None
        if self._link.has(self._link.meta):
            known = self._link.read_json("state", "state")
        if known is None:
            raise no_shelf(self._address.shown)
        return dict(known)

    def _put_state(self, known: dict[str, Any]) -> None:
        self._link.put("state", "state", known["generation"], json.dumps(known))

    def set_manifest(self, manifest: Manifest) -> None:
        self._link.put("state", "manifest", 0, json.dumps(asdict(manifest), sort_keys=True))

    def log(self, after: int, upto: int) -> list[Change]:
        condition = f'kind == "log" and generation > {after} and generation <= {upto}'
        found = self._link.entries(condition)
        return [(int(name), *json.loads(text)) for name, text in sorted(found.items())]

    def files(self, version: int) -> dict[str, bytes]:
        kind = _files_of(version)
        found = self._link.entries(f'kind == "{kind}"')
        return {name: base64.b64decode(text) for name, text in found.items()}

    # ---- writing

    def lock(self, wait: float) -> None:
        self._read_state()
        self._lease.take(wait)

    def unlock(self) -> None:
        with tolerated(KinshelfError, room="store", then="what was committed stands, unflushed"):
            # Milvus Lite goes through rows in memory one by one; a cluster seals them by itself
            if self._unflushed >= FLUSHED and "lite" in str(self._link.call("get_server_version")):
                self._link.call("flush", self._link.products)
                self._unflushed = 0
        self._lease.give_back()

    def undo(self, state: State) -> None:
        link, now = self._link, state.generation
        if link.has(link.products):
            if self._count(f"added > {now}"):
                link.call("delete", link.products, filter=f"added > {now}")
            half = f"removed > {now} and removed < {NEVER}"
            marked = [e["row"] for page in link.pages(link.products, half, ["row"], "row")
                      for e in page]  # fmt: skip
            self._mark(marked, NEVER)
        link.call("delete", link.meta, filter=f"generation > {now}")

    def commit(self, batch: Batch) -> None:
        known = self._read_state()
        if known["generation"] == batch.generation and known["token"] == batch.token:
            return
        if known["generation"] != batch.generation - 1:
            raise overtaken(self._address.shown, known["generation"], batch.generation - 1)
        self._lease.renew()
        if batch.body.get("products"):
            self._write_products(batch)
        self._mark(batch.head.get("removed") or [], batch.generation)
        body = {name: part for name, part in batch.body.items() if name != "products"}
        name = f"{batch.generation:012d}"
        self._link.put("log", name, batch.generation, entry_text([batch.head, body]))
        for file, content in batch.files.items():
            text = base64.b64encode(content).decode()
            kind = _files_of(batch.head["probe"]["version"])
            self._link.put(kind, file, batch.generation, text)
        new = {"generation": batch.generation, "next_row": batch.next_row, "token": batch.token}
        self._lease.renew()  # a writer that came after this one has taken its rows back
        self._put_state(known | new)

    def _write_products(self, batch: Batch) -> None:
        assert batch.vectors is not None
        link, width = self._link, batch.vectors.shape[1]
        if not link.has(link.products):
            link.create_products(width)
        found, long = entities(batch.body["products"], batch.generation, batch.vectors)
        for row, text in long.items():
            link.put(ELSEWHERE, row, batch.generation, text)
        size = max(1, _WRITTEN_BYTES // (4 * width + 2048))
        for at in range(0, len(found), size):
            self._lease.renew()
            link.call("upsert", link.products, found[at : at + size])
        self._unflushed += len(found)

    def _mark(self, rows: Sequence[int], removed: int) -> None:
        """Write the generation that removed rows."""
        for at in range(0, len(rows), PAGE):
            marks = [{"row": row, "removed": removed} for row in rows[at : at + PAGE]]
            self._link.call("upsert", self._link.products, marks, partial_update=True)

    # ---- reading

    def translate(self, where: Filter, attributes: dict[str, str], mixed: set[str]) -> Condition:
        return to_milvus(where, attributes, mixed)

    def _count(self, condition: str) -> int:
        link = self._link
        if not link.has(link.products):
            return 0
        found = link.call("query", link.products, filter=condition, output_fields=["count(*)"])
        return int(found[0]["count(*)"])

    def count(self, where: Where, upto: int | None = None) -> int:
        if where.rows is None:
            return self._count(_expression(where))
        return sum(len(rows) for rows, _ in self.scan(where, ("row",), limit=upto))

    def categories(self, where: Where) -> dict[str | None, int]:
        counted: Counter[str | None] = Counter()
        for rows, _ in self.scan(where, ("category",)):
            counted.update(category for (category,) in rows)
        return dict(counted)

    def scan(
        self,
        where: Where,
        columns: Sequence[str],
        *,
        vectors: bool = False,
        after: int = -1,
        limit: int | None = None,
        offset: int = 0,
        size: int = 4096,
    ) -> Iterator[Scanned]:
        if not self._link.has(self._link.products):
            return
        fields = [*read_fields(columns), *(["embedding"] if vectors else [])]
        left = limit
        for page in self._pages(where, fields, after, min(size, PAGE)):
            found, offset = page[offset:], max(0, offset - len(page))
            found = found if left is None else found[:left]
            if found:
                left = None if left is None else left - len(found)
                yield rows_of(found, columns, self._link), _floats(found) if vectors else None
            if left == 0:
                return

    def _pages(
        self, where: Where, fields: list[str], after: int, size: int
    ) -> Iterator[list[dict[str, Any]]]:
        link = self._link
        condition = _joined(_expression(where), f"row > {after}")
        if where.rows is None:
            yield from link.pages(link.products, condition, fields, "row", size)
            return
        rows = np.sort(where.rows[where.rows > after])
        for at in range(0, len(rows), size):
            part = _joined(condition, f"row in {rows[at : at + size].tolist()}")
            found = link.call("query", link.products, filter=part, output_fields=fields)
            yield sorted(found, key=lambda entity: entity["row"])

    def vectors(self, rows: IntArray) -> FloatArray:
        distinct, places = np.unique(rows, return_inverse=True)
        pages = self._pages(Where(rows=distinct), ["row", "embedding"], -1, PAGE)
        found = [entity for page in pages for entity in page]
        if len(found) != len(distinct):
            raise lacking(len(distinct) - len(found))
        return _floats(found)[places]

    def nearest(
        self, queries: FloatArray, k: int, where: Where, indexed: bool, fetch: Fetch
    ) -> Candidates:
        wide = k + SPARE
        if where.rows is None and not indexed:
            return Candidates(padded(self._search(queries, wide, where, {}), wide), exhaustive=True)
        matching = self.count(where, EXACT_ROWS + 1)
        if matching <= EXACT_ROWS:
            return Candidates(self._score(queries, wide, where, fetch), exhaustive=True)
        share = matching / max(self._count(""), 1)
        effort = min(_MOST_EFFORT, max(_EFFORT, 4 * wide, int(2 * wide / share)))
        found = self._search(queries, wide, where, {"params": {"ef": effort}})
        few = [i for i, rows in enumerate(found) if len(rows) < k]
        if few:
            exactly = self._score(queries[few], wide, where, fetch)
            for i, rows in zip(few, exactly.tolist(), strict=True):
                found[i] = [row for row in rows if row >= 0]
        return Candidates(padded(found, wide), exhaustive=len(few) == len(queries))

    def _search(
        self, queries: FloatArray, k: int, where: Where, params: dict[str, Any]
    ) -> list[list[int]]:
        """By the engine's index: every row is scored by FLAT, and by HNSW it is approximate."""
        found = self._link.call(
            "search", self._link.products, data=queries.tolist(), anns_field="embedding", limit=k,
            filter=_expression(where), output_fields=["row"],
            search_params={"metric_type": "IP", **params},
        )  # fmt: skip
        return [[int(hit["row"]) for hit in hits] for hits in found]

    def _score(self, queries: FloatArray, k: int, where: Where, fetch: Fetch) -> IntArray:
        """Every row that matches is scored here, a block at a time."""
        best_rows = np.full((len(queries), 0), -1, dtype=np.int64)
        best = np.full((len(queries), 0), -np.inf, dtype=np.float32)
        for found, _ in self.scan(where, ("row",), size=PAGE):
            rows = np.array([row for (row,) in found], dtype=np.int64)
            scores, places = exact(fetch(rows), queries, k)
            best = np.hstack([best, scores])
            best_rows = np.hstack([best_rows, np.where(places < 0, -1, rows[places])])
            order = np.argsort(-best, axis=1, kind="stable")[:, :k]
            best = np.take_along_axis(best, order, axis=1)
            best_rows = np.take_along_axis(best_rows, order, axis=1)
        return padded([[r for r in row if r >= 0] for row in best_rows.tolist()], k)

    # ---- care

    def build_index(self, rows: int) -> None:
        self._link.replace_index(_HNSW)
        self._lease.renew()  # it may have taken longer than a lease
        self._put_state(self._read_state() | {"indexed": rows})

    def index_bytes(self) -> int:
        return 0

    def compact(self, base: int) -> int:
        gone = self._count(f"removed <= {base}")
        self._lease.renew()
        self._put_state(self._read_state() | {"base": base})
        if gone:
            self._link.call("delete", self._link.products, filter=f"removed <= {base}")
        return gone


def _files_of(version: int) -> str:
    return f"probe{version:04d}"


def _expression(where: Where) -> str:
    """All but `rows`, which are asked for in parts."""
    parts = []
    if where.generation is not None:
        parts.append(f"added <= {where.generation} and removed > {where.generation}")
    if where.gone_by is not None:
        parts.append(f"removed <= {where.gone_by}")
    parts += [f"({c.text})" for c in where.conditions if c.text]
    if where.ids is not None:
        parts.append(f"id in [{', '.join(quoted(name) for name in where.ids)}]")
    if where.exclude is not None:
        parts.append(f"row not in {where.exclude.tolist()}")
    return " and ".join(parts)


def _joined(*parts: str) -> str:
    return " and ".join(part for part in parts if part)


def _floats(found: Sequence[dict[str, Any]]) -> FloatArray:
    return np.array([entity["embedding"] for entity in found], dtype=np.float32)
