"""Measures against α, one line per method and its other parameters: together, or a small panel per method or pair.

Runs that differ only by their seed are one line: the mean, in a band from the least to the greatest.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from sstmerge_core import methods
from sstmerge_core.errors import RecipeError
from sstmerge_core.plots.measures import MEASURES
from sstmerge_core.plots.style import LEGEND, faded, marker_symbol, order, style

AXES = {
    "share": "α = share of the safety adapter",
    "strength": "α = strength of the safety patch",
    "tuned": "α = share of the tuned model",
}
"""Meanings of α that must never share an axis: a share of 1 is the safety adapter alone, a strength of 1 is not."""
MEASURE_DASH = {"resistance": "solid", "utility": "dash", "over_refusal": "dot"}
"""In a panel of its own a measure is told by its line, for the colour is the method"""
PANEL_HEIGHT = 300
LEAST = 3
"""Values of α that make a curve"""
BARS = 400
"""Points of a line beyond which interval bars would be one grey area; hovering still tells each"""
NOTES = 12
"""Lines of a panel that are named at their end at most; beyond, and where a name is long, the legend must do"""
MOVED = 1.6
"""Lines of text by which a name may stand higher or lower than the end of its line; with less room there is none"""
LETTERS, PANEL_LETTERS = 18, 8
"""Of such a name at most, in the large figure and in a small panel"""
NOTE_SIZE = 11
"""Pixels"""
_TIGHT = 0.09
"""Of the height of a panel: two names need that much between them"""
_AWAY = "\N{NO-BREAK SPACE}" * 3
"""Between a point and its name"""
Trace = dict[str, Any]
"""As in `pareto_traces`: a figure checks it once"""
_ALPHA = r" *(?:α|seed)=[^ ]+"
_TOKEN = re.compile(r"\S+=\S+|layer-wise")
_PROMPTS = ("split=", "prompts=")
_DASHES = ("solid", "dash", "dashdot", "longdash", "dot", "longdashdot")
_MARKS = ("circle", "square", "diamond", "cross", "x", "triangle-up", "pentagon", "star")
"""Markers of the lines that are not a method's first"""


def axis_of(method: str) -> str:
    """What α means; in figures of methods that we do not run it is a share, as in their tables, but for SST's."""
    try:
        return methods.get(method).axis or "share"
    except RecipeError:
        return "strength" if method.startswith("sst_") else "share"


