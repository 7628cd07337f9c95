"""The table of one merge at several precisions of the base's weights."""

from __future__ import annotations

import pandas as pd

from sstmerge_core.plots.measures import MEASURES, interval, number


def side_by_side(figures: pd.DataFrame) -> pd.DataFrame:
    """A row for each precision: each figure as ``0.912 [0.871, 0.944], n 60``; see `analysis.precision.figures`."""
    rows = []
    for precision, own in figures.groupby("precision", sort=False):
        row = {"Base's weights": str(precision)}
        for one in own.to_dict("records"):
            measure = MEASURES[one["figure"]]
            title = f"{measure.title} {'↑' if measure.higher_is_better else '↓'}"
            row[title] = _cell(one)
        rows.append(row)
    return pd.DataFrame(rows)


def _cell(one: dict[str, object]) -> str:
    if pd.isna(one["value"]):
        return "–"
    told = number(one["value"])
    if between := interval(one["low"], one["high"]):
        told += f" {between}"
    return told if pd.isna(one["n"]) else f"{told}, n {int(str(one['n']).partition('.')[0])}"
