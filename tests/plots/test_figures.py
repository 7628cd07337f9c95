"""Figures are judged by what they say: styles, fronts, hover lines, curves."""

from __future__ import annotations

import base64
import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from sstmerge_core import methods
from sstmerge_core.errors import StoreError
from sstmerge_core.methods.palette import OF_FAMILY
from sstmerge_core.plots import alpha_curves, export, measures, pareto, similarity, spectrum, style, table
from sstmerge_core.plots.area import Box

SHIPPED = ("linear", "task_arithmetic", "ties", "dare_linear", "sst_gevp", "sst_soft", "sst_shield", "sst_reported")
# Machado et al. 2009, severity 1.0, linear RGB
SIMULATED = {
    "no deficiency": np.eye(3),
    "deuteranopia": np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]),
    "protanopia": np.array([[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]]),
    "tritanopia": np.array([[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]]),
}


def runs(**changes: object) -> pd.DataFrame:
    """Four measured merges of one pair, of which the third is dominated."""
    frame = pd.DataFrame(
        {
            "run_id": ["a", "b", "c", "d"],
            "source": "measured",
            "pair": "A5_A7",
            "status": "finished",
            "method": ["linear", "linear", "linear", "sst_gevp"],
            "label": ["Linear α=0.1", "Linear α=0.5", "Linear α=0.6", "SST-Merge (GEVP) α=1 k=20"],
            "alpha": [0.1, 0.5, 0.6, 1.0],
            "resistance": [0.1, 0.5, 0.4, 0.9],
            "utility": [0.9, 0.8, 0.7, 0.6],
            "over_refusal": [0.0, 0.1, 0.2, 0.3],
            "split": "test",
        }
    )
    for name in ("resistance", "utility", "over_refusal"):
        frame[f"{name}_low"], frame[f"{name}_high"], frame[f"{name}_n"] = frame[name] - 0.05, frame[name] + 0.05, 72
    return frame.assign(**changes)


def marks(figure: go.Figure, method: str) -> Any:
    return next(trace for trace in figure.data if (trace.meta or {}).get("method") == method)


@pytest.mark.parametrize("sight", SIMULATED)
def test_the_shipped_methods_colours_stay_apart_for_every_kind_of_sight(sight: str) -> None:
    colors = np.array([_lab(style.style(name).color, SIMULATED[sight]) for name in SHIPPED])
    apart = np.linalg.norm(colors[:, None] - colors[None], axis=-1) + 1000 * np.eye(len(colors))
    assert apart.min() > 14


def test_no_two_methods_look_alike_and_a_new_one_always_looks_the_same() -> None:
    looks = [(look.color, look.symbol, look.dash) for look in map(style.style, [*style.known(), "brand_new"])]
    assert len(set(looks)) == len(looks)
    points = [look[:2] for look in looks[:-1]]
    assert len(set(points)) == len(points), "a point has no dash"
    assert not [symbol for _, symbol, _ in looks if re.fullmatch(r"triangle-[ns][ew]", symbol)], "beside its point"
    assert style.style("brand_new") == style.style("brand_new")
    assert set(methods.names()) <= set(style.known())


@pytest.mark.parametrize("name", methods.names())
def test_a_method_has_the_colour_of_a_family_and_its_title(name: str) -> None:
    look = style.style(name)
    assert look.color in {color for colors in OF_FAMILY.values() for color in colors}
    assert look.title == methods.get(name).title


def test_the_theme_has_the_colours_of_the_methods() -> None:
    config = tomllib.loads((Path(__file__).parents[2] / ".streamlit" / "config.toml").read_text())
    assert set(config["theme"]["chartCategoricalColors"]) == {style.style(name).color for name in SHIPPED}


def test_the_front_leaves_out_dominated_runs_and_is_a_step_line() -> None:
    shown = pareto.drawable(runs(), "resistance", "utility")
    assert set(shown.loc[shown["on_front"], "run_id"]) == {"a", "b", "d"}
    line = next(trace for trace in pareto.figure(shown).data if trace.name == "Front")
    assert line.line.shape == "vh"
    assert list(line.x) == sorted(line.x) and list(line.y) == sorted(line.y, reverse=True)


