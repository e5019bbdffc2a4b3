"""An encoder's image processor, in Pillow and NumPy alone.

The steps and their rounding are those of transformers' CLIP and SigLIP processors: resize
(Pillow's filter, 8 bits), crop the middle, rescale in float64, normalise in float32; the outcome
is bit for bit the same. Up to the crop a picture stays uint8, a quarter of the size of floats.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from PIL import Image

from kinshelf.db.errors import EncoderUnavailable, ImageRejected
from kinshelf.store.encode.model_files import PROCESSORS, read_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

MAX_ASPECT_RATIO = 256
"""Resizing the short edge of a longer strip would need gigabytes."""

_CLIP: dict[str, Any] = {
    "do_resize": True,
    "size": {"shortest_edge": 224},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": (0.48145466, 0.4578275, 0.40821073),
    "image_std": (0.26862954, 0.26130258, 0.27577711),
    "do_pad": False,
}
_SIGLIP: dict[str, Any] = _CLIP | {
    "size": {"height": 224, "width": 224},
    "do_center_crop": False,
    "image_mean": (0.5, 0.5, 0.5),
    "image_std": (0.5, 0.5, 0.5),
}
_DEFAULTS = {
    None: _CLIP,
    "CLIPImageProcessor": _CLIP,
    "CLIPImageProcessorFast": _CLIP,
    "CLIPFeatureExtractor": _CLIP,
    "ChineseCLIPImageProcessor": _CLIP,
    "ChineseCLIPFeatureExtractor": _CLIP,
    "SiglipImageProcessor": _SIGLIP,
    "SiglipImageProcessorFast": _SIGLIP,
}
"""By the type that the settings name; settings that name none are CLIP's oldest."""


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """The settings that decide an encoder's pixels. Sizes are pixels, (height, width).

    `resize` is the length of the short edge, or a size whatever the aspect ratio; `size` is what
    the vision tower reads. A value is (level * scale - mean) / std.
    """

    resize: int | tuple[int, int]
    size: tuple[int, int]
    resample: int
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Self:
        """From `dataclasses.asdict` as JSON gives it back."""
        as_tuples: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in fields.items()
        }
        return cls(**as_tuples)

    def pixels(self, image: Image.Image) -> NDArray[np.uint8]:
        """Resized and cropped, (H, W, 3) uint8. Safe to call from several threads.

        Raises ImageRejected (`too-narrow`) beyond an aspect ratio of 256.
        """
        rgb = image if image.mode == "RGB" else image.convert("RGB")
        height, width = self._resized(rgb.height, rgb.width)
        # Pillow copies the pixels as they are if the size is right already.
        resized = rgb.resize((width, height), resample=Image.Resampling(self.resample))
        if (height, width) == self.size:
            return np.asarray(resized)
        top, left = (height - self.size[0]) // 2, (width - self.size[1]) // 2
        box = (left, top, left + self.size[1], top + self.size[0])
        return np.asarray(resized.crop(box))

    def normalised(self, pixels: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """The vision tower's input, (n, 3, H, W) float32, from n results of `pixels`."""
        levels = (np.arange(256, dtype=np.float64) * self.scale).astype(np.float32)[:, None]
        table = (levels - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)
        out = np.empty((len(pixels), 3, *self.size), dtype=np.float32)
        for row, picture in zip(out, pixels, strict=True):
            for channel in range(3):
                np.take(table[:, channel], picture[..., channel], out=row[channel], mode="clip")
        return out

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        if isinstance(self.resize, tuple):
            return self.resize
        short, long = sorted((height, width))
        if long > MAX_ASPECT_RATIO * short:
            message = f"the picture is {width} x {height}: too narrow a strip to resize"
            raise ImageRejected("too-narrow", message)
        edge, other = self.resize, int(self.resize * long / short)
        return (other, edge) if width <= height else (edge, other)


def read_preprocessing(directory: Path) -> Preprocessing:
    """The image processor settings of a model directory.

    Raises EncoderUnavailable if they are damaged or ask for steps that are not known here.
    """
    given = _settings(directory)
    kind = given.get("image_processor_type") or given.get("feature_extractor_type")
    if kind not in _DEFAULTS:
        known = ", ".join(str(name) for name in _DEFAULTS if name)
        raise EncoderUnavailable(f"its image processor is {kind!r}; known are {known}")
    defaults = _DEFAULTS[kind]
    settings = defaults | {key: given[key] for key in defaults if given.get(key) is not None}
    try:
        return _parse(settings)
    except (KeyError, TypeError, ValueError) as error:
        raise EncoderUnavailable(f"its image processor settings are not known: {error}") from error


def _settings(directory: Path) -> dict[str, Any]:
    """As transformers: the image processor inside processor_config.json wins if there is one."""
    files = [directory / name for name in PROCESSORS if (directory / name).is_file()]
    found = {path.name: read_json(path) for path in files}
    nested = found.get(PROCESSORS[0], {}).get("image_processor")
    settings = nested if isinstance(nested, dict) else found.get(PROCESSORS[1])
    if settings is None:
        raise EncoderUnavailable(f"{PROCESSORS[0]} holds no image processor: add {PROCESSORS[1]}")
    return settings


def _parse(settings: dict[str, Any]) -> Preprocessing:
    if settings["do_pad"] or not settings["do_resize"]:
        raise ValueError("do_pad or no do_resize")
    resize = _resize(settings["size"])
    size = _square_or_size(settings["crop_size"]) if settings["do_center_crop"] else resize
    if isinstance(size, int):
        raise ValueError("a shortest_edge without do_center_crop leaves sizes that vary")
    normalise = settings["do_normalize"]
    return Preprocessing(
        resize=resize,
        size=size,
        resample=Image.Resampling(settings["resample"]).value,
        scale=float(settings["rescale_factor"]) if settings["do_rescale"] else 1.0,
        mean=_channels(settings["image_mean"] if normalise else 0),
        std=_channels(settings["image_std"] if normalise else 1),
    )


def _resize(size: Any) -> int | tuple[int, int]:
    if isinstance(size, int):
        return size
    if "longest_edge" in size:
        raise ValueError("longest_edge")
    return int(size["shortest_edge"]) if "shortest_edge" in size else _square_or_size(size)


def _square_or_size(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size["height"]), int(size["width"]))


def _channels(value: Any) -> tuple[float, ...]:
    values = tuple(map(float, value)) if isinstance(value, (list, tuple)) else (float(value),) * 3
    if len(values) != 3:
        raise ValueError(f"{len(values)} channels instead of 3")
    return values
