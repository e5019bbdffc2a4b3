"""The canary: an encoder that silently embeds otherwise than before is refused, with numbers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from clip_models import write_tiny_clip
from PIL import Image

from kinshelf import Shelf
from kinshelf.db.errors import EncoderMismatch, EncoderUnavailable
from kinshelf.store.encode import canary
from kinshelf.store.encode.clip.encoder import FastClipEncoder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_clip(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def path(tmp_path: Path, tiny: Path) -> Path:
    """A shelf with three products, embedded by its own encoder."""
    source = tmp_path / "products.csv"
    rows = [f"p{i},{name},{name}s" for i, name in enumerate(["ball", "doll", "train"])]
    source.write_text("\n".join(["id,title,category", *rows]))
    with Shelf.create(tmp_path / "s.shelf", encoder=str(tiny), precision="float32") as shelf:
        shelf.add(source)
    return tmp_path / "s.shelf"


def rotated(encode: object) -> object:
    def run(self: FastClipEncoder, texts: list[str]) -> np.ndarray:
        return np.roll(encode(self, texts), 1, axis=1)  # type: ignore[operator]

    return run


@pytest.fixture
def silently_changed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if another version of the tokenizer's library cut words otherwise."""
    monkeypatch.setattr(FastClipEncoder, "encode_texts", rotated(FastClipEncoder.encode_texts))


@pytest.fixture
def other_libraries(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canary, "libraries", lambda: "numpy 99.0")


@pytest.mark.usefixtures("silently_changed", "other_libraries")
def test_an_encoder_that_changed_with_its_libraries_is_refused_with_the_numbers(path: Path) -> None:
    with Shelf.open(path) as shelf, pytest.raises(EncoderMismatch) as caught:
        shelf.similar(text="a ball")
    message = str(caught.value)
    for part in ("a picture 1.000000", "text 1 ", "at least 0.9999", "numpy 99.0", "reembed"):
        assert part in message
    assert "\n" not in message


@pytest.mark.usefixtures("other_libraries")
def test_other_libraries_that_embed_the_same_are_welcome(path: Path) -> None:
    with Shelf.open(path) as shelf:
        assert shelf.similar(text="ball").neighbours[0].id == "p0"


def test_the_manifest_keeps_precision_and_canary_and_the_libraries_behind_it(path: Path) -> None:
    with Shelf.open(path) as shelf:
        manifest = shelf.manifest
    assert manifest.precision == "float32"
    assert manifest.canary is not None
    assert f"numpy {np.__version__}" in manifest.canary["libraries"]


def test_a_canary_is_not_embedded_again_while_the_libraries_are_the_same(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the canary was embedded")

    monkeypatch.setattr(canary, "check_canary", refuse)
    with Shelf.open(path) as shelf:
        shelf.similar(text="ball")


def test_a_shelf_of_another_precision_is_opened_in_its_own(tmp_path: Path, tiny: Path) -> None:
    made = Shelf.create(tmp_path / "half.shelf", encoder=str(tiny), precision="bf16")
    with made as shelf, shelf.writing():
        fingerprint = shelf.writing_encoder().fingerprint
    with Shelf.open(tmp_path / "half.shelf") as shelf:
        assert shelf.encoder.fingerprint == fingerprint
    with pytest.raises(EncoderMismatch):
        Shelf.open(tmp_path / "half.shelf", encoder=FastClipEncoder("other", tiny))


def test_a_shelf_of_no_known_precision_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(EncoderUnavailable, match="int4"):
        Shelf.create(tmp_path / "s.shelf", precision="int4")
    assert not (tmp_path / "s.shelf").exists()


def test_one_question_imports_neither_torch_nor_transformers(path: Path, tmp_path: Path) -> None:
    picture = tmp_path / "ball.png"
    Image.new("RGB", (90, 80), (200, 10, 10)).save(picture)
    code = (
        "import sys; from kinshelf.cli import main\n"
        f"main(['classify', '--image', {str(picture)!r}, '--text', 'a red ball', '--json',"
        f" '--shelf', {str(path)!r}], standalone_mode=False)\n"
        "heavy = {'torch', 'transformers', 'sklearn', 'httpx', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert '"category"' in done.stdout
