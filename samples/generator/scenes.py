"""Little landscapes, one per theme: what is printed on puzzles, boxes, boards and book covers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kinshelf.samples.generator.drawing import (
    WHITE,
    Canvas,
    Colour,
    between,
    chance,
    darker,
    lighter,
    pick,
    star,
    varied,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from PIL import Image

SCENE_SIDE = 112
"""Pixels along a scene: it is always shown smaller than the canvas."""


def scene(theme: str, rng: np.random.Generator) -> Image.Image:
    """A landscape of one of `THEMES`, RGBA, `SCENE_SIDE` pixels square."""
    canvas = Canvas(SCENE_SIDE, (168, 208, 236))
    THEMES[theme](canvas, rng)
    return canvas.image


def _sky(canvas: Canvas, top: Colour, bottom: Colour) -> None:
    for step in range(10):
        share = step / 9
        red, green, blue = (round(a + (b - a) * share) for a, b in zip(top, bottom, strict=True))
        canvas.box(0, step * 10, 100, step * 10 + 10, (red, green, blue))


def _hill(canvas: Canvas, x: float, top: float, width: float, fill: Colour) -> None:
    canvas.disc(x, top + 60, width, fill, ry=60)


def _pine(canvas: Canvas, x: float, foot: float, height: float, fill: Colour) -> None:
    canvas.box(x - 1.5, foot - height * 0.2, x + 1.5, foot, (112, 76, 50))
    for level in range(3):
        top = foot - height * (1 - level * 0.24)
        half = height * (0.16 + 0.07 * level)
        canvas.polygon(
            [(x, top), (x - half, top + height * 0.36), (x + half, top + height * 0.36)], fill
        )


def _forest(canvas: Canvas, rng: np.random.Generator) -> None:
    _sky(canvas, (246, 206, 150), (250, 236, 200))
    canvas.disc(between(rng, 20, 80), 28, 10, (252, 244, 214))
    _hill(canvas, 50, 62, 90, (118, 150, 96))
    for row, shade in ((70, (72, 124, 88)), (84, (50, 100, 72)), (100, (34, 78, 60))):
        for _ in range(5):
            _pine(canvas, between(rng, 0, 100), row, between(rng, 26, 44), varied(rng, shade))


def _ocean(canvas: Canvas, rng: np.random.Generator) -> None:
    _sky(canvas, (86, 190, 214), (16, 78, 132))
    canvas.box(0, 90, 100, 100, (222, 196, 140))
    for coral in (12, 30, 78, 92):
        canvas.line([(coral, 94), (coral + 4, 82), (coral - 2, 72)], (226, 104, 104), 3)
    for _ in range(5):
        x, y, size = between(rng, 15, 85), between(rng, 15, 75), between(rng, 6, 11)
        fish = varied(rng, pick(rng, [(244, 160, 48), (246, 210, 74), (236, 106, 110), WHITE]))
        canvas.polygon(
            [(x + size, y), (x + size * 2, y - size * 0.7), (x + size * 2, y + size * 0.7)], fish
        )
        canvas.disc(x, y, size * 1.2, fish, ry=size * 0.75)
        canvas.disc(x - size * 0.6, y - size * 0.15, 1.6, (30, 30, 40))


def _space(canvas: Canvas, rng: np.random.Generator) -> None:
    _sky(canvas, (22, 20, 58), (66, 40, 104))
    for _ in range(26):
        canvas.disc(between(rng, 0, 100), between(rng, 0, 100), between(rng, 0.5, 1.5), WHITE)
    star(canvas, between(rng, 10, 90), between(rng, 8, 30), 6, (252, 220, 110))
    x, y = between(rng, 24, 44), between(rng, 52, 76)
    planet = varied(rng, pick(rng, [(232, 138, 76), (112, 176, 200), (206, 104, 132)]))
    canvas.disc(x, y, 19, planet)
    canvas.disc(x - 5, y - 6, 6, lighter(planet))
    canvas.arc(x, y, 29, 8, (-20, 200), (246, 222, 170), 3)
    canvas.disc(between(rng, 68, 86), between(rng, 30, 48), 8, (214, 214, 220))


def _farm(canvas: Canvas, rng: np.random.Generator) -> None:
    _sky(canvas, (140, 196, 236), (214, 236, 246))
    canvas.disc(84, 16, 9, (252, 218, 92))
    _hill(canvas, 20, 52, 70, (150, 194, 92))
    _hill(canvas, 85, 58, 70, (124, 176, 80))
    left = between(rng, 18, 48)
    canvas.box(left, 46, left + 30, 76, (190, 56, 48))
    canvas.polygon([(left - 4, 47), (left + 15, 28), (left + 34, 47)], (112, 62, 52))
    canvas.box(left + 10, 58, left + 20, 76, WHITE)
    for _ in range(3):
        x, y = between(rng, 8, 92), between(rng, 80, 94)
        canvas.disc(x, y, 6, WHITE, ry=4.5)
        canvas.disc(x - 6, y - 2, 2.6, (60, 54, 54))


def _castle(canvas: Canvas, rng: np.random.Generator) -> None:
    _sky(canvas, (236, 178, 206), (252, 226, 206))
    _hill(canvas, 50, 72, 80, (128, 178, 110))
    wall = varied(rng, (178, 172, 186))
    roof = varied(rng, pick(rng, [(110, 84, 168), (70, 112, 184), (202, 74, 90)]))
    canvas.box(28, 50, 72, 84, wall)
    for x, top in ((24, 40), (50, 30), (76, 40)):
        canvas.box(x - 8, top, x + 8, 84, darker(wall, 0.08))
        canvas.polygon([(x - 11, top), (x, top - 24), (x + 11, top)], roof)
        canvas.box(x - 2, top + 10, x + 2, top + 18, (70, 62, 84))
    canvas.disc(50, 76, 6, (92, 66, 56), ry=9)


def _mountain(canvas: Canvas, rng: np.random.Generator) -> None:
    _sky(canvas, (246, 150, 120), (252, 218, 168))
    canvas.disc(between(rng, 30, 70), 42, 11, (254, 236, 170))
    for x, top, shade in (
        (22, 34, (120, 120, 164)),
        (74, 28, (104, 104, 150)),
        (50, 48, (82, 86, 132)),
    ):
        peak = top + between(rng, -6, 6)
        canvas.polygon([(x - 46, 100), (x, peak), (x + 46, 100)], shade)
        canvas.polygon([(x - 7, peak + 12), (x, peak), (x + 7, peak + 12), (x, peak + 8)], WHITE)
    canvas.box(0, 84, 100, 100, (70, 128, 150))


def _city(canvas: Canvas, rng: np.random.Generator) -> None:
    night = chance(rng, 0.5)
    _sky(canvas, *(((30, 40, 84), (96, 80, 130)) if night else ((150, 208, 240), (226, 240, 246))))
    for left in range(0, 100, 14):
        top = between(rng, 24, 62)
        tower = varied(rng, pick(rng, [(94, 104, 128), (172, 106, 92), (122, 140, 150)]))
        canvas.box(left, top, left + 12.5, 92, tower)
        for row in range(int(top) + 5, 86, 9):
            for x in (left + 2.5, left + 7.5):
                canvas.box(x, row, x + 3, row + 4, (252, 222, 130))
    canvas.box(0, 90, 100, 100, (76, 76, 84))


def _garden(canvas: Canvas, rng: np.random.Generator) -> None:
    _sky(canvas, (176, 220, 240), (232, 244, 226))
    _hill(canvas, 50, 50, 110, (136, 190, 104))
    for row in (66, 80, 93):
        for _ in range(6):
            x, y = between(rng, 4, 96), between(rng, row - 4, row + 4)
            petal = varied(rng, pick(rng, [(232, 86, 104), (250, 204, 84), (176, 118, 206), WHITE]))
            canvas.line([(x, y), (x, y + 10)], (70, 130, 70), 1.5)
            for dx, dy in ((-3.2, 0), (3.2, 0), (0, -3.2), (0, 3.2)):
                canvas.disc(x + dx, y + dy, 2.8, petal)
            canvas.disc(x, y, 2, (240, 166, 50))


THEMES: dict[str, Callable[[Canvas, np.random.Generator], None]] = {
    "forest": _forest,
    "ocean": _ocean,
    "space": _space,
    "farm": _farm,
    "castle": _castle,
    "mountain": _mountain,
    "city": _city,
    "garden": _garden,
}
