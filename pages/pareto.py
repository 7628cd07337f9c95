"""Where every run of a pair lies between two measures."""

import pandas as pd
import streamlit as st

from sstmerge_core.plots import pareto
from sstmerge_core.plots.measures import AXES, MEASURES
from sstmerge_core.plots.style import style
from sstmerge_core.store import queries
from studio import blocks, link, start


def remove_filter(name: str, value: str) -> None:
    st.session_state[f"pareto.{name}"] = [kept for kept in st.session_state[f"pareto.{name}"] if kept != value]


def clear_selection() -> None:
    st.session_state["pareto.box"], st.session_state["pareto.run"] = "", []
    st.session_state["pareto:marked"] = ("", ())
    st.session_state["pareto:chart"] = st.session_state.get("pareto:chart", 0) + 1


def parse_box(values: list[str]) -> str:
    return str(pareto.Box.parse(values[-1]))


def marked() -> dict:
    """What the link had selected, marked in the chart for as long as the chart is the same one."""
    if state.moved:
        box, run_ids = st.session_state["pareto.box"], st.session_state["pareto.run"]
        st.session_state["pareto:marked"] = (box, tuple(run_ids))
    box, run_ids = st.session_state.get("pareto:marked", ("", ()))
    return {"box": pareto.Box.parse(box) if box else None, "highlight": run_ids}


def adopt_selection(event: dict, shown: pd.DataFrame) -> None:
    """Take what was clicked or boxed; an emptied selection counts only where there was one in this chart."""
    chosen = event["selection"]
    if chosen["box"]:
        corner = chosen["box"][-1]
        box = pareto.Box.parse(",".join(str(value) for value in [*corner["x"], *corner["y"]]))
        st.session_state["pareto.box"], st.session_state["pareto.run"] = str(box), []
    elif chosen["points"]:
        st.session_state["pareto.box"], st.session_state["pareto.run"] = "", pareto.clicked(shown, chosen["points"])
    elif st.session_state.get("pareto:touched"):
        st.session_state["pareto.box"], st.session_state["pareto.run"] = "", []
    st.session_state["pareto:touched"] = bool(chosen["box"] or chosen["points"])


store = blocks.store_or_stop()
pairs = store.query(queries.merge_pairs)
if not pairs:
    blocks.title("Pareto")
    blocks.empty(
        "No merge has finished yet, so there is nothing to compare.", page="pages/merge.py", label="Merge a pair"
    )
    st.stop()

state = link.Link("pareto")
state.read({"pair": (link.one_of(pairs), pairs[0])})
pair = st.session_state["pareto.pair"]
runs = store.query(queries.pair_runs, pair)
axes = [column for column in AXES if runs[column].notna().any()]
methods = sorted(runs["method"].unique(), key=lambda name: style(name).title)
sources = sorted(runs["source"].unique())
state.read(
    {
        "x": (link.one_of(axes), axes[0]),
        "y": (link.one_of(axes), "utility" if "utility" in axes[1:] else axes[-1]),
        "method": (link.some_of(methods), []),
        "source": (link.some_of(sources), []),
        "box": (parse_box, ""),
        "run": (link.texts, []),
    }
)
for name, known in (("x", axes), ("y", axes)):  # another pair may not have the measure
    if st.session_state[f"pareto.{name}"] not in known:
        st.session_state[f"pareto.{name}"] = known[0]
for name, known in (("method", methods), ("source", sources)):
    st.session_state[f"pareto.{name}"] = [kept for kept in st.session_state[f"pareto.{name}"] if kept in known]
if st.session_state["pareto.x"] == st.session_state["pareto.y"]:
    st.session_state["pareto.y"] = next((column for column in axes if column != st.session_state["pareto.x"]), axes[0])

