"""Training a probe: it learns, it repeats itself, it states what it did."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kinshelf.db.errors import InvalidEmbeddings, InvalidSetting, ProbeError, TooFewClasses
from kinshelf.probe.fit.data import ArrayData
from kinshelf.probe.fit.model import Probe, softmax
from kinshelf.probe.fit.settings import Calibration, ProbeSettings
from kinshelf.probe.fit.training import train_probe

QUICK = ProbeSettings(epochs=8, hidden=16, batch_size=16, lr=1e-2)


def clusters(n: int, n_classes: int = 3, dimension: int = 8, seed: int = 0, noise: float = 0.3):
    """Fused embeddings around one random direction a class, and their categories."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(n_classes, 2, dimension))
    codes = np.arange(n) % n_classes
    pairs = centres[codes] + noise * rng.normal(size=(n, 2, dimension))
    pairs /= np.linalg.norm(pairs, axis=2, keepdims=True)
    X = (pairs.reshape(n, -1) / math.sqrt(2)).astype(np.float32)
    return X, [f"class {code}" for code in codes]


def accuracy(probe: Probe, X, categories) -> float:
    predicted = [probe.classes[code] for code in probe.predict_proba(X).argmax(axis=1)]
    return float(np.mean([p == c for p, c in zip(predicted, categories, strict=True)]))


def same(a: Probe, b: Probe) -> bool:
    return all(np.array_equal(a.weights[name], b.weights[name]) for name in a.weights)


def test_it_learns_to_tell_products_that_it_has_not_seen():
    probe = train_probe(ArrayData(*clusters(150)), QUICK).probe
    assert accuracy(probe, *clusters(300, seed=1)) > 0.97


def test_the_result_states_what_was_done():
    X, categories = clusters(120, noise=0.6)
    data = ArrayData(X, categories, generation=12, fingerprint="clip-x")
    trained = train_probe(data, QUICK)
    probe = trained.probe
    assert probe.classes == ("class 0", "class 1", "class 2")
    assert (probe.generation, probe.fingerprint, probe.trained_rows) == (12, "clip-x", 120)
    assert (probe.metrics["held_out_rows"], probe.metrics["refit"]) == (12, True)
    assert probe.warnings == ()
    assert probe.settings == QUICK
    best = probe.metrics["best_epoch"]
    fit = [line for line in trained.log if line.stage == "fit"]
    assert min(fit, key=lambda line: line.val_loss).epoch == best
    assert probe.metrics["val_loss"] == fit[best - 1].val_loss
    refit = [line.epoch for line in trained.log if line.stage == "refit"]
    assert refit == [*range(1, min(round(best * 4 / 3), QUICK.epochs) + 1)]


def test_without_refit_the_best_epochs_weights_are_restored():
    X, categories = clusters(200, noise=1.2)
    settings = ProbeSettings(epochs=60, hidden=64, lr=0.02, val_fraction=0.3, refit_below=0)
    trained = train_probe(ArrayData(X, categories), settings)
    metrics = trained.probe.metrics
    # it went on for `patience` epochs beyond the best
    assert len(trained.log) == metrics["best_epoch"] + settings.patience
    shorter = settings.override(epochs=metrics["best_epoch"])
    assert same(trained.probe, train_probe(ArrayData(X, categories), shorter).probe)
    assert trained.probe.trained_rows == 200 - metrics["held_out_rows"] == 140


def test_the_reported_held_out_loss_is_that_of_the_stored_weights():
    X, categories = clusters(200, noise=0.8)
    splits = [None] * 200
    settings = QUICK.override(val_fraction=0.25, refit_below=0)
    probe = train_probe(ArrayData(X, categories, splits), settings).probe
    from kinshelf.probe.fit.split import training_set

    source = training_set(ArrayData(X, categories))
    held = source.hold_out(0.25, settings.seed)
    p = probe.predict_proba(X[held])[np.arange(held.sum()), source.codes[held]]
    assert -np.log(p).mean() == pytest.approx(probe.metrics["val_loss"], abs=1e-5)


def test_rows_of_val_have_no_part_in_it():
    X, categories = clusters(100)
    splits = ["val" if i >= 80 else "train" for i in range(100)]
    spoiled = X.copy()
    spoiled[80:] = 1e3
    first = train_probe(ArrayData(X, categories, splits), QUICK).probe
    second = train_probe(ArrayData(spoiled, categories, splits), QUICK).probe
    assert same(first, second)
    assert first.trained_rows == 80


