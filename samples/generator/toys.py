"""Painters of the sample shop's toys: each draws one object, seen from the front."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kinshelf.samples.generator.drawing import (
    COLOURS,
    INK,
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
    mix,
    pick,
    star,
    varied,
)
from kinshelf.samples.generator.scenes import scene

if TYPE_CHECKING:
    import numpy as np

    from kinshelf.samples.generator.appearance import Look

BRIGHT = [COLOURS[name] for name in ("red", "orange", "yellow", "green", "blue", "purple")]


def box(canvas: Canvas, look: Look) -> None:
    """A closed box with its theme on the lid: it may hold anything."""
    side = look.ground
    canvas.polygon([(76, 24), (90, 16), (90, 74), (76, 84)], darker(side, 0.4))
    canvas.polygon([(14, 24), (28, 16), (90, 16), (76, 24)], lighter(side, 0.25))
    canvas.box(14, 24, 76, 84, side)
    canvas.paste(scene(look.theme, look.rng), 18, 38, 72, 80)
    canvas.box(18, 27, 72, 35, look.accent)
    left = 22.0
    while left < 62:
        width = between(look.rng, 5, 12)
        canvas.box(left, 29, left + width, 33, WHITE)
        left += width + 3
    star(canvas, 66, 31, 3.6, (252, 220, 110))


def jigsaw(canvas: Canvas, look: Look) -> None:
    """A laid puzzle with a piece or two beside it."""
    if look.disguised:
        box(canvas, look)
        return
    columns, rows = pick(look.rng, [(4, 3), (5, 4), (6, 4), (5, 5)])
    canvas.paste(scene(look.theme, look.rng), 8, 14, 92, 78)
    width, height = 84 / columns, 64 / rows
    _cuts(canvas, (columns, rows), (width, height))
    _lift_corner(canvas, 92 - width, 78 - height)
    size = min(width, height) * 0.8
    _piece(canvas, between(look.rng, 12, 50), 82, size, varied(look.rng, look.ground))


def _lift_corner(canvas: Canvas, left: float, top: float) -> None:
    """Move the piece at the lower right a little away from its place."""
    unit = canvas.image.width / 100
    piece = canvas.image.crop((left * unit, top * unit, 92 * unit, 78 * unit))
    canvas.erase(left, top, 100, 80)
    canvas.paste(piece, left + 6, top + 9, 98, 87)


def _cuts(canvas: Canvas, grid: tuple[int, int], cell: tuple[float, float]) -> None:
    (columns, rows), (width, height) = grid, cell
    knob = min(cell) * 0.16
    for column in range(1, columns):
        x = 8 + column * width
        canvas.line([(x, 14), (x, 78)], INK, 0.9)
        for row in range(rows):
            side = knob if (row + column) % 2 else -knob
            canvas.arc(x + side, 14 + (row + 0.5) * height, knob, knob, (0, 360), INK, 0.9)
    for row in range(1, rows):
        y = 14 + row * height
        canvas.line([(8, y), (92, y)], INK, 0.9)
        for column in range(columns):
            side = knob if (row + column) % 2 else -knob
            canvas.arc(8 + (column + 0.5) * width, y + side, knob, knob, (0, 360), INK, 0.9)


def _piece(canvas: Canvas, left: float, top: float, size: float, fill: Colour) -> None:
    canvas.box(left, top, left + size, top + size, fill)
    canvas.disc(left + size, top + size / 2, size * 0.22, fill)
    canvas.disc(left + size / 2, top, size * 0.22, darker(fill, 0.35))


def board_game(canvas: Canvas, look: Look) -> None:
    """A board with pawns and a die."""
    if look.disguised:
        box(canvas, look)
        return
    canvas.box(8, 8, 92, 92, darker(look.ground, 0.35), 3)
    boards = {"checkers": _checkers, "ladders": _ladders}
    boards.get(look.kind, _race)(canvas, look)
    for _ in range(3):
        colour = varied(look.rng, pick(look.rng, BRIGHT))
        _pawn(canvas, between(look.rng, 20, 80), between(look.rng, 30, 70), colour)
    _die(canvas, between(look.rng, 14, 70), between(look.rng, 68, 76))


def _race(canvas: Canvas, look: Look) -> None:
    canvas.paste(scene(look.theme, look.rng), 24, 24, 76, 76)
    step = 14.0
    for place in range(6):
        near = 8 + place * step
        for x, y in ((near, 8), (near, 78), (8, near), (78, near)):
            fill = pick(look.rng, [look.ground, look.accent, WHITE, lighter(look.accent)])
            canvas.box(x + 1, y + 1, x + step - 1, y + step - 1, fill, 2)


def _checkers(canvas: Canvas, look: Look) -> None:
    size = 10.0
    for row in range(8):
        for column in range(8):
            x, y = 10 + column * size, 10 + row * size
            dark = (row + column) % 2 == 1
            canvas.box(x, y, x + size, y + size, darker(look.ground) if dark else (238, 222, 190))
            if dark and (row < 2 or row > 5):
                canvas.disc(x + 5, y + 5, 3.8, WHITE if row < 2 else INK)


def _ladders(canvas: Canvas, look: Look) -> None:
    fills = [look.ground, look.accent, WHITE, lighter(look.ground, 0.5)]
    for row in range(6):
        for column in range(6):
            x, y = 10 + column * 13.4, 10 + row * 13.4
            canvas.box(x, y, x + 12.8, y + 12.8, fills[(row * 2 + column) % 4])
    left = between(look.rng, 20, 50)
    for x in (left, left + 8):
        canvas.line([(x, 20), (x + 14, 80)], (120, 78, 40), 1.8)
    for rung in range(7):
        x, y = left + 1.5 + rung * 1.9, 26 + rung * 8
        canvas.line([(x, y), (x + 8, y)], (120, 78, 40), 1.8)
    snake = [(66, 22), (78, 34), (64, 46), (76, 58), (66, 72)]
    canvas.line(snake, (60, 140, 70), 4)
    canvas.disc(66, 21, 3.6, (60, 140, 70))


def _pawn(canvas: Canvas, x: float, y: float, fill: Colour) -> None:
    canvas.disc(x, y + 9, 6.6, darker(fill, 0.45), ry=3.4)
    canvas.polygon([(x - 5.4, y + 9), (x, y - 6), (x + 5.4, y + 9)], fill)
    canvas.disc(x, y - 6, 4.4, lighter(fill, 0.2))


def _die(canvas: Canvas, x: float, y: float) -> None:
    canvas.box(x, y, x + 15, y + 15, (190, 186, 180), 3)
    canvas.box(x, y, x + 13.5, y + 13.5, WHITE, 3)
    for dx, dy in ((3.6, 3.6), (10, 3.6), (6.8, 6.8), (3.6, 10), (10, 10)):
        canvas.disc(x + dx, y + dy, 1.5, INK)


def plush(canvas: Canvas, look: Look) -> None:
    """A sitting soft animal: bear, bunny, cat, elephant, penguin, panda or fox."""
    body, face = _animal_colours(look)
    for x in (30, 70):
        canvas.disc(x, 86, 11, darker(body, 0.12), ry=9)
        canvas.disc(x, 87, 6.5, face, ry=5.5)
    canvas.disc(50, 70, 24, body, ry=23)
    canvas.disc(50, 72, 15, face, ry=16)
    for x in (25, 75):
        canvas.disc(x, 63, 8, darker(body, 0.2 if look.kind != "panda" else 0.8), ry=13)
    _ears(canvas, look.kind, body, face)
    canvas.disc(50, 35, 23, body, ry=20)
    _face(canvas, look.kind, body, face)
    if chance(look.rng, 0.5):
        canvas.polygon([(50, 57), (38, 51), (38, 63)], look.accent)
        canvas.polygon([(50, 57), (62, 51), (62, 63)], look.accent)
        canvas.disc(50, 57, 3.4, darker(look.accent))


def _animal_colours(look: Look) -> tuple[Colour, Colour]:
    if look.kind == "panda":
        return (238, 236, 230), (224, 220, 212)
    if look.kind == "penguin":
        return darker(look.ground, 0.25), WHITE
    return look.ground, mix(look.ground, (252, 238, 216), 0.62)


def _ears(canvas: Canvas, kind: str, body: Colour, face: Colour) -> None:
    for side in (-1, 1):
        if kind == "bunny":
            canvas.disc(50 + side * 12, 13, 6.4, body, ry=17)
            canvas.disc(50 + side * 12, 14, 3.2, (238, 178, 186), ry=12)
        elif kind in ("cat", "fox"):
            points = [(50 + side * 5, 20), (50 + side * 22, 3), (50 + side * 23, 30)]
            canvas.polygon(points, darker(body, 0.12))
        elif kind == "elephant":
            canvas.disc(50 + side * 27, 33, 15, darker(body, 0.12), ry=17)
            canvas.disc(50 + side * 27, 34, 10, (236, 184, 190), ry=12)
        elif kind in ("bear", "panda"):
            ear = INK if kind == "panda" else body
            canvas.disc(50 + side * 18, 18, 8.6, ear)
            canvas.disc(50 + side * 18, 19, 4.8, INK if kind == "panda" else face)


def _face(canvas: Canvas, kind: str, body: Colour, face: Colour) -> None:
    if kind == "penguin":
        canvas.disc(50, 39, 16, face, ry=15)
        canvas.polygon([(44, 39), (56, 39), (50, 48)], (240, 160, 50))
    elif kind == "elephant":
        canvas.line([(50, 36), (50, 50), (55, 58)], darker(body, 0.15), 9)
    else:
        canvas.disc(50, 43, 11.5, face, ry=9)
        canvas.disc(50, 38, 3.6, INK, ry=2.6)
        canvas.arc(46.5, 43, 3.5, 3, (10, 170), INK, 1)
        canvas.arc(53.5, 43, 3.5, 3, (10, 170), INK, 1)
    for x in (41, 59):
        if kind == "panda":
            canvas.disc(x, 32, 5.4, INK, ry=6.4)
        canvas.disc(x, 31, 2.8, INK)
        canvas.disc(x - 0.8, 30, 1, WHITE)
    if kind == "cat":
        for side in (-1, 1):
            canvas.line([(50 + side * 12, 42), (50 + side * 26, 39)], INK, 0.8)
            canvas.line([(50 + side * 12, 45), (50 + side * 26, 47)], INK, 0.8)


def blocks(canvas: Canvas, look: Look) -> None:
    """Bricks with studs, wooden blocks, or a castle of blocks."""
    if look.disguised:
        box(canvas, look)
        return
    kinds = {"bricks": _bricks, "wooden": _cubes}
    kinds.get(look.kind, _fortress)(canvas, look)


def _bricks(canvas: Canvas, look: Look) -> None:
    colours = [look.ground, look.accent, *BRIGHT[:4]]
    rows = int(look.rng.integers(3, 6))
    for row in range(rows):
        top = 86 - (row + 1) * 15
        left = 12 + between(look.rng, 0, 6) * row
        while left < 76 - row * 5:
            width = pick(look.rng, [14.0, 21.0, 28.0])
            fill = varied(look.rng, pick(look.rng, colours))
            _brick(canvas, left, top, min(width, 90 - left), fill)
            left += width


def _brick(canvas: Canvas, left: float, top: float, width: float, fill: Colour) -> None:
    for stud in range(max(1, int(width // 7))):
        x = left + 1.6 + stud * 7
        canvas.box(x, top - 3.2, x + 4.4, top + 1, lighter(fill, 0.25), 1)
    canvas.box(left, top, left + width - 0.8, top + 14.4, fill, 1)
    canvas.box(left, top + 11, left + width - 0.8, top + 14.4, darker(fill, 0.3), 1)


def _cubes(canvas: Canvas, look: Look) -> None:
    for row, count in enumerate((3, 2, 1)):
        for place in range(count):
            left, top = 14 + row * 12 + place * 25, 64 - row * 25
            fill = varied(look.rng, pick(look.rng, [look.ground, look.accent, WOOD, *BRIGHT]))
            canvas.box(left, top, left + 23.5, top + 23.5, WOOD, 2)
            canvas.box(left + 3, top + 3, left + 20.5, top + 20.5, lighter(fill, 0.1), 1)
            _sign(canvas, look.rng, left + 11.7, top + 11.7)


def _sign(canvas: Canvas, rng: np.random.Generator, x: float, y: float) -> None:
    shape = pick(rng, ["star", "heart", "disc", "cross"])
    if shape == "star":
        star(canvas, x, y, 7, WHITE)
    elif shape == "heart":
        heart(canvas, x, y, 6, WHITE)
    elif shape == "disc":
        canvas.disc(x, y, 5, WHITE)
    else:
        canvas.box(x - 5, y - 1.5, x + 5, y + 1.5, WHITE)
        canvas.box(x - 1.5, y - 5, x + 1.5, y + 5, WHITE)


def _fortress(canvas: Canvas, look: Look) -> None:
    for left, top in ((10, 40), (40, 52), (66, 34)):
        for level, y in enumerate(range(int(top), 84, 12)):
            fill = pick(look.rng, [look.ground, look.accent, WOOD, lighter(look.ground)])
            canvas.box(left, y, left + 23, y + 11.4, darker(fill, 0.06 * (level % 2)), 1)
    canvas.polygon([(8, 40), (21.5, 18), (35, 40)], look.accent)
    canvas.polygon([(64, 34), (77.5, 12), (91, 34)], varied(look.rng, look.accent))
    canvas.disc(51.5, 88, 8, (86, 66, 54), ry=14)
    canvas.erase(38, 88, 66, 100)
    canvas.box(32, 52, 66, 56, WOOD)


def kite(canvas: Canvas, look: Look) -> None:
    """A kite with a long tail: diamond or delta."""
    wings = [(46, 4), (76, 32), (46, 72), (18, 32)]
    if look.kind == "delta":
        wings = [(48, 6), (94, 50), (60, 46), (48, 58), (36, 46), (4, 50)]

    def sail(sheet: Canvas) -> None:
        sheet.polygon(wings, WHITE)

    canvas.fill_pattern(sail, look.pattern, look.ground, look.accent)
    foot = 58 if look.kind == "delta" else 72
    canvas.line([*wings, wings[0]], darker(look.ground, 0.4), 1.2)
    canvas.line([(47, 5), (47, foot)], darker(look.ground, 0.4), 1.2)
    if look.kind != "delta":
        canvas.line([(18, 32), (76, 32)], darker(look.ground, 0.4), 1.2)
    bend = between(look.rng, -8, 8)
    tail = [(47, foot), (54 + bend, foot + 10), (62, foot + 16), (76 - bend, foot + 22)]
    canvas.line(tail, METAL, 1.2)
    for x, y in tail[1:]:
        canvas.polygon([(x, y), (x - 6, y - 4), (x - 6, y + 4)], look.accent)
        canvas.polygon([(x, y), (x + 6, y - 4), (x + 6, y + 4)], look.accent)
