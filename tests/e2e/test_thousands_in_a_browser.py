"""The canvas that draws thousands of points, in a browser without any server: what is drawn, what a hand gets."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from sstmerge_core.plots import pareto
from sstmerge_core.plots.style import known, style
from studio import many

RUNS = pareto.WEBGL_ABOVE + 1
METHODS = ("linear", "ties", "sst_gevp")
MOUNT = """async ([script, figure]) => {
    const module = await import(URL.createObjectURL(new Blob([script], {type: 'text/javascript'})));
    window.told = [];
    window.mount = figure => module.default({
        parentElement: document.body, data: {figure, alt: 'Runs'}, setStateValue: (name, value) => told.push(value),
    });
    mount(figure);
}"""
WHERE = """run => {
    const {marks} = document.querySelector('.many-chart').sstmergeChart;
    const plane = document.querySelector('.plane').getBoundingClientRect();
    const {left, top} = marks.find(mark => mark.trace.customdata[mark.place * mark.trace.columns] === run);
    return [plane.left + left, plane.top + top];
}"""


@pytest.fixture(scope="module")
def shown() -> pd.DataFrame:
    share = [(number % 51) / 50 for number in range(RUNS)]
    told = {
        "run_id": [f"{number:016x}" for number in range(RUNS)],
        "method": [METHODS[number % 3] for number in range(RUNS)],
        "label": [f"α={number} <&>" for number in range(RUNS)],
        "resistance": share,
        "utility": [0.9 * (1 - value) + (number % 7) / 100 for number, value in enumerate(share)],
        "safety_tax": share,
    }
    same = {"source": "measured", "pair": "A5_A7", "status": "finished", "utility_suite": "facts", "split": "test"}
    return pareto.drawable(pd.DataFrame(told).assign(**same, over_refusal=0.25), "resistance", "utility")


@pytest.fixture
def chart(new_page: Callable[..., Any], shown: pd.DataFrame) -> Any:
    """A page with the chart of `shown`."""
    page = new_page(800, 600)
    look = many.LOOK.read_text(encoding="utf-8")
    page.set_content(f'<style>{look}</style><div style="width: 700px"><div class="many-chart"></div></div>')
    page.evaluate(MOUNT, [many.SCRIPT.read_text(encoding="utf-8"), pareto.figure(shown).to_json()])
    page.wait_for_function(f"() => document.querySelector('.plane canvas').dataset.points === '{RUNS}'")
    return page


def test_every_run_is_a_point_and_the_one_under_the_hand_tells_its_five_lines(chart: Any, shown: pd.DataFrame) -> None:
    place = int(shown.index[~shown["on_front"]][5])
    chart.mouse.move(*chart.evaluate(WHERE, place))
    lines = chart.locator(".tip > *").all_inner_texts()
    row = shown.iloc[place]
    assert len(lines) == 5
    assert "<&>" in lines[0]
    assert "A5_A7" in lines[1]
    assert lines[2].startswith("Resistance ")
    assert re.fullmatch(r"Utility \d\.\d{3}", lines[3])
    assert float(lines[2].split()[1]) == pytest.approx(row["resistance"], abs=0.03)


def test_a_click_a_box_a_lasso_and_a_second_click_say_what_is_selected(chart: Any, shown: pd.DataFrame) -> None:
    place = int(shown.index[~shown["on_front"]][5])
    across, up = chart.evaluate(WHERE, place)
    chart.mouse.click(across, up)
    (told,) = chart.evaluate("() => told")
    (run,) = pareto.clicked(shown, many.selection(told)["points"])
    clicked = shown[shown["run_id"] == run].iloc[0]
    assert clicked["resistance"] == pytest.approx(shown.iloc[place]["resistance"], abs=0.03)

    chart.mouse.move(200, 100)
    chart.mouse.down()
    chart.mouse.move(400, 300, steps=2)
    chart.mouse.up()
    (box,) = many.selection(chart.evaluate("() => told.at(-1)"))["box"]
    assert box["x"] == sorted(box["x"])
    assert box["y"] == sorted(box["y"])
    inside = shown["resistance"].between(*box["x"]) & shown["utility"].between(*box["y"])
    lit = "() => { const {marks, chosen} = document.querySelector('.many-chart').sstmergeChart; "
    lit += "return marks.filter(mark => chosen(mark.trace, mark.place)).length; }"
    # the picture has single precision
    assert chart.evaluate(lit) == pytest.approx(inside.sum(), abs=2)
    assert 0 < inside.sum() < len(shown)

    chart.get_by_role("button", name="Lasso").click()
    chart.mouse.move(200, 100)
    chart.mouse.down()
    for corner in ((400, 120), (380, 300), (210, 280)):
        chart.mouse.move(*corner)
    chart.mouse.up()
    told = many.selection(chart.evaluate("() => told.at(-1)"))
    assert [len(area["x"]) for area in told["lasso"]] == [4]
    assert told["box"] == told["points"] == []

    chart.mouse.dblclick(300, 200)
    assert many.selection(chart.evaluate("() => told.at(-1)")) == {"points": [], "box": [], "lasso": []}


def test_a_rectangle_is_enlarged_and_everything_comes_back(chart: Any) -> None:
    ranges = (
        "() => { const {xs, ys} = document.querySelector('.many-chart').sstmergeChart.frame; return [...xs, ...ys]; }"
    )
    before = chart.evaluate(ranges)
    chart.get_by_role("button", name="Zoom").click()
    chart.mouse.move(200, 100)
    chart.mouse.down()
    chart.mouse.move(400, 300, steps=2)
    chart.mouse.up()
    x_low, x_high, y_low, y_high = chart.evaluate(ranges)
    assert before[0] < x_low < x_high < before[1]
    assert before[2] < y_low < y_high < before[3]
    chart.get_by_role("button", name="Whole").click()
    assert chart.evaluate(ranges) == before


def test_the_legend_hides_a_method_and_shows_it_alone(chart: Any, shown: pd.DataFrame) -> None:
    drawn = "() => Number(document.querySelector('.plane canvas').dataset.points)"
    own = int(shown["method"].eq("ties").sum())
    entry = chart.get_by_role("button", name=style("ties").title, exact=True)
    entry.click()
    assert chart.evaluate(drawn) == RUNS - own
    assert entry.get_attribute("aria-pressed") == "false"
    entry.click()
    entry.dblclick(delay=20)
    assert chart.evaluate(drawn) == own


def test_the_same_figure_again_keeps_the_selection_and_another_axis_does_not(chart: Any, shown: pd.DataFrame) -> None:
    chosen = "() => Boolean(document.querySelector('.many-chart').sstmergeChart.chosen)"
    chart.mouse.click(*chart.evaluate(WHERE, 7))
    assert chart.evaluate(chosen)
    chart.evaluate("figure => mount(figure)", pareto.figure(shown).to_json())
    assert chart.evaluate(chosen)
    other = pareto.figure(shown, x="safety_tax")
    chart.evaluate("figure => mount(figure)", other.to_json())
    assert not chart.evaluate(chosen)


def test_every_symbol_that_a_method_has_is_drawn_as_itself() -> None:
    script = many.SCRIPT.read_text(encoding="utf-8")
    table = script[script.index("const CORNERS") : script.index("const INSIDE")]
    drawn = set(re.findall(r'^  "?([\w-]+)"?:', table, re.MULTILINE)) | {"circle"}
    drawn |= {f"{outside}-{inside}" for outside in ("circle", "square") for inside in ("cross", "x")}
    assert {style(name).symbol for name in known()} <= drawn


@pytest.mark.parametrize(
    "told",
    [None, "x", [], {"points": "all"}, {"points": [{"customdata": ["x"]}, {"customdata": []}, 3]},
     {"box": [{"x": [0, 1, 2], "y": [0, 1, 2]}, {"x": [0, float("nan")], "y": [0, 1]}, {"x": [1]}]},
     {"lasso": [{"x": [0, 1], "y": [0, 1]}, {"x": [0, 1, 2], "y": [0, 1]}]}],
    ids=json.dumps,
)  # fmt: skip
def test_what_no_chart_would_say_selects_nothing(told: Any) -> None:
    assert many.selection(told) == {"points": [], "box": [], "lasso": []}