def test_equal_seeds_make_equal_weights_and_others_do_not():
    data = ArrayData(*clusters(90))
    first, again = (train_probe(data, QUICK).probe for _ in range(2))
    assert same(first, again)
    assert not same(first, train_probe(data, QUICK.override(seed=1)).probe)


def test_torch_and_numpy_are_left_as_they_were():
    torch.manual_seed(5)
    np.random.seed(5)
    threads = torch.get_num_threads()
    before = torch.get_rng_state(), np.random.get_state()[1]
    train_probe(ArrayData(*clusters(40)), QUICK)
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_global_seed_has_no_say():
    data = ArrayData(*clusters(60))
    torch.manual_seed(1)
    first = train_probe(data, QUICK).probe
    torch.manual_seed(2)
    assert same(first, train_probe(data, QUICK).probe)


def test_numpy_and_torch_give_the_same_probabilities():
    probe = train_probe(ArrayData(*clusters(200, n_classes=7)), QUICK).probe
    net = torch.nn.Sequential(
        torch.nn.Linear(16, 16), torch.nn.ReLU(), torch.nn.Dropout(0.2), torch.nn.Linear(16, 7)
    )
    net.load_state_dict(
        {name.removeprefix("net."): torch.from_numpy(w) for name, w in probe.weights.items()}
    )
    X, _ = clusters(500, n_classes=7, seed=4)
    with torch.no_grad():
        expected = net.eval()(torch.from_numpy(X * math.sqrt(2)).float()).softmax(dim=1).numpy()
    assert np.abs(probe.predict_proba(X) - expected).max() < 1e-6


