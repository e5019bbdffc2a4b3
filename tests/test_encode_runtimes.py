"""Our own forward passes against plain transformers, on tiny random CLIPs built here."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clip_models import (
    CLOSE,
    MIXED,
    PICTURES,
    SHARED,
    TEXTS,
    Oracle,
    edit_json,
    lively,
    picture,
    vocabulary,
    write_processor,
    write_tiny_clip,
    write_tokenizer,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kinshelf.db.errors import EncoderUnavailable
from kinshelf.store.encode import encoder, precision
from kinshelf.store.encode.clip import encoder as clip
from kinshelf.store.encode.clip.encoder import QUICK_ITEMS, FastClipEncoder
from kinshelf.store.encode.clip.transformers_clip import ClipEncoder
from kinshelf.store.encode.encoder import Encoder, load_encoder

pytestmark = pytest.mark.wide

RUNTIMES = pytest.mark.parametrize("quick_items", [0, 10**6], ids=["bulk", "quick"])


def needs_int8(wanted: str) -> None:
    """Skip where 8-bit products are wanted and the processor has none."""
    if wanted == "int8" and not precision.has_int8(precision.cpu_flags()):
        pytest.skip("this processor has no 8-bit matrix instructions")


def fast(directory: Path, quick_items: int = QUICK_ITEMS, wanted: str = "float32") -> Encoder:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clip, "QUICK_ITEMS", quick_items)
        loaded = load_encoder(str(directory), device="cpu", precision=wanted)
    assert isinstance(loaded, FastClipEncoder)
    return loaded


@pytest.fixture(autouse=True, scope="module")
def one_torch_thread() -> Iterator[None]:
    """Threads that wait for each other in models so small make these tests many times slower."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_clip(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="session")
def oracle(tiny: Path) -> Oracle:
    return Oracle(tiny)


def assert_same_embeddings(loaded: Encoder, oracle: Oracle) -> None:
    np.testing.assert_allclose(loaded.encode_texts(TEXTS), oracle.texts(TEXTS), atol=CLOSE, rtol=0)
    images = loaded.encode_images(MIXED)
    np.testing.assert_allclose(images, oracle.images(MIXED), atol=CLOSE, rtol=0)


# ---------------------------------------------------------------- the same embeddings


@RUNTIMES
def test_pictures_and_texts_embed_as_plain_transformers_does_one_by_one(
    tiny: Path, oracle: Oracle, quick_items: int
) -> None:
    assert_same_embeddings(fast(tiny, quick_items), oracle)


@settings(max_examples=15)
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=5))
@RUNTIMES
def test_any_text_embeds_as_plain_transformers_does(
    tiny: Path, oracle: Oracle, quick_items: int, texts: list[str]
) -> None:
    rows = _kept(tiny, quick_items).encode_texts(texts)
    np.testing.assert_allclose(rows, oracle.texts(texts), atol=CLOSE, rtol=0)


_LOADED: dict[tuple[Path, int], Encoder] = {}


def _kept(directory: Path, quick_items: int) -> Encoder:
    key = directory, quick_items
    if key not in _LOADED:
        _LOADED[key] = fast(directory, quick_items)
    return _LOADED[key]


@RUNTIMES
def test_a_model_with_gelu_and_the_right_end_token_is_the_same_too(
    tmp_path: Path, quick_items: int
) -> None:
    directory = write_tiny_clip(tmp_path / "gelu")
    config = json.loads((directory / "config.json").read_text())
    for part in ("text_config", "vision_config"):
        config[part]["hidden_act"] = "gelu"
    (directory / "config.json").write_text(json.dumps(config))
    assert_same_embeddings(fast(directory, quick_items), Oracle(directory))


