"""Painters of toy vehicles, seen from the side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kinshelf.samples.generator.drawing import INK, METAL, WHITE, Canvas, Colour, darker, lighter
from kinshelf.samples.generator.toys import box

if TYPE_CHECKING:
    from kinshelf.samples.generator.appearance import Look

GLASS: Colour = (186, 220, 236)


def vehicle(canvas: Canvas, look: Look) -> None:
    """A car, truck, fire engine, bus, tractor or train."""
    if look.disguised:
        box(canvas, look)
        return
    kinds = {
        "truck": _truck,
        "fire engine": _fire_engine,
        "bus": _bus,
        "tractor": _tractor,
        "train": _train,
    }
    kinds.get(look.kind, _car)(canvas, look)


def _wheel(canvas: Canvas, x: float, y: float, radius: float, hub: Colour = METAL) -> None:
    canvas.disc(x, y, radius, INK)
    canvas.disc(x, y, radius * 0.55, hub)
    canvas.disc(x, y, radius * 0.2, INK)


def _car(canvas: Canvas, look: Look) -> None:
    body = look.ground
    canvas.polygon([(26, 48), (38, 28), (66, 28), (80, 48)], lighter(body, 0.12))
    canvas.polygon([(32, 47), (40, 32), (50, 32), (50, 47)], GLASS)
    canvas.polygon([(54, 47), (54, 32), (64, 32), (74, 47)], GLASS)
    canvas.box(8, 46, 94, 70, body, 8)
    if look.pattern != "plain":
        canvas.box(8, 55, 94, 60, look.accent)
    canvas.box(86, 52, 94, 58, (252, 226, 130), 2)
    canvas.line([(52, 48), (52, 68)], darker(body), 1)
    for x in (28, 74):
        _wheel(canvas, x, 70, 12)


def _truck(canvas: Canvas, look: Look) -> None:
    canvas.box(6, 62, 92, 70, darker(look.ground, 0.4))
    canvas.fill_pattern(
        lambda sheet: sheet.box(6, 24, 62, 64, WHITE), look.pattern, look.accent, look.ground
    )
    canvas.polygon([(65, 64), (65, 34), (82, 34), (94, 50), (94, 64)], look.ground)
    canvas.polygon([(70, 49), (70, 38), (80, 38), (88, 49)], GLASS)
    for x in (20, 42, 80):
        _wheel(canvas, x, 72, 10)


def _fire_engine(canvas: Canvas, look: Look) -> None:
    body = look.ground
    canvas.box(6, 40, 66, 68, body, 2)
    canvas.box(64, 30, 94, 68, lighter(body, 0.06), 4)
    canvas.box(76, 36, 92, 50, GLASS, 2)
    canvas.box(6, 56, 94, 60, WHITE)
    canvas.box(74, 24, 84, 30, (70, 130, 220), 2)
    for y in (27, 34):
        canvas.line([(4, y), (70, y)], METAL, 1.8)
    for x in range(8, 70, 8):
        canvas.line([(x, 27), (x, 34)], METAL, 1.4)
    for x in (22, 78):
        _wheel(canvas, x, 70, 11)


def _bus(canvas: Canvas, look: Look) -> None:
    canvas.box(5, 26, 95, 70, look.ground, 5)
    canvas.box(5, 54, 95, 60, look.accent)
    for x in range(10, 78, 15):
        canvas.box(x, 33, x + 12, 48, GLASS, 2)
    canvas.box(84, 33, 95, 50, GLASS, 2)
    for x in (24, 76):
        _wheel(canvas, x, 71, 10)


def _tractor(canvas: Canvas, look: Look) -> None:
    body = look.ground
    canvas.box(44, 44, 90, 64, body, 4)
    canvas.box(20, 18, 54, 24, darker(body), 2)
    canvas.box(24, 24, 50, 62, GLASS)
    canvas.line([(24, 22), (24, 62)], body, 3)
    canvas.line([(50, 22), (50, 62)], body, 3)
    canvas.box(76, 26, 80, 46, INK)
    canvas.disc(78, 20, 4, (206, 206, 210))
    _wheel(canvas, 30, 66, 20, look.accent)
    _wheel(canvas, 80, 75, 11, look.accent)


def _train(canvas: Canvas, look: Look) -> None:
    body = look.ground
    canvas.box(8, 22, 40, 66, body, 2)
    canvas.box(14, 30, 34, 44, GLASS, 2)
    canvas.box(4, 16, 44, 23, look.accent, 2)
    canvas.box(38, 40, 88, 66, lighter(body, 0.1), 10)
    canvas.polygon([(66, 40), (62, 20), (78, 20), (74, 40)], darker(body, 0.3))
    canvas.disc(72, 12, 6, (214, 214, 218))
    canvas.disc(84, 8, 5, (226, 226, 230))
    canvas.disc(54, 40, 5, (232, 190, 80))
    canvas.polygon([(86, 66), (97, 76), (80, 76)], METAL)
    for x, radius in ((20, 12), (44, 9), (62, 9), (78, 8)):
        _wheel(canvas, x, 82 - radius, radius, look.accent)
