"""Runs beside each other: their names, the figure, and the tables as text that every screen shows whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from sstmerge_core import metrics
from sstmerge_core.analysis import compare
from sstmerge_core.analysis.statistics import p_text
from sstmerge_core.plots import pareto
from sstmerge_core.plots.measures import interval, number
from sstmerge_core.plots.table import METRIC_NAMES, apart, in_words, named
from sstmerge_core.words import plain, run_link


def names(runs: pd.DataFrame) -> dict[str, str]:
    """Run id → ``A5_A7 · Linear α=0.5``; what runs of one name differ in is added, the id only where nothing else does.

    That is the suite, how many prompts, the seed, the number format, and when they were started.
    """
    shown = named(runs)
    alone = shown["method"].isin(pareto.REFERENCE_METHODS)
    found = shown["name"].where(alone, shown["pair"] + " · " + shown["name"])
    differences = (
        shown["utility_suite"].fillna(""),
        in_words("n={:.0f}", shown["n"]),
        in_words("seed {:.0f}", shown["seed"]),
        shown["dtype"].fillna(""),
        shown["created_at"].dt.strftime("%Y-%m-%d %H:%M").fillna(""),
        shown["run_id"].str[:6],
        shown["run_id"],
    )
    return dict(zip(shown["run_id"], apart(found, None, differences), strict=True))


def having(names: Mapping[str, str], words: str) -> list[str]:
    """The runs whose name has every word of `words`, in any order and case."""
    wanted = words.casefold().split()
    return [run_id for run_id, name in names.items() if all(word in name.casefold() for word in wanted)]


def twins_on_test(runs: pd.DataFrame, chosen: Sequence[str]) -> dict[str, str]:
    """Chosen run on selection prompts → the newest run of the same setting on test prompts that is not chosen yet."""
    told = runs[runs["split"].eq("test") & ~runs["run_id"].isin(chosen)].drop_duplicates("setting")
    twin = dict(zip(told["setting"], told["run_id"], strict=True))
    already = set(runs.loc[runs["run_id"].isin(chosen) & runs["split"].eq("test"), "setting"])
    searched = runs[runs["run_id"].isin(chosen) & runs["split"].eq("selection") & ~runs["setting"].isin(already)]
    pairs = zip(searched["run_id"], searched["setting"], strict=True)
    return {run_id: twin[setting] for run_id, setting in pairs if setting in twin}


def points(runs: pd.DataFrame, figures: pd.DataFrame, letters: Mapping[str, str]) -> pd.DataFrame:
    """The leaderboard rows `runs` that one picture may show: those of the first run's split and utility suite.

    Rates and intervals are those of `figures` (`compare.compare`), which are the chosen judge's. `letters`: run id →
    letter, first the reference.
    """
    rows = runs.set_index("run_id").loc[[run for run in letters if run in set(runs["run_id"])]].reset_index()
    same = rows["split"].eq(rows["split"].iloc[0]) & rows["utility_suite"].eq(rows["utility_suite"].iloc[0])
    shown = named(rows[same].reset_index(drop=True)).assign(is_reference=True, on_front=False)
    for metric in ("resistance", "over_refusal"):
        own = figures[figures["metric"] == metric].drop_duplicates("letter").set_index("letter")
        at = shown["run_id"].map(letters)
        for column, name in (("value", metric), ("low", f"{metric}_low"), ("high", f"{metric}_high")):
            shown[name] = at.map(own[column].astype(float))
        shown[f"{metric}_n"] = at.map(own["n"].astype(float))
    return shown.dropna(subset=["resistance", "utility"]).reset_index(drop=True)


def figure(shown: pd.DataFrame, letters: Mapping[str, str]) -> go.Figure:
    """`points` between resistance and utility with their intervals, each with its letter; the reference has a ring.

    No front is drawn: it would be one of the few that were chosen.
    """
    reference = next(iter(letters))
    fig = pareto.figure(shown, highlight=[reference], height=360)
    fig.update_xaxes(range=_limits(shown, "resistance"))
    fig.update_yaxes(range=_limits(shown, "utility"))
    for x, y, text in labels(shown, letters):
        fig.add_annotation(
            x=x,
            y=y,
            text=f"<b>{text}</b>",
            showarrow=False,
            xshift=15,
            yshift=13,
            font={"size": 15},
        )
    return fig


def labels(shown: pd.DataFrame, letters: Mapping[str, str]) -> list[tuple[float, float, str]]:
    """Where to write which letters: those of points that all but coincide together, since over each other none is read.

    `shown`: as of `points`. Near is within a twentieth of the picture.
    """
    wide, tall = (np.ptp(_limits(shown, measure)) / 20 for measure in ("resistance", "utility"))
    found: list[tuple[float, float, str]] = []
    for row in shown.to_dict("records"):
        x, y, letter = row["resistance"], row["utility"], letters[row["run_id"]]
        near = (at for at, one in enumerate(found) if abs(one[0] - x) < wide and abs(one[1] - y) < tall)
        if (at := next(near, None)) is None:
            found.append((x, y, letter))
        else:
            found[at] = (*found[at][:2], found[at][2] + letter)
    return found


def key(letters: Mapping[str, str], titles: Mapping[str, str]) -> str:
    """Which run each letter stands for, as a Markdown list of links."""
    reference = next(iter(letters))
    return "\n".join(
        f"- **{letter}** {run_link(titles[run_id], run_id)}{' · the reference' if run_id == reference else ''}"
        for run_id, letter in letters.items()
    )


def recipe_table(fields: pd.DataFrame) -> str:
    """`recipes.differing` as a Markdown table."""
    lines = [["", *fields.columns], [":--"] * (1 + len(fields.columns))]
    lines += [[plain(str(title)), *(plain(str(value)) for value in row)] for title, *row in fields.itertuples()]
    return _markdown(lines)


def measure_tables(figures: pd.DataFrame) -> list[tuple[str, str]]:
    """A heading and a Markdown table for each measure of `compare.compare`'s rows."""
    found = []
    for (metric, suite), rows in figures.groupby(["metric", "suite"], sort=False):
        lines = [["", "Value", "Difference, after Holm", "p, after Holm"], [":--"] * 4]
        lines += [_measure_row(row) for row in rows.to_dict("records")]
        found.append((_heading(str(metric), str(suite), rows), _markdown(lines)))
    return found


