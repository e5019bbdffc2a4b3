"""A user's mapping: templates, several columns, pictures by id, a file of it, and a proposal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from conftest import write_csv
from hypothesis import given
from hypothesis import strategies as st

from kinshelf.cli import main
from kinshelf.db.errors import InputError, SourceNotFound, UnknownColumn
from kinshelf.db.layouts.names import ALIASES
from kinshelf.db.layouts.saved import SavedMapping, load_mapping, save_mapping
from kinshelf.db.product import Product, pictures_of
from kinshelf.db.sources.preview import preview
from kinshelf.db.sources.readers import ReadOptions, open_source, read_source

SHOP = {
    "Artikel": "A1", "Marke": "Acme", "Bezeichnung": "Roter Becher", "Abteilung": "Küche",
    "Gruppe": "Becher", "Vorne": "a1.jpg", "Hinten": "a1_b.jpg", "VK": "9,99 €",
}  # fmt: skip


def shop(folder: Path, **cells: str) -> Path:
    return write_csv(folder / "shop.csv", [SHOP | cells])


def read(path: Path, mapping: dict[str, str] | None = None, **options: Any) -> list[Product]:
    batches = read_source(path, ReadOptions(mapping=mapping or {}, **options))
    return [product for batch in batches for product in batch.products]


def names(product: Product) -> list[str]:
    return [Path(one).name for one in pictures_of(product)]


@pytest.mark.parametrize(
    ("field", "template", "value"),
    [
        ("title", "{Marke} {Bezeichnung}", "Acme Roter Becher"),
        ("title", "{marke}: {BEZEICHNUNG}", "Acme: Roter Becher"),
        ("category", "{Abteilung} > {Gruppe}", "Küche | Becher"),
        ("description", "{Farbe|Gruppe}", "Becher"),
        ("id", "{Artikel}-{Gruppe}", "A1-Becher"),
        ("price", "{VK}", 9.99),
    ],
)
def test_a_field_is_put_together_from_columns(
    field: str, template: str, value: object, tmp_path: Path
) -> None:
    mapping = {"id": "Artikel", "title": "Bezeichnung", field: template}
    (product,) = read(shop(tmp_path), mapping)
    assert getattr(product, field) == value


def test_a_template_of_an_empty_column_leaves_no_gap(tmp_path: Path) -> None:
    mapping = {
        "id": "Artikel",
        "title": "{Marke} {Bezeichnung}",
        "category": "{Abteilung} > {Gruppe}",
    }
    (product,) = read(shop(tmp_path, Marke="", Gruppe=""), mapping)
    assert (product.title, product.category) == ("Roter Becher", "Küche")


def test_a_template_that_names_no_column_lists_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(UnknownColumn, match=r"title='\{Brand\}'.*Artikel, Marke"):
        read(shop(tmp_path), {"id": "Artikel", "title": "{Brand}"})


def test_a_picture_is_named_by_a_template_and_by_the_field_of_its_column(tmp_path: Path) -> None:
    (product,) = read(shop(tmp_path), {"id": "Artikel", "image": "images/{id}.jpg"})
    assert product.image == str(tmp_path / "images/A1.jpg")


@pytest.mark.parametrize("stated", ["{Vorne}, {Hinten}", "{vorne},x/{Artikel}_b.jpg"])
def test_several_columns_are_the_pictures_in_this_order(stated: str, tmp_path: Path) -> None:
    (product,) = read(shop(tmp_path), {"id": "Artikel", "image": stated})
    assert names(product)[0] == "a1.jpg"
    assert names(product)[1].casefold() == "a1_b.jpg"
    assert not {"Vorne", "vorne"} & product.attributes.keys()


def test_a_column_of_split_names_is_the_split_and_no_category(tmp_path: Path) -> None:
    rows = [{"id": str(i), "title": "x", "category": c, "kind": "Mug"} for i, c in
            enumerate(("train", "train", "Validation", "test"))]  # fmt: skip
    products = read(write_csv(tmp_path / "a.csv", rows))
    assert [p.split for p in products] == ["train", "train", "val", "test"]
    assert {p.category for p in products} == {None}
    again = read(write_csv(tmp_path / "b.csv", rows), {"category": "category"})
    assert [p.category for p in again][:3] == ["train", "train", "Validation"]


def test_a_category_that_is_called_test_among_others_stays_one(tmp_path: Path) -> None:
    rows = [
        {"id": "1", "title": "x", "category": "test"},
        {"id": "2", "title": "y", "category": "Mug"},
    ]
    assert [p.category for p in read(write_csv(tmp_path / "a.csv", rows))] == ["test", "Mug"]


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\xff\xd8\xff")


def test_folders_named_as_splits_are_the_split(tmp_path: Path) -> None:
    for name in ("train/Mugs/1.jpg", "val/Mugs/2.jpg", "train/Bowls/deep/3.jpg"):
        picture(tmp_path / "set" / name)
    found = {p.id: (p.split, p.category) for p in read(tmp_path / "set")}
    assert found == {
        "train/Mugs/1": ("train", "Mugs"),
        "train/Bowls/deep/3": ("train", "Bowls | deep"),
        "val/Mugs/2": ("val", "Mugs"),
    }
    picture(tmp_path / "set/Other/4.jpg")
    assert {p.category for p in read(tmp_path / "set")} >= {"train | Mugs", "Other"}


# ---- pictures by id


def test_pictures_are_found_by_their_products_ids(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    for name in (
        "A.jpg", "A_2.png", "A-10.jpg", "A (3).webp", "A-1.jpg", "A.txt", "sub/B.jpg", "C/x.jpg",
        "C/y.jpg",
    ):  # fmt: skip
        picture(pictures / name)
    rows = [
        {"id": name, "title": name, "image": own}
        for name, own in [
            ("A", ""),
            ("A-1", ""),
            ("B", "own.jpg"),
            ("C", ""),
            ("D", "own.jpg"),
            ("E", ""),
        ]
    ]
    found = read(write_csv(tmp_path / "a.csv", rows), image_by_id=pictures)
    assert {p.id: names(p) for p in found} == {
        "A": ["A.jpg", "A_2.png", "A (3).webp", "A-10.jpg"],
        "A-1": ["A-1.jpg"],  # a product's own name goes before a number
        "B": ["B.jpg"],
        "C": ["x.jpg", "y.jpg"],
        "D": ["own.jpg"],  # what the row names, where the folder has none
        "E": ["E.jpg"],  # missing, and reported as such
    }
    assert pictures_of(found[5]) == [str(pictures / "E.jpg")]


def test_a_folder_of_pictures_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFound, match="nowhere"):
        read(shop(tmp_path), {"id": "Artikel"}, image_by_id=tmp_path / "nowhere")


def test_pictures_by_id_take_the_id_as_the_layout_reads_it(tmp_path: Path) -> None:
    picture(tmp_path / "p/010/0108775015.jpg")
    row = {"article_id": "108775015", "prod_name": "Top", "product_type_name": "Vest"}
    (top,) = read(write_csv(tmp_path / "a.csv", [row]), image_by_id=tmp_path / "p")
    assert names(top) == ["0108775015.jpg"]


# ---- kept in a file

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)


@given(st.dictionaries(st.sampled_from(sorted(ALIASES)), TEXT), TEXT, st.integers(0, 99))
def test_a_saved_mapping_comes_back_as_it_was(
    tmp_path_factory: Any, mapping: dict[str, str], sheet: str, skipped: int
) -> None:
    path = tmp_path_factory.mktemp("mapping") / "shop.toml"
    folder = path.parent / "below" / "pictures"
    reading = {"sheet": sheet, "skip_rows": skipped, "images": folder, "delimiter": None}
    save_mapping(path, SavedMapping(mapping, reading))
    found = load_mapping(path)
    assert found.mapping == mapping
    assert found.reading == {"sheet": sheet, "skip_rows": skipped, "images": folder}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[map]\ntitel = 'a'", "titel"),
        ("[maps]\n", "maps"),
        ("map = 3", "must be a table"),
        ("[map]\ntitle = 3", "title must be"),
        ("[map]\ntitle = []", "title must be"),
        ("[read]\nskip_rows = -1", "skip_rows is -1"),
        ("[read]\nsheet = 1", "sheet is 1"),
        ("[map", "TOML"),
        ("\xff", "TOML"),
    ],
)
def test_a_mapping_that_is_none_is_refused_by_what_is_wrong(
    text: str, named: str, tmp_path: Path
) -> None:
    (path := tmp_path / "shop.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=named) as caught:
        load_mapping(path)
    assert str(path) in str(caught.value)


def call(*words: str) -> Result:
    return CliRunner().invoke(main, list(words))


def test_what_add_saves_is_read_again_and_options_go_before_it(tmp_path: Path) -> None:
    path, toml = str(shop(tmp_path)), str(tmp_path / "shop.toml")
    given = ["--map", "id=Artikel", "--map", "title=Marke", "--map", "title=Bezeichnung"]
    first = call("add", path, "--dry-run", "--json", "--save-mapping", toml, *given)
    again = call("add", path, "--dry-run", "--json", "--mapping", toml)
    assert json.loads(first.stdout) == json.loads(again.stdout)
    assert json.loads(again.stdout)["products"][0]["title"] == "Acme Roter Becher"
    other = call("add", path, "--dry-run", "--json", "--mapping", toml, "--map", "title=Gruppe")
    assert json.loads(other.stdout)["products"][0]["title"] == "Becher"
    assert json.loads(other.stdout)["products"][0]["id"] == "A1"


def test_a_mapping_of_standard_input_is_not_saved_since_it_is_read_once(tmp_path: Path) -> None:
    toml = tmp_path / "shop.toml"
    done = CliRunner().invoke(
        main, ["add", "-", "--dry-run", "--save-mapping", str(toml)], input="id\n1"
    )
    assert done.exit_code == 3
    assert "put it into a file" in done.stderr
    assert not toml.exists()


# ---- a proposal


def test_unknown_columns_are_proposed_by_what_stands_in_them(tmp_path: Path) -> None:
    rows = [
        {"Nr": f"W-{i}", "Was": f"Becher mit Henkel {i}", "Abt": ("Küche", "Bad", "Büro")[i % 3],
         "Foto": f"https://a.test/{i}.jpg?w=3", "VK": f"{i},99 €", "Farbe": ("rot", "blau")[i % 2]}
        for i in range(30)
    ]  # fmt: skip
    path = write_csv(tmp_path / "a.csv", rows)
    with pytest.raises(UnknownColumn) as caught:
        read(path)
    line = (
        '--map id="Nr" --map image="Foto" --map title="Was" --map price="VK" --map category="Abt"'
    )
    assert line in str(caught.value)
    _, plan = open_source(path, ReadOptions(mapping={"id": "Nr", "title": "Was"}))
    assert plan.proposed == {"image": "Foto", "price": "VK", "category": "Abt"}


def test_a_catalogue_whose_columns_are_known_has_nothing_proposed(tmp_path: Path) -> None:
    rows = [
        {"id": str(i), "title": f"Mug {i}", "description": "x", "category": "Mugs", "price": "1",
         "image": "a.jpg", "type": ("a", "b", "c")[i % 3]} for i in range(30)
    ]  # fmt: skip
    _, plan = open_source(write_csv(tmp_path / "a.csv", rows), ReadOptions())
    assert plan.proposed == {}


def test_a_dry_run_shows_products_and_makes_no_shelf(tmp_path: Path) -> None:
    rows = [{"id": str(i or ""), "title": f"Mug {i}", "price": "x"} for i in range(9)]
    path = write_csv(tmp_path / "a.csv", rows)
    shelf = tmp_path / "s.shelf"
    done = call("add", str(path), "--dry-run", "--shelf", str(shelf))
    assert done.exit_code == 1  # a row is rejected, as it would be
    assert "Mug 5" in done.stdout
    assert "Mug 6" not in done.stdout
    assert "missing-id x 1" in done.stdout
    assert not shelf.exists()


def test_a_preview_ends_after_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kinshelf.db.sources.preview._MOST", 4)
    rows = [{"id": str(i), "title": f"Mug {i}"} for i in range(9)]
    found = preview(write_csv(tmp_path / "a.csv", rows), ReadOptions(batch_size=2))
    assert (found.read, found.whole, len(found.products)) == (4, False, 4)
