"""The audit finds what was planted, reports it with evidence, and leaves the rest alone."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import unit
from hypothesis import given, settings
from hypothesis import strategies as st

from kinshelf import Shelf
from kinshelf.db.errors import EmptyShelf, InputError
from kinshelf.probe.audit.audit import Audit, AuditRow, audit_shelf
from kinshelf.probe.audit.conflicts import find_conflicts
from kinshelf.probe.audit.duplicates import copies, find_duplicates
from kinshelf.probe.audit.facts import Facts, read_facts
from kinshelf.probe.audit.files import write_audit
from kinshelf.probe.audit.graph import Graph, build_graph
from kinshelf.probe.audit.label_errors import find_label_errors
from kinshelf.probe.audit.outliers import find_outliers, neighbour_distance
from kinshelf.probe.audit.proposals import propose_categories
from kinshelf.probe.audit.review_queue import review_queue
from kinshelf.probe.fit.settings import ProbeSettings
from kinshelf.probe.pages.thumbnails import Thumbnails
from kinshelf.probe.predict.predictor import Predictor
from kinshelf.probe.train import train_shelf
from kinshelf.store import Product

D = 24
KINDS = ("ball", "boat", "book")
QUICK = ProbeSettings(epochs=8, hidden=32, refit_below=0)


def vectors(n: int, seed: int, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pictures and texts around a centre a kind; what makes a product itself is in both."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((len(KINDS), D)) * 2
    code = np.arange(n) % len(KINDS)
    own = centres[code] + spread * rng.standard_normal((n, D))
    image, text = (unit(own + 0.2 * rng.standard_normal((n, D))) for _ in range(2))
    return image, text, code


def products(code: np.ndarray, start: int = 0) -> list[Product]:
    return [
        Product(f"p{i}", title=f"{KINDS[c]} number {i}", category=KINDS[c])
        for i, c in enumerate(code.tolist(), start)
    ]


@pytest.fixture
def empty(tmp_path: Path) -> Shelf:
    return Shelf.create(tmp_path / "a.shelf")


def filled(shelf: Shelf, n: int = 120, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    image, text, code = vectors(n, seed)
    shelf.upsert(products(code), image, text)
    return image, text


# ---- the graph


def test_the_graph_is_that_of_exact_search_and_knows_no_removed_product(empty: Shelf) -> None:
    image, text = filled(empty, 60)
    empty.remove(["p3", "p40"])
    kept = [i for i in range(60) if i not in (3, 40)]
    similarity = (image @ image.T + text @ text.T).astype(np.float64)[np.ix_(kept, kept)] / 2
    np.fill_diagonal(similarity, -2)
    graph = build_graph(empty.snapshot(), 5)
    assert graph.exhaustive
    assert graph.places.shape == (58, 5)
    expected = -np.sort(-similarity, axis=1)[:, :5]
    np.testing.assert_allclose(graph.similarities, expected, atol=1e-5)
    found = np.take_along_axis(similarity, graph.places, axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    both = (graph.image_similarities + graph.text_similarities) / 2
    np.testing.assert_allclose(both, expected, atol=1e-5)


def test_no_product_is_its_own_neighbour_even_among_copies(empty: Shelf) -> None:
    image, text, code = vectors(4, seed=2)
    again = np.zeros(40, dtype=int)
    empty.upsert(products(code[again]), image[again], text[again])
    graph = build_graph(empty.snapshot(), 6)
    assert not (graph.places == np.arange(40)[:, None]).any()


def test_a_shelf_of_one_product_has_a_graph_without_edges(empty: Shelf) -> None:
    with pytest.raises(EmptyShelf):
        build_graph(empty.snapshot())
    filled(empty, 1)
    found = audit_shelf(empty, settings=QUICK)
    assert found.graph.places.shape == (1, 0)
    assert found.counts["products"] == 1
    assert not list(found.rows)


# ---- duplicates


def duplicates_of(shelf: Shelf, similar: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    now = shelf.snapshot()
    found = find_duplicates(now, build_graph(now), read_facts(now), similar)
    return found.group, found.exact


def test_exact_copies_are_found_whatever_the_case_of_their_text(empty: Shelf) -> None:
    image, text = filled(empty, 30)
    twins = [Product("a", title="BALL  number 0"), Product("b", title="another text")]
    empty.upsert(twins, image[[0, 1]], text[[0, 0]])
    group, exact = duplicates_of(empty)
    assert exact.nonzero()[0].tolist() == [0, 30]
    assert group[0] == group[30] == 0
    assert group[31] == -1


def test_one_picture_with_two_texts_is_no_duplicate_nor_one_text_with_two_pictures(
    empty: Shelf,
) -> None:
    image, text = filled(empty, 30)
    variants = [Product("a", title="ball number 0"), Product("b", title="a boat")]
    empty.upsert(variants, np.stack([image[1], image[0]]), np.stack([text[0], text[1]]))
    group, _ = duplicates_of(empty)
    assert (group == -1).all()


def test_a_product_without_a_picture_is_no_copy_of_one_with(empty: Shelf) -> None:
    _, text = filled(empty, 30)
    alone = [Product("a", title="ball number 0"), Product("b", title="ball number 0")]
    empty.upsert(alone, np.zeros((2, D), dtype=np.float32), text[[0, 0]])
    group, exact = duplicates_of(empty)
    assert group[0] == -1
    assert exact[[30, 31]].all()
    assert group[30] == group[31] == 30


class Rows:
    """As much of a snapshot as grouping needs."""

    def __init__(self, pairs: np.ndarray) -> None:
        self._pairs = pairs

    def pairs(self, rows: np.ndarray) -> np.ndarray:
        return self._pairs[rows]


def graph_and_facts(points: np.ndarray) -> tuple[Graph, Facts]:
    """Of products with equal picture and text embeddings, every other one a neighbour."""
    n = len(points)
    cosine = points @ points.T
    np.fill_diagonal(cosine, -9)
    places = np.argsort(-cosine, axis=1, kind="stable")[:, : n - 1]
    found = np.take_along_axis(cosine, places, axis=1).astype(np.float32)
    names = np.array([f"p{i}" for i in range(n)], dtype=object)
    have = np.ones(n, dtype=np.bool_)
    facts = Facts(np.arange(n), names, names, names, names, have, have, np.arange(n))
    return Graph(np.arange(n), places, found, found, found, exhaustive=True), facts


@settings(max_examples=60)
@given(st.lists(st.floats(0, 1.2), min_size=3, max_size=12), st.integers(0, 9))
def test_every_two_products_of_a_group_are_alike(angles: list[float], seed: int) -> None:
    """Points on an arc: a chain of small steps must not become one group."""
    rng = np.random.default_rng(seed)
    plane = np.linalg.qr(rng.standard_normal((D, 2)))[0].T
    points = unit(np.stack([np.cos(angles), np.sin(angles)], axis=1) @ plane)
    graph, facts = graph_and_facts(points)
    rows: Any = Rows(np.hstack([points, points]))
    group = find_duplicates(rows, graph, facts).group
    cosine = points.astype(np.float64) @ points.T.astype(np.float64)
    for a, b in itertools.combinations(range(len(angles)), 2):
        if group[a] == group[b] != -1:
            assert cosine[a, b] >= 0.95 - 1e-6
        if group[a] == group[b] == -1:
            assert cosine[a, b] < 0.95 + 1e-6, "two that are alike cannot both be alone"
    for value in set(group.tolist()) - {-1}:
        assert (group == value).sum() > 1
        assert np.flatnonzero(group == value)[0] == value


# ---- outliers


def test_a_product_far_from_all_is_an_outlier_and_others_are_not(empty: Shelf) -> None:
    filled(empty, 120)
    strange = unit(np.random.default_rng(5).standard_normal((1, D)))
    empty.upsert([Product("odd", title="odd", category="ball")], strange, strange)
    now = empty.snapshot()
    graph, facts = build_graph(now), read_facts(now)
    found = find_outliers(graph, facts, copies(graph, facts))
    assert facts.ids[found.score.argmax()] == "odd"
    assert found.flagged[-1]
    assert found.flagged.sum() <= 4


def test_the_outlier_score_is_the_modified_z_score_of_the_distance(empty: Shelf) -> None:
    image, text = filled(empty, 60)
    now = empty.snapshot()
    graph, facts = build_graph(now), read_facts(now)
    found = find_outliers(graph, facts, copies(graph, facts))
    cosine = (image @ image.T + text @ text.T).astype(np.float64) / 2
    np.fill_diagonal(cosine, -9)
    distance = 1 - (-np.sort(-cosine, axis=1)[:, :10]).mean(axis=1)
    deviation = np.abs(distance - np.median(distance))
    expected = 0.6745 * (distance - np.median(distance)) / np.median(deviation)
    np.testing.assert_allclose(found.distance, distance, atol=1e-5)
    np.testing.assert_allclose(found.score, expected, atol=2e-3)


def test_products_of_text_alone_are_no_outliers_for_want_of_a_picture(empty: Shelf) -> None:
    filled(empty, 120)
    _, text, code = vectors(60, seed=7)
    plain = [p.replace(id=f"t{p.id}") for p in products(code)]
    empty.upsert(plain, np.zeros_like(text), text)
    now = empty.snapshot()
    graph, facts = build_graph(now), read_facts(now)
    assert find_outliers(graph, facts, copies(graph, facts)).flagged[120:].sum() <= 3


def test_copies_do_not_make_an_outlier_common(empty: Shelf) -> None:
    filled(empty, 120)
    strange = unit(np.random.default_rng(5).standard_normal((1, D)))
    odd = [Product(f"odd{i}", title="odd", category="ball") for i in range(4)]
    empty.upsert(odd, strange[[0] * 4], strange[[0] * 4])
    now = empty.snapshot()
    graph, facts = build_graph(now, 20), read_facts(now)
    distance = neighbour_distance(graph, copies(graph, facts))
    assert distance[120:].min() > np.median(distance[:120])
    assert find_outliers(graph, facts, copies(graph, facts)).flagged[120:].all()


# ---- labels


def test_confident_learning_by_hand() -> None:
    proba = np.array(
        [[0.9, 0.1, 0], [0.7, 0.3, 0], [0.2, 0.8, 0], [0.1, 0.9, 0], [0.95, 0.05, 0], [0, 0, 1]],
        dtype=np.float32,
    )
    codes = np.array([0, 0, 1, 1, 1, 2])
    # usual confidence: class 0 (0.9 + 0.7) / 2 = 0.8; class 1 (0.8 + 0.9 + 0.05) / 3 = 0.583
    found = find_label_errors(proba, codes)
    assert found.flagged.tolist() == [False, False, False, False, True, False]
    assert found.suggested[4] == 0
    assert found.probability[4] == pytest.approx(0.95)
    margin = [0.9 - 0.1, 0.7 - 0.3, 0.8 - 0.2, 0.9 - 0.1, 0.05 - 0.95, 1 - 0]
    np.testing.assert_allclose(found.score, (1 - np.array(margin)) / 2, atol=1e-6)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Audit, set[str]]:
    """The audit of 150 products, and which of them were given a wrong category."""
    n = 150
    image, text, code = vectors(n, seed=3)
    wrong = np.random.default_rng(0).permutation(n)[: n // 20]
    given = code.copy()
    given[wrong] = (code[wrong] + 1) % len(KINDS)
    titles = products(code)
    wares = [p.replace(category=KINDS[c]) for p, c in zip(titles, given, strict=True)]
    with Shelf.create(tmp_path_factory.mktemp("planted") / "a.shelf") as shelf:
        shelf.upsert(wares, image, text)
        return audit_shelf(shelf, settings=QUICK), {f"p{i}" for i in wrong}


def test_planted_label_errors_lead_the_ranking_and_the_right_category_is_suggested(
    planted: tuple[Audit, set[str]],
) -> None:
    audit, wrong = planted
    found = {row.id: row for row in audit.rows if row.is_label_issue}
    assert wrong <= found.keys()
    assert len(found) <= len(wrong) + 2
    for name in wrong:
        assert found[name].suggested_category == KINDS[int(name[1:]) % len(KINDS)]
        assert {found[name].image_says, found[name].text_says} <= set(KINDS)


def test_a_category_of_one_product_is_not_judged(empty: Shelf) -> None:
    image, text = filled(empty, 60)
    single = [Product("only", title="kite", category="kite")]
    empty.upsert(single, image[:1], unit(text[:1] + 0.3))
    audit = audit_shelf(empty, settings=QUICK)
    row = audit.row(60)
    assert row.id == "only"
    assert row.label_score is None
    assert not row.is_label_issue


def test_products_without_categories_are_audited_all_the_same(empty: Shelf) -> None:
    image, text, code = vectors(30, seed=1)
    empty.upsert([p.replace(category=None) for p in products(code)], image, text)
    empty.upsert([Product("twin", title="ball number 0")], image[:1], text[:1])
    audit = audit_shelf(empty, settings=QUICK)
    assert audit.labels is None
    assert {row.id for row in audit.rows if row.is_exact_duplicate} == {"p0", "twin"}


# ---- pictures and texts


def share_on_top(score: np.ndarray, places: np.ndarray) -> float:
    top = np.argsort(-score)[: math.ceil(0.05 * len(score))]
    return float(np.isin(places, top).mean())


def exchanged(n: int, *, rotated: bool, noise: float = 0.1) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(4)
    own = rng.standard_normal((n, D))
    text = unit(own + noise * rng.standard_normal((n, D)))
    image = unit(own + noise * rng.standard_normal((n, D)))
    if rotated:  # as from two models that know nothing of each other
        image = unit(image @ np.linalg.qr(rng.standard_normal((D, D)))[0])
    wrong = rng.permutation(n)[: n // 20]
    image[wrong] = image[np.roll(wrong, 1)]
    return image, text, wrong


@pytest.mark.parametrize(("n", "rotated"), [(100, False), (600, True)], ids=["cosine", "learned"])
def test_exchanged_pictures_are_on_top(empty: Shelf, n: int, rotated: bool) -> None:
    image, text, wrong = exchanged(n, rotated=rotated)
    empty.upsert(products(np.zeros(n, dtype=int)), image, text)
    now = empty.snapshot()
    found = find_conflicts(now, read_facts(now))
    assert share_on_top(found.score, wrong) >= 0.95
    if not rotated:
        assert found.flagged[wrong].mean() >= 0.9
        # each picture's own text is that of the product before it in the ring
        owner = dict(zip(wrong.tolist(), np.roll(wrong, 1).tolist(), strict=True))
        assert [found.better[i] for i in wrong] == [owner[i] for i in wrong]


def test_embeddings_without_relation_are_no_conflicts(empty: Shelf) -> None:
    rng = np.random.default_rng(8)
    image, text = (unit(rng.standard_normal((300, D))) for _ in range(2))
    empty.upsert(products(np.zeros(300, dtype=int)), image, text)
    now = empty.snapshot()
    assert find_conflicts(now, read_facts(now)).flagged.mean() <= 0.05


def test_where_a_modality_is_missing_there_is_no_conflict(empty: Shelf) -> None:
    image, text = filled(empty, 60)
    empty.upsert([Product("t", title="text alone")], np.zeros_like(image[:1]), text[:1])
    now = empty.snapshot()
    found = find_conflicts(now, read_facts(now))
    assert np.isnan(found.score[60])
    assert not found.flagged[60]


# ---- new categories


def with_new_kinds(empty: Shelf) -> None:
    """Uncategorised beside 120 categorised: 24 of two kinds that these have not, 12 of theirs."""
    filled(empty, 120)
    rng = np.random.default_rng(11)
    new = rng.standard_normal((2, D)) * 2
    code = np.arange(24) % 2
    image, text = (unit(new[code] + rng.standard_normal((24, D)) * 0.6) for _ in range(2))
    fresh = [Product(f"new{i}", title=f"kind {c}") for i, c in enumerate(code)]
    empty.upsert(fresh, image, text)
    known_image, known_text, known = vectors(12, seed=21)
    empty.upsert(
        [p.replace(id=f"u{p.id}", category=None) for p in products(known)], known_image, known_text
    )


def test_uncategorised_products_of_new_kinds_are_proposed_as_categories(empty: Shelf) -> None:
    with_new_kinds(empty)
    now = empty.snapshot()
    proposals = propose_categories(now, read_facts(now))
    members = [{m.id for m in p.members} for p in proposals]
    assert len(members) == 2
    for group in members:
        assert len({int(name.removeprefix("new")) % 2 for name in group}) == 1
        assert len(group) >= 9
    assert all(p.medoid.id in {m.id for m in p.members} for p in proposals)


def test_novel_means_the_same_to_classify_the_audit_and_the_review_queue(empty: Shelf) -> None:
    with_new_kinds(empty)
    settings = ProbeSettings(epochs=10, hidden=16, refit_below=0)
    train_shelf(empty, settings)
    now = empty.snapshot()
    stored = now.select("category IS NULL")
    answers = Predictor.for_shelf(empty).predict(now.pairs([s.row for s in stored]))
    novel = {s.product.id for s, a in zip(stored, answers, strict=True) if a.verdict == "novel"}
    audit = audit_shelf(empty, settings=settings, novel=True)
    proposed = {m.id: m.p for p in audit.proposals or () for m in p.members}
    queue = review_queue(empty, audit)
    assert set(proposed) <= novel == {i.id for i in queue.items if i.kind == "novel"}
    assert len(proposed) >= 18
    p_of = {s.product.id: a.novelty_p for s, a in zip(stored, answers, strict=True)}
    assert proposed == {product_id: p_of[product_id] for product_id in proposed}


def test_without_uncategorised_products_nothing_is_proposed(empty: Shelf) -> None:
    filled(empty, 60)
    now = empty.snapshot()
    assert propose_categories(now, read_facts(now)) == []


# ---- files


def test_csv_and_jsonl_hold_the_same_rows_in_the_same_order(
    planted: tuple[Audit, set[str]], tmp_path: Path
) -> None:
    audit, wrong = planted
    thumbnails = Thumbnails(tmp_path)
    counts = {write_audit(audit, tmp_path / f"a.{s}", thumbnails) for s in ("csv", "jsonl")}
    rows = list(audit.rows)
    assert counts == {len(rows)}
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    objects = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [r["id"] for r in table] == [o["id"] for o in objects] == [r.id for r in rows]
    assert list(table[0]) == [field.name for field in dataclasses.fields(AuditRow)]
    assert {r["id"] for r in table if r["is_label_issue"] == "true"} >= wrong
    assert objects[0] == dataclasses.asdict(rows[0])
    assert table[0]["evidence"].split() == rows[0].evidence


def test_a_file_of_another_kind_is_refused_and_nothing_is_left(
    planted: tuple[Audit, set[str]], tmp_path: Path
) -> None:
    audit, _ = planted
    with pytest.raises(InputError, match=r"\.csv, \.jsonl, \.html"):
        write_audit(audit, tmp_path / "a.xlsx", Thumbnails(tmp_path))
    with pytest.raises(InputError, match="make it first"):
        write_audit(audit, tmp_path / "none" / "a.csv", Thumbnails(tmp_path))
    assert not list(tmp_path.glob("*a.*x*"))


# ---- real products


@pytest.mark.wide
def test_planted_faults_in_real_products_are_on_top(amazon: Path, tmp_path: Path) -> None:
    """A smaller bench/audit.py: one seed; labels by neighbours and probes, pictures by CLIP."""
    folder = amazon / "embeddings"
    image, text = (np.load(folder / f"{name}_embeddings.npy") for name in ("image", "text"))
    with (folder / "products.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    kinds = sorted({row["category"] for row in rows})
    chosen = np.random.default_rng(0).permutation(len(rows))
    mislabelled, swapped = chosen[:41], chosen[41:82]
    image[swapped] = image[np.roll(swapped, 1)]
    goods = [Product(r["id"], title=r["title"], category=r["category"]) for r in rows]
    for i in mislabelled:
        other = kinds[(kinds.index(rows[i]["category"]) + 1 + i % 3) % 4]
        goods[i] = goods[i].replace(category=other)
    with Shelf.create(tmp_path / "a.shelf") as shelf:
        shelf.upsert(goods, image, text)
        audit = audit_shelf(shelf, settings=ProbeSettings(epochs=10, refit_below=0))
    assert audit.labels is not None
    assert share_on_top(audit.labels.score.astype(float), mislabelled) >= 0.75
    assert share_on_top(np.nan_to_num(audit.conflicts.score), swapped) >= 0.85
