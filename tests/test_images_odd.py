"""Pictures whose file is odd though their pixels are not, and how colours are shown."""

from __future__ import annotations

import importlib.util
import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from kinshelf.db.errors import ImageRejected
from kinshelf.db.images import decode
from kinshelf.db.images.decode import decode_image, image_format

RANDOM = np.random.default_rng(0)
NOISE = Image.fromarray(RANDOM.integers(0, 256, (200, 300, 3), dtype=np.uint8))
SMOOTH = Image.fromarray(
    np.stack(np.meshgrid(np.arange(256), np.arange(200), [0])[:3], -1)[:, :, 0].astype(np.uint8)
)
FRAMED = Image.new("RGB", (300, 200), "white")
FRAMED.paste(NOISE.resize((100, 60)), (100, 70))
BLACK = Image.new("RGB", (300, 200))
BLACK.paste(NOISE.resize((100, 60)), (100, 70))
PICTURES = {"noise": NOISE, "smooth": SMOOTH, "framed": FRAMED, "black": BLACK}


def encode(image: Image.Image, name: str, **options: object) -> bytes:
    stream = BytesIO()
    image.save(stream, name, **options)
    return stream.getvalue()


def same(data: bytes, whole: bytes) -> bool:
    return bool((np.asarray(decode_image(data)) == np.asarray(decode_image(whole))).all())


def reason(data: bytes) -> str:
    with pytest.raises(ImageRejected) as caught:
        decode_image(data)
    return caught.value.reason


def with_chunk(png: bytes, kind: bytes, content: bytes, check: int | None = None) -> bytes:
    body = kind + content
    crc = zlib.crc32(body) if check is None else check
    chunk = struct.pack(">I", len(content)) + body + struct.pack(">I", crc)
    return png[:33] + chunk + png[33:]


@pytest.mark.parametrize(
    ("kind", "content", "check"),
    [
        (b"zTXt", b"note\0\0" + zlib.compress(bytes(80_000_000)), None),
        (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + b"x" * 3_000_000, None),
        (b"tEXt", b"note\0text", 7),
        (b"eXIf", b"II*\0broken", 7),
        (b"iCCP", b"broken", None),
        (b"iCCP", b"p\0\0" + zlib.compress(bytes(2_000_000)), None),
        (b"zTXt", b"", None),
        (b"tIME", b"", None),
        (b"pHYs", b"1", 3),
        (b"gAMA", b"", 3),
    ],
)
def test_metadata_of_a_png_do_not_cost_the_picture(
    kind: bytes, content: bytes, check: int | None
) -> None:
    whole = encode(NOISE, "PNG")
    assert same(with_chunk(whole, kind, content, check), whole)


def test_many_texts_in_a_png_do_not_cost_the_picture() -> None:
    texts = PngImagePlugin.PngInfo()
    for i in range(80):
        texts.add_text(f"note {i}", "x" * 900_000, zip=True)
    assert same(encode(NOISE, "PNG", pnginfo=texts), encode(NOISE, "PNG"))


@pytest.mark.parametrize("cut", [1, 2])
@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(
    "options",
    [{"quality": 95}, {"quality": 30, "subsampling": 2}, {"progressive": True}, {"optimize": True}],
)
def test_a_jpeg_without_its_last_bytes_has_its_pixels(
    cut: int, name: str, mode: str, options: dict[str, int]
) -> None:
    whole = encode(PICTURES[name].convert(mode), "JPEG", **options)
    assert same(whole[:-cut], whole)


@pytest.mark.parametrize("name", ["noise", "framed"])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("share", [0.1, 0.3, 0.6])
def test_a_jpeg_that_ends_early_is_truncated(name: str, progressive: bool, share: float) -> None:
    whole = encode(PICTURES[name], "JPEG", progressive=progressive)
    head = whole.rindex(b"\xff\xda") if not progressive else 0
    data = whole[: head + int((len(whole) - head) * share)]
    assert reason(data) == "truncated"


