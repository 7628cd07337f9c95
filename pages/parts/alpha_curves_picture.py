"""What the Alpha curves page draws and gives away: panels, and the same figures as files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from sstmerge_core import words
from sstmerge_core.builder import recipe_file
from sstmerge_core.errors import SSTMergeError
from sstmerge_core.plots import alpha_curves, export
from sstmerge_core.plots.measures import one_utility
from sstmerge_core.plots.style import style
from sstmerge_core.plots.told import told_on
from sstmerge_core.store import queries
from sstmerge_core.words import plain
from studio import blocks, link, start

LAYOUTS = {"together": "Together", "method": "By method", "pair": "By pair"}
PANEL_WIDTH = 340
Panels = list[tuple[str, pd.DataFrame]]
"""Title and rows of each panel"""


def runs(store: start.Store, pairs: Sequence[str]) -> pd.DataFrame:
    """Every run with an α of these pairs, their utility by one metric each."""
    found = [one_utility(store.finished.query(queries.alpha_curves, pair)) for pair in pairs]
    return pd.concat(found, ignore_index=True) if len(found) > 1 else found[0]


def series(store: start.Store, kept: pd.DataFrame, key: str) -> pd.DataFrame:
    """`kept` with the line that each run belongs to within its pair; `key` says how they were chosen."""

    def make() -> pd.DataFrame:
        found = [alpha_curves.with_series(rows) for _, rows in kept.groupby("pair", sort=False)]
        return pd.concat(found, ignore_index=True) if found else kept

    return store.finished.recall(("series", key), make)


def panels(shown: pd.DataFrame, by: str) -> Panels:
    """`shown` cut by method or by pair, and by what α means, which panels never share."""
    cut = []
    for (name, axis), rows in shown.groupby([by, "axis"], sort=False):
        title = style(str(name)).title if by == "method" else str(name)
        several = by == "pair" and shown.loc[shown["pair"] == name, "axis"].nunique() > 1
        cut.append((f"{title} · {axis}" if several else title, rows))
    return cut


def together(store: start.Store, shown: pd.DataFrame, key: str, intervals: bool) -> list[go.Figure]:
    """One figure per meaning of α beside each other, its measures above each other."""
    figures = {
        axis: store.finished.recall(
            ("alpha curves", axis, key), partial(alpha_curves.figure, shown, axis=axis, intervals=intervals)
        )
        for axis in alpha_curves.AXES
        if (shown["axis"] == axis).any()
    }
    for column, (axis, figure) in zip(st.columns(max(len(figures), 1), gap="medium"), figures.items(), strict=False):
        column.plotly_chart(figure, key=f"alpha_curves.{axis}", config=blocks.CHART_CONFIG, alt=alpha_curves.AXES[axis])
    return list(figures.values())


def apart(store: start.Store, cut: Panels, key: str, intervals: bool) -> list[go.Figure]:
    """A small panel each, as many beside each other as there is room for."""
    figures = []
    st.caption("Solid: resistance. Dashed: utility. Dotted: over-refusal. A ring: where resistance and utility meet.")
    with st.container(horizontal=True, gap="medium"):
        for title, rows in cut:
            figure = store.finished.recall(
                ("alpha panel", title, key), partial(alpha_curves.panel, rows, intervals=intervals)
            )
            with st.container(width=PANEL_WIDTH, gap=None):
                st.markdown(f"**{plain(title)}**")
                st.plotly_chart(
                    figure,
                    key=f"alpha_curves.panel.{title}",
                    config=blocks.CHART_CONFIG,
                    alt=f"Resistance, utility and over-refusal of {title} against α",
                )
            figures.append(go.Figure(figure).update_layout(title=title, margin_t=48))
    return figures


def few_values(shown: pd.DataFrame, layout: str, of: str, *, whole: bool = False) -> bool:
    """Say of which panels no line is a curve, and the way to one that is; `whole`: only where none of all is.

    Returns whether there was something to say.
    """
    by = "pair" if layout == "pair" else "method"
    few = alpha_curves.few_values(shown[shown["source"] == "measured"], by)
    if not few:
        return False
    called = few if by == "pair" else [style(name).title for name in few]
    everything = len(few) == shown[by].nunique()
    if whole and not everything:
        return False
    whose = f"Every line of {plain(of)}" if everything else f"Every line of {plain(words.listed(called))}"
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(
            f":material/info: {whose} stands on one or two values of α: what lies between them is not measured.",
            width="content",
        )
        given = {} if layout == "pair" else sides(shown)
        st.page_link("pages/sweep.py", label="Sweep over α", icon=":material/show_chart:", query_params=given)
    return True


def sides(shown: pd.DataFrame) -> dict[str, str]:
    """Both adapters of the newest of these runs, as the Sweep page takes them."""
    newest = shown.dropna(subset=["utility_adapter", "safety_adapter"]).head(1)
    return {side: str(newest[f"{side}_adapter"].iloc[0]) for side in ("utility", "safety") if len(newest)}


def files(figures: list[go.Figure], shown: pd.DataFrame, *, title: str, name: str, values: Mapping[str, Any]) -> None:
    """Share link, one HTML file with figures, data and recipes, pictures, CSV and a LaTeX table."""
    address = link.share(start.base_url(), "alpha_curves", values)
    blocks.share_box(address)
    st.download_button(
        "HTML",
        data=lambda: export.page(
            figures, title=title, note=address, data=_columns(shown), recipes=recipes(shown)
        ).encode(),
        file_name=f"{name}.html",
        mime="text/html",
        on_click="ignore",
        icon=":material/download:",
        disabled=not figures,
        key="alpha_curves.html",
        help="One file with figures, data and recipes inside (about 1.3 MB); opens without a network and without us.",
    )
    blocks.csv_button(shown, f"{name}.csv", key="alpha_curves.csv")
    with st.popover("More", icon=":material/more_horiz:", disabled=not figures):
        st.download_button(
            f"LaTeX table · {len(shown):,} rows",
            data=lambda: export.latex(
                shown, caption=f"{title}. {told_on(shown)} 95 % intervals in brackets.", label=f"tab:{name}"
            ).encode(),
            file_name=f"{name}.tex",
            mime="text/x-tex",
            on_click="ignore",
            key="alpha_curves.latex",
            help="For a document with the packages array, booktabs and longtable.",
        )
        if not export.can_draw_pictures():
            st.caption("PNG and SVG need Chrome or Chromium on the server, and the extra `[export]`.")
            return
        for number, figure in enumerate(figures, start=1):
            of = f" {number} of {len(figures)}" if len(figures) > 1 else ""
            with st.container(horizontal=True):
                for kind in ("png", "svg"):
                    st.download_button(
                        f"{kind.upper()}{of}",
                        data=partial(export.picture, figure, kind),
                        file_name=f"{name}{'-' + str(number) if of else ''}.{kind}",
                        mime=export.PICTURES[kind],
                        on_click="ignore",
                        key=f"alpha_curves.{kind}.{number}",
                    )


def recipes(shown: pd.DataFrame) -> dict[str, str]:
    """Recipe files of the measured runs by run id; a run whose folder is gone is left out."""
    found = {}
    for run_id in shown.loc[shown["source"] == "measured", "run_id"]:
        try:
            found[run_id] = recipe_file.of_run(start.workspace(), run_id)
        except SSTMergeError:
            continue
    return found


def _columns(shown: pd.DataFrame) -> pd.DataFrame:
    """What a colleague reads: the run and its figures, not what the charts are made of."""
    wanted = [
        "run_id",
        "pair",
        "series_name",
        "own_name",
        "source",
        "split",
        "alpha",
        "k",
        "seed",
        "resistance",
        "resistance_low",
    ]
    wanted += ["resistance_high", "utility", "utility_low", "utility_high", "over_refusal", "over_refusal_low"]
    wanted += ["over_refusal_high", "resistance_n", "safety_tax", "judge"]
    return shown[[name for name in wanted if name in shown]]
