"""The API: the CLI's JSON over HTTP, and every failure in one shape."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from click.testing import CliRunner
from fastapi.testclient import TestClient
from serve_world import copied, error_of, png, sample_shelf, settings_for, until

from kinshelf import Shelf
from kinshelf.cli import main
from kinshelf.db.product import Product
from kinshelf.probe.calibrate.policy import set_policy
from kinshelf.samples import catalogue_dir
from kinshelf.serve.app import create_app
from kinshelf.serve.http import answers

pytestmark = pytest.mark.wide


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sample_shelf(tmp_path_factory)


def client_of(shelf: Path, **changes: Any) -> TestClient:
    app = create_app(settings_for(shelf, **changes))
    return TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False)


@pytest.fixture(scope="module")
def reading(sample: Path) -> Iterator[TestClient]:
    """A client for tests that change nothing."""
    with client_of(sample) as client:
        yield client


@pytest.fixture
def client(sample: Path, tmp_path: Path) -> Iterator[TestClient]:
    with client_of(copied(sample, tmp_path / "own.shelf")) as opened:
        yield opened


@pytest.fixture(scope="module")
def picture() -> Path:
    return sorted((catalogue_dir() / "images").glob("*.jpg"))[7]


def cli(shelf: Path, *line: str) -> list[Any]:
    """What the command line prints with --json."""
    ran = CliRunner().invoke(main, [*line, "--shelf", str(shelf), "--json", "--quiet"])
    assert ran.exit_code == 0, ran.output
    return [json.loads(row) for row in ran.stdout.splitlines()]


def close(a: Any, b: Any, slack: float = 1e-6) -> bool:
    """Equal but for rounding."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(close(a[k], b[k], slack) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(close(x, y, slack) for x, y in zip(a, b, strict=True))
    return a == pytest.approx(b, rel=1e-5, abs=slack) if isinstance(a, float) else a == b


# ---- the same JSON


def test_classify_gives_what_the_command_line_prints(
    sample: Path, reading: TestClient, picture: Path
) -> None:
    printed = cli(sample, "classify", "--image", str(picture), "--text", "Wooden train")
    files = {"image": ("any.jpg", picture.read_bytes())}
    found = reading.post("/classify", files=files, data={"text": "Wooden train"}).json()
    assert close(found, printed[0], slack=5e-3)  # one precision class, two runtimes
    assert set(answers.Classified.model_fields) <= set(found)


def test_classify_of_a_stored_product_never_lets_it_support_itself(reading: TestClient) -> None:
    product = reading.get("/products", params={"limit": 1}).json()["products"][0]
    found = reading.post("/classify", json={"id": product["id"]}).json()
    assert found["id"] == product["id"]
    assert found["receipt"]["generation"] == reading.get("/info").json()["generation"]


def test_similar_gives_what_the_command_line_prints(sample: Path, reading: TestClient) -> None:
    where = "price < 40"
    printed = cli(sample, "similar", "--text", "red toy car", "-k", "4", "--where", where)
    asked = {"text": "red toy car", "k": 4, "where": where}
    found = reading.post("/similar", json=asked).json()
    assert close(found["neighbours"], printed, slack=5e-3)
    assert len(found["neighbours"]) == 4
    assert found["exhaustive"] is True


def test_examples_variety_and_facets_are_those_of_the_command_line(
    sample: Path, reading: TestClient
) -> None:
    first, second, third = (p["id"] for p in cli(sample, "list", "--limit", "3"))
    options = ["--like", first, "--like", second, "--unlike", third, "--strategy", "best-score",
               "--diverse", "0.6", "--one-per", "brand", "-k", "4",
               "--facets", "category"]  # fmt: skip
    *printed, facets = cli(sample, "similar", *options)
    asked: dict[str, Any] = {
        "like": [{"id": first}, {"id": second}], "unlike": [{"id": third}], "diverse": 0.6,
        "strategy": "best-score", "one_per": "brand", "k": 4, "facets": ["category"],
    }  # fmt: skip
    found = reading.post("/similar", json=asked).json()
    assert close(found["neighbours"], printed, slack=5e-3)
    assert found["facets"] == facets["facets"]
    listed = reading.get("/products", params={"limit": 1, "facets": "category"}).json()
    assert listed["facets"] == found["facets"]
    for refused in (
        asked | {"k": 100, "offset": 150}, {"like": [{"id": "a", "text": "b"}]},
        {"id": first, "like": [{"id": "a"}]},
    ):  # fmt: skip
        assert reading.post("/similar", json=refused).status_code == 422


