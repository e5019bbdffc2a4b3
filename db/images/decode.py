"""Untrusted image bytes to a clean RGB picture, or a stated reason why not.

Every picture that reaches the encoder comes through `decode_image`: sizes are judged from the
header before a pixel is decoded, only formats on the list are tried, and whatever a decoder makes
of damaged input becomes an `ImageRejected` with one of these reasons:

empty, not-an-image, unsupported-format, too-many-bytes, too-large, too-small, too-many-scans,
placeholder, truncated, damaged; and for files missing-file, is-a-directory, not-a-file, unreadable.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import struct
import warnings
from functools import cache
from io import BytesIO
from typing import TYPE_CHECKING

import xxhash
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError, features

from kinshelf.db.errors import ImageRejected

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_PIXELS = 50_000_000
"""Of a picture as it is decoded; a larger JPEG, up to `_REDUCIBLE` times, is reduced meanwhile."""
MAX_BYTES = 50_000_000
MIN_SIDE = 50
_DRAFT_FROM = 40_000_000
_REDUCIBLE = 4
MAX_SCANNED = 600_000_000
"""Pixels times passes of a JPEG, some seconds of work: 15 passes over the largest picture."""
_PLACEHOLDER_SIDE = 2

SUFFIXES = {
    "JPEG": ".jpg",
    "PNG": ".png",
    "WEBP": ".webp",
    "GIF": ".gif",
    "BMP": ".bmp",
    "TIFF": ".tif",
    "AVIF": ".avif",
    "HEIF": ".heic",
}
"""The formats that are decoded, by Pillow's name, and the suffix of a file of each."""

_MAGIC = {
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "WEBP": rb"RIFF....WEBP",
    "GIF": rb"GIF8[79]a",
    "BMP": rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\x00\x00\x00",
    "TIFF": rb"II[*+]\x00|MM\x00[*+]",
    "HEIF": rb"....ftyp(hei[cxms]|hev[cxms]|(mif1|msf1)(?!.{0,60}avif).{0,60}(hei|hev)[cxms])",
    "AVIF": rb"....ftyp(avif|avis|mif1|msf1)",
    "JPEG 2000": rb"\x00\x00\x00\x0cjP  |\xff\x4f\xff\x51",
    "JPEG XL": rb"\x00\x00\x00\x0cJXL |\xff\x0a",
    "Photoshop": rb"8BPS",
    "icon": rb"\x00\x00[\x01\x02]\x00",
    "PNM": rb"P[1-7]\s",
    "QOI": rb"qoif",
    "DDS": rb"DDS ",
    "PDF": rb"%PDF-",
    "PostScript": rb"%!PS",
    "SVG": rb"(\xef\xbb\xbf)?\s*(<\?xml[^<]*|<!--[^<]*|<!DOCTYPE svg[^<]*)*<svg",
}
_PATTERNS = {name: re.compile(magic, re.DOTALL) for name, magic in _MAGIC.items()}

_END_MARKERS = {"JPEG": b"\xff\xd9", "PNG": b"IEND", "GIF": b"\x00;"}

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_WHITE_LEVELS = (1.0, 2.0**8 - 1, 2.0**16 - 1, 2.0**31 - 1, 2.0**32 - 1)
_PILLOW_MODULES = re.compile(r"PIL\.")


def content_hash(data: bytes) -> str:
    """xxh3_128 of the bytes, 32 lower-case hex digits. Fast, not cryptographic."""
    return xxhash.xxh3_128_hexdigest(data)


def image_format(data: bytes) -> str:
    """The format that the first bytes announce, a key of `SUFFIXES`.

    Raises ImageRejected: `empty`, `unsupported-format`, `not-an-image`.
    """
    if not data:
        raise ImageRejected("empty", "the image has 0 bytes")
    found = next((name for name, magic in _PATTERNS.items() if magic.match(data[:1024])), None)
    if found is None:
        start = data[:16].decode("ascii", "replace").replace("\ufffd", "?")
        raise ImageRejected("not-an-image", f"the data is not an image: it begins {start!r}")
    if found not in SUFFIXES or not _is_readable(found):
        known = ", ".join(name for name in SUFFIXES if name != "HEIF")
        remedy = f"convert to {known}"
        if found == "HEIF":
            remedy = f"install pillow-heif (pip install 'kinshelf[heic]'), or {remedy}"
        raise ImageRejected("unsupported-format", f"{found} is not supported: {remedy}")
    return found


