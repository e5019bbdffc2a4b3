"""Pictures are decoded in processes that can die without anybody noticing."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image
from serve_world import gone, png, until

from kinshelf.db.errors import ImageRejected
from kinshelf.db.images.decode import decode_image
from kinshelf.samples import catalogue_dir, tiny_clip_dir
from kinshelf.serve.base.errors import ServerFailed, ShuttingDown
from kinshelf.serve.workers.decoding import Decoders
from kinshelf.store.encode.image_processor import read_preprocessing

MEMORY = 1_500_000_000


def decoders_of(count: int = 1, seconds: float = 10.0, memory: int = MEMORY) -> Decoders:
    return Decoders(count, seconds=seconds, memory=memory, pixels=40_000_000)


@pytest.fixture
def decoders() -> Iterator[Decoders]:
    found = decoders_of()
    yield found
    found.close()


def worker_of(decoders: Decoders) -> Any:
    return next(w for w in list(decoders._idle.queue) if w)


def test_pixels_are_bit_for_bit_those_of_decoding_here(decoders: Decoders) -> None:
    how = read_preprocessing(tiny_clip_dir())
    for path in sorted((catalogue_dir() / "images").glob("*"))[::40]:
        data = path.read_bytes()
        picture = decode_image(data)
        assert np.array_equal(decoders.pixels(data, how), how.pixels(picture))
        assert np.array_equal(decoders.pixels(data, None), np.asarray(picture))


def test_what_is_no_picture_has_the_reason_that_it_has_here(decoders: Decoders) -> None:
    whole = png()
    for data in (b"", b"nothing", whole[: len(whole) // 2], b"GIF89a" + b"\0" * 50, b"%PDF-1.7"):
        with pytest.raises(ImageRejected) as here:
            decode_image(data)
        with pytest.raises(ImageRejected) as there:
            decoders.check(data)
        assert (there.value.reason, str(there.value)) == (here.value.reason, str(here.value))
    assert decoders.killed == 0


def test_a_picture_that_takes_too_long_costs_its_process_and_nothing_else() -> None:
    decoders = decoders_of(seconds=4.0)
    decoders.check(png())
    pid = worker_of(decoders).pid
    os.kill(pid, signal.SIGSTOP)  # as a decoder that hangs
    started = time.monotonic()
    with pytest.raises(ImageRejected) as caught:
        decoders.check(png())
    assert caught.value.reason == "too-hard"
    assert time.monotonic() - started < 30
    assert decoders.killed == 1
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    decoders.check(png())  # the next one has a process of its own
    decoders.close()


def test_a_process_that_dies_costs_the_picture_that_it_had(decoders: Decoders) -> None:
    decoders.check(png())
    number = worker_of(decoders).pid
    os.kill(number, signal.SIGSTOP)  # it is asked, and then it dies
    threading.Timer(0.3, os.kill, (number, signal.SIGKILL)).start()
    with pytest.raises(ImageRejected, match="decode"):
        decoders.check(png())
    decoders.check(png())


def test_no_picture_is_to_blame_where_no_process_can_be_begun(
    decoders: Decoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/no/such/python")
        with pytest.raises(ServerFailed, match="begun"):
            decoders.check(png())
    decoders.check(png())
    assert decoders.killed == 0


def test_a_picture_that_needs_too_much_memory_is_refused() -> None:
    large = io.BytesIO()
    Image.new("RGB", (6000, 6000), "red").save(large, "PNG")  # 70 KB that become 108 MB
    decoders = decoders_of(memory=350_000_000)
    decoders.check(png())
    with pytest.raises(ImageRejected) as caught:
        decoders.pixels(large.getvalue(), None)
    assert caught.value.reason in ("too-large", "too-hard")
    decoders.check(png())
    decoders.close()


def test_many_threads_share_few_processes() -> None:
    decoders = decoders_of(2)
    pictures = [png(seed) for seed in range(40)]
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda data: decoders.pixels(data, None), pictures))
    for data, pixels in zip(pictures, found, strict=True):
        assert np.array_equal(pixels, np.asarray(decode_image(data)))
    decoders.close()
    with pytest.raises(ShuttingDown):
        decoders.check(png())


def test_a_thumbnail_is_a_small_jpeg(decoders: Decoders) -> None:
    thumbnail = Image.open(io.BytesIO(decoders.thumbnail(png(0, 200), 32)))
    assert (thumbnail.format, max(thumbnail.size)) == ("JPEG", 32)


def test_a_process_ends_when_its_server_was_killed() -> None:
    script = (
        "import sys, time\n"
        "from kinshelf.serve.workers.decoding import Decoders\n"
        "d = Decoders(1, seconds=9, memory=1_500_000_000, pixels=10**6)\n"
        "d.begin()\n"
        "print(d._idle.queue[0].pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as server:
        assert server.stdout
        pid = int(server.stdout.readline())
        server.kill()
    until(lambda: gone(pid), 10)


def test_no_thread_is_left_behind(decoders: Decoders) -> None:
    before = threading.active_count()
    for _ in range(5):
        decoders.check(png())
    until(lambda: threading.active_count() <= before + 1, 2)
