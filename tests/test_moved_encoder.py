"""A project that moved with its encoder goes on, and one whose encoder is elsewhere is helped."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from conftest import make_catalogue

from kinshelf import Shelf
from kinshelf.cli import main
from kinshelf.samples import tiny_clip_dir


def run(shelf: Path, *arguments: object) -> Result:
    result = CliRunner().invoke(main, [*map(str, arguments), "--shelf", str(shelf)])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a catalogue, an encoder and a shelf, moved to another place."""
    old = tmp_path / "old"
    make_catalogue(old, 12)
    shutil.copytree(tiny_clip_dir(), old / "models" / "clip")
    assert run(old / "kin.shelf", "init", "--encoder", old / "models" / "clip").exit_code == 0
    assert run(old / "kin.shelf", "add", old / "products.csv").exit_code == 0
    return old.rename(tmp_path / "new")


def named(shelf: Path) -> str:
    with Shelf.open(shelf) as opened:
        return opened.manifest.encoder


def test_an_encoder_that_moved_along_is_found_and_named_anew(project: Path) -> None:
    shelf = project / "kin.shelf"
    assert run(shelf, "similar", "--text", "red thing").exit_code == 0
    make_catalogue(project, 13)
    result = run(shelf, "add", project / "products.csv")
    assert result.exit_code == 0, result.output
    assert named(shelf) == str(project / "models" / "clip")


def test_an_encoder_elsewhere_is_named_by_reembed_without_embedding(
    project: Path, tmp_path: Path
) -> None:
    shelf, elsewhere = project / "kin.shelf", tmp_path / "elsewhere"
    (project / "models" / "clip").rename(elsewhere)
    refused = run(shelf, "similar", "--text", "red thing")
    assert refused.exit_code == 3
    assert "kinshelf reembed --encoder DIR" in refused.stderr
    with Shelf.open(shelf) as opened:
        generation = opened.generation
    result = run(shelf, "reembed", "--encoder", elsewhere)
    assert "its embeddings stay" in result.stderr, result.output
    assert named(shelf) == str(elsewhere)
    with Shelf.open(shelf) as opened:
        assert opened.generation == generation
    assert run(shelf, "similar", "--text", "red thing").exit_code == 0


def test_other_files_at_the_same_place_are_not_taken(project: Path) -> None:
    clip = project / "models" / "clip"
    settings = next(clip.glob("preprocessor_config.json"))
    settings.write_text(settings.read_text().replace("0.48145466", "0.5"))
    refused = run(project / "kin.shelf", "similar", "--text", "red thing")
    assert refused.exit_code == 3
    assert "if it moved" in refused.stderr
