"""Write docs/cli.md from the commands themselves: `python docs/generate.py`, `--check` compares."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from kinshelf.cli import main

TARGET = Path(__file__).with_name("cli.md")


def reference() -> str:
    """The help of every command, in the order of `kinshelf --help`."""
    parts = ["# Command line", "", "Made by `python docs/generate.py` from the commands' help."]
    context = click.Context(main, info_name="kinshelf", terminal_width=100, max_content_width=100)
    for name, command in main.commands.items():
        inner = click.Context(
            command, info_name=name, parent=context, terminal_width=100, max_content_width=100
        )
        parts += ["", f"## kinshelf {name}", "", "```text", command.get_help(inner).rstrip(), "```"]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    if "--check" not in sys.argv:
        TARGET.write_text(reference(), encoding="utf-8")
    elif TARGET.read_text(encoding="utf-8") != reference():
        sys.exit("docs/cli.md is not what the commands say: run python docs/generate.py")
