"""`compact` gives back space, can be killed anywhere, and readers go on meanwhile."""

from __future__ import annotations

import io
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import unit
from PIL import Image

from kinshelf import Shelf
from kinshelf.cli import main
from kinshelf.db.errors import GenerationNotFound, InputError, ShelfError
from kinshelf.db.images.cache import ImageCache
from kinshelf.db.product import Product
from kinshelf.serve.base.settings import ServeSettings
from kinshelf.serve.service.pictures import Pictures
from kinshelf.serve.workers.decoding import Decoders
from kinshelf.store.log import disk
from kinshelf.store.maintain.verify import verify_path
from kinshelf.store.probes import find_probe, save_probe

DIMENSION = 8
State = dict[str, tuple[Product, int, bytes]]


def put(shelf: Shelf, names: list[str], seed: int, category: str | None = "Toys") -> None:
    rng = np.random.default_rng(seed)
    image, text = (unit(rng.standard_normal((len(names), DIMENSION))) for _ in range(2))
    products = [Product(n, f"{n} v{seed}", category=category, price=seed / 4) for n in names]
    shelf.upsert(products, image, text)


def state_of(shelf: Shelf, at: int | None = None) -> State:
    """Each product, the generation that it came in with, and its stored bytes."""
    now = shelf.snapshot(at)
    return {s.product.id: (s.product, s.added, now.pairs([s.row]).tobytes()) for s in now.select()}


def reopened(path: Path) -> State:
    with Shelf.open(path) as shelf:
        return state_of(shelf)