def test_the_front_turns_with_a_measure_that_should_be_low() -> None:
    shown = pareto.drawable(runs(), "resistance", "over_refusal")
    assert set(shown.loc[shown["on_front"], "run_id"]) == {"a", "b", "d"}


def test_reported_and_measured_runs_never_dominate_each_other() -> None:
    other = runs(source="reported", resistance=1.0, utility=1.0, run_id=["e", "f", "g", "h"])
    shown = pareto.drawable(pd.concat([runs(), other]), "resistance", "utility")
    assert {"a", "b", "d"} <= set(shown.loc[shown["on_front"], "run_id"])


def test_reported_figures_are_hollow() -> None:
    shown = pareto.drawable(runs(source="reported"), "resistance", "utility")
    assert marks(pareto.figure(shown), "linear").marker.symbol == "circle-open"


def test_hover_has_five_lines_with_interval_and_n() -> None:
    trace = marks(pareto.figure(pareto.drawable(runs(), "resistance", "utility")), "linear")
    lines = trace.hovertemplate.removesuffix("<extra></extra>").split("<br>")
    assert len(lines) == 5
    assert lines[2].startswith("Resistance %{x:.3f} [") and " n " in lines[2]
    assert lines[4].startswith("Over-refusal")


def test_axes_say_which_way_is_better() -> None:
    figure = pareto.figure(pareto.drawable(runs(), "resistance", "over_refusal"), y="over_refusal")
    assert figure.layout.xaxis.title.text == "Resistance (higher is better) →"
    assert figure.layout.yaxis.title.text == "← Over-refusal (lower is better)"


def test_ten_thousand_runs_are_drawn_by_webgl_without_bars() -> None:
    many = pd.concat([runs()] * 2500, ignore_index=True)
    many["run_id"] = [str(number) for number in range(len(many))]
    figure = pareto.figure(pareto.drawable(many, "resistance", "utility"))
    trace = marks(figure, "linear")
    assert trace.type == "scattergl" and trace.error_x.array is None


def test_a_click_is_traced_back_to_its_run() -> None:
    shown = pareto.drawable(runs(), "resistance", "utility")
    points = [
        {"customdata": list(row)}
        for trace in pareto.figure(shown).data
        if "method" in (trace.meta or {})
        for row in _custom(trace)
    ]
    assert pareto.clicked(shown, points) == list(shown["run_id"])
    # what a browser sends for a typed array
    assert pareto.clicked(shown, [{"customdata": {"0": 2, "1": 0.5}}, {}]) == [shown["run_id"][2]]


def test_a_box_selects_what_is_inside_it() -> None:
    shown = pareto.drawable(runs(), "resistance", "utility")
    inside = pareto.select(shown, "resistance", "utility", area=Box.parse("0.3,0.95,0.55,0.85"))
    assert set(inside["run_id"]) == {"b", "c", "d"}
    assert list(inside["on_front"]) == [True, True, False]


@pytest.mark.parametrize("text", ["", "1,2,3", "a,b,c,d", "0,1,0,inf"])
def test_a_box_that_is_no_box_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Box.parse(text)


def test_share_and_strength_never_share_an_axis() -> None:
    rows = alpha_curves.with_series(runs())
    assert dict(zip(rows["method"], rows["axis"], strict=True)) == {"linear": "share", "sst_gevp": "strength"}
    figure = alpha_curves.figure(rows, axis="share")
    assert {trace.meta["method"] for trace in figure.data} == {"linear"}
    tuned = alpha_curves.with_series(runs(method="base_slerp"))
    assert set(tuned["axis"]) == {"tuned"} and "tuned" in alpha_curves.AXES


def test_every_meaning_of_alpha_has_an_axis_of_its_own() -> None:
    assert set(methods.AXES) == set(alpha_curves.AXES)


def test_runs_of_two_splits_neither_dominate_each_other_nor_share_a_line() -> None:
    better = runs(split="selection", resistance=1.0, utility=1.0, run_id=["e", "f", "g", "h"])
    both = pd.concat([runs(), better], ignore_index=True)
    shown = pareto.drawable(both, "resistance", "utility")
    assert {"a", "b", "d"} <= set(shown.loc[shown["on_front"], "run_id"])
    assert {"Front", "Front (selection)"} <= {trace.name for trace in pareto.figure(shown).data}
    assert set(shown.loc[shown["split"] == "selection", "name"].str.endswith(" · selection")) == {True}
    assert alpha_curves.with_series(both).groupby("series")["split"].nunique().max() == 1


