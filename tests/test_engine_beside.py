"""What happens beside each other on an engine: readers, compaction, writers; and odd values."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from engine_products import SETTINGS, fill, products
from engines import Milvus, Postgres, running

from kinshelf import Shelf
from kinshelf import create as create_shelf
from kinshelf import open as open_shelf
from kinshelf.cli import main
from kinshelf.cluster.blocks import spooled
from kinshelf.db.errors import (
    EngineRefused,
    GenerationNotFound,
    ProductNotFound,
    ShelfDamaged,
    ShelfLocked,
    ShelfNotFound,
)
from kinshelf.db.product import Product
from kinshelf.probe.fit.settings import ProbeSettings
from kinshelf.probe.predict.freshness import probe_facts
from kinshelf.probe.train import train_shelf
from kinshelf.store.base import AnyShelf
from kinshelf.store.engines.postgres import schema
from kinshelf.store.probes import find_probe


@pytest.fixture(scope="module", params=["postgres", "milvus"])
def engine(request: pytest.FixtureRequest) -> Iterator[Postgres | Milvus]:
    with running(request.param) as engine:
        assert isinstance(engine, Postgres | Milvus)
        yield engine


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def shelf(engine: Any, request: pytest.FixtureRequest) -> Iterator[AnyShelf]:
    name = "".join(c for c in request.node.name.split("[")[0] if c.isalnum())[-40:]
    with create_shelf(engine.address(f"t{name}"), encoder="fake") as made:
        yield made


def test_a_reader_that_a_compaction_overtook_is_reported_and_reads_no_part_for_the_whole(
    shelf: AnyShelf, engine: Any
) -> None:
    made, _ = fill(shelf, 40)
    then = shelf.snapshot()
    found = then.get("p3")
    blocks = then.iter_products(size=10)
    next(blocks)
    shelf.remove([p.id for p in made[5:35]])
    shelf.compact()
    with pytest.raises(GenerationNotFound, match="compacted away"):
        list(blocks)
    with pytest.raises(GenerationNotFound, match="compacted away"):
        then.view.rows()
    assert shelf.snapshot().view.by_rows([found.row])[found.row] == found


def test_values_that_an_engine_knows_no_words_for_come_back_as_they_were(shelf: AnyShelf) -> None:
    image, text = products(4)[1:]
    given = [
        Product("a", title="x y z", attributes={"n": 10**17, "t": "ab"}),
        Product("b", title='"\\%_', attributes={"n": 2**59, 'q"\\': True}),
        Product("c", title="e" * 70_000, category="\u0130", attributes={"n": 7}),
    ]
    report = shelf.upsert([*given, Product("d\x01")], image, text)
    assert (report.inserted, report.reasons) == (3, {"bad-text": 1})
    now = shelf.snapshot()
    assert [stored.product for stored in now.select()] == given
    assert [stored.product.id for stored in now.select("n > 100")] == ["a", "b"]
    with pytest.raises(ProductNotFound):
        shelf.get("d\x01")


def test_a_probe_is_fetched_once_by_all_that_ask_and_only_by_names_of_files(
    shelf: AnyShelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: Any
) -> None:
    fill(shelf, 60)
    train_shelf(shelf, SETTINGS)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another-machine"))
    failed: list[BaseException] = []

    def fetch(other: AnyShelf) -> None:
        try:
            assert find_probe(other, other.snapshot()).path.is_dir()
        except BaseException as error:  # noqa: BLE001 - reported by the test
            failed.append(error)

    opened = [open_shelf(_address_of(shelf, engine)) for _ in range(4)]
    threads = [threading.Thread(target=fetch, args=(other,)) for other in opened]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failed
    entry = find_probe(opened[0], opened[0].snapshot())
    outside = dataclasses.replace(entry, files={"../../outside": "0"})
    with pytest.raises(ShelfDamaged, match="outside"):
        opened[0].bring_probe(outside)
    for other in opened:
        other.close()


def _address_of(shelf: AnyShelf, engine: Any) -> str:
    address: Any = shelf._backend._address  # type: ignore[attr-defined]
    return str(engine.address(address.place))


def test_train_reads_an_engines_vectors_once_in_blocks(
    shelf: AnyShelf, engine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = type(shelf._backend)  # type: ignore[attr-defined]
    scan, read = backend.scan, []

    def watched(self: Any, where: Any, columns: Any, **asked: Any) -> Any:
        for block in scan(self, where, columns, **asked):
            read.append(len(block[0]) if asked.get("vectors") else 0)
            yield block

    def refused(*_: Any) -> Any:
        raise AssertionError("rows are fetched again")

    with Shelf.create(tmp_path / "oracle.shelf", encoder="fake") as oracle:
        for each in (oracle, shelf):
            made, _ = fill(each, 200)
        labelled = sum(product.category is not None for product in made)
        monkeypatch.setattr(backend, "scan", watched)
        monkeypatch.setattr(backend, "vectors", refused)
        with spooled(shelf, size=64) as data:
            assert data.labelled()[1].tolist() == oracle.snapshot().labelled()[1].tolist()
            rows = np.arange(labelled)
            expected = oracle.snapshot().fused(oracle.snapshot().labelled()[0])
            np.testing.assert_array_equal(data.fused(rows), expected)
        assert (max(read), sum(read)) == (64, labelled)
        read.clear()
        command = ["train", "--shelf", _address_of(shelf, engine), "--epochs", "4", "--json"]
        done = CliRunner().invoke(main, command, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        assert sum(read) == labelled
        reported, wanted = json.loads(done.stdout), train_shelf(oracle, ProbeSettings(epochs=4))
        assert reported["metrics"]["train_loss"] == wanted.metrics["train_loss"]
        assert reported["generation"] == 2
        assert probe_facts(shelf)["since_training"]["added"] == 0


def test_a_writer_whose_connection_and_lock_were_lost_writes_nothing_more(
    shelf: AnyShelf, engine: Any
) -> None:
    if not isinstance(engine, Postgres):
        pytest.skip("Milvus has a lease in place of a lock: see test_engine_pieces.py")
    made, pairs = fill(shelf, 20)
    image, text = np.split(pairs, 2, axis=1)
    link: Any = shelf._backend._link  # type: ignore[attr-defined]
    with open_shelf(_address_of(shelf, engine)) as other, shelf.writing():
        link._connection.close()  # as a network does
        with other.writing():
            for _ in range(2):  # the second on the connection that the first one opened
                with pytest.raises(ShelfLocked):
                    shelf.upsert([made[0].replace(title="changed")], image[:1], text[:1])
            assert other.remove(["p1"]) == 1
    assert shelf.snapshot().get("p0").product == made[0]


def test_a_pgvector_that_is_too_old_is_reported_and_nothing_is_made(
    engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not isinstance(engine, Postgres):
        pytest.skip("of PostgreSQL")
    monkeypatch.setattr(schema, "NEEDED", (99, 0))
    with pytest.raises(EngineRefused, match=r"99\.0 or newer"):
        create_shelf(engine.address("tooold"), encoder="fake")
    with pytest.raises(ShelfNotFound):
        open_shelf(engine.address("tooold"))


VARIANTS = [
    Product("1", title="Boot 10\u00b2", brand="Nordlicht\u2122", attributes={"size": "5\u00bd"}),
    Product(
        "2", title="\ufb01ne \uff2dug", category="Gr\u00f6\u00dfen", attributes={"size": "\uff11"}
    ),
    Product("3", title="plain mug", category="Gro\u0308\u00dfen", attributes={"size": "1"}),
]


SPELLED = {
    "category = 'Gr\u00f6\u00dfen'": ["2", "3"], "id = '1'": ["1"], "length(title) = 7": ["2"],
    "title = 'Boot 102'": ["1"], "title = 'Boot 10\u00b2'": ["1"],
    "brand = 'NordlichtTM'": ["1"], "size = '1'": ["2", "3"], "size <> '1'": ["1"],
    "size IN ('5\u00bd', 'x')": ["1"], "title LIKE 'fine M%'": ["2"],
    "contains(title, 'Mug')": ["2"], "title = 'fine Mug' AND size = '\uff11'": ["2"],
    "starts_with(title, 'Boot 10\u00b2')": ["1"],
}  # fmt: skip


def test_a_text_is_found_in_either_spelling(shelf: AnyShelf) -> None:
    image, text = products(3)[1:]
    shelf.upsert(VARIANTS, image, text)
    now = shelf.snapshot()
    found = {each: [stored.product.id for stored in now.select(each)] for each in SPELLED}
    assert found == SPELLED
    kept = {stored.product.id: stored.product for stored in now.select()}
    assert [kept[v.id].title for v in VARIANTS] == [v.title for v in VARIANTS]
    assert kept["1"].attributes == {"size": "5\u00bd"}


def test_a_schema_of_an_earlier_version_comes_to_find_either_spelling(shelf: AnyShelf) -> None:
    if "milvus" in type(shelf._backend).__module__:  # type: ignore[attr-defined]
        pytest.skip("of PostgreSQL")
    image, text = products(3)[1:]
    shelf.upsert(VARIANTS, image, text)
    link = shelf._backend._link  # type: ignore[attr-defined]
    link.run(lambda connection: connection.execute("DROP FUNCTION kin_nfkc CASCADE"))
    link.close()  # the next connection looks what the schema has
    assert [s.product.id for s in shelf.snapshot().select("title = 'Boot 102'")] == ["1"]
