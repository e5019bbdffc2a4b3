"""The one place that knows a shelf by its address: a directory, PostgreSQL or Milvus."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kinshelf.store.engines.address import LITE, MILVUS, is_engine, parse_address
from kinshelf.store.engines.shelf import EngineShelf
from kinshelf.store.shelf import DirectoryShelf

if TYPE_CHECKING:
    from kinshelf.store.base import AnyShelf
    from kinshelf.store.encode.encoder import Encoder
    from kinshelf.store.engines.address import Address
    from kinshelf.store.engines.backend import Backend
    from kinshelf.store.log.manifest import Manifest


def open_shelf(
    address: Path | str,
    *,
    wait: float = 0.0,
    encoder: Encoder | None = None,
    kinds: tuple[type[DirectoryShelf], type[EngineShelf]] = (DirectoryShelf, EngineShelf),
) -> AnyShelf:
    """Open a shelf by its directory or its address on an engine (see `cluster.address`).

    `wait` is how many seconds a write may wait for another writer; `kinds` are the classes to make
    a handle of. Raises as `DirectoryShelf` does, and
    InputError, EngineUnavailable or EngineRefused.
    """
    if not is_engine(address):
        return kinds[0](address, wait=wait, encoder=encoder)
    parsed = parse_address(str(address))
    backend = backend_of(parsed)
    try:
        return kinds[1](parsed, backend, wait=wait, encoder=encoder)
    except BaseException:
        backend.close()
        raise


def create_shelf(
    address: Path | str,
    *,
    encoder: str | None = None,
    revision: str | None = None,
    precision: str | None = None,
    pictures: str | None = None,
) -> AnyShelf:
    """Make an empty shelf there and open it; see `Shelf.create`. Raises ShelfExists."""
    from kinshelf.store.log.create import manifest_for

    return create_like(address, manifest_for(encoder, revision, precision, pictures))


def create_like(address: Path | str, manifest: Manifest) -> AnyShelf:
    """Make an empty shelf of that encoder and dimension, and open it. Raises ShelfExists."""
    if not is_engine(address):
        from kinshelf.store.log.create import create

        create(Path(address), manifest)
        return DirectoryShelf(address)
    backend = backend_of(parse_address(str(address)))
    try:
        backend.create(manifest)
    finally:
        backend.close()
    return open_shelf(address)


def backend_of(address: Address) -> Backend:
    """The engine of an address; it is reached when it is first asked."""
    if address.engine in (MILVUS, LITE):
        from kinshelf.store.engines.milvus.backend import MilvusBackend

        return MilvusBackend(address)
    from kinshelf.store.engines.postgres.backend import PostgresBackend

    return PostgresBackend(address)
