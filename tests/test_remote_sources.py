"""Standard input and URLs as sources of `add`."""

from __future__ import annotations

import gzip
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

import kinshelf as ks
from kinshelf.cli import main
from kinshelf.db.errors import InputError, SourceNotFound, UnreadableSource
from kinshelf.db.formats.remote import fetched, is_remote
from kinshelf.db.product import pictures_of
from kinshelf.store import AddOptions

CSV = b"id,title\n1,mug\n2,bowl\n,nameless\n"
BODIES = {
    "/feed/products.csv": CSV,
    "/feed/packed.csv.gz": gzip.compress(CSV),
    "/feed/nameless": json.dumps({"id": "1", "title": "mug"}).encode(),
    "/feed/pictured.csv": b"id,title,image\n1,mug,a.png\n",
}


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            moved = path == "/moved"
            self.send_response(302 if moved else 200 if path in BODIES else 404)
            if moved:
                self.send_header("Location", "/feed/products.csv")
            body = BODIES.get(path, b"")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("path", ["/feed/products.csv?key=1", "/feed/packed.csv.gz", "/moved"])
def test_a_file_at_a_url_is_added_under_its_own_name(path: str, site: str, shelf: Any) -> None:
    for _ in range(2):
        report = shelf.add(site + path, AddOptions(allow_private_hosts=True))
    assert (report.unchanged, report.rejected) == (2, 1)
    (entry,) = shelf.snapshot().view.rejects()
    assert entry["source"] == site + path


def test_what_has_no_suffix_is_read_by_what_it_begins_with(site: str, shelf: Any) -> None:
    assert shelf.add(f"{site}/feed/nameless", AddOptions(allow_private_hosts=True)).inserted == 1


def test_pictures_beside_a_feed_are_at_its_server(site: str, shelf: Any) -> None:
    shelf.add(f"{site}/feed/pictured.csv", AddOptions(allow_private_hosts=True))
    assert pictures_of(shelf.get("1").product) == [f"{site}/feed/a.png"]


def test_a_private_address_is_refused_with_the_remedy(site: str, shelf: Any) -> None:
    with pytest.raises(UnreadableSource, match="--allow-private-hosts"):
        shelf.add(f"{site}/feed/products.csv")


def test_a_file_that_is_not_there_is_named(site: str) -> None:
    with (
        pytest.raises(SourceNotFound, match="HTTP 404"),
        fetched(f"{site}/none.csv", allow_private_hosts=True),
    ):
        pass


@pytest.mark.parametrize(
    "url", ["nothing://x/a.csv", "http://[", "http://user:secret@h.test/a.csv"]
)
def test_a_url_that_cannot_be_fetched_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(InputError) as caught, fetched(url):
        pass
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_object_store_is_read_by_fsspec(shelf: Any) -> None:
    fsspec = pytest.importorskip("fsspec")
    with fsspec.open("memory://feeds/a.csv", "wb") as file:
        file.write(CSV)
    assert shelf.add("memory://feeds/a.csv").inserted == 2


def test_standard_input_is_a_source(shelf: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(gzip.compress(CSV))))
    report = shelf.add("-")
    assert (report.inserted, report.rejected) == (2, 1)


def test_the_command_shows_what_comes_by_standard_input(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["add", "-", "--dry-run", "--json"], input=CSV)
    assert [product["id"] for product in json.loads(done.stdout)["products"]] == ["1", "2"]


@pytest.mark.parametrize(
    ("source", "remote"),
    [("-", True), ("s3://a/b", True), ("a.csv", False), (Path("https:/a"), False), ("C:/a", False)],
)
def test_what_is_no_file_of_this_machine(source: Any, remote: bool) -> None:
    assert is_remote(source) == remote


def test_standard_input_is_named_and_not_its_copy(tmp_path: Path) -> None:
    ks.create(tmp_path / "a.shelf", encoder="fake").close()
    for words, remedy in ((["-"], "standard input is empty"), (["-", "-"], "can be read once")):
        line = ["add", *words, "--shelf", str(tmp_path / "a.shelf")]
        done = CliRunner().invoke(main, line, input="")
        assert remedy in done.output
        assert "kinshelf-source" not in done.output
