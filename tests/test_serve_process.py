"""`kinshelf serve` as its users meet it: a process that is killed, that drains, and that shares the
shelf with others."""

from __future__ import annotations

import csv
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from serve_world import copied, error_of, process, sample_shelf, until

from kinshelf import Shelf
from kinshelf.store.maintain.verify import verify_path

pytestmark = pytest.mark.wide


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sample_shelf(tmp_path_factory, count=60)


@pytest.fixture
def shelf(sample: Path, tmp_path: Path) -> Path:
    return copied(sample, tmp_path / "own.shelf")


def kinshelf(*line: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kinshelf.cli", *line]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)


def test_nothing_acknowledged_is_lost_when_the_server_is_killed_while_it_writes(
    shelf: Path,
) -> None:
    """Three kills: each time the products that were answered for, and no embeddings of others."""
    acknowledged: set[str] = set()
    asked_to_go: set[str] = set()
    removed: set[str] = set()
    lock = threading.Lock()

    def write(url: str, name: str) -> None:
        """Products until the server dies; every third is removed again."""
        with httpx.Client(base_url=url, timeout=240) as client:
            for i in range(500):
                product = {"id": f"{name}-{i}", "title": f"Toy number {i} of {name}"}
                if client.post("/products", json=product).status_code == 201:
                    with lock:
                        acknowledged.add(product["id"])
                if i % 3 != 2:
                    continue
                with lock:
                    asked_to_go.add(product["id"])
                if client.delete(f"/products/{product['id']}").status_code == 200:
                    with lock:
                        removed.add(product["id"])

    for life in range(3):
        with process(shelf) as (url, server), ThreadPoolExecutor(4) as pool:
            enough = len(acknowledged) + 12 + 5 * life
            writers = [pool.submit(write, url, f"{life}-{i}") for i in range(4)]
            until(lambda enough=enough: len(acknowledged) >= enough)
            server.send_signal(signal.SIGKILL)
            for writer in writers:
                assert isinstance(writer.exception(), httpx.TransportError)
        findings, _ = verify_path(shelf)
        assert [f for f in findings if not f.harmless] == []
        with Shelf.open(shelf) as opened:
            there = set(opened.snapshot().view.row_by_id())
        # a removal that nobody was answered for may have been committed, or not
        assert acknowledged - asked_to_go <= there
        assert not removed & there
        # one a writer may have been under way, committed but not yet answered for
        others = {name for name in there - acknowledged if name.startswith(f"{life}-")}
        assert len(others) <= 4
    with process(shelf) as (url, _):  # and it is opened again without anybody's help
        assert httpx.post(f"{url}/products", json={"id": "after", "title": "x"}).status_code == 201


def test_a_terminated_server_finishes_what_is_under_way_and_takes_nothing_more(
    shelf: Path,
) -> None:
    with process(shelf) as (url, server), ThreadPoolExecutor(8) as pool:
        assert httpx.get(f"{url}/healthz").json() == {"status": "ok"}
        job = httpx.post(f"{url}/train", json={"epochs": 1000, "patience": 1000}).json()["id"]

        def follow() -> str:
            return httpx.get(f"{url}/jobs/{job}/events", timeout=240).text

        followers = [pool.submit(follow) for _ in range(2)]
        asked = [
            pool.submit(httpx.post, f"{url}/classify", json={"text": f"toy {i}"}, timeout=240)
            for i in range(6)
        ]
        until(lambda: any(f.done() for f in asked))
        server.send_signal(signal.SIGTERM)
        assert server.wait(40) in (0, -signal.SIGTERM)
        answered = [f for f in asked if f.exception() is None]
        assert {f.result().status_code for f in answered} <= {200, 503}
        assert any(f.result().status_code == 200 for f in answered)
        assert all("event: end" in f.result() for f in followers)
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/healthz")
    assert [f for f in verify_path(shelf)[0] if not f.harmless] == []


HOLD = """
import sys, time
from kinshelf import Shelf
with Shelf.open(sys.argv[1]) as shelf, shelf.writing():
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def hold(shelf: Path, seconds: float) -> subprocess.Popen[str]:
    line = [sys.executable, "-c", HOLD, str(shelf), str(seconds)]
    child = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
    assert child.stdout
    assert child.stdout.readline() == "held\n"
    return child


def test_a_write_waits_for_another_process_and_then_states_who_holds_the_lock(shelf: Path) -> None:
    product = {"id": "w", "title": "Waiting"}
    with process(shelf, "--wait", "1") as (url, _), httpx.Client(base_url=url) as client:
        assert client.post("/products", json={"id": "v", "title": "Warm"}).status_code == 201
        with hold(shelf, 300) as holder:
            started = time.monotonic()
            refused = client.post("/products", json=product, timeout=240)
            assert 0.9 < time.monotonic() - started < 120
            assert refused.status_code == 423
            assert int(refused.headers["retry-after"]) >= 1
            assert f"process {holder.pid}" in error_of(refused)["message"]
            assert client.patch("/products/v", json={"price": 1}).status_code == 423
            assert client.post("/similar", json={"id": "v"}).status_code == 200  # reading goes on
            holder.kill()
        assert client.post("/products", json=product).status_code == 201


def test_a_short_write_of_another_process_is_waited_for(shelf: Path) -> None:
    with process(shelf, "--wait", "20") as (url, _), hold(shelf, 1.0):
        added = httpx.post(f"{url}/products", json={"id": "w", "title": "Waiting"}, timeout=240)
        assert added.status_code == 201


def test_reads_go_on_while_the_command_line_adds_to_the_same_shelf(
    shelf: Path, tmp_path: Path
) -> None:
    source = tmp_path / "many.csv"
    with source.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "title", "category"])
        writer.writerows([f"n{i}", f"New thing {i}", "New"] for i in range(300))
    with process(shelf) as (url, _), httpx.Client(base_url=url, timeout=240) as client:
        name = client.get("/products?limit=1").json()["products"][0]["id"]
        line = ["add", str(source), "--batch-size", "20", "--quiet", "--shelf", str(shelf)]
        adding = subprocess.Popen([sys.executable, "-m", "kinshelf.cli", *line])
        seen: list[dict[str, Any]] = []
        while adding.poll() is None:
            near = client.post("/similar", json={"id": name})
            listed = client.get("/products", params={"where": "category = 'New'", "limit": 500})
            assert (near.status_code, listed.status_code) == (200, 200)
            seen.append(listed.json())
        assert adding.returncode == 0
        last = client.get("/products", params={"where": "category = 'New'", "limit": 1}).json()
        assert last["total"] == 300
        found = client.post("/similar", json={"text": "New thing 7", "k": 1}).json()
        assert found["neighbours"][0]["category"] == "New"
    # every answer is of one generation: whole batches, and never fewer than before
    totals = [answer["total"] for answer in seen]
    assert all(total % 20 == 0 for total in totals)
    assert totals == sorted(totals)
    assert all(len(answer["products"]) == answer["total"] for answer in seen)


def test_the_server_follows_a_change_of_encoder(shelf: Path) -> None:
    with process(shelf) as (url, _), httpx.Client(base_url=url, timeout=240) as client:
        before = client.post("/similar", json={"text": "red car"}).json()
        with Shelf.open(shelf) as opened:
            other = "bf16" if opened.manifest.precision == "float32" else "float32"
        ran = kinshelf("reembed", "--precision", other, "--quiet", "--shelf", str(shelf))
        if ran.returncode == 3 and "precision" in ran.stderr:
            pytest.skip("this processor has one precision")
        assert ran.returncode == 0, ran.stderr
        after = client.post("/similar", json={"text": "red car"}).json()
        assert after["fingerprint"] != before["fingerprint"]
        exact = client.post("/similar", json={"text": "red car", "k": 3}).json()["neighbours"]
    with Shelf.open(shelf) as opened:
        here = opened.similar(text="red car", k=3).neighbours
    assert [n["id"] for n in exact] == [n.id for n in here]
    assert np.allclose([n["similarity"] for n in exact], [n.similarity for n in here], atol=5e-3)


@pytest.mark.parametrize(
    ("options", "expected"),
    [(["--host", "0.0.0.0"], "--token-file"), (["--token-file", "none"], "no token file"),
     (["--host", "203.0.113.7", "--token-file", "TOKENS"], "cannot be listened on")],
)  # fmt: skip
def test_a_server_that_cannot_start_states_why_in_one_line(
    shelf: Path, tmp_path: Path, options: list[str], expected: str
) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("0123456789abcdef0123\n")
    given = [str(tokens) if option == "TOKENS" else option for option in options]
    ran = kinshelf("serve", "--shelf", str(shelf), "--port", "0", *given)
    assert ran.returncode == 3
    assert expected in ran.stderr
    assert "Traceback" not in ran.stderr
    assert ran.stdout == ""
