"""How a command's --help is laid out: what it is for, examples, then its options in groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import click

COMMON = "Shelf and output"
"""The group of the options that every command has."""


class Option(click.Option):
    """An option of a named group that shows its default, "none" included.

    `show_default` may be a text that tells what an option left out stands for.
    """

    def __init__(self, *names: Any, group: str = "Options", **settings: Any) -> None:
        if not settings.get("required") and not settings.get("is_flag"):
            default = settings.get("default") is not None
            settings.setdefault("show_default", True if default else "none")
        super().__init__(*names, **settings)
        self.group = group

    def get_help_extra(self, ctx: click.Context) -> Any:
        extra = super().get_help_extra(ctx)
        if isinstance(self.show_default, str):  # click puts it into parentheses
            extra["default"] = self.show_default
        return extra


class Command(click.Command):
    """A command whose --help shows examples and groups of options."""

    def __init__(self, *positional: Any, examples: Sequence[str] = (), **settings: Any) -> None:
        super().__init__(*positional, **settings)
        self.examples = tuple(examples)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        _, _, given = self.make_parser(ctx).parse_args(list(args))
        for parameter, times in Counter(map(id, given)).items():
            option = next(each for each in given if id(each) == parameter)
            single = isinstance(option, click.Option) and not option.multiple and not option.count
            if times > 1 and single:
                name = max(option.opts, key=len)
                raise click.UsageError(f"{name} was given {times} times: give it once", ctx)
        return super().parse_args(ctx, args)

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_help_text(ctx, formatter)
        with formatter.section("Examples"):
            for line in self.examples:  # as they are: a wrapped line cannot be typed
                formatter.write(f"  {line}\n")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if record := parameter.get_help_record(ctx):
                group = parameter.group if isinstance(parameter, Option) else COMMON
                groups.setdefault(group, []).append(record)
        for name, records in groups.items():
            with formatter.section(name):
                formatter.write_dl(records)


def command(
    name: str | None = None, *, examples: Sequence[str]
) -> Callable[[Callable[..., Any]], Command]:
    """Make a function a command whose --help shows `examples`, each a line to be typed."""
    return click.command(name, cls=Command, examples=examples)


def option(*names: str, **settings: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add an `Option`; `group` is the heading that it stands under."""
    return click.option(*names, cls=Option, **settings)
