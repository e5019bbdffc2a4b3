"""The reference encoder against plain transformers, on a tiny random CLIP built here."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from clip_models import (
    CLOSE,
    MIXED,
    PICTURES,
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

from kinshelf.db.errors import EncoderUnavailable, ImageRejected
from kinshelf.store.encode import fingerprint as fingerprint_module
from kinshelf.store.encode import hub
from kinshelf.store.encode.encoder import DEFAULT_ENCODER, DEFAULT_REVISION, Encoder, load_encoder
from kinshelf.store.encode.fingerprint import fingerprint
from kinshelf.store.encode.image_processor import read_preprocessing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_clip(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="session")
def encoder(tiny: Path) -> Encoder:
    return load_encoder(str(tiny), device="cpu", runtime="reference")


@pytest.fixture(scope="session")
def oracle(tiny: Path) -> Oracle:
    return Oracle(tiny)


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "copy"))


# ---------------------------------------------------------------- the same embeddings


def test_pictures_of_mixed_sizes_embed_as_plain_transformers_does_one_by_one(
    encoder: Encoder, oracle: Oracle
) -> None:
    expected = oracle.images(MIXED)
    assert np.abs(expected[0] - expected[2]).max() > 0.05, "the oracle must tell pictures apart"
    np.testing.assert_allclose(encoder.encode_images(MIXED), expected, atol=CLOSE, rtol=0)


def test_real_product_pictures_embed_as_plain_transformers_does(
    encoder: Encoder, oracle: Oracle
) -> None:
    if not PICTURES.is_dir():
        pytest.skip("the real pictures of ../shared/amazon2020 are not here")
    images = [Image.open(path).convert("RGB") for path in sorted(PICTURES.iterdir())[:12]]
    np.testing.assert_allclose(
        encoder.encode_images(images), oracle.images(images), atol=CLOSE, rtol=0
    )


def test_a_coarser_resampling_would_be_noticed(tiny: Path, oracle: Oracle, copy: Path) -> None:
    write_processor(copy, resample=2)
    assert np.abs(Oracle(copy).images(MIXED) - oracle.images(MIXED)).max() > 1000 * CLOSE


def test_texts_embed_as_plain_transformers_does_one_by_one(
    encoder: Encoder, oracle: Oracle
) -> None:
    expected = oracle.texts(TEXTS)
    assert np.abs(expected[0] - expected[5]).max() > 0.05, "the oracle must tell texts apart"
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), expected, atol=CLOSE, rtol=0)


@settings(max_examples=40)
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=5))
def test_any_text_embeds_as_plain_transformers_does(
    encoder: Encoder, oracle: Oracle, texts: list[str]
) -> None:
    np.testing.assert_allclose(encoder.encode_texts(texts), oracle.texts(texts), atol=CLOSE, rtol=0)


def test_a_generic_tokenizer_file_serves_as_well_as_clips_own(
    copy: Path, encoder: Encoder, tiny: Path
) -> None:
    from transformers import CLIPTokenizer, PreTrainedTokenizerFast

    backend = CLIPTokenizer.from_pretrained(tiny).backend_tokenizer
    for name in ("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json"):
        (copy / name).unlink(missing_ok=True)
    special = {"pad_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
    generic = PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=77, **special)
    generic.save_pretrained(copy)
    again = load_encoder(str(copy), device="cpu")
    np.testing.assert_allclose(
        again.encode_texts(TEXTS), encoder.encode_texts(TEXTS), atol=CLOSE, rtol=0
    )


def test_rows_come_in_the_order_of_their_inputs_beyond_one_batch(
    encoder: Encoder, oracle: Oracle
) -> None:
    texts = [f"puzzle {i} " * (i % 7 + 1) for i in range(75)]
    images = [picture(50 + i, 120 - i, seed=i) for i in range(70)]
    assert np.abs(encoder.encode_texts(texts) - oracle.texts(texts)).max() < CLOSE
    assert np.abs(encoder.encode_images(images) - oracle.images(images)).max() < CLOSE


def test_a_row_does_not_depend_on_its_batch(encoder: Encoder) -> None:
    alone = np.concatenate([encoder.encode_texts([text]) for text in TEXTS])
    backwards = encoder.encode_texts(TEXTS[::-1])[::-1]
    np.testing.assert_allclose(alone, encoder.encode_texts(TEXTS), atol=CLOSE, rtol=0)
    np.testing.assert_allclose(alone, backwards, atol=CLOSE, rtol=0)


def test_encode_pixels_of_preprocess_is_encode_images(encoder: Encoder) -> None:
    pixels = [encoder.preprocess(image) for image in MIXED]
    assert {(p.dtype.name, p.shape) for p in pixels} == {("uint8", (64, 64, 3))}
    np.testing.assert_array_equal(encoder.encode_pixels(pixels), encoder.encode_images(MIXED))


def test_rows_are_float32_of_unit_norm_and_the_stated_dimension(encoder: Encoder) -> None:
    for rows in (encoder.encode_texts(TEXTS), encoder.encode_images(MIXED)):
        assert rows.dtype == np.float32
        assert rows.shape[1] == encoder.dimension == 24
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=CLOSE)


def test_nothing_in_gives_no_rows_out(encoder: Encoder) -> None:
    for rows in (
        encoder.encode_texts([]),
        encoder.encode_images([]),
        encoder.encode_pixels([]),
    ):
        assert rows.shape == (0, 24)
        assert rows.dtype == np.float32
    assert encoder.count_truncated([]) == 0


def test_the_same_inputs_give_the_same_bits_also_after_reloading(
    encoder: Encoder, tiny: Path
) -> None:
    again = load_encoder(str(tiny), device="cpu", runtime="reference")
    assert np.array_equal(encoder.encode_texts(TEXTS), again.encode_texts(TEXTS))
    assert np.array_equal(encoder.encode_images(MIXED), again.encode_images(MIXED))


def test_pictures_can_be_prepared_by_many_threads_at_once(encoder: Encoder) -> None:
    images = [picture(50 + i, 90, seed=i) for i in range(64)]
    with ThreadPoolExecutor(8) as pool:
        threaded = list(pool.map(encoder.preprocess, images))
    assert all(
        np.array_equal(a, encoder.preprocess(b)) for a, b in zip(threaded, images, strict=True)
    )


def test_a_text_of_77_tokens_is_whole_and_one_of_78_is_truncated(encoder: Encoder) -> None:
    whole, longer = " ".join("a" * 75), " ".join("a" * 76)
    assert encoder.count_truncated([whole]) == 0
    assert encoder.count_truncated([longer]) == 1
    assert encoder.count_truncated(["", whole, longer, "x y " * 5000]) == 2
    a, b = encoder.encode_texts([whole, f"{longer} and more"])
    np.testing.assert_allclose(a, b, atol=CLOSE, rtol=0)


# ---------------------------------------------------------------- pixels


@settings(max_examples=60)
@given(width=st.integers(50, 500), height=st.integers(50, 500), seed=st.integers(0, 99))
def test_pixels_are_bit_for_bit_those_of_the_clip_processor(
    tiny: Path, oracle: Oracle, width: int, height: int, seed: int
) -> None:
    image = picture(width, height, seed)
    ours = read_preprocessing(tiny)
    got = ours.normalised([ours.pixels(image)])
    expected = oracle.processor(images=image, return_tensors="np")["pixel_values"]
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"size": {"shortest_edge": 40}}, id="padded"),
        pytest.param({"size": {"shortest_edge": 90}}, id="cropped"),
        pytest.param({"crop_size": {"height": 61, "width": 47}}, id="odd-crop"),
        pytest.param({"size": {"height": 70, "width": 80}}, id="squeezed-then-cropped"),
        pytest.param({"size": 72, "crop_size": 64}, id="plain-numbers"),
        pytest.param({"resample": 2}, id="bilinear"),
        pytest.param({"do_normalize": False}, id="not-normalised"),
        pytest.param({"do_rescale": False}, id="not-rescaled"),
        pytest.param({"image_mean": [0.5] * 3, "image_std": [0.5] * 3}, id="other-mean"),
        pytest.param(
            {"image_processor_type": None, "feature_extractor_type": "CLIPFeatureExtractor"},
            id="old-name",
        ),
        pytest.param(
            {
                "image_processor_type": "SiglipImageProcessor",
                "size": {"height": 48, "width": 48},
                "do_center_crop": False,
            },
            id="siglip",
        ),
    ],
)
def test_other_processor_settings_give_that_processors_pixels(
    copy: Path, changes: dict[str, Any]
) -> None:
    from transformers import AutoImageProcessor

    write_processor(copy, **changes)
    processor = AutoImageProcessor.from_pretrained(copy)
    ours = read_preprocessing(copy)
    for image in MIXED:
        expected = processor(images=image, return_tensors="np")["pixel_values"]
        np.testing.assert_array_equal(ours.normalised([ours.pixels(image)]), expected)


def test_settings_nested_in_processor_config_win_as_in_transformers(
    copy: Path, oracle: Oracle
) -> None:
    from transformers import AutoImageProcessor

    nested = json.loads((copy / "preprocessor_config.json").read_text()) | {"resample": 2}
    (copy / "processor_config.json").write_text(json.dumps({"image_processor": nested}))
    ours, theirs = read_preprocessing(copy), AutoImageProcessor.from_pretrained(copy)
    expected = theirs(images=MIXED[3], return_tensors="np")["pixel_values"]
    np.testing.assert_array_equal(ours.normalised([ours.pixels(MIXED[3])]), expected)


def test_a_strip_that_would_fill_the_memory_is_rejected_with_its_reason(encoder: Encoder) -> None:
    with pytest.raises(ImageRejected, match="1 x 30000") as caught:
        encoder.preprocess(Image.new("RGB", (1, 30_000)))
    assert caught.value.reason == "too-narrow"


# ---------------------------------------------------------------- the fingerprint


def test_the_fingerprint_does_not_depend_on_where_the_model_lies(
    encoder: Encoder, copy: Path
) -> None:
    moved = load_encoder(str(copy), device="cpu")
    assert moved.fingerprint == encoder.fingerprint
    assert moved.name != encoder.name
    assert encoder.fingerprint.startswith("clip-")
    assert len(bytes.fromhex(encoder.fingerprint.removeprefix("clip-"))) == 16


def test_who_wrote_the_files_does_not_decide_the_fingerprint(copy: Path) -> None:
    before = fingerprint(copy)
    edit_json(copy / "config.json", transformers_version="4.1", architectures=["X"], dtype="x")
    edit_json(copy / "tokenizer_config.json", name_or_path="/elsewhere", processor_class="Y")
    (copy / "README.md").write_text("more")
    (copy / "pytorch_model.bin").write_bytes(b"never read")
    assert fingerprint(copy) == before


def flip_last_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def swap_merges(path: Path) -> None:
    lines = path.read_text("utf-8").split("\n")
    lines[1], lines[2] = lines[2], lines[1]
    path.write_text("\n".join(lines), "utf-8")


def edit_hidden_act(path: Path) -> None:
    text_config = json.loads(path.read_text())["text_config"] | {"hidden_act": "gelu"}
    edit_json(path, text_config=text_config)


@pytest.mark.parametrize(
    ("name", "edit"),
    [
        pytest.param("model.safetensors", flip_last_byte, id="one-weight-bit"),
        pytest.param("merges.txt", swap_merges, id="two-merges"),
        pytest.param("vocab.json", lambda p: edit_json(p, extra=0), id="vocabulary"),
        pytest.param("config.json", edit_hidden_act, id="activation"),
        pytest.param(
            "preprocessor_config.json", lambda p: edit_json(p, resample=2), id="resampling"
        ),
        pytest.param(
            "preprocessor_config.json",
            lambda p: edit_json(p, image_mean=[0.48145466, 0.4578275, 0.4082107]),
            id="mean",
        ),
        pytest.param(
            "tokenizer_config.json", lambda p: edit_json(p, model_max_length=64), id="max-length"
        ),
    ],
)
def test_whatever_decides_an_embedding_changes_the_fingerprint(
    copy: Path, name: str, edit: Callable[[Path], None]
) -> None:
    before = fingerprint(copy)
    edit(copy / name)
    assert fingerprint(copy) != before


def test_fusion_and_precision_are_part_of_the_fingerprint(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, int8 = fingerprint(tiny), fingerprint(tiny, "int8")
    monkeypatch.setattr(fingerprint_module, "FUSION", "another")
    assert len({plain, int8, fingerprint(tiny)}) == 3


# ---------------------------------------------------------------- what cannot be loaded


def keep_only_a_pickle(directory: Path) -> None:
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def drop_a_tensor(directory: Path) -> None:
    from safetensors.numpy import load_file, save_file

    tensors = load_file(directory / "model.safetensors")
    del tensors["visual_projection.weight"]
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "hint"),
    [
        pytest.param(keep_only_a_pickle, "pickle runs code .* safetensors", id="only-a-pickle"),
        pytest.param(
            lambda d: (d / "model.safetensors").unlink(), "no model.safetensors", id="no-weights"
        ),
        pytest.param(lambda d: (d / "config.json").unlink(), "no config.json", id="no-config"),
        pytest.param(
            lambda d: (d / "config.json").write_text("{"), "config.json .*anew", id="bad-config"
        ),
        pytest.param(
            lambda d: (d / "config.json").write_text("[]"), "no JSON object", id="config-no-object"
        ),
        pytest.param(
            lambda d: (d / "preprocessor_config.json").unlink(),
            "no preprocessor_config.json",
            id="no-processor",
        ),
        pytest.param(
            lambda d: write_processor(d, image_processor_type="BlipImageProcessor"),
            "BlipImageProcessor",
            id="unknown-processor",
        ),
        pytest.param(
            lambda d: write_processor(d, do_center_crop=False), "vary", id="size-not-fixed"
        ),
        pytest.param(
            lambda d: [(d / n).unlink(missing_ok=True) for n in ("vocab.json", "tokenizer.json")],
            "no tokenizer",
            id="no-tokenizer",
        ),
        pytest.param(lambda d: truncate(d / "model.safetensors"), "cannot be loaded", id="torn"),
        pytest.param(drop_a_tensor, "visual_projection.weight is missing", id="incomplete"),
        pytest.param(
            lambda d: edit_json(d / "config.json", model_type="nonsense"),
            "cannot be loaded",
            id="unknown-model",
        ),
        pytest.param(
            lambda d: edit_json(d / "config.json", projection_dim=25),
            "another shape",
            id="wrong-shape",
        ),
    ],
)
def test_a_model_that_cannot_be_used_is_refused_in_one_line_with_a_remedy(
    copy: Path, damage: Callable[[Path], object], hint: str
) -> None:
    damage(copy)
    with pytest.raises(EncoderUnavailable, match=hint) as caught:
        load_encoder(str(copy), device="cpu")
    assert str(copy) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_model_without_pictures_is_refused_by_its_kind(tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    directory = write_tiny_clip(tmp_path / "bert")
    small = {"hidden_size": 8, "num_attention_heads": 1, "intermediate_size": 8, "vocab_size": 9}
    BertModel(BertConfig(**small, num_hidden_layers=1)).save_pretrained(directory)
    with pytest.raises(EncoderUnavailable, match="a bert model, not one of pictures"):
        load_encoder(str(directory), device="cpu")


def test_code_that_a_model_brings_is_never_run(copy: Path) -> None:
    (copy / "evil.py").write_text("raise SystemExit('ran')")
    edit_json(copy / "config.json", model_type="evil", auto_map={"AutoModel": "evil.Evil"})
    with pytest.raises(EncoderUnavailable):
        load_encoder(str(copy), device="cpu")


@pytest.mark.parametrize("device", ["tpu9", "mps", "cuda:99", "meta"])
def test_a_device_that_is_not_there_is_named(tiny: Path, device: str) -> None:
    with pytest.raises(EncoderUnavailable, match=f"{device}.*give cpu"):
        load_encoder(str(tiny), device=device)


@pytest.mark.parametrize("name", ["./nowhere", "a/b/c", "nowhere", "-x/y", "../x"])
def test_a_name_that_is_neither_directory_nor_hub_id_is_refused_at_once(name: str) -> None:
    with pytest.raises(EncoderUnavailable, match="does not exist: give a model directory"):
        load_encoder(name)


def test_shards_are_read_as_one_model_and_a_missing_one_is_named(tmp_path: Path) -> None:
    directory = write_tiny_clip(tmp_path / "sharded", max_shard_size="100KB")
    shards = sorted(directory.glob("model-*.safetensors"))
    assert len(shards) > 1
    loaded = load_encoder(str(directory), device="cpu")
    expected = Oracle(directory).texts(TEXTS)
    np.testing.assert_allclose(loaded.encode_texts(TEXTS), expected, atol=CLOSE, rtol=0)
    shards[0].unlink()
    with pytest.raises(EncoderUnavailable, match=shards[0].name):
        load_encoder(str(directory), device="cpu")


def test_an_index_cannot_lead_out_of_the_directory(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy.parent / "outside.safetensors")
    index = {"weight_map": {"x": "../outside.safetensors"}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(EncoderUnavailable, match=r"index\.json is damaged"):
        load_encoder(str(copy), device="cpu")


def test_siglip_loads_with_its_own_padding_and_projection_size(tmp_path: Path, tiny: Path) -> None:
    from transformers import SiglipConfig, SiglipModel

    directory = tmp_path / "siglip"
    directory.mkdir()
    for name in ("tokenizer_config.json", "vocab.json", "merges.txt"):
        shutil.copyfile(tiny / name, directory / name)
    write_processor(
        directory,
        image_processor_type="SiglipImageProcessor",
        size={"height": 32, "width": 32},
        do_center_crop=False,
    )
    edit_json(directory / "tokenizer_config.json", model_max_length=16)
    layers = {"intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {"hidden_size": 24, "vocab_size": len(vocabulary(tiny)), **layers}
    vision = {"hidden_size": 24, "image_size": 32, "patch_size": 16, **layers}
    config = SiglipConfig(
        text_config=text | {"max_position_embeddings": 16, "projection_size": 24},
        vision_config=vision,
    )
    lively(SiglipModel(config)).save_pretrained(directory)
    loaded = load_encoder(str(directory), device="cpu")
    assert loaded.dimension == 24

    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    oracle = Oracle.__new__(Oracle)
    oracle.model = AutoModel.from_pretrained(directory).eval()
    tokenizer, processor = (
        AutoTokenizer.from_pretrained(directory),
        AutoImageProcessor.from_pretrained(directory),
    )
    wanted = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
    texts = [oracle.model.get_text_features(**tokenizer([t], **wanted)) for t in TEXTS]
    images = [oracle.model.get_image_features(**processor(i, return_tensors="pt")) for i in MIXED]
    np.testing.assert_allclose(loaded.encode_texts(TEXTS), oracle._rows(texts), atol=CLOSE, rtol=0)
    np.testing.assert_allclose(
        loaded.encode_images(MIXED), oracle._rows(images), atol=CLOSE, rtol=0
    )


# ---------------------------------------------------------------- quiet, lazy, offline


def test_importing_the_encoder_imports_nothing_heavy() -> None:
    code = (
        "import sys, kinshelf.store.encode.encoder\n"
        "heavy = {'torch', 'transformers', 'huggingface_hub', 'sklearn'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_loading_and_encoding_print_nothing(tiny: Path, capfd: pytest.CaptureFixture[str]) -> None:
    loaded = load_encoder(str(tiny), device="cpu")
    loaded.encode_texts(TEXTS)
    loaded.count_truncated(TEXTS)
    assert capfd.readouterr() == ("", "")


def test_a_directory_is_loaded_without_any_connection(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    load_encoder(str(tiny), device="cpu")


# ---------------------------------------------------------------- the hub


COMMIT = "a" * 40


class FakeHub(http.server.BaseHTTPRequestHandler):
    """As much of the hub's API as a download needs, over one directory per model."""

    models: dict[str, Path]
    asked: list[str]

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path = self.path.split("?")[0].strip("/")
        self.asked.append(path)
        api = path.startswith("api/models/")
        parts = path.removeprefix("api/models/").split("/")
        directory = self.models.get("/".join(parts[:2]))
        if directory is None:
            self._send(404, b"", body, {"X-Error-Code": "RepoNotFound"})
        elif len(parts) > 3 and parts[3] not in ("main", COMMIT):
            self._send(404, b"", body, {"X-Error-Code": "RevisionNotFound"})
        elif not api:
            self._file(directory / parts[4], body)
        elif parts[2:3] == ["tree"]:
            self._json([self._entry(p) for p in sorted(directory.iterdir())], body)
        else:
            files = [{"rfilename": p.name} for p in sorted(directory.iterdir())]
            self._json({"id": "/".join(parts[:2]), "sha": COMMIT, "siblings": files}, body)

    def _entry(self, path: Path) -> dict[str, Any]:
        size = path.stat().st_size
        return {"type": "file", "path": path.name, "size": size, "oid": f"{size:040x}"}

    def _file(self, path: Path, body: bool) -> None:
        if not path.is_file():
            self._send(404, b"", body, {"X-Error-Code": "EntryNotFound"})
            return
        headers = {"ETag": f'"{path.stat().st_size:040x}"', "X-Repo-Commit": COMMIT}
        self._send(200, path.read_bytes(), body, headers)

    def _json(self, value: object, body: bool) -> None:
        self._send(200, json.dumps(value).encode(), body, {"Content-Type": "application/json"})

    def _send(self, status: int, data: bytes, body: bool, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Point huggingface_hub to an address and an empty cache."""
    from huggingface_hub import constants

    cache = str(tmp_path / "cache")
    # It is read once at import, which may have been while another test was offline.
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", cache)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)

    def point(address: str) -> None:
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)

    return point


@pytest.fixture
def fake_hub(hub_at: Callable[[str], None], tiny: Path) -> Iterator[type[FakeHub]]:
    handler = type("Hub", (FakeHub,), {"models": {"kin/tiny": tiny}, "asked": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    hub_at(f"http://127.0.0.1:{server.server_port}")
    yield handler
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_model_is_downloaded_once_and_is_the_same_model(
    fake_hub: type[FakeHub], encoder: Encoder, capfd: pytest.CaptureFixture[str]
) -> None:
    loaded = load_encoder("kin/tiny", device="cpu")
    assert capfd.readouterr() == ("", "")
    assert (loaded.name, loaded.fingerprint) == ("kin/tiny", encoder.fingerprint)
    fake_hub.asked.clear()
    assert load_encoder("kin/tiny", device="cpu").fingerprint == encoder.fingerprint
    assert fake_hub.asked == []


def test_of_a_model_with_a_pickle_only_the_pickle_is_not_even_downloaded(
    fake_hub: type[FakeHub], copy: Path
) -> None:
    keep_only_a_pickle(copy)
    (copy / "modeling_evil.py").write_text("raise SystemExit")
    fake_hub.models["kin/pickled"] = copy
    with pytest.raises(EncoderUnavailable, match=r"kin/pickled': there is no model\.safe"):
        load_encoder("kin/pickled", device="cpu")
    assert not [path for path in fake_hub.asked if path.endswith((".bin", ".py"))]


@pytest.mark.parametrize(
    ("name", "revision", "hint"),
    [
        pytest.param("kin/tyni", None, "check the spelling", id="unknown-model"),
        pytest.param("kin/tiny", "v9", "no revision 'v9'", id="unknown-revision"),
    ],
)
def test_what_the_hub_does_not_have_is_stated_in_one_line(
    fake_hub: type[FakeHub], name: str, revision: str | None, hint: str
) -> None:
    with pytest.raises(EncoderUnavailable, match=hint) as caught:
        load_encoder(name, revision=revision, device="cpu")
    assert "\n" not in str(caught.value)


def test_an_unreachable_hub_is_given_up_within_seconds_and_the_way_round_is_named(
    hub_at: Callable[[str], None],
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        hub_at(f"http://127.0.0.1:{unused.getsockname()[1]}")
        start = time.monotonic()
        with pytest.raises(EncoderUnavailable) as caught:
            load_encoder(DEFAULT_ENCODER)
    assert time.monotonic() - start < 8
    message = str(caught.value)
    assert f"hf download {DEFAULT_ENCODER} --revision {DEFAULT_REVISION}" in message
    assert "--encoder DIR" in message
    assert "\n" not in message


def test_only_the_default_encoder_has_a_pinned_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str | None]] = []

    def locate(name: str, revision: str | None) -> Path:
        asked.append((name, revision))
        raise EncoderUnavailable("stop")

    monkeypatch.setattr(hub, "locate", locate)
    for name, revision in [(DEFAULT_ENCODER, None), (DEFAULT_ENCODER, "main"), ("a/b", None)]:
        with pytest.raises(EncoderUnavailable, match="stop"):
            load_encoder(name, revision=revision)
    assert asked == [(DEFAULT_ENCODER, DEFAULT_REVISION), (DEFAULT_ENCODER, "main"), ("a/b", None)]


# ---------------------------------------------------------------- full size


@pytest.mark.slow
def test_a_full_size_clip_matches_and_keeps_its_rate(tmp_path: Path) -> None:
    from transformers import CLIPConfig, CLIPModel

    directory = tmp_path / "full"
    directory.mkdir()
    write_tokenizer(directory)
    write_processor(directory, size={"shortest_edge": 224}, crop_size={"height": 224, "width": 224})
    tokens = vocabulary(directory)
    text = {"vocab_size": len(tokens), "eos_token_id": tokens["<|endoftext|>"]}
    CLIPModel(CLIPConfig(text_config=text)).save_pretrained(directory)
    loaded = load_encoder(str(directory), device="cpu", runtime="reference")
    oracle = Oracle(directory)
    images = [picture(300, 400, i) for i in range(32)]
    start = time.monotonic()
    rows = loaded.encode_images(images)
    ours = time.monotonic() - start
    start = time.monotonic()
    expected = oracle.images(images[:8])
    plain = (time.monotonic() - start) * 4
    np.testing.assert_allclose(rows[:8], expected, atol=CLOSE, rtol=0)
    np.testing.assert_allclose(loaded.encode_texts(TEXTS), oracle.texts(TEXTS), atol=CLOSE, rtol=0)
    print(f"{32 / ours:.1f} images/s, {plain / ours:.2f} x one by one")
    assert ours < 1.5 * plain
