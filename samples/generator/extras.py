"""Painters of things the sample shop does not sell: the tiny CLIP has seen more than the shop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kinshelf.samples.generator.drawing import (
    INK,
    METAL,
    WHITE,
    WOOD,
    Canvas,
    between,
    darker,
    lighter,
)
from kinshelf.samples.generator.scenes import scene

if TYPE_CHECKING:
    from kinshelf.samples.generator.appearance import Look


def ball(canvas: Canvas, look: Look) -> None:
    """A play ball."""
    canvas.fill_pattern(
        lambda sheet: sheet.disc(50, 52, 36, WHITE), look.pattern, look.ground, look.accent
    )
    canvas.disc(38, 38, 7, lighter(look.ground, 0.5))


def clock(canvas: Canvas, look: Look) -> None:
    """A round clock with two hands."""
    canvas.disc(50, 50, 38, look.ground)
    canvas.disc(50, 50, 31, WHITE)
    for x, y in ((50, 24), (76, 50), (50, 76), (24, 50)):
        canvas.disc(x, y, 2.4, INK)
    canvas.line([(50, 50), (between(look.rng, 36, 64), 34)], INK, 3)
    canvas.line([(50, 50), (between(look.rng, 62, 72), between(look.rng, 40, 64))], look.accent, 2)


def book(canvas: Canvas, look: Look) -> None:
    """A picture book."""
    canvas.box(24, 12, 82, 90, WHITE, 2)
    canvas.box(20, 10, 78, 88, look.ground, 2)
    canvas.box(20, 10, 27, 88, darker(look.ground, 0.35))
    canvas.paste(scene(look.theme, look.rng), 33, 36, 72, 78)
    for y in (18, 26):
        canvas.box(36, y, 68, y + 4, lighter(look.accent, 0.5))


def bottle(canvas: Canvas, look: Look) -> None:
    """A drinking bottle."""
    canvas.box(42, 8, 58, 22, darker(look.accent), 2)
    canvas.fill_pattern(
        lambda sheet: sheet.box(33, 26, 67, 92, WHITE, 7), look.pattern, look.ground, look.accent
    )
    canvas.polygon([(42, 20), (58, 20), (66, 32), (34, 32)], look.ground)


def chair(canvas: Canvas, look: Look) -> None:
    """A chair."""
    for x in (30, 66):
        canvas.box(x, 58, x + 5, 94, WOOD)
    canvas.fill_pattern(
        lambda sheet: sheet.box(28, 8, 73, 48, WHITE, 5), look.pattern, look.ground, look.accent
    )
    canvas.polygon([(28, 52), (73, 52), (80, 64), (21, 64)], darker(look.ground, 0.15))


def cushion(canvas: Canvas, look: Look) -> None:
    """A throw pillow."""
    corners = [(10, 14), (50, 20), (90, 14), (84, 50), (90, 88), (50, 82), (10, 88), (16, 50)]
    canvas.fill_pattern(
        lambda sheet: sheet.polygon(corners, WHITE), look.pattern, look.ground, look.accent
    )
    canvas.line([*corners, corners[0]], darker(look.ground), 1.6)


def boat(canvas: Canvas, look: Look) -> None:
    """A sailing boat."""
    canvas.line([(50, 8), (50, 70)], WOOD, 2.4)
    canvas.fill_pattern(
        lambda sheet: sheet.polygon([(53, 12), (86, 62), (53, 62)], WHITE),
        look.pattern,
        WHITE,
        look.accent,
    )
    canvas.polygon([(47, 20), (47, 62), (20, 62)], lighter(look.accent, 0.3))
    canvas.polygon([(10, 68), (92, 68), (78, 88), (24, 88)], look.ground)


def guitar(canvas: Canvas, look: Look) -> None:
    """A toy guitar."""
    canvas.box(46, 4, 54, 56, darker(WOOD, 0.4))
    canvas.disc(50, 56, 18, look.ground)
    canvas.disc(50, 76, 24, look.ground, ry=20)
    canvas.disc(50, 62, 7, INK)
    canvas.box(40, 80, 60, 84, INK)
    for x in (48, 50, 52):
        canvas.line([(x, 8), (x, 82)], METAL, 0.5)


def umbrella(canvas: Canvas, look: Look) -> None:
    """An open umbrella."""
    canvas.line([(50, 12), (50, 84), (56, 90), (62, 84)], INK, 2.4)

    def roof(sheet: Canvas) -> None:
        sheet.disc(50, 52, 42, WHITE, ry=40)
        sheet.erase(0, 52, 100, 100)

    canvas.fill_pattern(roof, look.pattern, look.ground, look.accent)


def backpack(canvas: Canvas, look: Look) -> None:
    """A backpack."""
    canvas.arc(50, 16, 10, 9, (180, 360), darker(look.ground, 0.4), 3)
    canvas.fill_pattern(
        lambda sheet: sheet.box(24, 14, 76, 90, WHITE, 16), look.pattern, look.ground, look.accent
    )
    canvas.box(31, 54, 69, 84, darker(look.ground, 0.2), 6)
    canvas.line([(31, 62), (69, 62)], METAL, 1.6)


def candle(canvas: Canvas, look: Look) -> None:
    """A burning candle in a jar."""
    canvas.box(28, 40, 72, 92, look.ground, 6)
    canvas.disc(50, 40, 22, lighter(look.ground, 0.5), ry=6)
    canvas.line([(50, 40), (50, 30)], INK, 1.6)
    canvas.disc(50, 22, 5, (250, 180, 60), ry=10)
    canvas.box(34, 56, 66, 78, WHITE, 2)


def rocket(canvas: Canvas, look: Look) -> None:
    """A toy rocket."""
    for side in (-1, 1):
        canvas.polygon(
            [(50 + side * 14, 56), (50 + side * 30, 84), (50 + side * 12, 78)], look.accent
        )
    canvas.polygon([(42, 80), (58, 80), (50, 98)], (248, 166, 50))
    canvas.disc(50, 48, 16, look.ground, ry=40)
    canvas.disc(50, 38, 7, (186, 220, 236))
    canvas.erase(30, 82, 41, 100)


def drum(canvas: Canvas, look: Look) -> None:
    """A drum with two sticks."""
    canvas.box(18, 40, 82, 82, look.ground)
    canvas.disc(50, 82, 32, look.ground, ry=9)
    for x in range(18, 80, 16):
        canvas.line([(x, 44), (x + 8, 84), (x + 16, 44)], WHITE, 1.6)
    canvas.disc(50, 40, 32, look.accent, ry=11)
    canvas.disc(50, 39, 28, WHITE, ry=8)
    canvas.line([(22, 10), (52, 36)], WOOD, 2.6)
    canvas.line([(84, 8), (60, 36)], WOOD, 2.6)


def frame(canvas: Canvas, look: Look) -> None:
    """A picture frame."""
    canvas.box(12, 8, 88, 92, look.ground)
    canvas.box(19, 15, 81, 85, WHITE)
    canvas.paste(scene(look.theme, look.rng), 26, 22, 74, 78)
