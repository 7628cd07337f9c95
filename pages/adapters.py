"""What can be merged: the catalogue, where each adapter comes from, whether two fit, and how alike they are."""

import streamlit as st

from pages.parts import adapters_add, adapters_base, adapters_info, adapters_pair
from studio import blocks, link, pick

store = blocks.store_or_stop()
shelf = pick.Shelf()
names = list(shelf.adapters)
state = link.Link("adapters")
state.read(shelf.fields() | adapters_pair.fields() | {"show": (link.one_of(names), names[0] if names else None)})
adapters_info.fit_shown(shelf)

blocks.title("Adapters", "LoRA adapters (PEFT folders) known to this workspace, with what they were measured at.")
blocks.problems(state.problems, warning=True)
if names:
    adapters_info.catalogue(shelf)
else:
    blocks.empty("No adapter yet. Add one below; `sstmerge demo --prepare` brings the bundled ones.")
adapters_info.removed()
with st.expander("Add an adapter", icon=":material/add:", expanded=not names):
    adapters_add.form(store, shelf)
ready = [base for base in shelf.bases.values() if base.ready]
with st.expander(
    f"Base models: {len(shelf.bases)}", icon=":material/deployed_code:", expanded=not ready, key="adapters.bases"
):
    adapters_base.known(shelf)
    st.markdown("**Add a base model**")
    adapters_base.form(shelf)

said = {"job": st.session_state["adapters.job"]}
if names:
    left, right = st.columns([5, 7], gap="large")
    with left:
        shown = st.selectbox("Adapter", names, key="adapters.show", width=260)
        adapters_base.offer(shelf.adapters[shown], shelf)
        adapters_info.about(shelf.adapters[shown], shelf)
        adapters_info.change(shelf.adapters[shown], shelf)
    with right:
        adapters_info.merged_in(store, shelf.adapters[shown])
    said |= {"show": shown}

if not pick.missing(shelf):
    st.subheader("Two adapters beside each other", anchor=False)
    inputs = pick.merge_inputs(state, shelf)
    left, right = st.columns([5, 7], gap="large")
    fits = False
    with left, blocks.failures():
        fits = adapters_pair.fit(inputs)
    with right:
        adapters_pair.alike(store, inputs, fits)
    said |= inputs.values | {"job": st.session_state["adapters.job"], "stat": st.session_state["adapters.stat"]}
if names:
    state.write(said)
