"""A real server over the sample, and the system's Chromium on it; both are ended by the tests."""

from __future__ import annotations

import csv
import functools
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kinshelf.samples import catalogue_dir, tiny_clip_dir

ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
HOSTILE = "\"><script>document.title='taken'</script><img src=x onerror=alert(2)> {{ 7 * 7 }} & <b>"
HOSTILE_ID = "<i>odd</i> ?&#/\"'"
PRODUCTS = 240
NAMES = ("chromium", "chromium-browser", "google-chrome")


def chromium() -> str:
    """The path of the system's browser, or of Playwright's own; skipped where there is neither."""
    pytest.importorskip("playwright", reason="playwright is not installed")
    found = next(filter(None, map(shutil.which, NAMES)), None) or _of_playwright()
    if found is None:
        pytest.skip("no Chromium: `playwright install chromium`, or the system's package")
    return found


@functools.cache
def _of_playwright() -> str | None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if Path(path).is_file() else None


@contextmanager
def opened_browser() -> Iterator[Any]:
    """Chromium, closed at the end."""
    path = chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


def make_shelf(path: Path, products: int = PRODUCTS, epochs: int = 8) -> None:
    """A part of the sample on a trained shelf, and all of its new arrivals."""
    from kinshelf import Shelf
    from kinshelf.probe import ProbeSettings, train_shelf
    from kinshelf.store import AddOptions

    sample = catalogue_dir()
    part = path.with_suffix(".csv")
    with (sample / "products.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))[:products]
    with part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    with Shelf.create(path, encoder=str(tiny_clip_dir())) as shelf:
        shelf.add(part, AddOptions(images=sample))
        train_shelf(shelf, ProbeSettings(epochs=epochs))
        shelf.add(sample / "incoming.csv")


def add_hostile(path: Path) -> None:
    """A product whose id, title and description try to be more than text."""
    from kinshelf import Shelf
    from kinshelf.store import Product

    with Shelf.open(path) as shelf:
        shelf.upsert([Product(HOSTILE_ID, title=HOSTILE, description=HOSTILE)])


@dataclass(frozen=True)
class Server:
    """A server's address, and its shelf."""

    url: str
    shelf: Path


@contextmanager
def served(shelf: Path, *options: str) -> Iterator[Server]:
    """`kinshelf serve` as its own process, on a free port of this machine alone."""
    code = "import sys; from kinshelf.cli import main; sys.exit(main())"
    command = [
        sys.executable, "-c", code, "serve", "--shelf", str(shelf), "--port", "0", "--json",
        "--quiet", "--wait", "0.2", "--rate", "1000", *options,
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield Server(json.loads(process.stdout.readline())["url"], shelf)
        finally:
            process.terminate()
            process.wait(30)


HOLD = """
import sys, time
from pathlib import Path
from kinshelf.store.log.lock import WriterLock
with WriterLock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def held(shelf: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the writer's lock until it is reported a line."""
    command = [sys.executable, "-c", HOLD, str(shelf), "--a-long-import"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def release(process: subprocess.Popen[str]) -> None:
    """Let the holder go, and wait until it is gone."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    process.wait(30)


class Visit:
    """A page, and what it complained of and asked for meanwhile."""

    def __init__(self, browser: Any, server: Server, **settings: Any) -> None:
        self.server = server
        self.context = browser.new_context(base_url=server.url, **settings)
        self.context.set_default_timeout(20_000)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.asked: list[str] = []
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self._note)
        self.page.on("request", lambda request: self.asked.append(request.url))

    def _note(self, message: Any) -> None:
        expected = "Failed to load resource" in message.text  # a status that the page tells of
        if message.type in ("error", "warning") and not expected:
            self.complaints.append(message.text)

    def goto(self, path: str) -> Any:
        """Open a path of the server."""
        return self.page.goto(path)

    def width(self) -> int:
        """How wide the page is, which may be more than the window."""
        return int(self.page.evaluate("document.documentElement.scrollWidth"))

    def check(self) -> None:
        """Nothing failed in the browser, and nothing was asked of anybody but the server."""
        assert not self.complaints, self.complaints
        outside = [
            url for url in self.asked if not url.startswith((self.server.url, "blob:", "data:"))
        ]
        assert outside == []
        assert self.page.title() != "taken"
