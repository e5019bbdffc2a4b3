"""A prediction is the formula of probe and neighbours, and its evidence is what voted."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import unit, write_csv

from kinshelf import Shelf
from kinshelf.db.errors import EmptyShelf, GenerationNotFound, ProbeNotFound
from kinshelf.probe import HybridClassifier
from kinshelf.probe.calibrate.hybrid import VIEW_PARAMETERS, parameters_of
from kinshelf.probe.calibrate.vote_space import Metric, similarities_in
from kinshelf.probe.fit.model import softmax
from kinshelf.probe.fit.ridge import Ridge
from kinshelf.probe.fit.settings import ProbeSettings
from kinshelf.probe.fit.storage import read_probe
from kinshelf.probe.predict.prediction import Prediction
from kinshelf.probe.predict.predictor import Predictor
from kinshelf.probe.predict.wording import reason
from kinshelf.probe.train import train_shelf
from kinshelf.store import AddOptions
from kinshelf.store.probes import find_probe

D = 12
KINDS = ("ball", "book", "boat")


def make_source(folder: Path, kinds: tuple[str, ...], n: int, seed: int) -> tuple[Path, AddOptions]:
    """n products of each kind around a centre that depends on the kind's name alone."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    rows, image, text = [], [], []
    for kind in kinds:
        centre = np.random.default_rng(sum(kind.encode())).standard_normal((2, D)) * 2
        for i in range(n):
            rows.append({"id": f"{kind}{seed}-{i}", "title": f"{kind} {i}", "category": kind})
            image.append(centre[0] + rng.standard_normal(D))
            text.append(centre[1] + rng.standard_normal(D))
    np.save(folder / "image.npy", unit(np.array(image)))
    np.save(folder / "text.npy", unit(np.array(text)))
    options = AddOptions(image_embeddings=folder / "image.npy", text_embeddings=folder / "text.npy")
    return write_csv(folder / "products.csv", rows), options


@pytest.fixture
def kinds(tmp_path: Path) -> Shelf:
    shelf = Shelf.create(tmp_path / "kinds.shelf")
    shelf.add(*make_source(tmp_path / "known", KINDS, 20, seed=1))
    return shelf


def queries(tmp_path: Path, kinds: tuple[str, ...], n: int = 5, seed: int = 2) -> np.ndarray:
    folder = tmp_path / f"q{seed}"
    make_source(folder, kinds, n, seed)
    return np.hstack([np.load(folder / "image.npy"), np.load(folder / "text.npy")])


def by_hand(shelf: Shelf, query: np.ndarray, new: dict[str, float]) -> dict[str, float]:
    """The design's formula, in float64, from every similarity there is.

    `new` are the shares of the categories that the probe never saw.
    """
    now = shelf.snapshot()
    probe = read_probe(find_probe(shelf, now).path)
    both = parameters_of(probe.calibration)
    if VIEW_PARAMETERS in probe.reference:
        both = probe.reference[VIEW_PARAMETERS][0]
    names = ("temperature", "sharpness", "probe_power", "ridge_power", "lam")
    fitted = replace(probe.calibration, **dict(zip(names, both.tolist(), strict=True)))
    rows, categories = now.labelled()
    fused = query.astype(np.float64) / np.sqrt(2)
    stored = now.fused(rows)
    nearest = np.argsort(-(stored.astype(np.float64) @ fused), kind="stable")[: fitted.k]
    asked = fused[None].astype(np.float32)
    similarity = similarities_in(
        fitted.space, asked, stored[nearest][None], Metric.of(probe.reference), probe
    )[0].astype(np.float64)
    weight = np.exp((similarity - similarity.max()) / fitted.tau)
    votes = {c: weight[categories[nearest] == c].sum() for c in probe.classes}
    total = sum(votes.values())
    ridge = Ridge.of(probe.reference)
    assert ridge is not None
    logits = probe.logits(asked).astype(np.float64) / fitted.temperature * fitted.probe_power
    logits += ridge.scores(asked) * fitted.sharpness * fitted.ridge_power
    answer = dict(new)
    for c, stated in zip(probe.classes, softmax(logits)[0], strict=True):
        share = votes[c] / total if total else stated
        mixed = (1 - fitted.lam) * stated + fitted.lam * share
        answer[c] = (1 - sum(new.values())) * mixed
    return answer


