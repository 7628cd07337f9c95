"""What can be merged: the catalogue, where each adapter comes from, whether two fit, and how alike they are."""

import streamlit as st

from studio import adapter, adding, blocks, link, pair, pick

store = blocks.store_or_stop()
shelf = pick.Shelf()
names = list(shelf.adapters)
state = link.Link("adapters")
state.read(shelf.fields() | pair.fields() | {"show": (link.one_of(names), names[0] if names else None)})
adapter.fit_shown(shelf)

blocks.title("Adapters", "LoRA adapters (PEFT folders) known to this workspace, with what they were measured at.")
blocks.problems(state.problems, warning=True)
if names:
    adapter.catalogue(shelf)
else:
    blocks.empty("No adapter yet. Add one below; `sstmerge demo --prepare` brings the bundled ones.")
adapter.removed()
with st.expander("Add an adapter", icon=":material/add:", expanded=not names):
    adding.form(store, shelf)

said = {"job": st.session_state["adapters.job"]}
if names:
    left, right = st.columns([5, 7], gap="large")
    with left:
        shown = st.selectbox("Adapter", names, key="adapters.show", width=260)
        adapter.about(shelf.adapters[shown], shelf)
        adapter.change(shelf.adapters[shown], shelf)
    with right:
        adapter.merged_in(store, shelf.adapters[shown])
    said |= {"show": shown}

if not pick.missing(shelf):
    st.subheader("Two adapters beside each other", anchor=False)
    trio = pick.trio(state, shelf)
    left, right = st.columns([5, 7], gap="large")
    fits = False
    with left, blocks.failures():
        fits = pair.fit(trio)
    with right:
        pair.alike(store, trio, fits)
    said |= trio.values | {"job": st.session_state["adapters.job"], "stat": st.session_state["adapters.stat"]}
if names:
    state.write(said)
