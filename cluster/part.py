"""Encode one task into one part: read its pictures, encode everything, write it once.

The same code runs in a plain process and in every worker. What is encoded together follows from
the task alone, never from what came before it: so the same task gives the same bits anywhere that
the arithmetic is the same.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from kinshelf.cluster.parts import PartCounts, part_bytes, write_once
from kinshelf.cluster.remote import read_any, scheme_of
from kinshelf.cluster.tasks import batch_of
from kinshelf.db.errors import EncoderMismatch
from kinshelf.db.images.decode import limits
from kinshelf.db.product import FIRST
from kinshelf.store.encode.canary import check_canary
from kinshelf.store.encode.encoder import load_encoder
from kinshelf.store.ingest.add import open_downloader
from kinshelf.store.ingest.batch_encoder import BatchEncoder
from kinshelf.store.ingest.candidate import Candidate, candidates
from kinshelf.store.ingest.pictures import Preprocessor
from kinshelf.store.ingest.several import attach, named
from kinshelf.store.results import AddReport

if TYPE_CHECKING:
    from kinshelf.db.product import Reject
    from kinshelf.db.sources.readers import ReadBatch
    from kinshelf.store.encode.encoder import Encoder

Counted = Callable[[int], None]
GROUP = 256
"""Products encoded together: enough for texts of one length to meet, and to keep a GPU busy."""


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """An encoder as every worker must have it. `canary` see store/encode/canary.py; `limits` of
    pictures see `db.images.decode.limits`."""

    name: str
    revision: str | None
    precision: str
    fingerprint: str
    canary: dict[str, str] | None
    allow_private_hosts: bool = False
    pictures: str = FIRST
    device: str | None = None
    limits: dict[str, int] = field(default_factory=dict)

    def dump(self) -> str:
        """Serialise to the JSON that `read` takes."""
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, text: str) -> Self:
        """The spec that `dump` wrote."""
        return cls(**json.loads(text))

    def load(self) -> Encoder:
        """The encoder. Raises EncoderUnavailable, or EncoderMismatch if this machine's differs."""
        encoder = load_encoder(
            self.name, revision=self.revision, device=self.device, precision=self.precision,
            steady=True,
        )  # fmt: skip
        if encoder.fingerprint != self.fingerprint:
            raise EncoderMismatch(
                f"{self.name} is {encoder.fingerprint} here but {self.fingerprint} where the"
                " encoding was begun: give every machine the same files of the model"
            )
        if self.canary is not None:
            check_canary(encoder, self.canary, Path("this encoding"))
        return encoder


class PartEncoder:
    """Encodes tasks one after the other, with one encoder. Raises what `EncoderSpec.load` does."""

    def __init__(self, spec: EncoderSpec) -> None:
        self._spec = spec
        self._encoder = spec.load()

    def write(self, data: bytes, path: Path, done: Counted = lambda _rows: None) -> PartCounts:
        """Encode a task's `data` and put the part at `path`; `done` hears of rows as they are."""
        batch = batch_of(data)
        encoded = self._encode(batch, done)
        kept = [c for c in encoded if not (c.reject and not c.reject.kept)]
        rejects = [*batch.rejects, *(c.reject for c in encoded if c.reject)]
        counts = PartCounts(
            path.name,
            rows=len(batch.products) + sum(not r.kept for r in batch.rejects),
            products=len(kept),
            image_failed=sum(c.image_error is not None for c in kept),
        )
        rejects.sort(key=_position)
        write_once(path, part_bytes(kept, counts, self._spec.fingerprint, rejects))
        return counts

    def _encode(self, batch: ReadBatch, done: Counted) -> list[Candidate]:
        found = candidates(batch)
        with ExitStack() as stack:
            stack.enter_context(_threads_given_back())
            stack.enter_context(limits(**self._spec.limits))
            # Its own for each task: what it remembers of others must not decide a bit.
            preprocessor = Preprocessor(self._encoder)
            stack.callback(preprocessor.close)
            encoder = BatchEncoder(self._encoder, preprocessor, AddReport())
            pictures = _Pictures(self._spec, found, stack)
            for group in _ahead(_groups(found), pictures, encoder, stack):
                encoder.run(group, _nothing_stored)
                done(len(group))
        return found


@contextmanager
def _threads_given_back() -> Iterator[None]:
    """A steady encoder leaves torch at one thread; whoever comes after has its own again."""
    import torch

    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _position(reject: Reject) -> int:
    return reject.position


def _nothing_stored(_rows: list[int]) -> Any:
    raise AssertionError("a new product has no row")


def _groups(found: list[Candidate]) -> list[list[Candidate]]:
    return [found[i : i + GROUP] for i in range(0, len(found), GROUP)]


class _Pictures:
    """Reads the pictures of candidates; what is downloaded is gone when the task is done."""

    def __init__(self, spec: EncoderSpec, found: list[Candidate], stack: ExitStack) -> None:
        self._downloader = None
        self._pooling = spec.pictures
        if any(scheme_of(name) for c in found for name in named(c.product, spec.pictures)):
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="kinshelf-"))
            self._downloader = stack.enter_context(
                open_downloader(Path(folder), allow_private_hosts=spec.allow_private_hosts)
            )

    def attach(self, group: list[Candidate]) -> None:
        attach(group, self._pooling, lambda names: read_any(names, self._downloader))


def _ahead(
    groups: list[list[Candidate]], pictures: _Pictures, encoder: BatchEncoder, stack: ExitStack
) -> Iterator[list[Candidate]]:
    """Each group with its pictures, those of the next being read and decoded meanwhile."""

    def stage(group: list[Candidate]) -> list[Candidate]:
        pictures.attach(group)
        encoder.begin(group)
        return group

    pool = stack.enter_context(ThreadPoolExecutor(1, "kinshelf-stage"))
    waiting = [pool.submit(stage, group) for group in groups[:1]]
    for following in [*groups[1:], None]:
        if not waiting:
            return
        ready = waiting.pop().result()
        if following is not None:
            waiting.append(pool.submit(stage, following))
        yield ready
