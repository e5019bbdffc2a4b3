"""The commands that take products elsewhere: copy, export."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from kinshelf.commands.help import command, option
from kinshelf.commands.options import ADDRESS, PATH, print_options, shelf_options, wait_option
from kinshelf.commands.terminal.output import Output
from kinshelf.commands.terminal.progress import Interruption, build_index, progress


@command(examples=[
    "kinshelf copy kin.shelf backup.shelf",
    "kinshelf copy kin.shelf 'postgresql://user@host/database?schema=toys'",
])  # fmt: skip
@click.argument("shelf_path", type=ADDRESS, metavar="SHELF")
@click.argument("other", type=ADDRESS, metavar="OTHER")
@wait_option()
@print_options
def copy(output: Output, other: Path | str, wait: float) -> None:
    """Copy a shelf to another place, such as from a directory to an engine or back.

    SHELF and OTHER are directories or addresses: postgresql://host/database?schema=NAME,
    milvus://host:19530/NAME, milvus-lite://file.db/NAME. OTHER is made if it is not there.
    Products, attributes, embeddings, open rejects and probes are copied as they are now, not the
    history. Interrupted, or run again later, it copies what is missing. At the end both are
    compared.
    """
    from kinshelf.store.engines.copy import copy_shelf, open_target

    with (
        output.open() as shelf,
        open_target(other, shelf, wait=wait) as target,
        Interruption(output) as stop,
    ):
        with progress(output, "copying", shelf.snapshot().count) as update:
            report = copy_shelf(shelf, target, stop=stop, progress=lambda n: update(n, ""))
        if not report.interrupted:
            build_index(output, target, stop)
    if output.as_json:
        output.emit(report.as_dict())
    output.say(
        f"{report.copied} products copied, {report.unchanged} were there, {report.removed} removed,"
        f" {report.probes} probes copied"
    )
    for line in report.warnings:
        output.warn(f"warning: {line}")
    if report.interrupted:
        output.warn("stopped early; run the same command again to go on")
        sys.exit(130)
    output.say(
        f"compared: {report.products} products in both, {report.compared} of them to the last bit"
    )


@command(examples=[
    "kinshelf export products.parquet",
    'kinshelf export cheap.csv --where "price < 20"',
])  # fmt: skip
@click.argument("file", type=PATH)
@option("--where", metavar="CONDITION", show_default="every product",
        help="Write only products that match this SQL condition.")  # fmt: skip
@shelf_options
def export(output: Output, file: Path, where: str | None) -> None:
    """Write products to a .parquet (with embeddings), .csv, .tsv or .jsonl file.

    Probes, history and what people decided are not in it: `copy` takes them along.
    """
    with output.open() as shelf:
        count = shelf.export(file, where=where)
        generation = shelf.generation
    if output.as_json:
        output.emit({"file": str(file), "products": count, "generation": generation})
    output.say(f"wrote {count} products of generation {generation} to {file}")
