"""Colours as a viewer shows them: ICC profiles applied, transparency on a ground."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageCms

from kinshelf.db.errors import ImageRejected

GREY = (128, 128, 128)
_SIDE = 128
_WHITE = 232
"""From this level on, in all channels, a pixel cannot be seen on white."""
_SEEN = 0.05
"""Of a product's pixels at least so many must be seen on white."""
_PROFILED = frozenset({"RGB", "L", "CMYK"})
_STANDARD = (b"sRGB", "sRGB".encode("utf-16-be"))


def in_srgb(image: Image.Image, profile: object) -> Image.Image:
    """The picture in RGB, its ICC `profile` applied unless that is damaged or sRGB."""
    if not isinstance(profile, bytes) or image.mode not in _PROFILED or _is_srgb(profile):
        return image.convert("RGB")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        target = ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        converted = None
    return converted or image.convert("RGB")


def _is_srgb(profile: bytes) -> bool:
    return any(name in profile[:4096] for name in _STANDARD)


def on_ground(image: Image.Image) -> Image.Image:
    """A picture with transparency on white, or on grey where the product itself is white."""
    rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    alpha = rgba.getchannel("A")
    if alpha.getbbox() is None:
        raise ImageRejected("placeholder", "the image is transparent everywhere")
    canvas = Image.new("RGB", rgba.size, GREY if _is_white(rgba) else "white")
    canvas.paste(rgba, mask=alpha)
    return canvas


def _is_white(rgba: Image.Image) -> bool:
    """Whether nearly nothing would be seen of it on white."""
    small = rgba.resize((min(rgba.width, _SIDE), min(rgba.height, _SIDE)), Image.Resampling.NEAREST)
    pixels = np.asarray(small)
    opaque = pixels[..., 3] >= 128
    if opaque.all() or not opaque.any():
        return False
    darkest = pixels[..., :3].min(axis=-1)[opaque]
    return bool((darkest < _WHITE).mean() < _SEEN)
