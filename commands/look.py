"""Commands that only read: show, list, info, sql, history."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import click

from kinshelf.commands.common import Output, at_option, shelf_options


@click.command()
@click.argument("product_id", metavar="ID")
@at_option
@shelf_options
def show(output: Output, product_id: str, at: int | None) -> None:
    """Show all that the shelf knows of one product."""
    from kinshelf.commands.terminal.tables import fields_table

    with output.open() as shelf:
        found = shelf.snapshot(at).get(product_id).as_dict()
    if output.as_json:
        output.emit(found)
    else:
        attributes = found.pop("attributes")
        output.console().print(fields_table(found | attributes))


@click.command("list")
@click.option("--where", help="An SQL condition, such as \"price < 20 AND brand = 'Lego'\".")
@click.option("--limit", type=click.IntRange(1), help="At most so many; 50 for a table.")
@click.option("--offset", type=click.IntRange(0), default=0, help="Leave out the first so many.")
@at_option
@shelf_options
def list_products(
    output: Output, where: str | None, limit: int | None, offset: int, at: int | None
) -> None:
    """List products, in the order in which they were added."""
    from kinshelf.commands.terminal.tables import products_table

    with output.open() as shelf:
        now = shelf.snapshot(at)
        shown = limit if limit or output.as_json else 50
        found = now.select(where, limit=shown, offset=offset)
        total = now.view.count(now.filter(where))
    if output.as_json:
        for stored in found:
            output.emit(stored.as_dict())
        return
    output.console().print(products_table(found))
    more = offset + len(found) < total
    output.say(f"{len(found)} of {total}" + ("; more with --limit" if more else ""))


@click.command()
@click.option("--recall", is_flag=True, help="Measure the index now against exact search.")
@at_option
@shelf_options
def info(output: Output, at: int | None, recall: bool) -> None:
    """What the shelf holds: counts, categories, encoder, index, probes, rejects."""
    from kinshelf.commands.terminal.tables import info_tables
    from kinshelf.probe.predict.freshness import told_facts

    with output.open() as shelf:
        facts, trouble = told_facts(shelf, at)
        found = shelf.info(at, recall=recall) | facts
    if trouble:
        output.warn(f"warning: {trouble}")
    if output.as_json:
        output.emit(found)
    else:
        lines = _index_lines(found["index"]) | _probe_lines(found)
        output.console().print(info_tables(found | lines))


def _probe_lines(found: dict[str, Any]) -> dict[str, str | None]:
    """The newest probe in words: what came since it was trained, and its policy."""
    from kinshelf.probe.predict.wording import freshness_lines, policy_line

    since, policy = found["since_training"], found["policy"]
    lines: dict[str, str | None] = {} if since is None else dict(freshness_lines(since))
    return lines | {"policy": policy and policy_line(policy)}


def _index_lines(index: dict[str, Any]) -> dict[str, str]:
    """The index in words; what it was measured when it was built, and now."""
    lines = {"index": "exact: every product is scored"}
    if index["kind"] != "exact":
        tuned = "; ".join(
            f"{kind} {found['recall@10']:.3f} (efSearch {found['efSearch'] or 'too high: exact'})"
            for kind, found in index["queries"].items()
        )
        size = f"{index['bytes'] / 1e6:,.0f} MB, {index['tail']} newer rows beside it"
        lines = {"index": f"{index['kind']} of {index['rows']} rows, {size}"}
        lines["recall@10 when built"] = tuned
    if index["due"]:
        lines["index"] += "; the next change builds it anew"
    if now := index.get("measured"):
        lines[f"recall@{now['k']} now"] = (
            f"{now['recall']:.4f} of {now['queries']} queries, {now['milliseconds']:.2f} ms each"
        )
    return lines


@click.command()
@click.argument("query")
@shelf_options
def sql(output: Output, query: str) -> None:
    """Answer one read-only SQL query over products, commits, rejects and probes."""
    from kinshelf.commands.terminal.tables import rows_table

    with output.open() as shelf:
        table = shelf.sql(query)
        names = distinct(table.columns)
        rows = (dict(zip(names, row, strict=True)) for row in table.rows)
        if output.as_json:
            for row in rows:  # as they come: they may be more than the memory holds
                output.emit(row)
        else:
            output.console().print(rows_table(names, list(rows)))


def distinct(names: Sequence[str]) -> list[str]:
    """Column names with those that come again numbered: a JSON object needs different keys."""
    seen: Counter[str] = Counter()
    found = []
    for name in names:
        seen[name] += 1
        found.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return found


@click.command()
@click.option("--limit", type=click.IntRange(1), help="The newest so many.")
@shelf_options
def history(output: Output, limit: int | None) -> None:
    """List the shelf's generations, newest first, and which of them --at can ask for."""
    from kinshelf.commands.terminal.tables import rows_table

    with output.open() as shelf:
        found = shelf.history(limit)
    if output.as_json:
        for row in found:
            output.emit(row)
    else:
        names = list(found[0]) if found else ["generation"]
        output.console().print(rows_table(names, found))
