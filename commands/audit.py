"""The commands that find errors in the catalogue and apply corrections: audit, relabel."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kinshelf.commands.help import command, option
from kinshelf.commands.options import PATH, delimiter_option, encoding_option, shelf_options
from kinshelf.commands.terminal.output import Output, say_how_read
from kinshelf.commands.terminal.progress import progress

if TYPE_CHECKING:
    from kinshelf.probe.audit.audit import Audit

SHOWN = 10
"""Products of each kind of finding on the terminal."""
_FINDINGS = (
    ("is_label_issue", "labels that look wrong", "suggested_category"),
    ("is_near_duplicate", "near duplicates", "duplicate_group"),
    ("is_conflict", "pictures that do not fit their text", "image_says"),
    ("is_outlier", "far from all others", ""),
)
_LISTED = 8


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
    with output.open() as shelf, progress(output, "auditing") as update:
        found = audit_shelf(
            shelf,
            novel=novel,
            group=group,
            progress=lambda what, done, all_: update(done, what, all_),
        )
        if file is not None:
            written = write_audit(found, file, Thumbnails(shelf.path / "images"))
            output.say(f"wrote {written} products to {file}")
    _print(output, found, file)


def _print(output: Output, found: Audit, file: Path | None) -> None:
    if output.as_json:
        for number, proposal in enumerate(found.proposals or (), 1):
            output.emit(proposal.as_dict(number))
        for row in found.rows:
            output.emit(asdict(row))
    elif file is None:
        from rich.console import Group

        from kinshelf.commands.terminal.tables import plain_heading, rows_table

        for heading, columns, rows in _tables(found):
            output.console().print(Group(plain_heading(heading), rows_table(columns, rows), ""))
        if found.proposals:
            names = ["proposal", "size", "medoid", "medoid_title", "cohesion"]
            proposals = [p.as_dict(number) for number, p in enumerate(found.proposals, 1)]
            output.console().print(rows_table(names, proposals))
    for name, count in found.counts.items():
        output.say(f"{count} {name.replace('_', ' ')}")
    if found.places.size and not output.as_json:
        if file is None or file.suffix != ".csv":
            file = Path("audit.csv")
            output.say(f"next: kinshelf audit -o {file}, correct it, kinshelf relabel {file}")
        else:
            output.say(f"next: correct that file, then kinshelf relabel {file}")


def _tables(found: Audit) -> Iterator[tuple[str, list[str], list[dict[str, Any]]]]:
    """For each kind of finding the heading, the columns and the first `SHOWN` products."""
    for name, heading, column in _FINDINGS:
        rows = [row for row in found.rows if getattr(row, name)]
        if rows:
            more = f", the first {SHOWN} of {len(rows)}" if len(rows) > SHOWN else ""
            columns = ["id", "title", "category", *([column] if column else [])]
            shown = [{each: getattr(row, each) for each in columns} for row in rows[:SHOWN]]
            yield f"{heading}{more}", columns, shown


@command(examples=["kinshelf relabel audit.csv", "kinshelf relabel audit.csv --yes --json"])
@click.argument("file", type=PATH)
@option("--yes", is_flag=True, help="Make new categories without asking.")
@delimiter_option
@encoding_option
@shelf_options
def relabel(
    output: Output, file: Path, yes: bool, delimiter: str | None, encoding: str | None
) -> None:
    """Apply the categories that a reviewer corrected in a file: all as one change, or none.

    FILE has a column `id` and one of `new_category`, `accept` with `suggested_category`, or
    `category`. Products whose category stays are left alone; nothing is encoded again. Before a
    category is made that no product has, you are asked.
    """
    from kinshelf.store.ingest.categories import new_categories
    from kinshelf.store.ingest.edit import read_changes

    found = read_changes(file, delimiter=delimiter, encoding=encoding)
    say_how_read(output, file, delimiter=delimiter, encoding=encoding)
    with output.open() as shelf:
        new = new_categories(shelf, found.categories.values())
        if new and not yes:
            _ask(output, new)
        changed = shelf.relabel(found.decided(shelf))
        generation = shelf.generation
    total = len(found.categories)
    if output.as_json:
        output.emit({"relabelled": changed, "unchanged": total - changed,
                     "generation": generation, "columns": dict(found.columns),
                     "new_categories": list(new)})  # fmt: skip
    read = ", ".join(f"{name} {count}" for name, count in found.columns.items())
    output.say(f"read the columns: {read or 'no category in any: fill in new_category or accept'}")
    output.say(f"relabelled {changed} of {total} products, generation {generation}")


def _ask(output: Output, new: dict[str, list[str]]) -> None:
    """Ask whether to make these categories. Raises UnknownCategory where nobody can answer."""
    from kinshelf.db.errors import UnknownCategory
    from kinshelf.store.ingest.categories import did_you_mean

    shown = [f"{name!r}{did_you_mean(near)}" for name, near in list(new.items())[:_LISTED]]
    rest = len(new) - _LISTED
    listed = ", ".join(shown) + (f" and {rest} more" if rest > 0 else "")
    message = f"no product has the category {listed}" if len(new) == 1 else (
        f"{len(new)} categories are new: {listed}"
    )  # fmt: skip
    if output.as_json or not sys.stdin.isatty():
        raise UnknownCategory(
            f"{message}: nothing was changed; mend the file, or make them with --yes",
            next(iter(new.values())),
        )
    output.warn(message)
    click.confirm("Make them?", abort=True, err=True)
