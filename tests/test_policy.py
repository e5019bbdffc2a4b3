"""A policy promises a precision, keeps the promise, and decides what is accepted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from conftest import unit
from scipy.stats import binomtest

from kinshelf import Shelf
from kinshelf.cli import main
from kinshelf.db.errors import InvalidSetting, ProbeError
from kinshelf.probe.calibrate.intervals import lower_bound, upper_bound
from kinshelf.probe.calibrate.mixture import HeldOut
from kinshelf.probe.calibrate.policy import find_policy, set_policy
from kinshelf.probe.fit.settings import ProbeSettings
from kinshelf.probe.fit.storage import read_probe
from kinshelf.probe.predict.predictor import Predictor
from kinshelf.probe.train import train_shelf
from kinshelf.store import Product
from kinshelf.store.probes import find_probe

D = 12
QUICK = ProbeSettings(epochs=6, hidden=16, batch_size=16, lr=1e-2)


def held_out(confidence: Any, right: Any, agree: Any = None) -> HeldOut:
    confidence, right = np.asarray(confidence, float), np.asarray(right, bool)
    agree = np.ones(len(right), bool) if agree is None else np.asarray(agree, bool)
    return HeldOut(np.zeros(len(right), np.int64), confidence, confidence, right, agree)


# ---- the bounds


@pytest.mark.parametrize("confidence", [0.6, 0.9, 0.99])
def test_the_bounds_are_those_of_clopper_and_pearson(confidence: float) -> None:
    for n in (1, 2, 17, 300):
        for right in sorted({0, 1, n // 2, n - 1, n}):
            # each end of a two-sided interval is a one-sided bound
            known = binomtest(right, n).proportion_ci(2 * confidence - 1, "exact")
            assert lower_bound(right, n, confidence) == pytest.approx(known.low, abs=1e-9)
            assert upper_bound(right, n, confidence) == pytest.approx(known.high, abs=1e-9)


# ---- the threshold


def by_hand(found: HeldOut, precision: float, confidence: float) -> tuple[float, int] | None:
    """Tests from the place of the best prospects downwards, one by one, with scipy's test."""
    answers = sorted(
        zip(found.confidence[found.agree], found.right[found.agree], strict=True), reverse=True
    )
    levels = sorted({c for c, _ in answers}, reverse=True)
    passing = [[(c, r) for c, r in answers if c >= level] for level in levels]
    hopes = [(sum(c for c, _ in p) / len(p) - precision) * len(p) ** 0.5 for p in passing]
    best = None
    for place in range(hopes.index(max(hopes)), len(levels)):
        right, n = sum(r for _, r in passing[place]), len(passing[place])
        if binomtest(right, n, precision, alternative="greater").pvalue > 1 - confidence:
            break
        best = levels[place], n
    return best


@pytest.mark.parametrize("seed", range(8))
def test_the_threshold_is_the_last_that_passes_an_exact_test(seed: int) -> None:
    rng = np.random.default_rng(seed)
    confidence = np.round(rng.beta(6, 0.7, 150), 2)
    found = held_out(confidence, rng.random(150) < confidence, rng.random(150) < 0.9)
    expected = by_hand(found, 0.85, 0.9)
    if expected is None:
        with pytest.raises(ProbeError):
            find_policy(found, 0.85, 0.9)
        return
    policy = find_policy(found, 0.85, 0.9)
    assert (policy.threshold, policy.n) == expected
    accepted = found.agree & (found.confidence >= policy.threshold)
    assert policy.n == accepted.sum()
    assert policy.automation == pytest.approx(accepted.mean())
    assert policy.precision == pytest.approx(found.right[accepted].mean())
    known = binomtest(int(found.right[accepted].sum()), policy.n).proportion_ci(0.8, "exact")
    assert policy.precision_low >= 0.85
    assert policy.precision_low == pytest.approx(known.low)
    assert policy.precision_high == pytest.approx(known.high)


