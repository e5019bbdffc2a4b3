"""Words find pictures: a text or a picture alone, compared with both of what products have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import unit
from similar_world import COUNT, DIMENSION, filled_directory, halves, of_words

import kinshelf as ks
import kinshelf.store.similar.questions
from kinshelf.db.errors import InputError
from kinshelf.store.similar.cross import Space, crossing
from kinshelf.store.similar.questions import ranking


def ids(found: Any) -> list[str]:
    return [each.id for each in found.neighbours]


@pytest.fixture
def gaps() -> tuple[np.ndarray, np.ndarray]:
    """Of 60 products every third has no title, every fifteenth no picture."""
    image, text = halves()
    text[::3] = 0
    image[1::15] = 0
    return image, text


@pytest.fixture
def shelf(tmp_path: Path, gaps: tuple[np.ndarray, np.ndarray]) -> Iterator[Any]:
    with filled_directory(tmp_path / "a.shelf", *gaps) as opened:
        yield opened


def order(scores: np.ndarray, k: int) -> list[str]:
    return [f"p{i}" for i in np.lexsort((np.arange(len(scores)), -scores))[:k]]


@pytest.mark.parametrize("weight", [0.5, 0.3, 1.0])
def test_a_text_finds_what_numpy_finds_in_pictures_and_texts(
    shelf: Any, gaps: tuple[np.ndarray, np.ndarray], weight: float
) -> None:
    for name, query in shelf.encoder.known.items():
        expected = of_words(query, *gaps, weight)
        found = shelf.similar(text=name, k=20, weight_image=weight)
        assert ids(found) == order(expected, 20)
        best = np.sort(expected)[::-1][:20]
        np.testing.assert_allclose([n.similarity for n in found.neighbours], best, atol=1e-5)
        assert found.exhaustive


def test_a_product_without_a_title_is_found_by_its_picture(
    shelf: Any, gaps: tuple[np.ndarray, np.ndarray]
) -> None:
    shelf.encoder.known |= {f"about {i}": halves()[1][i] for i in range(0, COUNT, 3)}
    pictured = [i for i in range(0, COUNT, 3) if gaps[0][i].any()]
    found = [f"p{i}" in ids(shelf.similar(text=f"about {i}", k=10)) for i in pictured]
    by_title = [f"p{i}" in ids(shelf.similar(text=f"about {i}", against="text")) for i in pictured]
    assert sum(found) >= 0.9 * len(found)
    assert not any(by_title)


def test_against_pictures_alone_finds_those_alone_and_against_texts_is_plain_search(
    shelf: Any, gaps: tuple[np.ndarray, np.ndarray]
) -> None:
    image, text = gaps
    found = shelf.similar(text="q1", against="image", k=COUNT)
    assert set(ids(found)) == {f"p{i}" for i in range(COUNT) if image[i].any()}
    scores = of_words(shelf.encoder.known["q1"], image, text, 1.0)
    there = image.any(axis=1)
    assert ids(found)[:20] == order(np.where(there, scores, -np.inf), 20)
    plain = shelf.similar(text="q1", against="text", k=5)
    pair = np.hstack([np.zeros(DIMENSION), shelf.encoder.known["q1"]]).astype(np.float32)
    near = shelf.search(pair[None], 5)
    assert [n.row for n in plain.neighbours] == near.rows[0].tolist()
    assert [n.similarity for n in plain.neighbours] == near.similarities[0].tolist()


def test_a_filter_and_older_generations_count_as_in_any_search(
    shelf: Any, gaps: tuple[np.ndarray, np.ndarray]
) -> None:
    scores = of_words(shelf.encoder.known["q2"], *gaps, 0.5)
    scores[20:] = -np.inf
    assert ids(shelf.similar(text="q2", where="price < 20", k=10)) == order(scores, 10)
    before = shelf.similar(text="q2", k=10)
    shelf.remove(ids(before)[:3])
    assert not set(ids(shelf.similar(text="q2", k=10))) & set(ids(before)[:3])
    then = shelf.similar(text="q2", k=10, at=before.generation)
    assert ids(then) == ids(before)
    shown = [[n.similarity for n in each.neighbours] for each in (then, before)]
    np.testing.assert_allclose(*shown, atol=1e-6)


def test_candidates_of_the_search_are_scored_where_there_are_too_many_products(
    shelf: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    exactly = shelf.similar(text="q0", k=5)
    monkeypatch.setattr(kinshelf.store.similar.questions, "EXACT_ROWS", 10)
    by_candidates = shelf.similar(text="q0", k=5)
    assert ids(by_candidates) == ids(exactly)  # 200 of each kind are all of them
    assert not by_candidates.exhaustive
    assert shelf.similar(text="q0", where="price < 9", k=5).exhaustive


def test_a_picture_is_compared_with_titles_too(shelf: Any) -> None:
    now = shelf.snapshot()
    lone = 16  # a title, and no picture
    picture = np.hstack([halves()[0][lone], np.zeros(DIMENSION)]).astype(np.float32)
    asked = crossing(now, picture, None, 0.5)
    assert asked is not None
    assert lone in ranking(now, asked, 10).rows
    assert lone not in now.kneighbors(picture[None], 10).rows


def test_embeddings_of_two_models_are_not_compared(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    image, text = (unit(random.standard_normal((COUNT, DIMENSION))) for _ in range(2))
    with filled_directory(tmp_path / "b.shelf", image, text) as shelf:
        assert not Space.of(shelf.snapshot()).of_one_model
        assert shelf.similar(text="q0") == shelf.similar(text="q0", against="text")
        with pytest.raises(InputError, match="not embedded by one model"):
            shelf.similar(text="q0", against="image")


def test_a_shelf_without_pictures_is_searched_by_text_and_says_so_if_asked_otherwise(
    tmp_path: Path,
) -> None:
    _, text = halves()
    with filled_directory(tmp_path / "c.shelf", np.zeros_like(text), text) as shelf:
        assert shelf.similar(text="q0") == shelf.similar(text="q0", against="text")
        with pytest.raises(InputError, match="no product has a picture"):
            shelf.similar(text="q0", against="image")


def test_a_shelf_without_titles_is_searched_by_its_pictures_alone(tmp_path: Path) -> None:
    image, text = halves()
    with filled_directory(tmp_path / "d.shelf", image, np.zeros_like(text)) as shelf:
        found = shelf.similar(text="q0", k=7)
        cosines = image @ shelf.encoder.known["q0"]
        assert ids(found) == order(cosines, 7)
        assert found.neighbours[0].similarity == pytest.approx(cosines.max(), abs=1e-6)


@pytest.mark.parametrize("fields", [{"id": "a"}, {"text": "a", "image": "b.png"}, {}])
def test_against_needs_a_text_alone_or_a_picture_alone(fields: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="give a text alone or a picture alone"):
        ks.Query(against="image", **fields)


def test_a_picture_finds_what_looks_like_it_and_untitled_pictures_do_not_hide_it(
    shelf: Any, gaps: tuple[np.ndarray, np.ndarray]
) -> None:
    image, text = gaps
    for row in (2, 5, 8):
        pair = np.hstack([image[row], np.zeros(DIMENSION)]).astype(np.float32)
        question = crossing(shelf.snapshot(), pair, None, 0.5)
        assert question is not None
        found = ranking(shelf.snapshot(), question, COUNT)
        scores = np.where(image.any(axis=1), image @ image[row], -np.inf)
        pictured = [r for r in found.rows.tolist() if image[r].any()]
        assert pictured == np.lexsort((np.arange(COUNT), -scores))[: len(pictured)].tolist()
        assert found.rows[0] == row
        assert any(not image[r].any() and text[r].any() for r in found.rows[:COUNT].tolist())
