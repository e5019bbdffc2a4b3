"""Finding on the shelf's page: words, facets, order and pages, against plain Python."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient
from serve_world import png
from shelf_page import ODD, PRODUCTS, ids, links, make, opened, text_of

from kinshelf.db.product import Product
from kinshelf.serve.pages.shelf.finding import Finding, asked, choice_of, of_address, parted
from kinshelf.serve.pages.shelf.sidebar import STEP


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with opened(make(tmp_path_factory.mktemp("find") / "a.shelf")) as client:
        yield client


def f(*choices: str) -> str:
    return "&".join(f"f={quote(choice, safe='')}" for choice in choices)


FOUND: dict[str, Callable[[Product], bool]] = {
    "": lambda p: True,
    "q=RED": lambda p: p.title.startswith("Red"),
    "q=thing+gr%C3%B6": lambda p: p.brand == "Größe",
    f("category:Toys"): lambda p: (p.category or "").startswith("Toys | "),
    f("category:Toys | Vintage"): lambda p: p.category == "Toys | Vintage",
    f("category"): lambda p: p.category is None,
    f("category", "category:Cards"): lambda p: p.category in (None, "Cards | Vintage"),
    f(choice_of("brand", ODD)): lambda p: p.brand == ODD,
    f(choice_of(ODD, "k1")): lambda p: p.attributes[ODD] == "k1",
    f("price:10..20"): lambda p: p.price is not None and 10 <= p.price < 20,
    f("price:..9"): lambda p: p.price is not None and p.price < 9,
    f("price:10..20", "price"): lambda p: p.price is None or 10 <= p.price < 20,
    f("pieces:2"): lambda p: p.attributes["pieces"] == 2,
    f("new:true"): lambda p: bool(p.attributes["new"]),
    f("new:false", "colour:red"): lambda p: p.attributes["new"] is False and p.title[0] == "R",
    f("category_source:feed"): lambda p: p.category is not None,
    f("has_image:false"): lambda p: False,
    "of=price&low=10&high=20": lambda p: p.price is not None and 10 <= p.price < 20,
    f("split:val") + "&q=thing+7&where=price%20%3E%2050%20--": lambda p: (
        p.split == "val" and "7" in p.title and (p.price or 0) > 50
    ),
}


@pytest.mark.parametrize("query", FOUND)
def test_an_address_finds_what_python_finds(client: TestClient, query: str) -> None:
    answer = client.get(f"/shelf?{query}&size=144")
    assert answer.status_code == 200
    wanted = [p.id for p in PRODUCTS if FOUND[query](p)]
    assert ids(answer.text) == wanted
    assert f"{len(wanted)} product" in text_of(answer.text)


def test_the_sidebar_counts_and_its_links_find_so_many(client: TestClient) -> None:
    red = [p for p in PRODUCTS if p.attributes["colour"] == "red"]
    shown = links(client.get("/shelf?f=colour:red").text)
    brands = Counter(p.brand for p in red)
    assert shown[ODD][1] == brands[ODD]
    assert shown["no brand"][1] == brands[None]
    assert shown["blue"][1] == 60, "what was not chosen is counted without the choice of its kind"
    for words in (ODD, "no brand", "10 to 20", "Toys", "Dolls"):
        address, count = shown[words]
        assert len(ids(client.get(f"{address}&size=144").text)) == count > 0


def test_other_attributes_are_counted_when_they_are_opened(client: TestClient) -> None:
    assert "Count its values" in client.get("/shelf").text
    part = client.get("/shelf-facet?name=pieces&f=colour:red&where=price>9").text
    wanted = Counter(
        p.attributes["pieces"] for p in PRODUCTS if p.title[0] == "R" and (p.price or 0) > 9
    )
    assert {int(words): n for words, (_, n) in links(part).items()} == wanted
    address = links(part)["2"][0]
    assert len(ids(client.get(address).text)) == wanted[2]
    without_scripts = client.get("/shelf?f=colour:red&facet=pieces").text
    assert {"0", "1", "2"} <= links(without_scripts).keys()


def test_a_choice_is_a_chip_that_can_be_taken_away(client: TestClient) -> None:
    page = client.get(f"/shelf?q=thing&{f('colour:red', 'price:10..20')}&where=price%3E1").text
    for chip in ("Words: thing", "Colour: red", "Price: 10 to 20", "Condition: price>1"):
        assert chip in text_of(page)
    finding = of_address(f"/shelf?q=thing&{f('colour:red', 'price:10..20')}")
    assert of_address(finding.toggled("colour:red")).choices == ("price:10..20",)
    assert of_address(finding.link(q="")).q == ""


def test_words_and_an_example_picture_find_what_is_near_among_the_chosen(
    client: TestClient,
) -> None:
    assert "Close in meaning" in client.get("/shelf?q=red").text
    words = client.get("/shelf-near?q=Red+thing+4&f=colour:red")
    assert re.findall(r"Red thing \d+", text_of(words.text))[0] == "Red thing 4"
    form = {"at": "/shelf?f=colour:blue", "text": ""}
    like = client.post("/shelf-near", data=form, files={"image": ("a.png", png(), "image/png")})
    found = re.findall(r"(Red|Blue) thing \d+", text_of(like.text))
    assert (len(found), set(found)) == (24, {"Blue"})
    nothing = client.post("/shelf-near", data=form)
    assert (nothing.status_code, "nothing to look for" in text_of(nothing.text)) == (422, True)


def test_categories_are_a_tree_and_shared_names_have_their_parents(client: TestClient) -> None:
    page = client.get("/shelf?size=144").text
    assert f'title="Toys{STEP}Dolls{STEP}Rag"' in page
    assert links(page)["Toys"][1] == 60
    assert f"Toys{STEP}Vintage" in page
    assert f"Cards{STEP}Vintage" in page
    assert ">Vintage<" not in page.partition('class="goods')[2]
    found = client.get("/shelf-categories?find=vint").text
    assert {w: n for w, (_, n) in links(found).items()} == {
        f"Toys{STEP}Vintage": 30, f"Cards{STEP}Vintage": 30,
    }  # fmt: skip
    assert 'value="Cards | Vintage"' in client.get("/shelf-names?category=vint+card").text
    assert "No category matches" in client.get("/shelf-categories?find=xyz").text


@pytest.mark.parametrize(
    ("sort", "key"),
    [
        ("price", lambda p: (p.price is None, p.price or 0)),
        ("-price", lambda p: (p.price is None, -(p.price or 0))),
        ("title", lambda p: p.title.lower()),
        ("colour", lambda p: p.attributes["colour"]),
    ],
)
def test_an_order_holds_over_pages(
    client: TestClient, sort: str, key: Callable[[Product], tuple[bool, float]]
) -> None:
    wanted = [p.id for p in sorted(PRODUCTS, key=key)]
    pages = [client.get(f"/shelf?sort={sort}&page={n}").text for n in (1, 2, 3, 4)]
    assert [one for page in pages for one in ids(page)] == wanted
    assert "page 4 of 4" in text_of(client.get(f"/shelf?sort={sort}&page=99").text)


def test_the_list_has_the_columns_that_are_asked_for(client: TestClient) -> None:
    page = client.get("/shelf?view=list&col=colour&col=id").text
    heads = page.partition("<thead>")[2].partition("</thead>")[0]
    assert [name in heads for name in ("colour", ">id<", "price")] == [True, True, False]
    assert "p001" in text_of(page.partition("<main")[1] + page.partition("<main")[2])


@pytest.mark.parametrize(
    ("query", "words"),
    [
        (f("bramd:x"), "there is no column `bramd`"),
        (f("price:cheap"), "'cheap' is no number"),
        (f("price:1..2..3"), "no number"),
        ("sort=nothing", "there is no column `nothing`"),
        (f("') OR 1=1 --:x"), "there is no column"),
        ("where=price+%3C+20)+OR+(1=1", "where"),
    ],
)
def test_what_cannot_be_found_is_stated(client: TestClient, query: str, words: str) -> None:
    answer = client.get(f"/shelf?{query}")
    assert answer.status_code == 422
    assert words in answer.text.replace("&#39;", "'")


def test_an_address_survives_being_read_and_written() -> None:
    finding = Finding(
        "red & <b>", (choice_of(ODD, ODD), choice_of("brand", None), "price:1..2"), "a = 'x&y'",
        "-price", "list", 72, ("id", ODD), ("colour",), 3,
    )  # fmt: skip
    assert of_address(finding.path(page=3)) == finding
    assert parted(choice_of(ODD, ODD)) == (ODD, ODD)
    assert of_address("") == asked() == Finding()
    assert of_address("/shelf?size=9999&page=-1&view=x") == Finding()
