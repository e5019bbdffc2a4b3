"""Prediction sets keep to their categories when new ones come, and are judged as they are shown."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import unit

from kinshelf import Shelf
from kinshelf.probe import HybridClassifier
from kinshelf.probe.calibrate.conformal import ENOUGH, Conformal
from kinshelf.probe.evaluate.held_out import evaluate_shelf
from kinshelf.probe.fit.model import Probe
from kinshelf.probe.fit.settings import ProbeSettings
from kinshelf.probe.predict.predictor import Predictor
from kinshelf.probe.train import train_shelf
from kinshelf.store import Product

pytestmark = pytest.mark.wide

D = 10
QUICK = ProbeSettings(epochs=6, hidden=16, batch_size=16, lr=1e-2)


def uneven() -> Conformal:
    """Class 0 was always surely right, class 1 never more than faintly."""
    given = np.r_[np.full(ENOUGH, 0.99), np.full(ENOUGH, 0.2)]
    return Conformal.fit(given, np.repeat([0, 1], ENOUGH))


def test_a_category_keeps_its_own_scores_when_new_ones_stand_before_it() -> None:
    conformal = uneven()
    proba = np.array([[0.7, 0.3], [0.3, 0.7]])
    plain = conformal.sets(proba)
    assert plain.tolist() == [[False, True], [False, True]]
    wider = conformal.over(("b", "d"), ("a", "b", "c", "d"))
    spread = np.zeros((2, 4))
    spread[:, [1, 3]] = proba
    assert wider.sets(spread)[:, [1, 3]].tolist() == plain.tolist()


def goods(
    kinds: str, n: int, seed: int, noise: float = 0.9
) -> tuple[list[Product], np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    names = [kinds[i % len(kinds)] for i in range(n)]
    centres = np.array([np.random.default_rng(ord(c)).standard_normal((2, D)) for c in names])
    image, text = (unit(centres[:, h] + noise * rng.standard_normal((n, D))) for h in (0, 1))
    return [Product(f"{seed}-{i}", title="t", category=c) for i, c in enumerate(names)], image, text


@pytest.mark.parametrize("split", ["val", None])
def test_an_evaluation_measures_the_sets_that_classify_shows(tmp_path, split) -> None:
    with Shelf.create(tmp_path / "a.shelf") as shelf:
        products, image, text = goods("bdf", 120, 1)
        held = [p.replace(split=split) if i % 4 == 0 else p for i, p in enumerate(products)]
        shelf.upsert(held, image, text)
        train_shelf(shelf, QUICK)
        found = evaluate_shelf(shelf)
        sets = found.metrics["hybrid"]["prediction_sets"]
        assert sets["wanted"] == 0.95
        assert sets["n"] == (30 if split else 120)
        assert sets["size"] >= 1
        holds = [found.sets[i, found.classes.index(c)] for i, c in enumerate(found.y_true)]
        assert sets["coverage"] == pytest.approx(np.mean(holds))
        agreement = found.metrics["hybrid"]["agreement"]
        assert agreement["agree"]["n"] + agreement["disagree"]["n"] == sets["n"]


def test_cross_validation_answers_in_the_order_of_the_products(tmp_path) -> None:
    with Shelf.create(tmp_path / "a.shelf") as shelf:
        shelf.upsert(*goods("bdf", 60, 1))
        train_shelf(shelf, QUICK)
        found = evaluate_shelf(shelf)
        assert list(found.y_true) == list(shelf.snapshot().labelled()[1])
        assert found.metrics["hybrid"]["accuracy"] > 0.7


def by_hand(probe: Probe, probabilities: dict[str, float]) -> set[str]:
    """The definition: a category is in unless its held-out scores are hardly ever as bad."""
    scores, codes, views = (
        probe.reference[f"conformal.{name}"] for name in ("scores", "codes", "views")
    )
    scores, codes = scores[views == 0], codes[views == 0]  # both modalities, as the queries have
    members = set()
    for name, probability in probabilities.items():
        own = [s for s, c in zip(scores, codes, strict=True) if probe.classes[c] == name]
        usual = own if len(own) >= ENOUGH else list(scores)
        as_bad = sum(score >= np.float32(1 - probability) for score in usual)
        if (1 + as_bad) / (1 + len(usual)) > 0.05:
            members.add(name)
    return members


def test_the_sets_of_a_shelf_with_a_new_category_follow_the_definition(tmp_path) -> None:
    _, image, text = goods("bdf", 30, 2, noise=2.0)
    with Shelf.create(tmp_path / "a.shelf") as shelf:
        shelf.upsert(*goods("bdf", 720, 1, noise=2.0))
        train_shelf(shelf, QUICK)
        far = [Product(f"n{i}", title="t", category="c") for i in range(3)]
        shelf.upsert(far, *(-half[:3] for half in (image, text)))
        predictor = Predictor.for_shelf(shelf)
        answers = predictor.predict(np.hstack([image, text]))
    assert any(len(answer.prediction_set) > 1 for answer in answers)
    for answer in answers:
        expected = by_hand(predictor.probe, answer.probabilities) | {answer.category}
        assert set(answer.prediction_set) == expected
        assert answer.prediction_set[0] == answer.category


def test_the_classifiers_sets_follow_the_definition_when_classes_are_added() -> None:
    X = np.hstack(goods("bdf", 300, 1)[1:]) / np.sqrt(2)
    queries = np.hstack(goods("bdf", 40, 2)[1:]) / np.sqrt(2)
    model = HybridClassifier(pairs=False, settings=QUICK).fit(
        X, np.array(list("bdf"))[np.arange(300) % 3]
    )
    model.add(-X[:3], ["c"] * 3)
    proba, sets = model.predict_proba(queries), model.predict_sets(queries)
    for row, members in zip(proba, sets, strict=True):
        expected = by_hand(model.probe_, dict(zip(model.classes_.tolist(), row, strict=True)))
        assert set(model.classes_[members]) == expected
