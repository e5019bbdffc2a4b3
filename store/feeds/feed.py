"""A feed that comes again and again: its sources as one operation, and what it no longer has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kinshelf.db.errors import InputError
from kinshelf.store.feeds.prune import LIMIT, Prune, PruneReport, prune
from kinshelf.store.feeds.unchanged_source import hash_of, is_unchanged, remember
from kinshelf.store.operation import operation
from kinshelf.store.results import AddOptions, AddReport

if TYPE_CHECKING:
    from kinshelf.store.base import AnyShelf

Add = Callable[[Path | str | None, AddOptions], AddReport]


@dataclass(frozen=True, slots=True)
class FeedOptions:
    """`prune`: what becomes of products that no source has, None: nothing; `prune_limit` and
    `prune_where` as in `prune`. `skip_unchanged`: pass over sources that are as they were when they
    were added. `retry`: try the rejected rows again."""

    prune: Prune | None = None
    prune_limit: float = LIMIT
    prune_where: str | None = None
    skip_unchanged: bool = False
    retry: bool = False


@dataclass(slots=True)
class FeedReport:
    """What was added, what was pruned, and the sources that were passed over as unchanged."""

    added: AddReport
    pruned: PruneReport | None = None
    unchanged_sources: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """For `--json` and `--report`."""
        pruned = self.pruned and self.pruned.as_dict()
        more = {"pruned": pruned, "unchanged_sources": self.unchanged_sources}
        return self.added.as_dict() | more

    def failed(self, max_rejects: int) -> bool:
        """Whether something was left undone: more rejects than that, or a refused prune."""
        return self.added.rejected > max_rejects or bool(self.pruned and self.pruned.refused)


def add_feed(
    shelf: AnyShelf,
    sources: Sequence[Path | str],
    options: AddOptions,
    feed: FeedOptions,
    add: Add,
    stop: Callable[[], bool] = lambda: False,
) -> FeedReport:
    """Take in the sources as one operation by `add(source, options)`, None for the rejected rows;
    then prune, unless it was stopped. Raises InputError, FilterError, and what `add` raises."""
    _check(shelf, options, feed)
    hashes, changed = dict[Path, str](), list(sources)
    if feed.skip_unchanged:
        files = [each for each in sources if isinstance(each, Path) and each.is_file()]
        how = (options, feed.prune, feed.prune_where)
        hashes = {each: hash_of(each, options, how) for each in files}
        unchanged = [each for each in files if is_unchanged(shelf, each, hashes[each], options)]
        if not feed.prune or len(unchanged) == len(sources):
            changed = [each for each in sources if each not in unchanged]
    reading = replace(options, list_ids=feed.prune is not None)
    wanted: list[Path | str | None] = [*changed, *([None] if feed.retry else [])]
    reports = []
    with operation():
        for source in wanted:
            reports.append(add(source, reading))
            if stop():
                break
        report = FeedReport(AddReport.total(reports))
        report.unchanged_sources = [str(each) for each in sources if each not in changed]
        if not reports:
            report.added.generation = shelf.snapshot().generation
        if feed.prune and changed and not report.added.interrupted:
            report.pruned = prune(
                shelf, report.added.ids, how=feed.prune, limit=feed.prune_limit,
                where=feed.prune_where,
            )  # fmt: skip
    refused = report.pruned is not None and report.pruned.refused
    if not report.added.interrupted and not refused:
        remember(shelf, {each: known for each, known in hashes.items() if each in changed})
    return report


def _check(shelf: AnyShelf, options: AddOptions, feed: FeedOptions) -> None:
    """Refuses before anything is added what would be refused after it."""
    if feed.prune and options.training is not None and options.training.exact:
        raise InputError("--exact leaves rows out, which --prune would take for gone: use one")
    if not feed.prune and (feed.prune_where is not None or feed.prune_limit != LIMIT):
        raise InputError("--prune-where and --prune-limit go with --prune")
    if not 0 <= feed.prune_limit <= 1:
        raise InputError(f"the limit is {feed.prune_limit:g}: give a share from 0 to 1")
    shelf.snapshot().filter(feed.prune_where)
