"""The commands that find errors in the catalogue and apply corrections: audit, relabel."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kinshelf.commands.help import command, option
from kinshelf.commands.options import PATH, shelf_options
from kinshelf.commands.terminal.output import Output
from kinshelf.commands.terminal.progress import progress

if TYPE_CHECKING:
    from kinshelf.probe.audit.audit import Audit

SHOWN = 20


@command(examples=["kinshelf audit", "kinshelf audit -o audit.csv", "kinshelf audit --novel"])
@option("-o", "--output", "file", type=PATH, metavar="FILE",
        help="Write the findings to this .csv, .jsonl or .html file.")  # fmt: skip
@option("--novel", is_flag=True,
        help="Propose new categories for uncategorised products that fit none.")  # fmt: skip
@option("--group", metavar="COLUMN", show_default="that of `train`",
        help="Let products of equal values in this column not judge one another.")  # fmt: skip
@shelf_options
def audit(output: Output, file: Path | None, novel: bool, group: str | None) -> None:
    """Find wrong labels, duplicates, outliers, and pictures that contradict their text.

    Nothing is changed. Fill in `new_category` in the .csv file, or put yes under `accept` to take
    the suggestion, and give the file to `kinshelf relabel`.
    """
    from kinshelf.probe.audit.audit import audit_shelf
    from kinshelf.probe.audit.files import check_target, write_audit
    from kinshelf.probe.pages.thumbnails import Thumbnails

    if file is not None:
        check_target(file)
    with output.open() as shelf, progress(output, "auditing", None) as update:
        found = audit_shelf(
            shelf, novel=novel, group=group, progress=lambda what, done, _all: update(done, what)
        )
        if file is not None:
            written = write_audit(found, file, Thumbnails(shelf.path / "images"))
            output.say(f"wrote {written} products to {file}")
    _print(output, found, quietly=file is not None)


def _print(output: Output, found: Audit, *, quietly: bool) -> None:
    if output.as_json:
        for number, proposal in enumerate(found.proposals or (), 1):
            output.emit(proposal.as_dict(number))
        for row in found.rows:
            output.emit(asdict(row))
    elif not quietly:
        from kinshelf.commands.terminal.tables import rows_table

        columns, rows = _table(found)
        output.console().print(rows_table(columns, rows))
        if found.proposals:
            names = ["proposal", "size", "medoid", "medoid_title", "cohesion"]
            proposals = [p.as_dict(number) for number, p in enumerate(found.proposals, 1)]
            output.console().print(rows_table(names, proposals))
    for name, count in found.counts.items():
        output.say(f"{count} {name.replace('_', ' ')}")


def _table(found: Audit) -> tuple[list[str], list[dict[str, Any]]]:
    """The first `SHOWN` products, a line each."""
    rows = []
    for place in found.places[:SHOWN]:
        row = found.row(int(place))
        kinds = {
            "label": row.is_label_issue,
            "conflict": row.is_conflict,
            "outlier": row.is_outlier,
            "duplicate": row.is_near_duplicate,
        }
        rows.append({
            "id": row.id, "title": row.title[:40], "category": row.category,
            "finding": ", ".join(name for name, given in kinds.items() if given),
            "suggested": row.suggested_category,
        })  # fmt: skip
    return ["id", "title", "category", "finding", "suggested"], rows


@command(examples=["kinshelf relabel audit.csv", "kinshelf relabel audit.csv --json"])
@click.argument("file", type=PATH)
@shelf_options
def relabel(output: Output, file: Path) -> None:
    """Apply the categories that a reviewer corrected in a file: all as one change, or none.

    FILE has a column `id` and one of `new_category`, `accept` with `suggested_category`, or
    `category`. Products whose category stays are left alone; nothing is encoded again.
    """
    from kinshelf.store.ingest.edit import read_changes

    changes = read_changes(file)
    with output.open() as shelf:
        changed = shelf.relabel(changes)
        generation = shelf.generation
    if output.as_json:
        output.emit({"relabelled": changed, "unchanged": len(changes) - changed,
                     "generation": generation})  # fmt: skip
    output.say(f"relabelled {changed} of {len(changes)} products, generation {generation}")