@RUNTIMES
def test_the_wrong_end_token_of_openais_configs_is_read_as_transformers_does(
    tmp_path: Path, quick_items: int
) -> None:
    directory = write_tiny_clip(tmp_path / "old")
    config = json.loads((directory / "config.json").read_text())
    config["text_config"]["eos_token_id"] = 2
    (directory / "config.json").write_text(json.dumps(config))
    assert_same_embeddings(fast(directory, quick_items), Oracle(directory))


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_half_precision_weights_are_widened_exactly(tmp_path: Path, kind: str) -> None:
    import torch
    from transformers import CLIPModel

    directory = write_tiny_clip(tmp_path / kind)
    model = CLIPModel.from_pretrained(directory).to(getattr(torch, kind))
    model.save_pretrained(directory)
    reference = load_encoder(str(directory), device="cpu", runtime="reference")
    got = fast(directory).encode_texts(TEXTS)
    np.testing.assert_allclose(got, reference.encode_texts(TEXTS), atol=CLOSE, rtol=0)


def test_settings_that_a_config_leaves_out_are_transformers_own(tmp_path: Path) -> None:
    from transformers import CLIPConfig, CLIPModel

    directory = tmp_path / "sparse"
    directory.mkdir()
    write_tokenizer(directory)
    write_processor(directory, size={"shortest_edge": 224}, crop_size={"height": 224, "width": 224})
    tokens = vocabulary(directory)
    text = {"vocab_size": len(tokens), "eos_token_id": tokens["<|endoftext|>"]}
    small = {"num_hidden_layers": 1}
    model = CLIPModel(CLIPConfig(text_config=text | small, vision_config=small))
    lively(model).save_pretrained(directory)
    sparse = {"model_type": "clip", "text_config": text | small, "vision_config": small}
    (directory / "config.json").write_text(json.dumps(sparse))
    got, oracle = fast(directory), Oracle(directory)
    # These weights, far too large for towers so wide, magnify the rounding of float32.
    for rows, expected in (
        (got.encode_texts(TEXTS), oracle.texts(TEXTS)),
        (got.encode_images(MIXED), oracle.images(MIXED)),
    ):
        np.testing.assert_allclose(rows, expected, atol=5 * CLOSE, rtol=0)


@RUNTIMES
def test_rows_come_in_the_order_of_their_inputs_and_do_not_depend_on_them(
    tiny: Path, oracle: Oracle, quick_items: int
) -> None:
    loaded = fast(tiny, quick_items)
    texts = [f"puzzle {i} " * (i % 17 + 1) for i in range(40)]
    expected = oracle.texts(texts)
    np.testing.assert_allclose(loaded.encode_texts(texts), expected, atol=CLOSE, rtol=0)
    alone = np.concatenate([loaded.encode_texts([text]) for text in texts[:5]])
    np.testing.assert_allclose(alone, expected[:5], atol=CLOSE, rtol=0)
    images = [picture(50 + i, 120 - i, seed=i) for i in range(12)]
    np.testing.assert_allclose(
        loaded.encode_images(images), oracle.images(images), atol=CLOSE, rtol=0
    )


@RUNTIMES
def test_many_threads_may_encode_at_once(tiny: Path, oracle: Oracle, quick_items: int) -> None:
    loaded, expected = fast(tiny, quick_items), oracle.texts(TEXTS)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(loaded.encode_texts, [TEXTS] * 8))
    for rows in found:
        np.testing.assert_allclose(rows, expected, atol=CLOSE, rtol=0)


@RUNTIMES
def test_nothing_in_gives_no_rows_out(tiny: Path, quick_items: int) -> None:
    loaded = fast(tiny, quick_items)
    for rows in (loaded.encode_texts([]), loaded.encode_images([]), loaded.encode_pixels([])):
        assert (rows.shape, rows.dtype) == ((0, 24), np.float32)
    assert loaded.count_truncated([]) == 0


def test_a_text_of_77_tokens_is_whole_and_one_of_78_is_truncated(tiny: Path) -> None:
    whole, longer = " ".join("a" * 75), " ".join("a" * 76)
    loaded = fast(tiny)
    assert [loaded.count_truncated([text]) for text in (whole, longer, "")] == [0, 1, 0]