def _is_readable(name: str) -> bool:
    """Whether the decoders of this machine know the format."""
    if name == "HEIF":
        return _heif_is_there()
    return name != "AVIF" or bool(features.check("avif"))


@cache
def _heif_is_there() -> bool:
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


@contextlib.contextmanager
def limits(
    pixels: int | None = None, size: int | None = None, side: int | None = None
) -> Iterator[None]:
    """Other limits for this process while the context lasts: pixels, bytes, the shorter side."""
    global MAX_PIXELS, MAX_BYTES, MIN_SIDE, _DRAFT_FROM  # noqa: PLW0603
    before = MAX_PIXELS, MAX_BYTES, MIN_SIDE, _DRAFT_FROM
    MAX_PIXELS, MAX_BYTES = pixels or MAX_PIXELS, size or MAX_BYTES
    MIN_SIDE = MIN_SIDE if side is None else side
    _DRAFT_FROM = min(_DRAFT_FROM, MAX_PIXELS)
    try:
        yield
    finally:
        MAX_PIXELS, MAX_BYTES, MIN_SIDE, _DRAFT_FROM = before


def limits_now() -> dict[str, int]:
    """The limits in force, as `limits` takes them: for another process to have the same."""
    return {"pixels": MAX_PIXELS, "size": MAX_BYTES, "side": MIN_SIDE}


def decode_image(data: bytes) -> Image.Image:
    """Decode to an RGB picture, 8 bits a channel, as a viewer would show it.

    EXIF orientation is applied, ICC profiles too, transparency lies on white (a white
    product on grey), a JPEG beyond 40 megapixels is reduced, more than 8 bits are scaled, of an
    animation the first frame is taken. Safe to call from several threads.

    Raises ImageRejected with a reason of the module's list; no other exception and no warning.
    """
    if len(data) > MAX_BYTES:
        message = f"the image has {len(data):,} bytes, more than {MAX_BYTES:,}"
        raise ImageRejected("too-many-bytes", message)
    name = image_format(data)
    _silence_pillow()
    try:
        return _decoded(data, name)
    except ImageRejected:
        raise
    except Exception as error:
        if (picture := _mended(data, name)) is not None:
            return picture
        raise _rejection(error, data, name) from error


def _decoded(data: bytes, name: str) -> Image.Image:
    with Image.open(BytesIO(data), formats=[name]) as image:
        _check_size(*image.size, reducible=name == "JPEG")
        _check_scans(name, data, image.width * image.height)
        if name == "JPEG":
            _reduce(image)
        profile = image.info.get("icc_profile")
        image.load()
        return _as_rgb(_upright(image), profile)


def _mended(data: bytes, name: str) -> Image.Image | None:
    """The picture of a file with damage beside its pixels, None if there is more."""
    from kinshelf.db.images.mending import mended

    # Whatever fails here, the first failure is the one to report.
    with contextlib.suppress(Exception):
        for whole in mended(data, name):
            with contextlib.suppress(Exception):
                return _decoded(whole, name)
    return None


