"""Neighbours' votes, their mixture with the probe, and the scikit-learn classifier."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.base import clone
from sklearn.neighbors import KNeighborsClassifier
from sklearn.utils.estimator_checks import check_estimator

from kinshelf.db.errors import InvalidSetting, KinshelfError, TooFewClasses
from kinshelf.probe import HybridClassifier
from kinshelf.probe.calibrate.hybrid import Predictors, mix, spread
from kinshelf.probe.fit.knn import NO_VOTE, ExactNeighbours, identical, knn_distribution
from kinshelf.probe.fit.model import WEIGHT_NAMES, Probe
from kinshelf.probe.fit.settings import Calibration, ProbeSettings

QUICK = ProbeSettings(epochs=8, hidden=16, batch_size=16, lr=1e-2)


def unit_rows(n: int, dimension: int = 16, seed: int = 0) -> np.ndarray:
    X = np.random.default_rng(seed).normal(size=(n, dimension))
    return (X / np.linalg.norm(X, axis=1, keepdims=True)).astype(np.float32)


def clusters(n: int, n_classes: int = 3, seed: int = 0, noise: float = 0.25):
    centres = unit_rows(n_classes, seed=99)
    codes = np.arange(n) % n_classes
    X = centres[codes] + noise * unit_rows(n, seed=seed)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    return X.astype(np.float32), np.array([f"class {code}" for code in codes])


# -- votes ---------------------------------------------------------------------------------------

votes = st.integers(1, 5).flatmap(
    lambda k: st.tuples(
        arrays(np.float32, (4, k), elements=st.floats(-1, 1, width=32)),
        arrays(np.int64, (4, k), elements=st.integers(-1, 3)),
        st.sampled_from([0.001, 0.02, 0.5, 100.0]),
    )
)


@given(votes)
def test_a_class_has_its_share_of_the_neighbours_weight(case):
    similarities, labels, tau = case
    p = knn_distribution(similarities, labels, tau, 4)
    for row in range(4):
        voters = [i for i in range(labels.shape[1]) if labels[row, i] != NO_VOTE]
        if not voters:
            assert not p[row].any()
            continue
        largest = max(float(similarities[row, i]) for i in voters)
        weight = {i: math.exp((float(similarities[row, i]) - largest) / tau) for i in voters}
        for label in range(4):
            share = math.fsum(weight[i] for i in voters if labels[row, i] == label)
            assert p[row, label] == pytest.approx(share / math.fsum(weight.values()), abs=1e-9)


def test_missing_neighbours_do_not_vote_and_warn_of_nothing():
    similarities = np.array([[0.9, -np.inf], [-np.inf, -np.inf]], dtype=np.float32)
    labels = np.array([[1, NO_VOTE], [NO_VOTE, NO_VOTE]])
    assert knn_distribution(similarities, labels, 0.02, 2).tolist() == [[0, 1], [0, 0]]


def test_no_neighbours_and_no_queries_are_no_trouble():
    empty = np.zeros((3, 0), dtype=np.float32)
    assert not knn_distribution(empty, np.zeros((3, 0), dtype=np.int64), 0.1, 2).any()
    none = np.zeros((0, 5), dtype=np.float32)
    assert knn_distribution(none, np.zeros((0, 5), dtype=np.int64), 0.1, 2).shape == (0, 2)


def test_with_a_large_tau_every_neighbour_counts_the_same_as_in_scikit_learn():
    X, y = clusters(60, noise=1.5)
    Q, _ = clusters(40, noise=1.5, seed=5)
    similarities, places = ExactNeighbours(X).kneighbors(Q, 7)
    labels = np.unique(y, return_inverse=True)[1][places]
    expected = KNeighborsClassifier(7, metric="cosine").fit(X, y).predict_proba(Q)
    assert np.allclose(knn_distribution(similarities, labels, 1e5, 3), expected, atol=1e-4)


def test_neighbours_are_the_nearest_in_order():
    X, Q = unit_rows(500), unit_rows(20, seed=1)
    similarities, places = ExactNeighbours(X).kneighbors(Q, 9)
    exact = Q.astype(np.float64) @ X.T.astype(np.float64)
    assert np.array_equal(places, np.argsort(-exact, axis=1)[:, :9])
    assert np.allclose(similarities, -np.sort(-exact, axis=1)[:, :9], atol=1e-6)


def test_a_querys_own_row_and_its_copies_are_left_out():
    X = unit_rows(30)
    X[[4, 9, 21]] = X[2]
    neighbours = ExactNeighbours(X)
    _, places = neighbours.kneighbors(X[[2, 3]], 5, with_identical=False)
    exact = X[[2, 3]].astype(np.float64) @ X.T.astype(np.float64)
    exact[0, [2, 4, 9, 21]] = -9
    exact[1, 3] = -9
    assert np.array_equal(np.sort(places), np.sort(np.argsort(-exact, axis=1)[:, :5]))
    # with them, all four come first
    _, places = neighbours.kneighbors(X[[2]], 5)
    assert set(places[0, :4]) == {2, 4, 9, 21}


def test_where_too_few_rows_are_left_the_places_reports_it():
    X = unit_rows(3)
    similarities, places = ExactNeighbours(X).kneighbors(X[:1], 4, with_identical=False)
    assert sorted(places[0, :2]) == [1, 2]
    assert places[0, 2:].tolist() == [-1, -1]
    assert np.isneginf(similarities[0, 2:]).all()


def test_a_row_is_its_own_copy_even_if_a_zero_has_a_sign():
    X = unit_rows(5)
    X[0, 3] = 0.0
    query = X[:1].copy()
    query[0, 3] = -0.0
    _, places = ExactNeighbours(X).kneighbors(query, 4, with_identical=False)
    assert 0 not in places


def test_identical_compares_every_neighbour_with_its_query():
    Q = unit_rows(3)
    neighbours = np.stack([Q[[0, 1]], Q[[0, 1]], Q[[0, 2]]])
    assert identical(Q, neighbours).tolist() == [[True, False], [False, True], [False, True]]


@given(st.integers(0, 2**31), st.integers(1, 9))
def test_embeddings_that_agree_in_some_numbers_are_not_identical(seed, width):
    rng = np.random.default_rng(seed)
    Q = rng.integers(0, 2, (4, width)).astype(np.float32)
    neighbours = rng.integers(0, 2, (4, 5, width)).astype(np.float32)
    expected = [[bytes(n) == bytes(q) for n in near] for q, near in zip(Q, neighbours, strict=True)]
    assert identical(Q, neighbours).tolist() == expected


# -- the mixture ---------------------------------------------------------------------------------


def test_with_seen_classes_alone_it_is_the_weighted_mean():
    p, q = np.array([[0.8, 0.2]]), np.array([[0.4, 0.6]])
    seen = np.array([True, True])
    assert np.allclose(mix(p, q, seen, 0.25), 0.75 * p + 0.25 * q)


def test_votes_for_an_new_class_are_taken_first():
    p = np.array([[0.9, 0.1, 0.0]])
    q = np.array([[0.1, 0.3, 0.6]])
    found = mix(p, q, np.array([True, True, False]), 0.5)
    # 0.6 go to the new class; of the rest each seen class has half its probe and half its votes
    expected = [0.4 * (0.5 * 0.9 + 0.5 * 0.25), 0.4 * (0.5 * 0.1 + 0.5 * 0.75), 0.6]
    assert np.allclose(found, [expected])


def test_if_all_votes_are_for_an_new_class_it_has_everything():
    found = mix(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]), np.array([True, False]), 0.3)
    assert found.tolist() == [[0.0, 1.0]]


def test_without_votes_the_probe_alone_decides():
    p = np.array([[0.7, 0.3, 0.0]])
    found = mix(p, np.zeros((1, 3)), np.array([True, True, False]), 0.9)
    assert np.allclose(found, p)


@given(
    raw=arrays(np.float64, (2, 3, 5), elements=st.floats(0, 1)),
    seen=st.lists(st.booleans(), min_size=5, max_size=5).filter(any),
    lam=st.floats(0, 1),
)
def test_the_mixture_is_a_distribution(raw, seen, lam):
    mask = np.array(seen)
    p, q = raw + 1e-6
    p = np.where(mask, p, 0)
    p, q = (x / x.sum(axis=1, keepdims=True) for x in (p, q))
    found = mix(p, q, mask, lam)
    assert (found >= 0).all()
    assert np.allclose(found.sum(axis=1), 1)
    assert np.allclose(found[:, ~mask], q[:, ~mask])


def test_columns_move_to_their_places():
    found = spread(np.array([[0.2, 0.8]]), ("b", "d"), ("a", "b", "c", "d"))
    assert found.tolist() == [[0, 0.2, 0, 0.8]]


def a_probe(classes=("ape", "cow")) -> Probe:
    shapes = [(5, 16), (5,), (len(classes), 5), (len(classes),)]
    rng = np.random.default_rng(3)
    weights = {
        name: rng.normal(size=shape).astype(np.float32)
        for name, shape in zip(WEIGHT_NAMES, shapes, strict=True)
    }
    return Probe(classes, weights, ProbeSettings(hidden=5), 10)


def near(labels: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    codes = np.array(labels, dtype=np.int64)
    return codes, np.zeros((*codes.shape, 16), dtype=np.float32)


def test_probe_and_neighbours_are_put_on_the_same_columns():
    X = unit_rows(2)
    labels, vectors = near([[1, 2, NO_VOTE], [2, 2, 2]])
    similarities = np.array([[0.9, 0.9, 0.99], [0.8, 0.7, 0.6]], dtype=np.float32)
    predictors = Predictors(a_probe(), ("ape", "bee", "cow"), Calibration(lam=0.5))
    found = predictors.answer(X, similarities, labels, vectors)
    assert np.allclose(found.knn, [[0, 0.5, 0.5], [0, 0, 1]])
    assert np.allclose(found.probe[:, [0, 2]], a_probe().predict_proba(X))
    assert not found.probe[:, 1].any()
    ape, cow = a_probe().predict_proba(X)[0]
    assert np.allclose(found.hybrid[0], [0.25 * ape, 0.5, 0.5 * (0.5 * cow + 0.5)])


def test_without_a_probe_the_neighbours_answer_alone():
    labels, vectors = near([[0, 1]])
    similarities = np.array([[0.5, 0.5]], dtype=np.float32)
    found = Predictors(None, ("bee", "cow")).answer(unit_rows(1), similarities, labels, vectors)
    assert found.hybrid.tolist() == found.knn.tolist() == [[0.5, 0.5]]
    assert not found.probe.any()


def test_votes_are_weighed_in_the_space_of_the_calibration():
    X, Q = unit_rows(6), unit_rows(1, seed=4)
    calibration = Calibration(tau=0.1, k=6, lam=1.0, space="hidden")
    labels = np.array([[0, 1, 0, 1, 1, 0]])
    found = Predictors(a_probe(), ("ape", "cow"), calibration).answer(
        Q, (Q @ X.T).astype(np.float32), labels, X[None]
    )
    weights = {name: w.astype(np.float64) for name, w in a_probe().weights.items()}

    def hidden(rows: np.ndarray) -> np.ndarray:
        inner = rows * math.sqrt(2) @ weights["net.0.weight"].T + weights["net.0.bias"]
        active = np.maximum(inner, 0)
        return active / np.linalg.norm(active, axis=1, keepdims=True)

    weight = np.exp((hidden(X) @ hidden(Q)[0]) / 0.1)
    share = weight[labels[0] == 0].sum() / weight.sum()
    assert found.hybrid[0, 0] == pytest.approx(share, abs=1e-5)


# -- the classifier ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted() -> HybridClassifier:
    return HybridClassifier(pairs=False, settings=QUICK).fit(*clusters(150))


def test_it_speaks_scikit_learn(fitted):
    X, y = clusters(90, seed=1)
    p = fitted.predict_proba(X)
    assert fitted.classes_.tolist() == ["class 0", "class 1", "class 2"]
    assert p.shape == (90, 3)
    assert np.allclose(p.sum(axis=1), 1)
    assert np.array_equal(fitted.predict(X), fitted.classes_[p.argmax(axis=1)])
    assert fitted.score(X, y) == np.mean(fitted.predict(X) == y) > 0.97
    assert fitted.n_features_in_ == 16
    assert clone(fitted).get_params() == fitted.get_params()


def test_its_probabilities_follow_the_formula():
    X, _ = clusters(20, seed=2)
    train, y = clusters(150)
    fitted = HybridClassifier(pairs=False, k=10, tau=0.02, lam=0.1, settings=QUICK).fit(train, y)
    S = X.astype(np.float64) @ train.T.astype(np.float64)
    expected = 0.9 * fitted.probe_.predict_proba(X)
    for row in range(20):
        nearest = np.argsort(-S[row])[:10]
        weight = np.exp(S[row, nearest] / 0.02)
        for code, name in enumerate(fitted.classes_):
            expected[row, code] += 0.1 * weight[y[nearest] == name].sum() / weight.sum()
    assert np.allclose(fitted.predict_proba(X), expected, atol=1e-4)


def test_a_training_row_has_no_vote_on_itself():
    X, y = clusters(60, noise=0.2)
    y = y.copy()
    y[0] = "class 1"  # a wrong label among class 0
    knn_alone = HybridClassifier(pairs=False, lam=1.0, settings=QUICK).fit(X, y)
    assert knn_alone.predict(X[:1]).tolist() == ["class 0"]


@pytest.mark.parametrize("kind", [np.int64, np.bool_, object])
def test_classes_keep_their_type(kind):
    X, _ = clusters(40, n_classes=2)
    y = (np.arange(40) % 2).astype(kind) if kind is not object else np.array(["x", "y"] * 20, kind)
    found = HybridClassifier(pairs=False, settings=QUICK).fit(X, y).predict(X)
    assert found.dtype == y.dtype
    assert np.mean(found == y) > 0.95


def test_neighbours_come_with_similarity_and_place(fitted):
    train, _ = clusters(150)
    distances, places = fitted.kneighbors(train[:4], 3)
    similarities = 1 - distances
    assert places.shape == similarities.shape == (4, 3)
    assert places[:, 0].tolist() == [0, 1, 2, 3]
    assert np.allclose(similarities[:, 0], 1, atol=1e-6)
    assert fitted.kneighbors(train[:4])[0].shape == (4, fitted.probe_.calibration.k)


def test_a_new_class_is_predicted_from_its_first_rows_without_training():
    X, y = clusters(120, n_classes=4)
    known = y != "class 3"
    model = HybridClassifier(pairs=False, settings=QUICK).fit(X[known], y[known])
    weights = model.probe_
    new = X[~known]
    model.add(new[:5], ["class 3"] * 5)
    assert model.probe_ is weights
    assert model.classes_.tolist() == ["class 0", "class 1", "class 2", "class 3"]
    assert np.mean(model.predict(new[5:]) == "class 3") > 0.9
    assert np.mean(model.predict(X[known]) == y[known]) > 0.95


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_training_again_makes_a_new_class_no_harder_to_find(n):
    X, y = clusters(300, n_classes=4, noise=1.1)
    known, new = y != "class 3", np.flatnonzero(y == "class 3")
    asked, truth = clusters(300, n_classes=4, noise=1.1, seed=3)
    model = HybridClassifier(pairs=False, settings=QUICK).fit(X[known], y[known])
    model.add(X[new[:n]], y[new[:n]])
    rows = np.append(np.flatnonzero(known), new[:n])
    again = HybridClassifier(pairs=False, settings=QUICK).fit(X[rows], y[rows])
    assert again.probe_.classes == ("class 0", "class 1", "class 2", "class 3")
    before, after = (np.asarray(each.predict(asked)) == truth for each in (model, again))
    theirs = truth == "class 3"
    assert 0.1 < before[theirs].mean() <= after[theirs].mean() + 0.02
    assert after[~theirs].mean() >= before[~theirs].mean() - 0.01


def test_a_new_class_may_sort_before_the_known_ones():
    X, y = clusters(90)
    known = y != "class 0"
    model = HybridClassifier(pairs=False, settings=QUICK).fit(X[known], y[known])
    model.add(X[~known][:8], y[~known][:8])
    assert np.mean(model.predict(X) == y) > 0.95


def test_equal_input_gives_equal_probabilities():
    X, y = clusters(60)
    first, again = (
        HybridClassifier(pairs=False, settings=QUICK).fit(X, y).predict_proba(X) for _ in range(2)
    )
    assert np.array_equal(first, again)


def test_the_order_of_queries_does_not_matter(fitted):
    X, _ = clusters(50, seed=3)
    order = np.random.default_rng(0).permutation(50)
    assert np.allclose(fitted.predict_proba(X)[order], fitted.predict_proba(X[order]), atol=1e-6)


@pytest.mark.wide
def test_it_passes_the_checks_of_scikit_learn():
    chosen = ProbeSettings(epochs=12, hidden=16, lr=2e-2, modality_dropout=0)
    found = check_estimator(HybridClassifier(pairs=False, settings=chosen), on_skip=None)
    assert {check["status"] for check in found} <= {"passed", "skipped"}
    assert sum(check["status"] == "passed" for check in found) > 50


def test_wrong_use_is_one_clear_error():
    X, y = clusters(20)
    with pytest.raises(InvalidSetting, match="k is 0"):
        HybridClassifier(pairs=False, k=0).fit(X, y)
    with pytest.raises(InvalidSetting, match="settings is 3"):
        HybridClassifier(pairs=False, settings=3).fit(X, y)
    with pytest.raises(TooFewClasses, match="'class 0'"):
        HybridClassifier(pairs=False).fit(X, np.full(20, "class 0"))
    with pytest.raises(ValueError, match="NaN"):
        HybridClassifier(pairs=False).fit(X * np.nan, y)


@settings(max_examples=10)
@given(sizes=st.lists(st.integers(1, 6), min_size=2, max_size=5), k=st.integers(1, 30))
def test_any_small_data_set_gives_distributions_or_a_kinshelf_error(sizes, k):
    y = np.repeat(np.arange(len(sizes)), sizes)
    X = unit_rows(len(y), seed=len(y))
    chosen = ProbeSettings(epochs=2, hidden=4)
    try:
        p = HybridClassifier(pairs=False, k=k, settings=chosen).fit(X, y).predict_proba(X)
    except KinshelfError:
        return
    assert np.allclose(p.sum(axis=1), 1)
    assert p.shape == (len(y), len(sizes))
