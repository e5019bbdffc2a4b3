"""Several pictures of a product: one half of them all, each embedded once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import FakeEncoder
from PIL import Image

from kinshelf import Shelf
from kinshelf.db.images.decode import content_hash
from kinshelf.db.product import Product, pictures_of, with_pictures
from kinshelf.store.ingest.edit import amend
from kinshelf.store.ingest.picture_vectors import FOLDER, PictureVectors
from kinshelf.store.ingest.several import MOST, pooled
from kinshelf.store.log.manifest import read_manifest
from kinshelf.store.maintain import reembed as reembedding

RED, GREEN, BLUE = (200, 30, 30), (30, 200, 30), (30, 30, 200)


def paint(path: Path, colour: tuple[int, int, int]) -> str:
    Image.new("RGB", (60, 60), colour).save(path)
    return str(path)


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    colours = [RED, GREEN, BLUE, (90, 90, 90)]
    return [paint(tmp_path / f"{i}.png", colour) for i, colour in enumerate(colours)]


def embedding(encoder: FakeEncoder, path: str) -> np.ndarray:
    return FakeEncoder(dimension=encoder.dimension).encode_images([Image.open(path)])[0]


def image_half(shelf: Any, name: str = "1") -> np.ndarray:
    now = shelf.snapshot()
    half: np.ndarray = now.pairs([now.get(name).row])[0][: shelf.dimension]
    return half


def product(pictures: list[str], **fields: Any) -> Product:
    return with_pictures(Product("1", "mug", **fields), pictures)


def mean(encoder: FakeEncoder, paths: list[str]) -> np.ndarray:
    total: np.ndarray = np.sum([embedding(encoder, path) for path in paths], axis=0)
    return total / np.linalg.norm(total)


def test_the_image_half_is_the_normalised_mean(
    shelf: Any, encoder: FakeEncoder, files: list[str]
) -> None:
    shelf.upsert([product(files[:3])])
    assert np.allclose(image_half(shelf), mean(encoder, files[:3]), atol=1e-6)
    assert (encoder.images, shelf.get("1").picture_hashes) == (
        3, [content_hash(Path(path).read_bytes()) for path in files[:3]],
    )  # fmt: skip


def test_a_shelf_of_the_first_picture_embeds_that_alone(
    tmp_path: Path, encoder: FakeEncoder, files: list[str]
) -> None:
    with Shelf.create(tmp_path / "f.shelf", encoder="fake", pictures="first") as shelf:
        shelf.use_encoder(encoder)
        shelf.upsert([product(files[:3])])
        assert np.array_equal(image_half(shelf), embedding(encoder, files[0]))
        assert (encoder.images, shelf.fingerprint) == (1, encoder.fingerprint)


def test_the_fingerprint_names_the_pooling(shelf: Any, encoder: FakeEncoder) -> None:
    shelf.upsert([Product("1", "mug")])
    assert shelf.fingerprint == f"{encoder.fingerprint}+mean" == shelf.snapshot().fingerprint


def test_changing_one_picture_encodes_one(
    shelf: Any, encoder: FakeEncoder, files: list[str], tmp_path: Path
) -> None:
    shelf.upsert([product(files[:3])])
    encoder.images = 0
    changed = [files[0], files[3], files[2]]
    shelf.upsert([product(changed)])
    assert encoder.images == 1
    assert np.allclose(image_half(shelf), mean(encoder, changed), atol=1e-6)
    shelf.upsert([product(files[:3])])  # and taken back, none
    assert encoder.images == 1
    shelf.upsert([product(files[:2])])
    shelf.upsert([product(files[:1])])
    assert encoder.images == 1
    assert np.array_equal(image_half(shelf), embedding(encoder, files[0]))


def test_a_second_picture_beside_the_one_there_was_encodes_one(
    shelf: Any, encoder: FakeEncoder, files: list[str]
) -> None:
    shelf.upsert([product(files[:1])])
    encoder.images = 0
    shelf.upsert([product(files[:2])])
    assert encoder.images == 1
    assert np.allclose(image_half(shelf), mean(encoder, files[:2]), atol=1e-6)


def test_a_new_price_encodes_nothing_and_keeps_the_half_to_the_bit(
    shelf: Any, encoder: FakeEncoder, files: list[str]
) -> None:
    shelf.upsert([product(files[:3])])
    before, encoder.images = image_half(shelf), 0
    assert shelf.upsert([product(files[:3], price=3.0)]).updated == 1
    assert encoder.images == 0
    assert np.array_equal(image_half(shelf), before)
    assert shelf.upsert([product(files[:3], price=3.0)]).unchanged == 1


def test_one_picture_that_cannot_be_read_costs_the_product_no_other(
    shelf: Any, encoder: FakeEncoder, files: list[str], tmp_path: Path
) -> None:
    (broken := tmp_path / "broken.png").write_bytes(Path(files[3]).read_bytes()[:60])
    pictures = [str(tmp_path / "none.png"), files[0], str(broken), files[1]]
    report = shelf.upsert([product(pictures)])
    assert np.allclose(image_half(shelf), mean(encoder, files[:2]), atol=1e-6)
    assert (report.rejected, report.image_failed, shelf.get("1").image_error) == (0, 0, None)
    assert sum(count for reason, count in report.reasons.items() if reason[:6] == "image-") == 1
    assert any("of 4, the others are used" in text for text in report.examples.values())
    assert [bool(each) for each in shelf.get("1").picture_hashes] == [False, True, True, True]
    assert shelf.upsert([product(pictures)]).unchanged == 1


def test_a_product_whose_pictures_are_all_lost_is_known_by_its_text(
    shelf: Any, tmp_path: Path
) -> None:
    report = shelf.upsert([product([str(tmp_path / "a.png"), str(tmp_path / "b.png")])])
    assert (report.image_failed, shelf.get("1").image_error) == (1, "missing-file")


def test_pictures_beyond_the_limit_are_listed_and_not_embedded(
    shelf: Any, encoder: FakeEncoder, tmp_path: Path
) -> None:
    many = [paint(tmp_path / f"m{i}.png", (i * 9, 200 - i, 30)) for i in range(MOST + 3)]
    shelf.upsert([product(many)])
    assert encoder.images == MOST
    assert len(pictures_of(shelf.get("1").product)) == MOST + 3


def test_equal_pictures_count_once(shelf: Any, encoder: FakeEncoder, files: list[str]) -> None:
    copy = Path(files[0]).with_name("copy.png")
    copy.write_bytes(Path(files[0]).read_bytes())
    shelf.upsert([product([files[0], str(copy), files[1]])])
    assert np.allclose(image_half(shelf), mean(encoder, files[:2]), atol=1e-6)
    assert encoder.images == 2


def test_a_person_that_changes_the_picture_keeps_the_others(
    shelf: Any, encoder: FakeEncoder, files: list[str]
) -> None:
    shelf.upsert([product(files[:3])])
    assert amend(shelf, "1", {"image": files[3]})
    assert pictures_of(shelf.get("1").product) == [files[3], *files[1:3]]
    wanted = mean(encoder, [files[3], *files[1:3]])
    assert np.allclose(image_half(shelf), wanted, atol=1e-6)


def test_products_of_a_file_are_asked_about_by_all_their_pictures(
    shelf: Any, files: list[str], tmp_path: Path
) -> None:
    from kinshelf.store.results import AddOptions
    from kinshelf.store.similar.search import similar_source

    shelf.upsert([product(files[:3]), Product("2", "bowl", image=files[3])])
    source = tmp_path / "asked.jsonl"
    source.write_text(json.dumps({"id": "9", "image": files[:3]}))
    ((_, (found,)),) = similar_source(shelf, source, AddOptions(), weight_image=1, k=1)
    assert found.neighbours[0].id == "1"
    assert found.neighbours[0].image_similarity == pytest.approx(1, abs=1e-6)


def test_a_shelf_changes_to_the_mean_and_back(
    tmp_path: Path, encoder: FakeEncoder, files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r.shelf"
    with Shelf.create(path, encoder="fake", pictures="first") as shelf:
        shelf.use_encoder(encoder)
        shelf.upsert([product(files[:3]), Product("2", "bowl")])
    monkeypatch.setattr("kinshelf.store.encode.encoder.load_encoder", lambda *_, **__: encoder)
    for pictures, wanted in (("mean", files[:3]), ("first", files[:1])):
        assert reembedding.reembed_path(path, pictures=pictures).done == 2
        with Shelf.open(path, encoder=encoder) as shelf:
            assert np.allclose(image_half(shelf), mean(encoder, wanted), atol=1e-6)
            assert shelf.manifest.pictures == pictures
        assert read_manifest(path).pictures == pictures


def test_compaction_keeps_the_pictures_of_products_and_no_others(
    shelf: Any, encoder: FakeEncoder, files: list[str]
) -> None:
    shelf.upsert([product(files[:3])])
    shelf.upsert([product(files[1:4])])
    size = shelf.path / FOLDER
    before = sum(path.stat().st_size for path in size.iterdir())
    shelf.compact()
    assert sum(path.stat().st_size for path in size.iterdir()) == before * 3 // 4
    encoder.images = 0
    shelf.upsert([product(files[1:3])])
    assert encoder.images == 0


@pytest.mark.parametrize("kind", ["f32", "keys"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_damaged_embeddings_of_pictures_are_made_again(
    kind: str, damage: str, shelf: Any, encoder: FakeEncoder, files: list[str]
) -> None:
    shelf.upsert([product(files[:3])])
    (path,) = (shelf.path / FOLDER).glob(f"*.{kind}")
    data = bytearray(path.read_bytes())
    data[5] ^= 1
    path.unlink() if damage == "gone" else path.write_bytes(data[:-3] if damage == "cut" else data)
    with Shelf.open(shelf.path, encoder=encoder) as again:
        shelf.close()
        again.upsert([product([files[0], files[3], files[2]])])
        wanted = mean(encoder, [files[0], files[3], files[2]])
        assert np.allclose(image_half(again), wanted, atol=1e-6)


def test_rows_of_pictures_come_back_to_the_bit(shelf: Any) -> None:
    manifest = shelf.manifest.replace(fingerprint="x", dimension=8)
    rows = {f"{i:032x}": np.random.default_rng(i).random(8, np.float32) for i in range(5)}
    PictureVectors(shelf.path, manifest).put(rows)
    vectors = PictureVectors(shelf.path, manifest)
    vectors.put(rows | {"f" * 32: np.zeros(8, np.float32)})
    for name, row in rows.items():
        assert np.array_equal(PictureVectors(shelf.path, manifest).get(name), row)
    assert vectors.get("e" * 32) is None
    other = PictureVectors(shelf.path, manifest.replace(fingerprint="y"))
    assert other.get(next(iter(rows))) is None


def test_opposite_pictures_leave_the_first() -> None:
    row = np.array([0.6, 0.8], np.float32)
    assert np.array_equal(pooled([row, -row]), row)


def test_the_evidence_names_the_picture_that_matched(
    shelf: Any, files: list[str], tmp_path: Path
) -> None:
    mug = product(files[:3]).replace(category="Mugs")
    shelf.upsert([mug, Product("2", "bowl", category="Bowls", image=files[3])])
    asked = paint(tmp_path / "asked.png", (35, 190, 40))
    found = {near.id: near.matched for near in shelf.similar(image=asked).neighbours}
    assert found == {"1": files[1], "2": None}
    answer = shelf.classify(image=asked)
    assert {e.neighbour.id: e.neighbour.matched for e in answer.neighbours} == found
    assert shelf.similar(text="mug").neighbours[0].matched is None
