"""HTML pages: self-contained, without scripts, and with all that comes from users shown as text."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from kinshelf.db.text import fixed, percent

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"


class PictureUris(Protocol):
    """The source of a page's pictures."""

    def uri(self, image: str | None) -> str | None:
        """The `src` of a product's picture, or None where it cannot be shown."""

    def problem(self, image: str | None) -> str:
        """Why it cannot be shown, in a few words; "" if it can."""


def render(template: str, **values: Any) -> str:
    """A page from one of the templates; values are escaped."""
    return environment().get_template(template).render(**values)


@functools.cache
def environment() -> Environment:
    """Jinja2 with autoescape, strict about names that do not exist."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(percent=percent, fixed=fixed, points=points)
    return made


def points(pairs: list[tuple[float, float]], width: float = 100, height: float = 100) -> str:
    """Points in the unit square as those of an SVG polyline, y upwards."""
    return " ".join(f"{x * width:.2f},{(1 - y) * height:.2f}" for x, y in pairs)
