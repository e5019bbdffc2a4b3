"""Crafted shelves: what a stranger may put into a directory, and what each command makes of it.

Every command ends in time, within its memory and with one line; what lies outside the shelf is
neither read into an answer nor changed. `verify` may end with 1: it found the damage.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import struct
import sys
import tempfile
import time
import zlib
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import duckdb
import numpy as np
import xxhash
from faults.damage import make
from faults.kill import nursery
from faults.world import pairs, product

from kinshelf import Shelf
from kinshelf.db.catalog.statement import file_hash, read_state, seal, side_file
from kinshelf.probe.fit.settings import ProbeSettings
from kinshelf.store.log import frames

COMMANDS: tuple[tuple[str, ...], ...] = (
    ("info",), ("list",), ("history",), ("verify",), ("verify", "--repair"), ("compact",),
    ("remove", "p00"), ("sql", "SELECT * FROM products"), ("similar", "--id", "p00"),
    ("classify", "--input", "ask.csv", "--image-embeddings", "image.npy", "--text-embeddings",
     "text.npy", "--json"),
    ("export", "out.csv"), ("evaluate",), ("audit",), ("show", "p00"),
    ("policy", "--precision", "0.9"), ("train",),
)  # fmt: skip
SECONDS, MEGABYTES = 10, 550  # `evaluate` takes 510 MB of an untouched shelf: libraries
SECRET = "a secret of the user that no answer may show"
ODD: tuple[Any, ...] = (
    None, True, -1, 0, 1, 2**31, 2**40, 2**62, 2**70, 1e308, float("nan"), "", "x", "../../x",
    "/etc/passwd", "\ud800", "a" * 100_000, [], [1], ["x"], [[]], {}, {"a": 1}, [2**62], [-5],
)  # fmt: skip
DEEP = "[" * 5000 + "]" * 5000


def _files(path: Path) -> list[Path]:
    return sorted(f for f in path.rglob("*") if f.is_file() or f.is_symlink())


def link(path: Path, random: Random, outside: Path) -> str:
    """A symbolic link in place of a file or folder, or beside them."""
    extra = ["LOCK", "TIP", "quarantine", "images", "reembed", "images/urls.jsonl", "images/aa",
             ".MANIFEST.tmp", ".catalog.duckdb.tmp", "probes/.0003.tmp", "index-0.faiss",
             "catalog.duckdb.json", "reembed/x"]  # fmt: skip
    names = [str(f.relative_to(path)) for f in _files(path)] + ["probes", "probes/0001", *extra]
    name = random.choice(names)
    place = path / name
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    place.unlink(missing_ok=True)
    place.parent.mkdir(exist_ok=True)
    target = random.choice(["note.txt", "folder", "log-0.wal", "vectors-0.f32", "not-there"])
    place.symlink_to(outside / target)
    return f"link {name} -> {target}"


def pipe(path: Path, random: Random, _: Path) -> str:
    """A fifo, or a folder, in place of a file."""
    place = random.choice([*_files(path), path / "TIP", path / "LOCK"])
    place.unlink(missing_ok=True)
    (os.mkfifo if random.random() < 0.7 else os.mkdir)(place)
    return f"fifo or folder {place.relative_to(path)}"


def _odd(value: Any, random: Random) -> Any:
    """A value like the one given, with one place in it made odd."""
    if isinstance(value, dict) and value and random.random() < 0.8:
        name = random.choice(sorted(value, key=str))
        kind = random.random()
        if kind < 0.15:
            return {k: v for k, v in value.items() if k != name}
        if kind < 0.25:
            return value | {random.choice(["rows", "x", "removed", "probe"]): random.choice(ODD)}
        return value | {name: _odd(value[name], random)}
    if isinstance(value, list) and value and random.random() < 0.8:
        at = random.randrange(len(value))
        if random.random() < 0.2:
            return value[:at] + value[at + 1 :]
        return [*value[:at], _odd(value[at], random), *value[at + 1 :]]
    return random.choice(ODD)


def _sealed_frame(generation: int, head: bytes, body: bytes) -> bytes:
    crc = zlib.crc32(body, zlib.crc32(head))
    fields = frames.HEADER.pack(frames.MAGIC, generation, len(head), len(body), crc, 0)[:-4]
    return fields + struct.pack("<I", zlib.crc32(fields)) + head + body


def _json(value: Any, random: Random) -> bytes:
    if random.random() < 0.05:
        return random.choice([DEEP.encode(), b"\xff\xfe", b"", b"{", b"null", b"1" * 5000])
    return json.dumps(value).encode()


def frame(path: Path, random: Random, _: Path) -> str:
    """One frame that states something odd, its checksums right."""
    log = path / "log-0.wal" if (path / "log-0.wal").exists() else next(path.glob("log-*.wal"))
    data = log.read_bytes()
    found, at = [], 0
    while one := frames.decode(memoryview(data), at):
        found.append(one)
        at = one.end
    chosen = random.choice(found)
    head, body = dict(chosen.head), json.loads(chosen.body) if chosen.body else {}
    generation = chosen.generation
    part = random.random()
    if part < 0.5:
        head = _odd(head, random)
    elif part < 0.95:
        body = _odd(body, random)
    else:
        generation = random.choice([0, 2**40, 2**63])
    made = _sealed_frame(generation, _json(head, random), _json(body, random) if body else b"")
    log.write_bytes(data[: chosen.offset] + made + data[chosen.end :])
    (path / "TIP").unlink(missing_ok=True)
    return f"frame {chosen.generation}"


def manifest(path: Path, random: Random, _: Path) -> str:
    """A manifest that states something odd."""
    body = json.loads((path / "MANIFEST").read_bytes().partition(b"\n")[0])
    raw = _json(_odd(body, random), random)
    (path / "MANIFEST").write_bytes(raw + b"\n%08x\n" % zlib.crc32(raw))
    return f"manifest {raw[:300]!r}"


def tip(path: Path, random: Random, _: Path) -> str:
    """A TIP of another log."""
    numbers = [random.choice([0, 1, 5, 2**20, 2**40, 2**63]) for _ in range(3)]
    raw = struct.pack("<4sQQQ", b"KST1", *numbers)
    (path / "TIP").write_bytes(raw + struct.pack("<I", zlib.crc32(raw)))
    return f"tip {numbers}"


def catalogue(path: Path, random: Random, outside: Path) -> str:
    """A catalogue with something else in it, its checksum right."""
    file = path / "catalog.duckdb"
    state = read_state(file)
    if state is None:
        return "no catalogue"
    note = str(outside / "note.txt")
    view = f"CREATE VIEW products AS SELECT * FROM read_text('{note}')"
    steal = f"(SELECT content FROM read_text('{note}'))"
    ways = [
        ("DROP TABLE products", view),
        ("ALTER TABLE products RENAME TO p2", "CREATE VIEW products AS SELECT p2.* REPLACE"
         f" ({steal} AS title) FROM p2"),
        (f"CREATE MACRO jaro_winkler_similarity(a, b) AS {steal}",),
        ("DROP TABLE products", "CREATE TABLE products (row BIGINT)"),
        ("DROP TABLE attributes",), ("UPDATE products SET attributes = '[1]'",),
        ("UPDATE schema_version SET version = 99",), ("DELETE FROM schema_version",),
        ("UPDATE products SET row = 4611686018427387904",), ("UPDATE products SET removed = -5",),
    ]  # fmt: skip
    chosen = random.choice(ways)
    with duckdb.connect(str(file)) as connection:
        for statement in chosen:
            connection.execute(statement)
    (file.with_name(file.name + ".wal")).unlink(missing_ok=True)
    state["xxh3"] = file_hash(file)
    if random.random() < 0.3:
        state = _odd(state, random)
    try:
        side_file(file).write_bytes(seal(state))
    except (TypeError, ValueError):
        side_file(file).write_bytes(b"{}\n" + xxhash.xxh3_64_hexdigest(b"{}").encode() + b"\n")
    return f"catalogue {chosen[-1][:60]}"


def probe(path: Path, random: Random, _: Path) -> str:
    """A probe whose files say something odd, the hashes in the log right."""
    folder = random.choice(sorted((path / "probes").glob("0*")))
    facts = folder / "probe.json"
    if facts.exists():
        facts.write_bytes(_json(_odd(json.loads(facts.read_bytes()), random), random))
    return f"probe {folder.name}"


def sidecars(path: Path, random: Random, _: Path) -> str:
    """Odd lines in the files that are JSON lines or notes."""
    name = random.choice(["images/urls.jsonl", "LOCK", "reembed/x-0/rows.jsonl"])
    place = path / name
    place.parent.mkdir(parents=True, exist_ok=True)
    lines = [_json(random.choice(ODD), random) for _ in range(3)]
    place.write_bytes(b"\n".join(lines) + b"\n")
    return name


def sizes(path: Path, random: Random, _: Path) -> str:
    """A file cut, emptied or made longer, without holes."""
    file = random.choice([f for f in _files(path) if f.stat().st_size])
    size = file.stat().st_size
    cut = random.choice([0, 1, size // 2, size - 1])
    data = file.read_bytes()
    file.write_bytes(
        data[:cut] if random.random() < 0.7 else data + bytes(random.choice([1, 4096]))
    )
    return f"size of {file.relative_to(path)}"


KINDS = (link, pipe, frame, frame, frame, frame, manifest, tip, catalogue, probe, sidecars, sizes)


def _bystanders(folder: Path) -> Path:
    """Files of the user's beside the shelf, some of them named like a shelf's."""
    outside = folder / "outside"
    (outside / "folder").mkdir(parents=True)
    for name in ("note.txt", "log-0.wal", "vectors-0.f32", "folder/0001.txt"):
        (outside / name).write_text(SECRET)
    return outside


def _state(folder: Path) -> dict[str, tuple[Any, ...]]:
    return {
        str(p): (p.lstat().st_mtime_ns, p.lstat().st_size, p.lstat().st_ino)
        for p in [folder, *folder.rglob("*")]
    }


def command_line(line: tuple[str, ...], path: Path, work: Path) -> None:
    """In a process of its own: one command, its output in files beside it."""
    from kinshelf.cli import main

    os.chdir(work)
    for number, name in ((1, "out"), (2, "errors")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))  # libraries map more than they use
    try:
        main([*line, "--shelf", str(path)], prog_name="kinshelf")
    finally:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        Path("peak").write_text(str(peak))
        sys.stdout.flush()
        sys.stderr.flush()


def run_command(line: tuple[str, ...], path: Path, work: Path) -> str:
    """Why a command's answer to a shelf is no good; empty if it is."""
    began = time.monotonic()
    child = nursery().Process(target=command_line, args=(line, path, work))
    child.start()
    child.join(3 * SECONDS)
    if child.is_alive():
        child.kill()
        child.join()
        return "hangs"
    seconds = time.monotonic() - began
    errors = (work / "errors").read_text(errors="replace")
    code, text = child.exitcode, (work / "out").read_text(errors="replace") + errors
    if "Traceback" in text:
        return "traceback: " + " | ".join(text.strip().splitlines()[-3:])[-700:]
    if SECRET in text:
        return "shows what lies outside"
    if code not in ((0, 1, 3) if line[0] == "verify" else (0, 3)):
        return f"exit {code}: {text[-300:]}"
    if code == 3 and sum(one.startswith("Error: ") for one in errors.splitlines()) != 1:
        return f"not one line: {text[-300:]}"
    if (peak := int((work / "peak").read_text())) > MEGABYTES:
        return f"took {peak} MB"
    return f"took {seconds:.1f} s" if seconds > SECONDS else ""


