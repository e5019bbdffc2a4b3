"""From a source to committed generations: one batch, one commit.

Per batch: compare with what the shelf holds, read pictures, encode what is new, commit. A row
whose content did not change is not encoded again; an interruption loses at most the batch that
was under way, and running the same `add` again goes on after it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kinshelf.db.errors import (
    DuplicateId,
    InputError,
    KinshelfError,
)
from kinshelf.db.formats.source import MAX_COLUMNS
from kinshelf.db.product import Product, Reject
from kinshelf.store.ingest.batch_encoder import BatchEncoder
from kinshelf.store.ingest.candidate import (
    Candidate,
    bring,
    candidates,
    carry_over,
    carry_picture,
    keep_picture,
    pairs_of,
    reject,
    width_of,
)
from kinshelf.store.ingest.merge import REVIEW, changed_fields, decide, merged
from kinshelf.store.ingest.picture_vectors import PictureVectors
from kinshelf.store.ingest.pictures import Preprocessor, is_url, read_pictures
from kinshelf.store.ingest.several import attach, named
from kinshelf.store.ingest.unchanged import (
    CONTENT,
    changed_among,
    keeps_picture,
    may_be_read_now,
    only_moved,
    same_content,
    with_content,
)
from kinshelf.store.log import records
from kinshelf.store.results import AddOptions, AddReport
from kinshelf.store.search import fusion

if TYPE_CHECKING:
    from kinshelf.db.catalog.records import Body, Counts, Head, RejectRecord
    from kinshelf.db.images.download import Downloader
    from kinshelf.db.product import StoredProduct
    from kinshelf.db.sources.prepare import Preparation
    from kinshelf.db.sources.readers import ReadBatch
    from kinshelf.store.base import AnyShelf

Progress = Callable[[int, AddReport], None]
_Rejected = tuple[Reject, Product | None]

ENCODED_BATCH = 64
"""Products a commit when they are encoded here: a few seconds of work on two cores."""
SUPPLIED_BATCH = 4096


@dataclass(slots=True)
class Ingest:
    """The state of one `add`: its options, its results so far, and a request to stop."""

    shelf: AnyShelf
    options: AddOptions
    downloader: Downloader | None = None
    retry: bool = False
    stop: Callable[[], bool] = lambda: False
    progress: Progress = lambda _done, _report: None
    report: AddReport = field(default_factory=AddReport)
    command: str = "add"
    by_person: bool = False
    prepared: Preparation | None = None
    _done: int = 0
    _preprocessor: Preprocessor | None = None
    _vectors: PictureVectors | None = None

    def run(self, batches: Iterable[ReadBatch]) -> AddReport:
        """Take in every batch; the report counts each row once."""
        started, since = time.monotonic(), self.shelf.generation
        try:
            for staged in self._staged(batches):
                self._finish(staged)
                self.progress(self._done, self.report)
                if self.stop():
                    self.report.interrupted = True
                    break
        finally:
            if self._preprocessor:
                self._preprocessor.close()
        self.shelf.keep_up(since, self.report.inserted + self.report.updated)
        self.report.seconds = time.monotonic() - started
        self.report.generation = self.shelf.generation
        return self.report

    def _staged(self, batches: Iterable[ReadBatch]) -> Iterator[_Staged]:
        """One batch late: its pictures are decoded while the one before it is encoded."""
        waiting: _Staged | None = None
        try:
            for batch in batches:
                following = self._stage(batch)
                if waiting:
                    yield waiting
                waiting = following
        except KinshelfError:
            if waiting:
                yield waiting  # what came before the trouble is taken in
            raise
        if waiting:
            yield waiting

    def _stage(self, batch: ReadBatch) -> _Staged:
        found = candidates(batch)
        self._meet(found)
        staged = _Staged(batch, found, self._not_skipped(found))
        staged.passed = [] if len(staged.wanted) == len(found) else [c for c in found if c.old]
        self._merge(staged.wanted)
        if self.prepared:
            for candidate in staged.wanted:
                self.prepared.count(candidate.product)
        if not _brings(batch):
            staged.wanted = with_content(staged.wanted)
            carried = self._carried(staged.wanted)
            staged.changed = carried + self._pictured([c for c in staged.wanted if not c.carried])
            staged.changed.sort(key=lambda c: c.position)
            if any(c.picture for c in staged.changed):
                self._encoder().begin(staged.changed)
        return staged

    def _finish(self, staged: _Staged) -> None:
        batch, found, wanted = staged.batch, staged.found, staged.wanted
        changed, lacking = staged.changed, 0
        if _brings(batch):
            changed = self._bring(wanted, found, batch)
            lacking = sum(c.reject is not None for c in wanted)
        elif fresh := [c for c in changed if not c.carried]:
            self._encoder().run(fresh, lambda rows: self.shelf.snapshot().pairs(rows))
            changed = [c for c in changed if not (may_be_read_now(c) and c.image_error)]
        self.report.skipped += len(staged.passed)
        self.report.unchanged += len(wanted) - len(changed) - lacking
        rejects: list[_Rejected] = [(r, None) for r in batch.rejects]
        rejects += [
            (c.reject, c.product) for c in found if c.reject and not (staged.passed and c.old)
        ]
        self._commit([c for c in changed if not (c.reject and not c.reject.kept)], rejects, found)
        self._done += len(batch.products) + sum(not r.kept for r in batch.rejects)

    def _meet(self, found: list[Candidate]) -> None:
        known = self.shelf.known([c.product.id for c in found])
        for candidate in found:
            candidate.old = known.get(candidate.product.id)

    def _not_skipped(self, found: list[Candidate]) -> list[Candidate]:
        if self.options.on_conflict == "update":
            return found
        met = [c for c in found if c.old]
        if met and self.options.on_conflict == "error":
            raise DuplicateId(
                f"id {met[0].product.id!r} (data row {met[0].position}) is in the shelf already:"
                " use --on-conflict update or skip, or remove it first"
            )
        return [c for c in found if not c.old]

    def _merge(self, wanted: list[Candidate]) -> None:
        """What the row lacks, and what a person decided, stays as the shelf has it."""
        for c in wanted:
            if c.old is None:
                continue
            if self.by_person:
                c.decided = decide(c.old, c.product)
                continue
            if self.retry and c.product == c.old.product:
                c.decided = c.old.decided
                continue
            if self.prepared and c.old.product.split:  # it is decided once
                self.prepared.splits_kept += c.product.split != c.old.product.split
                c.product = c.product.replace(split=c.old.product.split)
            c.product, c.decided, c.kept = merged(c.old, c.product, c.row_fields)
            self.report.decisions_kept += len(c.kept)
            self.report.disputed += any("disputed" in d for d in c.decided.values())

    def _carried(self, wanted: list[Candidate]) -> list[Candidate]:
        """Those that change in nothing that is encoded, with what was computed of them before."""
        found = [c for c in wanted if same_content(c)]
        if found:
            pairs = self.shelf.snapshot().pairs([c.old.row for c in found if c.old])
            for candidate, pair in zip(found, pairs, strict=True):
                carry_over(candidate, pair)
                candidate.carried = True
        return changed_among(found)

    # ---- embeddings that the user brings

    def _bring(
        self, wanted: list[Candidate], found: list[Candidate], batch: ReadBatch
    ) -> list[Candidate]:
        if found:
            self.shelf.fit_dimension(width_of(batch))
        self._keep_halves(wanted, batch)
        bring(found, batch)
        self._keep_decided_halves(wanted)
        for c in wanted:
            c.content_hash = records.content_hash(
                c.product, None, c.image, c.text, decided=c.decided
            )
        return changed_among([c for c in wanted if not c.reject])

    def _keep_halves(self, wanted: list[Candidate], batch: ReadBatch) -> None:
        """Where a batch brings one half alone, the shelf's other one stays."""
        known = [(c, c.old) for c in wanted if c.old]
        given = batch.image_embeddings is not None, batch.text_embeddings is not None
        if all(given) or not known:
            return
        image, text = fusion.split(self.shelf.snapshot().pairs([old.row for _, old in known]))
        for i, (candidate, old) in enumerate(known):
            candidate.image = image[i] if old.has_image and not given[0] else None
            candidate.text = text[i] if old.has_text and not given[1] else None

    def _keep_decided_halves(self, wanted: list[Candidate]) -> None:
        """Where a person's title or picture is kept, so is the half that is of it."""
        known = [(c, c.old) for c in wanted if c.old and CONTENT & set(c.kept)]
        if not known:
            return
        image, text = fusion.split(self.shelf.snapshot().pairs([old.row for _, old in known]))
        for i, (candidate, old) in enumerate(known):
            if "image" in candidate.kept:
                candidate.image = image[i] if old.has_image else None
            if {"title", "description"} & set(candidate.kept):
                candidate.text = text[i] if old.has_text else None

    # ---- embeddings from the shelf's encoder

    def _pictured(self, wanted: list[Candidate]) -> list[Candidate]:
        """Those whose content is new, with their pictures' bytes."""
        fresh = [c for c in wanted if not self._failed_before(c)]
        again = {n: c for c in fresh if self._is_to_refresh(c) for n in self._named(c)}
        attach(
            [c for c in fresh if not keeps_picture(c)],
            self.shelf.manifest.pictures,
            lambda names: read_pictures(names, self.downloader, again.keys()),
        )
        self._note_stale(again)
        for candidate in fresh:
            error = candidate.picture.error if candidate.picture else None
            if error and only_moved(candidate, error):
                self.report.note(keep_picture(candidate, error))
            elif keeps_picture(candidate):
                carry_picture(candidate)
            if candidate.old and candidate.old.image_hash not in (None, candidate.image_hash):
                candidate.decided.pop(REVIEW, None)
            candidate.content_hash = records.content_hash(
                candidate.product, candidate.image_hash, decided=candidate.decided
            )
        return changed_among(fresh) + (
            [c for c in fresh if may_be_read_now(c)] if self.retry else []
        )

    def _named(self, candidate: Candidate) -> list[str]:
        return named(candidate.product, self.shelf.manifest.pictures)

    def _is_to_refresh(self, candidate: Candidate) -> bool:
        """Whether to ask its picture's server for another version than the cached one."""
        product, old = candidate.product, candidate.old
        if not (product.image or "").startswith(("http://", "https://")):
            return False
        if keeps_picture(candidate):
            return False
        if self.options.refresh_images is not None:
            return self.options.refresh_images
        return old is None or old.content_hash != records.content_hash(
            product, old.image_hash, decided=candidate.decided
        )

    def _note_stale(self, asked: dict[str, Candidate]) -> None:
        stale = self.downloader.stale if self.downloader else {}
        for url in [url for url in stale if url in asked]:
            message = f"{stale.pop(url)}; the picture that was fetched before is kept"
            self.report.note(reject(asked[url], "image-kept", message, kept=True))

    def _encoder(self) -> BatchEncoder:
        if self._preprocessor is None:
            self._preprocessor = Preprocessor(self.shelf.writing_encoder())
            self._vectors = PictureVectors(self.shelf.path, self.shelf.manifest)
        return BatchEncoder(
            self.shelf.writing_encoder(), self._preprocessor, self.report, self._vectors
        )

    def _failed_before(self, candidate: Candidate) -> bool:
        """A picture from the network that failed is fetched again only when asked to."""
        old, product = candidate.old, candidate.product
        if self.retry or old is None or not product.image:
            return False
        if old.image_error is None:
            return self._has_same_links(candidate, old)
        same = records.content_hash(product, None, decided=candidate.decided)
        return is_url(product.image) and old.content_hash == same

    def _has_same_links(self, candidate: Candidate, old: StoredProduct) -> bool:
        """Whether all of its several pictures are at URLs that are kept, or failed before."""
        names = self._named(candidate)
        same = (candidate.product, candidate.decided) == (old.product, old.decided)
        remote = len(names) > 1 and all(map(is_url, names))
        return remote and same and not self.options.refresh_images

    # ---- the commit

    def _commit(
        self, changed: list[Candidate], rejects: list[_Rejected], read: list[Candidate]
    ) -> None:
        for entry, _ in rejects:
            self.report.note(entry)
        entries = [records.reject_record(*entry) for entry in rejects]
        again = {entry["key"] for entry in entries}
        known = self.shelf.open_rejects()
        new = [entry for entry in entries if entry["key"] not in known]
        settled = [known.of(c.product.id) for c in changed if not (c.image_error or c.carried)]
        settled += [known.of_row(c.product.id, c.source, c.position) for c in read if not c.reject]
        resolved = list({key: None for keys in settled for key in keys if key not in again})
        if changed or new or resolved:
            self._write(changed, new, resolved)

    def _write(
        self, changed: list[Candidate], rejects: list[RejectRecord], resolved: list[str]
    ) -> None:
        inserted = sum(c.old is None for c in changed)
        counts: Counts = {
            "inserted": inserted,
            "updated": len(changed) - inserted,
            "rejected": sum(not r["kept"] for r in rejects),
        }
        head: Head = {"kind": "add", "command": self.command, "counts": counts}
        if replaced := [c.old.row for c in changed if c.old]:
            head["removed"] = replaced
        body: Body = {"rejects": rejects, "resolved": resolved}
        vectors = None
        if changed:
            vectors = pairs_of(changed, self.shelf.dimension)
            head["attributes"] = records.attribute_types(changed)
            self._check_names(head["attributes"])
            body["products"] = records.columns(changed, self.shelf.next_row)
        self.shelf.commit(head, body, vectors)
        self.report.inserted += inserted
        self.report.updated += len(changed) - inserted
        for c in changed:
            if c.old:
                self.report.fields.update(changed_fields(c.old.product, c.product))
        self.report.image_failed += sum(
            c.image_error is not None and not (c.carried or keeps_picture(c)) for c in changed
        )

    def _check_names(self, new: Collection[str]) -> None:
        """Raises InputError where a shelf would have more attribute names than it can list."""
        if not new:
            return
        known = self.shelf.snapshot().view.attribute_types()
        if len(known) + len(new) > MAX_COLUMNS and len(known.keys() | set(new)) > MAX_COLUMNS:
            raise InputError(
                f"a shelf has at most {MAX_COLUMNS:,} attribute names, and these products bring"
                " more: leave out some columns, or put names and values into one as JSON text"
            )


@dataclass(slots=True)
class _Staged:
    """A batch on its way: all its products, those not skipped, and of these the changed ones."""

    batch: ReadBatch
    found: list[Candidate]
    wanted: list[Candidate]
    changed: list[Candidate] = field(default_factory=list)
    passed: list[Candidate] = field(default_factory=list)


def _brings(batch: ReadBatch) -> bool:
    return batch.image_embeddings is not None or batch.text_embeddings is not None
