"""Safety and utility of a pair against α."""

import streamlit as st

from pages.parts import alpha_curves_picture as picture
from sstmerge_core import words
from sstmerge_core.plots import alpha_curves, pareto
from sstmerge_core.plots.style import order, style
from sstmerge_core.plots.told import told_on
from sstmerge_core.store import queries
from sstmerge_core.words import plain
from studio import blocks, link

SPLITS = "Settings are chosen on the selection prompts, figures are reported on the test prompts. Never on one line."

store = blocks.store_or_stop()
pairs = store.finished.query(queries.alpha_pairs)
if not pairs:
    blocks.title("Alpha curves")
    blocks.empty("No merge with an α has finished yet.", page="pages/sweep.py", label="Sweep over α")
    st.stop()

state = link.Link("alpha_curves")
state.read({"pair": (link.one_of(pairs), pairs[0]), "panels": (link.one_of(tuple(picture.LAYOUTS)), "together")})
pair, layout = st.session_state["alpha_curves.pair"], st.session_state["alpha_curves.panels"]
runs = picture.runs(store, pairs if layout == "pair" else [pair])
methods = sorted(runs["method"].unique(), key=order)
splits = sorted(runs["split"].dropna().unique(), reverse=True)
state.read(
    {
        "method": (link.some_of(methods), []),
        "split": (link.some_of(splits), splits[:1]),
        "reported": (link.flag, not (runs["source"] == "measured").any()),
        "intervals": (link.flag, True),
    }
)
for name, known in (("method", methods), ("split", splits)):
    st.session_state[f"alpha_curves.{name}"] = [one for one in st.session_state[f"alpha_curves.{name}"] if one in known]

with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
    st.selectbox("Pair", pairs, key="alpha_curves.pair", width=165, disabled=layout == "pair")
    chosen = st.multiselect(
        "Methods",
        methods,
        key="alpha_curves.method",
        format_func=lambda name: style(name).title,
        width=330,
        placeholder="All",
    )
    st.segmented_control(
        "Panels",
        picture.LAYOUTS,
        format_func=picture.LAYOUTS.__getitem__,
        key="alpha_curves.panels",
        required=True,
    )
    if len(splits) > 1:
        st.segmented_control("Prompts", splits, key="alpha_curves.split", selection_mode="multi", help=SPLITS)
    reported = st.toggle(
        "Reported figures", key="alpha_curves.reported", help="Hollow and dotted: other models and prompts."
    )
    intervals = st.toggle("Intervals", key="alpha_curves.intervals", help="95 % intervals as thin bars.")

among = st.session_state["alpha_curves.split"]
values = {"pair": pair, "panels": layout, "method": chosen, "split": among, "reported": reported}
blocks.problems(state.problems, warning=True)
kept = alpha_curves.keep(runs, methods=chosen, splits=among, reported=reported)
shown = picture.series(store, kept, str(values))
values["intervals"] = intervals
of = "every pair" if layout == "pair" else pair
nothing_between = len(shown) > 0 and picture.few_values(shown, layout, of, whole=True)
if shown.empty:
    blocks.empty(f"None of the {len(runs):,} runs is left. Choose other methods, prompts or the reported figures.")
    figures = []
elif layout == "together":
    figures = picture.together(store, shown, str(values), intervals)
else:
    figures = picture.apart(store, picture.panels(shown, layout), str(values), intervals)

with st.container(horizontal=True, vertical_alignment="center"):
    without = store.query(queries.without_alpha, pair, but=pareto.REFERENCE_METHODS)
    rest = f" {words.count(without, 'run')} without α: on the Pareto page." if without else ""
    st.caption(
        f"Showing {len(shown):,} of {len(runs):,} runs of {plain(of)} with an α.{'' if layout == 'pair' else rest} "
        + ("A band: the range over seeds, the line is their mean." if shown["seed"].nunique() > 1 else "")
        + f" {told_on(shown) if len(shown) else ''} 95 % intervals.",
        width="stretch",
    )
    name = f"alpha-curves-{'all' if layout == 'pair' else pair}"
    picture.files(figures, shown, title=f"{of}: safety and utility against α", name=name, values=values)

if len(shown) and not nothing_between:
    picture.few_values(shown, layout, of)
state.write(values)
