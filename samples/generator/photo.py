"""From a drawn object to a product photo: background, pose, light, shadow, grain, JPEG."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageFilter

from kinshelf.samples.generator.drawing import (
    SIDE,
    WOOD,
    Canvas,
    Colour,
    between,
    darker,
    lighter,
    pick,
    varied,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

PHOTO_SIDE = SIDE // 2
"""Pixels along a finished photo."""

WALLS: tuple[Colour, ...] = (
    (236, 228, 216),
    (214, 226, 232),
    (232, 216, 220),
    (222, 230, 214),
    (198, 204, 214),
    (244, 226, 190),
)


@dataclass(frozen=True, slots=True)
class Setting:
    """How one photo is taken.

    `background` is one of `BACKGROUNDS`. `zoom` is the object's size (1 fills the photo), `tilt`
    its turn in degrees, `shift` its place off the middle, in shares of the photo. `light` scales
    brightness, `grain` is the noise's standard deviation in grey levels, `blur` a radius in pixels.
    `stands` puts the shadow under the object's foot, else behind it. `fuzzy` frays edges as fur.
    """

    background: str
    zoom: float
    tilt: float
    shift: tuple[float, float]
    light: float
    grain: float
    blur: float
    stands: bool
    fuzzy: bool
    quality: int = 84


def photograph(
    thing: Image.Image, extra: Image.Image | None, setting: Setting, rng: np.random.Generator
) -> Image.Image:
    """A photo of `thing`, `PHOTO_SIDE` pixels square, RGB; `extra` stands small beside it."""
    stage = BACKGROUNDS[setting.background](rng)
    if extra is not None:
        side = pick(rng, [-1, 1])
        aside = _posed(extra, 0.42, between(rng, -6, 6), (0.3 * side, 0.24), rng)
        _place(stage, aside, stands=True)
    lit = _lit(_frayed(thing, rng) if setting.fuzzy else thing)
    _place(stage, _posed(lit, setting.zoom, setting.tilt, setting.shift, rng), setting.stands)
    photo = stage.convert("RGB").reduce(2)
    if setting.blur > 0:
        photo = photo.filter(ImageFilter.GaussianBlur(setting.blur))
    return _exposed(photo, setting, rng)


def jpeg(photo: Image.Image, quality: int) -> bytes:
    """The photo as the bytes of a JPEG file."""
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", quality=quality, optimize=True)
    return buffer.getvalue()


def _posed(
    thing: Image.Image,
    zoom: float,
    tilt: float,
    shift: tuple[float, float],
    rng: np.random.Generator,
) -> Image.Image:
    """The object turned, scaled, moved, and seen a little from one side."""
    middle, turn = thing.width / 2, np.deg2rad(tilt)
    corners: list[float] = []
    for x, y in ((-1, -1), (-1, 1), (1, 1), (1, -1)):
        across = x / zoom * (1 + between(rng, -0.07, 0.07)) - 2 * shift[0] / zoom
        down = y / zoom * (1 + between(rng, -0.07, 0.07)) - 2 * shift[1] / zoom
        corners.append(middle * (1 + across * np.cos(turn) - down * np.sin(turn)))
        corners.append(middle * (1 + across * np.sin(turn) + down * np.cos(turn)))
    bilinear = Image.Resampling.BILINEAR
    return thing.transform(thing.size, Image.Transform.QUAD, corners, bilinear)


def _pixels(image: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(image, dtype=np.uint8)


def _lit(thing: Image.Image) -> Image.Image:
    """Light from the upper left, as a factor on each pixel's colour."""
    pixels = _pixels(thing).astype(np.float32)
    ramp = np.linspace(0, 1, thing.width, dtype=np.float32)
    factor = 1.12 - 0.17 * ramp[None, :] - 0.17 * ramp[:, None]
    pixels[..., :3] *= factor[..., None]
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8), "RGBA")