def test_a_probe_answers_without_torch_and_scikit_learn():
    code = """
import sys, numpy as np
from kinshelf.probe.fit.model import Probe, WEIGHT_NAMES
from kinshelf.probe.calibrate import hybrid; from kinshelf.probe.fit import settings, storage, knn
shapes = [(5, 8), (5,), (2, 5), (2,)]
weights = {n: np.ones(s, dtype=np.float32) for n, s in zip(WEIGHT_NAMES, shapes)}
probe = Probe(("a", "b"), weights, settings.ProbeSettings(hidden=5), 2)
assert probe.predict_proba(np.ones((3, 8), dtype=np.float32)).shape == (3, 2)
heavy = {"torch", "sklearn", "transformers", "matplotlib", "faiss", "scipy"}
print(sorted(heavy & set(sys.modules)))
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_each_epoch_is_reported_as_it_ends():
    reported = []
    trained = train_probe(ArrayData(*clusters(60)), QUICK, on_epoch=reported.append)
    assert tuple(reported) == trained.log
    first = reported[0]
    assert (first.stage, first.epoch, first.lr) == ("fit", 1, 1e-2)
    assert 0 <= first.val_accuracy <= 1
    assert first.seconds > 0


def test_an_interrupt_passes_through_and_leaves_torch_as_it_was():
    def stop(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_probe(ArrayData(*clusters(60)), QUICK, on_epoch=stop)
    assert not torch.are_deterministic_algorithms_enabled()


def test_one_category_is_refused():
    X, _ = clusters(5)
    with pytest.raises(TooFewClasses, match=r"'only' \(5\)"):
        train_probe(ArrayData(X, ["only"] * 5), QUICK)


def test_a_category_with_one_product_trains_and_is_warned_of():
    X, categories = clusters(61)
    categories[60] = "lonely"
    probe = train_probe(ArrayData(X, categories), QUICK).probe
    assert "lonely" in probe.classes
    assert any("'lonely'" in warning for warning in probe.warnings)
    assert np.isfinite(probe.predict_proba(X)).all()


@pytest.mark.parametrize("n", [2, 3])
def test_a_product_for_each_category_is_enough_to_train(n):
    X, _ = clusters(n)
    trained = train_probe(ArrayData(X, [f"c{i}" for i in range(n)]), QUICK)
    assert any("no products were held out" in warning for warning in trained.probe.warnings)
    assert {line.val_loss for line in trained.log} == {None}
    assert len(trained.log) == QUICK.epochs
    assert np.isfinite(trained.probe.predict_proba(X)).all()


def test_no_held_out_share_means_all_epochs():
    probe = train_probe(ArrayData(*clusters(60)), QUICK.override(val_fraction=0.0)).probe
    assert (probe.trained_rows, probe.metrics["best_epoch"]) == (60, QUICK.epochs)
    assert probe.metrics["refit"] is False


@settings(max_examples=12)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=2, max_size=6),
    val_fraction=st.sampled_from([0.0, 0.1, 0.5]),
    batch_size=st.sampled_from([1, 3, 64]),
)
def test_any_mix_of_class_sizes_trains_to_finite_probabilities(sizes, val_fraction, batch_size):
    categories = [f"c{c}" for c, n in enumerate(sizes) for _ in range(n)]
    X, _ = clusters(len(categories))
    chosen = ProbeSettings(
        epochs=2, hidden=4, val_fraction=val_fraction, batch_size=batch_size, refit_below=30
    )
    probe = train_probe(ArrayData(X, categories), chosen).probe
    p = probe.predict_proba(X)
    assert p.shape == (len(categories), len(sizes))
    assert np.allclose(p.sum(axis=1), 1) and (p >= 0).all()


def test_a_probe_answers_from_the_picture_or_the_text_alone():
    X, categories = clusters(400, noise=0.5)
    probe = train_probe(ArrayData(X, categories), QUICK.override(modality_dropout=0.2)).probe
    for half in (slice(0, 8), slice(8, 16)):
        alone = X.copy()
        alone[:, half] = 0
        assert accuracy(probe, alone, categories) > 0.9


def test_a_loss_that_diverges_is_one_clear_error():
    X, categories = clusters(40)
    with pytest.raises(ProbeError, match=r"diverged.*lr 10.*lower"):
        train_probe(ArrayData(X * 1e38, categories), QUICK.override(lr=10.0, epochs=50))


@pytest.mark.parametrize("device", ["cuda:99", "warp drive", "meta"])
def test_a_device_that_is_not_there_is_refused_by_name(device):
    with pytest.raises(InvalidSetting, match=f"{device}.*try 'cpu'"):
        train_probe(ArrayData(*clusters(20)), QUICK.override(device=device))


def test_mixed_precision_learns_as_well_and_keeps_float32_weights():
    settings = QUICK.override(mixed_precision=True)
    first, again = (train_probe(ArrayData(*clusters(150)), settings).probe for _ in range(2))
    assert accuracy(first, *clusters(300, seed=1)) > 0.97
    assert same(first, again)
    assert {str(w.dtype) for w in first.weights.values()} == {"float32"}
    assert not same(first, train_probe(ArrayData(*clusters(150)), QUICK).probe)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_it_learns_and_repeats_itself():
    data = ArrayData(*clusters(150))
    first, again = (train_probe(data, QUICK.override(device="cuda")).probe for _ in range(2))
    assert same(first, again)
    assert accuracy(first, *clusters(300, seed=1)) > 0.97


@pytest.mark.parametrize("shape", [(3, 15), (16,), (0, 3, 16)])
def test_embeddings_of_another_size_are_refused_with_both_sizes(shape):
    probe = train_probe(ArrayData(*clusters(30)), QUICK).probe
    with pytest.raises(InvalidEmbeddings, match=r"\(n, 16\)") as caught:
        probe.predict_proba(np.zeros(shape, dtype=np.float32))
    assert str(shape) in str(caught.value)


def test_no_queries_give_no_rows():
    probe = train_probe(ArrayData(*clusters(30)), QUICK).probe
    assert probe.predict_proba(np.zeros((0, 16), dtype=np.float32)).shape == (0, 3)


def test_the_temperature_flattens_the_distribution_and_keeps_its_order():
    X, categories = clusters(60)
    probe = train_probe(ArrayData(X, categories), QUICK).probe
    warm = probe.replace(calibration=Calibration(temperature=3.0))
    expected = np.exp(probe.logits(X).astype(np.float64) / 3)
    expected /= expected.sum(axis=1, keepdims=True)
    assert np.allclose(warm.predict_proba(X), expected, atol=1e-12)


@given(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=6))
def test_softmax_is_a_distribution_for_any_finite_logits(logits):
    p = softmax(np.array([logits], dtype=np.float32))
    assert np.isfinite(p).all()
    assert p.sum() == pytest.approx(1)
    assert p.argmax() == np.argmax(logits) or p.max() == p[0, np.argmax(logits)]
