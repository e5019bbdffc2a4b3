"""The command that finds what a product resembles."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from kinshelf.commands.help import command, option
from kinshelf.commands.options import (
    NEIGHBOURS,
    QUERY,
    Number,
    at_option,
    facets_option,
    image_option,
    input_option,
    k_option,
    shelf_options,
    source_options,
    stem_option,
    text_option,
    where_option,
)
from kinshelf.commands.terminal.output import Output, say_how_read, show_facets
from kinshelf.commands.terminal.progress import progress, rows_of
from kinshelf.store.query import DIVERSE, Against, Mode, Query, Strategy

if TYPE_CHECKING:
    from kinshelf.face import Shelf
    from kinshelf.store.results import SearchResult


_HOW = (
    "k", "where", "weight_image", "at", "against", "like", "unlike", "strategy", "offset",
    "min_similarity", "one_per", "diverse", "facets", "mode", "weight_keywords", "stem",
)  # fmt: skip


@command(examples=[
    'kinshelf similar --text "red plush bear" --where "price < 20"',
    "kinshelf similar --like KS-0116 --like new.jpg --unlike KS-0003 --diverse",
    "kinshelf similar --input new_products.csv --json",
])  # fmt: skip
@option("--id", "product_id", metavar="ID", group=QUERY,
        help="Ask about the product with this id on the shelf.")  # fmt: skip
@image_option
@text_option
@option(
    "--like",
    multiple=True,
    metavar="EXAMPLE",
    group=QUERY,
    help="Ask about products like this one: an id, a picture or a text. It can be repeated.",
)
@option(
    "--unlike",
    multiple=True,
    metavar="EXAMPLE",
    group=QUERY,
    help="Ask about products unlike this one. It can be repeated.",
)
@option(
    "--strategy",
    type=click.Choice(get_args(Strategy)),
    default="average",
    group=QUERY,
    help="Look for what the examples have in common, or for what is near any of them.",
)
@option(
    "--against",
    type=click.Choice(get_args(Against)),
    group=QUERY,
    show_default="both of a text; a picture with pictures",
    help="Compare a text or a picture alone with the products' pictures, texts or both.",
)
@option(
    "--mode",
    type=click.Choice(get_args(Mode)),
    default="meaning",
    group=QUERY,
    help="Find by meaning, by the words of the text (BM25), or by both.",
)
@option(
    "--weight-keywords",
    type=Number(0, 1),
    default=0.5,
    group=QUERY,
    help="Give the words this weight in --mode hybrid. The meaning has the rest of 1.",
)
@stem_option
@input_option
@k_option(10)
@where_option
@option("--weight-image", type=Number(0, 1), default=0.5, group=NEIGHBOURS,
        help="Give the picture this weight. The text has the rest of 1.")  # fmt: skip
@option(
    "--min-similarity",
    type=Number(-1, 1),
    metavar="S",
    group=NEIGHBOURS,
    help="Leave out what is less similar.",
)
@option(
    "--one-per",
    metavar="COLUMN",
    group=NEIGHBOURS,
    help="Take the nearest of each value of this column or attribute alone.",
)
@option(
    "--diverse",
    type=Number(0, 1),
    is_flag=False,
    flag_value=DIVERSE,
    metavar="[LAMBDA]",
    group=NEIGHBOURS,
    help="Choose unlike ones among the 200 nearest (MMR). 1 is plain search; without a number"
    f" {DIVERSE}.",
)
@option(
    "--offset",
    type=click.IntRange(0),
    default=0,
    group=NEIGHBOURS,
    help="Leave out the first so many.",
)
@facets_option
@at_option
@source_options
@shelf_options
def similar(
    output: Output,
    product_id: str | None,
    image: str | None,
    text: str | None,
    source: Path | None,
    **settings: Any,
) -> None:
    """Find the products nearest to one on the shelf, or to a picture, a text or both."""
    how = {name: settings.pop(name) for name in _HOW}
    asked = image is not None or text is not None
    ways = (product_id is not None, asked, source is not None, bool(how["like"] or how["unlike"]))
    if sum(ways) != 1:
        raise click.UsageError(
            "give --id, or --image, --text or both, or --like, or else --input FILE"
        )
    private = settings["allow_private_hosts"]
    query = Query(image, text, product_id, allow_private_hosts=private, **how)
    with output.open() as shelf:
        if source is not None:
            rejected = _similar_to_many(output, shelf, source, settings, query)
        else:
            rejected = 0
            _show_similar(output, shelf.similar(query))
            _say_texts(output, shelf, query)
    if rejected:
        sys.exit(1)


def _show_similar(output: Output, found: SearchResult) -> None:
    from kinshelf.commands.terminal.card import neighbours_table

    if output.as_json:
        for neighbour in found.neighbours:
            output.emit(neighbour.as_dict())
    else:
        output.console().print(neighbours_table(found.neighbours))
        searched = "every product" if found.exhaustive else "an approximate index"
        output.say(f"generation {found.generation}, searched {searched}")
    show_facets(output, found.facets)


def _say_texts(output: Output, shelf: Shelf, query: Query) -> None:
    from kinshelf.store.similar.search import read_as_texts

    if texts := read_as_texts(shelf.snapshot(query.at), query):
        listed = ", ".join(map(repr, texts))
        output.say(f"{listed}: no product has this id, and no file this name; read as a text")


def _similar_to_many(
    output: Output, shelf: Shelf, source: Path, settings: dict[str, Any], query: Query
) -> int:
    """One answer a product; how many rows had none."""
    from kinshelf.commands.terminal.card import nearest_table
    from kinshelf.store import AddOptions
    from kinshelf.store.similar.search import similar_source

    done = rejected = 0
    options = AddOptions(**settings)
    say_how_read(output, source, delimiter=options.delimiter, encoding=options.encoding)
    total = rows_of(source, options)
    with progress(output, f"searching for {source.name}", total) as update:
        for batch, found in similar_source(shelf, source, options, query):
            if output.as_json:
                for product, answer in zip(batch.products, found, strict=True):
                    output.emit({"query": product.id} | answer.as_dict())
            else:
                output.console().print(nearest_table(batch.products, found))
            for reject in batch.rejects:
                output.warn(f"row {reject.position}: {reject.message}")
            rejected += sum(not reject.kept for reject in batch.rejects)
            done += len(found)
            update(done, "")
    output.say(f"{done} answered, {rejected} rejected")
    return rejected