def test_show_list_info_and_history_give_what_the_command_line_prints(
    sample: Path, reading: TestClient
) -> None:
    listed = reading.get("/products", params={"where": "price < 20", "limit": 5}).json()
    assert listed["products"] == cli(sample, "list", "--where", "price < 20", "--limit", "5")
    name = listed["products"][0]["id"]
    assert reading.get(f"/products/{name}").json() == cli(sample, "show", name)[0]
    assert close(reading.get("/info").json(), cli(sample, "info")[0])
    assert reading.get("/history").json()["history"] == cli(sample, "history")
    changes = reading.get("/history?generations=true").json()["history"]
    assert changes == cli(sample, "history", "--generations")


def test_evaluate_and_audit_give_what_the_command_line_prints(
    sample: Path, reading: TestClient
) -> None:
    assert close(reading.get("/evaluate").json(), cli(sample, "evaluate")[0])
    found = reading.get("/audit", params={"limit": 1000}).json()
    assert close(found["rows"], cli(sample, "audit"))
    rest = reading.get("/audit", params={"limit": 2, "offset": 1}).json()
    assert close(rest["rows"], found["rows"][1:3])


# ---- products


def test_an_added_product_is_found_changed_and_removed(client: TestClient) -> None:
    fields = {"id": "toy-1", "title": " Wooden  train ", "category": "Toys |  Trains",
              "price": 19.9, "attributes": {"pieces": 12}}  # fmt: skip
    added = client.post("/products", json=fields)
    assert (added.status_code, added.json()["inserted"]) == (201, 1)
    again = client.post("/products", json=fields)
    assert (again.status_code, again.json()["unchanged"]) == (200, 1)
    shown = client.get("/products/toy-1").json()
    assert shown["title"] == "Wooden train"
    assert shown["attributes"] == {"pieces": 12}
    near = client.post("/similar", json={"text": "Wooden train", "k": 1}).json()["neighbours"]
    assert near[0]["id"] == "toy-1"
    changes = {"category": "Toys | Trains | Wooden", "attributes": {"pieces": None, "age": 3},
               "new_category": True}  # fmt: skip
    changed = client.patch("/products/toy-1", json=changes).json()
    assert changed["category"] == "Toys | Trains | Wooden"
    assert changed["attributes"] == {"age": 3}
    assert changed["price"] == 19.9
    assert client.patch("/products/toy-1", json={"price": None}).json()["price"] is None
    assert client.get("/history?limit=1").json()["history"][0]["kind"] == "amend"
    gone = client.delete("/products/toy-1").json()
    assert gone == {"removed": 1, "generation": client.get("/info").json()["generation"]}
    assert client.get("/products/toy-1").status_code == 404
    assert client.delete("/products/toy-1").status_code == 404


def test_a_category_that_no_product_has_is_confirmed_or_not_made(client: TestClient) -> None:
    client.post("/products", json={"id": "g", "title": "A game", "category": "Toys | Board Games"})
    before = client.get("/info").json()
    typo = {"category": "Toys | Bord Gmaes", "price": 3}
    refused = client.patch("/products/g", json=typo)
    assert refused.status_code == 409
    failure = refused.json()["error"]
    assert (failure["type"], failure["near"][0]) == ("UnknownCategory", "Toys | Board Games")
    assert "did you mean 'Toys | Board Games'" in failure["message"]
    assert "new_category" in failure["message"]
    assert client.get("/info").json() == before, "nothing was written"
    for known in ("Toys | Board Games", " Toys |Board  Games", None, ""):
        assert client.patch("/products/g", json={"category": known}).status_code == 200, known
    made = client.patch("/products/g", json=typo | {"new_category": True})
    assert (made.status_code, made.json()["category"]) == (200, "Toys | Bord Gmaes")
    form = client.patch(
        "/products/g",
        data={"category": "Tins", "new_category": "true"},
        files={"image": ("p.png", png(5))},
    )
    assert (form.status_code, form.json()["category"]) == (200, "Tins")
    client.delete("/products/g")


