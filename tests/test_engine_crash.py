"""Engines and writers that are killed in the middle of adds, and servers that are not there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from engine_products import products
from engines import Milvus, Postgres, free_port, running

from kinshelf import create as create_shelf
from kinshelf import open as open_shelf
from kinshelf.cli import main
from kinshelf.db.errors import EngineUnavailable, InputError
from kinshelf.store.engines.milvus import backend as milvus
from kinshelf.store.engines.postgres import backend as postgres

BATCHES, SIZE = 24, 5


@pytest.fixture(scope="module", params=["postgres", "milvus"])
def engine(request: pytest.FixtureRequest) -> Iterator[Any]:
    with running(request.param) as engine:
        yield engine


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def batch(number: int) -> tuple[Any, Any, Any]:
    made, image, text = products(BATCHES * SIZE)
    part = slice(number * SIZE, (number + 1) * SIZE)
    return made[part], image[part], text[part]


class Adding(threading.Thread):
    """Adds batch after batch and remembers what was acknowledged."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self.address = address
        self.acknowledged: list[int] = []
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            with open_shelf(self.address) as shelf:
                for number in range(BATCHES):
                    report = shelf.upsert(*batch(number))
                    assert report.inserted == SIZE
                    self.acknowledged.append(number)
        except Exception as error:  # noqa: BLE001 - reported by the test
            self.error = error


def test_an_engine_killed_twice_in_the_middle_of_adds_loses_nothing_and_the_adds_go_on(
    engine: Postgres | Milvus,
) -> None:
    address = engine.address("killed")
    create_shelf(address, encoder="fake").close()
    adding = Adding(address)
    adding.start()
    for stop_after in (4, 12):
        while len(adding.acknowledged) < stop_after and adding.is_alive():
            time.sleep(0.01)
        engine.kill()
        acknowledged = len(adding.acknowledged)
        engine.start()
        with open_shelf(address) as reader:
            known = reader.snapshot().view.by_ids([f"p{i}" for i in range(acknowledged * SIZE)])
            assert len(known) == acknowledged * SIZE
    adding.join(120)
    assert adding.error is None
    assert adding.acknowledged == list(range(BATCHES))
    with open_shelf(address) as shelf:
        now = shelf.snapshot()
        assert [p.product.id for p in now.select()] == [f"p{i}" for i in range(BATCHES * SIZE)]
        image, text = products(BATCHES * SIZE)[1:]
        rows = [p.row for p in now.select()]
        np.testing.assert_array_equal(now.pairs(rows), np.hstack([image, text]))
        assert now.generation == BATCHES


WRITER = """
import os, signal, sys
sys.path.insert(0, sys.argv[2])
from test_engine_crash import batch
from kinshelf.store.engines.milvus import backend as milvus
from kinshelf.store.engines.postgres import backend as postgres
from kinshelf import open as open_shelf

def end(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

with open_shelf(sys.argv[1]) as shelf:
    shelf.upsert(*batch(0))
    made, image, text = batch(1)
    old = batch(0)[0][0].replace(title="changed")
    postgres.json.dumps = end  # in the transaction, products written and the log not
    milvus.MilvusBackend._put_state = end  # all is written but the entry that makes it count
    shelf.upsert([old, *made], *(__import__("numpy").vstack([a[:1], a]) for a in (image, text)))
"""


def test_a_half_done_batch_is_invisible_and_finished_by_running_it_again(
    engine: Postgres | Milvus,
) -> None:
    address = engine.address("half")
    create_shelf(address, encoder="fake").close()
    tests = str(Path(__file__).parent)
    died = subprocess.run([sys.executable, "-c", WRITER, address, tests], timeout=120, check=False)
    assert died.returncode == -signal.SIGKILL
    first = batch(0)
    with open_shelf(address, wait=20) as shelf:
        assert (shelf.generation, shelf.snapshot().count) == (1, SIZE)
        assert shelf.get("p0").product == first[0][0]
        # another batch than the one that died takes its place: nothing of that one comes back
        assert shelf.upsert(*batch(2)).inserted == SIZE
        assert shelf.snapshot().count == 2 * SIZE
        assert shelf.get("p0").product == first[0][0]
        assert shelf.upsert(*batch(1)).inserted == SIZE
        assert shelf.upsert(*batch(1)).unchanged == SIZE
        assert sorted(shelf.snapshot().view.row_by_id()) == sorted(f"p{i}" for i in range(3 * SIZE))


