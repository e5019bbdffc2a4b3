"""The service behind every route: it holds the shelf, its encoder and probe, for all threads.

Each method blocks and may be called from any thread; a route writes
`await service.run(service.similar, query)`. What they answer are the library's own
dataclasses, whose `as_dict` is the CLI's JSON. They raise KinshelfError.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from kinshelf.db.errors import KinshelfError, ShelfLocked, ShelfPoisoned
from kinshelf.db.logs import tolerated
from kinshelf.db.product import pooled_by
from kinshelf.face import Shelf
from kinshelf.probe.predict.freshness import reported_facts
from kinshelf.probe.predict.predictor import Predictor
from kinshelf.serve.base.asker import ASKER
from kinshelf.serve.base.errors import TooBusy
from kinshelf.serve.service.executor import Running
from kinshelf.serve.service.jobs import Job, Jobs
from kinshelf.serve.service.metrics import Metrics
from kinshelf.serve.service.pictures import Pictures
from kinshelf.serve.workers.decoding import Decoders
from kinshelf.serve.workers.encoder import SharedEncoder
from kinshelf.serve.workers.encoding import EncoderProcess
from kinshelf.serve.workers.predicting import SharedPredictor
from kinshelf.store.ingest import queries
from kinshelf.store.ingest.categories import check_category
from kinshelf.store.ingest.edit import amend
from kinshelf.store.operation import operation

if TYPE_CHECKING:
    from kinshelf.db.product import Product, StoredProduct
    from kinshelf.probe.audit.audit import Audit
    from kinshelf.probe.evaluate.held_out import Evaluation
    from kinshelf.probe.fit.settings import ProbeSettings
    from kinshelf.probe.predict.prediction import Prediction
    from kinshelf.serve.base.settings import ServeSettings
    from kinshelf.store import AddReport, SearchResult
    from kinshelf.store.encode.encoder import Encoder
    from kinshelf.store.generation import AnySnapshot
    from kinshelf.store.query import Query

T = TypeVar("T")
_PREDICTORS = 8
_JUDGEMENTS = 8
_HANGS = 120.0
"""Seconds beyond the time that a request waits: an encoding process that answers nobody for so long
hangs. The first batch, or one of a large model on a slow machine, may outlast a request."""
_JUDGES = 4
"""Evaluations and audits that may wait; more would take the threads of quick requests."""


class Service:
    """One shelf, served. `encoder`: one that is loaded already, in place of the shelf's own."""

    def __init__(self, settings: ServeSettings, *, encoder: Encoder | None = None) -> None:
        self.settings = settings
        self.metrics = Metrics(self)
        self.jobs = Jobs()
        self.running = Running(settings)
        self.run = self.running.run
        self.decoders = Decoders(
            settings.decoders, seconds=settings.decode_seconds, memory=settings.decode_memory,
            pixels=settings.max_pixels,
        )  # fmt: skip
        self._given = encoder
        self._encoder: SharedEncoder | None = None
        self._loading, self._writing, self._judging = (threading.Lock() for _ in range(3))
        self._predicting = SharedPredictor(settings.max_batch)
        self._judges = threading.Semaphore(_JUDGES)
        # those that wait to write must leave threads to those that read
        self._writers = threading.Semaphore(max(1, settings.at_once // 2))
        self._predictors: OrderedDict[tuple[Any, ...], Predictor] = OrderedDict()
        self._judged: OrderedDict[tuple[Any, ...], Any] = OrderedDict()
        self.shelf = self._open()
        self.pictures = Pictures(settings, self.decoders)

    def _open(self) -> Shelf:
        return Shelf.open(self.settings.shelf, wait=self.settings.lock_wait)

    # ---- reading

    def snapshot(self, at: int | None = None) -> AnySnapshot:
        """The newest generation, whoever committed it, or generation `at`."""
        return self.shelf.snapshot(at)

    def encoder(self) -> SharedEncoder:
        """The shelf's encoder, loaded at first use, and anew when the shelf changed to another."""
        with self._loading:
            now = self.shelf.snapshot().fingerprint
            if self._encoder is None or not self._fits(self._encoder, now):
                self._encoder = self._load()
            return self._encoder

    def _declared(self) -> str | None:
        """The fingerprint of a shelf that has not used an encoder yet: any may be its first."""
        return self.shelf.fingerprint if self.shelf.manifest.fingerprint is None else None

    def _load(self) -> SharedEncoder:
        largest, counted = self.settings.max_batch, self.metrics.encoded
        inner = self._given or EncoderProcess(
            self.shelf.path, self.shelf.manifest, largest=largest,
            seconds=self.settings.request_seconds + _HANGS, on_batch=partial(counted, "image"),
        )  # fmt: skip
        shared = SharedEncoder(inner, self.decoders, largest=largest, on_batch=counted)
        try:
            self.shelf.use_encoder(shared)
        except KinshelfError:
            shared.close()
            raise
        if self._encoder is not None:
            self._encoder.rest()
        return shared

    def product(self, product_id: str, at: int | None = None) -> StoredProduct:
        """Raises ProductNotFound."""
        return self.snapshot(at).get(product_id)

    def predictor(self, probe: int | None = None, k: int | None = None) -> Predictor:
        """The newest generation with its newest probe, or one of a version."""
        key = (self.snapshot().generation, probe, k)
        found = self._predictors.get(key) or Predictor.for_shelf(self.shelf, probe=probe, k=k)
        return _remember(self._predictors, key, found, _PREDICTORS)

    def classify(self, query: Query, probe: int | None = None) -> Prediction:
        """See `kinshelf.probe.classify`; a picture as bytes, of the newest generation."""
        if query.id is not None:
            predictor = self.predictor(probe, query.k)
            pairs = predictor.snapshot.pairs([predictor.snapshot.get(query.id).row])
            return self._predicting.predict(predictor, pairs, query.where, query.id)
        while True:
            encoder = self.encoder()
            pairs = queries.embed(self.shelf, query)
            predictor = self.predictor(probe, query.k)
            if self._fits(encoder, predictor.snapshot.fingerprint):
                return self._predicting.predict(predictor, pairs, query.where)

    def similar(self, query: Query) -> SearchResult:
        """See `Shelf.similar`; a picture as bytes."""
        if query.is_stored:
            return self.shelf.similar(query)
        while True:
            encoder = self.encoder()
            found = self.shelf.similar(query)
            if self._fits(encoder, found.fingerprint):
                return found

    def _fits(self, encoder: SharedEncoder, fingerprint: str) -> bool:
        """Whether what answers was embedded by it; not if `kinshelf reembed` came between."""
        pictures = self.shelf.manifest.pictures
        return fingerprint in (pooled_by(encoder.fingerprint, pictures), self._declared())

    def info(self, at: int | None = None) -> dict[str, Any]:
        """As `kinshelf info --json`."""
        return self.shelf.info(at) | reported_facts(self.shelf, at)[0]

    def evaluate(self, split: str = "val", probe: int | None = None) -> Evaluation:
        """Remembered while the shelf stays as it is; one at a time."""
        from kinshelf.probe.evaluate.held_out import evaluate_shelf

        def judge() -> Evaluation:
            return evaluate_shelf(self.shelf, split=split, version=probe)

        return self._judge(("evaluate", split, probe), judge)

    def audit(self, *, novel: bool = False) -> Audit:
        """Remembered while the shelf stays as it is; one at a time."""
        from kinshelf.probe.audit.audit import audit_shelf

        return self._judge(("audit", novel), lambda: audit_shelf(self.shelf, novel=novel))

    def _judge(self, what: tuple[Any, ...], judge: Callable[[], T]) -> T:
        if not self._judges.acquire(blocking=False):
            raise TooBusy("others wait for an evaluation or audit already: ask again soon")
        try:
            return self._judge_next(what, judge)
        finally:
            self._judges.release()

    def _judge_next(self, what: tuple[Any, ...], judge: Callable[[], T]) -> T:
        with self._judging:
            key = (self.snapshot().generation, *what)
            found: T = self._judged[key] if key in self._judged else judge()
            return _remember(self._judged, key, found, _JUDGEMENTS)

    def thumbnail(self, product_id: str, side: int = 160) -> bytes:
        """A JPEG of a product's picture. Raises ProductNotFound or ImageRejected."""
        product = self.product(product_id).product
        return self.pictures.thumbnail(product.image, side)

    # ---- writing

    def write(self, work: Callable[[Shelf], T]) -> T:
        """Run `work`, which changes the shelf; requests take turns, and wait for other processes a
        while.

        Raises ShelfLocked, which names the holder. A handle that a failed write made unusable is
        replaced at the next write.
        """
        if not self._writers.acquire(blocking=False):
            raise TooBusy("others wait to write already: ask again soon")
        try:
            return self._write_next(work)
        finally:
            self._writers.release()

    def _write_next(self, work: Callable[[Shelf], T]) -> T:
        if not self._writing.acquire(timeout=self.settings.lock_wait):
            raise ShelfLocked("another request is writing to the shelf; try again when it is done")
        try:
            with operation(ASKER.get()):
                return self._work(work)
        finally:
            self._writing.release()

    def _work(self, work: Callable[[Shelf], T]) -> T:
        try:
            return work(self.shelf)
        except ShelfPoisoned:
            self._reopen()
            return work(self.shelf)

    def _reopen(self) -> None:
        fresh = self._open()
        if self._encoder is not None:
            fresh.use_encoder(self._encoder)
        self.shelf = fresh

    def add(self, products: Sequence[Product]) -> AddReport:
        """Insert or update by id, as `kinshelf add`."""
        self.encoder()
        return self.write(lambda shelf: shelf.upsert(products))

    def amend(
        self, product_id: str, changes: Mapping[str, Any], *, new_category: bool = True
    ) -> StoredProduct:
        """Change some fields of a product; see `store.ingest.edit.amend`.

        Raises UnknownCategory for a category that no product has, unless `new_category`.
        """

        def change(shelf: Shelf) -> None:
            with shelf.writing():
                if changes.get("category") and not new_category:
                    check_category(shelf, changes["category"])
                amend(shelf, product_id, changes)

        if {"title", "description", "image"} & set(changes):
            self.encoder()
        self.write(change)
        return self.product(product_id)

    def relabel(self, changes: Mapping[str, str | None]) -> int:
        """See `Shelf.relabel`."""
        return self.write(lambda shelf: shelf.relabel(changes))

    def remove(self, ids: Sequence[str]) -> int:
        """See `Shelf.remove`."""
        return self.write(lambda shelf: shelf.remove(ids))

    def train(self, settings: ProbeSettings | None = None, *, warm_start: bool = False) -> Job:
        """Begin to train a probe; its job's result is as `kinshelf train --json`."""
        from kinshelf.serve.service.training import training

        return self.jobs.start(
            "train", training(lambda: self.shelf, settings, warm_start=warm_start)
        )

    def fill(
        self, where: str | None, probe: int | None, *, apply: bool, include_predicted: bool
    ) -> Job:
        """Begin to classify products on the shelf; see `StoredAnswers.run`."""
        from kinshelf.probe.fill.answers import classify_stored
        from kinshelf.serve.service.training import filling

        answers = classify_stored(
            self.shelf, where, probe=probe, include_predicted=include_predicted
        )
        answers.check(apply=apply)
        return self.jobs.start("classify", filling(answers, self.write, apply=apply))

    # ---- the end

    def begin(self) -> None:
        """Load in the background what the first requests would wait for."""
        threading.Thread(target=self._warm, name="kinshelf-warm", daemon=True).start()

    def _warm(self) -> None:
        self.decoders.begin()
        with tolerated(KinshelfError, OSError, room="serve", then="questions wait for an encoder"):
            self.encoder()

    def drain(self) -> None:
        """Begin nothing more; what is under way goes on."""
        self.running.drain()
        self.jobs.end()

    def close(self) -> None:
        """Wait for what is under way, and let go of everything."""
        self.drain()
        self.jobs.close()
        self.running.close()
        if self._encoder is not None:
            self._encoder.close()
        self._predicting.close()
        self.decoders.close()
        self.pictures.close()
        self.shelf.close()


def _remember(kept: OrderedDict[tuple[Any, ...], Any], key: tuple[Any, ...], value: T, n: int) -> T:
    kept[key] = value
    while len(kept) > n:
        kept.popitem(last=False)
    return value
