"""The model has a process of its own, whose death costs nobody an answer."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from serve_world import copied, gone, png, process, sample_shelf, until

from kinshelf import Shelf
from kinshelf.db.errors import EncoderMismatch, EncoderUnavailable
from kinshelf.samples import catalogue_dir, tiny_clip_dir
from kinshelf.serve.base.errors import ShuttingDown
from kinshelf.serve.workers import encoding
from kinshelf.serve.workers.encoding import EncoderProcess
from kinshelf.store.encode.canary import load_encoder_of
from kinshelf.store.log.manifest import Manifest, read_manifest

pytestmark = pytest.mark.wide


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sample_shelf(tmp_path_factory, count=40)


@pytest.fixture
def elsewhere(sample: Path) -> Iterator[EncoderProcess]:
    found = EncoderProcess(sample, read_manifest(sample))
    yield found
    found.close()


def pictures(count: int) -> list[Image.Image]:
    paths = sorted((catalogue_dir() / "images").glob("*"))[:count]
    return [Image.open(path).convert("RGB") for path in paths]


TEXTS = [f"Wooden train number {i}, naïve café 🧸 日本" for i in range(40)]


def test_embeddings_are_those_of_the_encoder_here(sample: Path, elsewhere: EncoderProcess) -> None:
    here = load_encoder_of(sample, read_manifest(sample))
    for name in ("name", "dimension", "fingerprint", "precision", "preprocessing"):
        assert getattr(elsewhere, name) == getattr(here, name)
    asked = pictures(40)
    # as near as batches of other sizes are in this precision
    assert np.sum(elsewhere.encode_images(asked) * here.encode_images(asked), axis=1).min() > 0.9999
    assert np.allclose(elsewhere.encode_texts(TEXTS), here.encode_texts(TEXTS), atol=1e-6)
    long = ["word " * 200, "short"]
    assert elsewhere.count_truncated(long) == here.count_truncated(long) == 1
    assert elsewhere.encode_pixels([]).shape == (0, here.dimension)


def test_batches_that_are_under_way_together_get_their_own_answers() -> None:
    exact = Manifest(encoder=str(tiny_clip_dir()), precision="float32")
    elsewhere = EncoderProcess("x.shelf", exact)
    asked = pictures(24)
    batches: list[list[Any]] = [asked[i : i + 1 + i % 3] for i in range(24)]
    alone = [elsewhere.encode_images(batch) for batch in batches]
    words = [elsewhere.encode_texts([text]) for text in TEXTS[:24]]
    firsts = np.stack([rows[0] for rows in (*alone, *words)])
    apart = np.abs(firsts[:, None] - firsts).max(axis=2)[~np.eye(len(firsts), dtype=bool)]
    assert apart.min() > 1e-3
    with ThreadPoolExecutor(8) as pool:
        seen = pool.map(elsewhere.encode_images, batches)
        read = pool.map(lambda text: elsewhere.encode_texts([text]), TEXTS[:24])
        for found, expected in zip([*seen, *read], [*alone, *words], strict=True):
            assert np.allclose(found, expected, atol=1e-5)
    elsewhere.close()


def test_pictures_of_many_threads_are_encoded_together(sample: Path) -> None:
    sizes: list[int] = []
    elsewhere = EncoderProcess(sample, read_manifest(sample), largest=5, on_batch=sizes.append)
    here, asked = load_encoder_of(sample, read_manifest(sample)), pictures(32)
    with ThreadPoolExecutor(16) as pool:
        alone = list(pool.map(lambda picture: elsewhere.encode_images([picture])[0], asked))
    assert np.sum(np.stack(alone) * here.encode_images(asked), axis=1).min() > 0.9999
    assert sum(sizes) == 32
    assert 1 < max(sizes) <= 5
    whole = elsewhere.encode_images(asked)  # one request's, more than a batch takes
    assert np.sum(whole * np.stack(alone), axis=1).min() > 0.9999
    assert sum(sizes) == 64
    elsewhere.close()


def test_pictures_that_it_takes_to_its_grave_are_asked_for_once_more(
    elsewhere: EncoderProcess,
) -> None:
    asked = pictures(4)
    before, pid = elsewhere.encode_images(asked), elsewhere.pid
    os.kill(pid, signal.SIGSTOP)  # it is asked, and then it dies
    threading.Timer(0.3, os.kill, (pid, signal.SIGKILL)).start()
    assert np.sum(elsewhere.encode_images(asked) * before, axis=1).min() > 0.9999
    assert elsewhere.pid != pid


def test_one_that_hangs_is_killed_and_its_questions_are_asked_of_another(sample: Path) -> None:
    elsewhere = EncoderProcess(sample, read_manifest(sample), seconds=10)
    before, pid = elsewhere.encode_texts(TEXTS[:3]), elsewhere.pid
    os.kill(pid, signal.SIGSTOP)
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda text: elsewhere.encode_texts([text])[0], TEXTS[:3]))
    assert np.allclose(found, before, atol=1e-6)
    assert gone(pid)
    elsewhere.close()


def test_one_that_hangs_while_it_is_sent_more_than_a_pipe_holds_is_killed_too(
    sample: Path,
) -> None:
    elsewhere = EncoderProcess(sample, read_manifest(sample), seconds=15)
    (picture,) = pictures(1)
    many = [elsewhere.preprocess(picture)] * 200
    assert sum(pixels.nbytes for pixels in many) > 2 * encoding._PIPE
    os.kill(elsewhere.pid, signal.SIGSTOP)
    found: list[int] = []
    asking = threading.Thread(
        target=lambda: found.append(len(elsewhere.encode_pixels(many))), daemon=True
    )
    asking.start()
    asking.join(240)
    assert found == [200]
    elsewhere.close()


def test_closing_does_not_wait_for_one_that_hangs(
    sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "_END_SECONDS", 1.0)
    elsewhere = EncoderProcess(sample, read_manifest(sample), seconds=1000)
    (picture,) = pictures(1)
    many = [elsewhere.preprocess(picture)] * 200
    os.kill(elsewhere.pid, signal.SIGSTOP)
    errors: list[BaseException] = []

    def ask() -> None:
        try:
            elsewhere.encode_pixels(many)
        except ShuttingDown as error:
            errors.append(error)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    time.sleep(1)  # then its pipe is full, and the rest waits to be sent
    assert elsewhere._process._lock.locked()
    closing = threading.Thread(target=elsewhere.close, daemon=True)
    closing.start()
    closing.join(30)
    asking.join(30)
    assert not closing.is_alive()
    assert len(errors) == 1


def test_after_its_death_the_next_question_is_answered(elsewhere: EncoderProcess) -> None:
    before, pid = elsewhere.encode_texts(TEXTS[:3]), elsewhere.pid
    os.kill(pid, signal.SIGKILL)
    until(lambda: gone(pid))
    assert np.allclose(elsewhere.encode_texts(TEXTS[:3]), before, atol=1e-6)
    assert elsewhere.pid != pid


def test_questions_that_it_takes_to_its_grave_are_asked_once_more(
    elsewhere: EncoderProcess,
) -> None:
    before, pid = elsewhere.encode_texts(TEXTS[:4]), elsewhere.pid
    os.kill(pid, signal.SIGSTOP)  # it is asked, and then it dies
    threading.Timer(0.3, os.kill, (pid, signal.SIGKILL)).start()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda text: elsewhere.encode_texts([text])[0], TEXTS[:4]))
    assert np.allclose(found, before, atol=1e-6)


def test_a_question_that_kills_it_twice_is_reported_so(
    elsewhere: EncoderProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = encoding._Process.ask

    def deadly(self: Any, *asked: Any) -> Any:
        os.kill(self.pid, signal.SIGKILL)
        return ask(self, *asked)

    with monkeypatch.context() as patch:
        patch.setattr(encoding._Process, "ask", deadly)
        with pytest.raises(EncoderUnavailable, match="twice"):
            elsewhere.encode_texts(TEXTS[:1])
    assert elsewhere.encode_texts(TEXTS[:1]).shape == (1, elsewhere.dimension)


def test_what_fails_in_it_fails_alone(elsewhere: EncoderProcess) -> None:
    pid = elsewhere.pid
    with pytest.raises(RuntimeError, match="process that encodes"):
        elsewhere.encode_pixels([np.zeros((3, 3, 3), np.uint8)])
    assert elsewhere.encode_texts(TEXTS[:1]).shape == (1, elsewhere.dimension)
    assert elsewhere.pid == pid


def test_an_encoder_that_cannot_be_had_has_the_error_that_it_has_here(tmp_path: Path) -> None:
    nowhere = Manifest(encoder=str(tmp_path / "nowhere"))
    with pytest.raises(EncoderUnavailable) as here:
        load_encoder_of("x.shelf", nowhere)
    with pytest.raises(EncoderUnavailable) as there:
        EncoderProcess("x.shelf", nowhere)
    assert str(there.value) == str(here.value)


@pytest.mark.parametrize("executable", ["false", "/no/such/python"])
def test_a_process_that_cannot_begin_is_reported(
    sample: Path, monkeypatch: pytest.MonkeyPatch, executable: str
) -> None:
    monkeypatch.setattr(sys, "executable", executable)
    with pytest.raises(EncoderUnavailable, match="ended while it loaded"):
        EncoderProcess(sample, read_manifest(sample))


def test_a_process_that_ended_before_it_was_asked_is_reported_too(
    sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = encoding._Process.load

    def late(self: Any, order: Any) -> Any:
        assert self._ended.wait(30)
        until(lambda: not self.takes)
        return load(self, order)

    monkeypatch.setattr(sys, "executable", "false")
    monkeypatch.setattr(encoding._Process, "load", late)
    with pytest.raises(EncoderUnavailable, match="ended while it loaded"):
        EncoderProcess(sample, read_manifest(sample))


def test_files_that_changed_meanwhile_are_another_encoder(elsewhere: EncoderProcess) -> None:
    elsewhere.fingerprint = "clip-of-before"
    os.kill(elsewhere.pid, signal.SIGKILL)
    until(lambda: gone(elsewhere.pid))
    with pytest.raises(EncoderMismatch):
        elsewhere.encode_texts(TEXTS[:1])


def test_one_that_rests_has_no_process_until_it_is_asked(elsewhere: EncoderProcess) -> None:
    pid = elsewhere.pid
    elsewhere.rest()
    until(lambda: gone(pid))
    with ThreadPoolExecutor(8) as pool:  # those that were about to ask when it was to rest
        found = list(pool.map(lambda text: elsewhere.encode_texts([text])[0], TEXTS))
    assert len(found) == len(TEXTS)
    last = elsewhere.pid
    until(lambda: gone(last))
    assert elsewhere.encode_texts(TEXTS[:1]).shape == (1, elsewhere.dimension)
    last = elsewhere.pid
    elsewhere.close()
    assert gone(last)
    with pytest.raises(ShuttingDown):
        elsewhere.encode_texts(TEXTS[:1])


def encoders_of(server: int) -> list[int]:
    """Ids of the processes that encode for a server."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            line = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if parent == server and b"encoding_process" in line:
            found.append(int(folder.name))
    return found


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_none_is_left_when_the_server_has_ended(
    sample: Path, tmp_path: Path, end: signal.Signals
) -> None:
    with process(copied(sample, tmp_path / "own.shelf")) as (url, server):
        for seed in range(3):
            asked = httpx.post(
                f"{url}/classify", files={"image": ("p.png", png(seed))}, timeout=240
            )
            assert asked.status_code == 200
        (child,) = encoders_of(server.pid)
        assert "libtorch" not in Path(f"/proc/{server.pid}/maps").read_text()
        server.send_signal(end)
        server.wait(40)
        until(lambda: gone(child), 10)


def test_a_server_answers_on_when_its_encoder_dies(sample: Path, tmp_path: Path) -> None:
    own = copied(sample, tmp_path / "own.shelf")
    with process(own) as (url, server), httpx.Client(base_url=url, timeout=240) as client:
        before = client.post("/similar", json={"text": "wooden train"}).json()["neighbours"]
        for _ in range(2):
            (child,) = encoders_of(server.pid)
            os.kill(child, signal.SIGKILL)
            after = client.post("/similar", json={"text": "wooden train"}).json()["neighbours"]
            assert [n["id"] for n in after] == [n["id"] for n in before]
    with Shelf.open(own) as opened:
        here = opened.similar(text="wooden train").neighbours
    assert [n.id for n in here] == [n["id"] for n in before]
