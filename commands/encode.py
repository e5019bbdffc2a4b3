"""The command that encodes products into a folder, on this machine or on a cluster."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kinshelf.commands.help import command, option
from kinshelf.commands.options import (
    PATH,
    Number,
    delimiter_option,
    encoder_options,
    encoding_option,
    images_option,
    limit_options,
    map_option,
    private_option,
    shelf_options,
)
from kinshelf.commands.terminal.output import Output
from kinshelf.commands.terminal.progress import Interruption, progress, rows_of

PARTS = "Parts"
RAY = "Ray"

if TYPE_CHECKING:
    from kinshelf.cluster.encode import EncodeOptions, EncodeReport


@command(examples=[
    "kinshelf encode products.csv -o encoded",
    "kinshelf encode products.csv -o encoded --ray local --workers 2",
])  # fmt: skip
@click.argument("source")
@option("-o", "--output", "directory", type=PATH, required=True, metavar="FOLDER", group=PARTS,
        help="Write the parts to this folder. Every Ray worker must see it.")  # fmt: skip
@option("--part-rows", type=click.IntRange(1), default=2048, group=PARTS,
        help="Put so many rows into a part. One worker encodes a part at a time.")  # fmt: skip
@option("--max-rejects", type=click.IntRange(0), default=0, group=PARTS,
        help="Exit with 1 if more rows than this are rejected.")  # fmt: skip
@encoder_options("that of --shelf", "that of --shelf", "that of --shelf")
@map_option
@images_option
@delimiter_option
@encoding_option
@private_option
@limit_options
@option("--ray", metavar="ADDRESS", group=RAY, show_default="no Ray",
        help="Encode on the Ray cluster at HOST:PORT. The word local stands for this machine's"
        " cores.")  # fmt: skip
@option("--workers", type=click.IntRange(1), group=RAY, show_default="as many as fit",
        help="Run so many encoders.")  # fmt: skip
@option("--cpus", type=click.IntRange(1), default=1, group=RAY,
        help="Give each worker so many processor cores.")  # fmt: skip
@option("--timeout", type=Number(0, 1e9, min_open=True), default=1800.0, metavar="SECONDS",
        group=RAY, help="Encode a part again that takes longer than this.")  # fmt: skip
@shelf_options
def encode(
    output: Output, source: str, directory: Path, ray: str | None, max_rejects: int, **settings: Any
) -> None:
    """Encode products into a folder of Parquet parts that `add` takes, on any machine.

    SOURCE is what `add` takes, or a file at a URL or in an object store (fsspec). Run again, it
    goes on where it stopped. With --ray the workers of a cluster encode; the folder is the same
    to the bit. On one machine Ray is no faster than without.
    """
    from kinshelf.cluster.encode import encode_source

    options = _options(output, settings)
    with Interruption(output) as stop, progress(output, "encoding", _rows(source)) as update:
        report = encode_source(
            source, directory, options, ray=ray, stop=stop, progress=lambda done: update(done, "")
        )
    _finish(output, report, max_rejects)


def _rows(source: str) -> int | None:
    """How many rows a file on this machine has; None for another place."""
    from kinshelf.db.errors import KinshelfError
    from kinshelf.store import AddOptions

    with contextlib.suppress(KinshelfError):
        return rows_of(Path(source), AddOptions())
    return None


def _options(output: Output, settings: dict[str, Any]) -> EncodeOptions:
    from kinshelf.cluster.encode import EncodeOptions, shelf_encoder
    from kinshelf.db.errors import ShelfNotFound

    if settings["encoder"] is None:
        try:
            with output.open() as shelf:
                known = shelf_encoder(shelf.manifest)
        except ShelfNotFound:
            known = {}
        settings |= {name: settings[name] or value for name, value in known.items()}
    return EncodeOptions(**settings)


def _finish(output: Output, report: EncodeReport, max_rejects: int) -> None:
    from kinshelf.db.text import without_password

    if output.as_json:
        output.emit(report.as_dict())
    if report.interrupted:
        output.warn("stopped early; run the same command again to go on")
        sys.exit(130)
    output.say(
        f"{report.products} of {report.rows} rows in {report.parts} parts ({report.reused} were"
        f" there), {report.rejected} rejected, {report.image_failed} without their picture, in"
        f" {report.seconds:.1f} s: {report.folder}"
    )
    if report.rejected or report.image_failed:
        output.say(f"why: {Path(report.folder) / 'rejects.jsonl'}")
    address = without_password(str(output.address))
    output.say(f"next: kinshelf add {report.folder} --shelf {address}")
    if report.rejected > max_rejects:
        sys.exit(1)