def _base(folder: Path, seed: str) -> Path:
    """A shelf with every kind of file, one probe of which was really trained."""
    path = make(folder, seed)
    with Shelf.open(path) as shelf:
        products = [product(f"q{i:02d}", i) for i in range(30)]
        image, text = np.split(np.stack([pairs(p.id, i) for i, p in enumerate(products)]), 2, 1)
        shelf.upsert(products, image, text)
        shelf.train(ProbeSettings(epochs=2, hidden=4))
    return path


def _question(work: Path) -> None:
    """What `classify` asks, as embeddings: no encoder is at hand."""
    (work / "ask.csv").write_text("id,title\nx,a thing\n")
    image, text = np.split(pairs("x", 1)[None], 2, axis=1)
    np.save(work / "image.npy", image)
    np.save(work / "text.npy", text)


def run(directory: Path, seed: str, cases: int) -> Counter[str]:
    """Try so many crafted shelves. Raises AssertionError for each that is met wrongly."""
    base, outcomes, bad = _base(directory, seed), Counter[str](), []
    for number in range(cases):
        random = Random(f"{seed}/{number}")
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            outside, work = _bystanders(folder), folder / "work"
            work.mkdir()
            _question(work)
            path = folder / "case.shelf"
            shutil.copytree(base, path)
            kind = random.choice(KINDS)
            what = kind(path, random, outside)
            before = _state(outside)
            for line in random.sample(COMMANDS, 2):
                problem = run_command(line, path, work)
                if _state(outside) != before:
                    problem = "changed what lies outside"
                outcomes["BAD" if problem else kind.__name__] += 1
                if problem:
                    bad.append(f"{number}: {what}: {' '.join(line)}: {problem}")
    assert not bad, "\n".join(bad)
    return outcomes
