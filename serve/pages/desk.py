"""The review's desk: the queue that was made last, and what was decided since."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from kinshelf.probe.audit.review_queue import KINDS, Item, ReviewQueue, review_queue

if TYPE_CHECKING:
    from kinshelf.serve.service.jobs import Job, Tell
    from kinshelf.serve.service.service import Service
    from kinshelf.store.generation import AnySnapshot

JOB = "review"


class Desk:
    """Kept in memory: what was changed is on the shelf, what was kept as it is, only here."""

    def __init__(self) -> None:
        self.queue: ReviewQueue | None = None
        self._kept: set[str] = set()
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
                self.queue, self._kept = queue, set()
            return queue.counts()

        return service.jobs.start(JOB, work)

    def keep(self, product_id: str) -> None:
        """Leave a product as it is."""
        with self._lock:
            self._kept = self._kept | {product_id}

    def put_back(self, product_id: str) -> None:
        """Take `keep` back."""
        with self._lock:
            self._kept = self._kept - {product_id}

    def open_items(self, now: AnySnapshot) -> tuple[Item, ...]:
        """The items that nobody decided on: not kept, still there, still of that category."""
        with self._lock:
            queue, kept = self.queue, self._kept
            key = (queue, kept, now.generation)
            if queue is None or self._open[0] == key:
                return self._open[1] if queue else ()
        there = now.view.by_ids([item.id for item in queue.items])
        found = tuple(
            item
            for item in queue.items
            if item.id not in kept
            and item.id in there
            and there[item.id].product.category == item.category
        )
        with self._lock:
            self._open = (key, found)
        return found


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
