"""The command that names the products to label next: suggest."""

from __future__ import annotations

from pathlib import Path

import click

from kinshelf.commands.help import command, option
from kinshelf.commands.options import PATH, shelf_options
from kinshelf.commands.terminal.output import Output

_COLUMNS = ("id", "title", "category", "suggested_category", "probability", "why")


@command(examples=["kinshelf suggest -n 50 -o label.csv", "kinshelf suggest --json"])
@option("-n", "count", type=click.IntRange(1), default=20, help="Name at most so many products.")
@option("--where", metavar="CONDITION", show_default="every product without a label",
        help="Take only products that match this SQL condition.")  # fmt: skip
@option("-o", "--output", "file", type=PATH, metavar="FILE",
        help="Write them to this .csv file, whose column `new_category` you fill in.")  # fmt: skip
@shelf_options
def suggest(output: Output, count: int, where: str | None, file: Path | None) -> None:
    """Name the products whose labels would teach a probe most: uncertain ones, spread out.

    Fill in `new_category`, give the file to `kinshelf relabel`, and train. Before there are labels
    of two categories, the most typical products come first.
    """
    from kinshelf.commands.terminal.tables import rows_table
    from kinshelf.probe.fill.suggest import write_suggestions

    with output.open() as shelf:
        found = shelf.suggest(count, where)
    if file is not None:
        write_suggestions(found, file)
        output.say(f"wrote {len(found)} products to {file}")
        output.say(f"next: fill in new_category, then kinshelf relabel {file}")
    elif output.as_json:
        for row in found:
            output.emit(row)
    elif found:
        output.console().print(rows_table(_COLUMNS, found))
        output.say("next: kinshelf suggest -o label.csv, fill in new_category, kinshelf relabel")
    if not found:
        output.say("every product that matches has a label")
