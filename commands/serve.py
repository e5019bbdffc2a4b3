"""`kinshelf serve`: the API and the page over one shelf."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from kinshelf.commands.common import PATH, WAIT, Number, Output, shelf_options

MISSING = "the server needs FastAPI and uvicorn: pip install 'kinshelf[serve]'"


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True,
              help="Address to listen on; any but a loopback one needs --token-file.")  # fmt: skip
@click.option("--port", type=click.IntRange(0, 65535), default=8765, show_default=True,
              help="0 takes a free one.")  # fmt: skip
@click.option("--token-file", type=PATH,
              help="Tokens, one a line, `read` or `write` behind each.")  # fmt: skip
@click.option("--name", "hosts", multiple=True, metavar="HOST",
              help="A name that the server is reached by, such as behind a proxy.")  # fmt: skip
@click.option("--allow-private-hosts", is_flag=True,
              help="Fetch images from private and loopback addresses too.")  # fmt: skip
@click.option("--rate", type=Number(0, 1e9, min_open=True), default=50.0, show_default=True,
              help="Requests a second that one address may make.")  # fmt: skip
@click.option("--wait", type=WAIT, default=5.0, show_default=True,
              help="Seconds that a write waits for another writer.")  # fmt: skip
@shelf_options
def serve(output: Output, token_file: Path | None, wait: float, **settings: Any) -> None:
    """Serve the shelf to programs and to people, on this machine alone unless told otherwise.

    Ctrl-C or SIGTERM: requests under way are finished first.
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
