"""Files as shops have them: broken quotes, spellings of splits, lists in cells, folders."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from kinshelf.db.errors import UnreadableSource
from kinshelf.db.product import Product, Reject
from kinshelf.db.sources.readers import read_source


def read(path: Path) -> tuple[dict[str, Product], list[Reject]]:
    batches = list(read_source(path))
    products = {p.id: p for batch in batches for p in batch.products}
    return products, [r for batch in batches for r in batch.rejects]


BROKEN = {
    "backslashes": '2,"Pan \\"wide\\"\n24,Twelve inch,steel\nend",x\n',
    "an inch sign": '2,Pan,"The 12" one:\n24,Twelve inch,steel\n26,Thirteen inch,iron\nEurope"\n',
    "an inch sign, closed where a line ends":
        '2,Pan,"The 12" one:\n24,Twelve inch,steel\n26,Thirteen inch,iron"\n',
    "an inch sign, with CRLF": '2,Pan,"The 12" one:\r\n24,Twelve inch,steel"\r\n',
    "a doubled quote": '2,""Pan"" big,x\n',
    "text after the quote": '2,Pan,"steel"x\n',
    "too long a field": f'2,Pan,"{"A" * 140_000}\n24,Twelve inch,steel\nend"\n',
    "never closed": '2,"Pan,x\n',
    "never closed, with quotes behind": '2,"Pan,x\n5,"Quoted",y\n',
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_record_is_refused_alone_and_makes_no_products(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,title,description\n1,Mug,plain\n" + BROKEN[kind] + "3,Bag,plain\n")
    products, rejects = read(path)
    assert list(products) == (["1", "5", "3"] if "behind" in kind else ["1", "3"])
    assert [r.reason for r in rejects] == ["malformed-row"]


@pytest.mark.parametrize("last", ['9,"Lamp', '9,Lamp,"steel"x', '9,"Lamp" big,x'])
def test_a_broken_record_at_the_end_is_refused_alone(last: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,title,description\n1,Mug,plain\n" + last)
    products, (reject,) = read(path)
    assert (list(products), reject.reason) == (["1"], "malformed-row")


def test_the_lines_of_a_broken_record_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('id,title,description\n1,Pan,"a 12" one\n24,Not,a product\nend"\n5,Cup,"x\n')
    messages = [reject.message.partition(":")[0] for reject in read(path)[1]]
    assert messages == ["lines 2 to 4", "line 5"]


SPACED = [
    'id, title, description\n1, "Mug, big", plain\n2, "Pan", "a\nb"\n3, Cup "x", y\n',
    'id, title, description\n1, "Mug, big", "plain"\n2, "Pan", "a b"\n3, Cup "x", y\n',
]


@pytest.mark.parametrize("text", SPACED)
def test_quotes_behind_a_space_are_quotes(text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    products, rejects = read(path)
    assert [p.title for p in products.values()] == ["Mug, big", "Pan", 'Cup "x"']
    assert [p.description for p in products.values()] == ["plain", "a b", "y"]
    assert rejects == []


def test_quotes_behind_a_space_stay_where_fields_have_spaces_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('id,title,description\n1,Mug, "big" size\n2,Pan,x\n')
    assert read(path)[0]["1"].description == '"big" size'


@pytest.mark.parametrize("mark", [",", ";"])
def test_lines_that_stand_in_quotation_marks_as_a_whole_are_read(mark: str, tmp_path: Path) -> None:
    """A file that was quoted twice, as when a spreadsheet saves a table as one column."""
    path = tmp_path / "a.csv"
    lines = ["id,title,description", '1,"Mug, big",plain', "2,Pan,steel"]
    quoted = ('"' + line.replace(",", mark).replace('"', '""') + '"' for line in lines)
    path.write_text("\n".join(quoted) + "\n")
    products, rejects = read(path)
    titles = [p.title.replace(";", ",") for p in products.values()]
    assert (list(products), titles, rejects) == (["1", "2"], ["Mug, big", "Pan"], [])


def test_a_header_that_cannot_be_read_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('id,"title,description\n1,Mug,plain\n')
    with pytest.raises(UnreadableSource, match=r"never closed\. Close the quotation mark"):
        read(path)


@pytest.mark.parametrize(
    ("spelling", "expected"),
    [("Validation", "val"), ("valid", "val"), ("DEV", "val"), ("TEST", "test"), ("Train", "train")],
)
def test_usual_spellings_of_a_split_are_understood(
    spelling: str, expected: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"id,title,split\n1,Mug,{spelling}\n")
    products, rejects = read(path)
    assert products["1"].split == expected
    assert rejects == []


def test_an_unusual_split_is_kept_and_reported(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,title,split\n1,Mug,fold-3\n")
    products, (reject,) = read(path)
    assert products["1"].split == "fold-3"
    assert (reject.reason, reject.kept) == ("unknown-split", True)
    assert "'fold-3'" in reject.message


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ('["http://a.example/1.jpg", "http://a.example/2.jpg"]', "http://a.example/1.jpg"),
        ("['http://a.example/1.jpg']", "http://a.example/1.jpg"),
        ("http://a.example/1.jpg, http://a.example/2.jpg", "http://a.example/1.jpg"),
        ("http://a.example/1.jpg|http://a.example/2.jpg", "http://a.example/1.jpg"),
        ("http://a.example/1,2.jpg", "http://a.example/1,2.jpg"),
    ],
)
def test_of_a_list_of_pictures_the_first_is_taken(cell: str, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text(f"id\ttitle\timage\n1\tMug\t{cell}\n")
    assert read(path)[0]["1"].image == expected


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ('[{"language_tag": "de_DE", "value": "Tasse"}, {"language_tag": "en_US", "value": "Mug"}]',
         "Mug"),
        ('[{"language_tag": "de_DE", "value": "Tasse"}]', "Tasse"),
        ("[Limited edition] Mug", "[Limited edition] Mug"),
        ("[sale]", "[sale]"),
        ("[]", ""),
    ],
)  # fmt: skip
def test_a_list_in_a_title_gives_its_main_member_and_brackets_stay(
    cell: str, expected: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.tsv"
    path.write_text(f"id\ttitle\tdescription\n1\t{cell}\tplain\n")
    assert read(path)[0]["1"].title == expected


def test_a_folder_takes_pictures_by_any_name_and_counts_what_it_does_not_take(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "all"
    (folder / "mugs").mkdir(parents=True)
    for name in ("a.jpg", "b.jfif", "c.jpe", "d"):
        Image.new("RGB", (60, 60), "red").save(folder / "mugs" / name, "JPEG")
    Image.new("RGB", (60, 60), "red").save(folder / "mugs" / "a.png")
    (folder / "mugs" / "notes.txt").write_text("not a picture")
    (tmp_path / "elsewhere").mkdir()
    (folder / "boxes").symlink_to(tmp_path / "elsewhere")
    products, rejects = read(folder)
    assert set(products) == {"mugs/a", "mugs/a.png", "mugs/b", "mugs/c", "mugs/d"}
    assert sorted(r.message.partition(":")[0] for r in rejects) == ["boxes", "mugs/notes.txt"]