def test_few_items_are_encoded_without_torch_in_every_precision_and_many_with_it(
    tiny: Path,
) -> None:
    code = (
        "import sys; from PIL import Image\n"
        "from kinshelf.store.encode.encoder import load_encoder\n"
        "for precision in ('float32', 'int8', 'bf16'):\n"
        f"    loaded = load_encoder({str(tiny)!r}, device='cpu', precision=precision)\n"
        "    loaded.encode_texts(['a train']); loaded.encode_images([Image.new('RGB', (80, 90))])\n"
        "    print({'torch', 'transformers'} & set(sys.modules))\n"
        "loaded.encode_texts(['a train'] * 99); print({'torch', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:4] == ["set()"] * 3 + ["{'torch'}"]


def test_encoding_leaves_torchs_thread_setting_as_it_was(tiny: Path) -> None:
    import torch

    before = torch.get_num_threads()
    fast(tiny, 0).encode_texts(TEXTS)
    assert torch.get_num_threads() == before
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == before


# ---------------------------------------------------------------- which runtime


def test_the_fast_runtime_has_the_references_fingerprint(tiny: Path) -> None:
    reference = load_encoder(str(tiny), device="cpu", runtime="reference")
    assert isinstance(reference, ClipEncoder)
    assert fast(tiny).fingerprint == reference.fingerprint
    assert fast(tiny).dimension == reference.dimension


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"tokenizer_class": "PreTrainedTokenizerFast"}, id="generic-tokenizer"),
        pytest.param(
            {"added_tokens_decoder": {"0": {"content": "!", "normalized": True}}}, id="more"
        ),
    ],
)
def test_what_is_no_plain_clip_is_left_to_the_reference(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    directory = write_tiny_clip(tmp_path / "other")
    edit_json(directory / "tokenizer_config.json", **change)
    with pytest.raises(EncoderUnavailable):
        FastClipEncoder("other", directory)


def test_a_gpu_is_looked_for_only_where_its_driver_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder, "_GPU_DRIVERS", ("/nowhere",))
    assert encoder._device(None) == "cpu"


# ---------------------------------------------------------------- precision classes


def centred_cosines(rows: np.ndarray, expected: np.ndarray) -> np.ndarray:
    a, b = rows - rows.mean(axis=0), expected - expected.mean(axis=0)
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.mark.parametrize(("wanted", "least"), [("bf16", 0.995), ("int8", 0.95)])
def test_a_faster_precision_stays_near_the_reference(
    tiny: Path, oracle: Oracle, wanted: str, least: float
) -> None:
    needs_int8(wanted)
    loaded = fast(tiny, wanted=wanted)
    images = [picture(50 + i, 120 - i, seed=i) for i in range(16)]
    texts = [f"{name} {i}" for i in range(8) for name in ("red train", "doll", "puzzle of a cat")]
    for rows, expected in (
        (loaded.encode_texts(texts), oracle.texts(texts)),
        (loaded.encode_images(images), oracle.images(images)),
    ):
        assert np.sum(rows * expected, axis=1).min() >= 0.999
        assert centred_cosines(rows, expected).min() >= least
        assert np.abs(rows - expected).max() > CLOSE, "it must really be another arithmetic"


def test_an_int8_row_does_not_depend_on_its_batch(tiny: Path) -> None:
    needs_int8("int8")
    loaded = fast(tiny, wanted="int8")
    alone = np.concatenate([loaded.encode_texts([text]) for text in TEXTS])
    assert np.sum(alone * loaded.encode_texts(TEXTS), axis=1).min() > 0.9999


def test_bfloat16_is_multiplied_too_where_onednn_lacks_the_instructions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    from kinshelf.store.encode.clip import torch_linear

    monkeypatch.setattr(torch_linear, "_has_onednn", lambda kind: kind == torch.float32)
    x, weight = torch.randn(5, 64), torch.randn(48, 64)
    found = torch_linear.linear(weight, torch.zeros(48), "bf16")(x.clone())
    wanted = x.bfloat16().double() @ weight.bfloat16().double().T
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, wanted, rtol=2**-8, atol=1e-4)


def test_precisions_never_share_a_fingerprint(tiny: Path) -> None:
    found = {fast(tiny, wanted=name).fingerprint for name in precision.PRECISIONS}
    assert len(found) == len(precision.PRECISIONS)


