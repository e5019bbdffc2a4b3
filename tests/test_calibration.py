"""What is fitted beside the weights: temperature and mixture, prediction sets, new categories."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from crepes import ConformalClassifier
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from kinshelf.probe import HybridClassifier
from kinshelf.probe.calibrate.conformal import ENOUGH, Conformal
from kinshelf.probe.calibrate.crossfit import CrossFit, cross_fit
from kinshelf.probe.calibrate.mixture import (
    PRIOR,
    HeldOut,
    certifying_answers,
    fit_calibration,
    fit_views,
    held_out_answers,
)
from kinshelf.probe.calibrate.new_categories import NewCategories, fit_known
from kinshelf.probe.calibrate.vote_space import fit_metric, similarities_in
from kinshelf.probe.fit.copies import groups_of
from kinshelf.probe.fit.data import ArrayData
from kinshelf.probe.fit.ridge import fit_ridge
from kinshelf.probe.fit.settings import Calibration, ProbeSettings
from kinshelf.probe.fit.split import TrainingSet, cross_fit_rounds
from kinshelf.probe.fit.training import fit_probe

REAL = Path(__file__).resolve().parents[2] / "shared" / "amazon2020" / "embeddings"
QUICK = ProbeSettings(epochs=8, hidden=16, batch_size=32, lr=1e-2)


def mixture(
    n: int, n_classes: int = 4, *, dimension: int = 32, noise: float = 0.35, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Fused rows around a centre a class, and their codes."""
    centres = np.random.default_rng(5).standard_normal((n_classes, dimension))
    rng = np.random.default_rng(seed)
    codes = np.arange(n) % n_classes
    rows = centres[codes] + noise * math.sqrt(dimension) * rng.standard_normal((n, dimension))
    pairs = np.split(rows, 2, axis=1)
    unit = [half / np.linalg.norm(half, axis=1, keepdims=True) for half in pairs]
    return (np.hstack(unit) / math.sqrt(2)).astype(np.float32), codes


def training(X: np.ndarray, codes: np.ndarray) -> TrainingSet:
    names = tuple(f"class {code}" for code in range(codes.max() + 1))
    data = ArrayData(X, [names[code] for code in codes])
    rows = np.arange(len(X))
    return TrainingSet(data, rows, codes.astype(np.int64), names, groups_of(data, rows))


# -- temperature and mixture -----------------------------------------------------------------------


def judged(
    logits: np.ndarray,
    codes: np.ndarray,
    labels: np.ndarray | None = None,
    scores: np.ndarray | None = None,
) -> CrossFit:
    n = len(codes)
    near = np.full((n, 20), -1) if labels is None else labels
    return CrossFit(
        places=np.arange(n),
        codes=codes,
        logits=logits.astype(np.float32),
        scores=np.zeros(logits.shape) if scores is None else scores,
        labels=near,
        similarities=np.ones(near.shape, dtype=np.float32),
        views=np.zeros(n, dtype=np.int64),
        masked=np.zeros(n, dtype=np.bool_),
    )


def test_a_row_for_which_no_neighbour_votes_counts_as_disagreement_in_the_policy():
    codes, labels = np.zeros(2, dtype=np.int64), np.full((2, 20), -1)
    labels[1] = 0
    found = held_out_answers(judged(np.array([[3.0, 0.0]] * 2), codes, labels), Calibration())
    assert found.agree.tolist() == [False, True]


def test_the_temperature_is_that_of_least_loss():
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((20_000, 5)) * 2
    codes = np.array([rng.choice(5, p=p) for p in softmax(logits, axis=1)])
    overconfident = logits * 2.5
    found = fit_calibration(judged(overconfident, codes))

    def loss(t: float) -> float:
        return -log_softmax(overconfident / t, axis=1)[np.arange(len(codes)), codes].mean()

    best = minimize_scalar(loss, bounds=(0.3, 8), method="bounded").x
    assert found.temperature == pytest.approx(best, rel=0.03)
    assert best == pytest.approx(2.5, rel=0.05)


