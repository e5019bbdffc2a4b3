"""Makes the README's pictures of the page, from the sample: python docs/screenshots.py"""

from __future__ import annotations

import sys
import tempfile
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

from browser import Visit, make_shelf, opened_browser, served  # noqa: E402

from kinshelf.samples import catalogue_dir  # noqa: E402

WIDTH, HEIGHT = 1100, 740
MOST_BYTES = 200_000


def classify(visit: Visit) -> None:
    """The evidence card of a new product."""
    visit.goto("/")
    visit.page.set_input_files("#image", str(catalogue_dir() / "images" / "IN-0001.jpg"))
    visit.page.fill("#text", "Pinebrook Castle Dreams Floor Puzzle, 24 pcs")
    visit.page.click("button.main")
    visit.page.wait_for_selector("#answer .card")


def review(visit: Visit) -> None:
    """An item of the queue, after one decision."""
    visit.goto("/review")
    visit.page.wait_for_selector("article.item")
    visit.page.keyboard.press("1")
    visit.page.wait_for_selector("#status .notice")


def dashboard(visit: Visit) -> None:
    """Counts, quality and drift."""
    visit.goto("/dashboard")


def shoot(visit: Visit, name: str) -> None:
    """Save what the window shows, in few colours."""
    visit.page.evaluate("document.activeElement.blur(), scrollTo(0, 0)")
    visit.page.wait_for_function(
        "() => [...document.images].filter((i) => !i.hidden).every((i) => i.complete)"
    )
    picture = (
        Image.open(BytesIO(visit.page.screenshot()))
        .convert("RGB")
        .quantize(256, dither=Image.Dither.NONE)
    )
    path = HERE / f"{name}.png"
    picture.save(path, optimize=True)
    size = path.stat().st_size
    print(f"{path.name}: {size:,} bytes")
    assert size < MOST_BYTES


def main() -> None:
    """Serve the sample, and visit it."""
    views: dict[str, Any] = {"classify": classify, "review": review, "dashboard": dashboard}
    with tempfile.TemporaryDirectory() as folder:
        shelf = Path(folder) / "sample.shelf"
        make_shelf(shelf, products=10_000, epochs=50)
        with served(shelf) as server, opened_browser() as browser:
            for name, view in views.items():
                window = {"width": WIDTH, "height": HEIGHT}
                scheme = "dark" if name == "dashboard" else "light"
                visit = Visit(browser, server, viewport=window, color_scheme=scheme)
                view(visit)
                shoot(visit, name)
                visit.check()
                visit.context.close()


if __name__ == "__main__":
    main()
