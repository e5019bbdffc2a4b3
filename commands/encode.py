"""The command that encodes products into a folder, on this machine or on a cluster."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kinshelf.commands.common import PATH, Interruption, Number, Output, progress, shelf_options
from kinshelf.commands.ingest import PRECISIONS, mapping_of

if TYPE_CHECKING:
    from kinshelf.cluster.encode import EncodeOptions, EncodeReport


@click.command()
@click.argument("source")
@click.option("-o", "--output", "directory", type=PATH, required=True,
              help="Folder for the parts; on Ray one that every worker sees.")  # fmt: skip
@click.option("--ray", metavar="ADDRESS",
              help="HOST:PORT of a Ray cluster, or local: this machine's cores.")  # fmt: skip
@click.option("--workers", type=click.IntRange(1),
              help="Encoders on Ray; as many as fit otherwise.")  # fmt: skip
@click.option("--cpus", type=click.IntRange(1), default=1, show_default=True,
              help="Of each worker.")  # fmt: skip
@click.option("--timeout", type=Number(0, 1e9, min_open=True), default=1800.0,
              show_default=True,
              help="Seconds for one part on Ray; then it is tried again.")  # fmt: skip
@click.option("--encoder",
              help="Hub id or directory of a CLIP. Default: that of --shelf.")  # fmt: skip
@click.option("--revision", help="Commit, tag or branch of the hub id.")
@click.option("--precision", type=click.Choice(PRECISIONS), help="Of the encoder's arithmetic.")
@click.option("--map", "mapping", multiple=True, callback=mapping_of, metavar='FIELD="COLUMN"',
              help="Which column is which field, as in `add`.")  # fmt: skip
@click.option("--images", type=PATH, help="Folder that relative image paths start from.")
@click.option("--delimiter", help="Of a CSV file, if it is not recognised.")
@click.option("--allow-private-hosts", is_flag=True,
              help="Fetch images from private and loopback addresses too.")  # fmt: skip
@click.option("--part-rows", type=click.IntRange(1), default=2048, show_default=True,
              help="Rows of a part; what one worker does at a time.")  # fmt: skip
@click.option("--max-rejects", type=click.IntRange(0), default=0, show_default=True,
              help="More rejected rows than this exit with 1.")  # fmt: skip
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
    with Interruption(output) as stop, progress(output, "encoding", None) as update:
        report = encode_source(
            source, directory, options, ray=ray, stop=stop, progress=lambda done: update(done, "")
        )
    _finish(output, report, max_rejects)


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
