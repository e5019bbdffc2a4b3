"""Pages stand alone, show what users wrote as text, and say so where a picture is missing."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import unit
from PIL import Image

from kinshelf import Shelf
from kinshelf.db.images.cache import ImageCache
from kinshelf.db.text import fixed, percent
from kinshelf.probe.audit.audit import audit_shelf
from kinshelf.probe.audit.files import write_audit
from kinshelf.probe.evaluate.held_out import Evaluation
from kinshelf.probe.fit.settings import ProbeSettings
from kinshelf.probe.pages.card import SHOWN_ANSWERS, Asked, card_page
from kinshelf.probe.pages.report import risk_coverage, write_report
from kinshelf.probe.pages.thumbnails import SIDE, Thumbnails
from kinshelf.probe.predict.prediction import Prediction
from kinshelf.probe.predict.predictor import Predictor
from kinshelf.probe.predict.wording import reason
from kinshelf.store import Product

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)> {{ 7 * 7 }} & <b>'
D = 16


class Page(HTMLParser):
    """Tags, attributes and text of a page, as a browser reads them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def check_stands_alone(page: str) -> Page:
    """No script, no handler, nothing from elsewhere; what is hostile is there as text."""
    read = Page(page)
    assert not {tag for tag, _ in read.tags} & {"script", "iframe", "object", "link", "form", "b1"}
    for tag, attributes in read.tags:
        assert not [name for name in attributes if name.startswith("on")], tag
        assert not {"href", "srcset", "action"} & attributes.keys()
        source = attributes.get("src")
        assert source is None or source.startswith("data:image/jpeg;base64,")
    assert "url(" not in page
    assert "@import" not in page
    assert "default-src 'none'" in page
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page
    assert "width=device-width" in page
    assert HOSTILE in read.text
    assert "alert(1)</script>" not in page
    return read


def picture(path: Path, size: tuple[int, int] = (400, 200)) -> str:
    Image.new("RGB", size, (200, 30, 30)).save(path)
    return str(path)


@pytest.fixture
def goods(tmp_path: Path) -> Shelf:
    """Sixty products in two hostile categories: some pictures there, some missing, one twice."""
    rng = np.random.default_rng(0)
    code = np.arange(60) % 2
    centres = rng.standard_normal((2, D)) * 3
    image, text = (unit(centres[code] + rng.standard_normal((60, D))) for _ in range(2))
    image[2], text[2] = image[0], text[0]
    shown = picture(tmp_path / "a.png")
    wares = [
        Product(f"p{i}" if i else HOSTILE, title=f"{HOSTILE} {i % 58}",
                category=f"kind {c} {HOSTILE}",
                image=shown if i % 3 == 0 else str(tmp_path / "gone.png") if i % 3 == 1 else None,
                split="val" if i % 4 == 0 else None)
        for i, c in enumerate(code)
    ]  # fmt: skip
    wares[2] = wares[2].replace(title=wares[0].title, image=shown)
    wares[4] = wares[4].replace(category=wares[1].category)
    shelf = Shelf.create(tmp_path / "a.shelf")
    shelf.upsert(wares, image, text)
    return shelf


def predictions(shelf: Shelf) -> list[Prediction]:
    now = shelf.snapshot()
    rows = [stored.row for stored in now.select(limit=4)]
    return Predictor.for_shelf(shelf).predict(now.pairs(rows))


def test_a_card_shows_pictures_similarities_and_votes(goods: Shelf, tmp_path: Path) -> None:
    asked = [Asked(found, str(tmp_path / "a.png"), HOSTILE) for found in predictions(goods)]
    page = check_stands_alone(card_page(asked, Thumbnails(tmp_path)))
    found = asked[0].found
    assert reason(found) in page.text
    assert found.category in page.text
    assert percent(found.probability) in page.text
    assert found.verdict in page.text
    assert "no picture" in page.text
    assert "picture missing file" in page.text
    nearest = found.neighbours[0].neighbour
    for part in (nearest.similarity, nearest.image_similarity, nearest.text_similarity):
        assert fixed(part) in page.text
    assert sum(tag == "img" for tag, _ in page.tags) >= 2


def test_a_page_of_many_answers_states_how_many_it_leaves_out(goods: Shelf, tmp_path: Path) -> None:
    one = Asked(predictions(goods)[0], None, HOSTILE)
    page = Page(card_page([one] * (SHOWN_ANSWERS + 7), Thumbnails(tmp_path)))
    assert "7 more are not shown" in page.text
    assert sum(tag == "section" for tag, _ in page.tags) == SHOWN_ANSWERS