def with_series(curves: pd.DataFrame) -> pd.DataFrame:
    """`curves` with `axis`, `series` (identifies one line), `series_name` and `series_note` (only what varies), by α.

    Two runs belong to one line when nothing but α and the seed differs: neither a parameter, nor the prompts. Among the
    lines of one method `series_dash` counts the parameters (k first of all), `series_mark` the prompts and splits, and
    `series_place` all of them.
    """
    rows = curves.dropna(subset=["alpha"]).copy()
    known = rows["method"].unique()
    rows["axis"] = rows["method"].map({method: axis_of(method) for method in known})
    rest = rows.get("recipe_label", rows["label"]).fillna("").str.replace(_ALPHA, "", regex=True).str.strip()
    splits = rows["split"].fillna("test")
    rest = rest.where(splits == "test", rest + " split=" + splits)
    if "prompts" in rows:
        counts = {n: f" prompts={n:.0f}" for n in rows["prompts"].dropna().unique()}
        rest = rest + rows["prompts"].astype(object).map(counts).fillna("").astype(rest.dtype)
    rows["series"] = rows["source"] + "|" + rows["method"] + "|" + rest
    names: dict[str, str] = {}
    notes: dict[str, str] = {}
    dashes: dict[str, int] = {}
    marks: dict[str, int] = {}
    ranked: dict[str, int] = {}
    lines = rows[["method", "source", "series"]].assign(rest=rest).drop_duplicates("series")
    for (method, source), group in lines.groupby(["method", "source"], sort=False):
        tokens = {key: _TOKEN.findall(text) for key, text in zip(group["series"], group["rest"], strict=True)}
        shared = set.intersection(*(set(found) for found in tokens.values()))
        title = style(str(method)).title + (" (reported)" if source == "reported" else "")
        for key, found in tokens.items():
            names[key] = " ".join([title, *(token for token in found if token not in shared)])
            notes[key] = " ".join(token for token in found if token not in shared)
        asked = {key: tuple(token for token in found if token.startswith(_PROMPTS)) for key, found in tokens.items()}
        own = {key: tuple(token for token in found if token not in asked[key]) for key, found in tokens.items()}
        for ranks, told in ((dashes, own), (marks, asked)):
            kinds = sorted(set(told.values()), key=_by_numbers)
            ranks |= {key: kinds.index(kind) for key, kind in told.items()}
        ordered = sorted(tokens, key=lambda key: (dashes[key], marks[key]))
        ranked |= {key: place for place, key in enumerate(ordered)}
    codes, keys = pd.factorize(rows["series"])  # a line's words are looked up once, not once a run
    for column, words in (("series_name", names), ("series_note", notes)):
        rows[column] = pd.array([words[key] for key in keys], dtype="str").take(codes)
    for column, counted in (("series_dash", dashes), ("series_mark", marks), ("series_place", ranked)):
        rows[column] = np.array([counted[key] for key in keys], dtype=int).take(codes)
    places = {method: place for place, method in enumerate(sorted(known, key=order))}
    first = [(places[method], key) for key, method in zip(lines["series"], lines["method"], strict=True)]
    ranks = {key: rank for rank, (_, key) in enumerate(sorted(first))}
    by = np.lexsort([rows["alpha"].to_numpy(dtype=float), np.array([ranks[key] for key in keys], dtype=int)[codes]])
    return rows.take(by).reset_index(drop=True)


def keep(
    runs: pd.DataFrame, *, methods: Sequence[str] = (), splits: Sequence[str] = (), reported: bool = True
) -> pd.DataFrame:
    """The rows of these methods and splits (none named: all), with or without the reported figures."""
    wanted = np.ones(len(runs), dtype=bool)
    others = (runs["source"] == "reported").to_numpy()
    if methods:
        wanted &= runs["method"].isin(methods).to_numpy()
    if splits:
        wanted &= runs["split"].fillna("test").isin(splits).to_numpy() | others
    return runs[wanted if reported else wanted & ~others]


def figure(
    rows: pd.DataFrame,
    *,
    axis: str,
    measures: Sequence[str] = ("resistance", "utility", "over_refusal"),
    intervals: bool = True,
    row_height: int = 190,
    legend: bool = True,
) -> go.Figure:
    """One panel per measure above each other with a shared α axis; `rows` comes from `with_series`.

    Measures that no run of this axis has are left out, so there are no empty axes.
    """
    chosen = rows[rows["axis"] == axis]
    present = [name for name in measures if chosen[name].notna().any()]
    fig = make_subplots(rows=max(len(present), 1), cols=1, shared_xaxes=True, vertical_spacing=0.05)
    found: list[tuple[Trace, int]] = []
    room = 0
    for number, name in enumerate(present, start=1):
        measure = MEASURES[name]
        lines = [line for _, line in chosen.dropna(subset=[name]).groupby("series", sort=False)]
        for line in lines:
            found += [(trace, number) for trace in _traces(line, name, intervals, show_legend=number == 1)]
        notes = _notes([(line, name) for line in lines], row_height, LETTERS)
        found += [(trace, number) for trace in notes]
        room = max(room, _room(notes))
        fig.update_yaxes(
            title={"text": f"{measure.title} →" if measure.higher_is_better else f"← {measure.title}", "standoff": 14},
            range=[-0.04, 1.04] if measure.bounded else None,
            tickformat=".3~g",
            automargin=True,
            zeroline=False,
            row=number,
            col=1,
        )
    fig.add_traces([trace for trace, _ in found], rows=[row for _, row in found], cols=[1] * len(found))
    fig.update_xaxes(zeroline=False, automargin=True, range=_one_alpha(chosen))
    fig.update_xaxes(title=AXES[axis], row=max(len(present), 1), col=1)
    fig.update_layout(
        height=90 + row_height * max(len(present), 1),
        margin={"l": 8, "r": 8 + room, "t": 12, "b": 8},
        showlegend=legend,
        legend=LEGEND,
        hoverlabel={"align": "left"},
        uirevision=axis,
    )
    return fig