def test_neighbours_that_know_better_than_the_probe_get_the_larger_share():
    rng = np.random.default_rng(1)
    codes = rng.integers(0, 3, 600)
    labels = np.where(rng.random((600, 20)) < 0.9, codes[:, None], (codes[:, None] + 1) % 3)
    found = fit_calibration(judged(rng.standard_normal((600, 3)), codes, labels))
    assert found.lam >= 0.7


def test_neighbours_that_know_nothing_get_no_more_than_their_usual_share():
    rng = np.random.default_rng(2)
    codes = rng.integers(0, 3, 600)
    logits = 4 * np.eye(3)[codes] + rng.standard_normal((600, 3))
    found = fit_calibration(judged(logits, codes, rng.integers(0, 3, (600, 20))))
    assert found.lam <= PRIOR.lam


def test_of_probe_and_ridge_the_one_that_knows_gets_the_power():
    rng = np.random.default_rng(6)
    codes = rng.integers(0, 3, 600)
    knows, guesses = np.eye(3)[codes] + 0.3 * rng.standard_normal((600, 3)), rng.random((600, 3))
    by_ridge = fit_calibration(judged(guesses, codes, scores=knows))
    by_probe = fit_calibration(judged(4 * knows, codes, scores=0.1 * guesses))
    assert by_ridge.ridge_power > 0.5
    assert by_probe.probe_power > 0.5
    wrong = codes[rng.permutation(600)]
    nothing = fit_calibration(judged(guesses, wrong, scores=np.eye(3)[codes]))
    assert nothing.ridge_power * nothing.sharpness < 1


def test_the_powers_and_the_share_are_those_of_least_loss():
    rng = np.random.default_rng(7)
    codes = rng.integers(0, 3, 3000)
    logits, scores = (
        scale * (np.eye(3)[codes] + rng.standard_normal((3000, 3))) for scale in (2.0, 0.3)
    )
    labels = np.where(rng.random((3000, 20)) < 0.05, codes[:, None], rng.integers(0, 3, (3000, 20)))
    found = judged(logits, codes, labels, scores)
    fitted = fit_calibration(found)

    def loss(at: np.ndarray) -> float:
        tried = replace(fitted, probe_power=at[0], ridge_power=at[1], lam=at[2])
        return -np.log(held_out_answers(found, tried).given).mean()

    best = minimize(
        loss, [0.5, 0.5, 0.2], method="Nelder-Mead", bounds=[(0, 3), (0, 3), (0.001, 0.9)]
    )
    at = np.array([fitted.probe_power, fitted.ridge_power, fitted.lam])
    assert loss(at) < best.fun + 1e-3


def test_no_judged_row_had_a_part_in_its_own_judgement():
    X, codes = mixture(120, noise=1.5)
    # every row has a twin of another class: who sees it, is led astray
    twins = np.concatenate([X, X])
    wrong = np.concatenate([codes, (codes + 1) % 4])
    source = training(twins, wrong)
    found = cross_fit(source, fit_probe(source, QUICK).probe, QUICK, fit_ridge(source, 0))
    assert found is not None
    assert found.similarities[found.labels >= 0].max() < 1 - 1e-6


def test_the_answers_that_are_kept_are_those_of_the_formula():
    rng = np.random.default_rng(3)
    codes = rng.integers(0, 3, 50)
    labels, scores = rng.integers(0, 3, (50, 20)), rng.standard_normal((50, 3))
    found = judged(rng.standard_normal((50, 3)), codes, labels, scores)
    calibration = Calibration(
        temperature=2.0, tau=0.05, k=10, lam=0.3, sharpness=3.0, probe_power=0.6, ridge_power=0.5
    )
    kept = held_out_answers(found, calibration)
    votes = np.stack([(found.labels[:, :10] == c).mean(axis=1) for c in range(3)], axis=1)
    probe = softmax(found.logits.astype(np.float64) / 2, axis=1)
    ridge = softmax(3 * scores, axis=1)
    pool = probe**0.6 * ridge**0.5
    expected = 0.7 * pool / pool.sum(axis=1, keepdims=True) + 0.3 * votes
    assert np.allclose(kept.given, expected[np.arange(50), codes])
    assert np.allclose(kept.confidence, expected.max(axis=1))
    assert np.array_equal(kept.right, expected.argmax(axis=1) == codes)
    again = HeldOut.of(kept.arrays())
    assert again is not None
    assert np.array_equal(again.agree, kept.agree)


