"""Prompts that merges are measured on: those that are here, a file of one's own, and how to get the others."""

import streamlit as st

from pages.parts import prompts_add, prompts_list
from studio import blocks, link

blocks.store_or_stop()
found = prompts_list.found()
names = [one.name for one in found.here]
state = link.Link("prompts")
state.read({"show": (link.one_of(names), names[0] if names else None)})
if (wanted := st.session_state.pop("prompts:next", None)) in names:
    st.session_state["prompts.show"] = wanted
if st.session_state["prompts.show"] not in names:
    st.session_state["prompts.show"] = names[0] if names else None

blocks.title("Prompts", "What a model should refuse, what it should answer, and tasks that it should do well.")
blocks.problems(state.problems, warning=True)
blocks.problems(found.broken, warning=True)
prompts_list.removed()
left, right = st.columns([7, 5], gap="large")
with left:
    prompts_list.here(found)
    with st.expander("Add a file of your own", icon=":material/add:", expanded=True, key="prompts.add"):
        prompts_add.form()
with right:
    if names:
        prompts_list.show(found)
with st.expander(f"Not here: {len(found.absent)}, and how to get them", icon=":material/cloud_download:"):
    prompts_list.absent(found)
state.write({"show": st.session_state["prompts.show"]})
