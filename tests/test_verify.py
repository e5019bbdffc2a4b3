"""`verify` names damage wherever it is; `--repair` keeps what can be kept and states what is
lost."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import unit

from kinshelf import Shelf
from kinshelf.cli import main
from kinshelf.db.errors import ShelfDamaged, ShelfNotFound
from kinshelf.db.product import Product
from kinshelf.store.log import frames as framing
from kinshelf.store.maintain.repair import repair
from kinshelf.store.maintain.verify import verify, verify_path
from kinshelf.store.probes import save_probe

DIMENSION = 8
State = dict[str, tuple[Product, bytes]]


def vectors_of(seed: int, count: int) -> np.ndarray:
    return unit(np.random.default_rng(seed).standard_normal((count, DIMENSION)))


def put(shelf: Shelf, names: list[str], seed: int, category: str = "Toys") -> None:
    """One generation: these products with embeddings drawn from `seed`."""
    products = [
        Product(n, f"{n} of {seed}", category=category, attributes={"size": seed}) for n in names
    ]
    image, text = (vectors_of(10 * seed + place, len(names)) for place in (0, 1))
    shelf.upsert(products, image, text)


def state_of(path: Path, at: int | None = None) -> State:
    """Every product and its stored bytes, read through a handle of its own."""
    with Shelf.open(path) as shelf:
        now = shelf.snapshot(at)
        return {s.product.id: (s.product, now.pairs([s.row]).tobytes()) for s in now.select()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four additions, an update, a removal, a probe; `states` are those of each generation."""
    folder = tmp_path_factory.mktemp("made")
    path = folder / "toys.shelf"
    with Shelf.create(path, encoder="fake") as shelf:
        put(shelf, ["a1", "a2", "a3"], 1)
        put(shelf, ["b1", "b2", "b3"], 2)
        put(shelf, ["a2", "c1", "c2"], 3, "Games")
        shelf.remove(["b1"])
        save_probe(shelf, write_probe, trained_on=7, classes=2, metrics={})
        put(shelf, ["d1", "d2"], 6)
    return path


def write_probe(folder: Path) -> None:
    (folder / "probe.json").write_text('{"classes": ["Games", "Toys"]}')


@pytest.fixture
def damaged(made: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(made, tmp_path / "toys.shelf"))


def flip(file: Path, place: int) -> None:
    data = bytearray(file.read_bytes())
    data[place] ^= 0x10
    file.write_bytes(data)


def frame_of(path: Path, generation: int) -> framing.Frame:
    data = memoryview((path / "log-0.wal").read_bytes())
    return next(f for f in framing.frames(data, 0, 0) if f.generation == generation)


def damage(path: Path) -> list[str]:
    return [f"{f.file}: {f.problem}" for f in verify_path(path)[0] if not f.harmless]


def drop_derived(path: Path) -> None:
    for file in path.iterdir():
        if file.name.startswith(("catalog", "index")):
            file.unlink()


def test_a_whole_shelf_has_no_findings(damaged: Path) -> None:
    assert verify_path(damaged) == ([], 6)


def test_verify_of_a_place_without_a_shelf_reports_it(tmp_path: Path) -> None:
    with pytest.raises(ShelfNotFound):
        verify_path(tmp_path / "nothing")


def test_a_flipped_vector_names_generation_rows_and_products(damaged: Path) -> None:
    drop_derived(damaged)
    flip(damaged / "vectors-0.f32", 4 * 64 + 5)  # row 4: b2
    (problem,) = damage(damaged)
    assert "generation 2 (rows 3 to 5)" in problem
    assert "'b2', 'b3' are lost" in problem  # b1 was removed since
    with pytest.raises(ShelfDamaged):
        Shelf.open(damaged)


def test_repair_drops_only_the_products_whose_vectors_are_lost(damaged: Path, made: Path) -> None:
    drop_derived(damaged)
    before = (damaged / "vectors-0.f32").read_bytes()
    flip(damaged / "vectors-0.f32", 4 * 64 + 5)
    report = repair(damaged)
    assert report.lost_products == ["b2", "b3"]
    assert damage(damaged) == []
    expected = {k: v for k, v in state_of(made).items() if k not in ("b2", "b3")}
    assert state_of(damaged) == expected
    kept = (Path(report.quarantine or "") / "vectors-0.f32").read_bytes()
    assert sum(a != b for a, b in zip(kept, before, strict=True)) == 1