def test_runs_on_fewer_prompts_are_a_line_of_their_own() -> None:
    few = runs(run_id=["e", "f", "g", "h"]).assign(prompts=16)
    both = alpha_curves.with_series(pd.concat([runs().assign(prompts=64), few], ignore_index=True))
    assert both.groupby("series")["prompts"].nunique().max() == 1
    assert {"prompts=16", "prompts=64"} == set(both["series_note"])
    alone = alpha_curves.with_series(few)
    assert set(alone["series_note"]) == {""}


def test_lines_are_named_by_what_varies_only() -> None:
    labels = [f"SST-Merge (GEVP) α={alpha} k={k} ρ=0.2" for alpha, k in ((1, 20), (2, 20), (1, 60), (2, 60))]
    rows = alpha_curves.with_series(runs(method="sst_gevp", label=labels, alpha=[1.0, 2.0, 1.0, 2.0]))
    assert set(rows["series_name"]) == {"SST-Merge (GEVP) k=20", "SST-Merge (GEVP) k=60"}
    assert rows.groupby("series").size().tolist() == [2, 2]


def test_lines_that_end_together_are_named_beside_each_other_and_never_over_each_other() -> None:
    labels = [f"SST-Merge (GEVP) α={alpha} k={k}" for alpha, k in ((1, 20), (2, 20), (1, 60), (2, 60))]
    same = {"resistance": [0.1, 0.5, 0.2, 0.5], "alpha": [1.0, 2.0, 1.0, 2.0]}
    rows = alpha_curves.with_series(runs(method="sst_gevp", label=labels, **same))
    figure = alpha_curves.figure(rows, axis="strength", row_height=200)
    notes = [each for each in figure.data if (each.meta or {}).get("note") and each.meta["measure"] == "resistance"]
    assert {trace.text[0].strip() for trace in notes} == {"k=20", "k=60"} and {trace.x[0] for trace in notes} == {2.0}
    low, high = sorted(trace.y[0] for trace in notes)
    assert high - low >= 11 / 200 and (low + high) / 2 == pytest.approx(0.5)
    assert not [each for each in alpha_curves.figure(rows.assign(source="reported"), axis="strength").data if each.text]


def test_names_that_are_moved_apart_keep_their_order_and_stay_where_there_is_room() -> None:
    placed = alpha_curves.apart(np.array([0.9, 0.1, 0.5, 0.52]), 0.1)
    assert placed.tolist() == pytest.approx([0.9, 0.1, 0.46, 0.56])
    crowd = alpha_curves.apart(np.array([0.5, 0.5, 0.5, 0.61]), 0.1)
    assert np.diff(np.sort(crowd)).min() >= 0.1 - 1e-9 and crowd.mean() == pytest.approx(0.5275)


def test_only_the_chosen_splits_are_kept_and_reported_figures_whatever_their_split() -> None:
    rows = runs(split=["test", "selection", None, "selection"], source=["measured"] * 3 + ["reported"])
    assert alpha_curves.keep(rows, splits=["test"])["run_id"].tolist() == ["a", "c", "d"]
    assert alpha_curves.keep(rows, splits=["selection"], reported=False)["run_id"].tolist() == ["b"]


def test_a_single_strength_is_drawn_between_nothing_and_all() -> None:
    rows = alpha_curves.with_series(runs(alpha=0.5))
    assert list(alpha_curves.panel(rows).layout.xaxis.range) == [-0.04, 1.04]
    assert alpha_curves.panel(seeds()).layout.xaxis.range is None


def test_a_measure_that_nobody_has_gets_no_panel() -> None:
    rows = alpha_curves.with_series(runs(over_refusal=np.nan))
    figure = alpha_curves.figure(rows, axis="share")
    assert {trace.meta["measure"] for trace in figure.data} == {"resistance", "utility"}


