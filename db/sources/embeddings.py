"""A user's own embeddings: NumPy files, memory-mapped, checked, and cleaned row by row."""

from __future__ import annotations

import warnings
from pathlib import Path
from tokenize import TokenError
from typing import TYPE_CHECKING, Any

import numpy as np

from kinshelf.db.errors import InvalidEmbeddings, SourceNotFound

if TYPE_CHECKING:
    from numpy.typing import NDArray

UNIT_TOLERANCE = 1e-4
"""A row whose norm is this near to 1 is taken as it is, to the bit."""

_DAMAGE = (
    ValueError,
    OSError,
    EOFError,
    TokenError,
    SyntaxError,
    TypeError,
    OverflowError,
    RecursionError,
    MemoryError,
)
"""What numpy raises over a header that is not one: it reads it as a Python literal."""

_MAGIC = b"\x93NUMPY"
_SAVE_HINT = "save it with numpy.save(file, array.astype(numpy.float32))"


def load_embeddings(path: Path | str) -> NDArray[Any]:
    """The (n, d) array of an .npy file: float16, float32 or float64, memory-mapped read-only.

    No pickle is ever loaded. Row i belongs to data row i of the source. Both memory orders do.

    Raises:
        SourceNotFound: there is no such file.
        InvalidEmbeddings: it is no .npy file or truncated, or the array is not two-dimensional,
            not of floats, or has no rows or columns.
    """
    path = Path(path)
    _check_file(path)
    try:
        with warnings.catch_warnings():
            # numpy warns where Python 2 wrote the header; the array is none the worse.
            warnings.simplefilter("ignore", UserWarning)
            array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except _DAMAGE as problem:
        raise InvalidEmbeddings(_why_not(path, problem)) from problem
    _check_array(array, path)
    return array


def check_row_count(array: NDArray[Any], rows: int, path: Path | str) -> None:
    """Make sure that there is one embedding for each data row of the source.

    Raises:
        InvalidEmbeddings: there are more or fewer than `rows`.
    """
    if len(array) != rows:
        raise InvalidEmbeddings(
            f"{path} has {len(array)} rows but the source has {rows}: row i of the one must belong "
            "to data row i of the other, rejected rows counted"
        )


def check_dimension(array: NDArray[Any], dimension: int, path: Path | str) -> None:
    """Make sure that the embeddings are of the shelf's dimension.

    Raises:
        InvalidEmbeddings: they are not.
    """
    if array.shape[1] != dimension:
        raise InvalidEmbeddings(
            f"{path} holds embeddings of {array.shape[1]} numbers but {dimension} are expected: "
            "they must come from the encoder that the shelf was made for"
        )


def clean_rows(block: NDArray[Any]) -> tuple[NDArray[np.float32], list[tuple[int, str, str]]]:
    """Unit rows of a block, and what is wrong with those that cannot be made unit.

    Args:
        block: (n, d) floats.

    Returns:
        (n, d) float32, a copy. A row within `UNIT_TOLERANCE` of norm 1 keeps its bits (as cast to
        float32), any other is normalised in float64; a row that cannot be used is all zero and
        named by (index, reason, message), reason `nan-embedding`, `inf-embedding` or
        `zero-embedding`.
    """
    with np.errstate(over="ignore", under="ignore"):
        unit = np.array(block, np.float32, order="C")
    with np.errstate(over="ignore", invalid="ignore"):
        squared = np.einsum("nd,nd->n", unit, unit)
        # A norm's square is off by twice what the norm is: these are unit beyond doubt.
        odd = np.flatnonzero(~(np.abs(squared - 1) < UNIT_TOLERANCE))
    unit[odd], problems = _made_unit(unit[odd], np.asarray(block[odd], np.float64))
    return unit, [_problem(int(odd[i]), np.asarray(block[odd[i]], np.float64)) for i in problems]


def _made_unit(
    unit: NDArray[np.float32], wide: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Rows as `clean_rows` wants them, and which of them cannot be used."""
    # Scaled before squaring, so that neither huge nor tiny rows overflow or vanish.
    largest = np.abs(wide).max(axis=1, initial=0.0)
    usable = np.isfinite(largest) & (largest > 0)
    unit[~usable] = 0
    scaled = wide[usable] / largest[usable, None]
    norms = np.linalg.norm(scaled, axis=1)
    with np.errstate(over="ignore"):
        off = np.abs(norms * largest[usable] - 1) > UNIT_TOLERANCE
    unit[np.flatnonzero(usable)[off]] = scaled[off] / norms[off, None]
    return unit, np.flatnonzero(~usable)


def _check_file(path: Path) -> None:
    if not path.exists():
        raise SourceNotFound(f"there is no embedding file at {path}")
    if not path.is_file():
        raise InvalidEmbeddings(f"{path} is not a file: give the .npy file itself")
    try:
        with path.open("rb") as stream:
            magic = stream.read(len(_MAGIC))
    except OSError as problem:
        raise InvalidEmbeddings(f"{path} cannot be read: {problem.strerror}") from problem
    if magic != _MAGIC:
        what = "an .npz archive or zip file" if magic.startswith(b"PK") else "no .npy file"
        raise InvalidEmbeddings(f"{path} is {what}: {_SAVE_HINT}")


def _why_not(path: Path, problem: Exception) -> str:
    if "object" in str(problem).casefold():
        return f"{path} holds Python objects, which are not loaded for safety: {_SAVE_HINT}"
    if "mmap" in str(problem) or "length" in str(problem):
        size = path.stat().st_size
        return f"{path} is truncated: {size} bytes do not hold the array that its header announces"
    return f"{path} cannot be read as .npy: {problem}; {_SAVE_HINT}"


def _check_array(array: NDArray[Any], path: Path) -> None:
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise InvalidEmbeddings(
            f"{path} is of type {array.dtype}: embeddings are float16, float32 or float64; "
            f"{_SAVE_HINT}"
        )
    if array.ndim != 2:
        raise InvalidEmbeddings(
            f"{path} has the shape {array.shape}: embeddings are (rows, dimension)"
        )
    if not array.size:
        raise InvalidEmbeddings(f"{path} has the shape {array.shape}: it holds no embeddings")


def _problem(index: int, row: NDArray[np.float64]) -> tuple[int, str, str]:
    if np.isnan(row).any():
        count = int(np.isnan(row).sum())
        return index, "nan-embedding", f"{count} of {row.size} numbers are NaN"
    if np.isinf(row).any():
        count = int(np.isinf(row).sum())
        return index, "inf-embedding", f"{count} of {row.size} numbers are infinite"
    return index, "zero-embedding", "all numbers are 0: such a row points nowhere"