def test_an_uploaded_picture_is_kept_with_the_shelf_and_found_by_it(
    sample: Path, tmp_path: Path
) -> None:
    with client_of(copied(sample, tmp_path / "a.shelf")) as client:
        files = {"image": ("p.png", png(5))}
        form = {"id": "up/load", "title": "Noise", "attributes": '{"n": 1}'}
        assert client.post("/products", files=files, data=form).status_code == 201
    moved = tmp_path / "b.shelf"
    (tmp_path / "a.shelf").rename(moved)
    with client_of(moved) as client:
        found = client.post("/similar", files={"image": ("q.png", png(5))}, data={"k": "1"})
        assert found.json()["neighbours"][0]["id"] == "up/load"
        shown = client.get("/thumbnails/up%2Fload", params={"side": 32})
        assert shown.headers["content-type"] == "image/jpeg"
        # its text changes, its picture stays
        row = client.patch("/products/up%2Fload", json={"title": "Other"}).json()
        assert (row["title"], row["has_image"], row["attributes"]) == ("Other", True, {"n": 1})
        # adding it again changes nothing, as its content hash is that of an add
        again = {"id": "up/load", "title": "Other", "attributes": '{"n": 1}'}
        files = {"image": ("p.png", png(5))}
        assert client.post("/products", files=files, data=again).json()["unchanged"] == 1
    assert cli(moved, "verify") == []


def test_a_changed_title_is_found_by_its_new_words(client: TestClient) -> None:
    client.post("/products", json={"id": "w", "title": "Green apple"})
    client.patch("/products/w", json={"title": "Zebra stripes forever"})
    near = client.post("/similar", json={"text": "Zebra stripes forever", "k": 1}).json()
    assert near["neighbours"][0]["id"] == "w"
    assert near["neighbours"][0]["text_similarity"] == pytest.approx(1, abs=1e-4)


def test_a_product_keeps_its_picture_when_a_field_changes_and_the_file_is_gone(
    sample: Path, tmp_path: Path
) -> None:
    shelf, picture = copied(sample, tmp_path / "own.shelf"), tmp_path / "p.png"
    picture.write_bytes(png(9))
    source = tmp_path / "one.csv"
    source.write_text(f"id,title,image\none,Thing,{picture}\n")
    with Shelf.open(shelf) as opened:
        opened.add(source)
    picture.unlink()
    with client_of(shelf) as client:
        row = client.patch("/products/one", json={"price": 3, "title": "Thing two"}).json()
        assert row["has_image"] is True
        assert row["image_error"] is None


# ---- pictures by URL, and never by path


class Pictures(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(png(31))

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def remote() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Pictures) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/p.png"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "image", ["/etc/passwd", "etc/passwd", "file:///etc/passwd", "upload://" + "0" * 32, "data:,x"]
)
@pytest.mark.parametrize("path", ["/classify", "/similar", "/products"])
def test_no_path_of_the_server_is_read(reading: TestClient, path: str, image: str) -> None:
    asked = {"image": image} | ({"id": "new"} if path == "/products" else {})
    refused = reading.post(path, json=asked)
    assert refused.status_code == 422
    assert error_of(refused)["reason"] in ("scheme", "bad-url")
    form = {"image": (None, image)} | {k: (None, v) for k, v in asked.items() if k == "id"}
    assert reading.post(path, files=form).status_code == 422


def test_a_picture_is_not_changed_to_a_path_of_the_server(client: TestClient) -> None:
    name = client.get("/products").json()["products"][0]["id"]
    assert client.patch(f"/products/{name}", json={"image": "/etc/passwd"}).status_code == 422


def test_a_url_that_leads_to_this_network_is_refused(reading: TestClient, remote: str) -> None:
    for path in ("/classify", "/similar"):
        refused = reading.post(path, json={"image": remote})
        assert refused.status_code == 422
        assert error_of(refused)["reason"] == "private-address"


def test_a_picture_by_url_is_fetched_once_and_kept(
    sample: Path, tmp_path: Path, remote: str
) -> None:
    shelf = copied(sample, tmp_path / "own.shelf")
    with client_of(shelf, allow_private_hosts=True) as client:
        before = set((shelf / "images").rglob("*")) if (shelf / "images").exists() else set()
        assert client.post("/classify", json={"image": remote}).status_code == 200
        now = set((shelf / "images").rglob("*")) if (shelf / "images").exists() else set()
        assert now == before  # a question keeps nothing
        added = client.post("/products", json={"id": "u", "image": remote})
        assert added.status_code == 201
        assert client.get("/products/u").json()["has_image"] is True
        assert client.get("/thumbnails/u").status_code == 200


