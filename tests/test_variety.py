"""Examples, variety, groups, pages and facets, each compared with plain NumPy and Python."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from similar_world import COUNT, filled_directory, halves, plain

import kinshelf as ks
import kinshelf.store.similar.questions
from kinshelf.cli import main
from kinshelf.db.catalog.facets import MOST, facets_of
from kinshelf.db.errors import FilterError, InputError
from kinshelf.db.filters.names import Name
from kinshelf.db.product import Product, StoredProduct
from kinshelf.store.similar.search import read_as_texts
from kinshelf.store.similar.variety import mmr


def ids(found: Any) -> list[str]:
    return [each.id for each in found.neighbours]


@pytest.fixture(scope="module")
def pairs() -> np.ndarray:
    image, text = halves()
    text[::3] = 0
    image[1::15] = 0
    return np.hstack([image, text])


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory, pairs: np.ndarray) -> Iterator[Any]:
    image, text = np.split(pairs, 2, axis=1)
    with filled_directory(tmp_path_factory.mktemp("variety") / "a.shelf", image, text) as opened:
        yield opened


def order(scores: np.ndarray, without: tuple[int, ...] = ()) -> list[str]:
    ranked = np.lexsort((np.arange(len(scores)), -scores))
    return [f"p{i}" for i in ranked if i not in without]


# ---- examples


@pytest.mark.parametrize("strategy", ["average", "best-score"])
@given(place=st.integers(0, COUNT - 1))
def test_one_liked_product_alone_is_that_product(shelf: Any, strategy: Any, place: int) -> None:
    alone = shelf.similar(like=(f"p{place}",), strategy=strategy, k=7)
    assert alone == shelf.similar(id=f"p{place}", k=7)


def test_best_score_is_qdrant_s(shelf: Any, pairs: np.ndarray) -> None:
    liked = [plain(pairs[i], pairs) for i in (3, 8)]
    disliked = plain(pairs[17], pairs)

    def f(x: float) -> float:
        return (1 + x / (1 + abs(x))) / 2

    scores = np.array(
        [f(max(a, b)) if max(a, b) > c else -f(c) for a, b, c in zip(*liked, disliked, strict=True)]
    )
    found = shelf.similar(like=("p3", "p8"), unlike=("p17",), strategy="best-score", k=30)
    assert ids(found) == order(scores, (3, 8, 17))[:30]
    best = {f"p{i}": max(liked[0][i], liked[1][i]) for i in range(COUNT)}
    shown = [n.similarity for n in found.neighbours]
    np.testing.assert_allclose(shown, [best[i] for i in ids(found)], atol=1e-6)


def test_average_looks_for_what_the_examples_share_away_from_the_disliked(
    shelf: Any, pairs: np.ndarray
) -> None:
    query = []
    for half in np.split(pairs, 2, axis=1):
        there = [half[i] for i in (4, 8) if half[i].any()]
        away = half[17] if half[17].any() else np.zeros(half.shape[1])
        moved = 2 * np.mean(there, axis=0) - away if away.any() else np.mean(there, axis=0)
        query.append(moved / np.linalg.norm(moved))
    scores = plain(np.hstack(query), pairs)
    found = shelf.similar(like=["p4", "p8"], unlike=["p17"], k=20)  # type: ignore[arg-type]
    assert ids(found) == order(scores, (4, 8, 17))[:20]


def test_an_example_is_an_id_or_a_picture_or_else_a_text(shelf: Any, tmp_path: Path) -> None:
    by_text = shelf.similar(like=("q0",), k=4)
    assert by_text == shelf.similar(text="q0", k=4)
    assert by_text == shelf.similar(like=(ks.Query(text="q0"),), k=4)
    asked = ks.Query(like=("q0", "p1"), unlike=("two words",))
    assert read_as_texts(shelf.snapshot(), asked) == ["q0"]
    with pytest.raises(InputError, match=r"'new.jpg' is no id on the shelf, and no picture"):
        shelf.similar(like=("new.jpg",))
    with pytest.raises(InputError, match="unlike without like"):
        ks.Query(unlike=("p1",))
    with pytest.raises(InputError, match="give it as a `like`"):
        ks.Query(id="p1", like=("p2",))


def test_candidates_are_those_of_each_liked_example_where_there_are_too_many_products(
    shelf: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ks.Query(like=("p3", "p8"), unlike=("p17",), strategy="best-score", k=5)
    exactly = shelf.similar(asked)
    monkeypatch.setattr(kinshelf.store.similar.questions, "EXACT_ROWS", 10)
    found = shelf.similar(asked)
    assert ids(found) == ids(exactly)
    assert (exactly.exhaustive, found.exhaustive) == (True, False)


# ---- variety


@given(place=st.integers(0, COUNT - 1), k=st.integers(1, 30))
def test_diverse_with_lambda_1_is_plain_search(shelf: Any, place: int, k: int) -> None:
    assert shelf.similar(id=f"p{place}", k=k, diverse=1.0) == shelf.similar(id=f"p{place}", k=k)


def test_diverse_is_maximal_marginal_relevance_over_all_candidates(
    shelf: Any, pairs: np.ndarray
) -> None:
    relevance = plain(pairs[5], pairs)
    left, expected = [i for i in range(COUNT) if i != 5], []
    while len(expected) < 12:

        def value(i: int) -> float:
            near = max((float(plain(pairs[j], pairs[[i]])[0]) for j in expected), default=0.0)
            return 0.4 * float(relevance[i]) - 0.6 * near

        best = max(left, key=value)
        left.remove(best)
        expected.append(best)
    found = shelf.similar(id="p5", k=12, diverse=0.4)
    assert ids(found) == [f"p{i}" for i in expected]
    assert ids(shelf.similar(id="p5", k=6, offset=6, diverse=0.4)) == ids(found)[6:]


def test_mmr_of_nothing_is_nothing() -> None:
    assert mmr(np.zeros(0, np.float32), np.zeros((0, 4), np.float32), 0.5, 3) == []


def test_one_per_value_is_the_nearest_of_each(shelf: Any) -> None:
    everything = shelf.similar(id="p5", k=COUNT).neighbours
    for column, value in (("brand", lambda n: f"b{int(n[1:]) % 7}"), ("size", _size)):
        seen, expected = set(), []
        for near in everything:
            this = value(near.id)
            if this is None or this not in seen:
                expected.append(near.id)
                seen.add(this)
        assert ids(shelf.similar(id="p5", k=COUNT, one_per=column)) == expected
        assert ids(shelf.similar(id="p5", k=2, offset=1, one_per=column)) == expected[1:3]
    with pytest.raises(FilterError, match="no column `colour`"):
        shelf.similar(id="p5", one_per="colour")


def _size(product_id: str) -> int | None:
    number = int(product_id[1:])
    return number % 3 if number % 5 else None


def test_pages_join_to_the_whole_and_the_least_similarity_ends_them(shelf: Any) -> None:
    whole = shelf.similar(id="p9", k=COUNT).neighbours
    pages = [shelf.similar(id="p9", k=10, offset=at).neighbours for at in range(0, COUNT, 10)]
    assert list(itertools.chain(*pages)) == whole
    least = whole[12].similarity
    near = shelf.similar(id="p9", k=COUNT, min_similarity=least).neighbours
    assert near == [n for n in whole if n.similarity >= least]


# ---- facets


@pytest.mark.parametrize("where", [None, "price < 31", "category = 'c1'", "price < 0"])
def test_facets_count_each_product_that_matches_once(shelf: Any, where: str | None) -> None:
    found = shelf.facets("category", "brand", "price", "size", where=where)
    matching = shelf.products(where)
    for facet in found.values():
        assert sum(entry["count"] for entry in facet) == len(matching)
    for column in ("category", "brand"):
        counts = Counter(product[column] for product in matching)
        assert {entry["value"]: entry["count"] for entry in found[column]} == counts
    assert (
        found
        == shelf.similar(id="p0", where=where, facets=("category", "brand", "price", "size")).facets
    )


def priced(numbers: list[float | None]) -> list[StoredProduct]:
    products = [Product(id=f"p{i}", title=f"t{i}", price=n) for i, n in enumerate(numbers)]
    return [
        StoredProduct(product, row, False, True, None, None, "", 1)
        for row, product in enumerate(products)
    ]


@given(st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6)), max_size=30))
def test_bands_hold_each_number_once_and_in_order(numbers: list[float | None]) -> None:
    found = facets_of([Name("price", "number", "")], priced(numbers), 20)
    facet = found.facets["price"]
    assert sum(entry["count"] for entry in found.as_lists()["price"]) == len(numbers)
    lows = [-math.inf if band.low is None else band.low for band in facet.bands]
    assert lows == sorted(set(lows))
    for band, low in zip(facet.bands, lows, strict=True):
        high = math.inf if band.high is None else band.high
        assert band.count == sum(n is not None and low <= n < high for n in numbers)


def test_of_very_many_values_the_rarest_are_one_entry() -> None:
    found = facets_of([Name("title", "text", "")], priced([None] * 1200), MOST)
    assert found.as_lists()["title"][-1] == {"others": 200, "count": 200}


def test_the_command_prints_them_beside_a_result_and_a_list(shelf: Any) -> None:
    def run(*arguments: str) -> list[dict[str, Any]]:
        done = CliRunner().invoke(main, [*arguments, "--shelf", str(shelf.path), "--json"])
        assert done.exit_code == 0, done.output
        return [json.loads(line) for line in done.stdout.splitlines()]

    *near, facets = run("similar", "--id", "p5", "-k", "3", "--diverse", "0.4", "--facets", "brand")
    assert [n["id"] for n in near] == ids(shelf.similar(id="p5", k=3, diverse=0.4))
    assert facets == {"facets": shelf.facets("brand")}
    assert run("list", "--limit", "1", "--facets", "brand")[-1] == facets
    examples = run("similar", "--like", "p3", "--like", "p8", "--unlike", "p17", "-k", "4")
    assert [n["id"] for n in examples] == ids(
        shelf.similar(like=("p3", "p8"), unlike=("p17",), k=4)
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"diverse": 2.0}, "diverse is 2.0: give a number from 0 to 1"),
        ({"diverse": 0.5, "offset": 195, "k": 10}, "among the 200 nearest"),
        ({"offset": -1}, "offset is -1"),
        ({"min_similarity": float("nan")}, "min_similarity is nan"),
        ({"strategy": "worst"}, "strategy is 'worst': give one of average, best-score"),
    ],
)
def test_what_cannot_be_chosen_is_refused_with_its_value(
    fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        ks.Query(id="a", **fields)
