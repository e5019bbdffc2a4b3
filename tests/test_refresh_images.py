"""A picture that was replaced at the same URL is noticed, and costs a conditional request alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from kinshelf.db.catalog.queries import FILTER_COLUMNS
from kinshelf.db.layouts.names import OURS
from kinshelf.store import AddOptions


def png(colour: str) -> bytes:
    stream = BytesIO()
    Image.new("RGB", (64, 64), colour).save(stream, "PNG")
    return stream.getvalue()


class Site:
    """One picture at /a.png, its version, and the answers that were given."""

    def __init__(self) -> None:
        self.data, self.version, self.kind = png("red"), 1, "etag"
        self.statuses: list[int] = []
        self.failing = False

    def validators(self) -> dict[str, str]:
        if self.kind == "etag":
            return {"ETag": f'W/"{self.version}"'}
        return {"Last-Modified": f"Mon, 0{self.version} Jun 2026 10:00:00 GMT"}

    def replace(self, colour: str) -> None:
        self.data, self.version = png(colour), self.version + 1


@pytest.fixture
def site() -> Iterator[Any]:
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = {self.headers["If-None-Match"], self.headers["If-Modified-Since"]}
            same = asked & set(site.validators().values())
            status = 404 if site.failing else 304 if same else 200
            site.statuses.append(status)
            self.send_response(status)
            for name, value in site.validators().items():
                self.send_header(name, value)
            body = site.data if status == 200 else b""
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    site.url = f"http://127.0.0.1:{server.server_port}/a.png"  # type: ignore[attr-defined]
    yield site
    server.shutdown()
    server.server_close()


def options(refresh: bool | None = None) -> AddOptions:
    return AddOptions(allow_private_hosts=True, refresh_images=refresh)


def source(tmp_path: Path, site: Any, title: str = "mug") -> Path:
    path = tmp_path / "p.csv"
    path.write_text(f"id,title,image\n1,{title},{site.url}\n")
    return path


def picture(shelf: Any) -> str:
    return str(shelf.snapshot().get("1").image_hash)


@pytest.mark.parametrize("kind", ["etag", "modified"])
def test_a_replaced_picture_is_fetched_when_asked_for(
    tmp_path: Path, shelf: Any, site: Any, kind: str
) -> None:
    site.kind = kind
    path = source(tmp_path, site)
    shelf.add(path, options())
    first = picture(shelf)
    assert shelf.add(path, options(True)).unchanged == 1
    site.replace("blue")
    assert shelf.add(path, options()).unchanged == 1  # nothing changed that it could know of
    assert shelf.add(path, options(True)).updated == 1
    assert picture(shelf) != first
    assert site.statuses == [200, 304, 200]


def test_a_product_that_changed_or_came_back_has_its_picture_asked_for(
    tmp_path: Path, shelf: Any, site: Any
) -> None:
    shelf.add(source(tmp_path, site), options())
    first = picture(shelf)
    site.replace("blue")
    shelf.add(source(tmp_path, site, "cup"), options(False))
    assert picture(shelf) == first
    shelf.add(source(tmp_path, site, "red cup"), options())
    second = picture(shelf)
    assert second != first
    site.replace("green")
    shelf.remove(["1"])
    shelf.add(source(tmp_path, site, "red cup"), options())
    assert picture(shelf) not in {first, second}
    assert site.statuses == [200, 200, 200]


def test_a_picture_that_cannot_be_refreshed_stays(tmp_path: Path, shelf: Any, site: Any) -> None:
    path = source(tmp_path, site)
    shelf.add(path, options())
    first = picture(shelf)
    site.failing = True
    report = shelf.add(path, options(True))
    assert (report.unchanged, report.image_failed, picture(shelf)) == (1, 0, first)
    assert "404" in report.examples["image-kept"]


def test_a_picture_that_many_products_share_is_asked_for_once(
    tmp_path: Path, shelf: Any, site: Any
) -> None:
    path = tmp_path / "p.csv"
    path.write_text("id,title,image\n" + "".join(f"{i},mug {i},{site.url}\n" for i in range(200)))
    shelf.add(path, options())
    shelf.add(path, options(True))
    assert site.statuses == [200, 304]


def test_an_attribute_named_like_a_column_is_found_by_another_name(
    tmp_path: Path, shelf: Any
) -> None:
    path = tmp_path / "p.csv"
    path.write_text("id,title,row,added,has_image,colour\n1,mug,7,yesterday,maybe,red\n")
    report = shelf.add(path)
    assert report.notes == [
        f"p.csv: its column {name!r} is kept as the attribute 'source_{name}'"
        for name in ("row", "added", "has_image")
    ]
    now = shelf.snapshot()
    where = "source_row = 7 AND source_added = 'yesterday' AND source_has_image = 'maybe'"
    assert [p.product.id for p in now.select(where)] == ["1"]
    assert not now.select("row = 7")
    assert set(FILTER_COLUMNS) <= OURS
