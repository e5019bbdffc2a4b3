"""Commands that change what is on the shelf: init, add, remove, export."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kinshelf.commands.common import (
    PATH,
    WAIT,
    Interruption,
    Output,
    build_index,
    progress,
    shelf_options,
)

if TYPE_CHECKING:
    from kinshelf.db.sources.prepare import TrainingSetOptions
    from kinshelf.face import Shelf
    from kinshelf.store import AddOptions, AddReport

PRECISIONS = ("float32", "bf16", "int8")
ENCODER_HELP = "Hub id of a CLIP model, or a directory that holds one."


@click.command()
@click.option("--encoder", help=ENCODER_HELP + " Default: openai/clip-vit-base-patch32.")
@click.option("--revision", help="Commit, tag or branch of the hub id.")
@click.option("--precision", type=click.Choice(PRECISIONS),
              help="Of the encoder's arithmetic: int8 is several times as fast and nearly as exact."
              " Default: bf16 where the processor has it, else float32.")  # fmt: skip
@shelf_options
def init(output: Output, encoder: str | None, revision: str | None, precision: str | None) -> None:
    """Make an empty shelf."""
    from kinshelf.face import create

    with create(output.address, encoder=encoder, revision=revision, precision=precision) as shelf:
        made = {"shelf": shelf.name, "encoder": shelf.manifest.encoder}
    if output.as_json:
        output.emit(made)
    else:
        output.say(f"made {made['shelf']} for embeddings of {made['encoder']}")
        output.say(f"next: kinshelf add products.csv --shelf {made['shelf']}")


def mapping_of(_context: click.Context, _option: click.Parameter, values: Sequence[str]) -> Any:
    """The pairs of --map FIELD="COLUMN"."""
    pairs = dict(value.partition("=")[::2] for value in values)
    for name, column in pairs.items():
        if not name or not column:
            raise click.BadParameter(f'{name!r}: write it as FIELD="Column Name"')
    return pairs


_ADD_OPTIONS = [
    click.option("--map", "mapping", multiple=True, callback=mapping_of, metavar='FIELD="COLUMN"',
                 help='Which column is which field, such as title="Product Name".'),
    click.option("--images", type=PATH, help="Folder that relative image paths start from."),
    click.option("--delimiter", help="Of a CSV file, if it is not recognised."),
    click.option("--image-embeddings", type=PATH, help="Your own, .npy: row i is data row i."),
    click.option("--text-embeddings", type=PATH, help="Your own, .npy: row i is data row i."),
    click.option("--allow-private-hosts", is_flag=True,
                 help="Fetch images from private and loopback addresses too."),
    click.option("--batch-size", type=click.IntRange(1), help="Products a commit."),
]  # fmt: skip


def source_options(command: Any) -> Any:
    """The options that say how a source of products is read."""
    for option in reversed(_ADD_OPTIONS):
        command = option(command)
    return command


@click.command()
@click.argument("sources", nargs=-1, type=PATH, metavar="SOURCE...")
@source_options
@click.option("--on-conflict", type=click.Choice(["update", "skip", "error"]), default="update",
              show_default=True, help="What to do with an id that is on the shelf.")  # fmt: skip
@click.option("--retry-rejects", is_flag=True, help="Try again what was rejected before.")
@click.option("--max-rejects", type=click.IntRange(0), default=0, show_default=True,
              help="More rejected rows than this exit with 1.")  # fmt: skip
@click.option("--top-categories", type=click.IntRange(1), help="Take the N largest categories.")
@click.option("--min-per-class", type=click.IntRange(1), help="Leave smaller categories out.")
@click.option("--max-per-class", type=click.IntRange(1), help="Sample larger categories down.")
@click.option("--val-fraction", type=float, help="Split: this share becomes `val`, by category.")
@click.option("--seed", type=int, default=42, show_default=True, help="Of sampling and split.")
@click.option("--wait", type=WAIT, default=0.0, help="Seconds to wait for another writer.")
@shelf_options
def add(
    output: Output,
    sources: tuple[Path, ...],
    retry_rejects: bool,
    max_rejects: int,
    wait: float,
    **settings: Any,
) -> None:
    """Add products, or update them by id.

    SOURCE is a CSV, TSV, Parquet or JSONL file, a folder of images whose sub-folders are
    categories, or a folder that `encode` wrote. Column names of the Amazon 2020 data set are
    recognised.
    """
    if not sources and not retry_rejects:
        raise click.UsageError("name at least one SOURCE, or --retry-rejects")
    training = _training_set(settings)
    options = _add_options(settings, training)
    reports = []
    with output.open(wait=wait) as shelf, Interruption(output) as stop:
        for source in sources:
            reports.append(_run(output, shelf, source, options, stop))
            if stop():
                break
        if retry_rejects and not stop():
            reports.append(_run(output, shelf, None, options, stop))
        build_index(output, shelf, stop)
    _finish(output, reports, max_rejects)


def _training_set(settings: dict[str, Any]) -> TrainingSetOptions | None:
    names = ("top_categories", "min_per_class", "max_per_class", "val_fraction")
    given = {name: settings.pop(name) for name in names}
    seed = settings.pop("seed")
    if all(value is None for value in given.values()):
        return None
    from kinshelf.db.sources.prepare import TrainingSetOptions

    return TrainingSetOptions(**given, seed=seed)


def _add_options(settings: dict[str, Any], training: TrainingSetOptions | None) -> AddOptions:
    from kinshelf.store import AddOptions

    return AddOptions(**settings, training=training)


def _run(
    output: Output, shelf: Shelf, source: Path | None, options: AddOptions, stop: Interruption
) -> AddReport:
    name = "rejects" if source is None else source.name
    with progress(output, f"adding {name}", _rows(source, options)) as update:

        def show(done: int, report: AddReport) -> None:
            update(done, f"{report.rejected} rejected" if report.rejected else "")

        if source is None:
            return shelf.retry_rejects(options, stop=stop, progress=show)
        return shelf.add(source, options, stop=stop, progress=show)


def _rows(source: Path | None, options: AddOptions) -> int | None:
    """How many rows are to come, for the bar's time left; extrapolated for a large file."""
    if source is None or options.training is not None:
        return None
    from kinshelf.db.sources.readers import count_rows
    from kinshelf.store.ingest.add import reading_options

    return count_rows(source, reading_options(options))


