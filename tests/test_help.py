"""Every --help tells what the command is for, shows examples, and every option's default."""

from __future__ import annotations

import shlex
import time
from dataclasses import fields

import click
import pytest
from click.testing import CliRunner

from kinshelf.cli import main
from kinshelf.commands.help import Command, Option
from kinshelf.probe.fit.settings import ProbeSettings

COMMANDS = sorted(main.commands)


def command(name: str) -> Command:
    found = main.commands[name]
    assert isinstance(found, Command)
    return found


def options(name: str) -> list[Option]:
    return [found for found in command(name).params if isinstance(found, Option)]


def page(name: str) -> str:
    done = CliRunner().invoke(main, [name, "--help"])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize("name", COMMANDS)
def test_help_begins_with_the_purpose_and_shows_examples_before_the_options(name: str) -> None:
    text = page(name)
    assert (command(name).help or "").split("\n")[0].endswith((".", ","))
    assert 2 <= len(command(name).examples) <= 3
    places = [text.index(example) for example in command(name).examples]
    assert text.index("Usage:") < min(places) < max(places) < text.index("  --json ")


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_parse(name: str) -> None:
    for example in command(name).examples:
        program, verb, *arguments = shlex.split(example)
        assert (program, verb) == ("kinshelf", name)
        command(name).make_context(name, arguments).close()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_a_sentence_a_group_and_its_default(name: str) -> None:
    plain = [p for p in command(name).params if isinstance(p, click.Option)]
    assert plain == options(name)
    context = click.Context(command(name))
    for found in options(name):
        assert found.help and found.help[0].isalpha() and found.help.endswith("."), found.name
        record = found.get_help_record(context)
        assert record is not None
        if not found.required and not found.is_flag:
            assert "default: " in record[1], found.name


def test_the_defaults_shown_by_train_are_those_of_the_recipe() -> None:
    defaults = {field.name: field.default for field in fields(ProbeSettings)}
    shown = {o.name: o.show_default for o in options("train") if o.group == "Recipe"}
    shown.pop("config")
    assert shown == {name: f"{defaults[name]:g}" for name in shown}


def test_all_help_is_written_within_half_a_second() -> None:
    began = time.process_time()
    for name in COMMANDS:
        page(name)
    assert time.process_time() - began < 0.5


def test_an_option_that_is_given_twice_is_refused() -> None:
    done = CliRunner().invoke(main, ["similar", "--id", "a", "--id", "b"])
    assert done.exit_code == 2
    assert "--id was given 2 times: give it once" in done.output