def _frayed(thing: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Every pixel taken from up to two pixels away: fur, felt, wool."""
    pixels, side = _pixels(thing), thing.width
    rows, columns = np.indices((side, side))
    rows = np.clip(rows + rng.integers(-2, 3, size=(side, side)), 0, side - 1)
    columns = np.clip(columns + rng.integers(-2, 3, size=(side, side)), 0, side - 1)
    return Image.fromarray(pixels[rows, columns], "RGBA")


def _place(stage: Image.Image, thing: Image.Image, stands: bool) -> None:
    """Lay the object on the stage over its own soft shadow."""
    bounds = thing.getchannel("A").getbbox()
    if bounds is None:
        return
    left, right, bottom = bounds[0], bounds[2], bounds[3]
    shadow = Image.new("L", stage.size, 0)
    if stands:
        oval = Image.new("L", (max(1, right - left), max(1, (right - left) // 6)), 0)
        oval.paste(150, (2, 2, oval.width - 2, oval.height - 2))
        shadow.paste(oval, (left + 4, bottom - oval.height // 2))
    else:
        shadow.paste(thing.getchannel("A").point(lambda level: level * 0.45), (5, 7))
    shadow = shadow.filter(ImageFilter.BoxBlur(6))
    stage.paste((36, 30, 36), (0, 0), shadow)
    stage.paste(thing, (0, 0), thing)


def _exposed(photo: Image.Image, setting: Setting, rng: np.random.Generator) -> Image.Image:
    """Brightness, a cast of colour and grain."""
    pixels = _pixels(photo).astype(np.float32)
    cast = 1 + 0.04 * rng.standard_normal(3).astype(np.float32)
    pixels *= setting.light * cast
    pixels += setting.grain * rng.standard_normal(pixels.shape, dtype=np.float32)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8), "RGB")


def _studio(rng: np.random.Generator) -> Image.Image:
    level = int(rng.integers(236, 256))
    return Canvas(SIDE, (level, level, level)).image


def _paper(rng: np.random.Generator) -> Image.Image:
    tone = varied(rng, pick(rng, WALLS))
    stage = Canvas(SIDE, lighter(tone, 0.4))
    for ring in range(8):
        size = 78 - ring * 9
        stage.disc(50, 52, size, lighter(tone, 0.04 + ring * 0.06))
    return stage.image


def _table(rng: np.random.Generator) -> Image.Image:
    stage = Canvas(SIDE, varied(rng, pick(rng, WALLS)))
    top = varied(rng, pick(rng, [WOOD, (224, 204, 176), (236, 234, 230), (120, 84, 62)]))
    edge = between(rng, 60, 74)
    stage.box(0, edge, 100, 100, top)
    stage.box(0, edge, 100, edge + 1.5, darker(top, 0.2))
    return stage.image


def _wallpaper(rng: np.random.Generator) -> Image.Image:
    tone = varied(rng, pick(rng, WALLS))
    stage = Canvas(SIDE, tone)
    gap = between(rng, 12, 22)
    for step in range(9):
        stage.box(step * gap, 0, step * gap + gap * 0.4, 100, darker(tone, 0.07))
    stage.box(0, 80, 100, 100, varied(rng, WOOD))
    return stage.image


def _planks(rng: np.random.Generator) -> Image.Image:
    wood = varied(rng, pick(rng, [WOOD, (168, 132, 100), (206, 178, 140)]))
    stage = Canvas(SIDE, wood)
    for row in range(6):
        stage.box(0, row * 17, 100, row * 17 + 15.6, varied(rng, wood))
        stage.line(
            [(0, row * 17 + 6), (60, row * 17 + 7), (100, row * 17 + 5)], darker(wood, 0.1), 0.6
        )
    return stage.image


def _outdoors(rng: np.random.Generator) -> Image.Image:
    stage = Canvas(SIDE, varied(rng, (168, 208, 236)))
    for _ in range(3):
        x, y = between(rng, 0, 100), between(rng, 6, 46)
        for step in (-8, 0, 8):
            stage.disc(x + step, y - (step == 0) * 2, 8, (238, 244, 248), ry=5)
    grass = varied(rng, (132, 182, 96))
    stage.disc(between(rng, 20, 80), 130, 110, grass, ry=between(rng, 46, 60))
    return stage.image


def _sky(rng: np.random.Generator) -> Image.Image:
    blue = varied(rng, (140, 192, 234))
    stage = Canvas(SIDE, blue)
    for _ in range(4):
        x, y = between(rng, 0, 100), between(rng, 10, 96)
        for step in (-9, 0, 9):
            stage.disc(x + step, y - (step == 0) * 3, 9, lighter(blue, 0.7), ry=6)
    return stage.image


BACKGROUNDS: dict[str, Callable[[np.random.Generator], Image.Image]] = {
    "studio": _studio,
    "paper": _paper,
    "table": _table,
    "wallpaper": _wallpaper,
    "planks": _planks,
    "outdoors": _outdoors,
    "sky": _sky,
}
