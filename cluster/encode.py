"""Encode a source into a folder of Parquet parts, in this process or on Ray.

Both ways make the same folder to the bit (see `db.parts`). Run again, an encoding goes on where it
stopped; `Shelf.add` takes the folder.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kinshelf.cluster.part import EncoderSpec, PartEncoder
from kinshelf.cluster.parts import begin, finish
from kinshelf.cluster.remote import local_copy
from kinshelf.cluster.tasks import Task, read_tasks
from kinshelf.db.errors import InputError
from kinshelf.db.sources.parts import PartsManifest

if TYPE_CHECKING:
    from kinshelf.store.log.manifest import Manifest

PART_ROWS = 2048
"""Rows of a part: 8 MB of embeddings, and about a minute of work for one core."""

Progress = Callable[[int], None]
Stop = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class EncodeOptions:
    """Options for reading and encoding a source.

    `encoder` is a hub id or a directory, None the default one; `precision` None is the best of
    the machine that starts; `pictures` see `Shelf.create`; `mapping`, `images`, `delimiter` and
    `encoding` see `store.AddOptions`. On Ray: `workers` actors (None: one a GPU or, without any,
    one for every `cpus` cores), `timeout` seconds for one part before it is tried again elsewhere.
    """

    encoder: str | None = None
    revision: str | None = None
    precision: str | None = None
    mapping: dict[str, str] = field(default_factory=dict)
    images: Path | None = None
    delimiter: str | None = None
    encoding: str | None = None
    allow_private_hosts: bool = False
    part_rows: int = PART_ROWS
    workers: int | None = None
    cpus: int = 1
    timeout: float = 1800.0
    pictures: str | None = None


@dataclass(slots=True)
class EncodeReport:
    """The result of an encoding. `reused` parts existed before; counts are of the whole folder."""

    folder: str
    fingerprint: str
    parts: int = 0
    reused: int = 0
    rows: int = 0
    products: int = 0
    rejected: int = 0
    image_failed: int = 0
    seconds: float = 0.0
    interrupted: bool = False

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def encode_source(
    source: str,
    directory: Path,
    options: EncodeOptions | None = None,
    *,
    ray: str | None = None,
    stop: Stop = lambda: False,
    progress: Progress = lambda _done: None,
) -> EncodeReport:
    """Encode the products of `source`, a path or URL, into the folder `directory`.

    `ray` is the address of a Ray cluster, or "local" for one of this machine's cores; None
    encodes in this process. `progress` hears how many rows are done. Raises InputError subclasses
    for a source that cannot be read, EncoderError, or ClusterError.
    """
    options = options or EncodeOptions()
    started = time.monotonic()
    with local_copy(source) as (path, located):
        _check_pictures(path, options)
        spec, manifest = _identify(_named(source, path), options)
        tasks = read_tasks(path, _reading(options), spec.fingerprint, located, manifest.source)
        begin(directory, manifest)  # not before: a source that cannot be read leaves no folder
        report = EncodeReport(str(directory), spec.fingerprint)
        run = Run(directory, spec, options, report, stop, progress)
        names = run.plain(tasks) if ray is None else run.on_ray(tasks, ray)
    if not report.interrupted:
        _note(report, finish(directory, manifest, names))
    report.seconds = time.monotonic() - started
    return report


def _check_pictures(path: Path, options: EncodeOptions) -> None:
    from kinshelf.store.ingest.frames import has_pictures

    if has_pictures(path, options.mapping):
        raise InputError(
            f"{path} holds its pictures as bytes, which no part can name: give the file to"
            " `kinshelf add` itself, or save the pictures as files"
        )


def shelf_encoder(manifest: Manifest) -> dict[str, str | None]:
    """Options of the encoder that a shelf is for, so that the shelf takes the folder."""
    names = ("encoder", "revision", "precision", "pictures")
    return {name: getattr(manifest, name) for name in names}


def _named(source: str, path: Path) -> str:
    return str(path.resolve()) if str(path) == source else source


def _identify(source: str, options: EncodeOptions) -> tuple[EncoderSpec, PartsManifest]:
    """What every part is encoded by, and the manifest that records it."""
    from kinshelf.db.images.decode import limits_now
    from kinshelf.store.encode.canary import identity_of
    from kinshelf.store.encode.encoder import load_encoder
    from kinshelf.store.log.create import manifest_for

    wanted = manifest_for(options.encoder, options.revision, options.precision, options.pictures)
    encoder = load_encoder(wanted.encoder, revision=wanted.revision, precision=wanted.precision)
    found = identity_of(encoder)
    manifest = PartsManifest(
        source,
        wanted.encoder,
        wanted.revision,
        part_rows=options.part_rows,
        pictures=wanted.pictures,
        **found,
    )
    spec = EncoderSpec(
        wanted.encoder, wanted.revision, found["precision"], found["fingerprint"],
        found["canary"], options.allow_private_hosts, wanted.pictures, limits=limits_now(),
    )  # fmt: skip
    return spec, manifest


def _reading(options: EncodeOptions) -> Any:
    from kinshelf.db.sources.readers import ReadOptions

    if options.part_rows < 1:
        raise InputError(f"part_rows is {options.part_rows}, but must be 1 or more")
    return ReadOptions(
        options.mapping, options.images, options.part_rows, options.delimiter,
        encoding=options.encoding,
    )  # fmt: skip


def _note(report: EncodeReport, done: PartsManifest) -> None:
    report.parts = len(done.parts)
    for name in ("rows", "products", "rejected", "image_failed"):
        setattr(report, name, getattr(done, name))


@dataclass(slots=True)
class Run:
    """One encoding under way: its finished parts and its progress callback."""

    directory: Path
    spec: EncoderSpec
    options: EncodeOptions
    report: EncodeReport
    stop: Stop
    progress: Progress
    _done: int = 0

    def plain(self, tasks: Iterable[Task]) -> list[str]:
        """Encode in this process; returns the names of all parts."""
        names, encoder = [], None
        for task in tasks:
            names.append(task.name)
            if self._is_there(task):
                continue
            encoder = encoder or PartEncoder(self.spec)
            encoder.write(task.data, self.directory / task.name, self._count)
            if self.stop():
                self.report.interrupted = True
                break
        return names

    def on_ray(self, tasks: Iterable[Task], address: str) -> list[str]:
        """Encode on a Ray cluster; returns the names of all parts."""
        from kinshelf.cluster.ray_encode import encode_on_ray

        names: list[str] = []
        encode_on_ray(self, self._lacking(tasks, names), address)
        return names

    def _lacking(self, tasks: Iterable[Task], names: list[str]) -> Iterator[Task]:
        """The tasks that are still to do; `names` gets those of all."""
        for task in tasks:
            names.append(task.name)
            if not self._is_there(task):
                yield task

    def _is_there(self, task: Task) -> bool:
        if not (self.directory / task.name).exists():
            return False
        self.report.reused += 1
        self._count(task.rows)
        return True

    def _count(self, rows: int) -> None:
        self._done += rows
        self.progress(self._done)

    def part_done(self, rows: int) -> bool:
        """Record a part that a worker finished; return whether to go on."""
        self._count(rows)
        self.report.interrupted |= self.stop()
        return not self.report.interrupted
