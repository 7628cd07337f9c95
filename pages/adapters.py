"""What can be merged: the catalogue, whether two adapters fit, and how alike they are."""

from pathlib import Path

import streamlit as st

from sstmerge_core import catalog, jobs
from sstmerge_core.adapters import check_pair
from sstmerge_core.plots import table
from sstmerge_core.store import queries
from studio import blocks, link, pick, start

store = blocks.store_or_stop()
shelf = pick.Shelf()
state = link.Link("adapters")
state.read(shelf.fields() | {"job": (link.text, "")})
blocks.title("Adapters", "LoRA adapters (PEFT folders) known to this workspace, with what they were measured at.")
blocks.problems(state.problems, warning=True)

entries = list(shelf.adapters.values())
if entries:
    st.dataframe(
        table.adapters(entries),
        hide_index=True,
        column_config={
            "alpha": st.column_config.NumberColumn("LoRA α", format="%g"),
            "rank": st.column_config.NumberColumn("rank", format="%d"),
        }
        | {name: blocks.measure_column(name) for name in table.score_names(entries)},
        placeholder="–",
        alt="Adapters of this workspace",
    )
else:
    blocks.empty("No adapter yet. Add a PEFT folder below; `make setup` brings the demo adapters.")

with st.expander("Add or remove", icon=":material/add:", expanded=not entries):
    form = st.form("add", enter_to_submit=True, border=False)
    with form, st.container(horizontal=True, vertical_alignment="bottom"):
        folder = st.text_input(
            "Folder on this machine",
            key="adapters.path",
            placeholder="/models/my-lora",
            width=420,
            help="It holds adapter_config.json and adapter_model.safetensors.",
        )
        name = st.text_input("Name", key="adapters.name", placeholder="the folder's name", width=180)
        role = st.selectbox("Role", ["", "utility", "safety"], format_func=lambda each: each or "either", width=130)
        added = st.form_submit_button("Add", icon=":material/add:")
    if added:
        if not folder.strip():
            st.info("Write the folder's path.")
        else:
            with blocks.failures():
                entry = catalog.add(
                    start.workspace(), Path(folder.strip()).expanduser(), name=name.strip() or None, role=role
                )
                st.toast(f"Added {entry.name}.")
                st.rerun()
    own = {label: entry for label, entry in shelf.adapters.items() if not entry.bundled}
    if own:
        with st.container(horizontal=True, vertical_alignment="bottom"):
            gone = st.selectbox("Remove from the catalogue", list(own), index=None, placeholder="Choose", width=260)
            if st.button("Remove", disabled=gone is None, help="The folder itself stays where it is.") and gone:
                with blocks.failures():
                    catalog.remove(start.workspace(), own[gone].sha256)
                    st.rerun()

if not pick.missing(shelf):
    st.subheader("Do two adapters fit?", anchor=False)
    trio = pick.trio(state, shelf)
    left, right = st.columns([5, 7], gap="large")
    fit = False
    with left, blocks.failures():
        report = check_pair(trio.base.path, trio.utility.path, trio.safety.path)
        fit = report.compatible
        if report.problems:
            blocks.problems(report.problems)
        else:
            st.success("They fit: every method can merge them.", icon=":material/check_circle:")
        blocks.problems(report.warnings, warning=True)
        blocks.pair_facts(report.facts)
        st.page_link("pages/merge.py", label="Merge this pair", icon=":material/merge:", query_params=trio.values)
    with right:
        measuring = None
        if job_id := st.session_state["adapters.job"]:
            measuring = blocks.watch(job_id, key="adapters.watch")
            if measuring is None:
                st.warning(f"There is no job “{job_id}” in this workspace.", icon=":material/search_off:")
        pair_id = store.query(
            queries.inspected_pair, base=trio.base.sha256, utility=trio.utility.sha256, safety=trio.safety.sha256
        )
        if pair_id is not None:
            blocks.module_map(store.query(queries.module_stats, pair_id), key="adapters.stat")
        elif measuring is None or not measuring.active:
            with st.container(border=True):
                st.markdown("How alike the two adapters are, layer by layer, has not been measured yet.")
                st.caption("A worker computes it; nothing is merged.")
                if st.button("Measure similarity", icon=":material/straighten:", disabled=not fit):
                    with blocks.failures():
                        st.session_state["adapters.job"] = jobs.submit(
                            start.workspace(),
                            [],
                            sources={
                                "base": trio.base.source,
                                "utility": trio.utility.source,
                                "safety": trio.safety.source,
                            },
                            name=f"Similarity of {trio.utility.name} and {trio.safety.name}",
                            user=start.user(),
                            kind="inspect",
                        )
                        st.rerun()
    state.write(trio.values | {"job": st.session_state["adapters.job"]})
