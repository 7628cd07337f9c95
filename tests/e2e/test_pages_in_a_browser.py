"""What only a browser shows: nothing scrolls sideways, charts are drawn, selections travel in links."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from benchmarks.browser import drawn, serving

CHART = ".js-plotly-plot .main-svg"
SOMETHING = '[data-testid="stMainBlockContainer"] [data-testid="stElementContainer"]'
MARKS = {
    "": CHART,
    "adapters": '[data-testid="stDataFrame"]',
    "prompts": '[data-testid="stDataFrame"]',
    "merge": ".st-key-merge-launch",
    "sweep": ".st-key-sweep-launch",
    "pareto": CHART,
    "alpha_curves": CHART,
    "run": '[data-testid="stDataFrame"]',
    "query": "textarea",
    "train": SOMETHING,
    "compare": SOMETHING,
    "playground": SOMETHING,
    "experiments": SOMETHING,
    "report": SOMETHING,
}
BACKGROUND = "getComputedStyle(document.querySelector('[data-testid=\"stApp\"]')).backgroundColor"
DARK, LIGHT = "rgb(18, 22, 29)", "rgb(253, 253, 252)"
NewPage = Callable[..., Any]


@pytest.mark.parametrize("path", MARKS)
def test_page_fits_a_telephone_and_a_desk_and_asks_no_other_server(
    full_server: str, walker: Callable[[str], Any], path: str
) -> None:
    visitor = walker(full_server)
    page = visitor.open(path)
    drawn(page, MARKS[path])
    assert page.locator('[data-testid="stException"]').count() == 0
    assert _scroll_width(page) <= 390
    if MARKS[path] == CHART:
        top = page.locator(CHART).first.bounding_box()["y"]
        assert top < 844 / 2, "more than half of the first screen comes before the chart"
    assert _serious(page) == []
    page.emulate_media(color_scheme="light")
    page.set_viewport_size({"width": 1440, "height": 900})
    drawn(page, MARKS[path])
    assert _scroll_width(page) <= 1440
    assert _background(page) == LIGHT
    assert _serious(page) == []
    assert [url for url in visitor.asked if not url.startswith((full_server, "data:", "blob:"))] == []


@pytest.mark.parametrize("path", MARKS)
def test_page_of_an_empty_workspace_says_what_to_do(empty_server: str, walker: Callable[[str], Any], path: str) -> None:
    page = walker(empty_server).open(path)
    page.wait_for_selector('[data-testid="stApp"][data-test-script-state="notRunning"]')
    page.wait_for_selector('[data-testid="stMain"] [data-testid="stElementContainer"]')
    assert page.locator('[data-testid="stException"]').count() == 0
    assert _scroll_width(page) <= 390
    assert page.locator(".st-key-window").count() == 1, "without it links open new tabs and ? does nothing"
    assert _serious(page) == []
    page.emulate_media(color_scheme="light")
    page.wait_for_function(f"() => {BACKGROUND} === '{LIGHT}'")
    assert _serious(page, only=["color-contrast"]) == []


def test_dark_survives_a_reload(full_server: str, new_page: NewPage) -> None:
    page = new_page(dark=True)
    page.goto(full_server)
    drawn(page, CHART)
    before = _background(page)
    page.reload()
    drawn(page, CHART)
    assert before == _background(page) == DARK


def at_rest(place: Any) -> dict[str, float]:
    """Where something is once it no longer moves: a page that grows a scroll bar draws its chart anew."""
    before, now = None, place.bounding_box()
    while now is None or now != before:
        place.page.wait_for_timeout(400)
        before, now = now, place.bounding_box()
    return now


def test_a_clicked_point_fills_the_panel_and_its_link_opens_the_same(full_server: str, new_page: NewPage) -> None:
    page = new_page()
    page.goto(f"{full_server}/pareto?pair=A5_A7&source=measured")
    drawn(page, CHART)
    page.wait_for_selector("text=/The front: \\d+/")
    selected = page.locator("text=/1 of \\d+ selected/").first
    for _ in range(3):  # on a busy machine the chart may be drawn anew between looking and pressing
        point = at_rest(page.locator(".js-plotly-plot .scatterlayer .trace .points path").nth(3))
        page.mouse.move(point["x"] - 30, point["y"] - 30)
        page.mouse.move(point["x"] + point["width"] / 2, point["y"] + point["height"] / 2, steps=4)
        page.mouse.down()
        page.mouse.up()
        with contextlib.suppress(PlaywrightTimeout):
            selected.wait_for(timeout=20_000)
            break
    assert selected.is_visible()
    page.wait_for_url("**run=**")
    second = new_page()
    second.goto(page.url)
    drawn(second, CHART)
    second.wait_for_selector("text=/1 of \\d+ selected/")


def test_a_link_to_a_run_opens_in_the_same_tab_without_loading_everything_again(
    full_server: str, new_page: NewPage
) -> None:
    page = new_page()
    page.goto(full_server)
    drawn(page, CHART)
    page.evaluate("() => { window.before = true }")
    page.locator('a[href^="run?run="]').first.click()
    page.wait_for_url("**/run?run=*")
    page.get_by_text("Judge:").first.wait_for()
    assert len(page.context.pages) == 1
    assert page.evaluate("() => window.before"), "the page was loaded again"
    page.go_back()
    drawn(page, CHART)
    with page.context.expect_page() as opened:
        page.locator('a[href^="run?run="]').first.click(modifiers=["Control"])
    assert "run?run=" in opened.value.url, "with Ctrl a link still gets a tab of its own"


def test_the_question_mark_lists_the_shortcuts_and_leaves_what_is_typed_alone(
    full_server: str, new_page: NewPage
) -> None:
    page = new_page()
    page.goto(f"{full_server}/query")
    drawn(page, "textarea")
    keys = page.get_by_role("dialog", name="Keyboard shortcuts")
    page.locator("textarea").first.press("?")
    assert keys.count() == 0
    page.evaluate("() => document.activeElement.blur()")
    page.keyboard.press("?")
    keys.wait_for()
    assert "Run the query" in keys.inner_text()
    page.keyboard.press("Escape")
    keys.wait_for(state="detached")


def test_back_returns_to_the_filter_before(full_server: str, new_page: NewPage) -> None:
    page = new_page()
    page.goto(f"{full_server}/pareto?pair=A5_A7&method=linear")
    drawn(page, CHART)
    page.locator(".st-key-chip-method-linear button").click()
    page.wait_for_selector(".st-key-chip-method-linear", state="detached")
    page.go_back()
    page.wait_for_selector(".st-key-chip-method-linear")


def test_query_answers_the_sql_that_is_typed(full_server: str, new_page: NewPage) -> None:
    page = new_page()
    page.goto(f"{full_server}/query")
    drawn(page, "textarea")
    page.locator("textarea").fill("SELECT count(*) AS n FROM runs WHERE source = 'measured'")
    page.get_by_role("button", name="Run query").click()
    page.wait_for_selector("text=1 row in")
    page.wait_for_url("**sql=SELECT**")


def test_a_download_that_fails_as_its_page_is_drawn_anew_starts_all_the_same(
    full_server: str, new_page: NewPage
) -> None:
    page = new_page()
    page.goto(f"{full_server}/query?sql=SELECT 1 AS one")
    page.get_by_text(re.compile(r"^1 row in")).first.wait_for(timeout=30_000)
    page.get_by_role("button", name=re.compile("CSV ·")).wait_for()
    page.wait_for_selector('[data-testid="stApp"][data-test-script-state="notRunning"]')
    with page.expect_download() as sent:
        page.evaluate(
            """() => {
              const failure = document.createElement("div");
              failure.dataset.testid = "stDownloadButtonError";
              document.querySelector('[data-testid="stDownloadButton"]').append(failure);
            }"""
        )
    assert Path(sent.value.path()).read_text().split() == ["one", "1"]


def test_the_first_visitor_may_come_by_a_link_and_while_another_process_holds_the_database(
    tmp_path: Path, new_page: NewPage
) -> None:
    script = (
        "import sys, time; from pathlib import Path; from sstmerge_core.store import Owner; "
        "from sstmerge_core.workspace import Workspace; owner = Owner.open(Workspace(Path(sys.argv[1]))); "
        "owner.publish(); print('held', flush=True); time.sleep(600)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with serving(tmp_path) as address:
            page = new_page()
            page.goto(f"{address}/pareto?pair=A5_A7")
            page.wait_for_selector(f"text=process {holder.pid} holds the database")
            page.wait_for_selector('[data-testid="stTopNavLink"]')
            assert page.locator('[data-testid="stSidebarNavLink"]').count() == 0
    finally:
        holder.kill()
        holder.wait()


def _scroll_width(page: Any) -> int:
    return page.evaluate(
        """() => Math.max(document.documentElement.scrollWidth,
            ...[...document.querySelectorAll('[data-testid="stMain"]')].map(part => part.scrollWidth))"""
    )


def _serious(page: Any, *, only: Sequence[str] = ()) -> list[str]:
    """What axe-core calls serious or critical: missing names, contrast, what a keyboard cannot reach; `only`: rules."""
    page.wait_for_function("() => window.sstmergePage")
    options = {"resultTypes": ["violations"]} | ({"runOnly": list(only)} if only else {})
    found = Axe().run(page, options=options).response["violations"]
    return [
        f"{fault['id']}: {node['html'][:200]}"
        for fault in found
        if fault["impact"] in ("serious", "critical")
        for node in fault["nodes"]
    ]


def _background(page: Any) -> str:
    return page.evaluate(f"() => {BACKGROUND}")
