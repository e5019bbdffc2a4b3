"""`reembed`: the whole shelf to another encoder, beside the old embeddings, then one switch.

New rows gather in `reembed/` of the shelf, keyed by row number, which never changes within an
epoch: an interrupted run goes on where it stopped. Readers answer from the old epoch until the
manifest names the new one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

from kinshelf.db.arrays import FloatArray, IntArray
from kinshelf.db.catalog.records import Body, Head
from kinshelf.db.errors import EncoderMismatch, InputError, ShelfDamaged
from kinshelf.db.files import read_around, reading
from kinshelf.db.images.cache import ImageCache
from kinshelf.db.product import pictures_of, pooled_by
from kinshelf.store.encode.canary import identity_of
from kinshelf.store.encode.moved import found_again, has_moved_to, is_gone
from kinshelf.store.ingest.add import open_downloader
from kinshelf.store.ingest.batch_encoder import BatchEncoder
from kinshelf.store.ingest.candidate import Candidate
from kinshelf.store.ingest.pictures import Preprocessor, is_url, read_pictures
from kinshelf.store.ingest.pipeline import ENCODED_BATCH
from kinshelf.store.ingest.several import attach
from kinshelf.store.log import disk
from kinshelf.store.log.create import manifest_for
from kinshelf.store.maintain.rewrite import Left, Rewriting, Source
from kinshelf.store.results import AddReport

if TYPE_CHECKING:
    from kinshelf.db.images.download import Downloader
    from kinshelf.db.product import StoredProduct
    from kinshelf.store.encode.encoder import Encoder
    from kinshelf.store.log.ledger import Ledger
    from kinshelf.store.log.manifest import Manifest
    from kinshelf.store.shelf import DirectoryShelf

FOLDER = "reembed"


@dataclass(slots=True)
class ReembedReport:
    """`pictures_gone` maps ids, now known by their text alone, to the reason.

    `moved`: the encoder is the shelf's own at another place, and nothing was embedded.
    """

    encoder: str
    fingerprint: str
    products: int = 0
    done: int = 0
    interrupted: bool = False
    pictures_gone: dict[str, str] = field(default_factory=dict)
    probes_dropped: int = 0
    generation: int = 0
    moved: bool = False

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


class _Staged:
    """Embeddings done so far: `vectors.f32` by place, and a line for each finished row.

    A line has a checksum of itself and one of its row. What does not match is embedded again.
    """

    def __init__(self, folder: Path, first_row: int, width: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._vectors, self._lines = folder / "vectors.f32", folder / "rows.jsonl"
        self._first_row, self._width = first_row, width
        self.rows: dict[int, dict[str, Any]] = {}
        for path in (self._vectors, self._lines):
            disk.unshare(path)
        if self._lines.exists():
            entries = filter(None, map(_entry, read_around(self._lines)[0].splitlines()))
            self.rows = {entry["row"]: entry for entry in entries if self._is_whole(entry)}
            disk.replace(self._lines, b"".join(map(_line, self.rows.values())))

    def _is_whole(self, entry: dict[str, Any]) -> bool:
        try:
            self.gather(np.array([entry["row"] - self._first_row]), {entry["row"]: entry})
        except (OSError, ShelfDamaged, ValueError, TypeError, KeyError, OverflowError):
            return False
        return True

    def add(self, candidates: Sequence[Candidate], rows: Sequence[int], pairs: FloatArray) -> None:
        """Write and sync vectors first: a line promises that its row is there."""
        entries: list[dict[str, Any]] = [
            {"row": row, "id": c.product.id, "image_hash": c.image_hash if c.image is not None
             else None, "image_error": c.image_error, "has_image": c.image is not None,
             "has_text": c.text is not None, "vector": xxhash.xxh3_64_hexdigest(pair.tobytes())}
            for row, c, pair in zip(rows, candidates, pairs, strict=True)
        ]  # fmt: skip
        for row, each in zip(rows, pairs, strict=True):
            _append(self._vectors, each.tobytes(), (row - self._first_row) * self._width * 4)
        lines = b"".join(map(_line, entries))
        _append(self._lines, lines, self._lines.stat().st_size if self._lines.exists() else 0)
        self.rows |= {entry["row"]: entry for entry in entries}

    def gather(
        self, places: IntArray, stated: dict[int, dict[str, Any]] | None = None
    ) -> FloatArray:
        """The new embedding pairs at places, (n, width) float32.

        Raises ShelfDamaged for a row that is not as it was written.
        """
        found = np.empty((len(places), self._width), dtype=np.float32)
        rows = self.rows if stated is None else stated
        if not len(places):
            return found
        with reading(self._vectors) as file:
            for at, place in enumerate(places.tolist()):
                file.seek(place * self._width * 4)
                data = file.read(self._width * 4)
                stated_hash = rows[place + self._first_row]["vector"]
                if xxhash.xxh3_64_hexdigest(data) != stated_hash or len(data) < self._width * 4:
                    raise ShelfDamaged(
                        f"{self._vectors} is damaged at row {place}: nothing was changed; run the"
                        " same command again, and that row is embedded again"
                    )
                found[at] = np.frombuffer(data, dtype=np.float32)
        return found


def _line(entry: dict[str, Any]) -> bytes:
    body = json.dumps(entry, sort_keys=True)
    return f'{{"entry": {body}, "xxh3": "{xxhash.xxh3_64_hexdigest(body.encode())}"}}\n'.encode()


def _entry(line: bytes) -> dict[str, Any] | None:
    """What a line states; None for one that is torn, damaged, or of an earlier version."""
    try:
        entry: dict[str, Any] = json.loads(line)["entry"]
        return entry if _line(entry) == line + b"\n" else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _append(path: Path, data: bytes, offset: int) -> None:
    import os

    fd = disk.create(path)
    try:
        disk.write(fd, data, offset)
        disk.sync(fd)
    finally:
        os.close(fd)


def reembed(
    shelf: DirectoryShelf,
    ledger: Ledger,
    encoder: Encoder,
    target: Manifest,
    *,
    stop: Callable[[], bool],
    progress: Callable[[int, int], None],
) -> ReembedReport:
    """Embed every product anew and switch; the caller holds the writer lock.

    `target` names the encoder as `creating.manifest_for` does. Raises EncoderMismatch if it is
    the shelf's own already, InputError if a product would be left with nothing.
    """
    known = ledger.manifest
    if (encoder.fingerprint, target.pictures) == (known.fingerprint, known.pictures):
        raise EncoderMismatch(f"{shelf.path} is embedded by {encoder.name} already: nothing to do")
    now = shelf.snapshot()
    rows = now.view.rows().tolist()
    report = ReembedReport(encoder.name, encoder.fingerprint, len(rows))
    space = pooled_by(encoder.fingerprint, target.pictures)
    folder = shelf.path / FOLDER / f"{space}-{ledger.manifest.epoch}"
    staged = _Staged(folder, ledger.first_row, 2 * encoder.dimension)
    left = [row for row in rows if staged.rows.get(row, {"image_error": "new"})["image_error"]]
    for batch in _embedded(shelf, encoder, left, target.pictures):
        staged.add(*batch)
        report.done += len(batch[1])
        progress(len(rows) - len(left) + report.done, len(rows))
        if stop():
            report.interrupted, report.generation = True, shelf.generation
            return report
    kept = {row: staged.rows[row] for row in rows}
    report.pictures_gone = {e["id"]: e["image_error"] for e in kept.values() if e["image_error"]}
    _refuse_nothing(kept.values())
    report.probes_dropped = len(now.view.probes())
    _switch(shelf, ledger, staged, {**asdict(target), **identity_of(encoder)}, kept)
    report.generation = ledger.generation
    disk.remove_tree(shelf.path / FOLDER)
    return report


def _embedded(
    shelf: DirectoryShelf, encoder: Encoder, rows: Sequence[int], pooling: str
) -> Iterator[tuple[list[Candidate], list[int], FloatArray]]:
    preprocessor = Preprocessor(encoder)
    batches = BatchEncoder(encoder, preprocessor, AddReport())
    try:
        with open_downloader(shelf.path / "images", allow_private_hosts=False) as downloader:
            for start in range(0, len(rows), ENCODED_BATCH):
                part = list(rows[start : start + ENCODED_BATCH])
                found = _candidates(shelf, part, downloader, pooling)
                batches.run(found, lambda _: np.empty((0, 0), dtype=np.float32))
                yield found, part, _pairs(found, encoder.dimension)
    finally:
        preprocessor.close()


def _candidates(
    shelf: DirectoryShelf, rows: list[int], downloader: Downloader, pooling: str
) -> list[Candidate]:
    known = shelf.snapshot().view.by_rows(rows)
    found = [Candidate(known[row].product, place, FOLDER) for place, row in enumerate(rows)]
    cache = ImageCache(shelf.path / "images")
    where = {
        name: _kept(cache, name, digest) for row in rows for name, digest in _named(known[row])
    }
    attach(
        found, pooling, lambda names: read_pictures([where.get(n, n) for n in names], downloader)
    )
    return found


def _named(stored: StoredProduct) -> Iterator[tuple[str, str]]:
    """The pictures of a product and their content hashes, as far as these are known."""
    yield from zip(pictures_of(stored.product), stored.picture_hashes, strict=False)


def _kept(cache: ImageCache, image: str, digest: str) -> str:
    """Where a picture is: its file, where only the line that leads to it is lost."""
    if not digest or not is_url(image) or cache.get(image):
        return image
    kept = cache.by_hash(digest)
    return str(kept.path) if kept else image


def _pairs(found: Sequence[Candidate], dimension: int) -> FloatArray:
    pairs = np.zeros((len(found), 2 * dimension), dtype=np.float32)
    for row, candidate in zip(pairs, found, strict=True):
        if candidate.image is not None:
            row[:dimension] = candidate.image
        if candidate.text is not None:
            row[dimension:] = candidate.text
    return pairs


def _refuse_nothing(entries: Any) -> None:
    empty = [e["id"] for e in entries if not (e["has_image"] or e["has_text"])]
    if empty:
        raise InputError(
            f"{len(empty)} products have neither a text nor a picture that can be read, the first"
            f" is {empty[0]!r}: bring the pictures back or remove the products, then run this"
            " again; what is embedded so far is kept"
        )


def _switch(
    shelf: DirectoryShelf, ledger: Ledger, staged: _Staged, identity: dict[str, Any],
    kept: dict[int, dict[str, Any]],
) -> None:  # fmt: skip
    probes = frozenset(int(probe["version"]) for probe in shelf.snapshot().view.probes())
    head: Head = {
        "kind": FOLDER, "command": f"reembed --encoder {identity['encoder']}",
        "counts": {"updated": len(kept)},
    }  # fmt: skip
    shelf.commit(head, {})
    names = ("encoder", "revision", "precision", "fingerprint", "dimension", "canary", "pictures")
    source = Source(
        directory=ledger.directory,
        manifest=ledger.manifest.replace(**{name: identity[name] for name in names}),
        frames=[*ledger.base, *ledger.heads],
        next_row=ledger.rows,
        read=lambda frame: _corrected(ledger.frame(frame).content(), kept),
        gather=staged.gather,
    )
    none = np.zeros(ledger.rows - ledger.first_row, dtype=np.bool_)
    rewriting = Rewriting(source, ledger.generation, Left(none, probes))
    epoch = ledger.manifest.epoch + 1
    ledger.begin_epoch(lambda: rewriting.write(epoch))
    ledger.refresh()


def _corrected(body: Body, kept: dict[int, dict[str, Any]]) -> Body:
    """With what the new run found of each product's picture."""
    products = body.get("products")
    if not products:
        return body
    columns = dict(products)
    for name in ("image_hash", "image_error", "has_image", "has_text"):
        old = zip(products["row"], products[name], strict=True)
        columns[name] = [kept[row][name] if row in kept else value for row, value in old]
    return body | {"products": columns}


