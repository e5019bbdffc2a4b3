"""Sources that were taken in whole and have not changed since: known by a hash of their bytes.

The file `sources.json` beside the shelf's own is a hint alone: without it a source is read again.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from kinshelf.db.files import written
from kinshelf.db.logs import tolerated
from kinshelf.store.results import AddOptions

if TYPE_CHECKING:
    from kinshelf.store.base import AnyShelf

NAME = "sources.json"
_TAKES_BACK = ("undo", "remove", "prune", "repair")
"""Operations after which a source that did not change has something to add again."""
_CHUNK = 1 << 20


def is_unchanged(shelf: AnyShelf, source: Path, known: str, options: AddOptions) -> bool:
    """Whether a source of this hash was taken in, and nothing of it was taken back since."""
    entry = _read(shelf).get(_key(source))
    if not isinstance(entry, dict) or options.refresh_images or entry.get("hash") != known:
        return False
    at = int(entry.get("generation", -1))
    later = {each["kind"] for each in shelf.history() if each["generation"] > at}
    return 0 <= at <= shelf.snapshot().generation and not later & set(_TAKES_BACK)


def remember(shelf: AnyShelf, sources: dict[Path, str]) -> None:
    """Note sources, by their hashes when they were read, as taken in by the newest generation."""
    at = shelf.snapshot().generation
    made = {_key(source): {"hash": known, "generation": at} for source, known in sources.items()}
    with tolerated(OSError, room="store", then="the sources are read again next time"):
        shelf.path.mkdir(parents=True, exist_ok=True)
        with written(shelf.path / NAME) as file:
            file.write_text(json.dumps(_read(shelf) | made, indent=1), encoding="utf-8")


def hash_of(source: Path, options: AddOptions, how: tuple[Any, ...]) -> str:
    """The hash of a file, of the embeddings beside it, and of `how` it is taken in."""
    parts = [asdict(each) if isinstance(each, AddOptions) else each for each in how]
    digest = xxhash.xxh3_128(json.dumps(parts, sort_keys=True, default=str).encode())
    for path in (source, options.image_embeddings, options.text_embeddings):
        if path is not None:
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
    return digest.hexdigest()


def _key(source: Path) -> str:
    return str(source.resolve())


def _read(shelf: AnyShelf) -> dict[str, Any]:
    try:
        found = json.loads((shelf.path / NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