def predict(shelf: Shelf, pairs: np.ndarray) -> list[Prediction]:
    return Predictor.for_shelf(shelf).predict(pairs)


def test_the_answer_is_the_formula(kinds: Shelf, tmp_path: Path) -> None:
    train_shelf(kinds, ProbeSettings(epochs=3))
    pairs = queries(tmp_path, KINDS)
    for query, answer in zip(pairs, predict(kinds, pairs), strict=True):
        expected = by_hand(kinds, query, {})
        assert answer.probabilities == pytest.approx(expected, abs=1e-5)
        assert answer.category == max(expected, key=expected.__getitem__)


def test_a_category_that_the_probe_never_saw_wins_from_its_first_products(
    kinds: Shelf, tmp_path: Path
) -> None:
    train_shelf(kinds, ProbeSettings(epochs=3))
    pairs = queries(tmp_path, ("kite",), n=10)
    assert not any(a.category == "kite" for a in predict(kinds, pairs))
    kinds.add(*make_source(tmp_path / "new", ("kite",), 5, seed=3))
    after = predict(kinds, pairs)
    assert all(a.category == "kite" for a in after)
    assert all(a.probe is not None and a.probe.category in KINDS for a in after)
    for query, answer in zip(pairs, after, strict=True):
        expected = by_hand(kinds, query, {"kite": answer.probabilities["kite"]})
        assert answer.probabilities == pytest.approx(expected, abs=1e-5)
    known = predict(kinds, queries(tmp_path, KINDS, n=20))
    assert np.mean([a.category == "kite" for a in known]) < 0.05


def test_roles_follow_from_the_answer(kinds: Shelf, tmp_path: Path) -> None:
    train_shelf(kinds, ProbeSettings(epochs=3))
    for answer in predict(kinds, queries(tmp_path, KINDS)):
        order = list(answer.probabilities)
        for evidence in answer.neighbours:
            category = evidence.neighbour.category
            expected = {order[0]: "supports", order[1]: "runner-up"}.get(str(category), "other")
            assert evidence.role == expected


def test_a_missing_modality_has_no_opinion(kinds: Shelf, tmp_path: Path) -> None:
    train_shelf(kinds, ProbeSettings(epochs=3))
    pairs = queries(tmp_path, KINDS)
    pairs[:, :D] = 0
    for answer in predict(kinds, pairs):
        assert answer.image_only is None
        assert answer.text_only is not None
        assert all(e.neighbour.image_similarity is None for e in answer.neighbours)


def test_uncategorised_products_neither_vote_nor_support(kinds: Shelf, tmp_path: Path) -> None:
    pairs = queries(tmp_path, ("ball",))
    rows = [{"id": f"none{i}", "title": "x", "category": ""} for i in range(5)]
    source = write_csv(tmp_path / "none.csv", rows)
    for name, half in zip(("i", "t"), np.split(pairs, 2, axis=1), strict=True):
        np.save(tmp_path / f"{name}.npy", half)
    kinds.add(
        source, AddOptions(image_embeddings=tmp_path / "i.npy", text_embeddings=tmp_path / "t.npy")
    )
    for answer in predict(kinds, pairs):
        assert answer.category == "ball"
        assert not any(e.neighbour.id.startswith("none") for e in answer.neighbours)


def test_an_answer_can_be_had_again_as_of_its_receipt(kinds: Shelf, tmp_path: Path) -> None:
    train_shelf(kinds, ProbeSettings(epochs=3))
    pairs = queries(tmp_path, KINDS)
    before = predict(kinds, pairs)
    kinds.add(*make_source(tmp_path / "more", ("kite", "ball"), 20, seed=5))
    train_shelf(kinds, ProbeSettings(epochs=4))
    receipt = before[0].receipt
    again = Predictor.for_shelf(kinds, at=receipt.generation, probe=receipt.probe)
    assert again.predict(pairs) == before
    with pytest.raises(ProbeNotFound, match="7"):
        Predictor.for_shelf(kinds, probe=7)
    with pytest.raises(GenerationNotFound):
        Predictor.for_shelf(kinds, at=99)


