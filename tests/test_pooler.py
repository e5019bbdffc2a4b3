"""Shelves in PostgreSQL behind PgBouncer in transaction mode: one shelf's rows stay its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import unit
from engines import PgBouncer, Postgres, running

from kinshelf import create as create_shelf
from kinshelf import open as open_shelf
from kinshelf.db.errors import EngineRefused, EngineUnavailable, ShelfLocked
from kinshelf.db.product import Product

pytestmark = pytest.mark.wide

BATCHES = 8


@pytest.fixture(scope="module")
def pool() -> Iterator[PgBouncer]:
    with running("postgres") as server:
        assert isinstance(server, Postgres)
        pool = PgBouncer(server)
        yield pool
        pool.close()


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def put(shelf: Any, first: str, count: int = 4) -> None:
    rng = np.random.default_rng(sum(first.encode()))
    image, text = (unit(rng.standard_normal((count, 8))) for _ in "it")
    shelf.upsert([Product(f"{first}-{i}", f"toy of {first}") for i in range(count)], image, text)


def ids(address: str) -> set[str]:
    with open_shelf(address) as shelf:
        return {stored.product.id for stored in shelf.snapshot().select()}


def test_the_pooler_hands_several_sessions_to_one_client(pool: PgBouncer) -> None:
    import psycopg

    url = pool.address("x").partition("?")[0]
    clients = [psycopg.connect(url, prepare_threshold=None) for _ in range(3)]
    for client in clients:  # each in a transaction: sessions are opened
        client.execute("SELECT set_config('search_path', '\"elsewhere\"', false)")
    for client in clients:
        client.commit()
        client.close()
    with psycopg.connect(url, autocommit=True, prepare_threshold=None) as client:
        named = client.info.backend_pid
        seen = {client.execute("SELECT pg_backend_pid()").fetchone() for _ in range(20)}
        assert len(seen) > 1
        assert (named,) not in seen
        paths = {client.execute("SHOW search_path").fetchone() for _ in range(40)}
        assert ('"elsewhere"',) in paths  # of whichever session answers


@pytest.mark.parametrize("round_", range(3))
def test_shelves_that_are_written_at_once_keep_their_rows(pool: PgBouncer, round_: int) -> None:
    names = [f"s{round_}{letter}" for letter in "abcd"]
    for name in names:
        create_shelf(pool.address(name), encoder="supplied").close()
    failed: list[Exception] = []

    def fill(name: str) -> None:
        try:
            with open_shelf(pool.address(name)) as shelf:
                for number in range(BATCHES):
                    put(shelf, f"{name}-{number}")
                    now = shelf.snapshot()
                    assert now.count == 4 * (number + 1)
                    query = now.pairs([now.view.rows()[0]])
                    assert now.kneighbors(query, 3).rows.shape == (1, 3)
        except Exception as error:  # noqa: BLE001 - reported below
            failed.append(error)

    threads = [threading.Thread(target=fill, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    for name in names:
        expected = {f"{name}-{n}-{i}" for n in range(BATCHES) for i in range(4)}
        assert ids(pool.address(name)) == expected
        assert ids(pool.server.address(name)) == expected


def test_one_writer_at_a_time_also_beside_one_without_the_pooler(pool: PgBouncer) -> None:
    create_shelf(pool.address("locked"), encoder="supplied").close()
    for first, second in ((pool, pool), (pool, pool.server), (pool.server, pool)):
        with (
            open_shelf(first.address("locked")) as one,
            open_shelf(second.address("locked")) as other,
        ):
            with one.writing():
                with pytest.raises(ShelfLocked, match="kinshelf"):
                    put(other, "no")
                put(one, "yes")
            put(other, "then")
    assert {name.partition("-")[0] for name in ids(pool.address("locked"))} == {"yes", "then"}


def test_writers_in_turn_lose_nothing(pool: PgBouncer) -> None:
    create_shelf(pool.address("turns"), encoder="supplied").close()
    failed: list[Exception] = []

    def fill(name: str) -> None:
        try:
            with open_shelf(pool.address("turns"), wait=30) as shelf:
                for number in range(5):
                    put(shelf, f"{name}{number}")
        except Exception as error:  # noqa: BLE001 - reported below
            failed.append(error)

    threads = [threading.Thread(target=fill, args=(name,)) for name in "xy"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert len(ids(pool.address("turns"))) == 40


def test_a_lock_that_is_lost_with_its_session_costs_no_change(pool: PgBouncer) -> None:
    import psycopg

    create_shelf(pool.address("lost"), encoder="supplied").close()
    with (
        open_shelf(pool.address("lost")) as one,
        open_shelf(pool.address("lost"), wait=20) as other,
    ):
        put(one, "a")
        with one.writing():
            with psycopg.connect(
                pool.server.address("x").partition("?")[0], autocommit=True
            ) as admin:
                admin.execute(
                    "SELECT pg_terminate_backend(l.pid) FROM pg_locks l WHERE locktype = 'advisory'"
                )
            put(other, "b")
            with pytest.raises((EngineRefused, EngineUnavailable, ShelfLocked)):
                one.commit({"kind": "remove", "command": "remove", "removed": [0]}, {})
    assert len(ids(pool.address("lost"))) == 8