def test_answers_on_which_probe_and_neighbours_disagree_count_as_not_accepted() -> None:
    right = np.ones(200, bool)
    right[:100] = False
    agree = right.copy()
    policy = find_policy(held_out(np.full(200, 0.99), right, agree), 0.9)
    assert (policy.automation, policy.precision, policy.n) == (0.5, 1.0, 100)


@pytest.mark.parametrize("power", [1.0, 3.0])
def test_the_promise_is_broken_no_more_often_than_stated(power: float) -> None:
    # `power` > 1: answers are less often right than they say
    wanted, confidence, rounds = 0.9, 0.9, 400
    rng = np.random.default_rng(0)
    population = rng.beta(5, 0.8, 200_000)
    order = np.sort(population)[::-1]
    true_precision = np.cumsum(order**power) / np.arange(1, len(order) + 1)
    broken = 0
    for _ in range(rounds):
        sample = rng.choice(population, 300)
        try:
            found = find_policy(held_out(sample, rng.random(300) < sample**power), wanted)
        except ProbeError:
            continue
        passing = int((population >= found.threshold).sum())
        broken += true_precision[passing - 1] < wanted
    most = 1 - confidence
    assert broken / rounds <= most + 3 * (most * confidence / rounds) ** 0.5


def test_a_precision_out_of_reach_names_what_can_be_promised() -> None:
    rng = np.random.default_rng(1)
    found = held_out(np.full(400, 0.95), rng.random(400) < 0.95)
    with pytest.raises(
        ProbeError, match=r"of 0\.99 .* is the most.*--precision (0\.\d+)"
    ) as refused:
        find_policy(found, 0.99)
    possible = float(str(refused.value).rpartition("--precision ")[2])
    assert 0.9 < possible < 0.99
    assert find_policy(found, possible).precision_low >= possible
    with pytest.raises(ProbeError):
        find_policy(found, possible + 0.005)


def test_too_few_answers_are_reported_with_the_number_that_is_needed() -> None:
    # nothing but right answers: 0.98 ** 114 is the first power below 0.1
    with pytest.raises(ProbeError, match=r"takes 114 answers.*there are 113"):
        find_policy(held_out(np.full(113, 0.99), np.ones(113)), 0.98)
    assert find_policy(held_out(np.full(114, 0.99), np.ones(114)), 0.98).automation == 1
    with pytest.raises(ProbeError, match="none can be promised on the 0"):
        find_policy(held_out([0.9], [True], [False]), 0.5)


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, float("nan")])
def test_shares_that_are_none_are_refused(value: float) -> None:
    for given in ((value, 0.9), (0.9, value)):
        with pytest.raises(InvalidSetting, match="more than 0 and less than 1"):
            find_policy(held_out([0.9], [True]), *given)


# ---- on a shelf


def goods(n: int, seed: int, noise: float = 0.8) -> tuple[list[Product], np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((3, 2, D))
    code = np.arange(n) % 3
    image, text = (
        unit(centres[code, half] + noise * rng.standard_normal((n, D))) for half in (0, 1)
    )
    products = [Product(f"{seed}-{i}", title=f"t{i}", category=f"kind {c}") for i, c in
                enumerate(code.tolist())]  # fmt: skip
    return products, image, text


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("policy") / "a.shelf"
    with Shelf.create(path) as made:
        made.upsert(*goods(150, 1, noise=1.2))
        train_shelf(made, QUICK)
    return path


@pytest.fixture
def shelf(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "a.shelf"))


def call(path: Path, *arguments: object) -> Result:
    found = CliRunner().invoke(main, [*map(str, arguments), "--shelf", str(path)])
    if found.exception and not isinstance(found.exception, SystemExit):
        raise found.exception
    return found


