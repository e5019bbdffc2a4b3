"""Servers for tests: in a thread of this process, or as `kinshelf serve` in one of their own."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
from conftest import made_once
from PIL import Image

from kinshelf import Shelf
from kinshelf.probe import train_shelf
from kinshelf.probe.fit.settings import ProbeSettings
from kinshelf.samples import catalogue_dir, tiny_clip_dir
from kinshelf.serve.app import create_app
from kinshelf.serve.base.settings import ServeSettings

FAST = {"rate": 1e6, "burst": 10**6, "decoders": 1, "request_seconds": 300.0}


def sample_shelf(factory: pytest.TempPathFactory, count: int = 160) -> Path:
    """A part of the sample catalogue with the tiny CLIP and a quickly trained probe."""
    made = made_once(factory, f"sample-{count}", lambda path: _make_sample(path, count))
    return copied(made, factory.mktemp("serve") / "sample.shelf")


def _make_sample(path: Path, count: int) -> None:
    lines = (catalogue_dir() / "products.csv").read_text(encoding="utf-8").splitlines(True)
    source = path.with_suffix(".csv")
    source.write_text("".join([lines[0], *lines[1 :: len(lines) // count]]), encoding="utf-8")
    from kinshelf.store import AddOptions

    with Shelf.create(path, encoder=str(tiny_clip_dir())) as shelf:
        shelf.add(source, AddOptions(images=catalogue_dir()))
        train_shelf(shelf, ProbeSettings(epochs=5))


def copied(shelf: Path, target: Path) -> Path:
    """A shelf of one's own."""
    shutil.copytree(shelf, target)
    return target


def png(seed: int = 0, side: int = 64) -> bytes:
    """A picture that no other seed gives."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def settings_for(shelf: Path, **changes: Any) -> ServeSettings:
    """Settings without limits that would get in the way, and few processes to wait for."""
    return replace(ServeSettings(shelf, port=0, **FAST), **changes)


@contextlib.contextmanager
def in_thread(settings: ServeSettings, encoder: Any = None) -> Iterator[tuple[str, Any]]:
    """A real server on loopback: its URL and its app."""
    from kinshelf.serve.server import configured, listen, url_of

    app = create_app(settings, encoder=encoder)
    with listen(settings) as listening:
        server = uvicorn.Server(configured(app, settings))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            yield url_of(listening), app
        finally:
            server.should_exit = True
            thread.join(60)


@contextlib.contextmanager
def process(shelf: Path, *options: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`kinshelf serve` as a process: its URL, and itself; killed at the end if still there."""
    line = [sys.executable, "-m", "kinshelf.cli", "serve", "--shelf", str(shelf), "--port", "0",
            "--json", "--quiet", "--rate", "100000", *options]  # fmt: skip
    child = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        yield json.loads(child.stdout.readline())["url"], child
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def until(true: Any, seconds: float = 30.0) -> None:
    """Wait for something to become so."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not become so"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    """Whether a process has ended; nobody may be there to reap it."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return stat.rsplit(")", 1)[1].split()[0] == "Z"


def error_of(response: httpx.Response) -> dict[str, Any]:
    """The one shape of failures, checked."""
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"type", "message", "reason", "retry_after"}
    found: dict[str, Any] = body["error"]
    return found