def test_the_audit_page_names_every_finding(goods: Shelf, tmp_path: Path) -> None:
    audit = audit_shelf(goods, settings=ProbeSettings(epochs=5, hidden=16, refit_below=0))
    written = write_audit(audit, tmp_path / "audit.html", Thumbnails(tmp_path))
    page = check_stands_alone((tmp_path / "audit.html").read_text(encoding="utf-8"))
    assert sum(tag == "section" for tag, _ in page.tags) == written == len(audit.places)
    assert "the same picture and text" in page.text
    assert "Looks like kind 0" in page.text
    for row in audit.rows:
        assert row.id in page.text


def test_the_report_shows_curves_matrix_and_mistakes(goods: Shelf, tmp_path: Path) -> None:
    now = goods.snapshot()
    rows, y_true = now.labelled("val")
    classes = tuple(sorted(set(now.labelled()[1])))
    proba = np.full((len(rows), 2), 0.2)
    right = np.array([classes.index(name) for name in y_true])
    stated = right.copy()
    stated[:3] = 1 - stated[:3]
    proba[np.arange(len(rows)), stated] = 0.8
    methods = {"probe": proba, "knn": proba, "hybrid": proba}
    found = Evaluation(methods, y_true, classes, "by hand", rows, sets=proba > 0.5)
    write_report(tmp_path / "r.html", now, found, Thumbnails(tmp_path))
    page = check_stands_alone((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert "by hand" in page.text
    assert percent(1 - 3 / len(rows)) in page.text
    assert sum(tag == "section" for tag, _ in page.tags) == 3
    assert sum(tag == "svg" and at.get("role") == "img" for tag, at in page.tags) == 4
    assert sum(tag == "polyline" for tag, _ in page.tags) == 6
    share = f"{percent(1 - 3 / len(rows))} of {len(rows)}"
    assert f"When probe and neighbours agreed, {share} held-out answers were right." in page.text
    assert "Probe and neighbours disagreed on none of the held-out products." in page.text
    assert f"did so for {share} products, with 1.00 categories on average." in page.text
    cells = re.findall(r"rgba\(var\(--heat\), [\d.]+\)\">(\d+)<", (tmp_path / "r.html").read_text())
    assert sum(map(int, cells)) == len(rows)


def test_risk_at_a_coverage_is_the_error_rate_of_the_surest() -> None:
    confidence = np.array([0.9, 0.5, 0.8, 0.7])
    right = np.array([True, False, True, False])
    coverage, risk = zip(*risk_coverage(confidence, right), strict=True)
    assert coverage == (0.25, 0.5, 0.75, 1.0)
    assert risk == pytest.approx((0, 0, 1 / 3, 1 / 2))


def thumbnail(uri: str | None) -> Image.Image:
    assert uri is not None
    head, data = uri.split(",")
    assert head == "data:image/jpeg;base64"
    return Image.open(BytesIO(base64.b64decode(data)))


def test_a_thumbnail_is_small_and_keeps_the_shape_and_none_of_the_metadata(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "secret place"
    Image.new("RGB", (400, 200), (200, 30, 30)).save(tmp_path / "a.jpg", exif=exif)
    made = Thumbnails(tmp_path).uri(str(tmp_path / "a.jpg"))
    shown = thumbnail(made)
    assert shown.size == (SIDE, SIDE // 2)
    assert not shown.getexif()
    red: Any = shown.getpixel((40, 40))
    assert red == pytest.approx((200, 30, 30), abs=4)


def test_a_missing_picture_states_why(tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"no picture at all")
    thumbnails = Thumbnails(tmp_path / "cache")
    stated = {
        None: "no picture",
        str(tmp_path / "gone.jpg"): "picture missing file",
        str(tmp_path / "bad.jpg"): "picture not an image",
        "https://shop.example/a.jpg": "picture not downloaded",
    }
    for image, problem in stated.items():
        assert thumbnails.uri(image) is None
        assert thumbnails.problem(image) == problem
    assert not (tmp_path / "cache").exists()


def test_a_downloaded_picture_is_shown_from_the_cache(tmp_path: Path) -> None:
    file = BytesIO()
    Image.new("RGB", (64, 64), (30, 200, 30)).save(file, "PNG")
    ImageCache(tmp_path / "images").put("https://shop.example/a.png", file.getvalue())
    assert thumbnail(Thumbnails(tmp_path / "images").uri("https://shop.example/a.png"))


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.973, "97.3 %"),
        (1.0, "100.0 %"),
        (0.99999, "> 99.9 %"),
        (0.0001, "< 0.1 %"),
        (0.0, "0.0 %"),
    ],
)
def test_a_percentage_is_100_only_when_it_is(value: float, shown: str) -> None:
    assert percent(value) == shown
