"""`copy`: one shelf as it is now, in another place, whatever both lie on.

Each block of products is compared with what the target holds, so that a copy which was cut short,
or is run again later, writes only what is missing. A probe is copied right after the products that
it could know, so that it still tells later ones from those.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kinshelf.db.catalog.records import Body, Counts, Head
from kinshelf.db.errors import (
    CopyMismatch,
    EncoderMismatch,
    KinshelfError,
    ShelfExists,
    ShelfNotFound,
)
from kinshelf.store.engines.open import create_like, open_shelf
from kinshelf.store.generation import BLOCK, ProductBlock
from kinshelf.store.ingest.edit import candidate_of
from kinshelf.store.log import records
from kinshelf.store.log.manifest import Manifest
from kinshelf.store.probes import FACTS_FILE, find_probe, list_probes, save_probe
from kinshelf.store.results import ProbeEntry

if TYPE_CHECKING:
    from kinshelf.store.base import AnyShelf
    from kinshelf.store.generation import AnySnapshot

KIND = "copy"
COMPARED = 1000
"""Products that are compared to the bit at the end."""


@dataclass(slots=True)
class CopyReport:
    """The result of a copy. `copied` products were written, `unchanged` were there, `removed` are
    no longer in the source; `products` are in both, `compared` of them were compared to the bit."""

    source: str
    target: str
    products: int = 0
    copied: int = 0
    unchanged: int = 0
    removed: int = 0
    probes: int = 0
    compared: int = 0
    generation: int = 0
    seconds: float = 0.0
    interrupted: bool = False
    warnings: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def open_target(address: Path | str, source: AnyShelf, *, wait: float = 0.0) -> AnyShelf:
    """The shelf to copy to, made for the source's encoder if there is none.

    Raises EncoderMismatch if it is of another encoder, ShelfExists if it has products that came
    from elsewhere than from a copy.
    """
    try:
        target = open_shelf(address, wait=wait)
    except ShelfNotFound:
        canary = source.manifest.canary
        create_like(address, Manifest(**source.manifest.identity(), canary=canary)).close()
        target = open_shelf(address, wait=wait)
    try:
        _check_target(source, target)
    except BaseException:
        target.close()
        raise
    return target


def _check_target(source: AnyShelf, target: AnyShelf) -> None:
    if source.manifest.identity() != target.manifest.identity():
        raise EncoderMismatch(
            f"{source.name} holds embeddings of {source.manifest.encoder} ({source.fingerprint},"
            f" dimension {source.dimension}), {target.name} of {target.manifest.encoder}"
            f" ({target.fingerprint}, dimension {target.dimension}): copy to a new place"
        )
    others = {commit["kind"] for commit in target.history()} - {KIND}
    if others:
        raise ShelfExists(
            f"{target.name} was changed by more than copies ({', '.join(sorted(others))}): what is"
            " not in the source would be lost; copy to a new place"
        )


def copy_shelf(
    source: AnyShelf,
    target: AnyShelf,
    *,
    stop: Callable[[], bool] = lambda: False,
    progress: Callable[[int], None] = lambda _done: None,
) -> CopyReport:
    """Make the target hold what the source holds now, and compare both.

    `stop` is asked after each block; run again, it goes on. Raises CopyMismatch, naming the
    products, if the two differ at the end.
    """
    started = time.monotonic()
    report = CopyReport(source.name, target.name)
    now = source.snapshot()
    with target.writing():
        copying = _Copying(source, now, target, report)
        for step in copying.steps():
            copying.take(step)
            progress(report.copied + report.unchanged)
            if stop():
                report.interrupted = True
                break
        else:
            copying.remove_others()
            copying.copy_rejects()
    report.generation = target.generation
    if not report.interrupted:
        _compare(now, target.snapshot(), report)
    report.seconds = time.monotonic() - started
    return report


@dataclass(frozen=True, slots=True)
class _Copying:
    source: AnyShelf
    now: AnySnapshot
    target: AnyShelf
    report: CopyReport

    def steps(self) -> Iterator[ProductBlock | tuple[ProbeEntry, dict[str, Any]]]:
        """Products by row, each probe behind the last product that was there when it trained."""
        waiting = self._probes()
        for block in self.now.iter_products(size=BLOCK):
            start = 0
            for i, stored in enumerate(block.products):
                while waiting and stored.added > waiting[0][1]["generation"]:
                    yield _part(block, start, i)
                    yield waiting.pop(0)
                    start = i
            yield _part(block, start, len(block.products))
        yield from waiting

    def _probes(self) -> list[tuple[ProbeEntry, dict[str, Any]]]:
        """Those that came after the last one that the target has, oldest first."""
        found = []
        for entry in self._new_probes():
            try:
                whole = find_probe(self.source, self.now, entry.version)
                found.append((whole, json.loads((whole.path / FACTS_FILE).read_bytes())))
            except KinshelfError as error:
                self.report.warnings.append(f"probe {entry.version} is not copied: {error}")
        return found

    def _new_probes(self) -> list[ProbeEntry]:
        """By what they are, not how many: one that could not be read was passed over."""
        known = list_probes(self.source, self.now)
        theirs = [_mark(entry) for entry in list_probes(self.target, self.target.snapshot())]
        new = 0
        for place, entry in enumerate(known, 1):
            if theirs and _mark(entry) == theirs[0]:
                new, theirs = place, theirs[1:]
        return known[new:]

    def take(self, step: ProductBlock | tuple[ProbeEntry, dict[str, Any]]) -> None:
        """Copy one."""
        if isinstance(step, ProductBlock):
            self._products(step)
        else:
            self._probe(*step)

    def _products(self, block: ProductBlock) -> None:
        known = self.target.known([stored.product.id for stored in block.products])
        hashes = {name: stored.content_hash for name, stored in known.items()}
        new = [
            i for i, stored in enumerate(block.products)
            if hashes.get(stored.product.id) != stored.content_hash
        ]  # fmt: skip
        self.report.unchanged += len(block.products) - len(new)
        if not new:
            return
        changed = [candidate_of(block.products[i], block.pairs[i]) for i in new]
        old = [known[c.product.id].row for c in changed if c.product.id in known]
        counts: Counts = {"inserted": len(new) - len(old), "updated": len(old), "rejected": 0}
        head = self._head(counts) | {"attributes": records.attribute_types(changed)}
        if old:
            head["removed"] = old
        products = records.columns(changed, self.target.next_row)
        body: Body = {"rejects": [], "resolved": [], "products": products}
        self.target.commit(head, body, np.ascontiguousarray(block.pairs[new]))
        self.report.copied += len(new)

    def _head(self, counts: Counts) -> Head:
        return {"kind": KIND, "command": f"copy {self.source.name}", "counts": counts}

    def _probe(self, entry: ProbeEntry, facts: dict[str, Any]) -> None:
        same = json.dumps(facts | {"generation": self.target.generation}, indent=2)

        def write(directory: Path) -> None:
            for name in entry.files:
                shutil.copyfile(entry.path / name, directory / name)
            (directory / FACTS_FILE).write_text(same + "\n", encoding="utf-8")

        save_probe(
            self.target, write, trained_on=entry.trained_on, classes=len(facts["classes"]),
            metrics=entry.metrics, command=KIND,
        )  # fmt: skip
        self.report.probes += 1

    def remove_others(self) -> None:
        """Take out of the target what is no longer in the source."""
        there = self.target.snapshot()
        if there.count == self.now.count:
            return
        for block in there.iter_products():
            rows = {stored.product.id: stored.row for stored in block.products}
            known = self.now.view.by_ids(list(rows))
            gone = [row for name, row in rows.items() if name not in known]
            if gone:
                head = self._head({"removed": len(gone)}) | {"removed": gone}
                self.target.commit(head, {})
                self.report.removed += len(gone)

    def copy_rejects(self) -> None:
        """Make the target's open rejects those of the source."""
        mine = {reject["key"]: reject for reject in self.now.view.rejects()}
        theirs = {reject["key"] for reject in self.target.snapshot().view.rejects()}
        new = [reject for key, reject in mine.items() if key not in theirs]
        settled = sorted(theirs - set(mine))
        if new or settled:
            self.target.commit(self._head({}), {"rejects": new, "resolved": settled})


