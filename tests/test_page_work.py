"""The page as a place of work, in a browser: find, mark many, change them, take it back."""

from __future__ import annotations

from typing import Any

from browser import Visit

from kinshelf import Shelf


def categories(visit: Visit, ids: list[str]) -> list[str | None]:
    with Shelf.open(visit.server.shelf) as shelf:
        now = shelf.snapshot()
        return [now.get(one).product.category for one in ids]


def shown(visit: Visit) -> list[str]:
    return [box.get_attribute("value") or "" for box in visit.page.locator(".goods input").all()]


def follow(visit: Visit, link: str) -> None:
    with visit.page.expect_navigation():
        visit.page.click(link)


def test_facets_combine_by_clicks_and_chips_take_them_away(visit: Visit) -> None:
    visit.goto("/shelf")
    follow(visit, ".tree a >> text=Home & Kitchen")
    visit.page.click(".facet summary >> text=Colour")
    follow(visit, ".facet >> text=/^(red|blue|green|white|black|purple|yellow)$/ >> nth=0")
    both = shown(visit)
    with Shelf.open(visit.server.shelf) as shelf:
        colour = visit.page.inner_text(".active li:nth-child(2)").split(":")[1].strip(" \u00d7\n")
        where = f"starts_with(category, 'Home & Kitchen | ') AND colour = '{colour.split()[0]}'"
        wanted = [stored.product.id for stored in shelf.snapshot().select(where)]
    assert 0 < len(wanted) <= 36
    assert both == wanted
    follow(visit, ".active li:nth-child(2) a")
    assert set(both) < set(shown(visit)) or len(shown(visit)) == 36
    assert "f=category%3AHome" in visit.page.url


def test_a_row_is_marked_with_shift_and_gets_a_category_and_loses_it_again(visit: Visit) -> None:
    visit.goto("/shelf?sort=title")
    some = shown(visit)[2:7]
    before = categories(visit, some)
    assert visit.page.is_disabled("text=Set category")
    visit.page.click(".goods input >> nth=2")
    visit.page.click(".goods input >> nth=6", modifiers=["Shift"])
    assert visit.page.inner_text("[data-many-count]") == "5 selected"
    visit.page.fill("#many-category", "Toys & Games | Puzzles | Jigsaw Puzzles")
    follow(visit, "text=Set category")
    if visit.page.locator("h1 >> text=A new category?").count():
        follow(visit, "button >> text=Create")
    assert "put into another category" in visit.page.inner_text("#status")
    assert "sort=title" in visit.page.url
    assert len(set(categories(visit, some))) == 1
    with visit.page.expect_navigation():
        visit.page.keyboard.press("u")
    assert "is taken back" in visit.page.inner_text("#status")
    assert categories(visit, some) == before


def test_a_picture_is_shown_at_full_size_and_leaves_by_a_key(visit: Visit) -> None:
    visit.goto("/product?id=KS-0029")
    visit.page.click(".zoom")
    visit.page.wait_for_function("() => document.querySelector('dialog img')?.naturalWidth > 0")
    visit.page.keyboard.press("Escape")
    visit.page.wait_for_selector("dialog", state="detached")


def test_the_tour_is_closed_for_ever(visit: Visit) -> None:
    visit.goto("/")
    visit.page.click("text=Do not show this again")
    assert not visit.page.is_visible(".tour")
    visit.goto("/")
    assert not visit.page.is_visible(".tour")


def test_times_are_in_the_readers_zone(browser: Any, server: Any) -> None:
    visit = Visit(browser, server, timezone_id="Asia/Tokyo")
    visit.goto("/changes")
    time = visit.page.locator("time").first
    utc = time.get_attribute("datetime") or ""
    hour = (int(utc[11:13]) + 9) % 24
    assert f"{hour:02d}:{utc[14:16]}" in time.inner_text()
    visit.context.close()


def test_an_answer_is_added_with_what_was_given(visit: Visit) -> None:
    visit.goto("/")
    visit.page.fill("#text", "A small red fire engine")
    visit.page.click("button.main")
    visit.page.wait_for_selector("#its-id")
    visit.page.fill("#its-id", "engine-1")
    given = visit.page.input_value("#its-category")
    visit.page.click("text=Add to the shelf")
    visit.page.wait_for_url("**/product?id=engine-1*")
    assert categories(visit, ["engine-1"]) == [given]
    with visit.page.expect_navigation():
        visit.page.keyboard.press("u")
    with Shelf.open(visit.server.shelf) as shelf:
        assert not shelf.snapshot().view.by_ids(["engine-1"])


def test_it_works_without_scripts(browser: Any, server: Any) -> None:
    visit = Visit(browser, server, java_script_enabled=False)
    visit.goto("/shelf")
    visit.page.click(".facet summary >> text=Colour")
    follow(visit, ".facet[open] >> text=Count its values")
    assert visit.page.locator(".facet[open] .value >> text=red").count()
    first = shown(visit)[:1]
    before = categories(visit, first)
    visit.page.check(".goods input >> nth=0")
    visit.page.fill("#many-category", "Without scripts")
    follow(visit, "text=Set category")
    follow(visit, "button >> text=Create")
    assert categories(visit, first) == ["Without scripts"]
    follow(visit, "#status >> text=Undo")
    assert categories(visit, first) == before
    visit.context.close()
