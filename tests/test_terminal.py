"""What is printed can be printed anywhere, and JSON is JSON whatever is in it."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import FakeEncoder, unit, write_csv
from rich.console import Console

import kinshelf.store.encode.encoder
from kinshelf import Shelf
from kinshelf.cli import main
from kinshelf.commands.terminal.output import Output
from kinshelf.commands.terminal.progress import progress
from kinshelf.commands.terminal.tables import cut, rows_table
from kinshelf.db.product import Product

pytestmark = pytest.mark.wide

CLOSED = {"stdout": 1, "stderr": 2}
NAMES = {"plain": "toys", "markup": "x[/b]y", "bold": "[bold]x", "emoji": ":smile:"}


def run(*arguments: Any, **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "kinshelf.cli", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, check=False, env=os.environ | environment, timeout=240
    )


def strictly(line: str | bytes) -> Any:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(line, parse_constant=refuse)


def filled(path: Path) -> Path:
    made = [Product(f"ü{i}", f"Żółty zamek 😀 {i}", category=f"Ké {i % 2}") for i in range(6)]
    with Shelf.create(path, encoder="fake") as shelf:
        shelf.use_encoder(FakeEncoder())
        shelf.upsert(made, None, unit(np.random.default_rng(0).standard_normal((6, 16))))
    return path


@pytest.fixture(scope="module")
def accented(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return filled(tmp_path_factory.mktemp("terminal") / "a.shelf")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_a_title_that_the_terminal_lacks_letters_for_is_shown_as_well_as_can_be(
    accented: Path, encoding: str
) -> None:
    done = run("list", "--shelf", accented, PYTHONIOENCODING=encoding)
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False), done.stderr
    assert b"zamek" in done.stdout


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_json_keeps_every_letter_in_any_encoding(accented: Path, encoding: str) -> None:
    done = run("show", "ü1", "--json", "--shelf", accented, PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    assert strictly(done.stdout.decode(encoding))["title"] == "Żółty zamek 😀 1"


@pytest.mark.parametrize("stream", CLOSED)
@pytest.mark.parametrize("command", ["list", "list --json", "verify", "history"])
def test_a_stream_that_is_closed_costs_only_what_was_meant_for_it(
    accented: Path, stream: str, command: str
) -> None:
    script = f'exec "$0" -m kinshelf.cli "$@" {CLOSED[stream]}>&-'
    words = ["bash", "-c", script, sys.executable, *command.split(), "--shelf", str(accented)]
    done = subprocess.run(words, capture_output=True, check=False, timeout=240)
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False), done.stderr
    assert bool(done.stdout) == (stream == "stderr" and command != "verify")


def test_a_stdout_that_is_no_file_is_written_to_like_any_other(accented: Path) -> None:
    with contextlib.redirect_stdout(io.StringIO()) as found:
        main(["show", "ü1", "--json", "--shelf", str(accented)], standalone_mode=False)
    assert strictly(found.getvalue())["title"] == "Żółty zamek 😀 1"


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
def test_a_shelf_whose_name_is_no_text_is_reported(tmp_path: Path, errors: str) -> None:
    path, encoding = tmp_path / "n\udcff.shelf", f"utf-8:{errors}"
    assert run("init", "--shelf", path, PYTHONIOENCODING=encoding).returncode == 0
    assert run("info", "--shelf", path, PYTHONIOENCODING=encoding).returncode == 0
    done = run("info", "--json", "--shelf", path, PYTHONIOENCODING=encoding)
    assert strictly(done.stdout.decode())["shelf"].endswith("n\udcff.shelf")


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_name_is_never_read_as_markup(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for command in ("init", "verify"):
        main([command, "--shelf", name], standalone_mode=False)
        assert name in capsys.readouterr().err


def test_json_has_no_nan_and_no_key_that_is_no_text(accented: Path) -> None:
    query = (
        "SELECT 'nan'::DOUBLE n, ['inf'::FLOAT, 1] l, {'a': '-inf'::DOUBLE} s,"
        " MAP {DATE '2020-01-01': 1} m, MAP {'x'::BLOB: 'nan'::DOUBLE} b"
    )
    done = run("sql", query, "--json", "--shelf", accented)
    assert strictly(done.stdout) == {
        "n": None, "l": [None, 1.0], "s": {"a": None}, "m": {"2020-01-01": 1}, "b": {"b'x'": None},
    }  # fmt: skip


HUGE = 10**24


@pytest.mark.parametrize(
    "command",
    [
        ("list", "--limit", HUGE),
        ("list", "--offset", HUGE),
        ("list", "--offset", 2**63, "--limit", 2**63, "--json"),
        ("history", "--limit", HUGE),
        ("similar", "--text", "zamek", "-k", HUGE),
        ("classify", "--text", "zamek", "-k", HUGE),
        ("classify", "--text", "zamek", "-k", 10**9),
    ],
    ids=lambda command: " ".join(map(str, command)),
)
def test_more_than_there_is_may_be_asked_for(
    accented: Path, command: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        kinshelf.store.encode.encoder, "load_encoder", lambda *_a, **_k: FakeEncoder()
    )
    main([*map(str, command), "--shelf", str(accented)], standalone_mode=False)


@pytest.mark.parametrize(
    "command",
    [
        ("similar", "--text", "a", "--weight-image", "nan"),
        ("add", "a.csv", "--wait", "nan"),
        ("add", "a.csv", "--wait", "-1"),
        ("policy", "--precision", "nan"),
        ("serve", "--rate", "nan"),
        ("serve", "--rate", "inf"),
        ("encode", "a.csv", "-o", "out", "--timeout", "nan"),
    ],
    ids=" ".join,
)
def test_a_number_that_is_none_is_wrong_usage(command: tuple[str, ...]) -> None:
    done = run(*command)
    assert done.returncode == 2
    assert f"'{command[-2]}'".encode() in done.stderr
    assert command[-1].encode() in done.stderr


def test_a_write_may_wait_for_as_long_as_it_takes(accented: Path) -> None:
    with Shelf.open(accented, wait=float("inf")) as shelf, shelf.writing():
        pass


def test_a_page_beyond_the_last_promises_no_more(
    accented: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for offset, reported in ((0, "2 of 6; more"), (4, "2 of 6\n"), (9, "0 of 6\n")):
        options = ["--limit", "2", "--offset", str(offset), "--shelf", str(accented)]
        main(["list", *options], standalone_mode=False)
        assert reported in capsys.readouterr().err


def test_every_bar_has_a_total_a_rate_and_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", screen)
    clock = itertools.count()
    monkeypatch.setattr("rich.console.monotonic", lambda: float(next(clock)))
    with progress(Output("s", as_json=False, quiet=False), "adding a.csv", 40) as update:
        update(10)
        update(20)
    shown = screen.getvalue()
    assert "20/40" in shown
    assert re.search(r"\d/s", shown)
    assert "0:00" in shown


@pytest.mark.parametrize("width", [80, 100, 200])
def test_a_product_takes_one_line_its_id_is_whole_and_its_path_is_cut_in_the_middle(
    width: int,
) -> None:
    ids = [f"{i:032x}" for i in range(3)]
    path = "Patio, Lawn & Garden | Gardening | Planters | Flower Pots"
    rows = [
        {"id": name, "title": "A very long title " * 5, "category": path, "price": 12.5}
        for name in ids
    ]
    printed = io.StringIO()
    Console(file=printed, width=width).print(rows_table(["id", "title", "category", "price"], rows))
    _header, *lines = printed.getvalue().splitlines()
    assert len(lines) == 3
    for line, name in zip(lines, ids, strict=True):
        assert name in line
        assert "12.5" in line
        assert path in line if width == 200 else "…" in line
    assert cut(path, 45) == "Patio, Lawn & Garden | … | Flower Pots"
    assert cut(path, 20) == "… | Flower Pots"


def test_adding_and_training_end_with_what_to_do_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(3)
    kinds, path = np.arange(80) % 2, str(tmp_path / "a.shelf")
    rows = [{"id": i, "title": f"thing {i}", "category": f"kind {k}"} for i, k in enumerate(kinds)]
    source = write_csv(tmp_path / "a.csv", rows)
    noise = rng.standard_normal((80, 8))
    np.save(tmp_path / "text.npy", unit(rng.standard_normal((2, 8))[kinds] + 0.3 * noise))
    add = ["add", str(source), f"--text-embeddings={tmp_path / 'text.npy'}"]

    def last_line(*command: str) -> str:
        main([*command, "--shelf", path], standalone_mode=False)
        return capsys.readouterr().err.splitlines()[-1]

    assert last_line("init") == f"next: kinshelf add products.csv --shelf {path}"
    assert last_line(*add, "--val-fraction", "0.25") == "next: kinshelf train"
    main(["train", "--epochs", "2", "--shelf", path], standalone_mode=False)
    trained, right, following = capsys.readouterr().err.splitlines()[-3:]
    assert trained.startswith("probe 1: 2 categories, trained on")
    assert re.fullmatch(r"of \d+ products that were kept aside, [\d.]+ % were right", right)
    assert following.startswith("next: kinshelf evaluate")
    assert last_line(*add).startswith("next: kinshelf classify")
