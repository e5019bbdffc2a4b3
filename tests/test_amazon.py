"""The same path on real products: embeddings of the coursework, 600 pictures, the raw file."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from conftest import FakeEncoder

from kinshelf import Shelf
from kinshelf.db.sources.prepare import TrainingSetOptions
from kinshelf.probe.evaluate.held_out import evaluate_shelf
from kinshelf.probe.predict.predictor import classify_source
from kinshelf.probe.train import train_shelf
from kinshelf.samples import tiny_clip_dir
from kinshelf.store import AddOptions


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def supplied(amazon: Path, **options: object) -> AddOptions:
    folder = amazon / "embeddings"
    return AddOptions(
        image_embeddings=folder / "image_embeddings.npy",
        text_embeddings=folder / "text_embeddings.npy",
        **options,  # type: ignore[arg-type]
    )


def test_the_coursework_embeddings_give_a_probe_as_good_as_the_coursework(
    amazon: Path, tmp_path: Path
) -> None:
    """Accuracy on a fifth held out; the recipe's own, cross-validated on all rows, is 0.969."""
    options = supplied(amazon, training=TrainingSetOptions(val_fraction=0.2, exact=True))
    with Shelf.create(tmp_path / "a.shelf") as shelf:
        report = shelf.add(amazon / "embeddings" / "products.csv", options)
        assert (report.inserted, report.rejected) == (828, 0)
        trained = train_shelf(shelf)
        assert trained.trained_rows == len(shelf.snapshot().labelled("train")[0])
        metrics = evaluate_shelf(shelf).metrics
    assert metrics["hybrid"]["n"] == 166
    assert metrics["hybrid"]["accuracy"] >= 0.94
    assert metrics["probe"]["accuracy"] >= 0.94
    assert metrics["knn"]["accuracy"] >= 0.90
    assert metrics["hybrid"]["nll"] < 0.2


def test_supplied_embeddings_are_kept_bit_for_bit(amazon: Path, tmp_path: Path) -> None:
    folder = amazon / "embeddings"
    with Shelf.create(tmp_path / "a.shelf") as shelf:
        shelf.add(folder / "products.csv", supplied(amazon))
        now = shelf.snapshot()
        ids = [row["id"] for row in rows_of(folder / "products.csv")]
        pairs = now.pairs([now.view.by_ids([i])[i].row for i in ids])
    image, text = (np.load(folder / f"{name}_embeddings.npy") for name in ("image", "text"))
    assert (pairs == np.hstack([image, text])).all()


def test_nearest_products_are_those_of_exact_search(amazon: Path, tmp_path: Path) -> None:
    folder = amazon / "embeddings"
    image, text = (np.load(folder / f"{name}_embeddings.npy") for name in ("image", "text"))
    fused = np.hstack([image, text]).astype(np.float64) / np.sqrt(2)
    ids = [row["id"] for row in rows_of(folder / "products.csv")]
    with Shelf.create(tmp_path / "a.shelf") as shelf:
        shelf.add(folder / "products.csv", supplied(amazon))
        for at in range(0, 828, 92):
            found = shelf.similar(id=ids[at], k=10).neighbours
            scores = fused @ fused[at]
            scores[at] = -2
            expected = np.sort(scores)[::-1][:10]
            assert [n.similarity for n in found] == pytest.approx(expected.tolist(), abs=1e-5)


def test_the_raw_file_is_read_as_published(amazon: Path, tmp_path: Path) -> None:
    raw = rows_of(amazon / "raw_sample.csv")
    Shelf.create(tmp_path / "a.shelf", encoder="fake").close()
    with Shelf.open(tmp_path / "a.shelf", encoder=FakeEncoder()) as shelf:
        report = shelf.add(amazon / "raw_sample.csv")
        assert report.inserted == len(raw) == 10
        assert report.image_failed == 10  # no network: kept as text-only, and reported
        now = shelf.snapshot()
        first = now.get(raw[0]["Uniq Id"]).product
    assert first.title == raw[0]["Product Name"]
    assert first.price == 237.68
    assert first.category == raw[0]["Category"]
    assert first.image == raw[0]["Image"].split("|")[0]
    assert "Make sure this fits" not in first.description


@pytest.mark.slow
def test_six_hundred_real_pictures_go_through_the_tiny_clip(amazon: Path, tmp_path: Path) -> None:
    """Not a measure of quality: the tiny CLIP has never seen a photograph."""
    with Shelf.create(tmp_path / "a.shelf", encoder=str(tiny_clip_dir())) as shelf:
        report = shelf.add(amazon / "products.csv")
        assert (report.inserted, report.rejected, report.image_failed) == (600, 0, 0)
        again = shelf.add(amazon / "products.csv")
        assert (again.unchanged, again.encoded_images, again.encoded_texts) == (600, 0, 0)
        train_shelf(shelf)
        answers = classify_source(shelf, amazon / "products.csv", AddOptions())
        found = [answer for _, batch in answers for answer in batch]
    assert len(found) == 600
    assert {answer.category for answer in found} <= {
        r["category"] for r in rows_of(amazon / "products.csv")
    }
