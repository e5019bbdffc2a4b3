"""A small drawing board: named colours, patterns, and shapes on a transparent canvas.

Coordinates run from 0 to 100 on both axes, whatever the canvas measures in pixels; the origin is
the top left corner. Nothing here is anti-aliased: pictures are drawn larger than they are kept.
"""

from __future__ import annotations

import colorsys
from typing import TYPE_CHECKING, TypeVar

from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np

SIDE = 192
"""Pixels along a canvas: twice what a finished picture keeps."""

Colour = tuple[int, int, int]
Point = tuple[float, float]
T = TypeVar("T")

COLOURS: dict[str, Colour] = {
    "red": (205, 52, 48),
    "orange": (236, 132, 45),
    "yellow": (245, 200, 60),
    "green": (84, 158, 78),
    "teal": (52, 150, 150),
    "blue": (58, 108, 192),
    "purple": (130, 84, 170),
    "pink": (236, 138, 168),
    "brown": (140, 92, 58),
    "beige": (216, 186, 146),
    "white": (240, 238, 232),
    "grey": (148, 150, 156),
    "black": (52, 52, 58),
}
PATTERNS = ("plain", "striped", "dotted", "checked", "zigzag", "starry")

WHITE: Colour = (250, 249, 245)
INK: Colour = (44, 40, 44)
WOOD: Colour = (196, 146, 92)
METAL: Colour = (176, 180, 188)
LEAF: Colour = (76, 142, 76)


def pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    """One of the options, each as likely."""
    return options[int(rng.integers(len(options)))]


def between(rng: np.random.Generator, low: float, high: float) -> float:
    """A number between low and high."""
    return low + (high - low) * float(rng.random())


def chance(rng: np.random.Generator, probability: float) -> bool:
    """True with the given probability."""
    return float(rng.random()) < probability


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """The colour that lies `share` of the way from a to b."""
    red, green, blue = (round(x + (y - x) * share) for x, y in zip(a, b, strict=True))
    return red, green, blue


def lighter(colour: Colour, share: float = 0.3) -> Colour:
    """The colour mixed with white."""
    return mix(colour, (255, 255, 255), share)


def darker(colour: Colour, share: float = 0.25) -> Colour:
    """The colour mixed with black."""
    return mix(colour, (0, 0, 0), share)


def varied(rng: np.random.Generator, colour: Colour) -> Colour:
    """A nearby colour: the same name, another dye."""
    hue, light, strength = colorsys.rgb_to_hls(*(part / 255 for part in colour))
    hue = (hue + between(rng, -0.018, 0.018)) % 1
    light = min(0.97, max(0.08, light + between(rng, -0.06, 0.06)))
    strength = min(1.0, strength * between(rng, 0.75, 1.15))
    red, green, blue = colorsys.hls_to_rgb(hue, light, strength)
    return round(red * 255), round(green * 255), round(blue * 255)


