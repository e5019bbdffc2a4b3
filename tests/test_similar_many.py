"""`similar --input`: one answer a product of a file, each compared with an exact search."""

from __future__ import annotations

import contextlib
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from conftest import FakeEncoder, unit, write_csv
from PIL import Image

import kinshelf.store.encode.encoder
from kinshelf import Shelf
from kinshelf.cli import main
from kinshelf.db.product import Product

DIMENSION, STORED, ASKED = 16, 50, 9


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A shelf of 50 products, and a file of 9 to ask about: the last is on the shelf too."""
    random = np.random.default_rng(5)
    for kind, count in (("stored", STORED), ("asked", ASKED)):
        rows = [
            {"id": f"{kind}{i}", "title": f"thing {i}", "price": i, "category": "ab"[i % 2]}
            for i in range(count)
        ]
        for half in ("image", "text"):
            made = unit(random.standard_normal((count, DIMENSION)))
            np.save(tmp_path / f"{kind}-{half}.npy", made)
        if kind == "asked":
            rows[-1]["id"] = "stored7"
            for half in ("image", "text"):
                made = np.load(tmp_path / f"asked-{half}.npy")
                made[-1] = np.load(tmp_path / f"stored-{half}.npy")[7]
                np.save(tmp_path / f"asked-{half}.npy", made)
        write_csv(tmp_path / f"{kind}.csv", rows)
    run(tmp_path, "init")
    run(tmp_path, "add", str(tmp_path / "stored.csv"), *arrays(tmp_path, "stored"))
    return tmp_path


def arrays(folder: Path, kind: str) -> list[str]:
    return [f"--{half}-embeddings={folder / f'{kind}-{half}.npy'}" for half in ("image", "text")]


def run(folder: Path, *arguments: str, code: int = 0) -> Result:
    done = CliRunner().invoke(main, [*arguments, "--shelf", str(folder / "a.shelf")])
    assert done.exit_code == code, done.output
    return done


def asked(folder: Path, *more: str) -> list[dict[str, object]]:
    command = ["similar", "--input", str(folder / "asked.csv"), *arrays(folder, "asked")]
    done = run(folder, *command, "--json", "--quiet", *more)
    return [json.loads(line) for line in done.stdout.splitlines()]


def expected(folder: Path, kept: np.ndarray, k: int) -> list[list[str]]:
    """By NumPy; a stored product is no neighbour of itself."""
    pairs = [np.load(folder / f"asked-{h}.npy") @ np.load(folder / f"stored-{h}.npy").T
              for h in ("image", "text")]  # fmt: skip
    scores = np.where(kept, sum(pairs) / 2, -np.inf)
    scores[-1, 7] = -np.inf
    order = np.argsort(-scores, axis=1)[:, :k]
    return [[f"stored{place}" for place in row] for row in order]


def test_every_product_of_a_file_gets_its_nearest_in_the_file_s_order(folder: Path) -> None:
    found = asked(folder, "-k", "5")
    assert [each["query"] for each in found] == [f"asked{i}" for i in range(8)] + ["stored7"]
    nearest = [[n["id"] for n in each["neighbours"]] for each in found]  # type: ignore[attr-defined]
    assert nearest == expected(folder, np.ones(STORED, dtype=bool), 5)
    assert all(each["exhaustive"] is True and each["generation"] == 1 for each in found)


def test_a_filter_counts_for_all_of_them(folder: Path) -> None:
    found = asked(folder, "-k", "3", "--where", "price < 20")
    nearest = [[n["id"] for n in each["neighbours"]] for each in found]  # type: ignore[attr-defined]
    assert nearest == expected(folder, np.arange(STORED) < 20, 3)


def test_without_json_it_is_a_table_of_the_nearest(folder: Path) -> None:
    command = ["similar", "--input", str(folder / "asked.csv"), *arrays(folder, "asked")]
    done = run(folder, *command)
    first = expected(folder, np.ones(STORED, dtype=bool), 1)
    assert all(name[0] in done.output for name in first)
    assert "9 answered, 0 rejected" in done.output


def test_a_file_and_a_picture_together_are_wrong_usage(folder: Path) -> None:
    done = run(folder, "similar", "--input", "a.csv", "--id", "stored1", code=2)
    assert "--input FILE" in done.output


@pytest.mark.parametrize("command", ["classify", "similar"])
@pytest.mark.parametrize("width", [3, 2 * DIMENSION])
def test_embeddings_of_another_width_are_refused_with_both_numbers(
    folder: Path, command: str, width: int
) -> None:
    np.save(folder / "other.npy", unit(np.random.default_rng(0).standard_normal((ASKED, width))))
    options = ["--input", str(folder / "asked.csv"), f"--text-embeddings={folder / 'other.npy'}"]
    done = run(folder, command, *options, code=3)
    assert f"{width} numbers a row" in done.stderr
    assert f"holds {DIMENSION}" in done.stderr


def test_nothing_is_stored(folder: Path) -> None:
    asked(folder)
    with Shelf.open(folder / "a.shelf") as shelf:
        assert shelf.generation == 1
        assert shelf.snapshot().count == STORED


@pytest.mark.parametrize("command", ["similar", "classify"])
def test_a_wrong_filter_is_one_line_before_anything_is_encoded(
    folder: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise AssertionError("encoded")

    monkeypatch.setattr("kinshelf.store.ingest.queries._query_batch", refused)
    given = [command, "--input", str(folder / "asked.csv"), "--where", "bad filter"]
    done = run(folder, *given, *arrays(folder, "asked"), code=3)
    assert done.stdout == ""
    assert done.stderr.startswith("Error: the filter cannot be read")
    assert done.stderr.count("\n") == 1


def test_a_picture_of_this_network_is_fetched_only_where_that_was_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoder: FakeEncoder
) -> None:
    monkeypatch.setattr(kinshelf.store.encode.encoder, "load_encoder", lambda *_a, **_k: encoder)
    file = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(file, "PNG")
    with Shelf.create(tmp_path / "a.shelf", encoder="fake") as shelf:
        rows = unit(np.random.default_rng(0).standard_normal((3, encoder.dimension)))
        shelf.upsert([Product(f"p{i}") for i in range(3)], rows, None)
    with served(file.getvalue()) as url:
        run(tmp_path, "similar", "--image", url, code=3)
        found = run(tmp_path, "similar", "--image", url, "--allow-private-hosts", "--json")
    assert len(found.stdout.splitlines()) == 3


@contextlib.contextmanager
def served(data: bytes) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/red.png"
        finally:
            server.shutdown()
            thread.join()
