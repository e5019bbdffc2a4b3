"""The options that commands share, and the types of their values."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from kinshelf.commands.help import COMMON, option
from kinshelf.commands.terminal.output import Output
from kinshelf.db.product import POOLINGS

DEFAULT_SHELF = "kin.shelf"
PATH = click.Path(path_type=Path)


class _Address(click.ParamType["Path | str"]):
    """A file or directory, as a Path; what has a scheme, and `also`, as text."""

    name = "address"

    def __init__(self, also: str = "") -> None:
        self.also = also

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and ("://" in value or value == self.also):
            return value
        return PATH.convert(value, param, ctx)


ADDRESS = _Address()
ANY_SOURCE = _Address("-")
"""A file, a folder, a URL, or standard input."""


class Number(click.FloatRange):
    """A number within a range; click's own takes NaN, which is in none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        found = super().convert(value, param, ctx)
        if math.isnan(found):
            self.fail(f"{value} is not a number that can be compared with.", param, ctx)
        return found


class Share(click.ParamType[float]):
    """A share, as 0.05 or 5%."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        text = str(value).strip()
        try:
            found = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            found = math.nan
        if not 0 <= found <= 1:
            self.fail(f"{value!r} is no share: write it as 5% or 0.05.", param, ctx)
        return found


WAIT = Number(0)
"""Seconds to wait for another writer; inf is for as long as it takes."""

PRECISIONS = ("float32", "bf16", "int8")
ENCODER = "Encoder"
SOURCE = "Reading the source"
QUERY = "What is asked about"
NEIGHBOURS = "Neighbours"
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def shelf_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --shelf, --json and --quiet; the command gets an `Output` as its first argument."""
    return option(
        "--shelf", "shelf_path", type=ADDRESS, envvar="KINSHELF_SHELF", default=DEFAULT_SHELF,
        group=COMMON,
        help="The shelf's directory, or its address in a database. The variable KINSHELF_SHELF"
        " sets it too.",
    )(print_options(command))  # fmt: skip