def test_a_precision_out_of_reach_stores_nothing(shelf: Path) -> None:
    before = call(shelf, "history", "--json").stdout
    refused = call(shelf, "policy", "--precision", "0.9999")
    assert refused.exit_code == 3
    assert "a precision of 0.9999" in refused.stderr
    assert "can be promised" in refused.stderr
    assert refused.stdout == ""
    assert call(shelf, "history", "--json").stdout == before


def test_a_policy_is_a_new_version_of_the_probe_that_differs_in_verdicts_alone(
    shelf: Path,
) -> None:
    _, image, text = goods(90, 2, noise=1.6)
    pairs = np.hstack([image, text])
    with Shelf.open(shelf) as opened:
        old = find_probe(opened, opened.snapshot(), 1)
        before = Predictor.for_shelf(opened, probe=1).predict(pairs)
        report = set_policy(opened, 0.97)
        assert (report.probe, report.based_on) == (2, 1)
        new = find_probe(opened, opened.snapshot())
        assert (old.path / "train_log.csv").read_bytes() == (
            new.path / "train_log.csv"
        ).read_bytes()
        one, other = read_probe(old.path), read_probe(new.path)
        assert (one.policy, other.policy) == (None, report.policy)
        assert all(np.array_equal(one.weights[n], other.weights[n]) for n in one.weights)
        assert opened.history(1)[0]["command"] == "policy"
        assert Predictor.for_shelf(opened, probe=1).predict(pairs)[0].verdict == before[0].verdict
        after = Predictor.for_shelf(opened).predict(pairs)
    threshold = report.policy.threshold
    assert {a.verdict for a in after} >= {"accept", "review"}
    for was, now in zip(before, after, strict=True):
        assert was.probabilities == now.probabilities
        if now.verdict in ("accept", "review"):
            assert (now.verdict == "accept") == (bool(now.agreement)
                                                 and now.probability >= threshold)  # fmt: skip


def test_the_command_prints_the_policy_and_info_shows_it(shelf: Path) -> None:
    reported = json.loads(call(shelf, "policy", "--precision", "0.8", "--json").stdout)
    assert reported.keys() == {
        "precision_wanted", "threshold", "automation", "precision", "precision_low",
        "precision_high", "confidence", "n", "depth", "probe", "based_on", "generation",
    }  # fmt: skip
    assert reported["precision_wanted"] == 0.8
    assert 0.8 <= reported["precision_low"] <= reported["precision"] <= reported["precision_high"]
    info = json.loads(call(shelf, "info", "--json").stdout)
    assert info["policy"]["threshold"] == reported["threshold"]
    assert info["policy"]["wanted"] == 0.8
    assert "accepts from" in call(shelf, "info").stdout
    assert "neighbours agree" in call(shelf, "policy", "--precision", "0.8").stdout


def test_a_probe_without_held_out_answers_states_what_to_do(tmp_path: Path) -> None:
    with Shelf.create(tmp_path / "b.shelf") as small:
        small.upsert(*goods(12, 3))
        train_shelf(small, QUICK)
    refused = call(tmp_path / "b.shelf", "policy", "--precision", "0.9")
    assert refused.exit_code == 3
    assert "no held-out answers" in refused.stderr
    assert "kinshelf train" in refused.stderr


def test_a_share_of_one_is_wrong_usage(shelf: Path) -> None:
    assert call(shelf, "policy", "--precision", "1").exit_code == 2
    assert call(shelf, "policy", "--precision", "0.9", "--confidence", "0").exit_code == 2


def test_training_again_warns_that_the_policy_is_no_longer_in_force(tmp_path: Path) -> None:
    with Shelf.create(tmp_path / "c.shelf") as again:
        again.upsert(*goods(60, 4))
        assert not any("policy" in w for w in train_shelf(again, QUICK).warnings)
        set_policy(again, 0.75)
        report = train_shelf(again, QUICK)
        assert any("`kinshelf policy --precision 0.75` again" in w for w in report.warnings)
        assert read_probe(find_probe(again, again.snapshot()).path).policy is None
