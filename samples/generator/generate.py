"""Write the sample catalogue: `python -m kinshelf.samples.generator.generate --out DIR --seed 7`.

The same seed gives the same bytes, given the same versions of NumPy and Pillow.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kinshelf.samples.generator import rows as catalogue

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from kinshelf.samples.generator.rows import Row

SEED = 7
"""The seed of the catalogue that the package carries."""

COLUMNS = (
    "id", "title", "description", "category", "price", "brand", "image", "split",
    "colour", "material", "age", "pieces",
)  # fmt: skip


def build(seed: int = SEED, share: float = 1.0) -> dict[str, bytes]:
    """Every file of the catalogue, by its path relative to the catalogue's directory.

    `share` scales the number of products in products.csv; the other two tables keep their size.
    """
    shop = catalogue.products(seed, share)
    held_out, new_categories = catalogue.incoming(seed), catalogue.new_categories(seed)
    everything = [*shop, *held_out, *new_categories]
    files = {f"images/{row.id}.jpg": row.picture for row in everything if row.picture}
    files["products.csv"] = _table(COLUMNS, map(_cells, shop))
    files["incoming.csv"] = _table(
        (*COLUMNS, "true_category"), ([*_cells(row), row.truth] for row in held_out)
    )
    files["new_category.csv"] = _table(COLUMNS, map(_cells, new_categories))
    truth = ([row.id, row.truth, " ".join(row.notes)] for row in everything)
    files["truth.csv"] = _table(("id", "true_category", "note"), truth)
    return files


def write(files: dict[str, bytes], out: Path) -> None:
    """Write the files under a directory, which is made where it does not exist."""
    for name, content in files.items():
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _cells(row: Row) -> list[str]:
    item = row.item
    facts = [item.colour, item.material, *("" if n is None else str(n) for n in _numbers(row))]
    image = f"images/{row.id}.jpg" if row.picture else ""
    words = [row.id, row.title, row.description, row.category]
    return [*words, f"{item.price:.2f}", item.brand, image, row.split, *facts]


def _numbers(row: Row) -> Iterator[int | None]:
    yield row.item.age
    yield row.item.pieces


def _table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> bytes:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(lines)
    return buffer.getvalue().encode()


@click.command()
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True)
@click.option("--seed", type=click.IntRange(min=0), default=SEED, show_default=True)
@click.option("--share", type=click.FloatRange(0.05, 10), default=1.0, show_default=True)
def main(out: Path, seed: int, share: float) -> None:
    """Draw the sample catalogue into a directory."""
    files = build(seed, share)
    write(files, out)
    size = sum(map(len, files.values()))
    click.echo(f"{len(files)} files, {size / 1e6:.2f} MB, in {out}", err=True)


if __name__ == "__main__":
    main()
