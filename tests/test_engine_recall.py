"""What an engine finds against exact NumPy search, by its approximate index, under filters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from conftest import unit
from engines import Milvus, Postgres, running

from kinshelf import create as create_shelf
from kinshelf.db.product import Product
from kinshelf.face import _OnEngine as EngineShelf
from kinshelf.store.engines import recall as measuring
from kinshelf.store.engines.address import parse_address
from kinshelf.store.engines.milvus import backend as milvus
from kinshelf.store.engines.open import backend_of
from kinshelf.store.engines.postgres import backend as postgres

ROWS, DIMENSION, GROUPS = 2000, 24, 20


@pytest.fixture(scope="module", params=["postgres", "milvus"])
def indexed(request: pytest.FixtureRequest) -> Iterator[tuple[EngineShelf, Any]]:
    """Clusters of products; `group` names the cluster, `rare` marks 1 % of all, in one cluster."""
    with running(request.param) as engine, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", f"/tmp/kinshelf-test-{engine.root.name}")
        assert isinstance(engine, Postgres | Milvus)
        rng = np.random.default_rng(1)
        group = np.arange(ROWS) % GROUPS
        centres = rng.standard_normal((GROUPS, 2, DIMENSION))
        rows = centres[group] + 0.8 * rng.standard_normal((ROWS, 2, DIMENSION))
        pairs = np.concatenate([unit(rows[:, 0]), unit(rows[:, 1])], axis=1)
        made = [
            Product(f"p{i}", category=f"g{group[i]}", price=float(i % 100),
                    attributes={"rare": bool(group[i] == 0 and i % 100 < 20)})
            for i in range(ROWS)
        ]  # fmt: skip
        address = engine.address("recall")
        create_shelf(address, encoder="fake").close()
        parsed = parse_address(address)
        with EngineShelf(parsed, backend_of(parsed), index_from=1000) as shelf:
            shelf.upsert(made, *np.split(pairs, 2, axis=1))
            assert shelf.build_index()
            yield shelf, (pairs, group, made)


def recall(found: Any, pairs: np.ndarray, queries: np.ndarray, keep: np.ndarray) -> float:
    scores = queries @ pairs.T / 2
    scores[:, ~keep] = -np.inf
    last = -np.sort(-scores, axis=1)[:, 9:10]
    assert found.rows.shape == (len(queries), 10)
    assert keep[found.rows].all()
    return float((found.similarities >= last - 1e-6).mean())


FILTERS = {
    None: lambda group, made: np.ones(ROWS, dtype=bool),
    "category = 'g3'": lambda group, made: group == 3,
    "rare": lambda group, made: np.array([p.attributes["rare"] for p in made]),
    "price < 50": lambda group, made: np.array([p.price < 50 for p in made]),
}


@pytest.mark.parametrize("expression", FILTERS, ids=str)
@pytest.mark.parametrize("scored", ["few", "none"])
def test_recall_holds_with_narrow_filters_of_another_category_than_the_query(
    indexed: Any, expression: str | None, scored: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf, (pairs, group, made) = indexed
    limit = 500 if scored == "few" else 0
    monkeypatch.setattr(milvus, "EXACT_ROWS", limit)
    monkeypatch.setattr(postgres, "EXACT_ROWS", limit)
    rng = np.random.default_rng(2)
    chosen = rng.choice(np.flatnonzero((group != 0) & (group != 3)), 60, replace=False)
    queries = pairs[chosen]
    keep = FILTERS[expression](group, made)
    found = shelf.search(queries, 10, where=expression)
    assert recall(found, pairs, queries, keep) >= 0.99
    assert found.exhaustive == (keep.sum() <= limit)


def test_the_index_is_reported_and_measured(indexed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf, _ = indexed
    monkeypatch.setattr(milvus, "EXACT_ROWS", 0)
    monkeypatch.setattr(postgres, "EXACT_ROWS", 0)
    monkeypatch.setattr(measuring, "QUERIES", 10)
    reported = shelf.info(recall=True)["index"]
    assert "HNSW" in reported["kind"]
    assert reported["measured"]["recall"] >= 0.99
    assert not reported["measured"]["exhaustive"]


def test_new_products_are_found_at_once_beside_the_index(
    indexed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf, (pairs, _, _) = indexed
    monkeypatch.setattr(milvus, "EXACT_ROWS", 0)
    monkeypatch.setattr(postgres, "EXACT_ROWS", 0)
    image, text = np.split(unit(np.ones((1, 2 * DIMENSION))), 2, axis=1)
    shelf.upsert([Product("fresh")], unit(image), unit(text))
    query = np.hstack([unit(image), unit(text)])
    found = shelf.search(query, 1)
    assert shelf.snapshot().view.by_rows(found.rows[0])[int(found.rows[0, 0])].product.id == "fresh"
    shelf.remove(["fresh"])
    assert len(pairs) == shelf.snapshot().count
