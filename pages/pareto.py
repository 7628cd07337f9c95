"""Where every run of a pair lies between two measures, or three."""

from functools import partial

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from sstmerge_core.plots import pareto, standing
from sstmerge_core.plots.area import Box, Lasso
from sstmerge_core.plots.measures import AXES, MEASURES
from sstmerge_core.plots.style import style
from sstmerge_core.plots.told import told_on
from sstmerge_core.report.volume import volume_interval
from sstmerge_core.store import queries
from sstmerge_core.words import plain
from studio import blocks, decision, link, many, start

FILTERS = {
    "method": "Methods",
    "source": "Sources",
    "split": "Prompts",
    "utility_metric": "Utility by",
    "tag": "Tags",
}
LISTED = 1_000  # rows of the table of all runs at most; its file has every one


def remove_filter(name: str, value: str) -> None:
    st.session_state[f"pareto.{name}"] = [kept for kept in st.session_state[f"pareto.{name}"] if kept != value]


def select(*, box: str = "", lasso: str = "", run: list[str] | tuple[str, ...] = ()) -> None:
    st.session_state.update({"pareto.box": box, "pareto.lasso": lasso, "pareto.run": list(run)})


def clear_selection() -> None:
    select()
    st.session_state["pareto:marked"] = ("", "", ())
    st.session_state["pareto:chart"] = st.session_state.get("pareto:chart", 0) + 1


def marked() -> dict:
    """What the link had selected, marked in the chart for as long as the chart is the same one."""
    if state.moved:
        chosen = (st.session_state[f"pareto.{name}"] for name in ("box", "lasso", "run"))
        st.session_state["pareto:marked"] = tuple(value or "" for value in chosen)
    box, lasso, run_ids = st.session_state.get("pareto:marked", ("", "", ()))
    return {"area": area_of(box, lasso), "highlight": tuple(run_ids or ())}


def area_of(box: str, lasso: str) -> Box | Lasso | None:
    return Box.parse(box) if box else Lasso.parse(lasso) if lasso else None


def adopt_selection(event: dict, shown: pd.DataFrame) -> None:
    """Take what was clicked or drawn around; an emptied selection counts only where there was one in this chart."""
    chosen = event["selection"]
    if chosen["box"]:
        corner = chosen["box"][-1]
        select(box=str(Box.parse(",".join(str(value) for value in [*corner["x"], *corner["y"]]))))
    elif chosen["lasso"] and len(chosen["lasso"][-1]["x"]) > 2:
        select(lasso=str(Lasso.through(chosen["lasso"][-1]["x"], chosen["lasso"][-1]["y"])))
    elif chosen["points"]:
        select(run=pareto.clicked(shown, chosen["points"]))
    elif st.session_state.get("pareto:touched"):
        select()
    st.session_state["pareto:touched"] = bool(chosen["box"] or chosen["lasso"] or chosen["points"])


def filter_word(name: str, value: str) -> str:
    return style(value).title if name == "method" else value


def title_of(name: str) -> str:
    return MEASURES[name].title if name else "–"


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
runs = store.finished.query(queries.pair_runs, pair)
axes = [column for column in AXES if runs[column].notna().any()]
tags = store.query(queries.tags)
known = {
    "method": sorted(runs["method"].unique(), key=lambda name: style(name).title),
    "source": sorted(runs["source"].unique()),
    "split": sorted(runs["split"].dropna().unique(), reverse=True),
    "utility_metric": sorted(runs["utility_metric"].dropna().unique()),
    "tag": sorted(tags.loc[tags["run_id"].isin(runs["run_id"]), "tag"].unique()) if len(tags) else [],
}
state.read(
    {
        "x": (link.one_of(axes), axes[0]),
        "y": (link.one_of(axes), "utility" if "utility" in axes[1:] else axes[-1]),
        "z": (link.one_of(axes), ""),
        "space": (link.flag, False),
        "fronts": (link.flag, False),
        **{name: (link.some_of(values), []) for name, values in known.items()},
        "box": (lambda values: str(Box.parse(values[-1])), ""),
        "lasso": (lambda values: str(Lasso.parse(values[-1])), ""),
        "run": (link.texts, []),
        **decision.fields(),
    }
)
for name, default in (("x", axes[0]), ("y", axes[0]), ("z", "")):  # another pair may not have the measure
    if st.session_state[f"pareto.{name}"] not in axes:
        st.session_state[f"pareto.{name}"] = default
