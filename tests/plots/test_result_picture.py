"""Pictures of any query's result."""

from __future__ import annotations

import pandas as pd
import pytest

from sstmerge_core.plots import result
from sstmerge_core.plots.result import NONE, Chart
from sstmerge_core.plots.style import style

CURVES = pd.DataFrame(
    {
        "method": ["ties", "ties", "linear", "linear"],
        "alpha": [0.5, 0.1, 0.5, 0.1],
        "resistance": [0.6, 0.2, 0.7, None],
        "resistance_low": [0.5, 0.1, 0.6, None],
        "resistance_high": [0.7, 0.3, 0.8, None],
    }
)
TOPICS = pd.DataFrame({"topic": ["fraud/fake-invoices-by-mail", "hacking"], "refused": [0.25, 0.5]})


@pytest.mark.parametrize(
    ("frame", "chart"),
    [
        (CURVES, Chart("line", "alpha", "resistance", "method")),
        (TOPICS, Chart("bar", "topic", "refused", NONE)),
        (CURVES[["method", "resistance"]].assign(utility=0.5), Chart("scatter", "resistance", "utility", "method")),
        (pd.DataFrame({"a": [1, 2], "b": [3.0, 4.0]}), Chart("scatter", "a", "b", NONE)),
        (pd.DataFrame({"a": [1.0, 2.0]}), Chart("histogram", "a", "", NONE)),
        (pd.DataFrame({"text": ["a", "b"]}), Chart("histogram", "text", "", NONE)),
        (
            pd.DataFrame({"t": pd.to_datetime(["2026-01-01", "2026-01-02"]), "runs": [1, 2]}),
            Chart("line", "t", "runs", NONE),
        ),
        (
            pd.DataFrame({"run_id": ["x", "y"], "label": ["a", "b"], "seconds": [1, 2]}),
            Chart("bar", "label", "seconds", NONE),
        ),
    ],
)
def test_the_picture_suits_the_columns(frame: pd.DataFrame, chart: Chart) -> None:
    assert result.usable(frame, {}) == chart


@pytest.mark.parametrize("frame", [CURVES.head(0), pd.DataFrame({"nested": [[1], [2]]})])
def test_where_nothing_can_be_drawn_there_is_no_picture(frame: pd.DataFrame) -> None:
    assert result.usable(frame, {}) is None


def test_what_is_asked_for_counts_as_far_as_the_columns_allow_it() -> None:
    asked = {"kind": "scatter", "x": "resistance", "y": "resistance", "colour": NONE}
    assert result.usable(CURVES, asked) == Chart("scatter", "resistance", "resistance_low", NONE)
    assert result.usable(CURVES, {"kind": "pie", "y": "nope"}) == result.usable(CURVES, {})


def test_a_line_runs_along_x_whatever_the_order_of_the_rows() -> None:
    fig = result.figure(CURVES, Chart("line", "alpha", "resistance", "method"))
    traces = {trace.name: trace for trace in fig.data}
    assert list(traces["ties"].x) == [0.1, 0.5] and list(traces["ties"].y) == [0.2, 0.6]
    assert list(traces["linear"].x) == [0.5], "a row without a value is left out"
    assert traces["ties"].error_y.array == pytest.approx((0.1, 0.1))


def test_a_methods_colour_is_its_own_also_where_k_tells_its_series_apart() -> None:
    frame = pd.DataFrame({"s": ["sst_gevp k=20", "sst_gevp k=60", "mine"], "x": [1, 2, 3], "y": [1, 2, 3]})
    traces = {trace.name: trace for trace in result.figure(frame, Chart("line", "x", "y", "s")).data}
    assert traces["sst_gevp k=20"].line.color == traces["sst_gevp k=60"].line.color == style("sst_gevp").color
    assert traces["sst_gevp k=20"].line.dash != traces["sst_gevp k=60"].line.dash
    assert traces["mine"].line.color != style("sst_gevp").color


def test_bars_of_text_lie_in_the_order_of_the_result_with_labels_that_fit_a_telephone() -> None:
    fig = result.figure(TOPICS, Chart("bar", "topic", "refused", NONE))
    (bars,) = fig.data
    assert bars.orientation == "h" and list(bars.y) == list(TOPICS["topic"]) and list(bars.x) == [0.25, 0.5]
    assert fig.layout.yaxis.autorange == "reversed"
    assert list(fig.layout.yaxis.ticktext) == ["fraud/fake-invoices-b…", "hacking"]


def test_the_rarest_of_many_values_share_a_colour_and_this_is_said() -> None:
    frame = pd.DataFrame({"who": [f"p{n:02}" for n in range(12)] + ["p00"], "x": range(13), "y": range(13)})
    chart = Chart("scatter", "x", "y", "who")
    names = [trace.name for trace in result.figure(frame, chart).data]
    assert len(names) == 9 and names[-1] == result.OTHER and "p00" in names
    assert any("8 commonest values of who" in remark for remark in result.remarks(frame, chart))


def test_rows_left_out_and_rows_over_one_another_are_told() -> None:
    remarks = " ".join(result.remarks(CURVES, Chart("line", "alpha", "resistance", NONE)))
    assert "1 of 4 rows have no value" in remarks and "Several rows share a point" in remarks
    assert "Several" not in " ".join(result.remarks(CURVES, Chart("line", "alpha", "resistance", "method")))


def test_bars_beyond_what_can_be_read_are_cut_and_said_to_be() -> None:
    frame = pd.DataFrame({"name": [f"n{number}" for number in range(100)], "y": range(100)})
    chart = Chart("bar", "name", "y", NONE)
    assert len(result.figure(frame, chart).data[0].y) == 60
    assert "The first 60 of 100 values of name are drawn." in result.remarks(frame, chart)


def test_text_from_the_database_cannot_become_markup() -> None:
    frame = pd.DataFrame({"label": ["<b>x</b>", "<i>y</i>"], "x": [1, 2], "y": [1, 2]})
    (first, _) = result.figure(frame, Chart("scatter", "x", "y", "label")).data
    assert first.name == "&lt;b&gt;x&lt;/b&gt;" and first.hovertext[0].startswith("&lt;b&gt;x&lt;/b&gt;<br>x: 1")
    bars = result.figure(frame, Chart("bar", "label", "y", NONE))
    assert bars.layout.yaxis.ticktext[1] == "&lt;i&gt;y&lt;/i&gt;"


def test_thousands_of_points_are_drawn_by_webgl() -> None:
    frame = pd.DataFrame({"x": range(3000), "y": range(3000)})
    assert result.figure(frame, Chart("scatter", "x", "y", NONE)).data[0].type == "scattergl"


def test_whole_numbers_beside_null_and_truth_values_can_be_drawn() -> None:
    frame = pd.DataFrame({"k": pd.array([20, None], dtype="Int64"), "ok": [True, False], "n": [1, 2]})
    assert list(result.figure(frame, Chart("bar", "ok", "n", NONE)).data[0].y) == ["True", "False"]
    assert list(result.figure(frame, Chart("scatter", "n", "k", NONE)).data[0].y) == [20.0]
