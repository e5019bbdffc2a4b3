"""The benchmarks name their data, never take other data in silence, and compare like with like."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BENCH = Path(__file__).resolve().parents[1] / "bench"


@pytest.fixture(autouse=True)
def bench(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its modules can be imported, as they are when one of them is run."""
    monkeypatch.syspath_prepend(str(BENCH))
    for name in [name for name in sys.modules if name == "vectors" or name.startswith("peers")]:
        monkeypatch.delitem(sys.modules, name)


@pytest.fixture
def vectors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    import vectors

    monkeypatch.setattr(vectors, "SHARED", tmp_path)
    return vectors


def test_data_that_is_absent_is_an_error_that_names_it(vectors: Any, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stopped:
        vectors.Kind("blends", "amazon2020").vectors(3, 0)
    assert str(tmp_path / "amazon2020") in str(stopped.value)


def test_a_kind_names_its_source_and_a_digest_of_it(vectors: Any, tmp_path: Path) -> None:
    directory = tmp_path / "amazon2020" / "embeddings"
    directory.mkdir(parents=True)
    names = {str(vectors.Kind("clusters", "gaussian"))}
    for seed in (0, 1):
        pairs = np.random.default_rng(seed).standard_normal((2, 20, vectors.WIDTH))
        np.save(directory / "image_embeddings.npy", pairs[0])
        np.save(directory / "text_embeddings.npy", pairs[1])
        (directory / "products.csv").write_text("category\n" + "toys\nbooks\n" * 10)
        vectors.known.cache_clear()
        kind = vectors.Kind("clusters", "amazon2020")
        names.add(str(kind))
        made = kind.vectors(5, 0)
        assert made.shape == (5, 2, vectors.WIDTH)
        np.testing.assert_allclose(np.linalg.norm(made, axis=-1), 1, rtol=1e-5)
    assert len(names) == 3
    assert all(name.startswith("clusters of ") for name in names)


def test_work_of_other_data_is_not_taken_up(vectors: Any, tmp_path: Path) -> None:
    from peers_work import prepare

    (tmp_path / "plan.json").write_text(json.dumps({"data": "blends of amazon2020 (0123)"}))
    with pytest.raises(SystemExit, match="not blends of gaussian"):
        prepare(tmp_path, 10, vectors.Kind("blends", "gaussian"))


def test_peers_are_compared_at_one_recall_on_a_line_between_two_settings() -> None:
    from peers_report import at_recall

    assert at_recall([(0.98, 1.0), (1.0, 3.0)], 0.99) == pytest.approx(2.0)
    assert at_recall([(0.995, 1.0), (1.0, 3.0)], 0.99) == 1.0  # the cheapest there is
    assert at_recall([(0.9, 1.0), (0.95, 3.0)], 0.99) is None


def test_of_several_runs_the_median_counts_figure_by_figure() -> None:
    from peers import middle

    runs = [
        {"ms": taken, "found": found, "filters": {"1 %": {"ms": 2 * taken}}, "name": "it"}
        for taken, found in ((1.0, True), (9.0, True), (2.0, False))
    ]
    assert middle(runs) == {
        "ms": 2.0,
        "found": False,
        "filters": {"1 %": {"ms": 4.0}},
        "name": "it",
    }
