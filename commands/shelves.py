"""The commands that make a shelf and read it: init, show, list, info, sql, history."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import click

from kinshelf.commands.help import command, option
from kinshelf.commands.options import (
    at_option,
    encoder_options,
    facets_option,
    shelf_options,
    stem_option,
)
from kinshelf.commands.terminal.output import Output, show_facets
from kinshelf.db.product import pictures_of


@command(examples=[
    "kinshelf init",
    "kinshelf init --shelf toys.shelf --precision int8",
    "kinshelf init --encoder openai/clip-vit-large-patch14 --shelf large.shelf",
])  # fmt: skip
@encoder_options(
    "openai/clip-vit-base-patch32", "bf16 where the processor has it, else float32", "mean"
)
@shelf_options
def init(output: Output, **settings: str | None) -> None:
    """Make an empty shelf for the embeddings of one CLIP model.

    The model is fetched once, when the first products are added.
    """
    from kinshelf.face import create

    with create(output.address, **settings) as shelf:
        made = {"shelf": shelf.name, "encoder": shelf.manifest.encoder}
    if output.as_json:
        output.emit(made)
    else:
        output.say(f"made {made['shelf']} for embeddings of {made['encoder']}")
        output.say(f"next: kinshelf add products.csv --shelf {made['shelf']}")


@command(examples=["kinshelf show KS-0116", "kinshelf show KS-0116 --json"])
@click.argument("product_id", metavar="ID")
@at_option
@shelf_options
def show(output: Output, product_id: str, at: int | None) -> None:
    """Show one product with all its fields."""
    from kinshelf.commands.terminal.tables import fields_table

    with output.open() as shelf:
        stored = shelf.snapshot(at).get(product_id)
    found, pictures = stored.as_dict(), pictures_of(stored.product)
    if output.as_json:
        output.emit(found | ({"pictures": pictures} if len(pictures) > 1 else {}))
    else:
        attributes = found.pop("attributes")
        if len(pictures) > 1:
            del attributes["images"]
            found["image"] = "\n".join(pictures)
        output.console().print(fields_table(found | attributes))


@command("list", examples=[
    'kinshelf list --where "price < 20 AND category IS NOT NULL"',
    'kinshelf list --search "bear -brown" --limit 5 --facets category,price',
    "kinshelf list --json",
])  # fmt: skip
@option("--where", metavar="CONDITION", show_default="every product",
        help="List only products that match this SQL condition.")  # fmt: skip
@option("--limit", type=click.IntRange(1), show_default="50 in a table, all with --json",
        help="List at most so many products.")  # fmt: skip
@option("--offset", type=click.IntRange(0), default=0, help="Leave out the first so many.")
@option("--search", metavar="WORDS", show_default="every product",
        help='List only products that have all these words, the best first; -brown leaves out what'
        ' has "brown".')  # fmt: skip
@stem_option
@facets_option
@at_option
@shelf_options
def list_products(
    output: Output,
    where: str | None,
    search: str | None,
    stem: str | None,
    limit: int | None,
    offset: int,
    at: int | None,
    facets: tuple[str, ...],
) -> None:
    """List products, in the order in which they were added."""
    from kinshelf.commands.terminal.tables import products_table
    from kinshelf.store.similar.listing import products

    if search is not None and not search.strip():
        raise click.UsageError("--search is empty: give words, such as 'bear -brown'")
    with output.open() as shelf:
        shown = limit if limit or output.as_json else 50
        now = shelf.snapshot(at)
        listed = products(
            now, where, search=search, stem=stem, limit=shown, offset=offset, facets=facets
        )
    found, total = listed.products, listed.total
    if output.as_json:
        for stored in found:
            output.emit(stored.as_dict())
    else:
        output.console().print(products_table(found))
        more = offset + len(found) < total
        output.say(f"{len(found)} of {total}" + ("; more with --limit" if more else ""))
    show_facets(output, listed.facets)


@command(examples=["kinshelf info", "kinshelf info --recall", "kinshelf info --json"])
@option("--recall", is_flag=True, help="Measure the index now against exact search.")
@at_option
@shelf_options
def info(output: Output, at: int | None, recall: bool) -> None:
    """Describe the shelf: counts, categories, encoder, index, probes, rejects."""
    from kinshelf.commands.terminal.tables import info_tables
    from kinshelf.probe.predict.freshness import reported_facts

    with output.open() as shelf:
        facts, trouble = reported_facts(shelf, at)
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
        size = f"{index['bytes'] / 1e6:,.0f} MB, {index['tail']} unindexed rows"
        if index.get("unlinked"):
            size += f", {index['unlinked']} that nothing links to"
        lines = {"index": f"{index['kind']} of {index['rows']} rows, {size}"}
        lines["recall@10 when built"] = tuned
    if shortfall := index.get("shortfall"):
        lines["falls short"] = shortfall
    if index["due"]:
        lines["index"] += "; the next change builds it anew"
    if now := index.get("measured"):
        lines[f"recall@{now['k']} now"] = (
            f"{now['recall']:.4f} of {now['queries']} queries, {now['milliseconds']:.2f} ms each"
        )
    return lines


@command(examples=[
    'kinshelf sql "SELECT category, count(*) FROM products GROUP BY category"',
    'kinshelf sql "SELECT * FROM commits" --json',
])  # fmt: skip
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
