"""Pictures whose pixels are whole though something about their file is not, made readable.

Tried only after a picture failed to decode. What is made of it holds the same pixels.
"""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Iterator

from PIL import Image, ImageFile

_PNG = b"\x89PNG\r\n\x1a\n"
_PIXELS = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS"})
_COLOURS = frozenset({b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"eXIf"})
"""Kept where their checksum is right: they decide how the pixels look."""
_END = b"\x00\x00\x00\x00IEND\xae\x42\x60\x82"
_LARGEST = 2**20
_END_OF_IMAGE = b"\xff\xd9"


def mended(data: bytes, name: str) -> Iterator[bytes]:
    """The picture without what may keep it from being read, the least of it first.

    PNG: texts and other metadata, whole or broken, are left out. JPEG: the two bytes that end it
    are put back, if all of its pixels are there.
    """
    if name == "PNG":
        for kinds in (_PIXELS | _COLOURS, _PIXELS):
            yield _PNG + b"".join(_chunks(data, kinds)) + _END
    if name == "JPEG" and not data.endswith(_END_OF_IMAGE):
        # The first of the two bytes may be there.
        whole = data.removesuffix(b"\xff") + _END_OF_IMAGE
        if _is_complete(data, whole):
            yield whole


def _chunks(data: bytes, kinds: frozenset[bytes]) -> Iterator[bytes]:
    at = len(_PNG)
    while at + 12 <= len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        chunk = data[at : at + 12 + length]
        at += 12 + length
        if kind == b"IEND" or len(chunk) < 12 + length:
            return
        if kind in _PIXELS or (kind in kinds and length < _LARGEST and _checks(chunk)):
            yield chunk


def _checks(chunk: bytes) -> bool:
    return zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")


def _is_complete(data: bytes, whole: bytes) -> bool:
    """Whether a JPEG lacks its end alone; libjpeg makes up the pixels that are not there."""
    with Image.open(io.BytesIO(whole), formats=["JPEG"]) as image:
        if "progressive" in image.info:
            return _has_last_scans(data)
        image.load()
    return _padded(data.removesuffix(b"\xff") + b"\x55" * 256).tobytes() == image.tobytes()


def _padded(data: bytes) -> Image.Image:
    """What a decoder makes of a JPEG that goes on with junk: it takes that for missing pixels."""
    image = Image.open(io.BytesIO(data), formats=["JPEG"])
    assert isinstance(image, ImageFile.ImageFile)
    image.load_prepare()
    codec, extents, _, arguments = image.tile[0]
    decoder = Image._getdecoder(image.mode, codec, arguments, image.decoderconfig)
    decoder.setimage(image.im, extents)
    decoder.decode(data)
    return Image.Image()._new(image.im)  # not loaded, which would ask for the end


def _has_last_scans(data: bytes) -> bool:
    """Whether a progressive JPEG has begun to refine each component to its full precision."""
    refined: set[int] = set()
    components: set[int] = set()
    for scan in re.finditer(rb"\xff\xda..(.)", data, re.DOTALL):
        count = scan[1][0]
        names = set(data[scan.end() : scan.end() + 2 * count : 2])
        first, _, precision = data[scan.end() + 2 * count :][:3] or (0, 0, 1)
        components |= names
        if first and not precision & 0x0F:
            refined |= names
    return bool(refined) and refined == components
