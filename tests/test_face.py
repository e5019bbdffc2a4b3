"""`import kinshelf as ks`: frames go in and come out, and mean what files of the same mean."""

from __future__ import annotations

import doctest
import io
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from conftest import FakeEncoder, unit
from PIL import Image
from sklearn.neighbors import NearestNeighbors

import kinshelf as ks
from kinshelf.db.errors import InvalidEmbeddings, InvalidSetting
from kinshelf.probe.fit.settings import ProbeSettings

pytestmark = pytest.mark.wide

TABLE = pd.DataFrame(
    {
        "id": ["a1", "a2", "007"],
        "title": ["Wooden train", "Red ball", "Café set"],
        "category": ["Trains", "Balls", None],
        "price": [12.5, 3.0, None],
        "pieces": [12, 1, 24],
        "new": [True, False, True],
    }
)


def shelf_at(path: Path) -> ks.Shelf:
    ks.create(path, encoder="fake").close()
    return ks.open(path, encoder=FakeEncoder())


def picture(colour: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (60, 60), colour).save(file, "PNG")
    return file.getvalue()


def as_arrow(frame: pd.DataFrame) -> pa.Table:
    return pa.Table.from_pandas(frame, preserve_index=False)


class OnlyAStream:
    """As `datasets.Dataset` is to us: nothing but its Arrow stream."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self._table = as_arrow(frame)

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)


def parquet(frame: pd.DataFrame, folder: Path) -> Path:
    path = folder / "products.parquet"
    pq.write_table(as_arrow(frame), path)
    return path


def csv(frame: pd.DataFrame, folder: Path) -> Path:
    path = folder / "products.csv"
    frame.to_csv(path, index=False)
    return path


def jsonl(frame: pd.DataFrame, folder: Path) -> Path:
    path = folder / "products.jsonl"
    frame.to_json(path, orient="records", lines=True, force_ascii=False)
    return path


def polars(frame: pd.DataFrame, _: Path) -> Any:
    return pytest.importorskip("polars", reason="polars is not installed").from_pandas(frame)


def tsv(frame: pd.DataFrame, folder: Path) -> Path:
    frame.to_csv(folder / "products.tsv", index=False, sep="\t")
    return folder / "products.tsv"


def json_array(frame: pd.DataFrame, folder: Path) -> Path:
    frame.to_json(folder / "products.json", orient="records", force_ascii=False)
    return folder / "products.json"


def feather(frame: pd.DataFrame, folder: Path) -> Path:
    pyarrow.feather.write_feather(as_arrow(frame), folder / "products.feather")
    return folder / "products.feather"


def xlsx(frame: pd.DataFrame, folder: Path) -> Path:
    pytest.importorskip("openpyxl", reason="openpyxl is not installed")
    frame.to_excel(folder / "products.xlsx", index=False)
    return folder / "products.xlsx"


def zipped(frame: pd.DataFrame, folder: Path) -> Path:
    frame.to_csv(folder / "products.csv.gz", index=False)
    return folder / "products.csv.gz"


FORMS = {
    "duckdb": lambda frame, _: duckdb.from_arrow(as_arrow(frame)),
    "tsv": tsv,
    "json": json_array,
    "feather": feather,
    "xlsx": xlsx,
    "csv.gz": zipped,
    "pandas": lambda frame, _: frame,
    "pandas with an index": lambda frame, _: frame.set_index(pd.Index([5, 6, 9])),
    "arrow": lambda frame, _: as_arrow(frame),
    "stream": lambda frame, _: OnlyAStream(frame),
    "polars": polars,
    "csv": csv,
    "jsonl": jsonl,
    "parquet": parquet,
}


@pytest.mark.parametrize("form", FORMS)
def test_a_frame_and_a_file_of_the_same_give_the_same_products(form: str, tmp_path: Path) -> None:
    with shelf_at(tmp_path / "toys.shelf") as shelf:
        report = shelf.add(FORMS[form](TABLE, tmp_path))
        assert (report.inserted, report.rejected) == (3, 0)
        found = {s.product.id: s.product for s in shelf.snapshot().select()}
    assert found["a1"].attributes == {"pieces": 12, "new": True}
    assert found["a1"].price == 12.5
    assert found["007"] == ks.Product("007", "Café set", attributes={"pieces": 24, "new": True})


@pytest.mark.parametrize("form", ["pandas", "arrow", "parquet"])
@pytest.mark.parametrize("kind", ["bytes", "struct"])
def test_pictures_that_stand_in_a_column_as_bytes_are_kept(
    form: str, kind: str, tmp_path: Path
) -> None:
    data = [picture("red"), b"no picture", None]
    cells = data if kind == "bytes" else [d and {"bytes": d, "path": None} for d in data]
    frame = TABLE.assign(image=pd.Series(cells, dtype=object))
    with shelf_at(tmp_path / "toys.shelf") as shelf:
        report = shelf.add(FORMS[form](frame, tmp_path))
        assert (report.inserted, report.image_failed) == (3, 1), report
        products = {s.product.id: s for s in shelf.snapshot().select()}
        assert products["a1"].has_image
        assert not products["a2"].has_image
        assert "image" in str(report.reasons)
        again = shelf.add(FORMS[form](frame, tmp_path))
        assert again.inserted == again.updated == again.encoded_images == 0


def test_a_frame_whose_column_has_no_one_type_is_refused_with_the_remedy(tmp_path: Path) -> None:
    frame = TABLE.assign(odd=pd.Series([1, "two", [3]], dtype=object))
    with (
        shelf_at(tmp_path / "toys.shelf") as shelf,
        pytest.raises(ks.InputError, match="one type"),
    ):
        shelf.add(frame)


def test_what_comes_out_is_a_frame(tmp_path: Path) -> None:
    with shelf_at(tmp_path / "toys.shelf") as shelf:
        shelf.add(TABLE)
        frame = shelf.to_pandas(where="category IS NOT NULL")
        assert frame["id"].tolist() == ["a1", "a2"]
        assert frame["pieces"].tolist() == [12, 1]
        near = shelf.similar(id="a1", k=2).to_pandas()
        assert near["id"].tolist() == [n["id"] for n in near.to_dict("records")]
        assert {"id", "title", "similarity"} <= set(near.columns)
        assert len(near) == 2
        assert shelf.sql("SELECT id, price FROM products ORDER BY id").to_pandas().shape == (3, 2)
        assert shelf.history().to_pandas()["kind"].tolist() == ["add"]


@pytest.mark.parametrize("form", ["arrow", "pandas", "polars"])
def test_what_comes_out_as_a_frame_goes_in_as_the_same_products(form: str, tmp_path: Path) -> None:
    if form == "polars":
        pytest.importorskip("polars", reason="polars is not installed")
    rows = unit(np.random.default_rng(0).standard_normal((3, 16)))
    products = [
        ks.Product("a1", "Train", category="Trains", attributes={"pieces": 12, "new": True}),
        ks.Product("007", "Set", price=1.5, attributes={"pieces": 2, "code": "x"}),
        ks.Product("b", "Ball", brand="B"),
    ]
    images = rows.copy()
    images[1] = 0
    with shelf_at(tmp_path / "one.shelf") as shelf, shelf_at(tmp_path / "two.shelf") as other:
        shelf.upsert(products, images, rows)
        frame = getattr(shelf, f"to_{form}")(embeddings=True)
        other.add(frame)
        assert [s.product for s in other.snapshot().select()] == products
        one, two = (each.snapshot().pairs([0, 1, 2]) for each in (shelf, other))
        assert one.tobytes() == two.tobytes()


def test_columns_of_a_frame_are_chosen_and_keep_their_types(tmp_path: Path) -> None:
    with shelf_at(tmp_path / "toys.shelf") as shelf:
        shelf.add(TABLE)
        names = ["id", "pieces", "new", "category_source", "row"]
        table = shelf.to_arrow("price > 1", names)
        assert table.column_names == names
        assert table.to_pydict()["pieces"] == [12, 1]
        assert (table.schema.field("new").type, table.schema.field("row").type) == (
            pa.bool_(), pa.int64(),
        )  # fmt: skip
        assert shelf.to_arrow("id = 'none'").num_rows == 0
        assert shelf.to_pandas(columns=["id"]).columns.tolist() == ["id"]
        wide = shelf.to_pandas(columns=["id"], embeddings=True)
        kept = shelf.snapshot().pairs([0])[0, 16:]
        np.testing.assert_array_equal(wide["text_embedding"][0], kept)
        with pytest.raises(ks.InputError, match="no column 'colour'"):
            shelf.to_arrow(columns=["colour"])


def test_answers_evaluation_and_audit_come_as_frames(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(["Trains", "Balls"], 40)
    centres = {"Trains": rng.standard_normal(16), "Balls": rng.standard_normal(16)}
    rows = unit(np.stack([centres[c] + rng.standard_normal(16) for c in labels]))
    products = [ks.Product(f"p{i}", c, category=c) for i, c in enumerate(labels)]
    with shelf_at(tmp_path / "toys.shelf") as shelf:
        shelf.upsert(products, rows, rows)
        shelf.train(ProbeSettings(epochs=3, hidden=16))
        methods = shelf.evaluate().to_pandas()["method"]
        assert methods.tolist() == ["probe", "ridge", "knn", "hybrid"]
        assert "id" in shelf.audit().to_pandas().columns
        answers = shelf.classify_all(TABLE).to_pandas()
        assert answers["id"].tolist() == ["a1", "a2", "007"]
        assert answers["category"].isin(["Trains", "Balls"]).all()
        assert shelf.classify(text="Wooden train").category in {"Trains", "Balls"}


def pairs(n: int) -> np.ndarray:
    rng = np.random.default_rng(n)
    return np.hstack([unit(rng.standard_normal((n, 8))) for _ in "it"])


def test_the_classifier_takes_pairs_as_the_shelf_does_and_refuses_fused_ones() -> None:
    X = pairs(60)
    y = pd.Series(np.where(X[:, 0] > 0, "one", "two"))
    settings = ProbeSettings(epochs=2, hidden=8)
    model = ks.HybridClassifier(settings=settings).fit(pd.DataFrame(X), y)
    same = ks.HybridClassifier(settings=settings, pairs=False).fit(X / np.sqrt(2), y)
    expected = same.predict_proba(X / np.sqrt(2))
    np.testing.assert_allclose(model.predict_proba(pd.DataFrame(X)), expected, atol=1e-6)
    with pytest.raises(InvalidEmbeddings, match=r"norm 0\.7071.*sqrt\(2\)"):
        model.predict(X / np.sqrt(2))
    without_text = X.copy()
    without_text[:, 8:] = 0
    assert model.predict(without_text).shape == (60,)


def test_kneighbors_keeps_scikit_learns_contract() -> None:
    X = pairs(50)
    y = np.where(X[:, 0] > 0, "one", "two")
    model = ks.HybridClassifier(settings=ProbeSettings(epochs=1, hidden=4)).fit(X, y)
    oracle = NearestNeighbors(metric="cosine").fit(X)
    distances, places = model.kneighbors(X[:5], n_neighbors=7)
    expected, where = oracle.kneighbors(X[:5], n_neighbors=7)
    np.testing.assert_array_equal(places, where)
    np.testing.assert_allclose(distances, expected, atol=1e-6)
    np.testing.assert_array_equal(model.kneighbors(X[:5], 7, return_distance=False), where)
    with pytest.raises(InvalidSetting, match="50"):
        model.kneighbors(X[:5], 51)


def test_the_shelf_refuses_fused_queries(tmp_path: Path) -> None:
    X = pairs(5)
    with shelf_at(tmp_path / "toys.shelf") as shelf:
        shelf.upsert([ks.Product(str(i)) for i in range(5)], X[:, :8], X[:, 8:])
        assert shelf.search(X[:1], 1).rows[0, 0] == 0
        with pytest.raises(InvalidEmbeddings, match=r"sqrt\(2\)"):
            shelf.search(X[:1] / np.float32(np.sqrt(2)), 1)


def test_importing_it_takes_no_time_and_nothing_heavy() -> None:
    code = (
        "import sys, time; before = set(sys.modules); import kinshelf as ks\n"
        "assert not {'numpy', 'duckdb', 'pandas'} & set(sys.modules)\n"
        "assert ks.__version__; assert callable(ks.open); print(len(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "module", ["", "face", "store.query", "store.similar.search", "probe.classifier", "probe.train",
               "probe.predict.predictor", "probe.evaluate.held_out", "probe.audit.audit",
               "probe.fill.answers", "probe.fill.suggest"],
)  # fmt: skip
def test_the_examples_in_the_docstrings_run(
    module: str, tmp_path: Path, sample_shelf: Path
) -> None:
    shutil.copytree(sample_shelf, tmp_path / "sample.shelf")
    with ks.open(tmp_path / "sample.shelf") as shelf:
        found = doctest.testmod(
            import_module(f"kinshelf.{module}".rstrip(".")),
            extraglobs={"tmp": str(tmp_path), "shelf": shelf},
        )
    assert found.failed == 0
    assert found.attempted
