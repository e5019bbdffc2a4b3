"""A shelf keeps what it was given, answers from one generation, and encodes nothing twice."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from conftest import FakeEncoder, make_catalogue, write_csv

from kinshelf import Shelf
from kinshelf.db.errors import (
    DuplicateId,
    EncoderMismatch,
    GenerationNotFound,
    ProductNotFound,
    ShelfExists,
    ShelfLocked,
    ShelfNotFound,
)
from kinshelf.store import AddOptions


def exact_neighbours(shelf: Shelf, row: int, k: int) -> list[int]:
    """The oracle: every similarity by NumPy in float64, the row itself left out."""
    now = shelf.snapshot()
    rows = now.view.rows()
    vectors = now.fused(rows).astype(np.float64)
    scores = vectors @ vectors[list(rows).index(row)]
    order = sorted(range(len(rows)), key=lambda i: (-round(scores[i], 6), rows[i]))
    return [int(rows[i]) for i in order if rows[i] != row][:k]


def test_products_come_back_as_they_were_given(shelf: Shelf, catalogue: Path) -> None:
    report = shelf.add(catalogue)
    assert (report.inserted, report.rejected, report.image_failed) == (30, 0, 0)
    found = shelf.snapshot().get("p4").product
    assert (found.title, found.category, found.price) == (
        "green thing number 4",
        "Things | Green",
        4.5,
    )
    assert found.attributes == {"colour": "green"}
    assert found.image == str(catalogue.parent / "p4.png")


def test_adding_the_same_file_again_encodes_nothing(
    shelf: Shelf, catalogue: Path, encoder: FakeEncoder
) -> None:
    shelf.add(catalogue)
    before, encoded = shelf.generation, (encoder.images, encoder.texts)
    report = shelf.add(catalogue)
    assert (report.unchanged, report.inserted, report.updated) == (30, 0, 0)
    assert (encoder.images, encoder.texts) == encoded
    assert shelf.generation == before


def test_a_changed_category_updates_the_row_without_encoding(
    shelf: Shelf, catalogue: Path, encoder: FakeEncoder
) -> None:
    shelf.add(catalogue)
    old = shelf.snapshot().get("p7")
    pairs = shelf.snapshot().pairs([old.row])
    encoded = (encoder.images, encoder.texts)
    catalogue.write_text(catalogue.read_text().replace("number 7,Things | Green", "number 7,Odd"))
    report = shelf.add(catalogue)
    new = shelf.snapshot().get("p7")
    assert (report.updated, report.unchanged) == (1, 29)
    assert new.product.category == "Odd"
    assert new.row != old.row
    assert (shelf.snapshot().pairs([new.row]) == pairs).all()
    assert (encoder.images, encoder.texts) == encoded


def test_a_changed_title_encodes_that_text_alone(
    shelf: Shelf, catalogue: Path, encoder: FakeEncoder
) -> None:
    shelf.add(catalogue)
    encoded = (encoder.images, encoder.texts)
    catalogue.write_text(catalogue.read_text().replace("thing number 7,", "gadget number 7,"))
    shelf.add(catalogue)
    assert (encoder.images, encoder.texts) == (encoded[0], encoded[1] + 1)


def test_a_reopened_shelf_answers_the_same(shelf: Shelf, catalogue: Path) -> None:
    shelf.add(catalogue)
    before = shelf.similar(id="p3", k=5)
    shelf.close()
    with Shelf.open(shelf.path) as again:
        assert again.similar(id="p3", k=5) == before


def test_derived_files_may_be_deleted(shelf: Shelf, catalogue: Path) -> None:
    shelf.add(catalogue)
    before = shelf.similar(id="p3", k=5, where="colour = 'green'")
    shelf.close()
    derived = [*shelf.path.glob("catalog.duckdb*"), *shelf.path.glob("index-*")]
    assert {path.suffix for path in derived} == {".duckdb", ".json"}
    for path in derived:
        path.unlink()
    with Shelf.open(shelf.path) as again:
        assert again.similar(id="p3", k=5, where="colour = 'green'") == before


def test_damaged_derived_files_change_nothing(shelf: Shelf, catalogue: Path) -> None:
    shelf.add(catalogue)
    before = shelf.similar(id="p3", k=5)
    shelf.close()
    for path in (*shelf.path.glob("catalog.duckdb*"), *shelf.path.glob("index-*")):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0x40
        path.write_bytes(data)
    with Shelf.open(shelf.path) as again:
        assert again.similar(id="p3", k=5) == before


def test_similar_agrees_with_exact_numpy_search(shelf: Shelf, catalogue: Path) -> None:
    shelf.add(catalogue)
    for name in ("p0", "p11", "p29"):
        row = shelf.snapshot().get(name).row
        found = [n.row for n in shelf.similar(id=name, k=6).neighbours]
        assert found == exact_neighbours(shelf, row, 6)


def test_a_similarity_is_the_mean_of_its_two_parts(shelf: Shelf, catalogue: Path) -> None:
    shelf.add(catalogue)
    for n in shelf.similar(id="p5").neighbours:
        assert n.image_similarity is not None
        assert n.text_similarity is not None
        assert n.similarity == pytest.approx((n.image_similarity + n.text_similarity) / 2, abs=1e-6)


def test_the_image_weight_decides_what_counts(shelf: Shelf, catalogue: Path) -> None:
    shelf.add(catalogue)
    for weight, part in ((1.0, "image_similarity"), (0.0, "text_similarity")):
        for n in shelf.similar(id="p5", weight_image=weight).neighbours:
            assert n.similarity == pytest.approx(getattr(n, part), abs=1e-6)


def test_a_filter_returns_every_match_there_is(shelf: Shelf, catalogue: Path) -> None:
    shelf.add(catalogue)
    found = shelf.similar(id="p1", k=30, where="colour = 'red' AND price < 10")
    assert {n.id for n in found.neighbours} == {"p0", "p3", "p6", "p9"}
    assert found.exhaustive


def test_removed_products_are_out_of_every_answer_at_once(shelf: Shelf, catalogue: Path) -> None:
    shelf.add(catalogue)
    gone = [n.id for n in shelf.similar(id="p3", k=3).neighbours]
    assert shelf.remove(gone) == 3
    assert not set(gone) & {n.id for n in shelf.similar(id="p3", k=30).neighbours}
    assert not set(gone) & {p.product.id for p in shelf.snapshot().select()}
    with pytest.raises(ProductNotFound, match=gone[0]):
        shelf.snapshot().get(gone[0])


def test_removing_an_unknown_id_removes_nothing_and_names_near_ones(
    shelf: Shelf, catalogue: Path
) -> None:
    shelf.add(catalogue)
    with pytest.raises(ProductNotFound, match=r"p99.*did you mean p"):
        shelf.remove(["p1", "p99"])
    assert shelf.snapshot().count == 30
    with pytest.raises(ProductNotFound) as caught:
        shelf.snapshot().get("something else")
    assert "did you mean" not in str(caught.value)


def test_an_older_generation_can_still_be_asked(shelf: Shelf, catalogue: Path) -> None:
    shelf.add(catalogue)
    then = shelf.generation
    before = shelf.snapshot().select()
    shelf.remove(["p1", "p2"])
    assert [p.product for p in shelf.snapshot(at=then).select()] == [p.product for p in before]
    assert shelf.snapshot().count == 28
    with pytest.raises(GenerationNotFound, match="99"):
        shelf.snapshot(at=99)


def test_a_snapshot_does_not_change_while_the_shelf_does(shelf: Shelf, catalogue: Path) -> None:
    shelf.add(catalogue)
    old = shelf.snapshot()
    shelf.remove(["p1"])
    make_catalogue(catalogue.parent, 40)
    shelf.add(catalogue)
    assert old.count == 30
    assert old.get("p1").product.id == "p1"
    found = old.kneighbors(old.pairs([0]), 40)
    assert (found.rows >= 0).sum() == 30


def test_another_handle_sees_a_change_once_it_is_committed(shelf: Shelf, catalogue: Path) -> None:
    with Shelf.open(shelf.path) as reader:
        assert reader.snapshot().count == 0
        shelf.add(catalogue)
        assert reader.snapshot().count == 30


def test_a_second_writer_is_refused_with_the_name_of_the_first(shelf: Shelf) -> None:
    with (
        Shelf.open(shelf.path) as other,
        shelf.writing(),
        pytest.raises(ShelfLocked, match=f"process {os.getpid()}"),
        other.writing(),
    ):
        pass


def test_an_interrupted_add_keeps_its_batches_and_goes_on(
    shelf: Shelf, catalogue: Path, encoder: FakeEncoder
) -> None:
    calls = iter([False, True])
    first = shelf.add(catalogue, AddOptions(batch_size=10), stop=lambda: next(calls))
    assert first.interrupted
    assert shelf.snapshot().count == first.inserted == 20
    second = shelf.add(catalogue, AddOptions(batch_size=10))
    assert (second.inserted, second.unchanged) == (10, 20)
    assert encoder.images == 30


def test_an_exception_in_the_middle_keeps_earlier_batches(
    shelf: Shelf, catalogue: Path, monkeypatch: pytest.MonkeyPatch, encoder: FakeEncoder
) -> None:
    encode = encoder.encode_texts

    def fail_late(texts: list[str]) -> np.ndarray:
        if shelf.snapshot().count >= 10:
            raise KeyboardInterrupt
        return encode(texts)

    monkeypatch.setattr(encoder, "encode_texts", fail_late)
    with pytest.raises(KeyboardInterrupt):
        shelf.add(catalogue, AddOptions(batch_size=10))
    with Shelf.open(shelf.path) as again:
        assert again.snapshot().count == 10


def test_conflicts_are_skipped_or_refused_when_asked(shelf: Shelf, catalogue: Path) -> None:
    shelf.add(catalogue)
    changed = write_csv(
        catalogue.parent / "more.csv",
        [{"id": "p1", "title": "other words"}, {"id": "q1", "title": "new words"}],
    )
    with pytest.raises(DuplicateId, match="p1"):
        shelf.add(changed, AddOptions(on_conflict="error"))
    report = shelf.add(changed, AddOptions(on_conflict="skip"))
    assert (report.inserted, report.skipped) == (1, 1)
    assert shelf.snapshot().get("p1").product.title == "green thing number 1"


def test_another_encoder_is_refused_and_both_are_named(shelf: Shelf, catalogue: Path) -> None:
    shelf.add(catalogue)
    with pytest.raises(EncoderMismatch, match=r"fake-fake-16.*other.*fake-other-16"):
        Shelf.open(shelf.path, encoder=FakeEncoder("other"))


def test_a_shelf_is_not_made_over_anything(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ShelfExists, match="not empty"):
        Shelf.create(tmp_path)


def test_opening_nothing_states_how_to_make_a_shelf(tmp_path: Path) -> None:
    with pytest.raises(ShelfNotFound, match="init"):
        Shelf.open(tmp_path / "none")


def test_a_product_with_one_modality_is_kept_with_the_other_missing(
    shelf: Shelf, catalogue: Path
) -> None:
    mixed = write_csv(
        catalogue.parent / "mixed.csv",
        [
            {"id": "text", "title": "red thing", "image": ""},
            {"id": "image", "title": "", "image": "p0.png"},
        ],
    )
    shelf.add(mixed)
    now = shelf.snapshot()
    text, image = now.get("text"), now.get("image")
    assert (text.has_image, text.has_text, image.has_image, image.has_text) == (
        False,
        True,
        True,
        False,
    )
    pairs = now.pairs([text.row, image.row])
    assert not pairs[0, :16].any()
    assert not pairs[1, 16:].any()
    assert np.linalg.norm(pairs[0, 16:]) == pytest.approx(1, abs=1e-6)


def test_identical_pictures_of_a_batch_are_encoded_once(
    shelf: Shelf, catalogue: Path, encoder: FakeEncoder
) -> None:
    rows = [{"id": f"c{i}", "title": f"copy {i % 2}", "image": "p0.png"} for i in range(6)]
    shelf.add(write_csv(catalogue.parent / "copies.csv", rows))
    assert (encoder.images, encoder.texts) == (1, 2)