@pytest.mark.parametrize(("size", "shown"), [((8064, 6048), (4032, 3024)), ((50, 64), (50, 64))])
def test_a_48_megapixel_jpeg_is_reduced(size: tuple[int, int], shown: tuple[int, int]) -> None:
    picture = decode_image(encode(Image.new("RGB", size, (200, 30, 30)), "JPEG"))
    assert picture.size == shown
    assert np.abs(np.asarray(picture.resize((1, 1))).astype(int) - (200, 30, 30)).max() <= 2


def test_a_48_megapixel_png_is_taken() -> None:
    assert decode_image(encode(Image.new("L", (8064, 6048)), "PNG")).size == (8064, 6048)


def test_limits_can_be_set() -> None:
    small, large = encode(NOISE.resize((20, 20)), "PNG"), encode(NOISE, "PNG")
    assert reason(small) == "too-small"
    with decode.limits(pixels=50_000, side=10):
        assert decode_image(small).size == (20, 20)
        assert reason(large) == "too-large"
        assert decode_image(encode(NOISE, "JPEG")).size == (150, 100)
    with decode.limits(size=1000):
        assert reason(large) == "too-many-bytes"
    assert decode_image(large).size == (300, 200)


def swapped_profile() -> bytes:
    """sRGB with red and green exchanged, under another name."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = profile.replace("sRGB".encode("utf-16-be"), "Swap".encode("utf-16-be"))
    return profile.replace(b"rXYZ", b"----").replace(b"gXYZ", b"rXYZ").replace(b"----", b"gXYZ")


@pytest.mark.parametrize("name", ["PNG", "TIFF", "WEBP"])
def test_an_icc_profile_is_applied(name: str) -> None:
    red = Image.new("RGB", (60, 60), (220, 20, 20))
    options = {"lossless": True} if name == "WEBP" else {}
    found = np.asarray(decode_image(encode(red, name, icc_profile=swapped_profile(), **options)))
    assert np.abs(found[30, 30].astype(int) - (20, 220, 20)).max() < 12


@pytest.mark.parametrize("profile", [b"damaged", ImageCms.ImageCmsProfile(
    ImageCms.createProfile("sRGB")).tobytes()])  # fmt: skip
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "RGBA", "P"])
def test_a_damaged_profile_or_srgb_changes_nothing(profile: bytes, mode: str) -> None:
    image = NOISE.convert(mode)
    expected = np.asarray(image.convert("RGB"))
    assert (np.asarray(decode_image(encode(image, "TIFF", icc_profile=profile))) == expected).all()


@pytest.mark.parametrize(
    ("product", "ground"),
    [((255, 255, 255), 128), ((240, 240, 245), 128), ((200, 30, 30), 255), ((0, 0, 0), 255)],
)
def test_a_white_product_stands_on_grey_and_any_other_on_white(
    product: tuple[int, int, int], ground: int
) -> None:
    image = Image.new("RGBA", (100, 100), (0, 0, 0, 0))
    image.paste((*product, 255), (30, 30, 70, 70))
    found = np.asarray(decode_image(encode(image, "PNG")))
    assert tuple(found[50, 50]) == product
    assert (found[0, 0] == ground).all()


def test_avif_is_read() -> None:
    data = encode(NOISE, "AVIF", quality=90)
    assert image_format(data) == "AVIF"
    assert decode_image(data).size == NOISE.size


def test_heic_is_read_where_its_extra_is_installed() -> None:
    pillow_heif = pytest.importorskip("pillow_heif", reason="pip install 'kinshelf[heic]'")
    stream = BytesIO()
    pillow_heif.from_pillow(SMOOTH).save(stream, format="HEIF", quality=90)
    data = stream.getvalue()
    assert image_format(data) == "HEIF"
    assert decode_image(data).size == SMOOTH.size
    other = data[:8] + b"mif1" + data[12:]
    assert image_format(other) == "HEIF"


def test_heic_without_the_extra_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "_heif_is_there", lambda: False)
    with pytest.raises(ImageRejected, match=r"pip install 'kinshelf\[heic\]'") as caught:
        decode_image(b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic")
    assert caught.value.reason == "unsupported-format"
    assert importlib.util.find_spec("PIL")