def test_copies_of_a_product_are_shown_but_do_not_vote(kinds: Shelf) -> None:
    train_shelf(kinds, ProbeSettings(epochs=3))
    now = kinds.snapshot()
    rows, categories = now.labelled()
    answers = predict(kinds, now.pairs(rows))
    for row, answer in zip(rows, answers, strict=True):
        assert answer.neighbours[0].neighbour.row == row
    honest = predict(kinds, now.pairs(rows[:1]))[0]
    kinds.relabel({"ball1-0": "book"})
    after = predict(kinds, now.pairs(rows[:1]))[0]
    assert categories[0] == "ball"
    assert after.category == honest.category == "ball"


def test_the_nearest_of_the_runner_up_are_among_the_evidence(kinds: Shelf, tmp_path: Path) -> None:
    train_shelf(kinds, ProbeSettings(epochs=3))
    now = kinds.snapshot()
    rows, categories = now.labelled()
    pairs = queries(tmp_path, KINDS)
    for query, answer in zip(pairs, predict(kinds, pairs), strict=True):
        second = list(answer.probabilities)[1]
        shown = [e.neighbour.row for e in answer.neighbours if e.neighbour.category == second]
        own = rows[categories == second]
        nearest = own[np.argsort(-(now.pairs(own) @ query))]
        assert shown[:2] == nearest[: len(shown)].tolist()[:2]
        assert len(shown) >= min(2, answer.k // 3)
        assert len(answer.neighbours) == answer.k


def test_a_prediction_set_holds_the_answer_and_is_ordered(kinds: Shelf, tmp_path: Path) -> None:
    train_shelf(kinds, ProbeSettings(epochs=3))
    for answer in predict(kinds, queries(tmp_path, KINDS)):
        assert answer.coverage == 0.95
        assert answer.prediction_set == list(answer.probabilities)[: len(answer.prediction_set)]
        assert answer.prediction_set[0] == answer.category


def test_near_duplicates_among_the_evidence_name_the_nearer_one(
    kinds: Shelf, tmp_path: Path
) -> None:
    pairs = queries(tmp_path, ("ball",), n=1)
    copies = np.repeat(pairs, 3, axis=0)
    copies[:, 0] += [0, 1e-3, 2e-3]
    rows = [{"id": f"copy{i}", "title": "x", "category": "ball"} for i in range(3)]
    source = write_csv(tmp_path / "copies.csv", rows)
    for name, half in zip(("i", "t"), np.split(copies, 2, axis=1), strict=True):
        np.save(tmp_path / f"{name}.npy", unit(half))
    kinds.add(
        source, AddOptions(image_embeddings=tmp_path / "i.npy", text_embeddings=tmp_path / "t.npy")
    )
    shown = predict(kinds, pairs)[0].neighbours
    folded = {e.neighbour.id: e.duplicate_of for e in shown}
    first = shown[0].neighbour.id
    assert {folded[f"copy{i}"] for i in range(3)} == {None, first}
    assert folded[first] is None
    assert all(value is None for name, value in folded.items() if not name.startswith("copy"))


@pytest.mark.wide
def test_many_neighbours_of_many_queries_are_compared_a_part_at_a_time(
    kinds: Shelf, tmp_path: Path
) -> None:
    kinds.add(*make_source(tmp_path / "more", KINDS, 150, seed=3))
    pairs = queries(tmp_path, KINDS, n=21)
    predictor = Predictor.for_shelf(kinds, k=500)
    tracemalloc.start()
    answers = predictor.predict(pairs)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 * 2**20  # the cosines of all pairs alone would be 120 MB
    for query in (0, 62):
        (alone,) = predictor.predict(pairs[query : query + 1])
        folded = [(e.neighbour.id, e.duplicate_of) for e in alone.neighbours]
        assert [(e.neighbour.id, e.duplicate_of) for e in answers[query].neighbours] == folded


def test_a_classifier_from_the_shelf_gives_the_shelfs_answers(kinds: Shelf, tmp_path: Path) -> None:
    train_shelf(kinds, ProbeSettings(epochs=3))
    kinds.add(*make_source(tmp_path / "new", ("ant",), 5, seed=3))
    pairs = queries(tmp_path, (*KINDS, "ant"))
    model = HybridClassifier.from_shelf(kinds)
    proba = model.predict_proba(pairs)
    for row, answer in zip(proba, predict(kinds, pairs), strict=True):
        expected = [answer.probabilities[name] for name in model.classes_]
        assert row == pytest.approx(expected, abs=1e-6)


def test_without_a_probe_the_neighbours_answer_alone(kinds: Shelf, tmp_path: Path) -> None:
    for answer in predict(kinds, queries(tmp_path, KINDS)):
        assert answer.probe is None
        assert answer.agreement is None
        assert answer.probability == answer.knn.probability
    with pytest.raises(EmptyShelf, match="matches"):
        Predictor.for_shelf(kinds).predict(queries(tmp_path, KINDS), where="category = 'none'")


@pytest.mark.parametrize(("space", "searches"), [("fused", [0.5]), ("whitened", [0.5])])
def test_a_picture_alone_costs_no_search_more_than_its_answer_needs(
    space: str, searches: list[float], kinds: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_shelf(kinds, ProbeSettings(epochs=5))
    entry = find_probe(kinds, kinds.snapshot())
    probe = read_probe(entry.path)
    assert Metric.of(probe.reference) is not None
    probe = probe.replace(calibration=replace(probe.calibration, space=space))
    predictor = Predictor(kinds.snapshot(), probe, entry.version)
    whole = queries(tmp_path, KINDS).astype(np.float32)
    pictures = whole.copy()
    pictures[:, D:] = 0
    search, weights = predictor._search, []

    def counted(pairs: np.ndarray, where: str | None, weight: float) -> object:
        weights.append(weight)
        return search(pairs, where, weight)

    monkeypatch.setattr(predictor, "_search", counted)
    alone = predictor.predict(pictures)
    assert weights == searches
    assert [a.text_only for a in alone] == [None] * len(pictures)
    # what the picture of a whole product states is searched for by itself
    for one, other in zip(alone, predictor.predict(whole), strict=True):
        assert one.image_only is not None
        assert other.image_only is not None
        assert one.image_only.category == other.image_only.category
        assert one.image_only.probability == pytest.approx(other.image_only.probability, abs=1e-5)
    assert weights[len(searches) :] == [0.5, 1.0, 0.0]


def test_where_no_neighbour_votes_the_answer_goes_to_review(kinds: Shelf, tmp_path: Path) -> None:
    train_shelf(kinds)
    answer = Predictor.for_shelf(kinds).predict(queries(tmp_path, ("ball",), 1), where="price > 1")[
        0
    ]
    assert (answer.knn, answer.agreement, answer.agreement_accuracy) == (None, None, None)
    assert answer.verdict == "review"
    assert answer.as_dict()["knn"] is None
    assert reason(answer) == "No product with a category matches, so the probe answers alone."


def test_nothing_is_accepted_before_a_probe_was_trained_and_calibrated(
    kinds: Shelf, tmp_path: Path
) -> None:
    asked = queries(tmp_path, KINDS)
    before = Predictor.for_shelf(kinds).predict(asked)
    assert max(answer.probability for answer in before) > 0.99
    assert {answer.verdict for answer in before} == {"review"}
    assert "Nothing is accepted before `kinshelf train`." in reason(before[0])
    train_shelf(kinds)
    assert "accept" in {answer.verdict for answer in Predictor.for_shelf(kinds).predict(asked)}


def test_nothing_is_accepted_where_one_category_is_left_of_those_trained_on(
    kinds: Shelf, tmp_path: Path
) -> None:
    train_shelf(kinds)
    kinds.remove(
        [s.product.id for s in kinds.snapshot().select() if not s.product.id.startswith("ball")]
    )
    answers = Predictor.for_shelf(kinds).predict(queries(tmp_path, KINDS))
    assert "accept" not in {a.verdict for a in answers if a.category != "ball"}


def test_nothing_is_accepted_where_two_products_are_left_of_those_trained_on(
    kinds: Shelf, tmp_path: Path
) -> None:
    train_shelf(kinds)
    every = [stored.product.id for stored in kinds.snapshot().select()]
    kinds.remove([one for one in every if one not in ("ball1-0", "book1-0")])
    answers = Predictor.for_shelf(kinds).predict(queries(tmp_path, ("ball", "book")))
    assert "accept" not in {answer.verdict for answer in answers}