for name, values in known.items():
    st.session_state[f"pareto.{name}"] = [kept for kept in st.session_state[f"pareto.{name}"] if kept in values]
if st.session_state["pareto.x"] == st.session_state["pareto.y"]:
    st.session_state["pareto.y"] = next((column for column in axes if column != st.session_state["pareto.x"]), axes[0])
if st.session_state["pareto.z"] in (st.session_state["pareto.x"], st.session_state["pareto.y"]):
    st.session_state["pareto.z"] = ""

with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
    st.selectbox("Pair", pairs, key="pareto.pair", width=165)
    x = st.selectbox("Across", axes, key="pareto.x", format_func=title_of, width=165)
    y = st.selectbox("Up", [column for column in axes if column != x], key="pareto.y", format_func=title_of, width=165)
    thirds = ["", *(column for column in axes if column not in (x, y))]
    z = st.selectbox(
        "Third",
        thirds,
        key="pareto.z",
        format_func=title_of,
        width=165,
        help="A third objective: a run is then on the front where no other is as good in all three.",
    )
    if z:
        space = st.toggle("3D", key="pareto.space", help="The third measure as an axis of its own instead of a colour.")
    with st.popover("Filter", icon=":material/filter_alt:"):
        for name, values in known.items():
            useful = len(values) > (0 if name == "tag" else 1)  # not every run has the only tag
            if useful or st.session_state[f"pareto.{name}"] or name in ("method", "source"):
                st.multiselect(
                    FILTERS[name],
                    values,
                    key=f"pareto.{name}",
                    format_func=partial(filter_word, name),
                )
        st.caption("Nothing chosen means everything is shown.")
        st.toggle("A front for each method", key="pareto.fronts", disabled=bool(z))
    for name in known:
        for value in st.session_state[f"pareto.{name}"]:
            words = style(value).title if name == "method" else plain(value)
            st.button(
                words, icon=":material/close:", key=f"chip.{name}.{value}", on_click=remove_filter, args=(name, value)
            )

choice = decision.decided(store, "pareto", pair, runs)
space, fronts = bool(z) and st.session_state["pareto.space"], st.session_state["pareto.fronts"]
chosen = {name: st.session_state[f"pareto.{name}"] for name in known}
kept = runs
for name in ("method", "source", "split", "utility_metric"):
    if chosen[name]:
        kept = kept[kept[name].isin(chosen[name])]
if chosen["tag"]:
    kept = kept[kept["run_id"].isin(tags.loc[tags["tag"].isin(chosen["tag"]), "run_id"])]
what = ("pareto", pair, x, y, z, str(chosen))
shown = store.finished.recall((*what, "shown"), lambda: pareto.drawable(kept, x, y, z or None))
objectives = [name for name in (x, y, z) if name]
stands = None
blocks.problems(state.problems, warning=True)

