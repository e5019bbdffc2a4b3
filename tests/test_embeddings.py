"""A user's own embedding files."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kinshelf.db.errors import InvalidEmbeddings, SourceNotFound
from kinshelf.db.sources.embeddings import (
    check_dimension,
    check_row_count,
    clean_rows,
    load_embeddings,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray


def saved(path: Path, array: NDArray[Any]) -> Path:
    np.save(path, array)
    return path


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f4"])
@pytest.mark.parametrize("ordered", [np.ascontiguousarray, np.asfortranarray])
def test_floats_of_any_usual_size_and_order_are_mapped(
    tmp_path: Path, dtype: str, ordered: Callable[[NDArray[Any]], NDArray[Any]]
) -> None:
    array = np.arange(12, dtype=dtype).reshape(4, 3)
    path = saved(tmp_path / "a.npy", ordered(array))
    loaded = load_embeddings(path)
    assert isinstance(loaded, np.memmap)
    np.testing.assert_array_equal(loaded, array)


@pytest.mark.parametrize(
    ("array", "named"),
    [
        (np.array([{}], dtype=object), "Python objects"),
        (np.zeros((3, 2), np.int64), "int64"),
        (np.zeros((3, 2), np.complex64), "complex64"),
        (np.zeros((3, 2), np.longdouble), "float128"),
        (np.zeros(3, [("a", "f4")]), "a"),
        (np.zeros(8, np.float32), r"\(8,\)"),
        (np.zeros((2, 2, 2), np.float32), r"\(2, 2, 2\)"),
        (np.zeros((4, 0), np.float32), r"\(4, 0\)"),
        (np.zeros((0, 4), np.float32), r"\(0, 4\)"),
        (np.float32(1), r"\(\)"),
    ],
)
def test_an_array_that_is_no_embeddings_is_refused_by_name(
    tmp_path: Path, array: NDArray[Any], named: str
) -> None:
    path = tmp_path / "a.npy"
    np.save(path, array, allow_pickle=True)
    with pytest.raises(InvalidEmbeddings, match=named) as caught:
        load_embeddings(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFound, match=r"a\.npy"):
        load_embeddings(tmp_path / "a.npy")


def test_a_folder_is_no_embedding_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidEmbeddings, match="not a file"):
        load_embeddings(tmp_path)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x93NUM", b"PK\x03\x04"])
def test_another_file_named_npy_is_refused_with_the_remedy(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(content)
    with pytest.raises(InvalidEmbeddings, match=r"numpy\.save"):
        load_embeddings(path)


def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npy", np.ones((10, 4), np.float32))
    whole = path.read_bytes()
    for length in (7, 9, 40, 127, 128, 129, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(InvalidEmbeddings):
            load_embeddings(path)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_header_is_an_error_of_ours_or_a_float_matrix(
    tmp_path: Path, data: st.DataObject
) -> None:
    stream = io.BytesIO()
    np.save(stream, np.ones((3, 2), np.float32))
    content = bytearray(stream.getvalue())
    for place in data.draw(st.lists(st.integers(0, 127), min_size=1, max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    path = tmp_path / "a.npy"
    path.write_bytes(content)
    try:
        loaded = load_embeddings(path)
    except InvalidEmbeddings:
        return
    assert loaded.ndim == 2
    assert loaded.dtype.kind == "f"


def test_mismatched_row_counts_are_refused_with_both_counts(tmp_path: Path) -> None:
    array = np.ones((3, 2))
    check_row_count(array, 3, tmp_path)
    with pytest.raises(InvalidEmbeddings, match="3 rows but the source has 4"):
        check_row_count(array, 4, tmp_path)


def test_a_wrong_dimension_is_refused_with_both_numbers(tmp_path: Path) -> None:
    array = np.ones((3, 768))
    check_dimension(array, 768, tmp_path)
    with pytest.raises(InvalidEmbeddings, match="768 numbers but 512"):
        check_dimension(array, 512, tmp_path)


def test_unit_rows_keep_their_bits_and_the_file_its_own() -> None:
    rows = np.random.default_rng(3).standard_normal((50, 16))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    rows[7] *= np.float32(1.00005)
    before = rows.copy()
    clean, problems = clean_rows(rows)
    assert clean.tobytes() == before.tobytes()
    assert not np.shares_memory(clean, rows)
    assert problems == []


def test_rows_that_cannot_point_anywhere_are_named_and_emptied() -> None:
    rows = np.ones((5, 4), np.float32)
    rows[1, 2] = np.nan
    rows[2] = 0
    rows[3, 0] = -np.inf
    rows[4, 1:3] = np.nan, np.inf
    clean, problems = clean_rows(rows)
    assert [(index, reason) for index, reason, _ in problems] == [
        (1, "nan-embedding"),
        (2, "zero-embedding"),
        (3, "inf-embedding"),
        (4, "nan-embedding"),
    ]
    assert not clean[1:].any()
    np.testing.assert_allclose(clean[0], 0.5)


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e-40, 1e30, 1e160, 1e300])
def test_huge_and_tiny_rows_are_normalised_all_the_same(scale: float) -> None:
    clean, problems = clean_rows(np.array([[3.0, 4.0]]) * scale)
    assert problems == []
    np.testing.assert_allclose(clean, [[0.6, 0.8]], rtol=1e-6)


def test_an_empty_block_stays_empty() -> None:
    clean, problems = clean_rows(np.empty((0, 4), np.float16))
    assert clean.shape == (0, 4)
    assert problems == []


@settings(max_examples=100)
@given(
    arrays(
        st.sampled_from([np.float16, np.float32, np.float64]),
        st.tuples(st.integers(1, 5), st.integers(1, 6)),
        elements={"allow_subnormal": False},
    )
)
def test_every_row_comes_out_unit_and_parallel_or_zero_and_named(block: NDArray[Any]) -> None:
    clean, problems = clean_rows(block)
    assert clean.dtype == np.float32
    bad = {index for index, _, _ in problems}
    for index, row in enumerate(block.astype(np.longdouble)):
        if index in bad:
            assert not np.isfinite(row).all() or not row.any()
            assert not clean[index].any()
        else:
            expected = row / np.sqrt((row**2).sum())
            np.testing.assert_allclose(clean[index], expected.astype(float), atol=2e-4)
