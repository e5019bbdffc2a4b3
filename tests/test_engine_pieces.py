"""Pieces of shelves on engines that need no server: addresses, the lease, remembered vectors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kinshelf.db.catalog.tables import Catalog
from kinshelf.db.errors import InputError, ShelfLocked
from kinshelf.store.engines import snapshot
from kinshelf.store.engines.address import parse_address
from kinshelf.store.engines.backend import Condition
from kinshelf.store.engines.milvus import lease as milvus_lease
from kinshelf.store.engines.milvus.client import Link
from kinshelf.store.engines.milvus.lease import Lease
from kinshelf.store.engines.snapshot import Vectors
from kinshelf.store.engines.view import EngineView


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("postgresql://u:p@host/shop?schema=toys&timeout=3", "postgresql://u:p@host/shop"),
        ("postgresql:///shop?host=/run/postgresql", "postgresql:///shop?host=%2Frun%2Fpostgresql"),
        ("milvus://host/toys", "http://host:19530"),
        ("milvus://u:p@[::1]/toys", "http://[::1]:19530"),
        ("milvus://[::1]:9/toys?secure=1", "https://[::1]:9"),
    ],
)
def test_an_address_becomes_what_the_client_takes(text: str, url: str) -> None:
    assert parse_address(text).url == url


@pytest.mark.parametrize("timeout", ["nan", "inf", "0", "-1", "soon", "1e9"])
@pytest.mark.parametrize("address", ["postgresql://h/d", "milvus://h/c", "milvus-lite://a.db/c"])
def test_a_time_limit_that_is_none_is_refused_in_a_line(address: str, timeout: str) -> None:
    with pytest.raises(InputError, match="cannot be read as an address"):
        parse_address(f"{address}?timeout={timeout}")


def test_no_password_is_shown_wherever_it_stands() -> None:
    for text in ("postgresql://u:secret@h/d", "postgresql://h/d?user=u&password=secret&schema=s",
                 "milvus://u:secret@h/c", "milvus://h/c?token=secret"):  # fmt: skip
        assert "secret" not in parse_address(text).shown
    with pytest.raises(InputError) as error:
        parse_address("milvus://u:secret@h:port/c?token=secret")
    assert "secret" not in str(error.value)


class Entries:
    """The part of Milvus that a lease is kept in."""

    def __init__(self) -> None:
        self.text: str | None = None

    def put(self, _kind: str, _name: str, _generation: int, text: str) -> None:
        self.text = text

    def read_json(self, _kind: str, _name: str) -> Any:
        return None if self.text is None else json.loads(self.text)


def test_a_lease_that_was_lost_is_not_given_back_in_anothers_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entries: Any = Entries()
    first, second, third = (Lease(entries, "a shelf") for _ in range(3))
    monkeypatch.setattr(milvus_lease, "LEASE", 0.1)  # the first is silent for too long
    first.take(0)
    monkeypatch.setattr(milvus_lease, "LEASE", 60.0)
    second.take(1)
    with pytest.raises(ShelfLocked):
        first.renew()
    first.give_back()
    with pytest.raises(ShelfLocked):
        third.take(0)
    second.give_back()
    third.take(0)


@pytest.mark.parametrize("limit", [1 << 20, 40 * 16, 10 * 16])
def test_vectors_are_the_same_whether_they_are_remembered_or_not(
    limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "REMEMBERED_BYTES", limit)
    stored = np.random.default_rng(0).standard_normal((200, 4)).astype(np.float32)
    vectors = Vectors(lambda rows: stored[rows])
    for count in (30, 1, 100, 8, 9, 30):
        rows = np.random.default_rng(count).integers(0, 200, count)
        np.testing.assert_array_equal(vectors.of(rows), stored[rows])
        assert vectors._held.nbytes <= limit


class Speechless:
    """An engine that can say nothing of a filter: each is decided by rows."""

    def translate(self, *_: Any) -> Condition:
        return Condition("", exact=False)


def test_rows_that_match_several_filters_match_all_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    view = EngineView(Speechless(), Catalog(), 0)  # type: ignore[arg-type]
    rows = iter(map(np.array, ([1, 2, 3, 4], [2, 3], [1, 3, 4, 2][1:3])))
    monkeypatch.setattr(EngineView, "_decided_here", lambda *_: next(rows))
    found = view.where(*(view.checked(f"price > {i}") for i in range(3)))
    assert found.rows is not None
    assert found.rows.tolist() == [3]


def test_a_short_page_of_a_cluster_is_not_taken_for_the_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("pymilvus", reason="pymilvus is not installed")
    stored = [{"row": row} for row in range(10)]

    def short(_link: Link, _collection: str, condition: str, *_: Any) -> list[dict[str, int]]:
        after = int(condition.rpartition(" ")[2]) if condition else -1
        return [entity for entity in stored if entity["row"] > after][:3]  # of the 5 asked for

    monkeypatch.setattr(Link, "_page", short)
    pages = Link(parse_address("milvus://h/c")).pages("c", "", ["row"], "row", 5)
    assert [entity for page in pages for entity in page] == stored


HOLDER = """
import sys
from kinshelf import create as create_shelf
with create_shelf(sys.argv[1], encoder="fake"):
    print("open", flush=True)
    sys.stdin.read()
"""


def test_a_file_of_milvus_lite_that_is_open_elsewhere_or_none_is_reported_in_a_line(
    tmp_path: Path,
) -> None:
    pytest.importorskip("milvus_lite", reason="Milvus Lite is not installed")
    address = f"milvus-lite://{tmp_path}/held.db/toys"
    (tmp_path / "none.db").write_text("not a folder")
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, address],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as holder:  # fmt: skip
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        for place in (address, f"milvus-lite://{tmp_path}/none.db/toys"):
            command = [sys.executable, "-m", "kinshelf.cli", "list", "--shelf", place]
            done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
            assert done.returncode == 3
            assert done.stderr.startswith("Error: ")
            assert "cannot be opened" in done.stderr
            assert done.stderr.count("\n") == 1
        holder.communicate("")
