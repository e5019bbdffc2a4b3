"""The review queue under a person's keys: each decision is a generation, and can be taken back."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest
from browser import Visit, held, release

from kinshelf import Shelf
from kinshelf.store.operation import user


@pytest.fixture
def visit(browser: Any, server: Any) -> Any:
    visiting = Visit(browser, server)
    visiting.goto("/review")
    visiting.page.wait_for_selector("article.item")
    yield visiting
    visiting.check()
    visiting.context.close()


def shown_id(visit: Visit) -> str:
    return str(visit.page.get_attribute("article input[name=id]", "value"))


def category(visit: Visit, product_id: str) -> str | None:
    with Shelf.open(visit.server.shelf) as shelf:
        return shelf.snapshot().get(product_id).product.category


def newest(visit: Visit) -> dict[str, Any]:
    with Shelf.open(visit.server.shelf) as shelf:
        return shelf.history(1)[0]


def press(visit: Visit, key: str, stated: str) -> None:
    visit.page.keyboard.press(key)
    visit.page.wait_for_function(
        "(words) => document.querySelector('#status').innerText.includes(words)", arg=stated
    )


def test_a_key_gives_a_category_as_a_generation_and_another_takes_it_back(visit: Visit) -> None:
    first, before, start = shown_id(visit), None, newest(visit)["generation"]
    before = category(visit, first)
    offered = str(visit.page.get_attribute(".choices button", "value"))
    press(visit, "1", f"generation {start + 1}")
    assert newest(visit) | {"time": ""} == {
        "generation": start + 1, "time": "", "kind": "relabel", "command": "relabel",
        "inserted": 0, "updated": 1, "removed": 0, "rejected": 0, "kept": True,
        "operation": start + 1, "who": user(),
    }  # fmt: skip
    assert category(visit, first) == offered != before
    assert shown_id(visit) != first
    visit.page.wait_for_function("() => document.activeElement.id === 'item-title'")
    press(visit, "u", f"Generation {start + 1} is undone")
    assert newest(visit)["generation"] == start + 2
    assert category(visit, first) == before
    assert shown_id(visit) == first


def test_the_keys_of_the_help_are_on_the_buttons(visit: Visit) -> None:
    visit.page.click("summary >> text=Keys")
    reported = visit.page.locator(".keys kbd").all_inner_texts()
    assert reported == ["1", "4", "a", "k", "s", "o", "u"]
    hints = visit.page.locator("article kbd").all_inner_texts()
    assert hints == ["1", "2", "3", "4", "k", "s", "o"]


def test_what_is_kept_is_stored_and_skipping_changes_nothing(visit: Visit) -> None:
    first, start = shown_id(visit), newest(visit)["generation"]
    press(visit, "k", f"kept as it is (generation {start + 1})")
    second = shown_id(visit)
    assert second != first
    visit.page.keyboard.press("s")
    visit.page.wait_for_function(
        "(id) => document.querySelector('article input[name=id]').value !== id", arg=second
    )
    assert (newest(visit)["generation"], newest(visit)["kind"]) == (start + 1, "keep")
    visit.goto("/review")
    assert shown_id(visit) == second
    press(visit, "k", f"kept as it is (generation {start + 2})")
    visit.page.wait_for_function("() => document.activeElement.id === 'item-title'")
    press(visit, "u", f"Generation {start + 2} is undone")
    visit.page.wait_for_function(
        "(id) => document.querySelector('article input[name=id]').value === id", arg=second
    )


def test_another_category_can_be_typed_and_keys_go_on_working_after(visit: Visit) -> None:
    first, start = shown_id(visit), newest(visit)["generation"]
    visit.page.keyboard.press("o")
    visit.page.keyboard.type("Toys & Games | Brand <b>new</b>")
    press(visit, "Enter", "no product has the category")
    assert newest(visit)["generation"] == start
    visit.page.click("text=Create “Toys & Games | Brand <b>new</b>”")
    press(visit, "Shift", f"generation {start + 1}")
    assert category(visit, first) == "Toys & Games | Brand <b>new</b>"
    press(visit, "u", "is undone")


def test_keys_can_be_turned_off(visit: Visit) -> None:
    first, start = shown_id(visit), newest(visit)["generation"]
    visit.page.click("summary >> text=Keys")
    visit.page.uncheck("[data-keys]")
    visit.page.locator("h1").click()
    visit.page.keyboard.press("1")
    visit.page.wait_for_timeout(300)
    assert (shown_id(visit), newest(visit)["generation"]) == (first, start)


def test_each_part_of_the_queue_shows_its_own_products(visit: Visit) -> None:
    total = 0
    for link in visit.page.locator(".tabs a").all()[1:]:
        total += int(str(link.inner_text()).split()[-1])
    assert total == int(visit.page.inner_text(".tabs a").split()[-1])
    visit.page.click(".tabs a[href*=sure] >> nth=-1")
    visit.page.wait_for_url("**/review?kind=sure")
    assert category(visit, shown_id(visit)) is None
    assert "accept" in visit.page.inner_text(".item .badge")


def test_a_locked_shelf_states_who_holds_it_and_the_page_tries_again(visit: Visit) -> None:
    first, start = shown_id(visit), newest(visit)["generation"]
    with held(visit.server.shelf) as holder:
        press(visit, "1", f"process {holder.pid}")
        reported = visit.page.inner_text("#status")
        assert "--a-long-import" in reported
        assert "Trying again" in reported
        assert newest(visit)["generation"] == start
        release(holder)
        visit.page.wait_for_function(
            "(words) => document.querySelector('#status').innerText.includes(words)",
            arg=f"generation {start + 1}",
        )
    assert newest(visit)["generation"] == start + 1
    assert shown_id(visit) != first
    press(visit, "u", "is undone")


def test_what_another_changed_meanwhile_is_not_changed_again(visit: Visit) -> None:
    first = shown_id(visit)
    before = category(visit, first)
    with Shelf.open(visit.server.shelf) as shelf:
        shelf.relabel({first: "Toys & Games | Meanwhile"})
    press(visit, "1", "was changed meanwhile")
    assert category(visit, first) == "Toys & Games | Meanwhile"
    with Shelf.open(visit.server.shelf) as shelf:
        shelf.relabel({first: before})


def test_it_works_without_scripts(visit: Visit, browser: Any, server: Any) -> None:
    plain = Visit(browser, server, java_script_enabled=False)
    plain.goto("/review")
    first, start = shown_id(plain), newest(plain)["generation"]
    before = category(plain, first)
    plain.page.click(".choices button")
    assert f"generation {start + 1}" in plain.page.inner_text("#status")
    assert category(plain, first) != before
    plain.page.click("#status >> text=Undo")
    assert category(plain, first) == before
    plain.context.close()


def test_another_site_cannot_decide(visit: Visit, server: Any) -> None:
    first, before = shown_id(visit), newest(visit)["generation"]
    form = {"id": first, "category": "x", "seen": category(visit, first) or ""}
    answer = httpx.post(
        f"{server.url}/review/decide", data=form, headers={"Origin": "https://elsewhere.example"}
    )
    assert answer.status_code == 403
    assert newest(visit)["generation"] == before


def test_a_change_that_was_changed_since_is_not_undone(visit: Visit, server: Any) -> None:
    first, before = shown_id(visit), category(visit, shown_id(visit))
    with Shelf.open(server.shelf) as shelf:
        shelf.relabel({first: "Toys & Games | One"})
        one = shelf.generation
        shelf.relabel({first: "Toys & Games | Two"})
        made = httpx.post(f"{server.url}/review/undo", data={"generation": one})
        assert made.status_code == 422
        assert "was changed since" in re.sub("&#39;", "'", made.text)
        assert shelf.snapshot().get(first).product.category == "Toys & Games | Two"
        shelf.relabel({first: before})
