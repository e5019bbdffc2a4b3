"""The documents say what the code does."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import kinshelf as ks
from kinshelf.cli import main

ROOT = Path(__file__).resolve().parents[1]


def test_the_command_reference_is_what_the_commands_say() -> None:
    command = [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_command_stands_in_the_reference() -> None:
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^## kinshelf (\S+)$", text, re.M)) == set(main.commands)


def test_the_changelog_has_the_version() -> None:
    assert f"## [{ks.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_guide_for_contributors_names_files_that_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:db|store|probe|serve|cluster|commands|tests|docs)/[\w./-]+)`", text)
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_notebook_is_kept_without_outputs() -> None:
    notebook = json.loads((ROOT / "docs" / "tour.ipynb").read_text(encoding="utf-8"))
    assert not any(cell.get("outputs") for cell in notebook["cells"])


@pytest.mark.wide
def test_what_the_readme_shows_of_the_sample_works_when_typed_in_its_order(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = "\n".join(re.findall(r"^```sh sample\n(.*?)^```$", text, re.M | re.S))
    (python,) = re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)
    assert "kinshelf classify" in lines and "kinshelf similar --id" in lines
    (tmp_path / "samples").symlink_to(ROOT / "samples")
    (tmp_path / "example.py").write_text(python, encoding="utf-8")
    command = f'kinshelf() {{ "{sys.executable}" -m kinshelf.cli "$@"; }}\nset -e\n{lines}'
    command += f'\n"{sys.executable}" example.py'
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "KS-0116" in (tmp_path / "answers.jsonl").read_text(encoding="utf-8")


def test_the_readme_writes_out_every_command_there_is() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = text[text.index("## All commands") : text.index("## For other programs")]
    assert set(re.findall(r"`kinshelf (\w+)`", table)) == set(main.commands)


def test_the_sentences_of_the_readme_are_short() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    prose = re.sub(r"^```.*?^```$|^\|.*$|^!.*$|^#.*$", "", text, flags=re.M | re.S)
    sentences = re.split(r"(?<=[.:;!?])\s|\n\n", re.sub(r"`[^`]*`", "x", prose))
    assert [s for s in sentences if len(s.split()) >= 30] == []
