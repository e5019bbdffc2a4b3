"""A probe on disk: it comes back as it was, and damage is reported."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from kinshelf.db.errors import KinshelfError, ProbeError, ProbeNotFound, UnsupportedFormat
from kinshelf.probe.fit.model import WEIGHT_NAMES, Probe
from kinshelf.probe.fit.settings import Calibration, ProbeSettings
from kinshelf.probe.fit.storage import export_checkpoint, read_probe, write_probe
from kinshelf.probe.fit.training import EpochResult

LOG = (
    EpochResult("fit", 1, 0.5, 0.4, 0.9, 0.01, 1e-3),
    EpochResult("refit", 1, 0.45, None, None, 0.01, 1e-3),
)


def some_probe(classes: tuple[str, ...] = ("a", "b", "c")) -> Probe:
    rng = np.random.default_rng(0)
    shapes = [(5, 8), (5,), (len(classes), 5), (len(classes),)]
    return Probe(
        classes=classes,
        weights={
            name: rng.normal(size=shape).astype(np.float32)
            for name, shape in zip(WEIGHT_NAMES, shapes, strict=True)
        },
        settings=ProbeSettings(hidden=5, lr=0.01, device="cpu"),
        trained_rows=77,
        generation=12,
        fingerprint="clip-0123",
        metrics={"val_loss": 0.1, "best_epoch": 4, "val_accuracy": None, "refit": True},
        warnings=("few products",),
        calibration=Calibration(temperature=1.5, tau=0.03, k=7, lam=0.2),
    )


@pytest.fixture
def written(tmp_path):
    write_probe(tmp_path, some_probe(), LOG)
    return tmp_path


def test_a_probe_comes_back_as_it_was(written):
    before, after = some_probe(), read_probe(written)
    for name in WEIGHT_NAMES:
        assert np.array_equal(before.weights[name], after.weights[name])
    for field in (
        "classes", "settings", "trained_rows", "generation", "fingerprint", "metrics", "warnings",
        "calibration",
    ):  # fmt: skip
        assert getattr(before, field) == getattr(after, field), field
    X = np.random.default_rng(1).normal(size=(4, 8)).astype(np.float32)
    assert np.array_equal(before.predict_proba(X), after.predict_proba(X))


def test_the_files_are_the_ones_that_the_design_names(written):
    names = sorted(path.name for path in written.iterdir())
    assert names == ["probe.json", "probe.safetensors", "train_log.csv"]
    facts = json.loads((written / "probe.json").read_text(encoding="utf-8"))
    assert facts["calibration"] == {
        "temperature": 1.5,
        "tau": 0.03,
        "k": 7,
        "lambda": 0.2,
        "space": "fused",
        "sharpness": 12.0,
        "probe_power": 1.0,
        "ridge_power": 0.0,
    }
    assert set(load_file(written / "probe.safetensors")) == set(WEIGHT_NAMES)


def test_the_log_is_a_csv_with_empty_fields_where_nothing_was_held_out(written):
    with (written / "train_log.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["stage"] for row in rows] == ["fit", "refit"]
    assert float(rows[0]["val_loss"]) == 0.4
    assert rows[1]["val_loss"] == rows[1]["val_accuracy"] == ""


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(names=st.lists(st.text(st.characters(), max_size=20), min_size=2, max_size=5, unique=True))
def test_any_unicode_is_a_class_name(tmp_path, names):
    classes = tuple(sorted(names))
    write_probe(tmp_path, some_probe(classes), ())
    assert read_probe(tmp_path).classes == classes


def test_a_missing_probe_states_how_to_get_one(tmp_path):
    with pytest.raises(ProbeNotFound, match="kinshelf train"):
        read_probe(tmp_path / "0001")


@pytest.mark.parametrize("name", ["probe.json", "probe.safetensors"])
def test_a_missing_file_is_named(written, name):
    (written / name).unlink()
    with pytest.raises(ProbeNotFound, match=name):
        read_probe(written)


def change(directory, **facts):
    path = directory / "probe.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))


def test_a_newer_format_is_refused_with_both_numbers(written):
    change(written, format=99)
    with pytest.raises(UnsupportedFormat, match=r"99.*reads up to 3"):
        read_probe(written)


@pytest.mark.parametrize(
    "facts",
    [
        {"format": "1"},
        {"classes": "abc"},
        {"classes": ["a", 2, "c"]},
        {"classes": ["a", "b"]},
        {"calibration": {"temperature": 0.0, "tau": 1, "k": 1, "lambda": 0.5}},
        {"calibration": {"temperature": 1.0}},
        {"settings": {"hidden": 6}},
        {"settings": {"unheard": 6}},
        {"settings": None},
        {"metrics": 3},
        {"warnings": None},
        {"generation": "many"},
    ],
    ids=str,
)
def test_facts_that_do_not_fit_are_damage(written, facts):
    change(written, **facts)
    with pytest.raises(ProbeError, match="is damaged"):
        read_probe(written)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000], ids=repr)
def test_facts_that_are_no_json_object_are_damage(written, content):
    (written / "probe.json").write_bytes(content)
    with pytest.raises(ProbeError, match=r"probe\.json is damaged"):
        read_probe(written)


def test_any_flipped_byte_of_the_weights_is_noticed(written):
    path = written / "probe.safetensors"
    raw = bytearray(path.read_bytes())
    for place in range(0, len(raw), 37):
        raw[place] ^= 0x10
        path.write_bytes(raw)
        with pytest.raises(ProbeError, match="checksum"):
            read_probe(written)
        raw[place] ^= 0x10
    path.write_bytes(raw[:-1])
    with pytest.raises(ProbeError, match="checksum"):
        read_probe(written)


def forged(directory, weights):
    """Weights whose checksum is right, but not they."""
    import xxhash

    path = directory / "probe.safetensors"
    save_file(weights, path)
    change(directory, weights_xxh3=xxhash.xxh3_128_hexdigest(path.read_bytes()))


@pytest.mark.parametrize(
    ("name", "value", "reported"),
    [
        ("net.0.bias", np.zeros(6, np.float32), r"float32 \(6,\), not float32 \(5,\)"),
        ("net.0.bias", np.zeros(5, np.float64), "float64"),
        ("net.0.weight", np.zeros((), np.float32), "net.0.weight"),
        ("net.3.weight", np.zeros((3, 8), np.float32), "net.3.weight"),
        ("net.3.bias", np.full(3, np.nan, np.float32), "NaN"),
        ("net.9.bias", np.zeros(3, np.float32), "net.9.bias"),
    ],
)
def test_weights_of_other_names_shapes_or_dtypes_are_damage(written, name, value, reported):
    forged(written, dict(some_probe().weights) | {name: value})
    with pytest.raises(ProbeError, match=reported):
        read_probe(written)


def test_a_weights_file_that_is_none_is_damage(written):
    import xxhash

    (written / "probe.safetensors").write_bytes(b"not safetensors")
    change(written, weights_xxh3=xxhash.xxh3_128_hexdigest(b"not safetensors"))
    with pytest.raises(ProbeError, match="cannot be read"):
        read_probe(written)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(place=st.integers(0, 10_000), value=st.integers(0, 255))
def test_a_damaged_json_gives_a_kinshelf_error_or_a_whole_probe(written, place, value):
    path = written / "probe.json"
    good = path.read_bytes()
    raw = bytearray(good)
    raw[place % len(raw)] = value
    path.write_bytes(raw)
    try:
        probe = read_probe(written)
    except KinshelfError:
        pass
    else:
        assert probe.predict_proba(np.zeros((1, 8), np.float32)).shape == (1, 3)
    finally:
        path.write_bytes(good)


class CourseworkModel(torch.nn.Module):
    """As the coursework's users have it."""

    def __init__(self, input_dim: int, hidden: int, dropout: float, n: int) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.Linear(input_dim, hidden),
            torch.nn.ReLU(),
            torch.nn.Dropout(dropout),
            torch.nn.Linear(hidden, n),
        )

    def forward(self, x):
        return self.net(x)


def test_a_checkpoint_loads_safely_into_the_courseworks_model(tmp_path):
    probe = some_probe().replace(calibration=Calibration())
    path = tmp_path / "probe.pth"
    export_checkpoint(probe, path)
    found = torch.load(path, weights_only=True)
    model = CourseworkModel(
        found["input_dim"], found["hidden"], found["dropout"], len(found["classes"])
    )
    model.load_state_dict(found["model_state_dict"])
    pairs = np.random.default_rng(1).normal(size=(6, 8)).astype(np.float32)
    with torch.no_grad():
        expected = model.eval()(torch.from_numpy(pairs)).softmax(dim=1).numpy()
    assert found["classes"] == ["a", "b", "c"]
    assert np.allclose(probe.predict_proba(pairs / np.sqrt(2)), expected, atol=1e-6)
    assert [p.name for p in tmp_path.iterdir()] == ["probe.pth"]