def _mark(entry: ProbeEntry) -> tuple[int, dict[str, Any]]:
    return entry.trained_on, entry.metrics


def _part(block: ProductBlock, start: int, stop: int) -> ProductBlock:
    return ProductBlock(block.products[start:stop], block.pairs[start:stop])


def _compare(one: AnySnapshot, other: AnySnapshot, report: CopyReport) -> None:
    if one.count != other.count:
        raise CopyMismatch(
            f"{report.source} has {one.count} products and {report.target} {other.count}: was the"
            " copy changed meanwhile? Run it again"
        )
    report.products = one.count
    rows = one.view.rows()
    chosen = np.random.default_rng(report.generation).permutation(rows)[:COMPARED]
    mine = one.view.by_rows(chosen)
    theirs = other.view.by_ids([stored.product.id for stored in mine.values()])
    matched = [(stored, theirs.get(stored.product.id)) for stored in mine.values()]
    both = [(a, b) for a, b in matched if b is not None]
    pairs = one.pairs([a.row for a, _ in both]), other.pairs([b.row for _, b in both])
    same = np.all(pairs[0].view(np.uint32) == pairs[1].view(np.uint32), axis=1)
    wrong = [a.product.id for a, b in matched if b is None or a.product != b.product]
    wrong += [a.product.id for (a, _), equal in zip(both, same, strict=True) if not equal]
    if wrong:
        raise CopyMismatch(
            f"{len(wrong)} of {len(matched)} products compared differ in {report.target}"
            f" ({', '.join(wrong[:5])}): was it changed meanwhile? Copy to a new place"
        )
    report.compared = len(matched)
