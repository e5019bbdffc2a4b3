"""Training settings: ranges, files, options."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinshelf.db.errors import InvalidSetting, SourceNotFound
from kinshelf.probe.fit.settings import Calibration, ProbeSettings


def test_the_defaults_are_the_courseworks_recipe():
    s = ProbeSettings()
    assert (s.batch_size, s.lr, s.weight_decay, s.hidden) == (64, 1e-3, 1e-4, 256)
    assert (s.dropout, s.patience, s.seed) == (0.2, 3, 42)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("batch_size", -1),
        ("lr", 0.0),
        ("lr", float("nan")),
        ("lr", float("inf")),
        ("weight_decay", -1e-9),
        ("hidden", 0),
        ("dropout", 1.0),
        ("patience", 0),
        ("seed", -1),
        ("val_fraction", 0.6),
        ("modality_dropout", 1.0),
    ],
)
def test_a_value_out_of_range_is_refused_with_value_and_range(name, value):
    with pytest.raises(InvalidSetting, match=f"{name} is {value!r}".replace(".", r"\.")) as caught:
        ProbeSettings(**{name: value})
    assert "must be" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("epochs", 1.5), ("epochs", True), ("lr", "fast"), ("device", 0), ("mixed_precision", 1)],
)
def test_a_value_of_another_type_is_refused(name, value):
    with pytest.raises(InvalidSetting, match=f"{name} is"):
        ProbeSettings(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"), [("temperature", 0.0), ("tau", 0.0), ("k", 0), ("lam", 1.1)]
)
def test_a_calibration_out_of_range_is_refused(name, value):
    with pytest.raises(InvalidSetting, match=name):
        Calibration(**{name: value})


def test_settings_come_from_a_toml_file(tmp_path):
    path = tmp_path / "probe.toml"
    path.write_text('epochs = 7\nbatch-size = 16\nlr = 1\ndevice = "cpu"\n', encoding="utf-8")
    assert ProbeSettings.from_toml(path) == ProbeSettings(
        epochs=7, batch_size=16, lr=1, device="cpu"
    )


def test_an_unknown_key_is_refused_and_the_nearest_named(tmp_path):
    path = tmp_path / "probe.toml"
    path.write_text("weight_decy = 0.1\n", encoding="utf-8")
    with pytest.raises(InvalidSetting, match=r"weight_decy.*weight_decay"):
        ProbeSettings.from_toml(path)


def test_a_key_like_no_other_is_answered_with_all_of_them():
    with pytest.raises(InvalidSetting, match=r"'zzz'.*patience"):
        ProbeSettings.from_mapping({"zzz": 1})


@pytest.mark.parametrize(
    "content", [b"epochs = ", b"\xff\xfe\x00", b"epochs = 1\nepochs = 2"],
    ids=["no value", "not UTF-8", "twice"],
)  # fmt: skip
def test_a_file_that_is_not_toml_is_refused_by_name(tmp_path, content):
    path = tmp_path / "probe.toml"
    path.write_bytes(content)
    with pytest.raises(InvalidSetting, match=r"probe\.toml"):
        ProbeSettings.from_toml(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SourceNotFound, match=r"nowhere\.toml"):
        ProbeSettings.from_toml(tmp_path / "nowhere.toml")


def test_a_folder_in_place_of_the_file_is_refused(tmp_path):
    with pytest.raises(InvalidSetting, match="cannot be read"):
        ProbeSettings.from_toml(tmp_path)


def test_options_win_over_the_file_and_none_means_not_given():
    base = ProbeSettings(epochs=9, lr=0.5)
    assert base.override(epochs=4, lr=None, dropout=0.0) == ProbeSettings(
        epochs=4, lr=0.5, dropout=0.0
    )


@given(
    epochs=st.integers(1, 10_000),
    lr=st.floats(1e-9, 10, exclude_min=True),
    dropout=st.floats(0, 1, exclude_max=True),
    seed=st.integers(0, 2**53),
)
def test_settings_survive_a_mapping(epochs, lr, dropout, seed):
    settings = ProbeSettings(epochs=epochs, lr=lr, dropout=dropout, seed=seed)
    assert ProbeSettings.from_mapping(dataclasses.asdict(settings)) == settings
