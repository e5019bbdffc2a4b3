"""The client of Milvus: collections made and loaded, errors reported, one call in one place.

A shelf is two collections: `NAME` holds the products, `NAME_meta` all else, as entries of text that
are cut into parts where Milvus allows no longer ones.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from kinshelf.db.errors import EngineRefused, EngineUnavailable
from kinshelf.db.host import mute
from kinshelf.db.logs import tolerated
from kinshelf.store.engines.address import LITE

if TYPE_CHECKING:
    from pymilvus import MilvusClient

    from kinshelf.store.engines.address import Address

T = TypeVar("T")
PATIENCE = 60.0
"""Seconds that a server which was there before may take to come back."""
_PAUSE = 0.1
LONGEST = 65_535
"""Bytes of one text in Milvus."""
_PART, _PARTS = 60_000, 64
PAGE = 8192
"""Rows of one answer; Milvus allows 16,384."""
TEXTS = ("id", "title", "category", "brand", "image", "split", "image_error")
INDEXED = ("id", "category", "added", "removed")
_ENTRY = ["key", "name", "value"]
_UNOPENED = "Open local milvus failed"
_NOT_LOADED = ("not loaded", "call load()")
_UNREACHABLE = ("UNAVAILABLE", "Retry timeout", "Retry run out", "Fail connecting", "Connect",
                "DEADLINE", "server unavailable", "closed channel")  # fmt: skip


class Link:
    """One client; every method raises EngineUnavailable or EngineRefused."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self.products = address.place
        self.meta = f"{address.place}_meta"
        self._client: MilvusClient | None = None
        self._loaded: set[str] = set()
        self._was_there = False

    def close(self) -> None:
        """Close the client; Milvus Lite releases its file."""
        if self._client is not None:
            self._client.close()
        if self._client is not None and self._address.engine == LITE:
            from milvus_lite.server_manager import server_manager_instance

            server_manager_instance.release_server(self._address.url)
        self._client = None
        self._loaded = set()

    def _check_installed(self) -> None:
        try:
            import pymilvus  # noqa: F401

            if self._address.engine == LITE:
                import milvus_lite  # noqa: F401
        except ImportError:
            raise EngineUnavailable(
                "Milvus needs packages that are not installed: pip install 'kinshelf[cluster]'"
            ) from None

    def _connected(self) -> MilvusClient:
        if self._client is None:
            mute("pymilvus", "milvus_lite")  # they log every error with its traceback
            self._client = self._opened()
        return self._client

    def _opened(self) -> MilvusClient:
        from pymilvus import MilvusClient, MilvusException

        address = self._address
        options: dict[str, Any] = {
            "db_name" if name == "db" else name: value for name, value in address.options.items()
        }
        if address.engine == LITE:
            Path(address.url).parent.mkdir(parents=True, exist_ok=True)
        try:
            # dedicated: others of this process must not lose theirs with it
            return MilvusClient(uri=address.url, timeout=address.timeout, dedicated=True, **options)
        except MilvusException as error:
            if address.engine != LITE or _UNOPENED not in str(error):
                raise
            raise EngineUnavailable(
                f"{address.shown} cannot be opened: another process has it open (Milvus Lite lets"
                f" one in at a time), or {address.url} is not one of its folders"
            ) from error

    def call(self, method: str, *arguments: Any, **named: Any) -> Any:
        """Call a method of the client; wait for a server that went away to come back."""
        named.setdefault("timeout", self._address.timeout)
        return self._patiently(lambda: self._call(method, arguments, named))

    def _patiently(self, work: Callable[[], T]) -> T:
        if self._client is None:
            self._check_installed()
        from pymilvus import MilvusException
        from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_fixed

        retrying = Retrying(
            retry=retry_if_exception(self._lost), stop=stop_after_delay(PATIENCE),
            wait=wait_fixed(_PAUSE), reraise=True,
        )  # fmt: skip
        try:
            return retrying(work)
        except MilvusException as error:
            raise self._as_error(error) from error

    def _lost(self, error: BaseException) -> bool:
        """Whether a server that was there is gone; every call may be repeated."""
        gone = _unreachable(error)
        if gone and self._client is not None:
            what = "a lost connection is let go of"
            with tolerated(Exception, room="store", then=what, level=logging.INFO):
                self._client.close()
            self._client = None
        return gone and self._was_there

    def _call(self, method: str, arguments: Sequence[Any], named: dict[str, Any]) -> Any:
        def work(client: MilvusClient) -> Any:
            return getattr(client, method)(*arguments, **named)

        return self._loaded_for(arguments[0] if arguments else "", work)

    def _loaded_for(self, collection: str, work: Callable[[MilvusClient], T]) -> T:
        """The work, with the collection loaded first if the server was started anew."""
        from pymilvus import MilvusException

        client = self._connected()
        try:
            answer = work(client)
        except MilvusException as error:
            if not any(words in str(error).lower() for words in _NOT_LOADED):
                raise
            client.load_collection(collection, timeout=self._address.timeout)
            answer = work(client)
        self._was_there = True
        return answer

    def _as_error(self, error: Exception) -> Exception:
        shown, cause = self._address.shown, str(getattr(error, "message", error)).strip()
        first = cause.splitlines()[0][:300] if cause else type(error).__name__
        if _unreachable(error):
            return EngineUnavailable(
                f"{shown} did not answer within {self._address.timeout:g} s ({first}): is the"
                " server running? More time is allowed with ?timeout=SECONDS in the address"
            )
        return EngineRefused(f"{shown} refused: {first}")

    # ---- collections

    def has(self, collection: str) -> bool:
        """Whether the collection exists; load it if so."""
        if collection in self._loaded:
            return True
        if not self.call("has_collection", collection):
            return False
        self.call("load_collection", collection)
        self._loaded.add(collection)
        return True

    def create_meta(self) -> None:
        """Make the collection of all but products."""
        from pymilvus import DataType

        schema = self._schema()
        schema.add_field("key", DataType.VARCHAR, max_length=512, is_primary=True)
        schema.add_field("kind", DataType.VARCHAR, max_length=16)
        schema.add_field("generation", DataType.INT64)
        schema.add_field("name", DataType.VARCHAR, max_length=256)
        schema.add_field("value", DataType.VARCHAR, max_length=LONGEST)
        # Milvus has no collection without one
        schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=2)
        self._create(self.meta, schema, {"index_type": "FLAT"}, ("kind",))

    def create_products(self, width: int) -> None:
        """Make the collection of products, their embedding pairs of `width` numbers."""
        from pymilvus import DataType

        schema = self._schema()
        schema.add_field("row", DataType.INT64, is_primary=True)
        for name in TEXTS:
            nullable = name != "id"
            schema.add_field(name, DataType.VARCHAR, max_length=LONGEST, nullable=nullable)
        schema.add_field("price", DataType.DOUBLE, nullable=True)
        for name in ("has_image", "has_text"):
            schema.add_field(name, DataType.BOOL)
        for name in ("added", "removed"):
            schema.add_field(name, DataType.INT64)
        schema.add_field("attributes", DataType.JSON)
        schema.add_field("record", DataType.VARCHAR, max_length=LONGEST)
        schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=width)
        self._create(self.products, schema, {"index_type": "FLAT"}, INDEXED)

    def _schema(self) -> Any:
        from pymilvus import MilvusClient

        self._connected()
        return MilvusClient.create_schema(auto_id=False)

    def _create(
        self, name: str, schema: Any, vectors: dict[str, Any], scalars: Sequence[str]
    ) -> None:
        index = self._connected().prepare_index_params()
        index.add_index("embedding", metric_type="IP", **vectors)
        for field in scalars:
            index.add_index(field, index_type="INVERTED")
        # an answer must see what was acknowledged before
        self.call(
            "create_collection", name, schema=schema, index_params=index,
            consistency_level="Strong",
        )  # fmt: skip

    def replace_index(self, index: dict[str, Any]) -> None:
        """Give the products another index over their vectors."""
        self.call("release_collection", self.products)
        self.call("drop_index", self.products, "embedding")
        params = self._connected().prepare_index_params()
        params.add_index("embedding", metric_type="IP", **index)
        self.call("create_index", self.products, params, timeout=None)
        self.call("load_collection", self.products, timeout=None)

    # ---- entries of the meta collection

    def put(self, kind: str, name: str, generation: int, text: str) -> None:
        """Write an entry, over the one that has its name."""
        parts = [text[at : at + _PART] for at in range(0, max(len(text), 1), _PART)]
        entries = [
            {
                "key": f"{kind}/{name}/{number:06d}", "kind": kind, "generation": generation,
                "name": name, "value": part, "embedding": [0.0, 1.0],
            }
            for number, part in enumerate(parts)
        ]  # fmt: skip
        for at in range(0, len(entries), _PARTS):
            self.call("upsert", self.meta, entries[at : at + _PARTS])

    def get(self, kind: str, name: str) -> str | None:
        """The text of an entry."""
        condition = f'kind == "{kind}" and name == "{name}"'
        found = self.call("query", self.meta, filter=condition, output_fields=_ENTRY)
        return _texts([found]).get(name)

    def entries(self, condition: str) -> dict[str, str]:
        """Names and texts of the entries that match."""
        return _texts(self.pages(self.meta, condition, _ENTRY, "key"))

    def pages(
        self, collection: str, condition: str, fields: Sequence[str], key: str, size: int = PAGE
    ) -> Iterator[list[dict[str, Any]]]:
        """All entities that match, by ascending key, at most `size` at a time."""
        last: Any = None
        while True:
            after = [] if last is None else [f"{key} > {json.dumps(last)}"]
            wanted = " and ".join([*([f"({condition})"] if condition else []), *after])
            found = self._patiently(partial(self._page, collection, wanted, fields, size))
            if not found:
                return
            found.sort(key=lambda entity: entity[key])
            last = found[-1][key]
            yield found  # a cluster may give fewer than `size` though there are more

    def _page(
        self, collection: str, condition: str, fields: Sequence[str], size: int
    ) -> list[dict[str, Any]]:
        """The first entities that match, by key: an iterator gives them in that order."""

        def work(client: MilvusClient) -> list[dict[str, Any]]:
            iterator = client.query_iterator(
                collection, batch_size=size, filter=condition, output_fields=list(fields),
                timeout=self._address.timeout,
            )  # fmt: skip
            try:
                return [dict(entity) for entity in iterator.next()]
            finally:
                iterator.close()

        return self._loaded_for(collection, work)

    def read_json(self, kind: str, name: str) -> Any:
        """The value of an entry of JSON, None if there is none."""
        text = self.get(kind, name)
        return None if text is None else json.loads(text)


def _texts(pages: Iterable[list[dict[str, Any]]]) -> dict[str, str]:
    """Names and texts of entries, their parts put together."""
    parts: dict[str, dict[int, str]] = {}
    for found in pages:
        for entry in found:
            number = int(entry["key"].rpartition("/")[2])
            parts.setdefault(entry["name"], {})[number] = entry["value"]
    return {name: "".join(p for _, p in sorted(found.items())) for name, found in parts.items()}


def _unreachable(error: BaseException) -> bool:
    cause = f"{getattr(error, 'code', '')} {error}".lower()
    return any(word.lower() in cause for word in _UNREACHABLE)
