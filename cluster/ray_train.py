"""Data-parallel training of a probe with Ray Train: each worker over its share of the rows.

Every worker averages its gradients with the others' after each batch, so all hold one network. The
network is small: with 64 products a step the exchange takes longer than what it saves. Two workers
took 1.67 times as long for an epoch then, 0.66 times with 1,024 (see docs/scale.md).
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist

from kinshelf.cluster.blocks import LabelledBlock, SpooledData, part_blocks, shelf_blocks
from kinshelf.cluster.ray_start import ray_cluster
from kinshelf.db.arrays import IntArray
from kinshelf.db.errors import ClusterError
from kinshelf.db.sources.parts import parts_of
from kinshelf.probe.fit.model import Probe
from kinshelf.probe.fit.settings import ProbeSettings
from kinshelf.probe.fit.split import TrainingSet, training_set
from kinshelf.probe.fit.storage import LOG_FILE, read_probe, write_probe
from kinshelf.probe.fit.trainer import Trainer
from kinshelf.probe.fit.training import EpochResult, OnEpoch, Trained, fit_probe, warnings_of
from kinshelf.probe.fit.whitening import Whitening
from kinshelf.store.shelf import DirectoryShelf

if TYPE_CHECKING:
    from kinshelf.db.sources.parts import PartsManifest

LEAST = 1000
"""Rows that each worker must have at least: fewer are trained in a moment on one."""

_MANY = 8
"""Parts a worker from which whole parts are shared out."""


def fit_on_ray(
    source: TrainingSet,
    settings: ProbeSettings | None = None,
    on_epoch: OnEpoch | None = None,
    start: Probe | None = None,
    *,
    address: str,
    workers: int,
    shelf: Path,
    parts: Path | None,
) -> Trained:
    """As `probe.training.fit_probe`, on `workers` workers of the Ray cluster at `address`.

    They read the rows of `source` themselves: from the folder `parts`, or from the shelf. The
    batch size is that of all together. Weights come back as safetensors through a folder beside
    the rows, which every worker must see. Raises ClusterError and what `fit_probe` raises.
    """
    settings = settings or ProbeSettings()
    _check(source, start, workers)
    place = (parts or shelf).resolve()
    with tempfile.TemporaryDirectory(prefix=".probe-", dir=place.parent) as out:
        config = {
            "settings": dataclasses.asdict(settings), "classes": list(source.classes), "out": out,
            "parts": None if parts is None else str(place), "shelf": str(shelf.resolve()),
            "generation": source.data.generation,
        }  # fmt: skip
        with ray_cluster(address) as ray:
            _run(ray, config, workers)
        probe, log = read_probe(Path(out)), _log(Path(out, LOG_FILE))
    for result in log:
        (on_epoch or (lambda _: None))(result)
    held = bool(probe.metrics["held_out_rows"])
    return Trained(
        probe.replace(
            settings=settings,
            generation=source.data.generation,
            warnings=warnings_of(source, stops_early=held),
        ),
        log,
    )


def _run(ray: Any, config: dict[str, Any], workers: int) -> None:
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    gpu = ray.cluster_resources().get("GPU", 0) >= workers
    with tempfile.TemporaryDirectory(prefix="kinshelf-") as storage:
        trainer = TorchTrainer(
            train_share,
            train_loop_config=config,
            torch_config=TorchConfig(backend="nccl" if gpu else "gloo"),
            scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpu),
            run_config=RunConfig(storage_path=storage, name="probe"),
        )
        try:
            trainer.fit()
        except (ray.exceptions.RayError, RuntimeError) as problem:
            raise ClusterError(f"training on Ray failed: {_reason(problem)}") from problem


def _reason(problem: BaseException) -> str:
    lines = [line for line in str(problem).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(problem).__name__


def _log(path: Path) -> tuple[EpochResult, ...]:
    with path.open(encoding="utf-8", newline="") as file:
        return tuple(_result(row) for row in csv.DictReader(file))


def _result(row: dict[str, str]) -> EpochResult:
    figures = {name: float(value) if value else None for name, value in row.items()
               if name not in ("stage", "epoch")}  # fmt: skip
    return EpochResult(stage=row["stage"], epoch=int(row["epoch"]), **figures)  # type: ignore[arg-type]


def _check(source: TrainingSet, start: Probe | None, workers: int) -> None:
    if start is not None:
        raise ClusterError("a warm start is not shared among workers: leave out --ray")
    if len(source) < LEAST * workers:
        raise ClusterError(
            f"{len(source)} rows are too few for {workers} workers, each must have {LEAST}: leave"
            " out --ray"
        )


def train_share(config: dict[str, Any]) -> None:
    """Train one worker's share; the first worker writes the probe to `out`."""
    rank, world = dist.get_rank(), dist.get_world_size()
    whole = ProbeSettings(**config["settings"])
    settings = whole.override(batch_size=max(1, whole.batch_size // world), refit_below=0)
    with _share(config, rank, world) as data:
        source = _with_classes(training_set(data), tuple(config["classes"]))
        trained = fit_probe(source, settings, make=SharedTrainer)
    rows = _sum(trained.probe.trained_rows, trained.probe.metrics["held_out_rows"])
    metrics = {**trained.probe.metrics, "held_out_rows": int(rows[1]), "workers": world}
    if rank == 0:
        probe = trained.probe.replace(trained_rows=int(rows[0]), metrics=metrics)
        write_probe(Path(config["out"]), probe, trained.log)


@contextlib.contextmanager
def _share(config: dict[str, Any], rank: int, world: int) -> Iterator[SpooledData]:
    """The worker's rows, in a scratch file of its own."""
    if config["parts"] is not None:
        manifest = parts_of(Path(config["parts"]))
        if manifest is None:
            raise ClusterError(f"{config['parts']} is not seen by every worker")
        with SpooledData(_own_blocks(config, manifest, rank, world), manifest.fingerprint) as data:
            yield data
        return
    with DirectoryShelf(config["shelf"]) as shelf:
        now = shelf.snapshot(config["generation"])
        own = itertools.islice(shelf_blocks(now), rank, None, world)
        with SpooledData(own, now.fingerprint) as data:
            yield data


def _own_blocks(
    config: dict[str, Any], manifest: PartsManifest, rank: int, world: int
) -> Iterator[LabelledBlock]:
    """Every n-th part or, of few parts, every n-th block."""
    folder = Path(config["parts"])
    if len(manifest.parts) >= _MANY * world:
        return part_blocks(folder, manifest, (rank, world))
    return itertools.islice(part_blocks(folder, manifest), rank, None, world)


def _with_classes(source: TrainingSet, classes: tuple[str, ...]) -> TrainingSet:
    """The same rows, their codes being places among the classes of all workers."""
    place = {name: code for code, name in enumerate(classes)}
    codes: IntArray = np.array([place[name] for name in source.classes])[source.codes]
    return dataclasses.replace(source, codes=codes, classes=classes)


class SharedTrainer(Trainer):
    """A trainer that is one of several on equal networks; all call it at the same steps."""

    def __init__(
        self,
        source: TrainingSet,
        settings: ProbeSettings,
        device: torch.device,
        start: Probe | None = None,
    ) -> None:
        super().__init__(source, settings, device, start)
        for parameter in self.network.parameters():
            dist.broadcast(parameter.data, 0)
        # As many steps as the worker with the fewest rows can take: nobody waits for one that
        # has ended. Which rows are left out changes with every epoch.
        steps = torch.tensor([-(-len(source) // settings.batch_size)])
        dist.all_reduce(steps, op=dist.ReduceOp.MIN)
        self._steps = int(steps.item())
        # Equal weights, the first's; from here on each drops units and modalities of its own.
        torch.manual_seed(settings.seed + dist.get_rank())
        self._rng = np.random.default_rng(settings.seed + dist.get_rank())

    def _fit_whitening(self, source: TrainingSet) -> Whitening:
        own = Whitening.fit(source, self._settings.seed)
        arrays = [torch.from_numpy(a.copy()) for a in (own.image, own.text, own.shift)]
        for array in arrays:
            dist.broadcast(array, 0)
        return Whitening(*(array.numpy() for array in arrays))

    def batches(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return itertools.islice(super().batches(), self._steps)

    def _exchange(self) -> None:
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        flat /= dist.get_world_size()
        parts = torch.split_with_sizes(flat, [gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def _judged(self, held: TrainingSet) -> tuple[float, float, float]:
        loss, right, seen = _sum(*super()._judged(held))
        return loss, right, seen


def _sum(*values: float) -> tuple[float, ...]:
    """Each summed over all workers."""
    sums = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(sums)
    return tuple(sums.tolist())