def over_seeds(line: pd.DataFrame, name: str) -> pd.DataFrame:
    """One row per α of a line that has the measure: mean over its seeds, their number, the least and the greatest.

    Where there is one seed, its interval (`low`, `high`) and `n`; a mean of several has a range instead.
    """
    others = {"low": f"{name}_low", "high": f"{name}_high", "n": MEASURES[name].n_column}
    values = {key: line[key].to_numpy(dtype=float, na_value=np.nan) for key in ("alpha", name)}
    by_alpha = np.argsort(values["alpha"], kind="stable")
    alpha, first, seeds = np.unique(values["alpha"][by_alpha], return_index=True, return_counts=True)
    value = values[name][by_alpha]
    found = {
        "alpha": alpha,
        "value": np.add.reduceat(value, first) / seeds,
        "least": np.minimum.reduceat(value, first),
        "greatest": np.maximum.reduceat(value, first),
        "seeds": seeds.astype(float),
    }
    for title, column in others.items():
        known = line[column].to_numpy(dtype=float, na_value=np.nan) if column in line else np.full(len(line), np.nan)
        known = known[by_alpha[first]]
        found[title] = known if title == "n" else np.where(seeds > 1, np.nan, known)
    return pd.DataFrame(found)


def crossings(line: pd.DataFrame, first: str = "resistance", second: str = "utility") -> list[tuple[float, float]]:
    """(α, value) where two measures of one line are equal, by linear interpolation between its points."""
    rows = line.dropna(subset=[first, second])
    means = rows.groupby("alpha")[[first, second]].mean().reset_index().astype(float)
    alpha, one, two = (means[name].to_numpy() for name in ("alpha", first, second))
    gap = one - two
    found = []
    for left in range(len(alpha) - 1):
        if gap[left] == 0 or gap[left] * gap[left + 1] < 0:
            share = gap[left] / (gap[left] - gap[left + 1]) if gap[left] else 0.0
            at = alpha[left] + share * (alpha[left + 1] - alpha[left])
            found.append((float(at), float(one[left] + share * (one[left + 1] - one[left]))))
    if len(gap) and gap[-1] == 0:
        found.append((float(alpha[-1]), float(one[-1])))
    return found


def few_values(rows: pd.DataFrame, by: str) -> list[str]:
    """The values of the column `by` of which no line has more than two α: what lies between them nobody measured."""
    most = rows.groupby([by, "series"], sort=False)["alpha"].nunique().groupby(level=0, sort=False).max()
    return [str(name) for name, count in most.items() if count < LEAST]


def panel(rows: pd.DataFrame, *, measures: Sequence[str] = tuple(MEASURE_DASH), intervals: bool = True) -> go.Figure:
    """Safety and utility of a few lines on one α axis, with a ring where the two cross; `rows` of one meaning of α.

    The dash says the measure, colour and marker the method.
    """
    found: list[Trace] = []
    brief = len(rows[["method", "source"]].drop_duplicates()) == 1  # the panel is called by the method
    ends: list[tuple[pd.DataFrame, str]] = []
    present = [name for name in measures if rows[name].notna().any()]
    for name in present:
        lines = [line for _, line in rows.dropna(subset=[name]).groupby("series", sort=False)]
        for line in lines:
            how = {"show_legend": name == present[0], "brief": brief}
            found += _traces(line, name, intervals, dash=MEASURE_DASH.get(name), **how)
        ends += [(line, name) for line in lines]
    for _, line in rows.groupby("series", sort=False):
        met = crossings(line) if {"resistance", "utility"} <= set(present) else []
        if met:
            found.append(_rings(line, met))
    notes = _notes(ends, PANEL_HEIGHT, PANEL_LETTERS)
    if len(ends) == len(present) and rows["alpha"].nunique() == 1:
        notes.append(_named_points(ends, _one_alpha(rows)))
    fig = go.Figure(found + notes)
    axis = AXES[str(rows["axis"].iloc[0])]
    fig.update_xaxes(title=axis, zeroline=False, automargin=True, range=_one_alpha(rows))
    fig.update_yaxes(range=[-0.04, 1.04], tickformat=".3~g", automargin=True, zeroline=False)
    fig.update_layout(
        height=PANEL_HEIGHT,
        margin={"l": 8, "r": 8 + _room(notes), "t": 12, "b": 8},
        showlegend=rows["series"].nunique() > 1,
        legend=LEGEND,
        hoverlabel={"align": "left"},
    )
    return fig


