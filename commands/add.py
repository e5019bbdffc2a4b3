"""The commands that put products on the shelf and take them off: add, remove."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kinshelf.commands.help import command, option
from kinshelf.commands.options import (
    ANY_SOURCE,
    PATH,
    Share,
    shelf_options,
    source_options,
    wait_option,
)
from kinshelf.commands.terminal.output import Output
from kinshelf.commands.terminal.progress import Interruption, build_index, progress, rows_of
from kinshelf.db.errors import InputError, KinshelfError
from kinshelf.db.files import written
from kinshelf.db.text import percent

if TYPE_CHECKING:
    from kinshelf.db.sources.prepare import TrainingSetOptions
    from kinshelf.face import Shelf
    from kinshelf.store import AddOptions, AddReport
    from kinshelf.store.feeds.feed import FeedReport
    from kinshelf.store.feeds.prune import PruneReport

CHANGES = "What is changed"
TRAINING = "Preparing a training set"
NIGHTLY = "A feed that comes again"
_FEED = ("prune", "prune_limit", "prune_where", "skip_unchanged")


@command(examples=[
    "kinshelf add products.csv --val-fraction 0.2",
    'kinshelf add export.csv --map title="{brand} {name}" --dry-run',
    "kinshelf add --retry-rejects",
])  # fmt: skip
@click.argument("sources", nargs=-1, type=ANY_SOURCE, metavar="SOURCE...")
@source_options
@option("--on-conflict", type=click.Choice(["update", "skip", "error"]), default="update",
        group=CHANGES, help="Do this with a product whose id is on the shelf.")  # fmt: skip
@option("--retry-rejects", is_flag=True, group=CHANGES,
        help="Try the rows again that were rejected before.")  # fmt: skip
@option("--refresh-images/--no-refresh-images", default=None, group=CHANGES,
        show_default="those of new and changed products",
        help="Ask for a newer version of every picture at a URL, or of none.")  # fmt: skip
@option(
    "--dry-run",
    is_flag=True,
    group=CHANGES,
    help="Change nothing: show the first five products as they would be, and what is ignored.",
)
@option(
    "--save-mapping",
    type=PATH,
    metavar="FILE",
    group=CHANGES,
    help="Write to this file how the source is read, for --mapping.",
)
@option(
    "--prune",
    type=click.Choice(["mark", "remove"]),
    is_flag=False,
    flag_value="mark",
    group=NIGHTLY,
    help="Mark products that the sources no longer have with the attribute"
    " `gone`, or remove them. Without a value: mark.",
)
@option(
    "--prune-limit",
    type=Share(),
    default=0.05,
    show_default="5%",
    metavar="SHARE",
    group=NIGHTLY,
    help="Prune nothing, and exit with 1, if more than this share would go.",
)
@option(
    "--prune-where",
    metavar="CONDITION",
    group=NIGHTLY,
    show_default="every product",
    help="Prune only products that match, such as those of one feed.",
)
@option(
    "--skip-unchanged-source",
    "skip_unchanged",
    is_flag=True,
    group=NIGHTLY,
    help="Pass over sources whose bytes are those that were added last time.",
)
@option(
    "--report",
    type=PATH,
    metavar="FILE",
    group=NIGHTLY,
    help="Write what was done to this JSON file, also if it failed.",
)
@option("--max-rejects", type=click.IntRange(0), default=0, group=CHANGES,
        help="Exit with 1 if more rows than this are rejected.")  # fmt: skip
@wait_option()
@option("--top-categories", type=click.IntRange(1), group=TRAINING, show_default="all",
        help="Train with only so many of the largest categories.")  # fmt: skip
@option("--min-per-class", type=click.IntRange(1), group=TRAINING, show_default="1",
        help="Train with no category that has fewer products than this.")  # fmt: skip
@option("--max-per-class", type=click.IntRange(1), group=TRAINING, show_default="no limit",
        help="Train with at most so many products of a category.")  # fmt: skip
@option("--val-fraction", type=float, group=TRAINING, show_default="the source's split",
        help="Put this share into the split `val`, by the products' ids.")  # fmt: skip
@option("--exact", is_flag=True, group=TRAINING,
        help="Leave out what is not chosen, and split each category exactly.")  # fmt: skip
@option("--seed", type=int, default=42, group=TRAINING,
        help="Sample and split by this seed.")  # fmt: skip
@shelf_options
def add(
    output: Output,
    sources: tuple[Path | str, ...],
    retry_rejects: bool,
    max_rejects: int,
    wait: float,
    dry_run: bool,
    save_mapping: Path | None,
    report: Path | None,
    **settings: Any,
) -> None:
    """Add products, or update them by id.

    SOURCE is a CSV, TSV, JSON, XML, .xlsx, Parquet or Feather file, packed or not, a folder of
    images whose sub-folders are categories, a folder that `encode` wrote, a URL of such a file, or
    - for standard input. Exports of shops such as Shopify and WooCommerce are recognised by their
    header.
    """
    if not sources and not retry_rejects:
        raise click.UsageError("name at least one SOURCE, or --retry-rejects")
    if sources.count("-") > 1:
        raise click.UsageError("- is standard input, which can be read once")
    from kinshelf.store.feeds.feed import FeedOptions, add_feed

    if report is not None and not report.parent.is_dir():
        raise InputError(f"there is no folder {report.parent}: make it first")
    feed = FeedOptions(retry=retry_rejects, **{name: settings.pop(name) for name in _FEED})
    training = _training_set(settings)
    options = _add_options(settings, training)
    if save_mapping is not None:
        _save(output, sources, options, save_mapping)
    if dry_run:
        _show(output, sources, options, max_rejects)
        return
    with (
        _reporting(report) as reported,
        output.open(wait=wait) as shelf,
        Interruption(output) as stop,
    ):

        def take(source: Path | str | None, options: AddOptions) -> AddReport:
            return _run(output, shelf, source, options, stop)

        done = add_feed(shelf, sources, options, feed, take, stop)
        reported.update(done.as_dict())
        build_index(output, shelf, stop)
        following = _next_step(shelf)
    _finish(output, done, max_rejects, following)


@contextlib.contextmanager
def _reporting(file: Path | None) -> Iterator[dict[str, Any]]:
    """A report to fill in, which is written to the file in the end; of a failure, what it was."""
    report: dict[str, Any] = {"error": None}
    try:
        yield report
    except KinshelfError as error:
        report["error"] = {"type": type(error).__name__, "message": str(error)}
        raise
    finally:
        if file is not None:
            with written(file) as target:
                text = json.dumps(report, ensure_ascii=False, indent=1, default=str)
                target.write_text(text + "\n", encoding="utf-8", errors="replace")


def _training_set(settings: dict[str, Any]) -> TrainingSetOptions | None:
    names = ("top_categories", "min_per_class", "max_per_class", "val_fraction")
    given = {name: settings.pop(name) for name in names}
    seed, exact = settings.pop("seed"), settings.pop("exact")
    if all(value is None for value in given.values()):
        if exact:
            raise click.UsageError("--exact goes with --val-fraction or another of these options")
        return None
    from kinshelf.db.sources.prepare import TrainingSetOptions

    return TrainingSetOptions(**given, seed=seed, exact=exact)


def _add_options(settings: dict[str, Any], training: TrainingSetOptions | None) -> AddOptions:
    from kinshelf.store import AddOptions

    return AddOptions(**settings, training=training)


def _run(
    output: Output,
    shelf: Shelf,
    source: Path | str | None,
    options: AddOptions,
    stop: Interruption,
) -> AddReport:
    name = "rejects" if source is None else Path(source).name
    exact = options.training is not None and options.training.exact
    total = rows_of(source, options) if isinstance(source, Path) and not exact else None
    with progress(output, f"adding {name}", total) as update:

        def show(done: int, report: AddReport) -> None:
            update(done, f"{report.rejected} rejected" if report.rejected else "")

        if source is None:
            return shelf.retry_rejects(options, stop=stop, progress=show)
        return shelf.add(source, options, stop=stop, progress=show)


@contextlib.contextmanager
def _local(source: Path | str, options: AddOptions) -> Iterator[Path]:
    """The source as a file of this machine."""
    if isinstance(source, Path):
        yield source
        return
    from kinshelf.db.formats.remote import fetched

    with fetched(source, allow_private_hosts=options.allow_private_hosts) as copy:
        yield copy.path


def _save(output: Output, sources: tuple[Path | str, ...], options: AddOptions, path: Path) -> None:
    from kinshelf.db.layouts.saved import save_mapping
    from kinshelf.db.sources.preview import used_mapping
    from kinshelf.store.ingest.add import reading_options

    if not sources:
        raise click.UsageError("--save-mapping needs a SOURCE")
    if str(sources[0]) == "-":
        raise InputError(
            "standard input can be read once, and --save-mapping reads its source beforehand:"
            " put it into a file"
        )
    with _local(sources[0], options) as source:
        save_mapping(path, used_mapping(source, reading_options(options)))
    output.say(f"wrote {path}")


def _show(
    output: Output, sources: tuple[Path | str, ...], options: AddOptions, max_rejects: int
) -> None:
    from kinshelf.commands.terminal.preview import preview_tables
    from kinshelf.db.sources.preview import preview
    from kinshelf.store.ingest.add import reading_options

    if not sources:
        raise click.UsageError("--dry-run needs a SOURCE")
    rejected = 0
    for source in sources:
        with _local(source, options) as path:
            found = preview(path, reading_options(options))
        rejected += found.rejected
        if output.as_json:
            output.emit({"source": str(source)} | found.as_dict())
        else:
            output.console().print(preview_tables(Path(source).name, found))
    if rejected > max_rejects:
        sys.exit(1)


def _next_step(shelf: Shelf) -> str:
    """The command that comes next, by what the shelf holds."""
    now = shelf.snapshot()
    categories = [name for name in now.view.categories() if name is not None]
    if not now.count:
        return ""
    if len(categories) < 2:
        return "kinshelf similar --text WORDS"
    return (
        "kinshelf classify --image PICTURE --text TITLE" if now.view.probes() else "kinshelf train"
    )


def _finish(output: Output, done: FeedReport, max_rejects: int, following: str) -> None:
    from kinshelf.commands.terminal.tables import add_summary

    total = done.added
    if output.as_json:
        output.emit(done.as_dict())
    for source in done.unchanged_sources:
        output.say(f"{source} has not changed since it was added")
    for line in add_summary(total):
        output.say(line)
    if done.pruned is not None:
        _say_pruned(output, done.pruned)
    if following and not total.interrupted:
        output.say(f"next: {following}")
    if total.interrupted:
        output.warn("stopped early; run the same command again to go on")
        sys.exit(130)
    if done.failed(max_rejects):
        sys.exit(1)


def _say_pruned(output: Output, done: PruneReport) -> None:
    which = f" ({', '.join(done.examples[:3])}{', ...' if done.gone > 3 else ''})" * bool(done.gone)
    if done.refused:
        output.warn(
            f"{done.gone} of {done.products} products{which} are in no source any more, which is"
            f" more than --prune-limit {percent(done.limit)}: none was pruned. Check the source,"
            " or give a higher limit"
        )
    elif done.how == "mark":
        output.say(f"{done.changed} products are marked as gone{which}")
    else:
        output.say(f"{done.changed} products are removed{which}")


@command(examples=["kinshelf remove KS-0001", "kinshelf remove KS-0002 KS-0003 --json"])
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@shelf_options
def remove(output: Output, ids: tuple[str, ...]) -> None:
    """Remove products by id: all of them or, if one is not there, none."""
    with output.open() as shelf:
        removed = shelf.remove(ids)
        generation = shelf.generation
    if output.as_json:
        output.emit({"removed": removed, "generation": generation})
    output.say(f"removed {removed}, generation {generation}")
