"""Encoding on a Ray cluster through a lost machine, a task that hangs and a driver that is killed.

Slow: four Ray nodes start on loopback.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import write_csv
from ray_helpers import (
    QUIET,
    cluster,
    encode,
    encode_command,
    need_ray,
    parts,
    products_of,
    sample_rows,
    wait_for,
)

from kinshelf.samples import catalogue_dir

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
COUNT = 2000


class _Pictures(ThreadingHTTPServer):
    """Gives one picture; the first who asks waits for a minute, all others do not."""

    daemon_threads = True
    asked = 0
    hangs = False


class _Handler(BaseHTTPRequestHandler):
    server: _Pictures

    def do_GET(self) -> None:
        self.server.asked += 1
        if self.server.hangs and self.server.asked == 1:
            time.sleep(60)
        data = sorted((catalogue_dir() / "images").iterdir())[0].read_bytes()
        self.send_response(200)
        self.send_header("Content-Type", "image/jpeg")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def pictures() -> Iterator[_Pictures]:
    with _Pictures(("127.0.0.1", 0), _Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short: Ray's sockets lie under it, and their paths may not be long."""
    with tempfile.TemporaryDirectory(prefix="ks", ignore_cleanup_errors=True) as name:
        yield Path(name)


def test_a_lost_worker_a_hanging_task_and_a_killed_driver_cost_no_product(
    tmp_path: Path, folder: Path, pictures: _Pictures
) -> None:
    need_ray()
    rows = sample_rows(COUNT)
    rows[700]["image"] = f"http://127.0.0.1:{pictures.server_address[1]}/one.jpg"
    source = write_csv(tmp_path / "products.csv", rows)
    options = ("--part-rows", 50, "--allow-private-hosts")
    plain, spread = tmp_path / "plain", tmp_path / "spread"
    alone = encode(source, plain, *options)
    assert alone.returncode == 0, alone.stderr
    pictures.asked, pictures.hangs = 0, True
    with cluster(folder, 3) as nodes:
        more = (*options, "--ray", nodes.address, "--timeout", 8, "--workers", 3)
        with _driver(source, spread, *more) as first:
            wait_for(lambda: len(parts(spread)) >= 4, 120, first)
            os.kill(first.pid, signal.SIGKILL)
        before = {p.name: p.stat().st_mtime_ns for p in parts(spread)}
        assert not _manifest(spread)["finished"]
        assert len(before) < COUNT // 50
        with _driver(source, spread, *more) as second:
            wait_for(lambda: len(parts(spread)) >= len(before) + 6, 120, second)
            nodes.kill("worker-1")
            out, err = second.communicate(timeout=300)
        assert second.returncode == 0, err
    report = json.loads(out)
    assert (report["rows"], report["products"], report["rejected"]) == (COUNT, COUNT, 0)
    assert report["image_failed"] == 0
    assert report["reused"] >= len(before)
    assert all((spread / name).stat().st_mtime_ns == at for name, at in before.items())
    assert pictures.asked >= 2, "the hanging task was not tried again"
    assert products_of(spread) == products_of(plain)
    assert len(products_of(spread)) == COUNT


def _driver(source: Path, spread: Path, *more: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        encode_command(source, spread, *more),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | QUIET,
    )  # fmt: skip


def _manifest(folder: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / "parts.json").read_text())
    return found