def _named_points(ends: Sequence[tuple[pd.DataFrame, str]], axis: Sequence[float] | None) -> Trace:
    """What each of a panel's few points measures: one α draws no dash that would say it."""
    points = sorted(((over_seeds(line, name).iloc[0], name) for line, name in ends), key=lambda one: -one[0]["value"])
    values = [float(point["value"]) for point, _ in points]
    alpha = float(points[0][0]["alpha"])
    side = "left" if axis and alpha > 0.55 * axis[1] else "right"
    places = []
    for number, value in enumerate(values):
        above = number > 0 and values[number - 1] - value < _TIGHT
        below = number + 1 < len(values) and value - values[number + 1] < _TIGHT
        places.append(f"{'middle' if above == below else 'bottom' if above else 'top'} {side}")
    titles = [MEASURES[name].title.lower() for _, name in points]
    return dict(
        type="scatter",
        x=[alpha] * len(points),
        y=values,
        mode="text",
        text=[f"{_AWAY}{title}" if side == "right" else f"{title}{_AWAY}" for title in titles],
        textposition=places,
        textfont={"size": 11},
        showlegend=False,
        hoverinfo="skip",
        meta={"named": True},
    )


def _one_alpha(rows: pd.DataFrame) -> list[float] | None:
    """From 0 to 1 at least around a single α, where plotly would begin below 0; None: as plotly does."""
    alpha = rows["alpha"].unique()
    return [-0.04, 1.04 * max(1.0, float(alpha[0]))] if len(alpha) == 1 and alpha[0] >= 0 else None


def _rings(line: pd.DataFrame, met: Sequence[tuple[float, float]]) -> Trace:
    look = style(str(line["method"].iloc[0]))
    title = escape(str(line["series_name"].iloc[0]))
    return dict(
        type="scatter",
        x=[at for at, _ in met],
        y=[value for _, value in met],
        mode="markers",
        marker={"symbol": "circle-open", "size": 15, "color": look.color, "line": {"width": 2}},
        showlegend=False,
        legendgroup=str(line["series"].iloc[0]),
        hovertemplate=f"<b>{title}</b><br>Resistance and utility meet<br>at α %{{x:.3f}}, both %{{y:.3f}}"
        "<br>interpolated between measured points<extra></extra>",
        meta={"method": str(line["method"].iloc[0]), "crossing": True},
    )


def _traces(
    line: pd.DataFrame,
    name: str,
    intervals: bool,
    *,
    show_legend: bool,
    dash: str | None = None,
    brief: bool = False,
) -> list[Trace]:
    """The line of one measure, and the band over its seeds where there are several. `brief`: named without method."""
    points = over_seeds(line, name)
    trace = _line(line, points, name, intervals, show_legend=show_legend)
    if dash:  # which says the measure: parameters are told by the marker as well
        trace["line"]["dash"] = dash
        trace["marker"]["symbol"] = _marker(line, int(line["series_place"].iloc[0]))
        if brief:
            trace["name"] = escape(str(line["series_note"].iloc[0])) or trace["name"]
    several = points[points["seeds"] > 1]
    if several.empty:
        return [trace]
    ring = (
        pd.concat([several["alpha"], several["alpha"][::-1]]),
        pd.concat([several["greatest"], several["least"][::-1]]),
    )
    color = style(str(line["method"].iloc[0])).color
    band = dict(
        type="scatter",
        x=ring[0].to_numpy(),
        y=ring[1].to_numpy(),
        mode="lines",
        fill="toself",
        fillcolor=faded(color, 0.18),
        line={"width": 3 if len(several) == 1 else 0, "color": faded(color, 0.35)},
        showlegend=False,
        legendgroup=str(line["series"].iloc[0]),
        hoverinfo="skip",
        meta={"method": str(line["method"].iloc[0]), "measure": name, "band": True},
    )
    return [band, trace]


