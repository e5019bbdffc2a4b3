"""Bad input gets a clear message, row by row where it can, and nothing else is lost."""

from __future__ import annotations

import json
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from conftest import FakeEncoder, make_catalogue, unit, write_csv
from PIL import Image

import kinshelf.store.encode.encoder
from kinshelf import Shelf
from kinshelf.cli import main
from kinshelf.db.product import Product
from kinshelf.store.log import frames as log

pytestmark = pytest.mark.wide

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command line on a shelf of its own, over the fake encoder."""
    monkeypatch.setattr(kinshelf.store.encode.encoder, "load_encoder", lambda *_a, **_k: encoder)
    monkeypatch.setenv("KINSHELF_SHELF", str(tmp_path / "toys.shelf"))
    runner = CliRunner()

    def invoke(*arguments: Any) -> Result:
        result = runner.invoke(main, [str(a) for a in arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit)
        assert "Traceback" not in result.output
        return result

    assert invoke("init", "--encoder", "fake").exit_code == 0
    return invoke


def count(tmp_path: Path) -> int:
    with Shelf.open(tmp_path / "toys.shelf") as shelf:
        return shelf.snapshot().count


def refused(result: Result, *words: str) -> None:
    assert result.exit_code == 3, result.output
    lines = result.stderr.strip().splitlines()
    assert len([line for line in lines if line.startswith("Error: ")]) == 1
    for word in words:
        assert word in result.stderr, result.stderr


def test_a_file_whose_name_is_no_text_leaves_the_shelf_whole(run: Run, tmp_path: Path) -> None:
    source = tmp_path / "n\udcff.csv"
    source.write_text("id,title,price\na,train,1\nb,doll,expensive\n")
    assert run("add", source, "--max-rejects", 1).exit_code == 0
    assert count(tmp_path) == 2
    assert "add n?.csv" in run("history", "--json").stdout
    refused(run("show", "\udcff"), "no product")


def test_products_given_by_a_program_are_checked_as_those_of_a_file(shelf: Shelf) -> None:
    made = [Product("a", "train"), Product("b", "x\ud800"), Product("c\ud800"), Product("d", "\0"),
            Product("e", "doll", attributes={"f\0": 1})]  # fmt: skip
    rows = unit(np.random.default_rng(0).standard_normal((5, 16)))
    report = shelf.upsert(made, rows, None)
    assert (report.inserted, report.reasons) == (1, {"bad-text": 4})
    now = shelf.snapshot()
    np.testing.assert_array_equal(now.pairs([now.get("a").row])[0, :16], rows[0])
    with Shelf.open(shelf.path) as again:
        assert again.snapshot().count == 1
        assert list(again.snapshot().view.by_ids(["c\ud800", "a"])) == ["a"]


def test_a_shelf_that_took_in_what_is_no_text_opens_again(shelf: Shelf) -> None:
    frame = log.encode(1, {"kind": "add", "command": "add n?.csv", "time": 0.0})
    passed = frame[log.HEADER.size :].replace(b"n?.csv", b"n\xed\xb3\xbf.")  # as by older versions
    head = log.HEADER.pack(log.MAGIC, 1, len(passed), 0, zlib.crc32(passed), 0)[:-4]
    with next(shelf.path.glob("log-*.wal")).open("ab") as file:
        file.write(head + struct.pack("<I", zlib.crc32(head)) + passed)
    with Shelf.open(shelf.path) as again:
        assert again.history()[0]["command"].startswith("add n")


def test_a_missing_file(run: Run) -> None:
    refused(run("add", "nothing.csv"), "nothing.csv")


def test_an_empty_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty.csv").touch()
    refused(run("add", tmp_path / "empty.csv"), "empty.csv")


def test_a_wrong_delimiter_is_named_and_the_right_one_recognised(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "semicolons.csv"
    path.write_text("id;title;price\n1;a;2\n2;b;3\n")
    refused(run("add", path, "--delimiter", ","), "--delimiter semicolon")
    result = run("add", path)
    assert result.exit_code == 0
    assert "split at ';'" in result.stderr
    assert count(tmp_path) == 2


def test_an_unknown_column_names_near_ones(run: Run, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", [{"key": "1", "Product Name": "x"}])
    refused(run("add", path, "--map", "title=Product Nam", "--map", "id=key"), "Product Name")


def test_duplicate_ids_in_one_file_are_counted_and_named(run: Run, tmp_path: Path) -> None:
    rows = [{"id": "a", "title": "one"}, {"id": "a", "title": "two"}, {"id": "b", "title": "three"}]
    result = run("add", write_csv(tmp_path / "twice.csv", rows))
    assert result.exit_code == 1
    assert "duplicate-id" in result.stderr
    assert count(tmp_path) == 2
    assert '"title": "one"' in run("show", "a", "--json").output


def test_max_rejects_allows_as_many(run: Run, tmp_path: Path) -> None:
    rows = [{"id": "a", "title": "one"}, {"id": "a", "title": "two"}]
    assert run("add", write_csv(tmp_path / "twice.csv", rows), "--max-rejects", "1").exit_code == 0


def test_a_file_that_is_not_utf_8(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "latin.csv"
    path.write_bytes("id,title\n1,Café\n".encode("latin-1"))
    result = run("add", path)
    assert result.exit_code == 0
    assert "read as cp1252" in result.stderr
    refused(run("add", path, "--encoding", "utf-8"), "is not UTF-8: byte 0xe9")
    refused(run("add", path, "--encoding", "klingon"), "there is no encoding 'klingon'")


def test_a_price_that_is_no_number_keeps_the_product(run: Run, tmp_path: Path) -> None:
    rows = [{"id": "a", "title": "one", "price": "ask us"}, {"id": "b", "title": "x", "price": "2"}]
    result = run("add", write_csv(tmp_path / "prices.csv", rows))
    assert result.exit_code == 0
    assert "ask us" in result.stderr
    assert count(tmp_path) == 2


def embeddings(path: Path, rows: np.ndarray) -> Path:
    np.save(path, rows)
    return path


def supplied(tmp_path: Path, n: int = 6) -> tuple[Path, np.ndarray]:
    rows = [{"id": f"b{i}", "title": "", "category": f"c{i % 2}"} for i in range(n)]
    return write_csv(tmp_path / "row_fields.csv", rows), unit(
        np.random.default_rng(0).standard_normal((n, 8))
    )


def test_nan_and_zero_vectors_are_rejected_row_by_row(run: Run, tmp_path: Path) -> None:
    source, rows = supplied(tmp_path)
    rows[1, 3], rows[4] = np.nan, 0
    result = run("add", source, "--image-embeddings", embeddings(tmp_path / "i.npy", rows))
    assert result.exit_code == 1
    assert "nan-embedding" in result.stderr
    assert "zero-embedding" in result.stderr
    assert count(tmp_path) == 4


def test_a_wrong_dimension_is_refused(run: Run, tmp_path: Path) -> None:
    source, rows = supplied(tmp_path)
    assert (
        run("add", source, "--image-embeddings", embeddings(tmp_path / "i.npy", rows)).exit_code
        == 0
    )
    wide = embeddings(tmp_path / "w.npy", np.ones((6, 12), dtype=np.float32))
    refused(run("add", source, "--image-embeddings", wide), "12", "8")


def test_unequal_dimensions_of_image_and_text_are_refused(run: Run, tmp_path: Path) -> None:
    source, rows = supplied(tmp_path)
    text = embeddings(tmp_path / "t.npy", np.ones((6, 12), dtype=np.float32))
    image = embeddings(tmp_path / "i.npy", rows)
    refused(run("add", source, "--image-embeddings", image, "--text-embeddings", text), "12", "8")
    assert count(tmp_path) == 0


def test_mismatched_row_counts_are_refused_before_anything_is_added(
    run: Run, tmp_path: Path
) -> None:
    source, rows = supplied(tmp_path)
    few = embeddings(tmp_path / "few.npy", rows[:5])
    refused(run("add", source, "--image-embeddings", few), "5", "6")
    assert count(tmp_path) == 0


def test_an_object_array_is_never_unpickled(run: Run, tmp_path: Path) -> None:
    source, rows = supplied(tmp_path)
    path = tmp_path / "objects.npy"
    np.save(path, np.array(list(rows), dtype=object), allow_pickle=True)
    refused(run("add", source, "--image-embeddings", path), "objects.npy", "object")


def png_bomb(side: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    row = b"\0" * (side // 8 + 1)
    packer = zlib.compressobj(9)
    data = b"".join([packer.compress(row) for _ in range(side)]) + packer.flush()
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def bad_images(folder: Path) -> dict[str, str]:
    """File name → the reason that must be given."""
    folder.mkdir()
    good = folder / "good.jpg"
    Image.effect_noise((200, 200), 80).convert("RGB").save(good)
    (folder / "empty.jpg").touch()
    (folder / "truncated.jpg").write_bytes(good.read_bytes()[:2000])
    (folder / "text.jpg").write_text("this is no picture")
    (folder / "folder.jpg").mkdir()
    (folder / "bomb.png").write_bytes(png_bomb(30_000))
    Image.new("RGB", (20, 20)).save(folder / "small.png")
    return {
        "empty.jpg": "image-empty",
        "truncated.jpg": "image-truncated",
        "text.jpg": "image-not-an-image",
        "folder.jpg": "image-is-a-directory",
        "bomb.png": "image-too-large",
        "small.png": "image-too-small",
        "missing.jpg": "image-missing-file",
        "file:///etc/passwd": "image-scheme",
        "http://127.0.0.1/a.jpg": "image-private-address",
    }


def test_a_bad_image_costs_only_itself(run: Run, tmp_path: Path) -> None:
    reasons = bad_images(tmp_path / "pictures")
    names = [*reasons, "good.jpg"]
    rows = [{"id": n, "title": f"words {i}", "image": n} for i, n in enumerate(names)]
    result = run("add", write_csv(tmp_path / "pictures" / "p.csv", rows))
    assert result.exit_code == 0
    for reason in reasons.values():
        assert reason in result.stderr
    with Shelf.open(tmp_path / "toys.shelf") as shelf:
        now = shelf.snapshot()
        assert {p.product.id for p in now.select("has_image")} == {"good.jpg"}
        assert {p.product.id for p in now.select("has_text")} == set(names)
        failed = now.get("truncated.jpg")
        assert failed.image_error == "truncated"
        assert not now.pairs([failed.row])[0, :16].any()


def test_a_picture_that_is_no_longer_where_it_lay_is_kept(run: Run, tmp_path: Path) -> None:
    bad_images(tmp_path / "pictures")
    rows = [{"id": "a", "title": "words", "price": "5", "image": "good.jpg"}]
    assert run("add", write_csv(tmp_path / "pictures" / "p.csv", rows)).exit_code == 0
    with Shelf.open(tmp_path / "toys.shelf") as shelf:
        before = shelf.snapshot().get("a")
        pairs = shelf.snapshot().pairs([before.row])
    elsewhere = write_csv(tmp_path / "p.csv", rows)
    reported = json.loads(run("add", elsewhere, "--json").stdout)
    assert (reported["unchanged"], reported["reasons"]) == (1, {"image-kept": 1})
    rows[0] |= {"price": "6", "title": "other words"}
    result = run("add", write_csv(tmp_path / "p.csv", rows))
    assert "good.jpg" in result.stderr and "is kept" in result.stderr
    with Shelf.open(tmp_path / "toys.shelf") as shelf:
        now = shelf.snapshot()
        a = now.get("a")
        assert (a.product.price, a.product.title, a.has_image) == (6, "other words", True)
        assert a.product.image == before.product.image
        changed = now.pairs([a.row])
        assert np.array_equal(changed[0, :16], pairs[0, :16])
        assert not np.array_equal(changed[0, 16:], pairs[0, 16:])
    rows[0]["image"] = "another.jpg"
    assert run("add", write_csv(tmp_path / "p.csv", rows)).exit_code == 0
    with Shelf.open(tmp_path / "toys.shelf") as shelf:
        assert not shelf.snapshot().get("a").has_image, "another picture was meant"


def test_a_url_that_is_none_costs_only_its_picture(run: Run, tmp_path: Path) -> None:
    places = ["http://[::1", "//[x/y.jpg", "http://[v1.x]:x/", "https://a:b/c.jpg"]
    rows = [{"id": p, "title": f"word {i}", "image": p} for i, p in enumerate(places)]
    assert run("add", write_csv(tmp_path / "urls.csv", rows)).exit_code == 0
    assert count(tmp_path) == len(places)
    for place in places:
        refused(run("classify", "--image", place))
        refused(run("encode", place, "-o", tmp_path / "out", "--encoder", "fake"))


def test_an_engine_whose_packages_are_not_there_is_one_line(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pymilvus", "milvus_lite", "psycopg", "pgvector"):
        monkeypatch.setitem(sys.modules, name, None)
    for address in ("milvus://host/toys", "milvus-lite://toys.db/toys", "postgresql://host/toys"):
        refused(run("info", "--shelf", address), "pip install 'kinshelf[cluster]'")


def test_a_product_with_a_bad_image_and_no_text_is_rejected(run: Run, tmp_path: Path) -> None:
    bad_images(tmp_path / "pictures")
    rows = [{"id": n, "title": "", "image": n} for n in ("text.jpg", "good.jpg")]
    result = run("add", write_csv(tmp_path / "pictures" / "p.csv", rows))
    assert result.exit_code == 1
    assert "image-not-an-image" in result.stderr
    assert count(tmp_path) == 1


def test_rejects_are_tried_again_when_asked(run: Run, tmp_path: Path) -> None:
    bad_images(tmp_path / "pictures")
    pictures = tmp_path / "pictures"
    rows = [
        {"id": "kept", "title": "words", "image": "text.jpg"},
        {"id": "gone", "title": "", "image": "missing.jpg"},
    ]
    assert run("add", write_csv(pictures / "p.csv", rows)).exit_code == 1
    for name in ("text.jpg", "missing.jpg"):
        Image.new("RGB", (80, 80), (9, 99, 9)).save(pictures / name)
    assert run("add", "--retry-rejects").exit_code == 0
    with Shelf.open(tmp_path / "toys.shelf") as shelf:
        assert {p.product.id for p in shelf.snapshot().select("has_image")} == {"kept", "gone"}
        assert shelf.snapshot().view.rejects() == []


def unusual_images(folder: Path) -> list[str]:
    """Pictures of rare kinds, all of them good."""
    noise = Image.effect_noise((90, 60), 60)
    rgb = Image.merge("RGB", (noise, noise, noise))
    rgb.convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray((np.arange(5400).reshape(60, 90) * 12).astype(np.uint16)).save(
        folder / "deep.png"
    )
    rgb.convert("P").save(folder / "palette.png", transparency=0)
    frames = [rgb, rgb.rotate(90), rgb.rotate(180)]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    exif = Image.Exif()
    exif[0x0112] = 6
    rgb.save(folder / "turned.jpg", exif=exif)
    return ["cmyk.jpg", "deep.png", "palette.png", "moving.gif", "turned.jpg"]


def test_unusual_pictures_are_read(run: Run, tmp_path: Path) -> None:
    names = unusual_images(tmp_path)
    rows = [{"id": name, "title": "", "image": name} for name in names]
    result = run("add", write_csv(tmp_path / "p.csv", rows))
    assert result.exit_code == 0, result.stderr
    assert count(tmp_path) == len(names)


@pytest.mark.parametrize(
    "where",
    [
        "1=1; DROP TABLE products",
        "id IN (SELECT content FROM read_text('/etc/passwd'))",
        "read_csv('/etc/passwd')",
        "titel = 'x'",
        "price <",
        "",
    ],
)
def test_a_hostile_or_broken_filter_is_refused(run: Run, tmp_path: Path, where: str) -> None:
    run("add", make_catalogue(tmp_path / "source"))
    refused(run("list", "--where", where))
    refused(run("similar", "--id", "p1", "--where", where))
    assert count(tmp_path) == 30


@pytest.mark.parametrize(
    "query",
    [
        "DROP TABLE products",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT 1; SELECT 2",
        "COPY products TO 'stolen.csv'",
        "ATTACH 'other.db'",
        "INSTALL httpfs",
        "SELECT no_such_column FROM products",
    ],
)
def test_sql_reads_tables_and_nothing_else(run: Run, tmp_path: Path, query: str) -> None:
    run("add", make_catalogue(tmp_path / "source"))
    refused(run("sql", query))
    assert count(tmp_path) == 30


def test_an_encoder_s_directory_that_is_not_there_is_refused_at_once(
    run: Run, tmp_path: Path
) -> None:
    new = tmp_path / "new.shelf"
    refused(run("init", "--encoder", tmp_path / "none", "--shelf", new), "no such directory")
    assert not new.exists()


def test_an_unknown_id_names_near_ones(run: Run, tmp_path: Path) -> None:
    run("add", make_catalogue(tmp_path / "source"))
    for command in (("show", "p77"), ("similar", "--id", "p77"), ("remove", "p77")):
        refused(run(*command), "p77", "did you mean p7")


def test_training_with_one_class_or_none(run: Run, tmp_path: Path) -> None:
    refused(run("train"))
    rows = [{"id": f"a{i}", "title": f"word {i}", "category": "one"} for i in range(5)]
    run("add", write_csv(tmp_path / "one.csv", rows))
    refused(run("train"), "two")


def test_without_a_probe_the_neighbours_answer_alone_and_reports_it(
    run: Run, tmp_path: Path
) -> None:
    run("add", make_catalogue(tmp_path / "source"))
    result = run("classify", "--text", "red thing number 5")
    assert result.exit_code == 0
    assert "No probe is trained yet" in result.stdout
    assert "Things | Red" in result.stdout


def test_an_empty_shelf_states_what_to_do(run: Run) -> None:
    refused(run("classify", "--text", "red"), "add")
    refused(run("similar", "--text", "red"), "add")
    assert run("list").exit_code == 0
    assert run("info").exit_code == 0
    assert run("verify").exit_code == 0


def test_wrong_usage_exits_with_2(run: Run) -> None:
    for command in (("add",), ("classify",), ("similar",), ("nonsense",), ("similar", "--k", "0")):
        assert run(*command).exit_code == 2


def test_a_question_that_is_no_text_gets_its_page(run: Run, tmp_path: Path) -> None:
    run("add", make_catalogue(tmp_path / "source"))
    page = tmp_path / "card.html"
    assert run("classify", "--text", "red \udcff", "--html", page).exit_code == 0
    assert "red ?" in page.read_text(encoding="utf-8")


def test_a_missing_picture_of_a_query_is_one_line(run: Run, tmp_path: Path) -> None:
    run("add", make_catalogue(tmp_path / "source"))
    refused(run("classify", "--image", "no-such.jpg"), "no-such.jpg")


@pytest.mark.parametrize(
    "command",
    [
        ("evaluate", "-o", "{file}"),
        ("export", "/proc/all.parquet"),
        ("export", "{folder}/none/all.parquet"),
        ("classify", "--text", "red", "--html", "{folder}/none/card.html"),
        ("train", "--epochs", "1", "--checkpoint", "{folder}/none/probe.pth"),
        ("train", "--epochs", "1", "--checkpoint", "/proc/probe.pth"),
        ("train", "--epochs", "1", "--checkpoint", "{folder}"),
        ("train", "--epochs", "1", "--checkpoint", ""),
        ("audit", "-o", "{folder}/none/audit.csv"),
    ],
)
def test_a_place_that_cannot_be_written_is_one_line(
    run: Run, tmp_path: Path, command: tuple[str, ...]
) -> None:
    run("add", make_catalogue(tmp_path / "source"))
    (tmp_path / "file").touch()
    places = {"file": tmp_path / "file", "folder": tmp_path}
    refused(run(*(word.format(**places) for word in command)))


def test_the_limits_of_pictures_are_options(run: Run, tmp_path: Path) -> None:
    Image.new("RGB", (30, 30), "red").save(tmp_path / "small.png")
    path = write_csv(tmp_path / "a.csv", [{"id": "1", "title": "a", "image": "small.png"}])
    assert "image-too-small" in run("add", path).stderr
    retried = run("add", "--retry-rejects", "--min-side", "10", "--json")
    assert retried.exit_code == 0
    with Shelf.open(tmp_path / "toys.shelf") as shelf:
        assert shelf.snapshot().get("1").has_image
    other = write_csv(tmp_path / "b.csv", [{"id": "2", "title": "b", "image": "small.png"}])
    limits = ("--max-pixels", "800", "--min-side", "10")
    assert "image-too-large" in run("add", other, *limits).stderr
