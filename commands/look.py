"""Commands that only read: show, list, info, sql, history, verify."""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING, Any

import click

from kinshelf.commands.common import Output, shelf_options

if TYPE_CHECKING:
    from kinshelf.db.queries import StoredProduct


def _as_dict(stored: StoredProduct) -> dict[str, Any]:
    from kinshelf.store.exporting import COLUMNS

    product = {name: getattr(stored.product, name) for name in COLUMNS}
    rest = ("row", "has_image", "has_text", "image_error", "added")
    return (
        product
        | {"attributes": stored.product.attributes}
        | {name: getattr(stored, name) for name in rest}
    )


@click.command()
@click.argument("product_id", metavar="ID")
@shelf_options
def show(output: Output, product_id: str) -> None:
    """Show all that the shelf knows of one product."""
    from kinshelf.commands.terminal import fields_table

    with output.open() as shelf:
        found = _as_dict(shelf.snapshot().get(product_id))
    if output.as_json:
        output.emit(found)
    else:
        attributes = found.pop("attributes")
        output.console().print(fields_table(found | attributes))


@click.command("list")
@click.option("--where", help="An SQL condition, such as \"price < 20 AND brand = 'Lego'\".")
@click.option("--limit", type=click.IntRange(1), help="At most so many; 50 for a table.")
@click.option("--offset", type=click.IntRange(0), default=0, help="Leave out the first so many.")
@shelf_options
def list_products(output: Output, where: str | None, limit: int | None, offset: int) -> None:
    """List products, in the order in which they were added."""
    from kinshelf.commands.terminal import products_table

    with output.open() as shelf:
        now = shelf.snapshot()
        shown = limit if limit or output.as_json else 50
        found = now.select(where, limit=shown, offset=offset)
        total = now.view.count(now.filter(where))
    if output.as_json:
        for stored in found:
            output.emit(_as_dict(stored))
        return
    output.console().print(products_table(found))
    output.say(f"{len(found)} of {total}" + ("; more with --limit" if len(found) < total else ""))


@click.command()
@shelf_options
def info(output: Output) -> None:
    """What the shelf holds: counts, categories, encoder, probes, rejects."""
    from kinshelf.commands.terminal import info_tables

    with output.open() as shelf:
        found = shelf.info()
    if output.as_json:
        output.emit(found)
    else:
        output.console().print(info_tables(found))


@click.command()
@click.argument("query")
@shelf_options
def sql(output: Output, query: str) -> None:
    """Answer one read-only SQL query over products, commits, rejects and probes."""
    from kinshelf.commands.terminal import rows_table

    with output.open() as shelf:
        table = shelf.sql(query)
        rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    if output.as_json:
        for row in rows:
            output.emit(row)
    else:
        output.console().print(rows_table(table.columns, rows))


@click.command()
@click.option("--limit", type=click.IntRange(1), help="The newest so many.")
@shelf_options
def history(output: Output, limit: int | None) -> None:
    """List the shelf's generations, newest first."""
    from kinshelf.commands.terminal import rows_table

    with output.open() as shelf:
        found = shelf.snapshot().view.commits(limit)
    if output.as_json:
        for row in found:
            output.emit(row)
    else:
        names = list(found[0]) if found else ["generation"]
        output.console().print(rows_table(names, found))


@click.command()
@shelf_options
def verify(output: Output) -> None:
    """Check every layer of the shelf; exits with 1 if damage was found."""
    from kinshelf.store.verify import verify_path

    findings, generation = verify_path(output.path)
    for finding in findings:
        if output.as_json:
            output.emit(dataclasses.asdict(finding))
        else:
            click.echo(f"{finding.file}: {finding.problem}. Remedy: {finding.remedy}.")
    if findings:
        sys.exit(1)
    output.say(f"{output.path}: generation {generation}, no damage found")