# ---- failures


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, "give id"), ({"id": "a", "text": "b"}, "give id"), ({"text": "  "}, "give id"),
        ({"text": "a", "k": 0}, "k: "), ({"text": "a", "k": 101}, "k: "),
        ({"text": "a", "nope": 1}, "nope"), ({"text": 3}, "text"), ([1], "dictionary"),
    ],
)  # fmt: skip
def test_a_question_that_cannot_be_is_reported_what_is_wrong(
    reading: TestClient, asked: Any, expected: str
) -> None:
    refused = reading.post("/similar", json=asked)
    assert refused.status_code == 422
    assert expected in error_of(refused)["message"]


def test_each_failure_has_its_status_and_one_shape(reading: TestClient) -> None:
    def failed(status: int, kind: str, response: httpx.Response) -> None:
        assert response.status_code == status, response.text
        assert error_of(response)["type"] == kind

    failed(404, "ProductNotFound", reading.get("/products/nope"))
    failed(404, "ProductNotFound", reading.post("/similar", json={"id": "nope"}))
    failed(404, "ProbeNotFound", reading.post("/classify", json={"text": "a", "probe": 99}))
    failed(404, "JobNotFound", reading.get("/jobs/99"))
    failed(404, "HTTPException", reading.get("/nowhere", headers={"accept": "application/json"}))
    failed(404, "HTTPException", reading.get("/jobs/1/nowhere"))
    failed(405, "HTTPException", reading.put("/classify"))
    failed(422, "FilterError", reading.post("/similar", json={"text": "a", "where": "1; DROP"}))
    failed(422, "Unusable", reading.post("/classify", content=b"{", headers=JSON))
    failed(422, "Unusable", reading.post("/classify", content=b"a", headers=PLAIN))
    failed(422, "Unusable", reading.get("/products", params={"limit": 0}))
    failed(422, "Unusable", reading.post("/products", json={"id": "x"}))
    failed(422, "ImageRejected", reading.post("/classify", files={"image": ("a", b"no picture")}))
    failed(409, "EmptyShelf", reading.get("/evaluate", params={"split": "nope"}))


JSON, PLAIN = {"content-type": "application/json"}, {"content-type": "text/plain"}


# ---- training


def test_training_is_a_job_whose_progress_can_be_followed(client: TestClient) -> None:
    begun = client.post("/train", json={"epochs": 3})
    assert begun.status_code == 202
    place = begun.headers["location"]
    assert client.post("/train", json={}).status_code == 409
    with client.stream("GET", f"{place}/events") as stream:
        lines = list(stream.iter_lines())
    names = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    reported = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
    assert names == ["progress"] * (len(names) - 1) + ["end"]
    assert {event["step"] for event in reported[:-1]} == {"epoch", "calibrate"}
    done = client.get(place).json()
    assert done == reported[-1]
    assert (done["state"], done["result"]["version"]) == ("done", 2)
    asked = client.post("/classify", json={"text": "Wooden train"}).json()
    assert asked["probe"]["version"] == 2
    later = client.get(f"{place}/events", params={"after": len(reported) - 2}).text
    assert later.count("event: progress") == 1


def test_products_on_the_shelf_are_classified_and_written_as_a_job(client: TestClient) -> None:
    def run(**asked: Any) -> dict[str, Any]:
        job = client.post("/classify-stored", json=asked).json()["id"]
        until(lambda: client.get(f"/jobs/{job}").json()["state"] != "running")
        found: dict[str, Any] = client.get(f"/jobs/{job}").json()
        return found

    assert client.post("/classify-stored", json={"where": "colour ="}).status_code == 422
    refused = client.post("/classify-stored", json={"apply": True})
    assert "kinshelf policy" in refused.json()["error"]["message"]
    with Shelf.open(client.app.state.service.settings.shelf) as shelf:  # type: ignore[attr-defined]
        set_policy(shelf, 0.5, confidence=0.5)
        some = shelf.snapshot().select(limit=8)
        pairs = shelf.snapshot().pairs([stored.row for stored in some])
        shelf.upsert([Product(f"new-{s.row}") for s in some], *np.hsplit(pairs, 2))
    done = run(where="category IS NULL", apply=True)
    assert (done["state"], done["progress"]["done"]) == ("done", done["progress"]["of"])
    result = done["result"]
    assert sum(result["verdicts"].values()) == result["products"] >= 8
    assert result["applied"]["applied"] == result["accepted"] > 0
    assert client.get("/history?limit=1").json()["history"][0]["kind"] == "predict"