def _by_numbers(tokens: tuple[str, ...]) -> tuple[Any, ...]:
    """Sort key of a line's parameters: k=5 before k=20."""
    split = [token.partition("=")[::2] for token in tokens]
    return tuple((name, 0, float(value), "") if _is_number(value) else (name, 1, 0.0, value) for name, value in split)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _dash(line: pd.DataFrame) -> str:
    """The method's own dash for its first parameters, the others in turn for the rest."""
    own, rank = style(str(line["method"].iloc[0])).dash, int(line["series_dash"].iloc[0])
    return own if rank == 0 else [dash for dash in _DASHES if dash != own][(rank - 1) % (len(_DASHES) - 1)]


def _marker(line: pd.DataFrame, rank: int) -> str:
    """The method's own symbol for its first line, the others in turn for the rest; hollow where it is reported."""
    method, source = str(line["method"].iloc[0]), str(line["source"].iloc[0])
    own = style(method).symbol
    if rank == 0:
        return marker_symbol(method, source)
    symbol = [mark for mark in _MARKS if mark != own][(rank - 1) % (len(_MARKS) - 1)]
    return f"{symbol}-open" if source == "reported" else symbol


def _line(line: pd.DataFrame, points: pd.DataFrame, name: str, intervals: bool, *, show_legend: bool) -> Trace:
    measure = MEASURES[name]
    method, source = str(line["method"].iloc[0]), str(line["source"].iloc[0])
    look = style(method)
    reported = source == "reported"
    title = escape(str(line["series_name"].iloc[0]))
    trace: Trace = dict(
        type="scatter",
        x=points["alpha"].to_numpy(),
        y=points["value"].to_numpy(),
        mode="lines+markers",
        cliponaxis=False,
        name=title,
        legendgroup=str(line["series"].iloc[0]),
        showlegend=show_legend,
        line={"color": look.color, "dash": "dot" if reported else _dash(line), "width": 1.4 if reported else 2},
        marker={"color": look.color, "symbol": _marker(line, int(line["series_mark"].iloc[0])), "size": 8},
        opacity=0.75 if reported else 1.0,
        customdata=points[["low", "high", "n", "least", "greatest", "seeds"]].to_numpy(dtype=np.float32),
        hovertemplate=_hover(name, title, reported, bool((points["seeds"] > 1).any())),
        meta={"method": method, "source": source, "measure": name},
    )
    if names := _own_names(line, points):
        trace |= {"text": names, "hovertemplate": f"%{{text}}{trace['hovertemplate']}"}
    if intervals and len(points) <= BARS and not reported and measure.has_interval and points["low"].notna().any():
        value = points["value"].to_numpy()
        trace["error_y"] = {
            "type": "data",
            "symmetric": False,
            "array": np.nan_to_num(points["high"].to_numpy() - value).clip(min=0),
            "arrayminus": np.nan_to_num(value - points["low"].to_numpy()).clip(min=0),
            "color": faded(look.color, 0.3),
            "thickness": 1.2,
            "width": 0,
        }
    return trace


