"""The report on the page: every statement computed from the database, to read here or to take along."""

from functools import partial

import streamlit as st

from sstmerge_core.report import build, html
from sstmerge_core.report.document import Chart, Table, block_markdown, markdown
from sstmerge_core.store import queries
from sstmerge_core.words import plain
from studio import blocks, decision, link, start

store = blocks.store_or_stop()
SOURCES = {"measured": "Measured here", "reported": "Reported"}
MANY = 500  # merges beyond which the report is written on demand only
LONG = 16  # rows beyond which a table scrolls in its own box
present = [source for source in SOURCES if store.finished.query(build.pairs_of, source)]
if not present:
    blocks.title("Report")
    blocks.empty("No merge has been measured on the test prompts yet.", page="pages/merge.py", label="Merge a pair")
    st.stop()

state = link.Link("report")
state.read({"source": (link.one_of(present), present[0])})
source = st.session_state["report.source"]
pairs = store.finished.query(build.pairs_of, source)
state.read({"pair": (link.one_of(pairs), pairs[0])})
if st.session_state["report.pair"] not in pairs:
    st.session_state["report.pair"] = pairs[0]

with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
    st.segmented_control(
        "Figures",
        present,
        key="report.source",
        format_func=SOURCES.__getitem__,
        required=True,
        label_visibility="collapsed",
    )
    pair = st.selectbox("Pair", pairs, key="report.pair", width=220, label_visibility="collapsed")
    downloads = st.container(horizontal=True, width="content")

if source == "measured":
    state.read(decision.fields())
    choice = decision.decided(store, "report", pair, store.finished.query(queries.pair_runs, pair))
    decision.card(store, "report", pair, choice)
values = {"source": source, "pair": pair} | (decision.values("report") if source == "measured" else {})
blocks.problems(state.problems, warning=True)
merges = store.query(queries.merges_of, pair, source)
if merges > MANY and not st.session_state.get(f"report:anyway.{source}.{pair}"):
    with st.container(border=True):
        st.markdown(
            f"The report reads and tests every answer of the {merges:,} merges of {plain(pair)}, which takes minutes."
        )
        if st.button("Write it", icon=":material/description:", key="report.anyway"):
            st.session_state[f"report:anyway.{source}.{pair}"] = True
            st.rerun()
    state.write(values)
    st.stop()
with st.spinner("Testing every statement on the answers …", show_time=True), blocks.failures():
    report = store.finished.query(build.build, source=source, pairs=[pair])
    app = start.base_url()
    for ending, kind, make in (("Markdown", "md", markdown), ("HTML", "html", html.page)):
        downloads.download_button(
            ending,
            data=partial(make, report, app=app),
            file_name=f"report-{pair}-{source}.{kind}",
            mime="text/html" if kind == "html" else "text/markdown",
            on_click="ignore",
            icon=":material/download:",
            key=f"report.{kind}",
        )
    with downloads:
        blocks.share_box(link.share(app, "report", values))
    anchors = [f"s{number}" for number in range(len(report.sections))]
    contents = [f"[{section.title}](#{name})" for name, section in zip(anchors, report.sections, strict=True)]
    for name, section in zip(anchors, report.sections, strict=True):
        st.subheader(section.title, anchor=name)
        charts = [block for block in section.blocks if isinstance(block, Chart)]
        body = st.container()
        if charts:
            picture, body = st.columns([7, 5], gap="large")
            for chart in charts:
                picture.plotly_chart(
                    chart.figure, config=blocks.CHART_CONFIG, key=f"report.{name}.chart", alt=chart.alt
                )
        with body:
            for block in section.blocks:
                if isinstance(block, Table) and len(block.rows) > LONG:
                    with st.container(height=430, border=False):
                        st.markdown(block_markdown(block))
                elif not isinstance(block, Chart):
                    st.markdown(block_markdown(block))
        if name == anchors[0]:
            st.caption(report.about)
            st.markdown(" · ".join(contents[1:]))
state.write(values)
