"""`kinshelf serve`: the API and the page over one shelf."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from kinshelf.commands.help import command, option
from kinshelf.commands.options import (
    PATH,
    Number,
    private_option,
    shelf_options,
    wait_option,
)
from kinshelf.commands.terminal.output import Output

ADDRESSES = "Addresses"
LIMITS = "Access and limits"
MISSING = "the server needs FastAPI and uvicorn: pip install 'kinshelf[serve]'"


@command(examples=[
    "kinshelf serve",
    "kinshelf serve --port 0 --json",
    "kinshelf serve --host 0.0.0.0 --token-file tokens.txt",
])  # fmt: skip
@option("--host", default="127.0.0.1", group=ADDRESSES,
        help="Listen on this address. Any but a loopback one needs --token-file.")  # fmt: skip
@option("--port", type=click.IntRange(0, 65535), default=8765, group=ADDRESSES,
        help="Listen on this port. 0 takes a free one.")  # fmt: skip
@option("--name", "hosts", multiple=True, metavar="HOST", group=ADDRESSES,
        help="Answer to this host name too, such as a proxy's, and let its pages change the shelf."
             " It can be repeated.")  # fmt: skip
@option("--root-path", default="", metavar="PREFIX", group=ADDRESSES,
        help="Put this prefix, such as /shop, before every address of the page.")  # fmt: skip
@option("--proxy", "proxies", multiple=True, metavar="ADDRESS", group=ADDRESSES,
        help="Believe X-Forwarded-For, -Proto, -Host, -Port and -Prefix of a proxy at this address"
             " or network. It can be repeated.")  # fmt: skip
@option("--cors", multiple=True, metavar="ORIGIN", group=LIMITS,
        help="Let scripts of this site, such as https://shop.example, use the API. * is any, and"
             " needs --token-file. It can be repeated.")  # fmt: skip
@option("--token-file", type=PATH, metavar="FILE", group=LIMITS,
        help="Read tokens from this file: one a line, `read` or `write` behind it.")  # fmt: skip
@private_option
@option("--rate", type=Number(0, 1e9, min_open=True), default=50.0, group=LIMITS,
        help="Take so many requests a second from one address.")  # fmt: skip
@wait_option(5.0)
@shelf_options
def serve(output: Output, token_file: Path | None, wait: float, **settings: Any) -> None:
    """Serve the shelf to programs over HTTP and to people as a web page.

    Without --host, only this machine can reach it. After Ctrl-C or SIGTERM the server finishes
    the requests under way and stops.
    """
    try:
        from kinshelf.serve.server import serve as run
    except ModuleNotFoundError as error:
        raise click.UsageError(f"{MISSING} ({error})") from error
    from kinshelf.serve.base.settings import ServeSettings

    chosen = ServeSettings(output.path, token_file=token_file, lock_wait=wait, **settings)

    def ready(url: str) -> None:
        if output.as_json:
            output.emit({"url": url})
        output.say(f"serving {output.path} at {url}")

    run(chosen, ready)
