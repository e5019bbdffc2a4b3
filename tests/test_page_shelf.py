"""The shelf on the page: filtered, paged, one product, several side by side, thumbnails by id."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from browser import HOSTILE, HOSTILE_ID, PRODUCTS, Visit

from kinshelf import Shelf
from kinshelf.samples import catalogue_dir


@pytest.fixture
def client(server: Any) -> Any:
    with httpx.Client(base_url=server.url, timeout=240) as opened:
        yield opened


def ids(visit: Visit) -> list[str]:
    return [box.get_attribute("value") or "" for box in visit.page.locator(".goods input").all()]


def follow(visit: Visit, link: str) -> None:
    with visit.page.expect_navigation():
        visit.page.click(link)


def test_pages_hold_every_product_once(visit: Visit) -> None:
    visit.goto("/shelf")
    seen = ids(visit)
    while visit.page.locator("a[rel=next]").count():
        follow(visit, "a[rel=next]")
        seen += ids(visit)
    with Shelf.open(visit.server.shelf) as shelf:
        assert seen == [stored.product.id for stored in shelf.snapshot().select()]
    assert len(seen) > PRODUCTS


def test_a_condition_filters_and_stays_while_paging(visit: Visit) -> None:
    where = "price < 25 AND title ILIKE '%puzzle%' OR colour = 'red'"
    visit.goto("/shelf")
    visit.page.click("summary >> text=Advanced")
    visit.page.fill("#where", where)
    visit.page.keyboard.press("Enter")
    visit.page.wait_for_url("**/shelf?where=*")
    seen = ids(visit)
    if visit.page.locator("a[rel=next]").count():
        follow(visit, "a[rel=next]")
        seen += ids(visit)
    with Shelf.open(visit.server.shelf) as shelf:
        wanted = [stored.product.id for stored in shelf.snapshot().select(where)]
    assert 0 < len(wanted) <= 72
    assert seen == wanted
    assert visit.page.input_value("#where") == where


@pytest.mark.parametrize(
    ("where", "marked", "column"),
    [
        ("pricee < 20", "pricee", 1),
        ("price < 20 AND foo(title)", "foo(title)", 16),
        ("colour = 'red' OR AND", "AND", 19),
        ("price < 20; DROP TABLE products", ";", 11),
        ("price   <  'x'", "price   <  'x'", 1),
    ],
)
def test_a_wrong_condition_is_shown_at_its_column(
    visit: Visit, where: str, marked: str, column: int
) -> None:
    answer = visit.goto(f"/shelf?where={quote(where)}")
    assert answer.status == 422
    assert visit.page.inner_text("mark") == marked
    assert f"At character {column}:" in visit.page.inner_text("[role=alert]")
    described = visit.page.get_attribute("#where", "aria-describedby") or ""
    assert "where-problem" in described
    assert visit.page.get_attribute("#where", "aria-invalid") == "true"


def test_a_product_shows_what_is_known_and_what_resembles_it(visit: Visit) -> None:
    visit.goto("/product?id=KS-0029")
    with Shelf.open(visit.server.shelf) as shelf:
        product = shelf.snapshot().get("KS-0029").product
        near = shelf.similar(id="KS-0029", k=12).neighbours
    shown = visit.page.inner_text("main")
    for value in (product.title, product.description, product.brand, *product.attributes.values()):
        assert str(value) in shown
    names = [a.inner_text() for a in visit.page.locator(".near .name a").all()]
    assert names == [n.title for n in near]
    assert f"{near[0].similarity:.2f}" in visit.page.inner_text(".near > div")


def test_the_weight_of_the_picture_changes_what_resembles_it(visit: Visit) -> None:
    visit.goto("/product?id=KS-0029")
    visit.page.evaluate("document.querySelector('#weight').value = 1")
    visit.page.click("text=Look again")
    visit.page.wait_for_url("**weight_image=1**")
    with Shelf.open(visit.server.shelf) as shelf:
        near = shelf.similar(id="KS-0029", k=12, weight_image=1).neighbours
    names = [a.inner_text() for a in visit.page.locator(".near .name a").all()]
    assert names == [n.title for n in near]


def test_marked_products_are_compared_side_by_side(visit: Visit) -> None:
    visit.goto("/shelf")
    go = visit.page.locator("[data-compare-go]")
    assert go.is_disabled()
    for box in visit.page.locator(".goods input").all()[:3]:
        box.check()
    go.click()
    visit.page.wait_for_url("**/compare?*")
    wanted = visit.page.locator("thead th").all_inner_texts()
    with Shelf.open(visit.server.shelf) as shelf:
        now = shelf.snapshot()
        first, second, third = now.select(limit=3)
        near = {n.id: n for n in shelf.similar(id=first.product.id, k=now.count).neighbours}
    assert [text.strip() for text in wanted] == [s.product.title for s in (first, second, third)]
    similarities = visit.page.inner_text("tbody tr")
    for other in (second, third):
        assert f"{near[other.product.id].similarity:.2f}" in similarities


def test_hostile_titles_and_ids_are_text_and_their_links_work(visit: Visit) -> None:
    visit.goto(f"/shelf?where={quote('category IS NULL AND NOT has_image')}")
    links = visit.page.locator(".goods .name")
    place = [i for i, text in enumerate(links.all_inner_texts()) if text == HOSTILE]
    with visit.page.expect_navigation():
        links.nth(place[0]).click()
    assert visit.page.inner_text("h1") == HOSTILE
    assert HOSTILE_ID in visit.page.inner_text("main")
    assert visit.page.locator("main script, main [onerror], main i").count() == 0


def test_thumbnails_are_small_and_asked_for_once(client: httpx.Client, server: Any) -> None:
    page = client.get("/shelf").text
    address = re.search(r'src="(/thumbnail[^"]+)"', page)
    assert address is not None
    first = client.get(address[1].replace("&amp;", "&"))
    assert first.status_code == 200
    assert first.headers["content-type"] == "image/jpeg"
    assert len(first.content) < 20_000
    assert "immutable" in first.headers["cache-control"]
    assert first.headers["accept-ranges"] == "none"
    tag = first.headers["etag"]
    again = client.get(address[1].replace("&amp;", "&"), headers={"If-None-Match": tag})
    assert again.status_code == 304
    assert again.content == b""
    with Shelf.open(server.shelf) as shelf:
        stored = next(s for s in shelf.snapshot().select(limit=5) if s.image_hash)
    assert stored.image_hash is not None
    assert stored.image_hash in client.get(f"/thumbnail?id={stored.product.id}").headers["etag"]


def test_no_path_leads_to_a_picture(client: httpx.Client, server: Any) -> None:
    with Shelf.open(server.shelf) as shelf:
        path = next(s.product.image for s in shelf.snapshot().select() if s.has_image)
    assert path is not None
    for asked in (path, f"file://{path}", "../../etc/passwd", ""):
        answer = client.get("/thumbnail", params={"id": asked})
        assert answer.status_code == 404
        assert answer.headers["content-type"].startswith("image/svg+xml")
    for asked in ("../templates/layout.html", "%2e%2e/app.py", "app.py"):
        assert client.get(f"/static/{asked}").status_code == 404


def test_pages_are_read_while_another_process_adds(client: httpx.Client, server: Any) -> None:
    source = str(catalogue_dir() / "new_category.csv")
    code = "import sys; from kinshelf.cli import main; main()"
    command = [sys.executable, "-c", code, "add", source, "--quiet", "--shelf", str(server.shelf)]
    totals = []
    with subprocess.Popen(command) as adding:
        while adding.poll() is None:
            page = client.get("/shelf")
            assert page.status_code == 200
            totals.append(int(re.findall(r">(\d+) products", page.text)[0]))
    assert adding.returncode == 0
    totals.append(int(re.findall(r">(\d+) products", client.get("/shelf").text)[0]))
    assert totals == sorted(totals)
    assert totals[0] < totals[-1]


def test_what_is_not_there_is_reported_on_a_page(visit: Visit) -> None:
    assert visit.goto("/product?id=KS-9999").status == 404
    assert "no product has the id 'KS-9999'" in visit.page.inner_text("main")