def test_repair_keeps_the_history_of_what_is_left(damaged: Path, made: Path) -> None:
    drop_derived(damaged)
    flip(damaged / "vectors-0.f32", 4 * 64 + 5)
    repair(damaged)
    old = state_of(made, at=1)
    assert state_of(damaged, at=1) == old
    with Shelf.open(damaged) as shelf:
        kinds = [c["kind"] for c in shelf.snapshot().view.commits()]
    assert kinds == ["repair", "add", "train", "remove", "add", "add", "add"]


def test_a_flipped_frame_costs_what_it_stated_and_nothing_that_others_say(
    damaged: Path, made: Path
) -> None:
    flip(damaged / "log-0.wal", frame_of(damaged, 3).offset + 60)
    with pytest.raises(ShelfDamaged):
        Shelf.open(damaged)
    (problem,) = damage(damaged)
    assert "generations 3 to 3 are lost" in problem
    assert "'a2', 'c1', 'c2'" in problem
    report = repair(damaged)
    assert report.lost_generations == (3, 3)
    assert report.lost_products == ["a2", "c1", "c2"]
    assert damage(damaged) == []
    expected = state_of(made) | {"a2": state_of(made, at=2)["a2"]}  # the older one is left
    del expected["c1"], expected["c2"]
    assert state_of(damaged) == expected
    with Shelf.open(damaged) as shelf:
        assert shelf.generation == 7  # lost generations keep their numbers
        shelf.remove(["a1"])
        assert shelf.generation == 8


def test_a_last_change_that_was_acknowledged_and_is_gone_is_damage(damaged: Path) -> None:
    log = damaged / "log-0.wal"
    log.write_bytes(log.read_bytes()[:-1])
    (problem,) = damage(damaged)
    assert "generations 6 to 6 are lost" in problem
    repair(damaged)
    assert damage(damaged) == []


def test_a_torn_end_that_was_never_acknowledged_is_a_harmless_note(damaged: Path) -> None:
    with (damaged / "log-0.wal").open("ab") as file:
        file.write(b"KSL1 torn")
    with (damaged / "vectors-0.f32").open("ab") as file:
        file.write(bytes(64))
    findings, generation = verify_path(damaged)
    assert [f.harmless for f in findings] == [True, True]
    assert generation == 6


def test_the_manifest_is_made_anew_from_the_log(damaged: Path, made: Path) -> None:
    with Shelf.open(made) as shelf:
        manifest = shelf.manifest
    for spoil in (lambda p: flip(p, 20), Path.unlink):
        spoil(damaged / "MANIFEST")
        assert [p.split(":")[0] for p in damage(damaged)] == ["MANIFEST"]
        repair(damaged)
        assert damage(damaged) == []
        with Shelf.open(damaged) as shelf:
            assert shelf.manifest == manifest
    assert state_of(damaged) == state_of(made)


@pytest.mark.parametrize("name", ["vectors-0.f32", "log-0.wal"])
def test_a_missing_file_is_named_and_repaired(damaged: Path, name: str) -> None:
    (damaged / name).unlink()
    drop_derived(damaged)
    assert any(p.startswith(f"{name}: missing") for p in damage(damaged))
    report = repair(damaged)
    assert damage(damaged) == []
    assert report.lost_products or report.lost_generations
    assert state_of(damaged) == {}


