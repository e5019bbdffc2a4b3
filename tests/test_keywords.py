"""Keywords beside meaning: BM25 against NumPy, codes, operators, increments, fused ranks."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from similar_world import COUNT, filled_directory, halves

import kinshelf as ks
from kinshelf.cli import main
from kinshelf.db.errors import InputError
from kinshelf.store.similar.keywords import Keywords

TITLES = (
    "red plush bear", "brown plush bear with a long ribbon", "wooden train, 12 pieces",
    "train set B07-KMV", "Bear lamp 52231", "café table lamp", "plush rabbit", "red brick",
)  # fmt: skip


@pytest.fixture
def shop(tmp_path: Path, encoder: Any) -> Iterator[Any]:
    ks.create(tmp_path / "shop.shelf", encoder="fake").close()
    with ks.open(tmp_path / "shop.shelf", encoder=encoder) as shelf:
        shelf.upsert([ks.Product(f"t{i}", title=t, price=float(i)) for i, t in enumerate(TITLES)])
        yield shelf


def bm25(words: list[str], texts: list[list[str]]) -> np.ndarray:
    """Robertson's, with Lucene's rarity: k1 1.2, b 0.75."""
    average = np.mean([len(text) for text in texts])
    scores = np.zeros(len(texts))
    for word in words:
        df = sum(word in text for text in texts)
        rarity = math.log(1 + (len(texts) - df + 0.5) / (df + 0.5))
        for i, text in enumerate(texts):
            tf = text.count(word)
            scores[i] += rarity * tf * 2.2 / (tf + 1.2 * (0.25 + 0.75 * len(text) / average))
    return scores


def ids(found: Any) -> list[str]:
    return [each.id for each in found.neighbours]


def listed(shelf: Any, search: str, **more: Any) -> list[str]:
    return [product["id"] for product in shelf.products(search=search, **more)]


@pytest.mark.parametrize("text", ["plush bear", "red bear ribbon", "train", "lamp bear plush red"])
def test_keywords_rank_by_bm25(shop: Any, text: str) -> None:
    texts = [f"{t} t{i}".lower().replace(",", "").replace("é", "e") for i, t in enumerate(TITLES)]
    texts[3] = "train set b07 kmv t3 b07kmv"
    scores = bm25(text.split(), [each.split() for each in texts])
    order = [f"t{i}" for i in np.lexsort((np.arange(len(scores)), -scores)) if scores[i] > 0]
    found = shop.similar(text=text, mode="keywords")
    assert ids(found) == order
    shown = [n.similarity for n in found.neighbours]
    np.testing.assert_allclose(shown, np.sort(scores)[::-1][: len(order)] / scores.max(), rtol=1e-5)


@pytest.mark.parametrize(
    ("search", "expected"),
    [
        ("B07-KMV", ["t3"]), ("b07kmv", ["t3"]), ("KMV", ["t3"]), ("52231", ["t4"]), ("t6", ["t6"]),
        ("cafe", ["t5"]), ("bear -brown", ["t0", "t4"]), ("-plush -train -red", ["t4", "t5"]),
        ("plsh", ["t0", "t6", "t1"]), ("bear zebra", []), ("wodden trian", ["t2"]),
        ("red", ["t7", "t0"]),
        ("", []), ("-", []), ("bear AND (", []), ('"', []),
    ],
)  # fmt: skip
def test_a_search_finds_what_has_all_its_words(shop: Any, search: str, expected: list[str]) -> None:
    found = listed(shop, search)
    assert sorted(found) == sorted(expected)
    assert found[:1] == expected[:1]


def test_words_are_compared_by_their_stem_where_a_language_is_named(shop: Any) -> None:
    assert ids(shop.similar(text="bricks", mode="keywords", stem="english")) == ["t7"]
    with pytest.raises(InputError, match="stem is 'klingon': give one of arabic"):
        shop.similar(text="bear", mode="keywords", stem="klingon")


def test_what_is_added_changed_and_removed_is_found_so_at_once_and_as_it_was_then(
    shop: Any, encoder: Any
) -> None:
    assert listed(shop, "zebra") == []
    shop.upsert([ks.Product("z", title="zebra bear"), ks.Product("t0", title="red plush fox")])
    shop.remove(["t4"])
    assert listed(shop, "zebra") == ["z"]
    assert sorted(listed(shop, "bear")) == ["t1", "z"]
    before = shop.similar(text="bear", mode="keywords", at=1)
    assert set(ids(before)) == {"t0", "t1", "t4"}
    assert listed(shop, "plush", where="price < 1") == []  # t0 has no price any more
    with ks.open(shop.path, encoder=encoder) as again:
        assert sorted(listed(again, "bear")) == ["t1", "z"]
    shop.compact()
    assert sorted(listed(shop, "bear")) == ["t1", "z"]


def test_what_a_failed_reading_left_out_is_found_on_the_next_try(shop: Any) -> None:
    class HalfRead:
        catalog = shop.snapshot().view.catalog

        def written_after(self, row: int) -> Iterator[Any]:
            yield next(iter(shop.snapshot().view.written_after(row)))
            raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        Keywords.of(SimpleNamespace(view=HalfRead()))  # type: ignore[arg-type]
    assert listed(shop, "red plush") == ["t0"]


def test_only_as_many_as_match_come_back_however_rare_they_are(tmp_path: Path) -> None:
    image, text = halves(count=COUNT)
    with filled_directory(tmp_path / "a.shelf", image, text) as shelf:
        found = shelf.similar(id="p0", mode="keywords", k=2, where="price >= 58")
        assert ids(found) == ["p58", "p59"]  # every title has "thing": the lower row first


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    image, text = halves()
    with filled_directory(tmp_path_factory.mktemp("fused") / "a.shelf", image, text) as opened:
        yield opened


@given(place=st.integers(0, COUNT - 1), k=st.integers(1, 20))
def test_hybrid_with_weight_0_or_1_is_one_of_its_parts(shelf: Any, place: int, k: int) -> None:
    asked = ks.Query(id=f"p{place}", k=k)
    assert shelf.similar(asked, mode="hybrid", weight_keywords=0.0) == shelf.similar(asked)
    by_words = shelf.similar(asked, mode="keywords")
    assert shelf.similar(asked, mode="hybrid", weight_keywords=1.0) == by_words


def test_hybrid_sums_the_reciprocal_ranks(shelf: Any) -> None:
    parts = [ids(shelf.similar(id="p7", k=COUNT, mode=mode)) for mode in ("meaning", "keywords")]
    scores = np.zeros(COUNT)
    for part, weight in zip(parts, (0.7, 0.3), strict=True):
        for rank, name in enumerate(part, 1):
            scores[int(name[1:])] += weight / (60 + rank)
    expected = [f"p{i}" for i in np.lexsort((np.arange(COUNT), -scores)) if i != 7]
    found = shelf.similar(id="p7", k=20, mode="hybrid", weight_keywords=0.3)
    assert ids(found) == expected[:20]
    by_meaning = {n.id: n.similarity for n in shelf.similar(id="p7", k=COUNT).neighbours}
    assert [n.similarity for n in found.neighbours] == pytest.approx(
        [by_meaning[name] for name in ids(found)], abs=1e-6
    )


def test_words_are_needed_and_examples_have_none(shelf: Any) -> None:
    with pytest.raises(InputError, match="mode is 'hybrid' with examples"):
        ks.Query(like=("p1",), mode="hybrid")
    with pytest.raises(InputError, match="mode is 'keywords' and there are no words"):
        shelf.similar(image="a.png", mode="keywords")


def test_a_search_without_words_and_a_stem_without_a_search_are_refused(shop: Any) -> None:
    for line, reason in (
        (["--search", " "], "--search is empty"),
        (["--stem", "english"], "stem is 'english' without a search"),
    ):
        done = CliRunner().invoke(main, ["list", *line, "--shelf", str(shop.path)])
        assert (done.exit_code in (2, 3), reason in done.output) == (True, True)


def test_the_command_lists_them_with_their_facets(shop: Any) -> None:
    asked = ["list", "--search", "bear -brown", "--facets", "price", "--limit", "1", "--json"]
    done = CliRunner().invoke(main, [*asked, "--shelf", str(shop.path)])
    assert done.exit_code == 0, done.output
    product, facets = map(json.loads, done.stdout.splitlines())
    assert product["id"] == "t0"
    assert [entry["count"] for entry in facets["facets"]["price"]] == [1, 1]
