"""Painters of the sample shop's household goods: mugs, flower pots, lamps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kinshelf.samples.generator.drawing import (
    LEAF,
    METAL,
    WHITE,
    WOOD,
    Canvas,
    Colour,
    between,
    chance,
    darker,
    heart,
    lighter,
    pick,
    varied,
)

if TYPE_CHECKING:
    import numpy as np

    from kinshelf.samples.generator.appearance import Look

GLOW: Colour = (255, 238, 176)


def _beaker(canvas: Canvas, look: Look) -> None:
    """The vessel that mug and pot have in common: nobody could say which of them it is."""

    def wall(sheet: Canvas) -> None:
        sheet.polygon([(27, 26), (73, 26), (69, 80), (31, 80)], WHITE)
        sheet.disc(50, 80, 19, WHITE, ry=5)

    canvas.fill_pattern(wall, look.pattern, look.ground, look.accent)
    canvas.disc(50, 26, 23, lighter(look.ground, 0.35), ry=7)
    canvas.disc(50, 26.5, 20, darker(look.ground, 0.5), ry=5.4)


def mug(canvas: Canvas, look: Look) -> None:
    """A mug, tall, espresso-sized or ordinary, with its handle to one side."""
    if look.disguised:
        _beaker(canvas, look)
        return
    top, half = {"tall": (14, 22), "espresso": (42, 20)}.get(look.kind, (26, 26))
    middle, centre = (top + 84) / 2, 46
    side = 1 if chance(look.rng, 0.7) else -1
    centre = 50 - 5 * side
    canvas.arc(
        centre + side * half, middle, 17, (84 - top) * 0.3, (0, 360), darker(look.ground, 0.18), 6
    )

    def wall(sheet: Canvas) -> None:
        sheet.box(centre - half, top, centre + half, 84, WHITE, 6)
        sheet.disc(centre, 82, half, WHITE, ry=6)

    canvas.fill_pattern(wall, look.pattern, look.ground, look.accent)
    canvas.disc(centre, top, half, lighter(look.ground, 0.35), ry=7)
    drink = pick(look.rng, [(92, 56, 38), (176, 110, 56), (226, 214, 196)])
    canvas.disc(centre, top + 0.6, half - 3, drink, ry=5.4)
    if look.pattern == "plain" and chance(look.rng, 0.5):
        heart(canvas, centre, middle, 10, look.accent)


def pot(canvas: Canvas, look: Look) -> None:
    """A flower pot with a cactus, a fern, a flower or a succulent in it."""
    if look.disguised:
        _beaker(canvas, look)
        return
    plants = {"cactus": _cactus, "fern": _fern, "succulent": _succulent}
    plants.get(look.kind, _flower)(canvas, look.rng)

    def wall(sheet: Canvas) -> None:
        sheet.polygon([(27, 58), (73, 58), (65, 92), (35, 92)], WHITE)

    canvas.fill_pattern(wall, look.pattern, look.ground, look.accent)
    canvas.box(23, 53, 77, 63, darker(look.ground, 0.14), 2)
    if chance(look.rng, 0.4):
        canvas.box(29, 91, 71, 95, darker(look.ground, 0.3), 2)


def _cactus(canvas: Canvas, rng: np.random.Generator) -> None:
    green = varied(rng, LEAF)
    canvas.box(42, 16, 58, 56, green, 8)
    canvas.line([(58, 42), (70, 42), (70, 30)], darker(green, 0.1), 7)
    canvas.line([(42, 36), (31, 36), (31, 26)], darker(green, 0.1), 7)
    for x in (46, 50, 54):
        canvas.line([(x, 20), (x, 54)], darker(green, 0.3), 0.8)
    canvas.disc(50, 16, 4.5, (238, 120, 150))


def _fern(canvas: Canvas, rng: np.random.Generator) -> None:
    for _ in range(9):
        green = varied(rng, LEAF)
        x, y = between(rng, 14, 86), between(rng, 8, 38)
        bow = ((50 + x) / 2 + (x - 50) * 0.1, (54 + y) / 2 - 8)
        canvas.line([(50, 56), bow, (x, y)], green, 4)
        canvas.disc(x, y, 4.6, lighter(green, 0.12), ry=6)


def _succulent(canvas: Canvas, rng: np.random.Generator) -> None:
    green = varied(rng, (126, 172, 140))
    for ring, size in ((0, 15.0), (1, 11.0), (2, 7.0)):
        shade = lighter(green, 0.14 * ring)
        for dx, dy in ((-1.3, 0), (1.3, 0), (-0.8, -0.8), (0.8, -0.8), (0, -1.1), (0, 0)):
            canvas.disc(50 + dx * size, 46 + dy * size - ring * 3, size * 0.6, shade, ry=size * 0.7)


def _flower(canvas: Canvas, rng: np.random.Generator) -> None:
    petal = varied(rng, pick(rng, [(232, 86, 104), (250, 204, 84), (176, 118, 206), WHITE]))
    for x, y in ((50, 20), (32, 32), (68, 32)):
        canvas.line([(50, 56), (x, y)], LEAF, 2.4)
        for dx, dy in ((-5, -3), (5, -3), (0, 6), (-5, 4), (5, 4), (0, -6)):
            canvas.disc(x + dx, y + dy, 4.8, petal)
        canvas.disc(x, y, 4, (236, 160, 50))
    for side in (-1, 1):
        canvas.disc(50 + side * 12, 49, 10, LEAF, ry=4.5)


def lamp(canvas: Canvas, look: Look) -> None:
    """A lamp for a table: with a shade, on an arm, like a mushroom, or on three legs."""
    kinds = {"desk": _desk_lamp, "mushroom": _mushroom_lamp, "tripod": _tripod_lamp}
    kinds.get(look.kind, _bedside_lamp)(canvas, look)


def _shade(canvas: Canvas, look: Look, points: list[tuple[float, float]]) -> None:
    lit = lighter(look.ground, 0.35)
    canvas.fill_pattern(lambda sheet: sheet.polygon(points, WHITE), look.pattern, lit, look.accent)
    foot = max(y for _, y in points)
    canvas.disc(50, foot, 13, GLOW, ry=2.6)


def _bedside_lamp(canvas: Canvas, look: Look) -> None:
    stand = darker(look.ground, 0.3)
    canvas.box(48, 48, 52, 62, METAL)
    canvas.disc(50, 72, 15, stand, ry=14)
    canvas.disc(45, 67, 4, lighter(stand, 0.4), ry=5)
    canvas.box(34, 84, 66, 90, darker(stand, 0.2), 3)
    _shade(canvas, look, [(36, 10), (64, 10), (80, 50), (20, 50)])


def _desk_lamp(canvas: Canvas, look: Look) -> None:
    frame = darker(look.ground, 0.15)
    canvas.disc(58, 89, 22, frame, ry=5)
    canvas.line([(60, 88), (76, 56), (44, 26)], METAL, 3.4)
    canvas.disc(76, 56, 4, frame)
    canvas.disc(46, 24, 7, darker(look.ground, 0.3))
    canvas.polygon([(44, 16), (52, 28), (34, 56), (12, 22)], look.ground)
    canvas.line([(12, 23), (34, 55)], GLOW, 6)


def _mushroom_lamp(canvas: Canvas, look: Look) -> None:
    canvas.polygon([(44, 44), (56, 44), (60, 86), (40, 86)], lighter(look.ground, 0.6))
    canvas.box(34, 84, 66, 90, darker(look.ground, 0.25), 3)

    def dome(sheet: Canvas) -> None:
        sheet.disc(50, 44, 34, WHITE, ry=30)
        sheet.erase(0, 48, 100, 100)

    canvas.fill_pattern(dome, look.pattern, look.ground, look.accent)
    canvas.disc(50, 48, 32, GLOW, ry=4)


def _tripod_lamp(canvas: Canvas, look: Look) -> None:
    for x in (26, 50, 74):
        canvas.line([(50, 44), (x, 92)], darker(WOOD, 0.15), 3)
    canvas.line([(36, 74), (64, 74)], WOOD, 1.6)
    _shade(canvas, look, [(22, 12), (78, 12), (78, 48), (22, 48)])
