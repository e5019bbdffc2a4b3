"""Untrusted image bytes become an upright RGB picture or a reason.

Expected pixels come from how each picture is built here, never from the decoder.
"""

from __future__ import annotations

import concurrent.futures
import gzip
import io
import os
import socket
import struct
import subprocess
import sys
import textwrap
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageFile, features

from kinshelf.db.errors import ImageRejected
from kinshelf.db.images.decode import (
    MAX_BYTES,
    MAX_PIXELS,
    content_hash,
    decode_image,
    image_format,
    read_image_file,
)

REAL_IMAGES = Path(__file__).parents[1] / ".." / "shared" / "amazon2020" / "images"


def encode(image: Image.Image, name: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, name, **options)
    return file.getvalue()


def pixels(data: bytes) -> np.ndarray:
    image = decode_image(data)
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def reason(data: bytes) -> str:
    with pytest.raises(ImageRejected) as caught:
        decode_image(data)
    assert str(caught.value)
    return caught.value.reason


def quadrants(height: int = 64, width: int = 96) -> np.ndarray:
    """Red top left, green top right, blue bottom left, grey bottom right."""
    array = np.zeros((height, width, 3), np.uint8)
    array[: height // 2, : width // 2] = (200, 10, 10)
    array[: height // 2, width // 2 :] = (10, 200, 10)
    array[height // 2 :, : width // 2] = (10, 10, 200)
    array[height // 2 :, width // 2 :] = (120, 120, 120)
    return array


PICTURE = Image.fromarray(quadrants())
NOISE = Image.fromarray(np.random.default_rng(7).integers(0, 256, (64, 96, 3), dtype=np.uint8))
JPEG = encode(PICTURE, "JPEG", quality=95)
PNG = encode(PICTURE, "PNG")


def png_chunk(kind: bytes, body: bytes) -> bytes:
    checksum = zlib.crc32(kind + body)
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)


def one_bit_png(width: int, height: int) -> bytes:
    """A black PNG of any size, written chunk by chunk without holding its pixels."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    packer, row = zlib.compressobj(9), bytes(1 + (width + 7) // 8)
    body = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


# --- what decodes -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["PNG", "BMP", "TIFF", "GIF"])
def test_lossless_formats_give_the_very_pixels(name: str) -> None:
    assert (pixels(encode(PICTURE, name)) == quadrants()).all()


@pytest.mark.parametrize("name", ["JPEG", "WEBP", "AVIF"])
def test_lossy_formats_give_nearly_the_pixels(name: str) -> None:
    if name == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    error = np.abs(pixels(encode(PICTURE, name, quality=95)) - quadrants())
    assert error.mean() < 4


def test_a_cmyk_jpeg_has_the_right_colours() -> None:
    error = np.abs(pixels(encode(PICTURE.convert("CMYK"), "JPEG", quality=95)) - quadrants())
    assert error.mean() < 4


def test_a_16_bit_png_is_scaled_not_clipped() -> None:
    ramp = np.tile(np.linspace(0, 65535, 256).astype(np.uint16), (60, 1))
    decoded = pixels(encode(Image.fromarray(ramp), "PNG"))
    expected = np.round(ramp / 257)
    assert np.abs(decoded - expected[..., None]).max() <= 1


@pytest.mark.parametrize(
    ("dtype", "top"), [(np.int32, 255), (np.int32, 65535), (np.float32, 1.0), (np.float32, 255)]
)
def test_32_bit_tiffs_keep_their_greys(dtype: type, top: float) -> None:
    ramp = np.tile(np.linspace(0, top, 256), (60, 1)).astype(dtype)
    decoded = pixels(encode(Image.fromarray(ramp), "TIFF"))
    assert np.abs(decoded[..., 0] - np.arange(256)).max() <= 1


def test_a_float_tiff_with_nan_and_infinity_decodes() -> None:
    values = np.full((60, 60), 0.5, np.float32)
    values[0, :3] = np.nan, np.inf, -np.inf
    assert decode_image(encode(Image.fromarray(values), "TIFF")).mode == "RGB"


def test_transparency_lies_on_white() -> None:
    rgba = np.dstack([quadrants(), np.full((64, 96), 255, np.uint8)])
    rgba[:32, :, 3] = 0
    rgba[32:, :48, 3] = 128
    expected = quadrants().astype(float)
    expected[:32] = 255
    expected[32:, :48] = expected[32:, :48] * (128 / 255) + 255 * (127 / 255)
    assert np.abs(pixels(encode(Image.fromarray(rgba), "PNG")) - expected).max() <= 1


def test_grey_with_alpha_lies_on_white() -> None:
    grey_alpha = np.full((60, 60, 2), (100, 255), np.uint8)
    grey_alpha[:30, :, 1] = 0
    decoded = pixels(encode(Image.fromarray(grey_alpha, "LA"), "PNG"))
    assert (decoded[:30] == 255).all()
    assert (decoded[30:] == 100).all()


def test_a_palette_with_transparent_entries_lies_on_white() -> None:
    image = Image.new("P", (60, 60), 1)
    image.putpalette([0, 0, 0, 200, 10, 10, 10, 10, 200])
    image.paste(2, (0, 0, 60, 30))
    decoded = pixels(encode(image, "PNG", transparency=b"\xff\xff\x00"))
    assert (decoded[:30] == 255).all()
    assert (decoded[30:] == (200, 10, 10)).all()


def test_a_transparent_colour_of_an_rgb_png_becomes_white() -> None:
    decoded = pixels(encode(PICTURE, "PNG", transparency=(200, 10, 10)))
    assert (decoded[:32, :48] == 255).all()
    assert (decoded[32:] == quadrants()[32:]).all()


def test_a_one_bit_image_is_black_and_white() -> None:
    image = Image.new("1", (60, 60), 1)
    image.paste(0, (0, 0, 60, 30))
    decoded = pixels(encode(image, "PNG"))
    assert (decoded[:30] == 0).all()
    assert (decoded[30:] == 255).all()


def test_of_an_animation_the_first_frame_is_taken() -> None:
    frames = [Image.new("RGB", (60, 60), colour) for colour in ("red", "lime", "blue")]
    for name in ("GIF", "PNG"):
        data = encode(frames[0], name, save_all=True, append_images=frames[1:])
        assert (pixels(data) == (255, 0, 0)).all()


STORED_AS = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: upright[::-1, ::-1].swapaxes(0, 1),
    8: lambda upright: np.rot90(upright, -1),
}
"""How a camera that writes this EXIF orientation stores an upright picture."""


@pytest.mark.parametrize("name", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", STORED_AS)
def test_exif_orientation_is_applied(name: str, orientation: int) -> None:
    stored = Image.fromarray(np.ascontiguousarray(STORED_AS[orientation](quadrants())))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if name == "WEBP" else {}
    assert (pixels(encode(stored, name, exif=exif, **options)) == quadrants()).all()


def test_a_rotated_jpeg_of_a_phone_comes_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.fromarray(np.ascontiguousarray(np.rot90(quadrants(), 1)))
    assert np.abs(pixels(encode(stored, "JPEG", quality=95, exif=exif)) - quadrants()).mean() < 4


@given(exif=st.binary(max_size=200))
@settings(max_examples=150)
def test_damaged_exif_does_not_cost_the_picture(exif: bytes) -> None:
    data = encode(PICTURE, "JPEG", quality=95, exif=b"Exif\x00\x00II*\x00\x08\x00\x00\x00" + exif)
    assert sorted(decode_image(data).size) == [64, 96]


def test_a_white_product_photo_is_not_a_placeholder() -> None:
    assert (pixels(encode(Image.new("RGB", (60, 60), "white"), "PNG")) == 255).all()


def test_an_image_of_exactly_the_limits_is_taken() -> None:
    assert decode_image(encode(Image.new("L", (50, 50)), "PNG")).size == (50, 50)
    assert MAX_PIXELS == 10_000 * 5000
    assert decode_image(one_bit_png(10_000, 5000)).size == (10_000, 5000)


def test_bytes_behind_the_end_do_not_matter() -> None:
    assert (pixels(PNG + b"trailing") == quadrants()).all()


def test_real_product_photos_decode_as_pillow_shows_them() -> None:
    photos = sorted(REAL_IMAGES.glob("*.jpg"))[:20]
    if not photos:
        pytest.skip("needs ../shared/amazon2020/images")
    for photo in photos:
        with Image.open(photo) as image:
            if image.info.get("icc_profile"):
                continue
            expected = np.asarray(image.convert("RGB"))
        assert (pixels(read_image_file(photo)) == expected).all()


# --- what is rejected ---------------------------------------------------------------------------


def test_zero_bytes_are_empty() -> None:
    assert reason(b"") == "empty"


@pytest.mark.parametrize(
    "data",
    [
        b"This is no image.",
        b"<!DOCTYPE html><html><body>404 <svg></svg></body></html>",
        b"BMW price list 2020, all models and colours\n",
        b"\xff\xd8",
        b"\x1f\x8b" + gzip.compress(JPEG)[2:],
        bytes(1000),
    ],
    ids=["text", "html", "text-that-begins-BM", "two-bytes", "gzip", "zeros"],
)
def test_other_data_is_not_an_image(data: bytes) -> None:
    assert reason(data) == "not-an-image"


@pytest.mark.parametrize("name", ["PPM", "ICO", "DDS", "JPEG2000", "PDF", "EPS"])
def test_formats_off_the_list_are_named(name: str) -> None:
    data = encode(PICTURE, name)
    assert reason(data) == "unsupported-format"


def test_an_svg_and_an_iphone_photo_are_named() -> None:
    svg = b'<?xml version="1.0"?>\n<!-- logo -->\n<svg xmlns="http://www.w3.org/2000/svg"/>'
    assert reason(svg) == "unsupported-format"
    found = reason(b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic")
    assert found in {"unsupported-format", "damaged", "truncated"}  # as pillow-heif is there or not


def test_lab_colours_are_refused_by_name() -> None:
    lab = ImageCms.createProfile("LAB")
    image = ImageCms.profileToProfile(
        PICTURE, ImageCms.createProfile("sRGB"), lab, outputMode="LAB"
    )
    assert image is not None
    assert reason(encode(image, "TIFF")) == "unsupported-format"


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9, 0.995])
@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_a_truncated_image_is_rejected_as_such(name: str, share: float) -> None:
    data = encode(NOISE, name)
    assert reason(data[: int(len(data) * share)]) == "truncated"


def test_a_truncated_jpeg_is_rejected_even_if_another_library_allowed_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    data = encode(NOISE, "JPEG")
    assert reason(data[: len(data) // 2]) == "truncated"


def test_a_damaged_png_is_rejected_as_such() -> None:
    middle = len(PNG) // 2
    assert reason(PNG[:middle] + b"\x00\xff\x00\xff" + PNG[middle + 4 :]) == "damaged"


def test_a_picture_with_a_short_side_is_too_small() -> None:
    assert reason(encode(Image.new("RGB", (400, 49)), "PNG")) == "too-small"


@pytest.mark.parametrize("side", [1, 2])
def test_a_tracking_pixel_is_a_placeholder(side: int) -> None:
    assert reason(encode(Image.new("RGB", (side, side), "white"), "GIF")) == "placeholder"


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_a_fully_transparent_image_is_a_placeholder(mode: str) -> None:
    assert reason(encode(Image.new(mode, (60, 60)), "PNG")) == "placeholder"


@pytest.mark.parametrize("size", [(10_000, 5001), (10_000, 10_000), (30_000, 30_000)])
def test_more_pixels_than_the_limit_are_too_large(size: tuple[int, int]) -> None:
    assert reason(one_bit_png(*size)) == "too-large"


def test_a_decompression_bomb_costs_no_memory() -> None:
    pytest.importorskip("resource")
    script = """
        import resource, sys
        from kinshelf.db.errors import ImageRejected
        from kinshelf.db.images.decode import decode_image
        data = sys.stdin.buffer.read()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            decode_image(data)
        except ImageRejected as rejected:
            print(rejected.reason, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(script)]
    bomb = one_bit_png(30_000, 30_000)
    done = subprocess.run(command, input=bomb, capture_output=True, check=True)
    stated, grown = done.stdout.split()
    assert (stated, done.stderr) == (b"too-large", b"")
    assert len(bomb) < 150_000
    assert int(grown) < 50_000_000 / (1 if sys.platform == "darwin" else 1024)


def test_more_bytes_than_the_limit_are_refused_unread() -> None:
    assert reason(PNG + bytes(MAX_BYTES)) == "too-many-bytes"


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "GIF", "TIFF"])
@given(
    edits=st.lists(
        st.tuples(st.floats(0, 0.999), st.binary(min_size=1, max_size=4)), min_size=1, max_size=6
    ),
    kept=st.floats(0.1, 1.0),
)
@settings(max_examples=120, suppress_health_check=[HealthCheck.too_slow])
def test_damaged_bytes_decode_or_are_rejected_and_nothing_else(
    name: str, edits: list[tuple[float, bytes]], kept: float
) -> None:
    data = bytearray(encode(PICTURE, name))
    for place, patch in edits:
        start = int(place * len(data))
        data[start : start + len(patch)] = patch
    try:
        assert decode_image(bytes(data[: int(kept * len(data))])).mode == "RGB"
    except ImageRejected as rejected:
        assert rejected.reason


@given(head=st.sampled_from([JPEG[:4], PNG[:8], b"GIF89a", b"II*\x00", b"BM"]), tail=st.binary())
@settings(max_examples=200)
def test_random_bytes_behind_a_signature_are_rejected(head: bytes, tail: bytes) -> None:
    assert reason(head + tail) in {"truncated", "damaged", "not-an-image", "too-large", "too-small"}


def test_decoding_leaves_other_warnings_alone() -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        decode_image(JPEG)
        warnings.warn("mine", stacklevel=1)
    assert [str(warning.message) for warning in seen] == ["mine"]


def test_many_threads_decode_at_once() -> None:
    exif = b"Exif\x00\x00II*\x00\x08\x00\x00\x00\xff\xff\x12\x01\x03"
    odd = encode(PICTURE, "JPEG", quality=95, exif=exif)
    with concurrent.futures.ThreadPoolExecutor(8) as workers:
        sizes = [image.size for image in workers.map(decode_image, [odd, PNG, JPEG] * 40)]
    assert set(sizes) == {(96, 64)}


# --- names and files ----------------------------------------------------------------------------


def test_the_format_is_distinguished_from_the_bytes() -> None:
    assert image_format(JPEG) == "JPEG"
    assert image_format(PNG) == "PNG"


def test_the_content_hash_is_xxh3_128() -> None:
    # The published test value of XXH3_128bits for no input, seed 0.
    assert content_hash(b"") == "99aa06d3014798d86001c324468d497f"
    assert content_hash(JPEG) != content_hash(JPEG[:-1])


def test_a_file_is_read_whole_through_a_symbolic_link_too(tmp_path: Path) -> None:
    (tmp_path / "toy.jpg").write_bytes(JPEG)
    (tmp_path / "link.jpg").symlink_to(tmp_path / "toy.jpg")
    assert read_image_file(tmp_path / "toy.jpg") == JPEG
    assert read_image_file(tmp_path / "link.jpg") == JPEG


def file_reason(path: Path) -> str:
    with pytest.raises(ImageRejected) as caught:
        read_image_file(path)
    return caught.value.reason


@pytest.mark.parametrize("name", ["none.jpg", "none/none.jpg", "a\0b.jpg", "x" * 300 + ".jpg"])
def test_a_missing_file_is_reported(tmp_path: Path, name: str) -> None:
    assert file_reason(tmp_path / name) == "missing-file"


def test_a_directory_is_reported(tmp_path: Path) -> None:
    assert file_reason(tmp_path) == "is-a-directory"


def test_a_loop_of_links_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").symlink_to(tmp_path / "a.jpg")
    assert file_reason(tmp_path / "a.jpg") == "unreadable"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads all files")
def test_a_file_without_permission_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(JPEG)
    (tmp_path / "a.jpg").chmod(0)
    assert file_reason(tmp_path / "a.jpg") == "unreadable"


@pytest.mark.timeout(10)
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_devices_and_sockets_are_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        paths = [tmp_path / "pipe.jpg", tmp_path / "link.jpg", tmp_path / "s", Path(os.devnull)]
        assert {file_reason(path) for path in paths} == {"not-a-file"}


def test_a_huge_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "huge.jpg").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    assert file_reason(tmp_path / "huge.jpg") == "too-many-bytes"