@pytest.mark.parametrize("name", ["catalog.duckdb", "catalog.duckdb.json"])
def test_a_damaged_snapshot_is_named_not_used_and_rebuilt(
    damaged: Path, made: Path, name: str
) -> None:
    flip(damaged / name, (damaged / name).stat().st_size // 2)
    (problem,) = damage(damaged)
    assert problem == f"{name}: its checksum does not match"
    assert state_of(damaged) == state_of(made)
    assert repair(damaged).quarantine is None
    assert damage(damaged) == []


def test_a_catalogue_that_differs_from_the_log_is_found(damaged: Path, made: Path) -> None:
    with Shelf.open(damaged) as shelf:
        shelf.snapshot().view.catalog.connection.execute(
            "UPDATE products SET category = 'Wrong' WHERE id = 'c1'"
        )
        (finding,) = verify(shelf)
    assert "products: 1 rows differ" in finding.problem
    assert "Wrong" in finding.problem


def test_a_row_that_is_no_unit_vector_is_found_and_repaired(damaged: Path) -> None:
    with Shelf.open(damaged) as shelf:
        rows = np.zeros((1, 2 * DIMENSION), dtype=np.float32)
        rows[0, 0] = np.nan
        template = shelf.snapshot().get("a1")
        product = {
            "id": ["bad"], "title": [""], "description": [""], "category": [None],
            "price": [None], "brand": [None], "image": [None], "split": [None],
            "row": [shelf.next_row], "attributes": [None], "has_image": [True],
            "has_text": [False], "image_hash": [None], "image_error": [None],
            "content_hash": [template.content_hash],
        }  # fmt: skip
        with shelf.writing():
            shelf.commit({"kind": "add"}, {"products": product}, rows)
    (problem,) = damage(damaged)
    assert "'bad'" in problem
    assert "image half has norm nan" in problem
    assert repair(damaged).lost_products == ["bad"]
    assert damage(damaged) == []


def test_a_damaged_probe_is_set_aside(damaged: Path) -> None:
    (damaged / "probes" / "0001" / "probe.json").write_text("{}")
    (problem,) = damage(damaged)
    assert problem == "probes/0001/probe.json: missing or damaged"
    report = repair(damaged)
    assert report.lost_probes == [1]
    assert (Path(report.quarantine or "") / "probes" / "0001" / "probe.json").read_text() == "{}"
    assert damage(damaged) == []


def test_remains_of_interrupted_writes_are_notes_and_go_with_the_next_change(
    damaged: Path,
) -> None:
    remains = ["vectors-1.f32", "log-1.wal", ".MANIFEST.tmp", ".catalog.duckdb.tmp"]
    for name in remains:
        (damaged / name).write_bytes(b"half")
    (damaged / "probes" / ".0002.tmp").mkdir()
    (damaged / "probes" / "0002").mkdir()
    findings, _ = verify_path(damaged)
    assert all(f.harmless for f in findings)
    assert {f.file for f in findings} == {*remains, "probes/.0002.tmp", "probes/0002"}
    with Shelf.open(damaged) as shelf:
        shelf.remove(["a1"])
    assert [f.file for f in verify_path(damaged)[0]] == ["probes/0002"]


def test_a_damaged_picture_in_the_cache_is_set_aside(damaged: Path) -> None:
    folder = damaged / "images" / "ab"
    folder.mkdir(parents=True)
    (folder / f"ab{'0' * 30}.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    (problem,) = damage(damaged)
    assert problem.startswith("images/ab/")
    repair(damaged)
    assert damage(damaged) == []


def test_the_command_prints_one_line_a_finding_and_exits_with_1_only_on_damage(
    damaged: Path,
) -> None:
    def run(*arguments: str) -> tuple[int, list[str]]:
        result = CliRunner().invoke(main, ["verify", "--shelf", str(damaged), *arguments])
        return result.exit_code, result.stdout.splitlines()

    (damaged / ".MANIFEST.tmp").write_bytes(b"")
    code, lines = run()
    assert (code, len(lines)) == (0, 1)
    flip(damaged / "catalog.duckdb", 5000)
    code, lines = run("--json")
    assert code == 1
    assert {json.loads(line)["harmless"] for line in lines} == {True, False}
    code, lines = run("--repair", "--json")
    assert code == 0
    assert json.loads(lines[-1])["lost_products"] == []
    assert run() == (0, [])


def spoilers() -> list[Callable[[np.random.Generator, bytearray], bytes]]:
    def one_bit(rng: np.random.Generator, data: bytearray) -> bytes:
        data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        return bytes(data)

    def cut(rng: np.random.Generator, data: bytearray) -> bytes:
        return bytes(data[: rng.integers(len(data))])

    def zeros(rng: np.random.Generator, data: bytearray) -> bytes:
        start = int(rng.integers(len(data)))
        stop = min(len(data), start + int(rng.integers(1, 200)))
        data[start:stop] = bytes(stop - start)
        return bytes(data)

    return [one_bit, cut, zeros]


@pytest.mark.parametrize(
    "seed", [*range(5), *(pytest.param(s, marks=pytest.mark.slow) for s in range(5, 200))]
)
def test_any_damage_is_found_or_harmless_and_can_be_repaired(
    made: Path, tmp_path: Path, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    path = Path(shutil.copytree(made, tmp_path / "toys.shelf"))
    whole = state_of(made)
    names = sorted(p.relative_to(path) for p in path.rglob("*") if p.is_file() and p.name != "LOCK")
    file = path / names[rng.integers(len(names))]
    spoil = spoilers()[rng.integers(3)]
    file.write_bytes(spoil(rng, bytearray(file.read_bytes())))
    if not damage(path):
        assert state_of(path) == whole
    report = repair(path)
    assert damage(path) == []
    gone = whole.keys() - state_of(path).keys()
    assert gone <= set(report.lost_products) or report.lost_generations
