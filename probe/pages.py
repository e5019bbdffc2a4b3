"""HTML pages: self-contained, without scripts, and with all that comes from users shown as text."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"


class PictureUris(Protocol):
    """Where a page gets its pictures from."""

    def uri(self, image: str | None) -> str | None:
        """What `src` is for a product's picture, or None where it cannot be shown."""

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


def percent(value: float, digits: int = 1) -> str:
    """0.973 as "97.3 %"; never 100 % for what is not quite 1, nor 0 for what is more than 0."""
    scale = 10**digits
    shown = round(value * 100 * scale) / scale
    if shown in (0, 100) and value not in (0, 1):
        shown = 100 - 1 / scale if shown else 1 / scale
        return f"{'>' if value > 0.5 else '<'} {shown:.{digits}f} %"
    return f"{shown:.{digits}f} %"


def fixed(value: float | None, digits: int = 2) -> str:
    """A number with so many digits, a dash for None or NaN."""
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def points(pairs: list[tuple[float, float]], width: float = 100, height: float = 100) -> str:
    """Points in the unit square as those of an SVG polyline, y upwards."""
    return " ".join(f"{x * width:.2f},{(1 - y) * height:.2f}" for x, y in pairs)