def test_a_job_that_fails_states_why_and_the_server_goes_on(tmp_path: Path, encoder: Any) -> None:
    Shelf.create(tmp_path / "empty.shelf", encoder="fake").close()
    app = create_app(settings_for(tmp_path / "empty.shelf"), encoder=encoder)
    with TestClient(app, base_url="http://127.0.0.1") as client:
        job = client.post("/train", json={}).json()["id"]
        until(lambda: client.get(f"/jobs/{job}").json()["state"] == "failed")
        assert client.get(f"/jobs/{job}").json()["error"]["type"] == "TooFewClasses"
        assert client.post("/similar", json={"text": "a"}).status_code == 409
        assert client.post("/classify", json={"text": "a"}).status_code == 409
        for path in ("/info", "/products", "/history", "/metrics", "/healthz"):
            assert client.get(path).status_code == 200
        for path in ("/audit", "/evaluate"):
            assert client.get(path).status_code < 500


# ---- what the server tells of itself


def test_metrics_count_requests_by_route_and_batches(client: TestClient) -> None:
    client.get("/products/nope")
    client.post("/similar", json={"text": "a"})
    text = client.get("/metrics").text
    assert (
        'kinshelf_requests_total{method="GET",route="/products/{product_id:path}",status="404"} 1.0'
        in text
    )
    assert 'kinshelf_encode_batch_size_count{kind="text"}' in text
    products = client.get("/info").json()["products"]
    assert f"kinshelf_products {float(products)}" in text


def test_openapi_names_every_route_with_an_example_and_its_failures(reading: TestClient) -> None:
    paths = reading.get("/openapi.json").json()["paths"]
    assert set(paths) == {
        "/classify", "/similar", "/products", "/products/{product_id}", "/thumbnails/{product_id}",
        "/evaluate", "/audit", "/train", "/classify-stored", "/jobs", "/jobs/{number}",
        "/jobs/{number}/events", "/info", "/history", "/healthz", "/metrics",
    }  # fmt: skip
    document = reading.get("/openapi.json").json()
    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    for operations in paths.values():
        for operation in operations.values():
            assert "429" in operation["responses"]
            assert operation["summary"]
            if body := operation.get("requestBody"):
                assert body["content"]["application/json"]["example"]


def test_a_number_that_is_none_is_null() -> None:
    reported = answers.Json({"a": float("nan"), "b": [float("inf"), 1.5]}).body
    assert json.loads(reported) == {"a": None, "b": [None, 1.5]}


def test_numbers_of_any_length_and_all_letters_come_through() -> None:
    sent = {"big": 10**30, "small": -(2**63), "é🧸": ["日本", 0.1, 1e300, None, True]}
    assert json.loads(answers.Json(sent).body) == sent
    with_none = answers.Json({**sent, "none": float("nan")}).body
    assert json.loads(with_none) == {**sent, "none": None}


def test_a_mistake_of_the_servers_own_has_the_same_shape_and_no_details(
    sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with client_of(sample) as client:
        monkeypatch.setattr(client.app.state.service.shelf, "similar", lambda **_: 1 / 0)  # type: ignore[attr-defined]
        failed = client.post("/similar", json={"id": "KS-0001"})
        assert failed.status_code == 500
        assert error_of(failed)["type"] == "ServerFailed"
        assert "division" not in failed.text
        assert "content-security-policy" in failed.headers


def test_a_full_disk_costs_the_change_and_the_next_one_needs_no_restart(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kinshelf.store.log import disk

    real, full = disk.write_synced, [True]

    def write(*arguments: Any) -> None:
        if full.pop() if full else False:
            raise OSError(28, "No space left on device")
        real(*arguments)

    monkeypatch.setattr(disk, "write_synced", write)
    product = {"id": "d", "title": "Disk"}
    failed = client.post("/products", json=product)
    assert failed.status_code == 500
    assert "not acknowledged" in error_of(failed)["message"]
    assert client.get("/products/d").status_code == 404
    assert client.post("/products", json=product).status_code == 201
    assert client.get("/products/d").status_code == 200


def test_without_the_extra_the_command_names_what_to_install(
    sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "kinshelf.serve.server", None)
    ran = CliRunner().invoke(main, ["serve", "--shelf", str(sample)])
    assert ran.exit_code == 2
    assert "pip install 'kinshelf[serve]'" in ran.output
