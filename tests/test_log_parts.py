"""The log, read a part at a time: the same frames and the same rest as from all of its bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kinshelf.store.log import frames

FRAMES = st.lists(st.integers(0, 300), min_size=1, max_size=12)


def written(sizes: list[int]) -> bytes:
    """A frame of each size, generations 1, 2, ..."""
    made = [
        frames.encode(i, {"kind": "add", "time": 0.0, "n": i}, {"x": "y" * size})
        for i, size in enumerate(sizes, start=1)
    ]
    return b"".join(made)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=FRAMES, cut=st.integers(0, 200), flip=st.integers(-1, 4000), part=st.integers(1, 900))
def test_it_is_what_all_bytes_together_give(
    tmp_path: Path, sizes: list[int], cut: int, flip: int, part: int
) -> None:
    data = bytearray(written(sizes))
    del data[len(data) - cut % len(data) :]
    if 0 <= flip < len(data):
        data[flip] ^= 1
    path = tmp_path / "log"
    path.write_bytes(b"before" + data + b"what was not there yet")
    whole = list(frames.frames(memoryview(data), 0, 0))
    with pytest.MonkeyPatch.context() as patch, path.open("rb") as file:
        patch.setattr(frames, "_PART", part)
        found, rest = frames.read_frames(file, 6, 6 + len(data), 0)
    assert [(f.generation, f.head, f.offset - 6, f.end - 6) for f in found] == [
        (f.generation, f.head, f.offset, f.end) for f in whole
    ]
    assert bytes(rest) == bytes(data[whole[-1].end if whole else 0 :])


def test_a_file_that_became_shorter_meanwhile_gives_what_is_left(tmp_path: Path) -> None:
    data = written([50, 60, 70])
    path = tmp_path / "log"
    path.write_bytes(data[:-10])
    with path.open("rb") as file:
        found, rest = frames.read_frames(file, 0, len(data) + 1000, 0)
    assert [f.generation for f in found] == [1, 2]
    assert bytes(rest) == data[found[-1].end : -10]
