"""The report on the page: every statement computed from the database, to read here or to take along."""

from functools import partial
from typing import Any

import streamlit as st

from sstmerge_core.plots import pareto
from sstmerge_core.report import build, html, latex
from sstmerge_core.report.document import Chart, Report, Section, Table, block_markdown, markdown
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


def picture(pair: str, source: str) -> bool:
    """The pair's test runs between resistance and utility, before anything is tested; whether there is one."""
    all_runs = store.finished.query(queries.pair_runs, pair, sources=[source])
    runs = store.finished.recall(
        ("report shown", pair, source),
        lambda: pareto.drawable(all_runs[all_runs["split"].fillna("test").eq("test")], "resistance", "utility"),
    )
    if runs.empty:
        return False
    st.plotly_chart(
        store.finished.recall(("report picture", pair, source), lambda: pareto.figure(runs, height=420)),
        config=blocks.CHART_CONFIG,
        key="report.picture",
        alt=f"Runs of {pair} between resistance and utility",
    )
    return True


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

card, first = st.container(), st.container()
with first:
    drawn_first = picture(pair, source)
if source == "measured":
    state.read(decision.fields())
    with card:
        choice = decision.decided(store, "report", pair, store.finished.query(queries.pair_runs, pair))
        decision.card(store, "report", pair, choice)
values = {"source": source, "pair": pair} | (decision.values("report") if source == "measured" else {})
blocks.problems(state.problems, warning=True)
merges = store.finished.query(queries.merges_of, pair, source)
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


on_top: list[Chart] = []


def draw(number: int, section: Section) -> None:
    """One section, its tables numbered; the first picture stands on top of the page already."""
    st.subheader(section.title, anchor=f"s{number}")
    charts = [block for block in section.blocks if isinstance(block, Chart)]
    if charts and drawn_first and not on_top:
        on_top.append(charts.pop(0))
    body = st.container()
    if charts:
        picture, body = st.columns([7, 5], gap="large")
        for chart in charts:
            picture.plotly_chart(chart.figure, config=blocks.CHART_CONFIG, key=f"report.s{number}.chart", alt=chart.alt)
    with body:
        for block in section.blocks:
            if isinstance(block, Table) and len(block.rows) > LONG:
                with st.container(height=430):  # its border says that there is more
                    st.markdown(block_markdown(block))
            elif not isinstance(block, Chart):
                st.markdown(block_markdown(block))


def written(cursor: Any, *, source: str, pair: str) -> Report:
    """The report, each section drawn as soon as it is computed."""
    about, sections = build.parts(cursor, source=source, pairs=[pair])
    found = []
    for number, section in enumerate(sections):
        draw(number, section)
        found.append(section)
    fresh.append(True)
    return Report(build.TITLE, about, tuple(found))


fresh: list[bool] = []
with blocks.failures():
    contents = st.empty()
    with st.spinner("Testing every statement on the answers: what is told stands here as it comes …", show_time=True):
        report = store.finished.query(written, source=source, pair=pair)
    if not fresh:  # remembered from an earlier visit
        for number, section in enumerate(report.sections):
            draw(number, section)
    app = start.base_url()
    for ending, kind, mime, make in (
        ("Markdown", "md", "text/markdown", partial(markdown, report, app=app)),
        ("HTML", "html", "text/html", partial(html.page, report, app=app)),
        ("LaTeX", "tex", "text/x-tex", partial(latex.document, report)),
    ):
        downloads.download_button(
            ending,
            data=make,
            file_name=f"report-{pair}-{source}.{kind}",
            mime=mime,
            on_click="ignore",
            icon=":material/download:",
            key=f"report.{kind}",
            help="A paper's appendix: numbered tables with captions, by booktabs." if kind == "tex" else None,
        )
    with downloads:
        blocks.share_box(link.share(app, "report", values))
    links = [f"[{section.title}](#s{number})" for number, section in enumerate(report.sections)]
    with contents.container():
        st.caption(report.about)
        st.markdown(" · ".join(links[1:]))
state.write(values)
