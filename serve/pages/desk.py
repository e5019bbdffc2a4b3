"""The review's desk: the queue that was made last, and what was decided since."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from kinshelf.probe.audit.review_queue import KINDS, Item, ReviewQueue, review_queue
from kinshelf.store.ingest.merge import REVIEW

if TYPE_CHECKING:
    from kinshelf.db.product import StoredProduct
    from kinshelf.serve.service.jobs import Job, Tell
    from kinshelf.serve.service.service import Service
    from kinshelf.store.generation import AnySnapshot

JOB = "review"


class Desk:
    """The queue is kept in memory; every decision is on the shelf."""

    def __init__(self) -> None:
        self.queue: ReviewQueue | None = None
        self._lock = threading.Lock()
        self._open: tuple[Any, tuple[Item, ...]] = (None, ())

    def look(self, service: Service) -> Job:
        """Begin to look through the shelf. Raises JobRunning or ShuttingDown."""
        from kinshelf.probe.audit.audit import audit_shelf

        def work(tell: Tell) -> dict[str, Any]:
            def step(what: str, done: int, parts: int) -> None:
                tell({"step": what, "done": done, "parts": parts})

            queue = review_queue(service.shelf, audit_shelf(service.shelf, progress=step))
            with self._lock:
                self.queue = queue
            return queue.counts()

        return service.jobs.start(JOB, work)

    def open_items(self, now: AnySnapshot) -> tuple[Item, ...]:
        """The items that nobody decided on: not kept, still there, still of that category."""
        with self._lock:
            queue = self.queue
            key = (queue, now.generation)
            if queue is None or self._open[0] == key:
                return self._open[1] if queue else ()
        there = now.view.by_ids([item.id for item in queue.items])
        found = tuple(
            item for item in queue.items if item.id in there and _is_open(item, there[item.id])
        )
        with self._lock:
            self._open = (key, found)
        return found


def _is_open(item: Item, stored: StoredProduct) -> bool:
    disputed = any("disputed" in decision for decision in stored.decided.values())
    if item.kind == "disputed":
        return disputed
    return REVIEW not in stored.decided and stored.product.category == item.category


def of_kind(items: tuple[Item, ...], kind: str) -> list[Item]:
    """Select those of a kind, or all."""
    return [item for item in items if kind in ("", item.kind)]


def pick(queue: ReviewQueue, items: list[Item], wanted: str, *, after: bool = False) -> Item | None:
    """The open item of that id, or the next open one behind it in the queue, around its end."""
    if not items:
        return None
    place = {item.id: i for i, item in enumerate(queue.items)}
    start = place.get(wanted, -1)
    ahead = (item for item in items if place[item.id] > start - (not after))
    return next(ahead, items[0])


def kind_counts(items: tuple[Item, ...]) -> list[dict[str, Any]]:
    """Count the open ones by kind."""
    counts = {kind: sum(item.kind == kind for item in items) for kind in KINDS}
    return [{"kind": k, "words": KINDS[k], "count": n} for k, n in counts.items() if n]