def test_no_row_chose_the_calibration_that_its_own_answer_is_certified_with():
    rng = np.random.default_rng(4)
    codes = rng.integers(0, 3, 400)
    found = judged(2 * rng.standard_normal((400, 3)), codes, rng.integers(0, 3, (400, 20)))
    whole = certifying_answers(found, seed=5)
    for chosen_on, places in cross_fit_rounds(codes, 5, np.arange(400)):
        others = fit_calibration(found.take(chosen_on))
        views = fit_views(found.take(chosen_on), others)
        expected = held_out_answers(found.take(~chosen_on), others, views)
        assert np.array_equal(whole.given[places], expected.given)
        assert np.array_equal(whole.agree[places], expected.agree)
    assert np.array_equal(whole.codes, codes)
    # labels that nothing tells are worth nothing, whichever calibration the rows would choose
    own = held_out_answers(found, fit_calibration(found))
    assert np.log(whole.given).mean() < np.log(own.given).mean()


def test_with_a_handful_of_rows_the_defaults_stay_and_a_warning_reports_it():
    X, codes = mixture(12)
    model = HybridClassifier(pairs=False, settings=QUICK).fit(X, codes)
    assert model.probe_.calibration == PRIOR
    assert any("too few products to calibrate" in w for w in model.probe_.warnings)


# -- prediction sets -------------------------------------------------------------------------------


@settings(max_examples=25)
@given(
    n=st.integers(5, 300), n_classes=st.integers(2, 5), coverage=st.floats(0.5, 0.99),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_sets_are_those_of_crepes(n: int, n_classes: int, coverage: float, seed: int):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, n_classes, n)
    given_true = np.round(rng.random(n), 2)
    asked = np.round(rng.dirichlet(np.ones(n_classes), 20), 2)
    found = Conformal.fit(given_true, codes).p_values(asked)
    enough = np.bincount(codes, minlength=n_classes) >= ENOUGH
    scores = np.asarray(1 - given_true, dtype=np.float32)
    for code in range(n_classes):
        own = scores[codes == code] if enough[code] else scores
        oracle = ConformalClassifier().fit(own)
        alphas = np.asarray(1 - asked[:, [code]], dtype=np.float32)
        assert np.allclose(found[:, code], oracle.predict_p(alphas, smoothing=False)[:, 0])
    assert np.array_equal(
        Conformal.fit(given_true, codes).sets(asked, coverage), found > 1 - coverage
    )


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
def test_sets_hold_the_true_class_as_often_as_they_say(coverage: float):
    rng = np.random.default_rng(4)
    held = []
    for _ in range(40):
        p = rng.dirichlet(np.full(3, 0.4), 1200)
        codes = np.array([rng.choice(3, p=row) for row in p])
        conformal = Conformal.fit(p[np.arange(600), codes[:600]], codes[:600])
        sets = conformal.sets(p[600:], coverage)
        held.append(sets[np.arange(600), codes[600:]])
    assert np.mean(held) == pytest.approx(coverage, abs=0.01)


# -- new categories --------------------------------------------------------------------------------


def test_whitening_is_that_of_fishers_discriminant():
    X, codes = mixture(2000, 3, noise=0.8)
    metric = fit_metric(training(X, codes), seed=0)
    oracle = LinearDiscriminantAnalysis(solver="eigen", shrinkage=0.8).fit(X, codes)
    projected = metric.whitened(X)
    means = np.stack([projected[codes == c].mean(axis=0) for c in range(3)])
    nearest = (projected @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T).argmax(axis=1)
    assert np.mean(nearest == oracle.predict(X)) > 0.97


