"""Two adapters beside each other: whether they can be merged, and how alike they are layer by layer."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from sstmerge_core.adapters import check_many
from sstmerge_core.builder import preflight
from sstmerge_core.plots import similarity
from sstmerge_core.store import queries
from sstmerge_core.words import plain
from studio import blocks, entrance, link, pick, queue, start, visitor

STATISTICS = ("cosine", "overlap_out", "overlap_in", "norm_utility", "norm_safety")
"""What is measured of a pair, the one that is shown first before the others"""


def fields() -> link.Fields:
    """What the link says of this part: the job that measures, and the statistic on the map."""
    return {"job": (link.text, ""), "stat": (link.one_of(STATISTICS), STATISTICS[0])}


def fit(inputs: pick.MergeInputs) -> bool:
    """Whether the pair can be merged; every problem where it cannot."""
    if not inputs.base.ready:
        blocks.problems([preflight.not_ready(inputs.base)])
        return False
    pair = {"utility": inputs.utility.path, "safety": inputs.safety.path}
    # what becomes of modules trained whole is asked where a merge is made; here the factors are compared
    report = check_many(inputs.base.path, pair, modules_to_save="utility")
    if report.problems:
        blocks.problems(report.problems)
    else:
        st.success("They fit: every method can merge them.", icon=":material/check_circle:")
    blocks.problems(report.warnings, warning=True)
    blocks.pair_facts(report.facts)
    st.page_link("pages/merge.py", label="Merge this pair", icon=":material/merge:", query_params=inputs.values)
    return report.compatible


def alike(store: start.Store, inputs: pick.MergeInputs, fits: bool) -> None:
    """Norms, cosine and overlap per layer and module as heat maps, once a worker has measured them."""
    job_id = st.session_state["adapters.job"]
    measuring = queue.watched(job_id, key="adapters.watch") if job_id else None
    contents = {"base": inputs.base.sha256, "utility": inputs.utility.sha256, "safety": inputs.safety.sha256}
    pair_id = store.query(queries.inspected_pair, **contents)
    if pair_id is not None:
        _map(inputs, store.query(queries.module_stats, pair_id))
    elif measuring is None or not measuring.active:
        with st.container(border=True):
            st.markdown("How alike the two adapters are, layer by layer, has not been measured yet.")
            st.caption("A worker computes it within seconds; nothing is merged.")
            may = entrance.guard("launch", disabled=not fits, help=None if fits else "The two must fit first.")
            if st.button("Measure similarity", icon=":material/straighten:", **may):
                with blocks.failures():
                    _measure(inputs)
                    st.rerun()


def _measure(inputs: pick.MergeInputs) -> None:
    sources = {"base": inputs.base.source, "utility": inputs.utility.source, "safety": inputs.safety.source}
    name = f"Similarity of {inputs.utility.name} and {inputs.safety.name}"
    st.session_state["adapters.job"] = visitor.submit(sources=sources, name=name, kind="inspect")


def _map(inputs: pick.MergeInputs, stats: pd.DataFrame) -> None:
    known = similarity.present(stats)
    if st.session_state["adapters.stat"] not in known:
        st.session_state["adapters.stat"] = known[0]
    st.pills(
        "Statistic",
        known,
        key="adapters.stat",
        format_func=lambda each: similarity.describe(each).title,
        label_visibility="collapsed",
        required=True,
    )
    stat = st.session_state["adapters.stat"]
    st.plotly_chart(
        similarity.figure(stats, stat),
        key=f"adapters.map.{stat}",
        config=blocks.CHART_CONFIG,
        alt=f"{similarity.describe(stat).title} of {inputs.pair} per layer and module",
    )
    st.caption(f"{similarity.describe(stat).help} U is {plain(inputs.utility.name)}, S is {plain(inputs.safety.name)}.")
