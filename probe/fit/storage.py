"""A probe on disk: weights as safetensors, the rest as JSON, the training log as CSV.

No file is executed or unpickled, and nothing of it is believed before it is checked.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from kinshelf.db.arrays import FloatArray
from kinshelf.db.errors import InvalidSetting, ProbeError, ProbeNotFound, UnsupportedFormat
from kinshelf.db.files import read_bytes, written
from kinshelf.probe.fit.model import WEIGHT_NAMES, Probe
from kinshelf.probe.fit.settings import Calibration, Policy, ProbeSettings
from kinshelf.store.probes import FACTS_FILE

if TYPE_CHECKING:
    from kinshelf.probe.fit.training import EpochResult

FORMAT = 3
"""Of `probe.json`; raised when an older reader could not understand a newer file. Format 1 had no
reference, no policy and no space, format 2 no ridge."""

WEIGHTS_FILE = "probe.safetensors"
REFERENCE_FILE = "reference.safetensors"
LOG_FILE = "train_log.csv"


def write_probe(directory: Path, probe: Probe, log: Sequence[EpochResult]) -> None:
    """Write `probe.safetensors`, `reference.safetensors` (if there is any), `probe.json` and
    `train_log.csv` into an existing directory.

    The caller makes it durable: write into a new directory, sync, rename.
    """
    weights = _write_arrays(directory / WEIGHTS_FILE, probe.weights)
    facts = _facts(probe) | {"weights_xxh3": weights}
    if probe.reference:
        facts["reference_xxh3"] = _write_arrays(directory / REFERENCE_FILE, probe.reference)
    text = json.dumps(facts, indent=2)
    (directory / FACTS_FILE).write_text(text + "\n", encoding="utf-8")
    write_log(directory / LOG_FILE, log)


def _write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> str:
    from safetensors.numpy import save

    data = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    path.write_bytes(data)
    return xxhash.xxh3_128_hexdigest(data)


def _facts(probe: Probe) -> dict[str, Any]:
    calibration = dataclasses.asdict(probe.calibration)
    calibration["lambda"] = calibration.pop("lam")
    return {
        "format": FORMAT,
        "classes": list(probe.classes),
        "settings": dataclasses.asdict(probe.settings),
        "calibration": calibration,
        "policy": probe.policy and dataclasses.asdict(probe.policy),
        "metrics": dict(probe.metrics),
        "warnings": list(probe.warnings),
        "trained_rows": probe.trained_rows,
        "generation": probe.generation,
        "fingerprint": probe.fingerprint,
    }


def write_log(path: Path, log: Sequence[EpochResult]) -> None:
    """One CSV line an epoch, columns as in `EpochResult`; a figure that is None is left empty."""
    from kinshelf.probe.fit.training import EpochResult

    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(field.name for field in dataclasses.fields(EpochResult))
        rows.writerows(dataclasses.astuple(epoch) for epoch in log)


def read_probe(directory: Path) -> Probe:
    """The probe in a directory that `write_probe` filled.

    Raises ProbeNotFound (no such file), UnsupportedFormat (written by a newer version) and
    ProbeError (damaged, names what does not fit).
    """
    facts = _read_facts(directory / FACTS_FILE)
    try:
        weights = _read_arrays(directory / WEIGHTS_FILE, facts["weights_xxh3"])
        reference = {}
        if "reference_xxh3" in facts:
            reference = _read_arrays(directory / REFERENCE_FILE, facts["reference_xxh3"])
        probe = _probe(facts, weights, reference)
    except (KeyError, TypeError, ValueError, InvalidSetting) as error:
        raise _damaged(directory / FACTS_FILE, f"{type(error).__name__}: {error}") from error
    _check_shapes(probe, directory / WEIGHTS_FILE)
    return probe


def _read_facts(path: Path) -> dict[str, Any]:
    try:
        facts = json.loads(_read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"it is not JSON: {error}") from error
    if not isinstance(facts, dict) or not isinstance(facts.get("format"), int):
        raise _damaged(path, "it names no format version")
    if facts["format"] not in range(1, FORMAT + 1):
        raise UnsupportedFormat(
            f"{path} has the format {facts['format']}, this version reads up to {FORMAT}: "
            "update kinshelf, or train again"
        )
    return facts


def _read_bytes(path: Path) -> bytes:
    try:
        return read_bytes(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ProbeNotFound(f"no probe file at {path}: run `kinshelf train`") from error


def _read_arrays(path: Path, expected: str) -> dict[str, NDArray[Any]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    raw = _read_bytes(path)
    if xxhash.xxh3_128_hexdigest(raw) != expected:
        raise _damaged(path, "its checksum does not match probe.json")
    try:
        return dict(load(raw))
    except SafetensorError as error:
        raise ValueError(f"{path.name} cannot be read: {error}") from error


def _probe(
    facts: Mapping[str, Any],
    weights: dict[str, FloatArray],
    reference: dict[str, NDArray[Any]],
) -> Probe:
    calibration = dict(facts["calibration"])
    calibration["lam"] = calibration.pop("lambda")
    return Probe(
        classes=_texts(facts["classes"], "classes"),
        weights=weights,
        settings=ProbeSettings.from_mapping(facts["settings"]),
        trained_rows=int(facts["trained_rows"]),
        generation=int(facts["generation"]),
        fingerprint=str(facts["fingerprint"]),
        metrics=dict(facts["metrics"]),
        warnings=_texts(facts["warnings"], "warnings"),
        calibration=Calibration(**calibration),
        reference=reference,
        policy=Policy(**facts["policy"]) if facts.get("policy") else None,
    )


def _texts(values: object, what: str) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError(f"{what} must be a list of texts")
    return tuple(values)


def _check_shapes(probe: Probe, path: Path) -> None:
    """Raises ProbeError unless names, shapes and dtypes fit classes and settings."""
    if set(probe.weights) != set(WEIGHT_NAMES):
        raise _damaged(path, f"it holds {sorted(probe.weights)}, not {sorted(WEIGHT_NAMES)}")
    hidden, n = probe.settings.hidden, len(probe.classes)
    dimension = probe.weights["net.0.weight"].shape[-1] if probe.weights["net.0.weight"].ndim else 0
    shapes = [(hidden, dimension), (hidden,), (n, hidden), (n,)]
    for name, shape in zip(WEIGHT_NAMES, shapes, strict=True):
        found = probe.weights[name]
        if found.shape != shape or found.dtype != np.float32:
            raise _damaged(path, f"{name} is {found.dtype} {found.shape}, not float32 {shape}")
        if not np.isfinite(found).all():
            raise _damaged(path, f"{name} holds NaN or infinity")


def _damaged(path: Path, reason: str) -> ProbeError:
    return ProbeError(f"{path} is damaged: {reason}; run `kinshelf train` for a new probe")


def export_checkpoint(probe: Probe, path: Path) -> None:
    """Write a checkpoint for `torch.load(path, weights_only=True)`.

    A dict: `model_state_dict` with the keys `net.0.weight`, `net.0.bias`, `net.3.weight` and
    `net.3.bias` of `self.net = nn.Sequential(Linear, ReLU, Dropout, Linear)`, which reads unit
    embedding pairs `[image ; text]`; `classes`, `input_dim`, `hidden`, `dropout`, `temperature`.
    """
    import torch

    checkpoint = {
        "model_state_dict": {name: torch.from_numpy(w.copy()) for name, w in probe.weights.items()},
        "classes": list(probe.classes),
        "input_dim": probe.input_dim,
        "hidden": probe.settings.hidden,
        "dropout": probe.settings.dropout,
        "temperature": probe.calibration.temperature,
    }
    buffer = io.BytesIO()  # torch calls whatever goes wrong with a file RuntimeError
    torch.save(checkpoint, buffer)
    with written(path) as file:
        file.write_bytes(buffer.getvalue())
