"""The dashboard tells what the library tells, and trains while one watches."""

from __future__ import annotations

from browser import Visit

from kinshelf import Shelf
from kinshelf.db.text import percent
from kinshelf.probe.calibrate.mixture import HeldOut
from kinshelf.probe.evaluate.metrics import ece
from kinshelf.probe.predict.freshness import probe_facts
from kinshelf.probe.predict.predictor import Predictor
from kinshelf.probe.predict.wording import freshness_lines


def test_it_shows_counts_quality_and_drift(visit: Visit) -> None:
    visit.goto("/dashboard")
    shown = visit.page.inner_text("main")
    with Shelf.open(visit.server.shelf) as shelf:
        info, since = shelf.info(), probe_facts(shelf)["since_training"]
        probe = Predictor.for_shelf(shelf).probe
    assert probe is not None
    held = HeldOut.of(probe.reference)
    assert held is not None
    for value in (info["products"], info["products"] - info["categorised"], info["generation"]):
        assert str(value) in shown
    assert percent(held.right.mean()) in shown
    assert f"{ece(held.confidence, held.right):.3f}" in shown
    for line in freshness_lines(since).values():
        assert line in shown
    assert visit.page.locator("svg[role=img] circle").count() > 3
    assert "add incoming.csv" in shown


def test_training_shows_its_progress_and_makes_the_newest_probe(visit: Visit) -> None:
    visit.goto("/dashboard")
    with Shelf.open(visit.server.shelf) as shelf:
        before = shelf.info()["probes"][-1]["version"]
    visit.page.click("button >> text=Train")
    visit.page.wait_for_selector("#job progress")
    steps = set()
    while visit.page.locator("#job progress").count():
        steps.add(visit.page.locator("#job").inner_text().split(",")[0].strip())
        visit.page.wait_for_timeout(100)
    assert steps & {"Training", "Calibrating"}, steps
    assert f"Probe {before + 1} is trained" in visit.page.inner_text("#job")
    with Shelf.open(visit.server.shelf) as shelf:
        assert shelf.info()["probes"][-1]["version"] == before + 1
        assert shelf.history(1)[0]["kind"] == "train"
    visit.page.click("text=See how good it is")
    visit.page.wait_for_selector(f"text=Probe {before + 1}, trained on")