@given(st.integers(0, 2**31), st.integers(1, 5), st.integers(0, 6), st.integers(12, 300))
@settings(max_examples=60)
def test_similarities_of_whitened_rows_are_reported_without_whitening_them(seed, n, k, rows):
    X, codes = mixture(rows, 3, noise=0.8)
    metric = fit_metric(training(X, codes), seed=0)
    rng = np.random.default_rng(seed)
    asked, near = X[rng.integers(0, rows, n)], X[rng.integers(0, rows, (n, k))]
    asked, near = asked.copy(), near + rng.normal(0, 0.01, near.shape).astype(np.float32)
    asked[rng.random(n) < 0.3, 16:] = 0
    near[rng.random((n, k)) < 0.3, :16] = 0
    near[rng.random((n, k)) < 0.1] = 0
    found = similarities_in("whitened", asked, near, metric, None)
    placed = metric.whitened(near.reshape(n * k, X.shape[1])).reshape(near.shape).astype(np.float64)
    expected = np.einsum("nd,nkd->nk", metric.whitened(asked).astype(np.float64), placed)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_missing_half_stays_missing():
    X, codes = mixture(100)
    metric = fit_metric(training(X, codes), seed=0)
    X[:5, 16:] = 0
    assert not metric.centred(X)[:5, 16:].any()
    assert metric.centred(X)[:5, :16].any(axis=1).all()


def test_a_new_category_is_found_by_few_products_and_takes_few_of_the_known():
    X, codes = mixture(2000, 5, noise=0.2)
    known, new = X[codes < 4], X[codes == 4]
    trained, others = known[:1000], known[1000:]
    kept = fit_known(training(trained, codes[codes < 4][:1000]), seed=0)
    assert kept is not None
    arrived = NewCategories(kept, new[:5], np.zeros(5, dtype=np.int64))
    assert np.mean(arrived.mass(new[5:])[:, 0] > 0.5) > 0.75
    assert np.mean(arrived.mass(others)[:, 0] > 0.5) < 0.02


def test_two_new_categories_are_distinguished():
    X, codes = mixture(2400, 6, noise=0.15)
    kept = fit_known(training(X[codes < 4], codes[codes < 4]), seed=0)
    assert kept is not None
    rows = np.concatenate([np.flatnonzero(codes == c)[:8] for c in (4, 5)])
    arrived = NewCategories(kept, X[rows], codes[rows] - 4)
    for code in (4, 5):
        mass = arrived.mass(X[np.flatnonzero(codes == code)[8:]])
        assert np.mean(mass.argmax(axis=1) == code - 4) > 0.95
        assert (mass.sum(axis=1) <= 1 + 1e-12).all()


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the coursework's embeddings are not at {REAL}")
def test_on_real_products_a_category_left_out_is_learned_from_twenty_of_its_products():
    X = np.concatenate(
        [np.load(REAL / f"{kind}_embeddings.npy") for kind in ("image", "text")], axis=1
    ) / np.float32(math.sqrt(2))
    with (REAL / "products.csv").open(encoding="utf-8", newline="") as file:
        y = np.array([row["category"] for row in csv.DictReader(file)])
    codes = np.unique(y, return_inverse=True)[1]
    found, taken = [], []
    for left_out in range(4):
        rng = np.random.default_rng(left_out)
        known = rng.permutation(np.flatnonzero(codes != left_out))
        new = rng.permutation(np.flatnonzero(codes == left_out))
        cut = len(known) // 5
        own = np.unique(codes[known[cut:]], return_inverse=True)[1]
        kept = fit_known(training(X[known[cut:]], own), seed=0)
        assert kept is not None
        arrived = NewCategories(kept, X[new[:20]], np.zeros(20, dtype=np.int64))
        found.append(np.mean(arrived.mass(X[new[20:]])[:, 0] > 0.5))
        taken.append(np.mean(arrived.mass(X[known[:cut]])[:, 0] > 0.5))
    assert np.mean(found) > 0.87  # 0.91 over 24 splits
    assert np.mean(taken) < 0.02
