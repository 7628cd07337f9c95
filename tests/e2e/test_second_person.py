"""Somebody who opens a shared link sees what was shared: the same texts, the same figures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.browser import drawn
from tests.e2e.test_pages_in_a_browser import CHART

NewPage = Callable[..., Any]
SEEN = """() => {
    const charts = [...document.querySelectorAll('.js-plotly-plot')].map(chart => ({
        traces: chart.data.map(({x, y, name, type}) => [name, type, Array.from(x || []), Array.from(y || [])]),
        titles: [...chart.querySelectorAll('.infolayer text')].map(text => text.textContent),
        ranges: [chart._fullLayout.xaxis.range, chart._fullLayout.yaxis.range],
    }));
    const main = document.querySelector('[data-testid="stMainBlockContainer"]');
    return {charts, lines: main.innerText.split('\\n').map(line => line.trim()).filter(Boolean)};
}"""


def settled(page: Any) -> dict[str, Any]:
    """What a page shows once two looks at it see the same."""
    drawn(page, CHART)
    before, now = None, page.evaluate(SEEN)
    while now != before:
        page.wait_for_timeout(300)
        before, now = now, page.evaluate(SEEN)
    return now


def test_a_second_person_opens_a_shared_link_and_sees_the_same_texts_and_figures(
    full_server: str, new_page: NewPage
) -> None:
    first = new_page()
    first.goto(f"{full_server}/pareto?pair=A5_A7&x=over_refusal&method=linear&method=sst_gevp&source=measured")
    mine = settled(first)
    assert any("Over-refusal" in title for title in mine["charts"][0]["titles"])
    first.get_by_test_id("stPopover").filter(has_text="Share").get_by_role("button").click()
    address = first.locator('[data-testid="stPopoverBody"] code').inner_text()
    assert "x=over_refusal" in address and "method=linear" in address
    second = new_page()
    assert second.context != first.context, "another person: no cookie, no storage in common"
    second.goto(address)
    theirs = settled(second)
    assert theirs["charts"] == mine["charts"] and mine["charts"][0]["traces"]
    assert theirs["lines"] == mine["lines"] and len(mine["lines"]) > 10
