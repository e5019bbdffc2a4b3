"""A similarity is the weighted mean of the cosines of what query and product both have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import unit, write_csv
from engine_products import similarities
from hypothesis import given
from hypothesis import strategies as st

from kinshelf import Shelf
from kinshelf.db.errors import InputError
from kinshelf.store import AddOptions

D = 6


def shelf_of(folder: Path, image: np.ndarray, text: np.ndarray) -> Shelf:
    """A shelf of supplied pairs; a row of zeros is a modality that the product lacks."""
    shelf = Shelf.create(folder / "s.shelf")
    pictured, titled = image.any(axis=1), text.any(axis=1)
    for name, rows in (
        ("both", pictured & titled), ("image", pictured & ~titled), ("text", titled & ~pictured)
    ):  # fmt: skip
        given = {}
        for side, values in (("image", image), ("text", text)):
            if name in ("both", side):
                path = given[f"{side}_embeddings"] = folder / f"{name}-{side}.npy"
                np.save(path, values[rows])
        products = [{"id": str(i), "title": f"t{i}"} for i in np.flatnonzero(rows)]
        shelf.add(write_csv(folder / f"{name}.csv", products), AddOptions(**given))
    return shelf


def some(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """n pairs, a third of them without picture and a third without text."""
    image, text = (unit(rng.standard_normal((n, D))).astype(np.float32) for _ in "it")
    kind = rng.integers(0, 3, n)
    image[kind == 1], text[kind == 2] = 0, 0
    return image, text


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with shelf_of(tmp_path_factory.mktemp("m"), *some(np.random.default_rng(1), 60)) as shelf:
        yield shelf


@given(seed=st.integers(0, 10**6), weight=st.sampled_from([0.1, 0.5, 0.8]), k=st.integers(1, 60))
def test_ranking_and_similarities_are_those_of_the_definition(
    mixed: Any, seed: int, weight: float, k: int
) -> None:
    now = mixed.snapshot()
    queries = np.hstack(some(np.random.default_rng(seed), 4))
    every = now.pairs(np.arange(60))
    found = now.kneighbors(queries, k, weight_image=weight)
    for i, expected in enumerate(similarities(queries, every, weight)):
        assert found.similarities[i] == pytest.approx(np.sort(expected)[::-1][:k], abs=1e-5)
        assert expected[found.rows[i]] == pytest.approx(found.similarities[i], abs=1e-5)
        assert len(set(found.rows[i])) == k


def test_a_picture_alone_finds_itself_with_a_similarity_of_1(mixed: Any) -> None:
    now = mixed.snapshot()
    row = int(np.flatnonzero(now.pairs(np.arange(60))[:, :D].any(axis=1))[0])
    query = now.pairs([row])
    query[:, D:] = 0
    found = now.kneighbors(query, 1)
    assert found.rows[0, 0] == row
    assert found.similarities[0, 0] == pytest.approx(1)


@pytest.mark.parametrize(("weight", "given"), [(1.0, "text"), (0.0, "image")])
def test_a_weight_under_which_nothing_counts_is_refused(
    mixed: Any, weight: float, given: str
) -> None:
    query = np.ones((1, 2 * D), dtype=np.float32) / np.float32(np.sqrt(D))
    query[:, slice(0, D) if given == "text" else slice(D, None)] = 0
    with pytest.raises(InputError, match=f"weight_image is {weight:.0f}"):
        mixed.snapshot().kneighbors(query, 3, weight_image=weight)
