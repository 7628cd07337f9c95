"""Safety and utility of a pair against α."""

from functools import partial

import streamlit as st

from sstmerge_core import words
from sstmerge_core.plots import alpha_curves, export, pareto
from sstmerge_core.plots.style import style
from sstmerge_core.store import queries
from studio import blocks, link, start

store = blocks.store_or_stop()
pairs = store.query(queries.alpha_pairs)
if not pairs:
    blocks.title("Alpha curves")
    blocks.empty("No merge with an α has finished yet.", page="pages/sweep.py", label="Sweep over α")
    st.stop()

state = link.Link("alpha_curves")
state.read({"pair": (link.one_of(pairs), pairs[0])})
pair = st.session_state["alpha_curves.pair"]
rows = alpha_curves.with_series(store.query(queries.alpha_curves, pair))
methods = list(dict.fromkeys(rows["method"]))
state.read(
    {
        "method": (link.some_of(methods), []),
        "reported": (link.flag, not (rows["source"] == "measured").any()),
        "intervals": (link.flag, True),
    }
)
st.session_state["alpha_curves.method"] = [name for name in st.session_state["alpha_curves.method"] if name in methods]

with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
    st.selectbox("Pair", pairs, key="alpha_curves.pair", width=165)
    chosen = st.multiselect(
        "Methods",
        methods,
        key="alpha_curves.method",
        format_func=lambda name: style(name).title,
        width=330,
        placeholder="All",
    )
    reported = st.toggle(
        "Reported figures", key="alpha_curves.reported", help="Hollow and dotted: other models and prompts."
    )
    intervals = st.toggle("Intervals", key="alpha_curves.intervals", help="95 % intervals as thin bars.")

values = {"pair": pair, "method": chosen, "reported": reported, "intervals": intervals}
blocks.problems(state.problems, warning=True)
shown = alpha_curves.keep(rows, methods=chosen, reported=reported)
figures = {
    axis: store.recall(
        ("alpha curves", axis, str(values)), partial(alpha_curves.figure, shown, axis=axis, intervals=intervals)
    )
    for axis in alpha_curves.AXES
    if (shown["axis"] == axis).any()
}
if not figures:
    blocks.empty(f"None of the {len(rows):,} runs is left. Choose other methods, or show the reported figures.")
for column, (axis, figure) in zip(st.columns(max(len(figures), 1), gap="medium"), figures.items(), strict=False):
    column.plotly_chart(figure, key=f"alpha_curves.{axis}", config=blocks.CHART_CONFIG, alt=alpha_curves.AXES[axis])

address = link.share(start.base_url(), "alpha_curves", values)
title = f"{pair}: safety and utility against α"
with st.container(horizontal=True, vertical_alignment="center"):
    every = store.query(queries.pair_runs, pair, sources=["measured"])
    without = every[every["alpha"].isna() & ~every["method"].isin(pareto.REFERENCE_METHODS)]
    rest = f" {words.count(len(without), 'run')} without α: on the Pareto page." if len(without) else ""
    st.caption(f"Showing {len(shown):,} of {len(rows):,} runs of {pair} with an α.{rest}", width="content")
    blocks.share_box(address)
    st.download_button(
        "HTML",
        data=lambda: export.page(list(figures.values()), title=title, note=address).encode(),
        file_name=f"alpha-curves-{pair}.html",
        mime="text/html",
        on_click="ignore",
        icon=":material/download:",
        disabled=not figures,
        help="One file with everything inside (about 5 MB); opens without a network.",
    )
    blocks.csv_button(shown, f"alpha-curves-{pair}.csv", key="alpha_curves.csv")

state.write(values)