def csv(figures: pd.DataFrame, titles: Mapping[str, str]) -> pd.DataFrame:
    """`compare.compare`'s rows for a file: each run by its name as well."""
    table = figures.assign(run=figures["letter"].map(titles))
    return table[["metric", "suite", "letter", "run", *(name for name in compare.COLUMNS[3:])]]


def _limits(shown: pd.DataFrame, measure: str) -> list[float]:
    """Axis range that shows every interval whole, with room for the letters."""
    found = shown[[measure, f"{measure}_low", f"{measure}_high"]].astype(float).to_numpy()
    low, high = np.nanmin(found), np.nanmax(found)
    air = max(0.08 * (high - low), 0.03)
    return [float(low - air), float(high + air)]


def _heading(metric: str, suite: str, rows: pd.DataFrame) -> str:
    about = metrics.named().get(metric)
    arrow = about.arrow if about else ""
    numbers = sorted({int(n) for n in rows["n_shared"].dropna()})
    shared = f"n = {numbers[0]}" if len(numbers) == 1 else f"n = {numbers[0]} to {numbers[-1]}" if numbers else ""
    title = plain(METRIC_NAMES.get(metric, metric.replace("_", " ")))
    return " · ".join(filter(None, [f"**{title} {arrow}**", plain(suite) if suite != "all" else "all prompts", shared]))


def _measure_row(row: Mapping[str, Any]) -> list[str]:
    value = " ".join(filter(None, [number(row["value"]), _whole(interval(row["low"], row["high"]))]))
    if pd.isna(row["difference"]):
        return [f"**{row['letter']}**", value, "", plain(row["outcome"])]
    between = interval(row["difference_low"], row["difference_high"])
    at = confidence_text(float(row["confidence"]))
    moved = f"{row['difference']:+.3f} {_whole(f'{between} at {at}')}"
    if pd.notna(row["n"]) and row["n_shared"] != row["n"]:
        moved += ", " + _whole(f"n = {row['n_shared']:.0f}")
    if row["outcome"] == compare.SAME:
        return [f"**{row['letter']}**", value, moved, compare.SAME]
    shown = f"**{row['outcome']}**" if row["outcome"] in (compare.BETTER, compare.WORSE) else row["outcome"]
    p_value = p_text(row["p_holm"])
    parts = [shown, _whole(f"p {p_value}" if p_value.startswith("<") else f"p = {p_value}")]
    return [f"**{row['letter']}**", value, moved, ", ".join(filter(None, [*parts, compare.effect_words(row)]))]


def confidence_text(confidence: float) -> str:
    """``95 %``, ``99.2 %``"""
    return f"{100 * confidence:.3g} %" if confidence < 0.999 else f"{100 * confidence:.2f} %"


def _whole(text: str) -> str:
    """`text` in one line, however narrow its column."""
    return text.replace(" ", "\u00a0")


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