def damage(path: Path) -> list[str]:
    return [f.problem for f in verify_path(path)[0] if not f.harmless]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generations 1 and 2 add, 3 replaces and rejects, 4 removes, 5 trains, 6 adds."""
    path = tmp_path_factory.mktemp("made") / "toys.shelf"
    with Shelf.create(path, encoder="fake") as shelf:
        put(shelf, ["a1", "a2", "a3"], 1)
        put(shelf, ["b1", "b2"], 2, None)
        shelf.upsert(
            [Product("a2", "a2 v3", attributes={"new": True}), Product("bad")],
            np.vstack([unit(np.ones((1, DIMENSION))), np.zeros((1, DIMENSION))]),
        )
        shelf.remove(["a3"])
        save_probe(
            shelf, lambda d: (d / "probe.json").write_text("{}") and None,
            trained_on=4, classes=2, metrics={"accuracy": 0.5},
        )  # fmt: skip
        put(shelf, ["c1", "a1"], 6)
    return path


@pytest.fixture
def path(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "toys.shelf"))


def test_a_compacted_shelf_holds_the_same_products_to_the_bit(path: Path) -> None:
    with Shelf.open(path) as shelf:
        before = state_of(shelf)
        report = shelf.compact()
        assert state_of(shelf) == before
        assert (report.rows_kept, report.rows_dropped) == (5, 3)
        assert report.bytes_after < report.bytes_before
    assert reopened(path) == before
    assert damage(path) == []
    assert (path / "vectors-1.f32").stat().st_size == 5 * 2 * DIMENSION * 4
    assert not list(path.glob("*-0.*"))


def test_rejects_probes_attribute_types_and_history_survive(path: Path) -> None:
    def rest(shelf: Shelf) -> list[Any]:
        view = shelf.snapshot().view
        return [view.rejects(), view.probes(), view.attribute_types(), view.commits()]

    with Shelf.open(path) as shelf:
        before = rest(shelf)
        assert all(before)
        shelf.compact()
        assert rest(shelf) == before
    with Shelf.open(path) as shelf:
        assert rest(shelf) == before
        assert find_probe(shelf, shelf.snapshot()).version == 1


@pytest.mark.parametrize("keep", [1, 2, 3, 4, 6, 7, 100])
def test_the_newest_generations_can_be_asked_and_no_older_ones(path: Path, keep: int) -> None:
    with Shelf.open(path) as shelf:
        before = {at: state_of(shelf, at) for at in range(7)}
        oldest = shelf.compact(keep).oldest
    assert oldest == max(0, 6 - keep + 1)
    with Shelf.open(path) as shelf:
        for at in range(oldest, 7):
            assert state_of(shelf, at) == before[at]
        if oldest:
            with pytest.raises(GenerationNotFound, match=f"generations {oldest} to 6"):
                shelf.snapshot(oldest - 1)
        kept = {c["generation"]: c["kept"] for c in shelf.history()}
    assert kept == {g: g >= oldest for g in range(1, 7)}


def test_numbers_of_generations_go_on_and_those_of_rows_are_not_given_again(path: Path) -> None:
    with Shelf.open(path) as shelf:
        used = shelf.next_row
        shelf.compact()
        rows = {s.row for s in shelf.snapshot().select()}
        assert min(rows) >= used
        put(shelf, ["d1"], 7)
        assert shelf.generation == 7
        shelf.compact(keep=2)
        put(shelf, ["d2"], 8)
        assert shelf.generation == 8
        assert not rows & {s.row for s in shelf.snapshot().select()}
    assert sorted(reopened(path)) == ["a1", "a2", "b1", "b2", "c1", "d1", "d2"]
    assert damage(path) == []


def test_unchanged_products_are_still_recognised(path: Path) -> None:
    with Shelf.open(path) as shelf:
        shelf.compact()
        generation = shelf.generation
        put(shelf, ["c1", "a1"], 6)
        assert shelf.generation == generation


def test_an_empty_shelf_can_be_compacted(tmp_path: Path) -> None:
    with Shelf.create(tmp_path / "s", encoder="fake") as shelf:
        assert shelf.compact().rows_kept == 0
        put(shelf, ["a1"], 1)
        shelf.remove(["a1"])
        shelf.compact()
        put(shelf, ["a2"], 2)
    assert list(reopened(tmp_path / "s")) == ["a2"]
    assert damage(tmp_path / "s") == []


def test_to_keep_nothing_is_refused(path: Path) -> None:
    with Shelf.open(path) as shelf, pytest.raises(InputError, match="--keep 0"):
        shelf.compact(keep=0)


def test_a_reader_goes_on_with_the_old_epoch_and_then_takes_up_the_new_one(path: Path) -> None:
    with Shelf.open(path) as reader, Shelf.open(path) as writer:
        held = reader.snapshot()
        queries = held.pairs([held.get("a2").row])
        before = state_of(reader)
        expected = held.kneighbors(queries, 3)
        writer.compact()
        again = held.kneighbors(queries, 3)  # the snapshot's own epoch, whose files are gone
        assert np.array_equal(again.rows, expected.rows)
        assert held.get("a2").row == expected.rows[0][0]
        now = reader.snapshot()
        assert state_of(reader) == before
        answer = now.kneighbors(queries, 3)
        names = [now.view.by_rows(answer.rows[0])[int(row)].product.id for row in answer.rows[0]]
        known = held.view.by_rows(expected.rows[0])
        assert names == [known[int(row)].product.id for row in expected.rows[0]]
        assert np.array_equal(answer.similarities, expected.similarities)


def test_a_snapshot_whose_index_was_never_asked_for_survives_a_compaction(path: Path) -> None:
    with Shelf.open(path) as shelf:
        held = shelf.snapshot()
        row = held.get("b2").row
        shelf.remove(["a1"])
        shelf.compact()
        shelf.snapshot().kneighbors(held.pairs([row]), 1)
        assert held.kneighbors(held.pairs([row]), 1).rows[0][0] == row


def test_threads_and_new_handles_read_on_through_compactions(path: Path) -> None:
    before = reopened(path)
    problems: list[BaseException | State] = []
    done = threading.Event()

    def read(own: Shelf | None) -> None:
        try:
            while not done.is_set():
                found = reopened(path) if own is None else state_of(own)
                if {k: v[2] for k, v in found.items()} != {k: v[2] for k, v in before.items()}:
                    problems.append(found)
        except BaseException as error:
            problems.append(error)
            raise

    with Shelf.open(path) as shelf:
        threads = [threading.Thread(target=read, args=(own,)) for own in (shelf, None)]
        for thread in threads:
            thread.start()
        for _ in range(15):
            shelf.compact()
        done.set()
        for thread in threads:
            thread.join()
    assert problems == []


class Dead(BaseException):
    """The process is no more: no operation after this one reaches the disk."""


def die_at(monkeypatch: pytest.MonkeyPatch, step: int) -> Callable[[], int]:
    """Let the process die before its change number `step`; returns how many it has made."""
    done = 0

    def guarded(operation: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            nonlocal done
            done += 1
            if done > step:
                raise Dead
            return operation(*arguments)

        return run

    for name in ("write", "sync", "sync_directory", "rename", "unlink", "create"):
        monkeypatch.setattr(disk, name, guarded(getattr(disk, name)))
    return lambda: done


@pytest.mark.parametrize("stride", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_it_can_be_killed_before_any_of_its_changes(
    made: Path, tmp_path: Path, stride: int
) -> None:
    with Shelf.open(made) as shelf:
        before = state_of(shelf)
    step, whole = 0, False
    while not whole:
        path = Path(shutil.copytree(made, tmp_path / str(step)))
        with pytest.MonkeyPatch.context() as patch:
            shelf = Shelf.open(path)
            die_at(patch, step)
            try:
                shelf.compact(keep=2)
                whole = True
            except Dead:
                pass
        assert damage(path) == []
        with Shelf.open(path) as shelf:
            assert state_of(shelf) == before
            assert shelf.snapshot(5).count == 4
            shelf.remove(["b1"])
        assert [f.problem for f in verify_path(path)[0]] == []
        step += stride
    assert step > 20


def test_a_full_disk_leaves_the_shelf_as_it_was(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    shelf = Shelf.open(path)
    before = state_of(shelf)
    with monkeypatch.context() as patch:
        patch.setattr(disk, "write", full)
        with pytest.raises(ShelfError, match="No space left"):
            shelf.compact()
    assert not list(path.glob("*-1.*"))
    assert reopened(path) == before


def test_a_damaged_part_of_the_base_costs_that_part_alone(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kinshelf.store.maintain import rewrite
    from kinshelf.store.maintain.repair import repair

    monkeypatch.setattr(rewrite, "PART", 2)
    with Shelf.open(path) as shelf:
        shelf.compact()
        before = state_of(shelf)
        order = [s.product.id for s in shelf.snapshot().select()]
    for file in (path / "log-1.wal",):
        data = bytearray(file.read_bytes())
        data[data.find(order[2].encode())] ^= 1
        file.write_bytes(data)
    report = repair(path)
    assert damage(path) == []
    left = reopened(path)
    assert left == {k: v for k, v in before.items() if k not in order[2:4]}
    assert report.lost_generations is None


def test_the_command_states_what_was_given_back(path: Path) -> None:
    result = CliRunner().invoke(main, ["compact", "--keep", "2", "--shelf", str(path), "--json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["oldest"] == 5


def cached(cache: ImageCache, url: str, seed: int, *, age: float = 7200.0) -> Path:
    """A picture in a shelf's cache that was stored a while ago."""
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (60, 60, 3), np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    path = cache.put(url, file.getvalue()).path
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_pictures_that_no_kept_generation_has_go_too(tmp_path: Path) -> None:
    shelf = Shelf.create(tmp_path / "toys.shelf", encoder="fake")
    cache = ImageCache(shelf.path / "images")
    names = ["kept", "removed", "replaced", "shared", "recent"]
    files = {n: cached(cache, f"upload://{n}", i) for i, n in enumerate(names)}
    assert cached(cache, "upload://twin", names.index("shared")) == files["shared"]
    cached(cache, "upload://recent", names.index("recent"), age=60.0)
    foreign = cache.directory / "ab" / "notes.txt"
    foreign.parent.mkdir(exist_ok=True)
    foreign.write_text("not ours")
    os.utime(foreign, (0, 0))
    rows = unit(np.random.default_rng(0).standard_normal((5, DIMENSION)))
    products = [Product(n, n, image=f"upload://{n}") for n in names[:4]]
    shelf.upsert([*products, Product("twin", "twin", image="upload://twin")], rows, rows)
    shelf.remove(["removed", "shared"])
    newer = Product("replaced", "new", image="upload://kept")
    shelf.upsert([newer], rows[:1], rows[:1])
    older = shelf.compact(keep=2)  # "replaced" still has its first picture in the older one
    assert (older.images_dropped, files["removed"].exists()) == (1, False)
    report = shelf.compact()
    assert report.images_dropped == 1
    assert report.image_bytes_dropped > 0
    there = {name for name, path in files.items() if path.exists()}
    assert there == {"kept", "shared", "recent"}
    assert cache.get("upload://twin") is not None
    assert foreign.exists()
    foreign.unlink()
    assert damage(shelf.path) == []
    shelf.close()


