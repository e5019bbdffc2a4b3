"""The command that moves a shelf between a directory and an engine: copy."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from kinshelf.commands.common import (
    ADDRESS,
    WAIT,
    Interruption,
    Output,
    build_index,
    print_options,
    progress,
)


@click.command()
@click.argument("shelf_path", type=ADDRESS, metavar="SHELF")
@click.argument("other", type=ADDRESS, metavar="OTHER")
@click.option("--wait", type=WAIT, default=0.0, help="Seconds to wait for another writer.")
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
