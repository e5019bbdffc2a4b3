"""What comes together is encoded together; what is too much is sent away, not piled up."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from serve_world import error_of, png, settings_for, until

from kinshelf import Shelf
from kinshelf.serve.app import create_app
from kinshelf.serve.base.errors import ShuttingDown, TooBusy, TooSlow
from kinshelf.serve.service.executor import Running
from kinshelf.serve.workers.batching import Batcher

pytestmark = pytest.mark.wide


def rows(items: list[Any]) -> np.ndarray:
    return np.array([[item, item * 2] for item in items], dtype=np.float32)


def test_what_comes_while_one_batch_is_worked_on_is_the_next_batch() -> None:
    sizes: list[int] = []
    go, begun = threading.Event(), threading.Event()

    def work(items: list[Any]) -> np.ndarray:
        begun.set()
        go.wait(10)
        return rows(items)

    batcher = Batcher(work, 8, sizes.append)
    with ThreadPoolExecutor(21) as pool:
        first = pool.submit(batcher.results, [0])
        begun.wait(10)
        rest = [pool.submit(batcher.results, [i]) for i in range(1, 21)]
        until(lambda: batcher.depth == 20)
        go.set()
        for i, future in enumerate([first, *rest]):
            assert np.array_equal(future.result(10), rows([i]))
    assert sizes == [1, 8, 8, 4]
    batcher.close()


def test_a_batch_that_fails_fails_for_its_own_requests_alone() -> None:
    def work(items: list[Any]) -> np.ndarray:
        if 13 in items:
            raise ValueError("thirteen")
        return rows(items)

    batcher = Batcher(work, 4)
    with pytest.raises(ValueError, match="thirteen"):
        batcher.results([13])
    assert np.array_equal(batcher.results([1, 2, 3, 4, 5, 6]), rows([1, 2, 3, 4, 5, 6]))
    batcher.close()
    with pytest.raises(ShuttingDown):
        batcher.results([1])


def shelf_of(tmp_path: Path, encoder: Any, catalogue: Path) -> Path:
    Shelf.create(tmp_path / "toys.shelf", encoder="fake").close()
    with Shelf.open(tmp_path / "toys.shelf", encoder=encoder) as shelf:
        shelf.add(catalogue)
    return tmp_path / "toys.shelf"


def test_requests_that_come_together_are_encoded_in_few_batches(
    tmp_path: Path, encoder: Any, catalogue: Path
) -> None:
    path = shelf_of(tmp_path, encoder, catalogue)
    calls: list[int] = []
    inner = encoder.encode_pixels

    def slow(pixels: Any) -> Any:
        calls.append(len(pixels))
        time.sleep(0.2)
        return inner(pixels)

    encoder.encode_pixels = slow
    app = create_app(settings_for(path), encoder=encoder)
    with TestClient(app, base_url="http://localhost") as client, ThreadPoolExecutor(16) as pool:

        def ask(seed: int) -> Any:
            return client.post("/classify", files={"image": ("p.png", png(seed))}).json()

        together = list(pool.map(ask, range(16)))
        assert sum(calls) == 16
        assert len(calls) <= 8
        for seed, found in enumerate(together):  # and each got its own answer
            alone = ask(seed)
            assert [n["id"] for n in found["neighbours"]] == [n["id"] for n in alone["neighbours"]]


def test_more_requests_than_fit_are_sent_away_at_once(
    tmp_path: Path, encoder: Any, catalogue: Path
) -> None:
    path = shelf_of(tmp_path, encoder, catalogue)
    go = threading.Event()
    inner = encoder.encode_texts

    def held(texts: Any) -> Any:
        go.wait(20)
        return inner(texts)

    encoder.encode_texts = held
    app = create_app(settings_for(path, at_once=2, queue=3), encoder=encoder)
    with TestClient(app, base_url="http://localhost") as client, ThreadPoolExecutor(12) as pool:
        asked = [pool.submit(client.post, "/classify", json={"text": f"t {i}"}) for i in range(12)]
        until(lambda: sum(f.done() for f in asked) == 7)
        refused = [f.result() for f in asked if f.done()]
        go.set()
        rest = [f.result() for f in asked if f.result() not in refused]
    assert {r.status_code for r in refused} == {429}
    assert {r.headers["retry-after"] for r in refused} == {"1"}
    assert error_of(refused[0])["type"] == "TooBusy"
    assert [r.status_code for r in rest] == [200] * 5


def test_work_that_takes_too_long_keeps_its_place_until_it_ends() -> None:
    running = Running(settings_for(Path("x"), at_once=1, queue=0, request_seconds=0.1))
    go = threading.Event()

    async def ask() -> None:
        with pytest.raises(TooSlow):
            await running.run(go.wait, 10)
        with pytest.raises(TooBusy):
            await running.run(int)
        go.set()
        while running.inflight:
            await asyncio.sleep(0.01)
        assert await running.run(int, "7") == 7

    asyncio.run(ask())
    running.drain()
    with pytest.raises(ShuttingDown):
        asyncio.run(running.run(int))
    running.close()


def test_who_is_alone_never_waits_and_a_crowd_is_gathered() -> None:
    sizes: list[int] = []

    def work(items: list[Any]) -> np.ndarray:
        time.sleep(0.2)
        return rows(items)

    batcher = Batcher(work, 8, sizes.append, patience=0.15)
    started = time.monotonic()
    for i in range(3):
        batcher.results([i])
    assert time.monotonic() - started < 0.7

    def client(i: int) -> None:
        for _ in range(6):
            batcher.results([i])
            time.sleep(0.005)

    sizes.clear()
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(client, range(6)))
    assert len(sizes) <= 9  # six would be perfect, twelve come of taking what is there
    batcher.close()


def test_two_threads_share_what_waits() -> None:
    sizes: list[int] = []
    go = threading.Event()

    def work(items: list[Any]) -> np.ndarray:
        go.wait(10)
        return rows(items)

    batcher = Batcher(work, 32, sizes.append, threads=2)
    with ThreadPoolExecutor(9) as pool:
        asked = [pool.submit(batcher.results, [i]) for i in range(2)]
        until(lambda: batcher.depth == 0)
        asked += [pool.submit(batcher.results, [i]) for i in range(2, 9)]
        until(lambda: batcher.depth == 7)
        go.set()
        for i, future in enumerate(asked):
            assert np.array_equal(future.result(10), rows([i]))
    assert sum(sizes) == 9
    assert max(sizes[2:]) <= 5  # neither took all
    batcher.close()


def test_those_who_wait_to_write_leave_threads_to_those_who_read(
    tmp_path: Path, encoder: Any, catalogue: Path
) -> None:
    path = shelf_of(tmp_path, encoder, catalogue)
    app = create_app(settings_for(path, at_once=4, lock_wait=3.0), encoder=encoder)
    with (
        TestClient(app, base_url="http://localhost") as client,
        ThreadPoolExecutor(8) as pool,
        Shelf.open(path) as other,
        other.writing(),
    ):
        writes = [pool.submit(client.delete, f"/products/p{i}") for i in range(8)]
        until(lambda: sum(f.done() for f in writes) == 6)
        started = time.monotonic()
        assert client.post("/similar", json={"id": "p9"}).status_code == 200
        assert time.monotonic() - started < 2
        statuses = sorted(f.result().status_code for f in writes)
    assert statuses == [423, 423, 429, 429, 429, 429, 429, 429]