def test_a_picture_that_is_sent_once_more_is_not_taken_for_an_old_one(tmp_path: Path) -> None:
    with Shelf.create(tmp_path / "toys.shelf", encoder="fake") as shelf:
        cache = ImageCache(shelf.path / "images")
        path = cached(cache, "upload://one", 1)
        cache.put("upload://one", path.read_bytes())  # its product is yet to come
        assert shelf.compact().images_dropped == 0
        assert path.exists()


def test_a_picture_named_by_url_of_a_product_to_come_is_kept(tmp_path: Path) -> None:
    url = "http://192.0.2.1/picture.png"  # nobody is there: it cannot be fetched once more
    with Shelf.create(tmp_path / "toys.shelf", encoder="fake") as shelf:
        path = cached(ImageCache(shelf.path / "images"), url, 1)
        settings = ServeSettings(shelf.path, allow_private_hosts=True)
        decoders = Decoders(1, seconds=5, memory=2**30, pixels=2**20)
        pictures = Pictures(settings, decoders)
        assert pictures.keep_url(url) == url  # and then the server waits for its turn to write
        assert shelf.compact().images_dropped == 0
        assert path.exists()
        pictures.close()
        decoders.close()


def test_a_picture_that_goes_while_it_is_sent_once_more_is_stored_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ImageCache(tmp_path)
    path = cached(cache, "upload://one", 1)
    data, real = path.read_bytes(), os.utime

    def utime(*asked: Any, **named: Any) -> None:  # another process's compact comes first
        path.unlink(missing_ok=True)
        real(*asked, **named)

    monkeypatch.setattr(os, "utime", utime)
    cache.put("upload://one", data)
    assert path.read_bytes() == data