left, right = st.columns([6, 5], gap="medium")
with left:
    if shown.empty:
        blocks.empty(f"None of the {len(kept):,} runs has these measures. Choose another axis or remove a filter.")
    else:
        mark = marked()
        stands = store.finished.recall(
            (*what, str(choice.limits), "standing"), lambda: standing.standing(shown, objectives, choice)
        )
        look = {"z": z or None, "space": space, "method_fronts": fronts, "marks": stands.marks if stands else {}}
        seen = (*what, str(look), str(mark))

        def drawn() -> go.Figure:
            return pareto.figure(shown, x=x, y=y, **look, **mark)

        chart_key = f"pareto.chart.{st.session_state.get('pareto:chart', 0)}"
        alt = f"{MEASURES[y].title} against {MEASURES[x].title} of {len(shown)} runs of {pair}"
        if len(shown) > pareto.WEBGL_ABOVE and not z:
            written = store.finished.recall((*seen, "written"), lambda: str(drawn().to_json()))
            event = many.chart(written, key=chart_key, height=pareto.HEIGHT, alt=alt)
        else:
            event = st.plotly_chart(
                store.finished.recall(seen, drawn),
                key=chart_key,
                on_select="rerun",
                selection_mode=("points", "box", "lasso"),
                config=blocks.CHART_CONFIG,
                alt=alt,
            )
        adopt_selection(event, shown)
        missing = len(kept) - len(shown)
        without = (
            f"; {missing:,} more without one of the measures, or with utility by another metric" if missing else ""
        )
        how = (
            "Select on the flat picture, without 3D."
            if space
            else "Click a point to select it, with shift for more; or take the box or the lasso above the chart."
        )
        hollow, faint = "", ""
        if shown["source"].eq("reported").any():
            hollow = "Hollow: reported in the literature, on other models and prompts. "
        if not (shown["on_front"] | shown["is_reference"]).all():
            faint = "Faded: dominated, or on other prompts and not ranked. "
        ringed = standing.marks_words(look["marks"])
        st.caption(
            f"Showing {len(shown):,} of {len(runs):,} runs of {plain(pair)}{without}. {hollow}{faint}"
            f"{f'{ringed} ' if ringed else ''}{told_on(shown)} {how}"
        )

box_text, lasso_text, run_ids = (st.session_state[f"pareto.{name}"] for name in ("box", "lasso", "run"))
area = area_of(box_text, lasso_text)
selecting = bool(area or run_ids)
with right:
    if selecting:
        panel = pareto.select(shown, x, y, area=area, runs=run_ids)
        with st.container(horizontal=True, vertical_alignment="center"):
            st.subheader(f"{len(panel):,} of {len(shown):,} selected", anchor=False)
            st.button("Clear", icon=":material/close:", key="pareto.clear", on_click=clear_selection, type="tertiary")
        gone = [run_id for run_id in run_ids if run_id not in set(shown["run_id"])]
        if gone:
            named = ", ".join(map(plain, gone))
            st.warning(f"Not among the runs shown: {named}. They may be filtered out, or not be here at all.")
    else:
        decision.card(store, "pareto", pair, choice)
        panel = pareto.front(shown, x, y)
        st.subheader(f"The front: {len(panel):,} of {len(shown):,} runs", anchor=False)
        if stands:
            spread = (
                store.finished.query(volume_interval, stands.front, objectives)
                if stands.hypervolume is not None
                else None
            )
            st.caption(
                standing.volume_words(stands, objectives, spread),
                help=standing.ABOUT,
            )
    if len(panel):
        blocks.brief_table(panel)
        with st.container(horizontal=True, vertical_alignment="center"):
            blocks.csv_button(panel, f"pareto-{pair}.csv", key="pareto.csv.panel")
            if selecting:
                blocks.compare_link(list(panel.loc[panel["source"] == "measured", "run_id"]))
            said = {"pair": pair, "x": x, "y": y, "z": z, "space": space, "fronts": fronts, **chosen}
            said |= {"box": box_text, "lasso": lasso_text, "run": run_ids}
            said |= decision.values("pareto")
            blocks.share_box(link.share(start.base_url(), "pareto", said))
    else:
        st.caption("Nothing in the selection.")

rest = st.expander(f"All {len(kept):,} runs", icon=":material/table_rows:", key="pareto.rest", on_change="rerun")
if rest.open:
    with rest:
        blocks.run_table(
            kept.head(LISTED), key="pareto.all", columns=("k", "safety_tax", "composite", "source", "created_at")
        )
        if len(kept) > LISTED:
            st.caption(f"Showing the newest {LISTED:,} of {len(kept):,}; the file has all of them.")
        blocks.csv_button(kept, f"runs-{pair}.csv", key="pareto.csv.all")

state.write(
    {"pair": pair, "x": x, "y": y, "z": z, "space": space, "fronts": fronts}
    | chosen
    | {"box": box_text, "lasso": lasso_text, "run": run_ids}
    | decision.values("pareto")
)