def _finish(output: Output, reports: list[AddReport], max_rejects: int) -> None:
    from kinshelf.commands.terminal.tables import add_summary
    from kinshelf.store import AddReport

    total = AddReport.total(reports)
    if output.as_json:
        output.emit(total.as_dict())
    for line in add_summary(total):
        output.say(line)
    if total.interrupted:
        output.warn("stopped early; run the same command again to go on")
        sys.exit(130)
    if total.rejected > max_rejects:
        sys.exit(1)


@click.command()
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


@click.command()
@click.argument("file", type=PATH)
@click.option("--where", help="Which products, as an SQL condition.")
@shelf_options
def export(output: Output, file: Path, where: str | None) -> None:
    """Write products to a .parquet (with embeddings), .csv, .tsv or .jsonl file."""
    with output.open() as shelf:
        count = shelf.export(file, where=where)
        generation = shelf.generation
    if output.as_json:
        output.emit({"file": str(file), "products": count, "generation": generation})
    output.say(f"wrote {count} products of generation {generation} to {file}")


@click.command()
@click.option("--encoder", help=ENCODER_HELP + " Default: the shelf's own.")
@click.option("--revision", help="Commit, tag or branch of the hub id.")
@click.option("--precision", type=click.Choice(PRECISIONS), help="Of the encoder's arithmetic.")
@click.option("--wait", type=WAIT, default=0.0, help="Seconds to wait for another writer.")
@shelf_options
def reembed(output: Output, **settings: Any) -> None:
    """Embed every product anew with another encoder or precision, then switch at once.

    Until then the old embeddings answer. Interrupted, it goes on where it stopped. Probes are
    dropped, since they read the old embeddings: train again afterwards.
    """
    from kinshelf.store.maintain.reembed import reembed_path

    with Interruption(output) as stop, progress(output, "embedding anew", None) as update:
        report = reembed_path(
            output.path,
            stop=stop,
            progress=lambda done, all_: update(done, f"of {all_}"),
            **settings,
        )
    if output.as_json:
        output.emit(report.as_dict())
    for product_id, reason in report.pictures_gone.items():
        output.warn(f"{product_id}: its picture is gone ({reason}); known by its text alone")
    if report.interrupted:
        output.say("stopped; nothing has changed yet: run the same command again to go on")
        sys.exit(130)
    output.say(f"{report.products} products are embedded by {report.encoder}; next: kinshelf train")
