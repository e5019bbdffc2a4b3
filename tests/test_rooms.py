"""Imports run one way, between folders, between their rooms and inside a room."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("cli", "commands", "serve", "cluster", "face", "probe", "store", "db")
"""From the upper to the lower; `samples` stands beside them."""
ROOMS = {
    "db": ("catalog", "sources", "formats", "layouts", "filters", "images", ""),
    "store": (
        "maintain",
        "engines",
        "operations",
        "similar",
        "feeds",
        "ingest",
        "",
        "search",
        "log",
        "encode",
    ),
    "probe": ("", "fill", "audit", "pages", "predict", "evaluate", "calibrate", "novelty", "fit"),
    "serve": ("", "pages", "routes", "http", "service", "workers", "base"),
    "commands": ("", "terminal"),
    "samples": ("training", "generator", ""),
    "cluster": ("",),
}
"""Of each folder, from the upper to the lower; "" is the folder's own modules."""
MOST_FILES, MOST_LINES = 16, 400


def _modules() -> dict[str, Path]:
    files = [ROOT / "cli.py", ROOT / "face.py"]
    files += [path for folder in ROOMS for path in (ROOT / folder).rglob("*.py")]
    names = {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in files}
    return {name.removesuffix(".__init__"): path for name, path in names.items()}


MODULES = _modules()


def _imports(path: Path) -> Iterator[str]:
    """Our modules that a file imports anywhere, for types alone too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("kinshelf"):
            base = (node.module or "").removeprefix("kinshelf").lstrip(".")
            for alias in node.names:
                full = f"{base}.{alias.name}".lstrip(".")
                yield full if full in MODULES else base
        elif isinstance(node, ast.Import):
            yield from (a.name[9:] for a in node.names if a.name.startswith("kinshelf."))


EDGES = {name: sorted(set(_imports(path)) & set(MODULES)) for name, path in MODULES.items()}


def _room(module: str) -> tuple[str, str]:
    folder, *rest = module.split(".")
    inside = rest[0] if rest and (len(rest) > 1 or rest[0] in ROOMS[folder]) else ""
    return folder, inside


@pytest.mark.parametrize("folder", ROOMS)
def test_every_folder_below_is_a_room_that_is_listed(folder: str) -> None:
    found = {p.parent.name for p in (ROOT / folder).glob("*/__init__.py")}
    assert found == set(ROOMS[folder]) - {""}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_no_import_runs_upward(module: str) -> None:
    if module in {"store", "probe"}:
        return  # the folder's own docstring and names: they point to its rooms
    folder, room = _room(module)
    for other in EDGES[module]:
        its_folder, its_room = _room(other)
        if folder != its_folder:
            if "samples" in (folder, its_folder):
                assert folder in ("samples", "commands"), f"{module} -> {other}"
            else:
                assert FOLDERS.index(folder) < FOLDERS.index(its_folder), f"{module} -> {other}"
        elif folder in ROOMS:
            order = ROOMS[folder]
            assert order.index(room) <= order.index(its_room), f"{module} -> {other}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join([*way[way.index(module) :], module])
        if module not in done:
            for other in EDGES[module]:
                if other not in {"store", "probe"}:
                    visit(other, (*way, module))
            done.add(module)

    for module in MODULES:
        if module not in {"store", "probe"}:
            visit(module, ())


def test_a_room_has_fewer_than_16_files_and_a_module_at_most_400_lines() -> None:
    for folder in {path.parent for path in MODULES.values()} - {ROOT}:
        files = [p for p in folder.iterdir() if p.suffix == ".py"]
        assert len(files) < MOST_FILES + 1, f"{folder.relative_to(ROOT)}: {len(files)} files"
    for path in MODULES.values():
        assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES, path


@pytest.mark.parametrize("package", sorted(n for n, p in MODULES.items() if p.stem == "__init__"))
def test_every_room_states_what_it_holds(package: str) -> None:
    assert ast.get_docstring(ast.parse(MODULES[package].read_text(encoding="utf-8"))), package
