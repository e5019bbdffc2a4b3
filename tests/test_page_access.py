"""Everybody can use the page: on a phone, by keyboard, with a screen reader, light and dark."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from browser import HOSTILE_ID, Visit, served

PAGES = {
    "classify": "/",
    "shelf": "/shelf",
    "wrong condition": f"/shelf?where={quote('pricee < 20')}",
    "found": "/shelf?q=set&f=category%3AToys+%26+Games&f=price%3A10..20&facet=colour",
    "list": "/shelf?view=list&col=category&col=price&col=id&sort=-price",
    "fill": "/fill",
    "history": "/changes",
    "operation": "/changes/operation?number=1",
    "no match": f"/shelf?where={quote('price < 0')}",
    "product": "/product?id=KS-0029",
    "hostile product": f"/product?id={quote(HOSTILE_ID, safe='')}",
    "compare": "/compare?id=KS-0001&id=KS-0002&id=KS-0003&id=KS-0004",
    "review": "/review",
    "dashboard": "/dashboard",
    "not found": "/product?id=none",
}


def opened(visit: Visit, name: str) -> None:
    visit.goto(PAGES[name])
    if name == "review":
        visit.page.wait_for_selector("article.item")
        visit.page.keyboard.press("k")
        visit.page.wait_for_selector("#status .notice")
        if visit.page.is_visible(".keys"):  # a phone has none
            visit.page.click("summary >> text=Keys")
    if name == "fill":
        visit.page.wait_for_selector(".sheet")
    if name == "classify":
        visit.page.fill("#text", "a red toy car")
        visit.page.click("button.main")
        visit.page.wait_for_selector("#answer .card")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(browser: Any, server: Any, scheme: Any) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    visit = Visit(browser, server, color_scheme=scheme, viewport={"width": 1100, "height": 800})
    found = {}
    for name in PAGES:
        opened(visit, name)
        for violation in axe.run(visit.page).response["violations"]:
            places = [node["html"][:200] for node in violation["nodes"]]
            found[f"{name}: {violation['id']}"] = places
    assert found == {}
    visit.check()
    visit.context.close()


@pytest.mark.parametrize("width", [360, 1280])
def test_no_page_is_wider_than_its_window(browser: Any, server: Any, width: int) -> None:
    visit = Visit(browser, server, viewport={"width": width, "height": 740}, has_touch=width < 500)
    wide = {}
    for name in PAGES:
        opened(visit, name)
        if visit.width() > width:
            wide[name] = visit.width()
    assert wide == {}
    visit.context.close()


def test_the_keyboard_alone_gets_everywhere_and_the_focus_shows(visit: Visit) -> None:
    visit.page.emulate_media(reduced_motion="reduce")
    visit.goto("/shelf")
    visit.page.keyboard.press("Tab")
    assert visit.page.evaluate("document.activeElement.textContent") == "Skip to the content"
    assert visit.page.evaluate("document.activeElement.getBoundingClientRect().top") >= 0
    reached = set()
    for _ in range(60):
        visit.page.keyboard.press("Tab")
        tag, outline, seen = visit.page.evaluate(
            "() => { const e = document.activeElement, r = e.getBoundingClientRect();"
            " return [e.tagName, getComputedStyle(e).outlineStyle,"
            " r.bottom > 0 && r.top < innerHeight] }"
        )
        assert tag == "BODY" or (outline != "none" and seen)
        reached.add(tag)
    assert {"A", "INPUT", "BUTTON"} <= reached


def test_all_that_is_loaded_comes_from_the_server(browser: Any, server: Any) -> None:
    visit = Visit(browser, server)
    visit.context.route(
        lambda url: not url.startswith(server.url),
        lambda route: route.abort("internetdisconnected"),
    )
    for name in PAGES:
        opened(visit, name)
    visit.check()
    assert any(url.endswith(".js") or ".js?" in url for url in visit.asked)
    visit.context.close()


def test_no_script_or_style_stands_in_a_page(server: Any) -> None:
    with httpx.Client(base_url=server.url, timeout=30) as client:
        for path in PAGES.values():
            answer = client.get(path)
            policy = answer.headers["content-security-policy"]
            assert "script-src 'self'" in policy
            assert "unsafe" not in policy
            assert "<script>" not in answer.text
            assert " style=" not in answer.text
            assert " onclick=" not in answer.text


def test_where_tokens_are_asked_for_the_page_asks_once_and_keeps_it_from_scripts(
    browser: Any, sample_shelf: Path, tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("a-token-for-reading read\na-token-for-writing write\n")
    with served(sample_shelf, "--token-file", str(tokens)) as server:
        visit = Visit(browser, server)
        visit.goto("/shelf?page=2")
        assert "/login" in visit.page.url
        visit.page.fill("#token", "not one of them")
        visit.page.keyboard.press("Enter")
        visit.page.wait_for_selector("[role=alert]")
        visit.page.fill("#token", "a-token-for-reading")
        visit.page.keyboard.press("Enter")
        visit.page.wait_for_url("**/shelf?page=2")
        assert visit.page.evaluate("document.cookie") == ""
        visit.goto("/dashboard")
        visit.page.click("button >> text=Train")
        visit.page.wait_for_selector("#status .notice.bad")
        assert "this token may not write" in visit.page.inner_text("#status")
        away = httpx.post(
            f"{server.url}/login", data={"token": "a-token-for-reading", "to": "//evil.example/"}
        )
        assert away.headers["location"] == "/"
        visit.context.close()


def test_under_a_prefix_the_page_works_and_asks_for_nothing_beside_it(
    browser: Any, sample_shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(sample_shelf, "--root-path", "/tools/shop") as server:
        visit = Visit(browser, server)
        for name, path in list(PAGES.items()):
            monkeypatch.setitem(PAGES, name, f"/tools/shop{path}")
            opened(visit, name)
        visit.goto("/tools/shop/")
        visit.page.click("nav >> text=Shelf")
        visit.page.click(".goods .name >> nth=0")
        assert "/tools/shop/product?id=" in visit.page.url
        visit.check()
        addresses = [url for url in visit.asked if not url.startswith(("data:", "blob:"))]
        assert len(addresses) > 30
        assert [u for u in addresses if not u.startswith(f"{server.url}/tools/shop/")] == []
        visit.context.close()