def seeds() -> pd.DataFrame:
    """One line of DARE at three strengths, the middle one with three seeds."""
    labels = [f"DARE α={alpha} seed={seed}" for alpha, seed in ((0.2, 42), (0.5, 42), (0.5, 43), (0.5, 44))]
    values = {"resistance": [0.2, 0.5, 0.6, 0.7], "utility": [0.8, 0.6, 0.5, 0.4], "seed": [42, 42, 43, 44]}
    return alpha_curves.with_series(runs(method="dare_linear", label=labels, alpha=[0.2, 0.5, 0.5, 0.5], **values))


def test_runs_that_differ_only_by_their_seed_are_one_line_with_a_band() -> None:
    rows = seeds()
    assert rows["series"].nunique() == 1
    points = alpha_curves.over_seeds(rows, "resistance")
    assert points["value"].tolist() == pytest.approx([0.2, 0.6])
    assert points[["least", "greatest", "seeds"]].iloc[1].tolist() == pytest.approx([0.5, 0.7, 3])
    assert np.isnan(points["low"][1]) and points["low"][0] == pytest.approx(rows["resistance_low"][0])
    figure = alpha_curves.figure(rows, axis="share")
    bands = [trace for trace in figure.data if (trace.meta or {}).get("band")]
    assert {trace.meta["measure"] for trace in bands} >= {"resistance", "utility"}
    assert sorted(bands[0].y) == pytest.approx([0.5, 0.7])


def test_curves_cross_where_the_straight_lines_between_their_points_do() -> None:
    rows = seeds()
    ((alpha, value),) = alpha_curves.crossings(rows)
    # resistance 0.2 → 0.6 and utility 0.8 → 0.5 over α 0.2 → 0.5: equal after 6/7 of the way
    assert alpha == pytest.approx(0.2 + 0.3 * 6 / 7) and value == pytest.approx(0.2 + 0.4 * 6 / 7)
    assert alpha_curves.crossings(rows.assign(utility=0.1)) == []
    touching = rows.assign(utility=rows["resistance"])
    assert len(alpha_curves.crossings(touching)) == 2


def test_a_panel_has_safety_and_utility_on_one_axis_and_a_ring_where_they_meet() -> None:
    figure = alpha_curves.panel(seeds())
    dashes = {trace.meta["measure"]: trace.line.dash for trace in figure.data if "source" in (trace.meta or {})}
    assert dashes["resistance"] == "solid" and dashes["utility"] == "dash"
    (ring,) = [trace for trace in figure.data if (trace.meta or {}).get("crossing")]
    assert len(ring.x) == 1 and ring.marker.symbol == "circle-open"


def test_a_page_for_colleagues_carries_its_data_and_its_recipes() -> None:
    rows = seeds()
    text = export.page(
        [alpha_curves.panel(rows)], title="t", data=rows[["run_id", "alpha"]], recipes={"a<": "k: 1 & 2"}
    )
    saved = [base64.b64decode(part).decode() for part in re.findall(r"data:text/\w+;base64,([A-Za-z0-9+/=]+)", text)]
    assert rows[["run_id", "alpha"]].to_csv(index=False) in saved and "k: 1 & 2" in saved
    assert "a&lt;" in text and "k: 1 &amp; 2" in text


def test_a_latex_table_escapes_what_latex_would_read() -> None:
    rows = seeds().assign(series_name="50 % of A_5 & τ=2")
    text = export.latex(rows, caption="A5_A7", label="tab:x")
    assert r"50 \% of A\_5 \& $\tau$=2 & 0.2" in text and r"\caption{A5\_A7}" in text
    assert text.count(r" \\") == len(rows) + 1 and "[" in text


def test_a_picture_without_a_browser_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "can_draw_pictures", lambda: False)
    with pytest.raises(StoreError, match="Chromium"):
        export.picture(alpha_curves.panel(seeds()), "png")


def test_a_page_for_colleagues_needs_no_network() -> None:
    figure = alpha_curves.figure(alpha_curves.with_series(runs()), axis="share")
    text = export.page([figure, figure], title="A5_A7 <b>", note="https://example.org")
    assert "<title>A5_A7 &lt;b&gt;</title>" in text
    assert "https://cdn" not in text.split("<body>")[0] and len(text) > 1_000_000