class Canvas:
    """A square, transparent at first; `image` is its RGBA picture."""

    def __init__(self, side: int = SIDE, ground: Colour | None = None) -> None:
        fill = (0, 0, 0, 0) if ground is None else (*ground, 255)
        self.image = Image.new("RGBA", (side, side), fill)
        self._draw = ImageDraw.Draw(self.image)
        self._unit = side / 100

    def _pixels(self, points: Sequence[Point]) -> list[Point]:
        return [(x * self._unit, y * self._unit) for x, y in points]

    def box(
        self, x0: float, y0: float, x1: float, y1: float, fill: Colour, radius: float = 0
    ) -> None:
        """A rectangle with corners (x0, y0) and (x1, y1)."""
        corners = self._pixels([(x0, y0), (x1, y1)])
        self._draw.rounded_rectangle(corners, radius * self._unit, fill)

    def disc(self, x: float, y: float, rx: float, fill: Colour, ry: float | None = None) -> None:
        """A circle around (x, y), or an ellipse where `ry` is given."""
        ry = rx if ry is None else ry
        self._draw.ellipse(self._pixels([(x - rx, y - ry), (x + rx, y + ry)]), fill)

    def polygon(self, points: Sequence[Point], fill: Colour) -> None:
        """A filled polygon."""
        self._draw.polygon(self._pixels(points), fill)

    def line(self, points: Sequence[Point], fill: Colour, width: float = 1) -> None:
        """A polyline of the given width."""
        pixels = max(1, round(width * self._unit))
        self._draw.line(self._pixels(points), fill, pixels, joint="curve")

    def arc(
        self, x: float, y: float, rx: float, ry: float, turn: Point, fill: Colour, width: float = 1
    ) -> None:
        """A part of an ellipse, between two angles in degrees, clockwise from three o'clock."""
        bounds = self._pixels([(x - rx, y - ry), (x + rx, y + ry)])
        self._draw.arc(bounds, turn[0], turn[1], fill, max(1, round(width * self._unit)))

    def erase(self, x0: float, y0: float, x1: float, y1: float) -> None:
        """Make a rectangle transparent again."""
        self._draw.rectangle(self._pixels([(x0, y0), (x1, y1)]), (0, 0, 0, 0))

    def paste(self, picture: Image.Image, x0: float, y0: float, x1: float, y1: float) -> None:
        """Lay another picture over a rectangle, honouring its transparency."""
        left, top, right, bottom = (round(value * self._unit) for value in (x0, y0, x1, y1))
        fitted = picture.resize((max(1, right - left), max(1, bottom - top)))
        self.image.paste(fitted, (left, top), fitted if fitted.mode == "RGBA" else None)

    def fill_pattern(
        self, shape: Callable[[Canvas], None], pattern: str, ground: Colour, ink: Colour
    ) -> None:
        """Fill whatever `shape` draws with a pattern in two colours."""
        stencil = Canvas(self.image.width)
        shape(stencil)
        cloth = pattern_sheet(pattern, ground, ink, self.image.width)
        self.image.paste(cloth, (0, 0), stencil.image.getchannel("A"))


def pattern_sheet(pattern: str, ground: Colour, ink: Colour, side: int = SIDE) -> Image.Image:
    """A square of cloth, side x side RGBA, in one of `PATTERNS`."""
    sheet = Canvas(side, ground)
    painters: dict[str, Callable[[Canvas, Colour], None]] = {
        "striped": _stripes,
        "dotted": _dots,
        "checked": _checks,
        "zigzag": _zigzag,
        "starry": _stars,
    }
    if pattern in painters:
        painters[pattern](sheet, ink)
    return sheet.image


def _stripes(sheet: Canvas, ink: Colour) -> None:
    for left in range(2, 100, 16):
        sheet.box(left, 0, left + 7, 100, ink)


def _dots(sheet: Canvas, ink: Colour) -> None:
    for row in range(10):
        for column in range(10):
            sheet.disc(column * 12 + 6 * (row % 2), row * 11 + 3, 3.2, ink)


def _checks(sheet: Canvas, ink: Colour) -> None:
    for row in range(10):
        for column in range(row % 2, 10, 2):
            sheet.box(column * 10, row * 10, column * 10 + 10, row * 10 + 10, ink)


def _zigzag(sheet: Canvas, ink: Colour) -> None:
    for top in range(4, 110, 18):
        points = [(x * 8.0, top + 8.0 * (x % 2)) for x in range(14)]
        sheet.line(points, ink, 4.5)


def _stars(sheet: Canvas, ink: Colour) -> None:
    for row in range(6):
        for column in range(6):
            star(sheet, column * 19 + 9 * (row % 2), row * 18 + 8, 6.5, ink)


def star(canvas: Canvas, x: float, y: float, radius: float, fill: Colour) -> None:
    """A five-pointed star around (x, y)."""
    outline = [
        (0.0, -1.0), (0.23, -0.32), (0.95, -0.31), (0.38, 0.12), (0.59, 0.81),
        (0.0, 0.4), (-0.59, 0.81), (-0.38, 0.12), (-0.95, -0.31), (-0.23, -0.32),
    ]  # fmt: skip
    canvas.polygon([(x + dx * radius, y + dy * radius) for dx, dy in outline], fill)


def heart(canvas: Canvas, x: float, y: float, radius: float, fill: Colour) -> None:
    """A heart around (x, y)."""
    half = radius / 2
    canvas.disc(x - half, y - half * 0.6, half * 1.08, fill)
    canvas.disc(x + half, y - half * 0.6, half * 1.08, fill)
    canvas.polygon(
        [(x - radius, y - half * 0.2), (x + radius, y - half * 0.2), (x, y + radius)], fill
    )
