"""One `Query` for everything that is asked of a shelf, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kinshelf as ks
from kinshelf.db.errors import InputError, InvalidEmbeddings
from kinshelf.probe.predict.predictor import classify
from kinshelf.store import AddOptions
from kinshelf.store.search.fusion import fused
from kinshelf.store.similar.search import similar_source

SAMPLES = Path(__file__).resolve().parents[1] / "samples" / "catalogue" / "images"


@pytest.fixture
def stocked(tmp_path: Path, encoder: Any) -> Any:
    ks.create(tmp_path / "toys.shelf", encoder="fake").close()
    with ks.open(tmp_path / "toys.shelf", encoder=encoder) as shelf:
        names = ("red car", "blue car", "wooden puzzle", "green puzzle")
        shelf.upsert([ks.Product(n, title=n, category=n.split()[1]) for n in names])
        yield shelf


def test_what_is_looked_up_by_words_alone_needs_no_encoder() -> None:
    assert ks.Query(text="red car", mode="keywords").is_stored
    assert not ks.Query(text="red car", mode="hybrid").is_stored
    assert ks.Query(like=(ks.Query(id="red car"),)).is_stored


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"k": 0}, "k is 0: ask for 1"),
        ({"weight_image": 1.5}, "weight_image is 1.5: give a number from 0 to 1"),
        ({"weight_image": float("nan")}, "weight_image is nan"),
        ({"id": "a", "text": "b"}, "id 'a' with an image or a text"),
        ({"text": "a", "stem": "english"}, "stem is 'english' with mode 'meaning'"),
        ({"text": "a", "weight_keywords": 0.2}, "weight_keywords is 0.2 with mode 'meaning'"),
        ({"id": "a", "strategy": "best-score"}, "strategy is 'best-score' without `like`"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_its_value(
    fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        ks.Query(**fields)


def test_a_query_and_its_fields_as_keywords_are_the_same(stocked: Any) -> None:
    query = ks.Query(id="red car", k=2)
    assert (
        stocked.similar(query) == stocked.similar(id="red car", k=2) == ks.similar(stocked, query)
    )
    assert len(stocked.similar(query, k=1).neighbours) == 1
    assert classify(stocked, ks.Query(text="red car")) == classify(stocked, text="red car")
    with pytest.raises(TypeError):
        stocked.similar(colour="red")


def test_a_row_of_a_file_of_which_nothing_counts_is_rejected_and_the_others_are_answered(
    stocked: Any, tmp_path: Path
) -> None:
    pictured = SAMPLES / "KS-0001.jpg"
    (tmp_path / "q.csv").write_text(f"id,title,image\na,red car,\nb,blue car,{pictured}\n")
    asked = similar_source(stocked, tmp_path / "q.csv", AddOptions(), weight_image=1)
    ((batch, found),) = asked
    assert [product.id for product in batch.products] == ["b"]
    assert len(found) == 1
    assert [(r.id, r.reason) for r in batch.rejects] == [("a", "no-weight")]


def test_classify_takes_a_product_of_the_shelf(stocked: Any) -> None:
    assert classify(stocked, id="red car").id == "red car"
    with pytest.raises(InputError, match=r"weight_image is 0\.7"):
        classify(stocked, text="red car", weight_image=0.7)
    with pytest.raises(InputError, match="the query is empty"):
        classify(stocked, ks.Query())


def test_private_hosts_are_allowed_through_the_shelf(
    stocked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []

    def read(image: Any, *, allow_private_hosts: bool) -> None:
        given.append(allow_private_hosts)

    monkeypatch.setattr("kinshelf.store.ingest.queries._picture", read)
    for allowed in (False, True):
        stocked.similar(image="http://10.0.0.1/a.jpg", text="a", allow_private_hosts=allowed)
    assert given == [False, True]


def test_search_takes_pairs_as_stored_and_states_what_else_it_got(stocked: Any) -> None:
    pairs = stocked.snapshot().pairs([0, 1])
    assert stocked.search(pairs, 1).rows.ravel().tolist() == [0, 1]
    with pytest.raises(InvalidEmbeddings, match=r"text half of row 0 has norm 0\.7071"):
        stocked.search(fused(pairs), 1)
    pairs[1, -1] = np.nan
    with pytest.raises(InvalidEmbeddings, match="text half of row 1 has norm nan"):
        stocked.search(pairs, 1)