def load_target(
    encoder: str, revision: str | None, precision: str | None, pictures: str | None = None
) -> tuple[Encoder, Manifest]:
    """The encoder to change to. Raises EncoderUnavailable."""
    from kinshelf.store.encode.encoder import load_encoder

    target = manifest_for(encoder, revision, precision, pictures)
    loaded = load_encoder(target.encoder, revision=target.revision, precision=target.precision)
    return loaded, target


def _repointed(shelf: DirectoryShelf, encoder: str) -> ReembedReport:
    """Name the place where the shelf's own encoder is now."""
    if encoder == shelf.manifest.encoder:
        raise EncoderMismatch(f"{shelf.path} is embedded by {encoder} already: nothing to do")
    shelf.set_manifest(encoder=encoder, revision=None)
    report = ReembedReport(encoder, shelf.fingerprint, moved=True)
    report.generation = shelf.generation
    return report


def reembed_path(
    path: Path,
    encoder: str | None = None,
    *,
    revision: str | None = None,
    precision: str | None = None,
    pictures: str | None = None,
    wait: float = 0.0,
    stop: Callable[[], bool] = lambda: False,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> ReembedReport:
    """Change the shelf at `path` to another encoder, or its own in another precision.

    `pictures` see `Shelf.create`; None: as the shelf has it. Given alone, the precision stays.

    Where `encoder` is the directory that the shelf's own encoder moved to, the shelf names that
    from now on, and nothing is embedded.

    Its probes are dropped, as they read the old embeddings. Interrupted, it goes on where it
    stopped when it is run again. Raises EncoderUnavailable, EncoderMismatch, InputError or
    ShelfError.
    """
    from kinshelf.store.shelf import DirectoryShelf

    with DirectoryShelf(path, wait=wait) as shelf, shelf.writing():
        manifest = shelf.manifest
        if encoder is None:
            encoder, revision = manifest.encoder, revision or manifest.revision
            if pictures is not None:
                precision = precision or manifest.precision
            if is_gone(encoder):
                encoder = found_again(path, manifest) or encoder
        elif (
            precision in (None, manifest.precision)
            and pictures in (None, manifest.pictures)
            and has_moved_to(Path(encoder), manifest)
        ):
            return _repointed(shelf, str(Path(encoder).resolve()))
        pictures = pictures or manifest.pictures
        loaded, target = load_target(encoder, revision, precision, pictures)
        ledger = shelf._ledger
        return reembed(shelf, ledger, loaded, target, stop=stop, progress=progress)