@pytest.mark.parametrize(
    ("flags", "bf16", "int8"),
    [
        ("fpu avx2 fma", False, False),
        ("avx512f avx512_vnni", False, True),
        ("avx512f avx512_vnni avx512_bf16", True, True),
        ("avx512_bf16 avx512_vnni amx_tile amx_bf16 amx_int8", True, True),
    ],
)
def test_what_a_processor_can_do_is_read_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, bf16: bool, int8: bool
) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    monkeypatch.setattr(precision, "_CPUINFO", tmp_path / "cpuinfo")
    found = precision.cpu_flags()
    assert (precision.has_bf16(found), precision.has_int8(found)) == (bf16, int8)
    assert precision.default_precision() == ("bf16" if bf16 else "float32")


def test_int8_where_the_processor_lacks_it_is_refused_with_a_remedy(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "_CPUINFO", Path("/nowhere"))
    with pytest.raises(EncoderUnavailable, match=r"AVX512-VNNI.*float32"):
        fast(tiny, 0, "int8").encode_texts(TEXTS)


@pytest.mark.parametrize("wanted", ["bf16", "int8"])
def test_a_query_in_numpy_is_rounded_as_the_products_in_torch_are(
    tiny: Path, oracle: Oracle, wanted: str
) -> None:
    needs_int8(wanted)
    quick, bulk = fast(tiny, 10**6, wanted), fast(tiny, 0, wanted)
    for one, many, expected in (
        (quick.encode_texts(TEXTS), bulk.encode_texts(TEXTS), oracle.texts(TEXTS)),
        (quick.encode_images(MIXED), bulk.encode_images(MIXED), oracle.images(MIXED)),
    ):
        assert np.abs(one - expected).max() > CLOSE, "it must really be another arithmetic"
        assert np.sum(one * many, axis=1).min() > 0.9999


@pytest.mark.parametrize(("wanted", "error"), [("float32", 1e-5), ("bf16", 0.02), ("int8", 1e-5)])
def test_one_product_is_the_same_in_numpy_and_torch(wanted: str, error: float) -> None:
    import torch

    from kinshelf.store.encode.clip import numpy_linear, torch_linear

    needs_int8(wanted)
    random = np.random.default_rng(0)
    x, weight, bias = (
        random.standard_normal(shape).astype(np.float32) for shape in ((9, 96), (300, 96), (300,))
    )
    here = numpy_linear.linear(wanted)(x.copy(), (weight, bias))
    there = torch_linear.linear(torch.from_numpy(weight), torch.from_numpy(bias), wanted)
    # bfloat16 keeps 8 bits, and sums in another order may round to the neighbour.
    np.testing.assert_allclose(here, there(torch.from_numpy(x)).numpy(), rtol=error, atol=error)


def test_a_query_is_rounded_on_a_processor_that_could_not_encode_products(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, oracle: Oracle
) -> None:
    monkeypatch.setattr(precision, "_CPUINFO", Path("/nowhere"))
    rows = fast(tiny, 10**6, "int8").encode_texts(["a red wooden train"])
    assert np.sum(rows * oracle.texts(["a red wooden train"])) > 0.999


def test_a_precision_that_there_is_not_is_named_with_those_there_are(tiny: Path) -> None:
    with pytest.raises(EncoderUnavailable, match=r"'int4'.*float32, bf16, int8"):
        load_encoder(str(tiny), device="cpu", precision="int4")


# ---------------------------------------------------------------- real products


def real_products(count: int) -> tuple[list[Image.Image], list[str]]:
    if not PICTURES.is_dir():
        pytest.skip("the real products of ../shared/amazon2020 are not here")
    with (SHARED / "amazon2020" / "products.csv").open(encoding="utf-8") as file:
        texts = [row["title"] for row in csv.DictReader(file)][:count]
    return [Image.open(p).convert("RGB") for p in sorted(PICTURES.iterdir())[:count]], texts


def full_size_clip(directory: Path) -> Path:
    from transformers import CLIPConfig, CLIPModel

    directory.mkdir()
    write_tokenizer(directory)
    write_processor(directory, size={"shortest_edge": 224}, crop_size={"height": 224, "width": 224})
    tokens = vocabulary(directory)
    text = {"vocab_size": len(tokens), "eos_token_id": tokens["<|endoftext|>"]}
    CLIPModel(CLIPConfig(text_config=text)).save_pretrained(directory)
    return directory