def test_a_picture_that_is_sent_once_more_while_it_goes_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ImageCache(tmp_path)
    path = cached(cache, "upload://one", 1)
    data, real = path.read_bytes(), Path.stat
    for moment in range(6):
        looks = iter(range(100))

        def stat(self: Path, moment: int = moment, looks: Iterator[int] = looks, **how: Any) -> Any:
            found = real(self, **how)
            if next(looks) == moment:  # another process stores it
                ImageCache(tmp_path).put("upload://one", data)
            return found

        os.utime(path, (0, 0))
        with monkeypatch.context() as patch:
            patch.setattr(Path, "stat", stat)
            gone = cache.drop_unused(set(), set(), time.time() - 3600)
        if next(looks) <= moment:  # it was not looked at so often
            assert gone == (1, len(data))
            cache.put("upload://one", data)
        assert path.read_bytes() == data
        assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("linked", ["images", "images/aa"])
def test_pictures_that_lie_elsewhere_are_left_alone(tmp_path: Path, linked: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    theirs = cached(ImageCache(elsewhere), "upload://theirs", 1)
    with Shelf.create(tmp_path / "toys.shelf", encoder="fake") as shelf:
        link = shelf.path / linked
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(elsewhere if linked == "images" else theirs.parent)
        with pytest.raises(ShelfError, match="symbolic link"):
            shelf.compact()
    assert theirs.exists()
