"""A page that was saved opens from a file, without a server: its charts, their key and axes, and a table that fits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.plots.test_standalone import exported


def test_an_exported_page_opened_from_a_file_has_its_key_its_axes_and_a_table_that_fits(new_page: Any, tmp_path: Path):
    file = tmp_path / "curves.html"
    file.write_text(exported(), encoding="utf-8")
    page = new_page()
    page.set_default_timeout(15_000)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    for width in (1200, 390):
        page.set_viewport_size({"width": width, "height": 900})
        page.goto(file.as_uri())
        page.wait_for_selector(".main-svg .legend .legendtext")
        key = page.locator(".main-svg .legend").bounding_box()
        title = page.locator(".main-svg .infolayer text", has_text="share of the safety adapter").bounding_box()
        picture = page.locator(".plotly-graph-div").bounding_box()
        assert key and title and picture
        assert key["y"] >= title["y"] + title["height"] - 1, "the key lies over the title of the axis"
        assert key["y"] + key["height"] <= picture["y"] + picture["height"] + 1, "the key is cut off"
        assert {"Resistance →", "Utility →", "← Over-refusal"} <= set(
            page.locator(".main-svg .infolayer text").all_text_contents()
        )
        overflow = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert overflow <= 0, f"{overflow} pixels stick out at {width}"
        cut = page.evaluate("(box => box.scrollWidth - box.clientWidth)(document.querySelector('.wide'))")
        assert cut <= 0, f"{cut} pixels of the table do not fit into {width}"
    assert page.locator("tbody tr").count() == 10 and "<NA>" not in page.locator("table").inner_text()
    assert not faults and all(url.startswith(("file:", "data:", "blob:")) for url in asked)