with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
    st.selectbox("Pair", pairs, key="pareto.pair", width=165)
    x = st.selectbox("Across", axes, key="pareto.x", format_func=lambda name: MEASURES[name].title, width=165)
    y_axes = [column for column in axes if column != x]
    y = st.selectbox("Up", y_axes, key="pareto.y", format_func=lambda name: MEASURES[name].title, width=165)
    with st.popover("Filter", icon=":material/filter_alt:"):
        st.multiselect("Methods", methods, key="pareto.method", format_func=lambda name: style(name).title)
        st.multiselect("Sources", sources, key="pareto.source")
        st.caption("Nothing chosen means everything is shown.")
    active = [(name, value) for name in ("method", "source") for value in st.session_state[f"pareto.{name}"]]
    for name, value in active:
        words = style(value).title if name == "method" else value
        st.button(
            words, icon=":material/close:", key=f"chip.{name}.{value}", on_click=remove_filter, args=(name, value)
        )

chosen_methods, chosen_sources = st.session_state["pareto.method"], st.session_state["pareto.source"]
kept = runs
if chosen_methods:
    kept = kept[kept["method"].isin(chosen_methods)]
if chosen_sources:
    kept = kept[kept["source"].isin(chosen_sources)]
shown = pareto.drawable(kept, x, y)
blocks.problems(state.problems, warning=True)

left, right = st.columns([6, 5], gap="medium")
with left:
    if shown.empty:
        blocks.empty(f"None of the {len(kept):,} runs has both measures. Choose another axis or remove a filter.")
    else:
        mark = marked()
        event = st.plotly_chart(
            store.recall(
                ("pareto", pair, x, y, tuple(chosen_methods), tuple(chosen_sources), str(mark)),
                lambda: pareto.figure(shown, x=x, y=y, **mark),
            ),
            key=f"pareto.chart.{st.session_state.get('pareto:chart', 0)}",
            on_select="rerun",
            selection_mode=("points", "box"),
            config=blocks.CHART_CONFIG,
            alt=f"{MEASURES[y].title} against {MEASURES[x].title} of {len(shown)} runs of {pair}",
        )
        adopt_selection(event, shown)
        missing = len(kept) - len(shown)
        without = f"; {missing:,} more without one of the measures" if missing else ""
        st.caption(
            f"Showing {len(shown):,} of {len(runs):,} runs of {pair}{without}. Hollow: reported in the literature, on "
            "other models and prompts. Faded: dominated. Click a point to select it, with shift for more; or take the "
            "box tool above the chart."
        )

box_text, run_ids = st.session_state["pareto.box"], st.session_state["pareto.run"]
box = pareto.Box.parse(box_text) if box_text else None
selected = pareto.select(shown, x, y, box=box, runs=run_ids)
with right:
    if box or run_ids:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.subheader(f"{len(selected):,} of {len(shown):,} selected", anchor=False)
            st.button("Clear", icon=":material/close:", key="pareto.clear", on_click=clear_selection, type="tertiary")
        gone = [run_id for run_id in run_ids if run_id not in set(shown["run_id"])]
        if gone:
            st.warning(f"Not among the runs shown: {', '.join(gone)}. They may be filtered out, or not be here at all.")
        panel = selected
    else:
        panel = pareto.front(shown, x, y)
        st.subheader(f"The front: {len(panel):,} of {len(shown):,} runs", anchor=False)
    if len(panel):
        blocks.brief_table(panel)
        with st.container(horizontal=True, vertical_alignment="center"):
            blocks.csv_button(panel, f"pareto-{pair}.csv", key="pareto.csv.panel")
            if box or run_ids:
                blocks.compare_link(list(panel.loc[panel["source"] == "measured", "run_id"]))
            values = {"pair": pair, "x": x, "y": y, "method": chosen_methods, "source": chosen_sources}
            values |= {"box": box_text, "run": run_ids}
            blocks.share_box(link.share(start.base_url(), "pareto", values))
    else:
        st.caption("Nothing in the selection.")

rest = st.expander(f"All {len(kept):,} runs", icon=":material/table_rows:", key="pareto.rest", on_change="rerun")
if rest.open:
    with rest:
        blocks.run_table(kept, key="pareto.all", columns=("k", "safety_tax", "composite", "source", "created_at"))
        blocks.csv_button(kept, f"runs-{pair}.csv", key="pareto.csv.all")

state.write(
    {"pair": pair, "x": x, "y": y, "method": chosen_methods, "source": chosen_sources, "box": box_text, "run": run_ids}
)
