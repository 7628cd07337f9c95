"""The picture that stands in for the chart of thousands while the browser loads the chart's code."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from urllib.parse import unquote

import pandas as pd
import pytest

from sstmerge_core.plots import pareto, preview
from sstmerge_core.plots.style import style

METHODS = ("linear", "task_arithmetic", "sst_gevp")


def runs(n: int, **changes: object) -> pd.DataFrame:
    share = [number / max(n - 1, 1) for number in range(n)]
    return pd.DataFrame(
        {
            "run_id": [f"{number:016x}" for number in range(n)],
            "source": "measured",
            "pair": "A5_A7",
            "method": [METHODS[number % 3] for number in range(n)],
            "label": "",
            "status": "finished",
            "utility_suite": "facts",
            "split": "test",
            "resistance": share,
            "utility": [1 - value for value in share],
            "safety_tax": [10 * value for value in share],
        }
    ).assign(**changes)


def drawing(html: str) -> str:
    found: list[str] = []

    class Images(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            if tag == "img":
                found.append(dict(attrs)["src"] or "")

    Images().feed(html)
    return unquote(found[0].removeprefix("data:image/svg+xml,"))


def places(html: str) -> list[tuple[str, float, float]]:
    """Colour and place of each point, as shares of the picture's width and height from below."""
    found = []
    for path in re.findall(r"<path [^>]*>", drawing(html)):
        color = re.search(r'stroke="(#\w+)"', path)
        assert color
        for left, top in re.findall(r"M(\d+),(\d+)h0", path):
            found.append((color[1], int(left) / preview.GRID, 1 - int(top) / preview.GRID))
    return found


def test_every_run_is_one_point_in_its_method_s_colour_where_the_chart_will_have_it() -> None:
    shown = pareto.drawable(runs(90), "resistance", "utility")
    low, high = pareto.limits(shown, pareto.MEASURES["resistance"])
    found = places(preview.preview(shown, "resistance", "utility"))
    shares = (shown["resistance"] - low) / (high - low)
    wanted = sorted((style(method).color, share) for method, share in zip(shown["method"], shares, strict=True))
    assert [color for color, _, _ in sorted(found)] == [color for color, _ in wanted]
    assert [left for _, left, _ in sorted(found)] == pytest.approx([share for _, share in wanted], abs=1e-4)
    assert all(up == pytest.approx(1 - left, abs=1e-3) for _, left, up in found)


def test_the_front_lies_on_top_and_reported_figures_are_told_apart() -> None:
    both = pd.concat([runs(6, utility=0.5), runs(6, source="reported", pair="X_Y", utility=0.4)], ignore_index=True)
    shown = pareto.drawable(both, "resistance", "utility")
    paths = re.findall(r"<path [^>]*>", drawing(preview.preview(shown, "resistance", "utility")))
    clear = [float(re.findall(r'stroke-opacity="([\d.]+)"', path)[0]) == 1.0 for path in paths]
    assert clear == sorted(clear)
    assert {re.findall(r'stroke-width="(\d+)"', path)[0] for path in paths} == {str(preview.POINT), str(preview.SMALL)}


def test_the_axes_have_their_titles_and_about_six_round_numbers() -> None:
    shown = pareto.drawable(runs(30), "safety_tax", "utility")
    html = preview.preview(shown, "safety_tax", "utility")
    assert "Safety tax" in html and "Utility (higher is better)" in html
    assert [text for text in ("0", "2", "4", "6", "8", "10") if f">{text}</span>" not in html] == []
    assert [text for text in ("0", "0.2", "0.8", "1") if f">{text}</span>" not in html] == []


def test_ten_thousand_runs_are_less_than_a_fifth_of_a_megabyte() -> None:
    shown = pareto.drawable(runs(10_000), "resistance", "utility")
    html = preview.preview(shown, "resistance", "utility")
    assert len(places(html)) == 10_000
    assert len(html) < 200_000


def test_a_single_run_has_its_place_too() -> None:
    shown = pareto.drawable(runs(1), "resistance", "utility")
    ((_, left, up),) = places(preview.preview(shown, "resistance", "utility"))
    assert 0 < left < 1 and 0 < up < 1
