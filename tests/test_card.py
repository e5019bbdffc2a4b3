"""The evidence card states in plain words what to do, why, and how far to trust it."""

from __future__ import annotations

import dataclasses
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import unit
from rich.console import Console

from kinshelf import Shelf
from kinshelf.commands.terminal.card import evidence_card
from kinshelf.probe.fit.settings import ProbeSettings
from kinshelf.probe.pages.card import Asked, card_page
from kinshelf.probe.pages.thumbnails import Thumbnails
from kinshelf.probe.predict.prediction import Evidence, Prediction, Receipt, TrackRecord, Vote
from kinshelf.probe.predict.predictor import Predictor
from kinshelf.probe.predict.wording import chosen_evidence, notes, reason
from kinshelf.probe.train import train_shelf
from kinshelf.store import Neighbour, Product

GAMES, PUZZLES = "Toys | Games | Board Games", "Toys | Puzzles"


def near(name: str, category: str, role: str, duplicate_of: str | None = None) -> Evidence:
    found = Neighbour(name, f"title {name}", category, f"/p/{name}.png", 0.8, 0.71, 0.89, 0)
    return Evidence(found, role, duplicate_of)


def answer(**changes: Any) -> Prediction:
    """An accepted answer, with ten neighbours for it and two of the runner-up."""
    evidence = [near(f"g{i}", GAMES, "supports") for i in range(8)]
    evidence += [near(f"z{i}", PUZZLES, "runner-up") for i in range(2)]
    plain = Prediction(
        id=None, category=GAMES, probability=0.973, verdict="accept", prediction_set=[GAMES],
        coverage=0.95, probabilities={GAMES: 0.973, PUZZLES: 0.027}, probe=Vote(GAMES, 0.97),
        probe_version=3, knn=Vote(GAMES, 0.9), k=10, agreement=True,
        agreement_accuracy=TrackRecord(0.982, 610), is_new_category=False, novelty_p=0.4,
        image_only=Vote(GAMES, 0.8), text_only=Vote(GAMES, 0.95), neighbours=evidence,
        receipt=Receipt(7, "clip", 3, True),
    )  # fmt: skip
    return dataclasses.replace(plain, **changes)


def terminal(found: Prediction) -> str:
    drawn = io.StringIO()
    Console(file=drawn, width=160).print(evidence_card(found))
    return drawn.getvalue()


def page(found: Prediction, folder: Path) -> str:
    markup = card_page([Asked(found, None, "asked")], Thumbnails(folder))
    return " ".join(re.sub(r"<style>.*</style>|<[^>]+>", " ", markup, flags=re.S).split())