LITE = """
import sys
sys.path.insert(0, sys.argv[2])
from test_engine_crash import BATCHES, batch
from kinshelf import open as open_shelf

with open_shelf(sys.argv[1]) as shelf:
    for number in range(BATCHES):
        shelf.upsert(*batch(number))
        print(number, flush=True)
"""


def test_a_killed_process_that_holds_a_file_of_milvus_lite_loses_nothing_acknowledged(
    tmp_path: Path,
) -> None:
    pytest.importorskip("milvus_lite", reason="Milvus Lite is not installed")
    address = f"milvus-lite://{tmp_path}/lite.db/toys"
    create_shelf(address, encoder="fake").close()
    command = [sys.executable, "-c", LITE, address, str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        acknowledged = [int(writer.stdout.readline()) for _ in range(5)]
        writer.kill()
        acknowledged += [int(line) for line in writer.stdout if line.endswith("\n")]
    expected = {f"p{i}" for n in acknowledged for i in range(n * SIZE, (n + 1) * SIZE)}
    with open_shelf(address, wait=20) as shelf:
        there = {p.product.id for p in shelf.snapshot().select()}
        assert expected <= there
        assert len(there) <= len(expected) + SIZE
        for number in range(BATCHES):
            shelf.upsert(*batch(number))
        assert shelf.snapshot().count == BATCHES * SIZE


def test_a_server_that_is_not_there_is_one_line_with_the_address_and_no_password() -> None:
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    port = free_port()
    address = f"postgresql://kin:secret@127.0.0.1:{port}/postgres"
    done = CliRunner().invoke(main, ["info", "--shelf", address])
    assert done.exit_code == 3
    assert f"kin:***@127.0.0.1:{port}" in done.stderr
    assert "secret" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    pytest.importorskip("pymilvus", reason="pymilvus is not installed")
    started = time.monotonic()
    with pytest.raises(EngineUnavailable, match=str(port)):
        open_shelf(f"milvus://127.0.0.1:{port}/toys?timeout=1")
    assert time.monotonic() - started < 20


@pytest.mark.parametrize(
    "address",
    ["redis://host/x", "milvus:///toys", "milvus-lite://kin.sqlite/toys", "milvus://h/a b",
     "postgresql://h/db?schema=a;b", "postgresql://h/db?timeout=soon"],
)  # fmt: skip
def test_an_address_that_cannot_be_read_is_explained(address: str) -> None:
    with pytest.raises(InputError):
        open_shelf(address)


def test_a_statement_that_takes_too_long_is_an_engine_that_did_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with running("postgres") as engine:
        assert isinstance(engine, Postgres)
        address = engine.address("slow")
        create_shelf(address, encoder="fake").close()
        with open_shelf(address.replace("timeout=30", "timeout=0.2")) as shelf:
            monkeypatch.setattr(postgres, "clauses", lambda _: ("pg_sleep(3) IS NULL", []))
            with pytest.raises(EngineUnavailable, match=r"within 0\.2 s"):
                shelf.upsert(*batch(0))
                shelf.snapshot().view.count()


def test_what_only_a_directory_can_do_reports_it(engine: Postgres | Milvus) -> None:
    address = engine.address("other")
    create_shelf(address, encoder="fake").close()
    for command in (["verify"], ["sql", "SELECT 1"], ["reembed"]):
        done = CliRunner().invoke(main, [*command, "--shelf", address])
        assert done.exit_code == 3
        assert "director" in done.stderr


def test_no_engine_is_loaded_for_a_directory() -> None:
    code = (
        "import sys; from kinshelf.store.engines.open import open_shelf; import kinshelf.cli;"
        "assert not {'psycopg', 'pymilvus', 'grpc'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ))


assert milvus.MilvusBackend  # WRITER replaces a method of it
