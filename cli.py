"""The command line: `kinshelf` and `python -m kinshelf.cli`."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from kinshelf.commands import (
    add,
    audit,
    classify,
    copy,
    demo,
    encode,
    fill,
    history,
    maintain,
    serve,
    shelves,
    similar,
    train,
)
from kinshelf.commands.terminal.output import speak_any_text
from kinshelf.db.errors import KinshelfError
from kinshelf.db.threads import announce
from kinshelf.store.log.disk import check_system


class _Group(click.Group):
    """Commands in the order in which a newcomer needs them; a fixable failure is one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KinshelfError as error:
            click.echo(f"Error: {error}", err=True)
            ctx.exit(3)
        except KeyboardInterrupt:
            click.echo("stopped; what was committed is kept, run the command again", err=True)
            ctx.exit(130)
        except BrokenPipeError:
            # The reader of our output has gone (`| head`); there is nobody left to tell.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(0)
        except OSError as error:
            # A path that cannot be read or written, a full disk: the system's words name it.
            click.echo(f"Error: {error}: check the path, its permissions and the disk", err=True)
            ctx.exit(3)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="kinshelf", prog_name="kinshelf")
def main() -> None:
    """Put every product into its category, with the products that support it.

    Exit codes: 0 done; 1 done, but rows were rejected past --max-rejects or damage was found;
    2 wrong usage; 3 something that the message says how to mend.
    """
    check_system()
    announce()  # before anything imports NumPy
    speak_any_text()


for command in (
    demo.demo,
    shelves.init, add.add, train.train, classify.classify, similar.similar, train.evaluate,
    train.policy,
    shelves.show, shelves.list_products, shelves.info, shelves.sql,
    history.history, history.diff, history.undo,
    audit.audit, audit.relabel, fill.suggest, add.remove, copy.export, maintain.verify,
    maintain.compact, maintain.reembed, encode.encode, copy.copy, serve.serve,
):  # fmt: skip
    main.add_command(command)

if __name__ == "__main__":
    main(prog_name="kinshelf")
