"""A picture and a title are dropped on the page: the card that the terminal would have shown."""

from __future__ import annotations

import base64
import re
from typing import Any

import pytest
from browser import HOSTILE, Visit

from kinshelf import Shelf
from kinshelf.db.text import percent
from kinshelf.probe import classify
from kinshelf.probe.predict.wording import notes, reason
from kinshelf.samples import catalogue_dir

PICTURE = catalogue_dir() / "images" / "IN-0001.jpg"
TITLE = "Pinebrook Castle Dreams Floor Puzzle, 24 pcs"

DROP = """(place, data) => {
  const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
  const given = new DataTransfer();
  given.items.add(new File([bytes], "new.jpg", { type: "image/jpeg" }));
  place.dispatchEvent(new DragEvent("drop", { dataTransfer: given, bubbles: true }));
}"""


def drop(visit: Visit) -> None:
    data = base64.b64encode(PICTURE.read_bytes()).decode()
    visit.page.locator("[data-drop]").evaluate(DROP, data)


def words(visit: Visit, selector: str) -> str:
    return re.sub(r"\s+", " ", visit.page.inner_text(selector))


def test_a_dropped_picture_and_a_title_give_the_card_that_classify_gives(visit: Visit) -> None:
    visit.goto("/")
    drop(visit)
    visit.page.wait_for_selector(".preview")  # once the browser has decoded it
    visit.page.fill("#text", TITLE)
    visit.page.click("text=Classify >> visible=true >> nth=-1")
    visit.page.wait_for_selector("#answer .card")
    with Shelf.open(visit.server.shelf) as shelf:
        found = classify(shelf, image=str(PICTURE), text=TITLE)
    shown = words(visit, "#answer")
    for sentence in (reason(found), *notes(found), percent(found.probability), found.verdict):
        assert sentence in shown
    for alone in (found.image_only, found.text_only):
        assert alone is not None
        assert percent(alone.probability) in shown
    nearest = found.neighbours[0].neighbour
    for part in (nearest.similarity, nearest.image_similarity, nearest.text_similarity):
        assert f"{part:.2f}" in shown
    visit.page.wait_for_function(
        "() => [...document.querySelectorAll('#answer img')]"
        ".every((i) => i.complete && i.naturalWidth > 8)"
    )
    assert visit.page.locator("#answer img").count() >= 4
    heard = visit.page.text_content("[role=status]#heard")
    assert heard == f"{found.verdict}: {found.category}, {percent(found.probability)}"


def test_a_picture_can_be_taken_back(visit: Visit) -> None:
    visit.goto("/")
    drop(visit)
    visit.page.wait_for_selector(".preview")
    visit.page.click("text=Remove the picture")
    visit.page.wait_for_selector(".preview", state="hidden")
    assert visit.page.evaluate("document.querySelector('#image').files.length") == 0


def test_a_hostile_title_shows_as_text(visit: Visit) -> None:
    visit.goto("/")
    visit.page.fill("#text", HOSTILE)
    visit.page.click("button.main")
    visit.page.wait_for_selector("#answer .card")
    assert re.sub(r"\s+", " ", HOSTILE) in words(visit, "#answer")
    assert visit.page.locator("#answer script, #answer [onerror]").count() == 0


def test_a_picture_that_is_too_large_is_not_sent(visit: Visit) -> None:
    visit.goto("/")
    visit.page.locator("[data-drop]").evaluate("""(place) => {
      const given = new DataTransfer();
      given.items.add(new File([new Uint8Array(26e6)], "huge.png", { type: "image/png" }));
      place.dispatchEvent(new DragEvent("drop", { dataTransfer: given, bubbles: true }));
    }""")
    assert "huge.png is larger than 24 MB" in words(visit, "#status")
    assert visit.page.evaluate("document.querySelector('#image').files.length") == 0


def test_an_answer_meant_for_programs_is_reported_in_words(visit: Visit) -> None:
    reported = {"error": {"type": "TooManyRequests", "message": "ask more slowly"}}
    visit.page.route("**/ask", lambda route: route.fulfill(status=429, json=reported))
    visit.goto("/")
    visit.page.fill("#text", TITLE)
    visit.page.click("button.main")
    visit.page.wait_for_selector("#status .notice")
    assert words(visit, "#status") == "ask more slowly"
    assert "{" not in words(visit, "#answer")


@pytest.mark.parametrize(
    ("name", "data"), [("not.png", b"not a picture"), ("cut.jpg", PICTURE.read_bytes()[:900])]
)
def test_a_file_that_is_no_picture_is_reported_and_the_form_stays(
    visit: Visit, name: str, data: bytes
) -> None:
    visit.goto("/")
    file: Any = {"name": name, "mimeType": "image/png", "buffer": data}
    visit.page.set_input_files("#image", file)
    visit.page.fill("#text", TITLE)
    visit.page.click("button.main")
    visit.page.wait_for_selector("#answer [role=alert]")
    assert visit.page.inner_text("#answer [role=alert]").strip()
    assert visit.page.input_value("#text") == TITLE


def test_nothing_to_ask_about_is_reported(visit: Visit) -> None:
    visit.goto("/")
    visit.page.click("button.main")
    visit.page.wait_for_selector("#answer [role=alert]")
    assert "the query is empty" in words(visit, "#answer")


def test_a_wrong_condition_is_shown_at_its_column(visit: Visit) -> None:
    visit.goto("/")
    visit.page.fill("#text", TITLE)
    visit.page.click("summary")
    visit.page.fill("#where", "price < 20 AND colr = 'red'")
    visit.page.click("button.main")
    visit.page.wait_for_selector("#answer mark")
    assert visit.page.inner_text("#answer mark") == "colr"
    assert "At character 16" in words(visit, "#answer")


def test_it_works_without_scripts(browser: Any, server: Any) -> None:
    visit = Visit(browser, server, java_script_enabled=False)
    visit.goto("/")
    visit.page.set_input_files("#image", str(PICTURE))
    visit.page.fill("#text", TITLE)
    visit.page.click("button.main")
    assert "Probe and neighbours" in words(visit, "#answer")
    assert visit.page.input_value("#text") == TITLE
    visit.context.close()