def _reduce(image: Image.Image) -> None:
    """Have a large JPEG decoded at a half, a quarter or an eighth of its size."""
    width, height = image.size
    limit = min(_DRAFT_FROM, MAX_PIXELS)
    part = next((n for n in (1, 2, 4, 8) if width * height <= limit * n * n), 8)
    if part > 1:
        image.draft(image.mode, (width // part, height // part))


def read_image_file(path: Path) -> bytes:
    """The bytes of a regular file; a symbolic link is followed, a device or pipe never opened.

    Raises ImageRejected: `missing-file`, `is-a-directory`, `not-a-file`, `unreadable`,
    `too-many-bytes`.
    """
    try:
        _check_regular(path, path.stat())
        # O_NONBLOCK: should a pipe take the file's place after the check, opening must not hang.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(path, flags), "rb") as file:
            _check_regular(path, os.fstat(file.fileno()))
            return file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _check_regular(path: Path, status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise ImageRejected("is-a-directory", f"{path} is a directory, not an image file")
    if not stat.S_ISREG(status.st_mode):
        raise ImageRejected("not-a-file", f"{path} is a device, pipe or socket, not a file")
    if status.st_size > MAX_BYTES:
        message = f"{path} has {status.st_size:,} bytes, more than {MAX_BYTES:,}"
        raise ImageRejected("too-many-bytes", message)


def _unreadable(path: Path, error: OSError | ValueError) -> ImageRejected:
    # ValueError: a path with a NUL or a lone surrogate, which no file can have.
    missing = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
    if isinstance(error, ValueError) or error.errno in missing:
        return ImageRejected("missing-file", f"there is no file {str(path)!r}")
    return ImageRejected("unreadable", f"{path} cannot be read: {error.strerror}")


def _silence_pillow() -> None:
    # Odd metadata makes Pillow warn, and with warnings as errors fail. catch_warnings would
    # swap the filters of all threads, so one filter for Pillow's own modules goes in front.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    if not warnings.filters or warnings.filters[0][3] != _PILLOW_MODULES:
        warnings.filterwarnings("ignore", module=_PILLOW_MODULES.pattern)


def _check_size(width: int, height: int, *, reducible: bool = False) -> None:
    size = f"the image is {width} x {height} pixels"
    if max(width, height) <= _PLACEHOLDER_SIDE:
        raise ImageRejected("placeholder", f"{size}: a placeholder, not a picture")
    most = MAX_PIXELS * (_REDUCIBLE if reducible else 1)
    if width * height > most:
        raise ImageRejected("too-large", f"{size}, more than {most:,} in all: shrink it")
    if min(width, height) < MIN_SIDE:
        raise ImageRejected("too-small", f"{size}: each side must have at least {MIN_SIDE}")


def _check_scans(name: str, data: bytes, pixels: int) -> None:
    # Each pass of a progressive JPEG goes over all of it: 60 took 18 s, and cost few bytes.
    scans = data.count(b"\xff\xda") if name == "JPEG" else 1
    if scans * pixels > MAX_SCANNED and scans > 1:
        message = f"the JPEG has {scans} passes over {pixels:,} pixels: save it as a plain JPEG"
        raise ImageRejected("too-many-scans", message)


def _upright(image: Image.Image) -> Image.Image:
    turn = _UPRIGHT.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ExifTags.Base.Orientation)
    except (OSError, SyntaxError, ValueError, TypeError, LookupError, struct.error):
        return 1  # damaged metadata does not make the pixels worse
    return value if isinstance(value, int) else 1


def _as_rgb(image: Image.Image, profile: object) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        return _to_8_bits(image).convert("RGB")
    if image.mode == "LAB":
        raise ImageRejected("unsupported-format", "LAB colours are not supported: convert to RGB")
    if not image.has_transparency_data and profile is None:
        return image.convert("RGB")
    from kinshelf.db.images.colours import in_srgb, on_ground

    flat = on_ground(image) if image.has_transparency_data else image
    return in_srgb(flat.convert("RGB") if flat.mode in ("P", "1", "YCbCr") else flat, profile)


def _to_8_bits(image: Image.Image) -> Image.Image:
    # I;16 means 0..65535. For 32-bit integers and floats no file defines white: the
    # smallest usual white level that holds every value.
    import numpy as np

    values = np.nan_to_num(np.asarray(image, dtype=np.float32))
    if image.mode.startswith("I;16"):
        white = 65535.0
    else:
        levels = _WHITE_LEVELS if image.mode == "F" else _WHITE_LEVELS[1:]
        peak = float(values.max())
        white = next((level for level in levels if peak <= level), peak)
    scaled = np.clip(values * (255.0 / white), 0, 255)
    return Image.fromarray(np.rint(scaled).astype(np.uint8))


def _rejection(error: Exception, data: bytes, name: str) -> ImageRejected:
    bombs = (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError)
    if isinstance(error, bombs):
        message = f"the {name} image has too many pixels: shrink it to {MAX_PIXELS:,} in all"
        return ImageRejected("too-large", message)
    if _is_truncated(error, data, name):
        return ImageRejected("truncated", f"the {name} image ends early, after {len(data):,} bytes")
    cause = "its header is damaged" if isinstance(error, UnidentifiedImageError) else error
    return ImageRejected("damaged", f"the {name} image cannot be decoded: {cause}")


def _is_truncated(error: Exception, data: bytes, name: str) -> bool:
    if name == "WEBP":
        return len(data) < 12 or int.from_bytes(data[4:8], "little") + 8 > len(data)
    reported_so = isinstance(error, EOFError) or "truncated" in str(error).lower()
    return reported_so or _END_MARKERS.get(name, b"") not in data[-1024:]
