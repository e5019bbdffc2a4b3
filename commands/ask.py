"""The two questions: what is it, and what does it resemble."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kinshelf.commands.common import PATH, Number, Output, at_option, progress, shelf_options
from kinshelf.commands.ingest import source_options
from kinshelf.db.errors import InputError
from kinshelf.store.query import Query

if TYPE_CHECKING:
    from kinshelf.face import Shelf
    from kinshelf.probe.pages.card import Asked
    from kinshelf.store.results import SearchResult

K_HELP = "How many neighbours."
WHERE_HELP = "Only neighbours that match this SQL condition."


@click.command()
@click.option("--image", help="Path or URL of a picture.")
@click.option("--text", help="Title, or title and description.")
@click.option("--input", "source", type=PATH, help="A file of products, one answer each.")
@source_options
@click.option("-k", type=click.IntRange(1), help=K_HELP)
@click.option("--where", help=WHERE_HELP)
@click.option("--probe", type=int, help="Version of the probe; the newest otherwise.")
@at_option
@click.option("--html", type=PATH, help="Also write the evidence here, as a page with pictures.")
@shelf_options
def classify(
    output: Output,
    image: str | None,
    text: str | None,
    source: Path | None,
    html: Path | None,
    **settings: Any,
) -> None:
    """Predict the category, with its probability and the products that vouch for it."""
    if (source is None) == (image is None and text is None):
        raise click.UsageError("give --image, --text or both, or else --input FILE")
    probe: int | None = settings.pop("probe")
    how = {name: settings.pop(name) for name in ("k", "where", "at")}
    query = Query(image, text, allow_private_hosts=settings["allow_private_hosts"], **how)
    if html is not None and not html.parent.is_dir():
        raise InputError(f"there is no folder {html.parent}: make it first")
    with output.open() as shelf:
        if source is None:
            page = _classify_one(output, shelf, query, probe)
        else:
            keep = html is not None
            page = _classify_many(output, shelf, source, settings, query, probe, keep=keep)
        if html is not None:
            _write_card(output, shelf, html, page.asked)
    if page.rejected:
        sys.exit(1)


@dataclass(slots=True)
class _Answered:
    """What a page is to show, and how many rows had no answer."""

    asked: list[Asked] = field(default_factory=list)
    rejected: int = 0


def _classify_one(output: Output, shelf: Shelf, query: Query, probe: int | None) -> _Answered:
    from kinshelf.commands.terminal.card import evidence_card
    from kinshelf.probe.pages.card import Asked
    from kinshelf.probe.predict.predictor import classify as classify_one

    found = classify_one(shelf, query, probe=probe)
    if output.as_json:
        output.emit(found.as_dict())
    else:
        output.console().print(evidence_card(found))
    image = query.image if isinstance(query.image, str) else None
    return _Answered([Asked(found, image, query.text or "")])


def _classify_many(
    output: Output,
    shelf: Shelf,
    source: Path,
    settings: dict[str, Any],
    query: Query,
    probe: int | None,
    *,
    keep: bool,
) -> _Answered:
    from kinshelf.commands.terminal.card import answers_table
    from kinshelf.probe.pages.card import Asked
    from kinshelf.probe.predict.predictor import classify_source
    from kinshelf.store import AddOptions

    whole = _Answered()
    with progress(output, f"classifying {source.name}", None) as update:
        done = 0
        options = AddOptions(**settings)
        for batch, found in classify_source(shelf, source, options, query, probe=probe):
            for answer in found:
                if output.as_json:
                    output.emit(answer.as_dict())
            if not output.as_json:
                output.console().print(answers_table(batch.products, found))
            for reject in batch.rejects:
                output.warn(f"row {reject.position}: {reject.message}")
            whole.rejected += sum(not reject.kept for reject in batch.rejects)
            if keep:
                whole.asked += [
                    Asked(answer, product.image, product.title)
                    for product, answer in zip(batch.products, found, strict=True)
                ]
            done += len(found)
            update(done, "")
    output.say(f"{done} classified, {whole.rejected} rejected")
    return whole


def _write_card(output: Output, shelf: Shelf, html: Path, asked: list[Asked]) -> None:
    from kinshelf.probe.pages.card import card_page
    from kinshelf.probe.pages.thumbnails import Thumbnails

    page = card_page(asked, Thumbnails(shelf.path / "images"))
    html.write_text(page, encoding="utf-8", errors="replace")  # what was asked may be no text
    output.say(f"wrote {html}")


@click.command()
@click.option("--id", "product_id", help="A product on the shelf.")
@click.option("--image", help="Path or URL of a picture.")
@click.option("--text", help="Title, or title and description.")
@click.option("--input", "source", type=PATH, help="A file of products, one answer each.")
@source_options
@click.option("-k", type=click.IntRange(1), default=10, show_default=True, help=K_HELP)
@click.option("--where", help=WHERE_HELP)
@click.option("--weight-image", type=Number(0, 1), default=0.5, show_default=True,
              help="How much the picture counts; the text counts the rest.")  # fmt: skip
@at_option
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
    ways = (product_id is not None, image is not None or text is not None, source is not None)
    if sum(ways) != 1:
        raise click.UsageError("give --id, or --image, --text or both, or else --input FILE")
    how = {name: settings.pop(name) for name in ("k", "where", "weight_image", "at")}
    private = settings["allow_private_hosts"]
    query = Query(image, text, product_id, allow_private_hosts=private, **how)
    with output.open() as shelf:
        if source is not None:
            rejected = _similar_to_many(output, shelf, source, settings, query)
        else:
            rejected = 0
            _show_similar(output, shelf.similar(query))
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


def _similar_to_many(
    output: Output, shelf: Shelf, source: Path, settings: dict[str, Any], query: Query
) -> int:
    """One answer a product; how many rows had none."""
    from kinshelf.commands.terminal.card import nearest_table
    from kinshelf.store import AddOptions
    from kinshelf.store.ingest.queries import similar_source

    done = rejected = 0
    with progress(output, f"searching for {source.name}", None) as update:
        for batch, found in similar_source(shelf, source, AddOptions(**settings), query):
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
