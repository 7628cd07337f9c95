"""Safety and utility of a pair against α."""

import streamlit as st

from sstmerge_core import words
from sstmerge_core.plots import alpha_curves, pareto
from sstmerge_core.plots.style import style
from sstmerge_core.store import queries
from studio import blocks, curves, link

store = blocks.store_or_stop()
pairs = store.query(queries.alpha_pairs)
if not pairs:
    blocks.title("Alpha curves")
    blocks.empty("No merge with an α has finished yet.", page="pages/sweep.py", label="Sweep over α")
    st.stop()

state = link.Link("alpha_curves")
state.read({"pair": (link.one_of(pairs), pairs[0]), "panels": (link.one_of(tuple(curves.LAYOUTS)), "together")})
pair, layout = st.session_state["alpha_curves.pair"], st.session_state["alpha_curves.panels"]
rows = curves.series(store, pairs if layout == "pair" else [pair])
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
        "Panels", curves.LAYOUTS, format_func=curves.LAYOUTS.get, key="alpha_curves.panels", required=True
    )
    reported = st.toggle(
        "Reported figures", key="alpha_curves.reported", help="Hollow and dotted: other models and prompts."
    )
    intervals = st.toggle("Intervals", key="alpha_curves.intervals", help="95 % intervals as thin bars.")

values = {"pair": pair, "panels": layout, "method": chosen, "reported": reported, "intervals": intervals}
blocks.problems(state.problems, warning=True)
shown = alpha_curves.keep(rows, methods=chosen, reported=reported)
if shown.empty:
    blocks.empty(f"None of the {len(rows):,} runs is left. Choose other methods, or show the reported figures.")
    figures = []
elif layout == "together":
    figures = curves.together(store, shown, str(values), intervals)
else:
    figures = curves.apart(store, curves.panels(shown, layout), str(values), intervals)

of = "every pair" if layout == "pair" else pair
with st.container(horizontal=True, vertical_alignment="center"):
    without = store.query(queries.without_alpha, pair, but=pareto.REFERENCE_METHODS)
    rest = f" {words.count(without, 'run')} without α: on the Pareto page." if without else ""
    st.caption(
        f"Showing {len(shown):,} of {len(rows):,} runs of {of} with an α.{'' if layout == 'pair' else rest} "
        + ("A band: the range over seeds, the line is their mean." if shown["seed"].nunique() > 1 else ""),
        width="stretch",
    )
    name = f"alpha-curves-{'all' if layout == 'pair' else pair}"
    curves.files(figures, shown, title=f"{of}: safety and utility against α", name=name, values=values)

state.write(values)
