"""Novelty: products of an unknown category are distinguished from those of known ones."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest

from kinshelf.db.arrays import Float64Array, FloatArray, IntArray
from kinshelf.db.errors import InvalidEmbeddings
from kinshelf.probe.fit.data import ArrayData
from kinshelf.probe.fit.knn import ExactNeighbours
from kinshelf.probe.fit.split import training_set
from kinshelf.probe.novelty.fit import fit_novelty
from kinshelf.probe.novelty.mahalanobis import SHRINKAGE, Relative
from kinshelf.probe.novelty.model import NEIGHBOURS, NoveltyModel, p_values

pytestmark = pytest.mark.wide

REAL = Path(__file__).resolve().parents[2] / "shared" / "amazon2020" / "embeddings"
CLASSES, DIMENSION = 8, 48


def unit(X: Float64Array) -> Float64Array:
    return np.asarray(X / np.linalg.norm(X, axis=1, keepdims=True))


def mixture(n: int, seed: int = 0) -> tuple[FloatArray, IntArray]:
    """Fused embeddings of `CLASSES` overlapping categories, the means always the same."""
    fixed, rng = np.random.default_rng(7), np.random.default_rng(seed)
    y = rng.integers(0, CLASSES, n)
    pairs = []
    for _ in range(2):
        means, shared = unit(fixed.normal(size=(CLASSES, DIMENSION))), fixed.normal(size=DIMENSION)
        noise = rng.normal(size=(n, DIMENSION)) * np.arange(1, DIMENSION + 1) ** -0.5
        pairs.append(unit(shared / np.linalg.norm(shared) + means[y] + 0.55 * noise))
    return (np.concatenate(pairs, axis=1) / math.sqrt(2)).astype(np.float32), y


def names_of(y: IntArray) -> list[str]:
    return [f"category {code}" for code in y]


def fitted(X: FloatArray, y: IntArray) -> NoveltyModel:
    model = fit_novelty(training_set(ArrayData(X, names_of(y))))
    assert model is not None
    return model


def judged(
    model: NoveltyModel, X: FloatArray, y: IntArray, queries: FloatArray
) -> tuple[FloatArray, Float64Array]:
    """Scores and p-values of queries on a shelf of embeddings X with categories y."""
    places = ExactNeighbours(X).kneighbors(queries, NEIGHBOURS)[1]
    categories = np.array(names_of(y), dtype=object)[places]
    scores = model.score(queries, X[places], categories)
    return scores, model.p_value(scores, queries)


def without(half: str, X: FloatArray) -> FloatArray:
    alone = X.copy()
    middle = X.shape[1] // 2
    alone[:, slice(0, middle) if half == "image" else slice(middle, None)] = 0
    return alone


def area(known: FloatArray, novel: FloatArray) -> float:
    from sklearn.metrics import roc_auc_score

    truth = np.repeat([0, 1], [len(known), len(novel)])
    return float(roc_auc_score(truth, np.concatenate([known, novel])))


@pytest.fixture(scope="module")
def shelf() -> tuple[FloatArray, IntArray, NoveltyModel]:
    """A shelf that lacks category 0, and its model."""
    X, y = mixture(900)
    X, y = X[y != 0], y[y != 0]
    return X, y, fitted(X, y)


@pytest.fixture(scope="module")
def fresh() -> tuple[FloatArray, IntArray]:
    return mixture(1600, seed=1)


def test_products_of_a_category_left_out_score_higher_than_known_ones(shelf, fresh):
    X, y, model = shelf
    queries, truth = fresh
    scores, p = judged(model, X, y, queries)
    assert area(scores[truth != 0], scores[truth == 0]) >= 0.95
    assert (p[truth == 0] <= 0.05).mean() >= 0.75


def test_p_values_of_new_known_products_are_uniform(shelf, fresh):
    X, y, model = shelf
    queries, truth = fresh
    p = judged(model, X, y, queries[truth != 0])[1]
    for alpha in (0.05, 0.1, 0.25, 0.5, 0.75):
        # the calibration's own error: some 800 of the shelf's scores
        assert (p <= alpha).mean() == pytest.approx(alpha, abs=0.035), alpha


def test_products_of_a_rare_category_are_not_novel_for_being_unlike_the_common_one():
    rng, found = np.random.default_rng(0), []
    means = rng.normal(size=(2, 2, DIMENSION)) / math.sqrt(DIMENSION)

    def drawn(n: int) -> tuple[FloatArray, IntArray]:
        y = (rng.random(n) < 0.05).astype(np.int64)
        noise = rng.normal(size=(n, 2, DIMENSION)) * np.arange(1, DIMENSION + 1) ** -0.5
        pairs = 1 / math.sqrt(DIMENSION) + means[y] + noise
        pairs /= np.linalg.norm(pairs, axis=2, keepdims=True) * math.sqrt(2)
        return pairs.reshape(n, -1).astype(np.float32), y

    for _ in range(3):
        X, y = drawn(400)
        queries, truth = drawn(1200)
        p = judged(fitted(X, y), X, y, queries)[1]
        found.append([(p[truth == code] <= 0.05).mean() for code in (0, 1)])
    common, rare = np.mean(found, axis=0)
    assert common == pytest.approx(0.05, abs=0.035)
    assert rare <= 0.2


def test_copies_on_the_shelf_do_not_make_other_products_look_novel(shelf, fresh):
    X, y, _ = shelf
    queries, truth = fresh
    X, y = np.repeat(X, 2, axis=0), np.repeat(y, 2)
    p = judged(fitted(X, y), X, y, queries[truth != 0])[1]
    assert (p <= 0.05).mean() <= 0.085


def test_a_product_that_is_on_the_shelf_is_not_novel(shelf):
    X, y, model = shelf
    assert (judged(model, X, y, X)[1] <= 0.05).mean() < 0.03


@pytest.mark.parametrize(("added", "still_novel"), [(10, 0.5), (30, 0.1), (60, 0.05)])
def test_a_category_that_came_after_the_training_is_not_novel(shelf, fresh, added, still_novel):
    X, y, model = shelf
    queries, truth = fresh
    new = np.flatnonzero(truth == 0)
    before = judged(model, X, y, queries[new[added:]])[1]
    grown, codes = np.concatenate([X, queries[new[:added]]]), np.append(y, truth[new[:added]])
    after = judged(model, grown, codes, queries[new[added:]])[1]
    assert (before <= 0.05).mean() >= 0.75
    assert (after <= 0.05).mean() <= still_novel


def test_a_category_that_came_later_does_not_hide_another_unknown_one(fresh):
    X, y = fresh
    known = (y > 1) & (np.arange(len(y)) < 900)
    model = fitted(X[known], y[known])
    shelf = known | ((y == 1) & (np.arange(len(y)) < 300))
    assert (judged(model, X[shelf], y[shelf], X[y == 0])[1] <= 0.05).mean() >= 0.6


@pytest.mark.parametrize("half", ["image", "text"])
def test_queries_without_a_half_are_judged_by_the_other(shelf, fresh, half):
    X, y, model = shelf
    queries, truth = without(half, fresh[0]), fresh[1]
    scores, p = judged(model, X, y, queries)
    assert area(scores[truth != 0], scores[truth == 0]) >= 0.85
    assert (p[truth != 0] <= 0.05).mean() == pytest.approx(0.05, abs=0.035)


def test_a_shelf_where_half_of_the_products_lack_a_half_still_tells_novel_ones(shelf, fresh):
    X, y, _ = shelf
    queries, truth = fresh
    mixed = np.where(np.arange(len(X))[:, None] % 2 == 0, without("text", X), X)
    scores, p = judged(fitted(mixed, y), mixed, y, queries)
    assert area(scores[truth != 0], scores[truth == 0]) >= 0.9
    assert (p[truth != 0] <= 0.05).mean() <= 0.085


def test_a_half_that_the_shelf_does_not_have_cannot_be_judged(shelf):
    X, y, _ = shelf
    pictures = without("text", X)
    scores, p = judged(fitted(pictures, y), pictures, y, without("image", X[:5]))
    assert np.isnan(scores).all() and np.isnan(p).all()


def test_a_product_with_neither_half_cannot_be_judged(shelf):
    X, y, model = shelf
    assert np.isnan(judged(model, X, y, np.zeros_like(X[:2]))[1]).all()


def test_a_model_comes_back_from_its_arrays(shelf, fresh):
    X, y, model = shelf
    again = NoveltyModel.from_arrays(model.arrays(), model.signs.classes)
    for one, other in zip(
        judged(model, X, y, fresh[0]), judged(again, X, y, fresh[0]), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    assert {array.dtype.name for array in model.arrays().values()} == {"float32", "int64"}


def test_the_same_rows_and_seed_give_the_same_model(shelf):
    X, y, model = shelf
    for name, array in fitted(X, y).arrays().items():
        np.testing.assert_array_equal(array, model.arrays()[name])


def test_too_few_products_make_no_model():
    X, y = mixture(49)
    assert fit_novelty(training_set(ArrayData(X, names_of(y)))) is None
    copies = np.repeat(X[:20], 10, axis=0)
    assert fit_novelty(training_set(ArrayData(copies, names_of(np.repeat(y[:20], 10))))) is None


def test_a_score_without_any_neighbour_is_finite_and_novel(shelf):
    X, y, model = shelf
    nobody = np.full((3, NEIGHBOURS), None, dtype=object)
    scores = model.score(X[:3], np.zeros((3, NEIGHBOURS, X.shape[1]), dtype=np.float32), nobody)
    assert np.isfinite(scores).all()
    assert (scores > judged(model, X, y, X[:3])[0]).all()


def test_neighbours_of_another_shape_are_refused(shelf):
    X, _, model = shelf
    with pytest.raises(InvalidEmbeddings, match="neighbours of shape"):
        model.score(X[:3], X[None, :10], np.full((3, 10), None, dtype=object))


def test_a_p_value_counts_the_query_and_those_at_least_as_novel():
    usual = np.array([0.1, 0.2, 0.2, 0.4], dtype=np.float32)
    asked = np.array([0.0, 0.2, 0.3, 0.5, np.nan], dtype=np.float32)
    np.testing.assert_allclose(p_values(asked, usual), [1, 4 / 5, 2 / 5, 1 / 5, np.nan])


def test_the_relative_distance_is_that_of_the_inverted_covariances():
    rng = np.random.default_rng(3)
    X, y = rng.normal(size=(200, 6)) * np.arange(1, 7), rng.integers(0, 3, 200)
    X[:, 0] += 3 * y
    queries = rng.normal(size=(20, 6)) * 4
    means = np.stack([X[y == c].mean(axis=0) for c in range(3)])
    within, total = shrunk_inverse(X - means[y]), shrunk_inverse(X - X.mean(axis=0))
    nearest = np.min([square(queries - mean, within) for mean in means], axis=0)
    expected = nearest - square(queries - X.mean(axis=0), total)
    model = Relative.fit(X.astype(np.float32), y, 4)  # the fourth category has no row
    np.testing.assert_allclose(model.distance(queries.astype(np.float32)), expected, rtol=1e-3)


def shrunk_inverse(centred: Float64Array) -> Float64Array:
    covariance = centred.T @ centred / len(centred)
    target = np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    return np.linalg.inv((1 - SHRINKAGE) * covariance + SHRINKAGE * target)


def square(apart: Float64Array, precision: Float64Array) -> Float64Array:
    return np.asarray(np.einsum("nd,de,ne->n", apart, precision, apart))


def test_real_products_of_a_category_left_out_are_distinguished_from_known_ones():
    if not (REAL / "products.csv").exists():
        pytest.skip("the embeddings of 828 products are not beside this checkout")
    with (REAL / "products.csv").open(encoding="utf-8", newline="") as file:
        _, y = np.unique([row["category"] for row in csv.DictReader(file)], return_inverse=True)
    pairs = [np.load(REAL / f"{half}_embeddings.npy") for half in ("image", "text")]
    X = (np.concatenate(pairs, axis=1) / math.sqrt(2)).astype(np.float32)
    held = np.random.default_rng(0).random(len(y)) < 0.2
    areas = []
    for code in range(y.max() + 1):
        train = ~held & (y != code)
        model = fitted(X[train], y[train])
        known, novel = X[held & (y != code)], X[y == code]
        areas.append(area(*(judged(model, X[train], y[train], q)[0] for q in (known, novel))))
    assert np.mean(areas) >= 0.93, areas