def print_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --json and --quiet; the parameter `shelf_path` goes into the `Output`."""

    @option("--json", "as_json", is_flag=True, group=COMMON, help="Print JSON lines on stdout.")
    @option("--quiet", is_flag=True, group=COMMON,
            help="Print no progress and no summary on stderr.")  # fmt: skip
    @functools.wraps(command)
    def run(shelf_path: Path | str, as_json: bool, quiet: bool, **arguments: Any) -> Any:
        return command(Output(shelf_path, as_json, quiet), **arguments)

    return run


at_option = option(
    "--at", type=click.IntRange(0), metavar="GENERATION", show_default="the newest",
    help="Read this generation of the shelf. `kinshelf history` lists those that can be read.",
)  # fmt: skip
probe_option = option(
    "--probe", type=int, metavar="VERSION", show_default="the newest",
    help="Use this version of the probe.",
)  # fmt: skip
private_option = option(
    "--allow-private-hosts", is_flag=True, group=SOURCE,
    help="Fetch images from private and loopback addresses too.",
)  # fmt: skip


def wait_option(seconds: float = 0.0) -> Decorator:
    """Adds --wait: the seconds that a write waits for another writer."""
    return option("--wait", type=WAIT, default=seconds, metavar="SECONDS",
                  help="Wait so long for another writer to finish.")  # fmt: skip


def encoder_options(default: str, precision: str, pictures: str) -> Decorator:
    """Adds --encoder, --revision, --precision and --pictures; the texts name what is taken
    without them."""
    return together(
        option("--encoder", group=ENCODER, show_default=default,
               help="Use this CLIP model: its id on the Hugging Face hub, or its directory."),
        option("--revision", group=ENCODER, show_default="the newest",
               help="Take this commit, tag or branch of the model on the hub."),
        option("--precision", type=click.Choice(PRECISIONS), group=ENCODER, show_default=precision,
               help="Compute embeddings in this arithmetic. int8 is the fastest and nearly as"
               " exact as float32."),
        option("--pictures", type=click.Choice(POOLINGS), group=ENCODER, show_default=pictures,
               help="Of products with several pictures embed the first, or all and keep their"
               " mean."),
    )  # fmt: skip


def together(*decorators: Decorator) -> Decorator:
    """Several options as one decorator, in this order."""

    def add_all(command: Callable[..., Any]) -> Callable[..., Any]:
        for decorate in reversed(decorators):
            command = decorate(command)
        return command

    return add_all


def mapping_of(_context: click.Context, _option: click.Parameter, values: Sequence[str]) -> Any:
    """The pairs of --map FIELD="COLUMN" over those of --mapping; a field given again has both."""
    from kinshelf.db.layouts.templates import joined

    pairs: dict[str, list[str]] = {}
    for value in values:
        name, _, column = value.partition("=")
        if not name or not column:
            raise click.BadParameter(f'{name!r}: write it as FIELD="Column Name"')
        pairs.setdefault(name, []).append(column)
    given = {name: joined(name, columns) for name, columns in pairs.items()}
    return {**_context.meta.get(_SAVED, {}), **given}


_SAVED = "kinshelf.mapping"


def _load(context: click.Context, _option: click.Parameter, path: Path | None) -> None:
    """Have the options that are not given come from a file that `--save-mapping` wrote."""
    if path is not None:
        from kinshelf.db.layouts.saved import load_mapping

        saved = load_mapping(path)
        context.meta[_SAVED] = saved.mapping
        context.default_map = {**(context.default_map or {}), **saved.reading}


map_option = option(
    "--map", "mapping", multiple=True, callback=mapping_of, metavar='FIELD="COLUMN"',
    group=SOURCE, show_default="columns are recognised by name",
    help='Read this field from that column, such as title="Product Name", or from several, such as'
    ' title="{brand} {name}" or image="images/{id}.jpg". It can be repeated.',
)  # fmt: skip
images_option = option(
    "--images", type=PATH, metavar="FOLDER", group=SOURCE, show_default="the source's folder",
    help="Look for relative image paths in this folder.",
)  # fmt: skip
delimiter_option = option(
    "--delimiter", group=SOURCE, show_default="recognised",
    help="Split the columns of a CSV file at this character.",
)  # fmt: skip


def _limit(context: click.Context, parameter: click.Parameter, value: int | None) -> None:
    """Have the pictures of this command decoded within another limit."""
    if value is not None:
        from kinshelf.db.images.decode import limits

        context.with_resource(limits(**{str(parameter.name): value}))


limit_options = together(
    option("--max-pixels", "pixels", type=click.IntRange(1), group=SOURCE, callback=_limit,
           expose_value=False, show_default="50000000",
           help="Reject pictures of more pixels. JPEGs of up to four times as many are reduced."),
    option("--max-image-bytes", "size", type=click.IntRange(1), group=SOURCE, callback=_limit,
           expose_value=False, show_default="50000000",
           help="Reject pictures whose files have more bytes."),
    option("--min-side", "side", type=click.IntRange(0), group=SOURCE, callback=_limit,
           expose_value=False, show_default="50",
           help="Reject pictures with a shorter side of fewer pixels."),
)  # fmt: skip
encoding_option = option(
    "--encoding", group=SOURCE, show_default="recognised",
    help="Read a text file in this encoding, such as utf-8, utf-16, cp1252, shift_jis or gbk.",
)  # fmt: skip
source_options = together(
    map_option,
    option("--mapping", "saved", type=PATH, metavar="FILE", group=SOURCE, is_eager=True,
           expose_value=False, callback=_load,
           help="Read the source as this file states, which `add --save-mapping` writes."),
    images_option,
    option("--image-by-id", type=PATH, metavar="FOLDER", group=SOURCE,
           help="Take the pictures of this folder that are named by the products' ids, such as"
           " ID.jpg and ID_2.jpg."),
    delimiter_option, encoding_option, limit_options,
    option("--skip-rows", type=click.IntRange(0), group=SOURCE, show_default="recognised",
           help="Pass over so many rows above the header of a table."),
    option("--sheet", group=SOURCE, metavar="NAME", show_default="the first",
           help="Read this sheet of a spreadsheet."),
    option("--image-embeddings", type=PATH, metavar="FILE", group=SOURCE,
           show_default="the encoder makes them",
           help="Take the images' embeddings from this .npy file. Its row i belongs to row i of"
           " the source."),
    option("--text-embeddings", type=PATH, metavar="FILE", group=SOURCE,
           show_default="the encoder makes them",
           help="Take the texts' embeddings from this .npy file. Its row i belongs to row i of"
           " the source."),
    private_option,
    option("--batch-size", type=click.IntRange(1), group=SOURCE,
           show_default="64, or 4096 with supplied embeddings",
           help="Take so many products at a time. `add` commits each batch."),
)  # fmt: skip
"""The options that tell how a source of products is read."""

image_option = option("--image", group=QUERY, metavar="PICTURE",
                      help="Ask about this picture: a path or a URL.")  # fmt: skip
text_option = option("--text", group=QUERY,
                     help="Ask about this text: a title, or title and description.")  # fmt: skip
input_option = option("--input", "source", type=PATH, metavar="FILE", group=QUERY,
                      help="Ask about every product of this file.")  # fmt: skip
where_option = option("--where", metavar="CONDITION", group=NEIGHBOURS,
                      show_default="every product",
                      help="Take only neighbours that match this SQL condition.")  # fmt: skip


def _names(_context: click.Context, _option: click.Parameter, value: str | None) -> tuple[str, ...]:
    """The names of a list with commas."""
    return tuple(name for each in (value or "").split(",") if (name := each.strip()))


facets_option = option(
    "--facets", callback=_names, metavar="COLUMN,COLUMN", group="What is shown",
    help="Count the values of these columns or attributes among the products that match --where.",
)  # fmt: skip


stem_option = option(
    "--stem", metavar="LANGUAGE",
    help="Search for words by their stem in this language, such as english: bears finds bear.",
)  # fmt: skip


def k_option(default: int | None, shown: str | bool = True) -> Decorator:
    """Adds -k; `shown` tells what is taken where there is no number as default."""
    return option("-k", type=click.IntRange(1), default=default, show_default=shown,
                  group=NEIGHBOURS, help="Look at so many neighbours.")  # fmt: skip