def _notes(ends: Sequence[tuple[pd.DataFrame, str]], height: int, letters: int) -> list[Trace]:
    """What tells each line from the others of its method, beside its last point; measured lines, no single points.

    `ends`: the lines of one panel, each with its measure; `height`: the panel's, in pixels; `letters`: of the longest.
    """
    end = max((float(line["alpha"].max()) for line, _ in ends), default=0.0)
    ours = [
        (line, name)
        for line, name in ends
        if line["series_note"].iloc[0]
        and line["source"].iloc[0] == "measured"
        and line["alpha"].nunique() > 1
        # beside a line that ends earlier, others go on
        and float(line["alpha"].max()) > end - 1e-9
    ]
    named = [(line[line["alpha"] == line["alpha"].max()], name) for line, name in ours]
    if not 0 < len(named) <= NOTES or max(len(last["series_note"].iloc[0]) for last, _ in named) > letters:
        return []
    heights = np.array([float(last[name].mean()) for last, name in named])
    span = 1.08 if all(MEASURES[name].bounded for _, name in named) else float(np.ptp(heights)) or 1.0
    gap = 1.3 * NOTE_SIZE / height * span
    placed = apart(heights, gap=gap)
    while len(placed) and (moved := np.abs(placed - heights)).max() > MOVED * gap:
        left = [place for place in range(len(named)) if place != int(moved.argmax())]
        named, heights = [named[place] for place in left], heights[left]
        placed = apart(heights, gap=gap)
    return [
        dict(
            type="scatter",
            x=[float(last["alpha"].iloc[0])],
            y=[float(place)],
            text=[f"\N{NO-BREAK SPACE}\N{NO-BREAK SPACE}{escape(str(last['series_note'].iloc[0]))}"],
            mode="text",
            textposition="middle right",
            textfont={"size": NOTE_SIZE, "color": style(str(last["method"].iloc[0])).color},
            cliponaxis=False,
            showlegend=False,
            legendgroup=str(last["series"].iloc[0]),
            hoverinfo="skip",
            meta={"method": str(last["method"].iloc[0]), "measure": name, "note": True},
        )
        for (last, name), place in zip(named, placed, strict=True)
    ]


def apart(heights: np.ndarray, gap: float) -> np.ndarray:
    """`heights` moved as little as their order allows until each is `gap` from the next, those that touch centred."""
    order = np.argsort(heights, kind="stable")
    groups: list[tuple[float, int]] = []  # middle, how many
    for height in heights[order]:
        middle, count = float(height), 1
        while groups and middle - groups[-1][0] < gap * (count + groups[-1][1]) / 2:
            before, others = groups.pop()
            middle, count = (before * others + middle * count) / (others + count), others + count
        groups.append((middle, count))
    placed = [middle + gap * (place - (count - 1) / 2) for middle, count in groups for place in range(count)]
    return np.array(placed)[np.argsort(order)]


def _room(notes: Sequence[Trace]) -> int:
    """Pixels that the longest of the notes needs right of the axis."""
    return round(0.6 * NOTE_SIZE * max((len(trace["text"][0]) for trace in notes), default=0))


def _own_names(line: pd.DataFrame, points: pd.DataFrame) -> list[str]:
    """What people call the run of each point, to stand above the line's own title; nothing where nobody named one."""
    if "own_name" not in line or line["own_name"].isna().all():
        return []
    known = line.dropna(subset=["own_name"]).groupby("alpha")["own_name"].first()
    return [f"<b>{escape(str(known[at]))}</b><br>" if at in known.index else "" for at in points["alpha"]]


def _hover(name: str, title: str, reported: bool, seeds: bool) -> str:
    measure = MEASURES[name]
    value = f"{measure.title} %{{y:.3f}} ({measure.direction})"
    lines = [f"<b>{title}</b>", "α %{x:.3~g}", value]
    if reported:
        lines.append("reported, without interval")
    elif seeds:
        lines.append("mean of %{customdata[5]:.0f} seeds, [%{customdata[3]:.3f}, %{customdata[4]:.3f}]")
        lines.append("n %{customdata[2]:.0f} prompts each")
    else:
        if measure.has_interval:
            lines.append("95 % interval [%{customdata[0]:.3f}, %{customdata[1]:.3f}]")
        lines.append("n %{customdata[2]:.0f} prompts")
    return "<br>".join(lines) + "<extra></extra>"
