"""The documents say what the code does."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

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
