"""The closed-form predictor, against scikit-learn and against fitting it again without a row."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from sklearn.kernel_ridge import KernelRidge

from kinshelf.probe.fit.data import ArrayData
from kinshelf.probe.fit.ridge import (
    LANDMARKS,
    Ridge,
    RidgeFit,
    centred,
    fit_ridge,
    kernel,
)
from kinshelf.probe.fit.split import TrainingSet


def training(n: int = 90, *, copies: int = 0, one_modality: int = 0) -> TrainingSet:
    """Three categories; the last `copies` rows are in the groups of the first."""
    rng = np.random.default_rng(n)
    codes = np.arange(n) % 3
    pairs = np.random.default_rng(1).standard_normal((3, 2, 6))[codes]
    pairs += 0.9 * rng.standard_normal(pairs.shape)
    pairs /= np.linalg.norm(pairs, axis=2, keepdims=True) * np.sqrt(2)
    X = pairs.reshape(n, -1).astype(np.float32)
    X[:one_modality, 6:] = 0
    groups = np.arange(n)
    if copies:
        X[-copies:] = X[:copies] + rng.normal(0, 1e-3, (copies, 12)).astype(np.float32)
        groups[-copies:] = np.arange(copies)
    names = ("bowl", "cup", "jug")
    data = ArrayData(X, [names[code] for code in codes])
    return TrainingSet(data, np.arange(n), codes, names, groups)


def oracle(fit: RidgeFit, source: TrainingSet) -> KernelRidge:
    """scikit-learn's on the rows of `source`, with the width and the penalty of `fit`."""
    width, mean = float(fit.ridge.width[0]), fit.ridge.mean
    rows = centred(source.data.fused(source.rows), mean).astype(np.float64)
    targets = np.eye(3)[source.codes] - 1 / 3
    return KernelRidge(alpha=fit.penalty, kernel="rbf", gamma=width).fit(rows, targets)


def test_where_all_rows_are_landmarks_it_is_kernel_ridge_regression() -> None:
    source = training(one_modality=20)
    fit = fit_ridge(source, 0)
    asked = training(33).data.fused(np.arange(33))
    expected = oracle(fit, source).predict(centred(asked, fit.ridge.mean))
    assert np.allclose(fit.ridge.scores(asked), expected, atol=2e-3)


@pytest.mark.parametrize("copies", [0, 20])
def test_a_row_left_out_is_as_if_neither_it_nor_its_copies_had_been_learned(copies: int) -> None:
    source = training(copies=copies)
    fit = fit_ridge(source, 0)
    fit = dataclasses.replace(fit)
    places = np.array([0, 5, 40, 80, 89])
    X = source.data.fused(source.rows[places])
    hidden = X.copy()
    hidden[:, 6:] = 0
    for asked in (X, hidden):
        found = fit.left_out(asked, places)
        for row, place in enumerate(places):
            others = source.take(source.groups != source.groups[place])
            again = oracle(fit, others).predict(centred(asked[[row]], fit.ridge.mean))
            assert np.allclose(found[row], again[0], atol=5e-3)


def test_with_more_rows_than_landmarks_each_category_has_some() -> None:
    rng = np.random.default_rng(0)
    codes = np.where(np.arange(LANDMARKS + 200) < 5, 1, 0)
    X = (np.array([[3.0], [-3.0]])[codes] + rng.standard_normal((len(codes), 8))) / 8
    data = ArrayData(X.astype(np.float32), ["ab"[code] for code in codes])
    rows = np.arange(len(codes))
    source = TrainingSet(data, rows, codes, ("a", "b"), rows)
    ridge = fit_ridge(source, 0).ridge
    assert len(ridge.landmarks) == LANDMARKS
    assert np.mean(ridge.scores(data.fused(rows)).argmax(axis=1) == codes) > 0.99


def test_it_answers_from_one_label_a_category_and_is_stored_by_name() -> None:
    few = training(3)
    ridge = fit_ridge(few, 0).ridge
    again = Ridge.of(ridge.arrays())
    assert again is not None
    X = few.data.fused(few.rows)
    assert np.array_equal(again.scores(X), ridge.scores(X))
    assert ridge.scores(X).argmax(axis=1).tolist() == [0, 1, 2]
    assert Ridge.of({}) is None


def test_the_kernel_of_a_row_and_itself_is_one() -> None:
    rows = training(30).data.fused(np.arange(30))
    assert np.allclose(np.diag(kernel(rows, rows, 3.0)), 1, atol=1e-5)