AGREED = "When probe and neighbours agreed, 98.2 % of 610 held-out answers were right."
SAYINGS = {
    "accepted": (
        {},
        "Probe and neighbours agree: 8 of the 10 nearest products looked at are in Board Games.",
    ),
    "not sure": (
        {"verdict": "review"},
        "Probe and neighbours agree, but not surely enough to go without review: 8 of the 10"
        " nearest products looked at are in Board Games.",
    ),
    "disagreeing": (
        {"verdict": "review", "agreement": False, "probe": Vote(PUZZLES, 0.5)},
        "The probe predicts Puzzles, the neighbours, weighted by similarity, Board Games: of the 10"
        " nearest products looked at, 8 in Board Games and 2 in Puzzles.",
    ),
    "contradicting": (
        {"verdict": "conflict", "agreement": False, "probe": Vote(PUZZLES, 0.9)},
        "The probe predicts Puzzles, the neighbours, weighted by similarity, Board Games, both sure"
        " of it: of the 10 nearest products looked at, 8 in Board Games and 2 in Puzzles.",
    ),
    "picture against text": (
        {"verdict": "conflict", "image_only": Vote(PUZZLES, 0.95)},
        "The picture looks like Puzzles, the text like Board Games.",
    ),
    "novel": (
        {"verdict": "novel", "novelty_p": 0.0125},
        "It is unlike what is on the shelf: only 1 in 80 of the shelf's own products lies as far"
        " from the others.",
    ),
    "new category": (
        {"is_new_category": True, "agreement": False, "probe": Vote(PUZZLES, 0.9)},
        "Board Games is newer than the probe, which never saw it, so its own products support"
        " it: 8 of the 10 nearest products looked at are in Board Games.",
    ),
    "no probe": (
        {"probe": None, "agreement": None, "agreement_accuracy": None, "coverage": None},
        "No probe is trained yet, so the neighbours answer alone: 8 of the 10 nearest products"
        " looked at are in Board Games. Nothing is accepted before `kinshelf train`.",
    ),
    "no vote": (
        {"verdict": "review", "knn": None, "agreement": None, "agreement_accuracy": None},
        "No product with a category matches, so the probe answers alone.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SAYINGS)
def test_the_reason_is_one_sentence_in_plain_words(case: str, tmp_path: Path) -> None:
    changes, sentence = SAYINGS[case]
    found = answer(**changes)
    assert reason(found) == sentence
    assert sentence in " ".join(terminal(found).replace("│", " ").split())
    assert sentence in page(found, tmp_path).replace("&#39;", "'")


def test_the_measured_agreement_is_quoted() -> None:
    assert notes(answer()) == [AGREED]
    found = answer(agreement=False, agreement_accuracy=TrackRecord(0.6, 40), verdict="review")
    assert notes(found) == [
        "When probe and neighbours disagreed, 60.0 % of 40 held-out answers were right."
    ]
    # what was measured on known categories states nothing of a new one
    assert notes(answer(is_new_category=True, agreement=False)) == []


def test_a_prediction_set_is_shown_if_it_holds_more_than_one(tmp_path: Path) -> None:
    found = answer(prediction_set=[GAMES, PUZZLES])
    stated = "With 95 % coverage it is one of: Board Games; Puzzles."
    assert notes(found) == [stated, AGREED]
    assert stated in terminal(found)
    assert stated in page(found, tmp_path)
    assert "coverage" not in terminal(answer())


def test_a_novel_product_whose_picture_contradicts_its_text_states_both() -> None:
    found = answer(verdict="novel", novelty_p=0.01, image_only=Vote(PUZZLES, 0.95))
    assert "1 in 100" in reason(found)
    assert "The picture looks like Puzzles, the text like Board Games." in notes(found)


def test_categories_of_the_same_last_step_are_named_in_full() -> None:
    found = answer(verdict="conflict", image_only=Vote("Crafts | Board Games", 0.95))
    assert reason(found) == (f"The picture looks like Crafts | Board Games, the text like {GAMES}.")


def test_three_support_it_and_two_are_of_the_runner_up() -> None:
    evidence = [near(f"o{i}", "other", "other") for i in range(4)]
    shown = chosen_evidence([*evidence, *answer().neighbours])
    assert [s.evidence.neighbour.id for s in shown] == ["g0", "g1", "g2", "z0", "z1"]
    without = [*evidence, *answer().neighbours[:9]]
    assert [s.evidence.neighbour.id for s in chosen_evidence(without)][3:] == ["z0", "o0"]
    assert chosen_evidence([]) == []


def test_duplicates_are_folded_into_the_neighbour_that_they_resemble(tmp_path: Path) -> None:
    copies = [near(f"c{i}", GAMES, "supports", "g0") for i in range(4)]
    evidence = [near("g0", GAMES, "supports"), *copies, near("g1", GAMES, "supports"),
                near("c9", GAMES, "supports", "g1"), near("g2", GAMES, "supports")]  # fmt: skip
    found = answer(neighbours=evidence)
    shown = chosen_evidence(evidence)
    assert [(s.evidence.neighbour.id, s.folded) for s in shown] == [
        ("g0", "and 4 duplicates"), ("g1", "and 1 duplicate"), ("g2", ""),
    ]  # fmt: skip
    for drawn in (terminal(found), page(found, tmp_path)):
        assert "and 4 duplicates" in drawn
        assert "c2" not in drawn


def test_the_card_has_similarities_in_parts_predictors_and_where_the_pictures_are() -> None:
    drawn = terminal(answer(image_only=Vote(PUZZLES, 0.55)))
    for part in ("0.80", "0.71", "0.89", "/p/g0.png", "97.3 %", "accept"):
        assert part in drawn
    for source in ("probe 3", "10 neighbours", "picture alone", "text alone"):
        assert source in drawn
    assert "0.550" in drawn


def test_what_users_wrote_is_shown_as_they_wrote_it() -> None:
    category = "[red]Games[/red] [bold"
    found = answer(category=category, prediction_set=[category, "[link=x]y"])
    assert category in terminal(found)
    assert "[link=x]y" in terminal(found)


def test_a_card_of_a_shelf_folds_copies_and_names_a_new_category(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    code = np.repeat([0, 1, 2], [20, 20, 8])
    centres = rng.standard_normal((3, 2, 16))
    image, text = (unit(centres[code, h] + 0.6 * rng.standard_normal((48, 16))) for h in (0, 1))
    image[42:45], text[42:45] = image[41], text[41]
    wares = [Product(f"p{i}", title=f"t{i}", category="abc"[c]) for i, c in enumerate(code)]
    with Shelf.create(tmp_path / "a.shelf") as shelf:
        shelf.upsert(wares[:40], image[:40], text[:40])
        train_shelf(shelf, ProbeSettings(epochs=6, hidden=16, lr=1e-2))
        shelf.upsert(wares[40:], image[40:], text[40:])
        query = np.hstack([image[41:42], text[41:42]])
        query = query + rng.normal(0, 0.01, query.shape).astype(np.float32)
        pairs = np.hstack([unit(half) for half in np.split(query, 2, axis=1)])
        found = Predictor.for_shelf(shelf).predict(pairs)[0]
    assert (found.category, found.is_new_category) == ("c", True)
    assert found.as_dict()["is_new_category"] is True
    drawn = terminal(found)
    assert "c is newer than the probe, which never saw it" in " ".join(drawn.split())
    assert "and 3 duplicates" in drawn