def test_the_spectrum_says_where_k_cuts() -> None:
    values = pd.DataFrame({"idx": range(5), "eigenvalue": [5.0, 4.0, 3.0, 2.0, 0.0]})
    figure = spectrum.figure(values, kept=2)
    assert len(figure.data[0].x) == 4  # zero cannot be on a logarithmic axis
    assert "k = 2" in figure.layout.annotations[0].text


def test_modules_are_laid_out_by_layer_and_kind() -> None:
    stats = pd.DataFrame(
        {
            "module": ["model.layers.1.mlp.up_proj", "model.layers.0.self_attn.q_proj", ""],
            "stat": "cosine",
            "value": [0.5, -0.25, 0.1],
        }
    )
    grid = similarity.by_layer(stats, "cosine")
    assert list(grid.index) == [0, 1] and list(grid.columns) == ["q_proj", "up_proj"]
    assert similarity.figure(stats, "cosine").data[0].zmin == -0.5


def test_beside_the_map_stands_the_mean_of_each_layer() -> None:
    rows = [("layers.0.q_proj", 0.2), ("layers.0.v_proj", 0.4), ("layers.1.q_proj", 0.5), ("", 0.9)]
    stats = pd.DataFrame(rows, columns=["module", "value"]).assign(stat="kept_harm_energy")
    heat, bars = similarity.figure(stats, "kept_harm_energy").data
    assert list(bars.y) == list(heat.y) == ["0", "1"] and list(bars.x) == pytest.approx([0.3, 0.5])


def test_a_map_of_values_below_zero_has_its_middle_at_zero() -> None:
    stats = pd.DataFrame({"module": ["layers.0.q_proj", "layers.1.q_proj"], "stat": "benign_cost"})
    mixed = similarity.figure(stats.assign(value=[-0.001, 0.004]), "benign_cost").data[0]
    assert (mixed.zmin, mixed.zmax) == (-0.004, 0.004)
    above = similarity.figure(stats.assign(value=[0.001, 0.004]), "benign_cost").data[0]
    assert (above.zmin, above.zmax) == (0.0, 0.004)


def test_statistics_of_the_whole_merge_come_in_order_with_unknown_ones_last() -> None:
    rows = [("", "zeta", 1.0), ("", "rank_error", 0.2), ("", "alpha", 1.5), ("layers.0.q_proj", "changed", 1.0)]
    stats = pd.DataFrame(rows, columns=["module", "stat", "value"])
    assert list(similarity.pooled(stats)) == ["alpha", "rank_error", "zeta"]


def test_every_statistic_that_a_merge_reports_has_words() -> None:
    root = Path(__file__).parents[2] / "sstmerge_core"
    reported = set()
    for file in [*(root / "merge").glob("*.py"), root / "adapters" / "write.py", root / "runs" / "execute.py"]:
        reported |= set(re.findall(r'"stat": "(\w+)"', file.read_text()))
    assert {"linear_rule", "changed", "mask_mean", "rank_error"} <= reported
    assert reported <= set(similarity.STATISTICS)


def test_a_long_list_of_methods_is_cut_short() -> None:
    titles = table.method_titles(["linear", "ties", "della", "average", "slerp"])
    assert titles == "Linear · TIES · DELLA · 2 more"
    assert table.method_titles(["linear"]) == "Linear"


def test_search_finds_answers_with_every_word() -> None:
    samples = pd.DataFrame(
        {"prompt": ["Why is rain wet?", "Who wrote it?"], "response": ["Water.", None], "label": ["refusal", "miss"]}
    )
    assert len(table.search(samples, "RAIN water")) == 1
    assert len(table.search(samples, "(")) == 0
    assert list(table.search(samples, "", labels=["miss"])["label"]) == ["miss"]


def test_missing_numbers_are_dashes() -> None:
    assert measures.number(None) == measures.number(float("nan")) == measures.number(pd.NA) == "–"
    assert measures.interval(float("nan"), 0.1) == ""


def _custom(trace: Any) -> np.ndarray:
    return np.asarray(trace.customdata)


def _lab(color: str, simulation: np.ndarray) -> np.ndarray:
    """CIELAB of `color` (#RRGGBB) as a person with this sight sees it."""
    srgb = np.array([int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)])
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ np.clip(simulation @ linear, 0, 1) / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])
