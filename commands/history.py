"""The commands on what was done to a shelf: history, diff, undo."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kinshelf.commands.help import command, option
from kinshelf.commands.options import PATH, shelf_options
from kinshelf.commands.terminal.output import Output
from kinshelf.db.errors import InputError
from kinshelf.db.files import written

if TYPE_CHECKING:
    from kinshelf.store.operations.diff import Change

_SHOWN = 50
_OPERATION = (
    "operation", "time", "command", "inserted", "updated", "removed", "rejected", "undone_by",
    "who",
)  # fmt: skip
_COLUMNS = ["id", "change", "field", "from", "to"]


@command(examples=[
    "kinshelf history",
    "kinshelf history --limit 3 --json",
    "kinshelf history --generations",
])  # fmt: skip
@option("--limit", type=click.IntRange(1), show_default="all",
        help="List only so many of the newest.")  # fmt: skip
@option("--generations", is_flag=True,
        help="List every generation: a command that adds many products makes several.")  # fmt: skip
@shelf_options
def history(output: Output, limit: int | None, generations: bool) -> None:
    """List what was done to the shelf, newest first: who ran which command, and its counts.

    `kinshelf undo` takes an operation back while the state before it is kept, `--at` asks for a
    generation.
    """
    from kinshelf.commands.terminal.tables import rows_table
    from kinshelf.store.operations.history import IN_PART

    with output.open() as shelf:
        found = shelf.history(limit) if generations else shelf.operations(limit)
    if output.as_json:
        for row in found:
            output.emit(row)
    else:
        names = list(found[0] if found else ()) if generations else list(_OPERATION)
        in_part = {r["generation"]: IN_PART for r in found if r["command"].endswith(IN_PART)}
        rows = [row | {"time": row["time"][:16].replace("T", " ")} for row in found]
        for row in rows:
            if by := row.get("undone_by"):
                row["undone_by"] = f"{by}{in_part.get(by, '')}"
        output.console().print(rows_table(names, rows))
        if not found:
            output.say("nothing was done yet: `kinshelf add products.csv` adds products")


@command(examples=["kinshelf diff 3", "kinshelf diff 3 5 --json", "kinshelf diff 3 -o diff.csv"])
@click.argument("before", type=click.IntRange(0), metavar="GENERATION")
@click.argument("after", type=click.IntRange(0), required=False, metavar="[GENERATION]")
@option("-o", "--output", "file", type=PATH, metavar="FILE",
        help="Write a line for each field that differs to this .csv or .jsonl file.")  # fmt: skip
@shelf_options
def diff(output: Output, before: int, after: int | None, file: Path | None) -> None:
    """List the products added, removed and changed between two generations, field by field.

    Without a second generation, the newest is compared.
    """
    if file is not None and file.suffix.lower() not in (".csv", ".jsonl"):
        raise InputError(f"cannot write {file.name!r}: name a .csv or .jsonl file")
    counted: Counter[str] = Counter()
    with output.open() as shelf:
        found = _counted(shelf.diff(before, after), counted)
        if file is not None:
            _write(file, found)
            output.say(f"wrote {file}")
        elif output.as_json:
            for change in found:
                output.emit(change.as_dict())
        else:
            _print(output, found)
    output.say(", ".join(f"{counted[name]} {name}" for name in ("added", "removed", "changed")))


def _counted(found: Iterator[Change], counted: Counter[str]) -> Iterator[Change]:
    for change in found:
        counted[change.kind] += 1
        yield change


def _lines(change: Change) -> Iterator[dict[str, Any]]:
    plain = {"id": change.id, "change": change.kind}
    if change.kind != "changed":
        yield plain
        return
    for name, (one, two) in change.fields.items():
        yield plain | {"field": name, "from": one, "to": two}


def _write(file: Path, found: Iterator[Change]) -> None:
    with written(file) as target, target.open("w", newline="", encoding="utf-8") as stream:
        if file.suffix.lower() == ".jsonl":
            for change in found:
                stream.write(json.dumps(change.as_dict(), ensure_ascii=False) + "\n")
            return
        writer = csv.DictWriter(stream, _COLUMNS, lineterminator="\n")
        writer.writeheader()
        for change in found:
            writer.writerows(_lines(change))


def _print(output: Output, found: Iterator[Change]) -> None:
    from kinshelf.commands.terminal.tables import rows_table

    rows: list[dict[str, Any]] = []
    more = 0
    for change in found:
        if len(rows) < _SHOWN:
            rows += [{name: line.get(name) for name in _COLUMNS} for line in _lines(change)]
        else:
            more += 1
    output.console().print(rows_table(_COLUMNS, rows))
    if more:
        output.say(f"and {more} more products: -o FILE lists all")


@command(examples=["kinshelf undo", "kinshelf undo 4 --json"])
@click.argument("operation", type=click.IntRange(1), required=False, metavar="[OPERATION]")
@shelf_options
def undo(output: Output, operation: int | None) -> None:
    """Take an operation back, as a new one; without a number the newest that stands.

    Products get every field and embedding back as they were. Fields that later operations changed
    too are left, and listed. An undo is an operation: name its number to take it back.
    """
    with output.open() as shelf:
        report = shelf.undo(operation)
    if output.as_json:
        output.emit(report.as_dict())
    for name, fields in list(report.left.items())[:_SHOWN]:
        output.warn(f"{name}: {', '.join(fields)} left, changed since by a later operation")
    if report.left:
        output.say(
            "once the later operations are taken back,"
            f" `kinshelf undo {report.operation}` takes back the rest"
        )
    output.say(
        f"operation {report.operation} ({report.command}) taken back:"
        f" {report.changed} changed back, {report.restored} restored, {report.removed} removed,"
        f" {len(report.left)} left;"
        f" generation {report.generation}"
    )