def test_a_sample_of_real_products_embeds_as_the_reference_does(tiny: Path) -> None:
    images, texts = real_products(60)
    reference, ours = load_encoder(str(tiny), device="cpu", runtime="reference"), fast(tiny, 0)
    expected = reference.encode_texts(texts)
    np.testing.assert_allclose(ours.encode_texts(texts), expected, atol=CLOSE, rtol=0)
    expected = reference.encode_images(images)
    np.testing.assert_allclose(ours.encode_images(images), expected, atol=CLOSE, rtol=0)


@pytest.fixture(scope="module")
def full_size(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[np.ndarray, ...]]:
    """A model of ViT-B/32's size and the reference's embeddings of all real products."""
    images, texts = real_products(600)
    directory = full_size_clip(tmp_path_factory.mktemp("model") / "full")
    reference = load_encoder(str(directory), device="cpu", runtime="reference")
    return directory, (reference.encode_images(images), reference.encode_texts(texts))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("wanted", ["float32", "int8", "bf16"])
def test_a_full_size_clip_ranks_all_real_products_as_the_reference_does(
    full_size: tuple[Path, tuple[np.ndarray, ...]], wanted: str
) -> None:
    needs_int8(wanted)
    images, texts = real_products(600)
    directory, reference = full_size
    loaded = fast(directory, 0, wanted)
    ours = (loaded.encode_images(images), loaded.encode_texts(texts))
    least = {"float32": 0.99999, "bf16": 0.9999, "int8": 0.999}[wanted]
    centred = {"float32": 0.9999, "bf16": 0.995, "int8": 0.95}[wanted]
    for expected, rows in zip(reference, ours, strict=True):
        assert np.sum(expected * rows, axis=1).min() >= least
        assert centred_cosines(rows, expected).min() >= centred
    assert overlap(reference, ours) >= {"float32": 0.999, "bf16": 0.99, "int8": 0.95}[wanted]


def overlap(expected: tuple[np.ndarray, ...], rows: tuple[np.ndarray, ...]) -> float:
    """Share of each product's 10 nearest that are the same."""
    nearest = []
    for pair in (expected, rows):
        fused = np.concatenate(pair, axis=1) / np.sqrt(2)
        similarities = fused @ fused.T
        np.fill_diagonal(similarities, -2)
        nearest.append(np.argsort(-similarities, axis=1)[:, :10])
    return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(*nearest, strict=True)]))


def test_workers_have_one_thread_each_and_one_that_is_alone_has_them_all(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setenv("KINSHELF_THREADS", "3")
    loaded: Any = fast(tiny, quick_items=0)
    pixels = [loaded.preprocess(picture(40, 40))] * 48
    loaded.encode_pixels(pixels[:1])
    model, seen = loaded._bulk._model, []
    images = model.images

    def watched(batch: np.ndarray) -> np.ndarray:
        before = torch.get_num_threads()
        rows: np.ndarray = images(batch)
        seen.append((before, torch.get_num_threads()))
        return rows

    monkeypatch.setattr(model, "images", watched)
    for _ in range(3):
        loaded.encode_pixels(pixels)
    assert seen == [(1, 1)] * 18
    seen.clear()
    loaded.encode_pixels(pixels[:1])
    assert seen == [(3, 3)]


def test_calls_that_come_together_share_the_cores(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    import torch

    monkeypatch.setenv("KINSHELF_THREADS", "2")
    loaded: Any = fast(tiny, quick_items=0)
    pixels = [loaded.preprocess(picture(40, 40))]
    loaded.encode_pixels(pixels)
    model, images = loaded._bulk._model, loaded._bulk._model.images
    first, second, seen = threading.Event(), threading.Event(), []

    def watched(batch: np.ndarray) -> np.ndarray:
        seen.append(torch.get_num_threads())
        if len(seen) == 1:
            first.set()
            assert second.wait(20)
        return images(batch)

    monkeypatch.setattr(model, "images", watched)
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(loaded.encode_pixels, pixels)
        assert first.wait(20)
        loaded.encode_pixels(pixels)
        second.set()
        under_way.result(20)
    assert seen == [2, 1]
