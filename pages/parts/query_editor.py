"""The parts of the Query page: what can be asked, what was asked before, and how an answer is shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import streamlit as st

from sstmerge_core import words
from sstmerge_core.errors import Problem, SSTMergeError, StoreError
from sstmerge_core.plots import result as picture
from sstmerge_core.plots.measures import MEASURES
from sstmerge_core.store import QueryError, QueryResult, dictionary, run_sql, saved
from sstmerge_core.store.examples import EXAMPLES
from sstmerge_core.store.saved import PastQuery, SavedQuery
from sstmerge_core.words import plain
from studio import blocks, entrance, link, start

LIMITS = ("1000", "5000", "50000")
"""Rows fetched at most, as they stand in the URL"""
VIEWS = {"table": ":material/table_rows: Table", "chart": ":material/insert_chart: Chart"}
AXES = ("kind", "x", "y", "colour")
LISTED = 40
"""Past queries in the list"""
_POPOVERS = ("query.examples", "query.saved", "query.history")


@dataclass(frozen=True)
class Answer:
    """What the page has asked last. Kept until the next run, so that nothing below is redrawn while jobs write."""

    sql: str
    limit: str
    result: QueryResult | None = None
    frame: pd.DataFrame | None = None
    error: StoreError | None = None


def put(sql: str, view: Mapping[str, str] | None = None) -> None:
    """Callback: `sql` into the editor and run it, shown as `view` says; what stood there can be brought back."""
    state = st.session_state
    text, answer = state.get("query.sql", ""), state.get("query:answer")
    if text.strip() and text != sql and (answer is None or answer.sql != text):
        state["query:before"] = text
    state["query.sql"] = sql
    state["query.view"] = (view or {}).get("view", "table")
    state.update({f"query.{name}": (view or {}).get(name, "") for name in AXES})
    state.pop("query:columns", None)
    state["query:run"] = True
    for popover in _POPOVERS:
        if popover in state:
            state[popover] = False


def run_again() -> None:
    """Callback: run what stands in the editor."""
    st.session_state["query:run"] = True


def bring_back() -> None:
    """Callback: the text that was replaced, into the editor; it is not run."""
    st.session_state["query.sql"] = st.session_state.pop("query:before")


def examples(key: str = "query.example", columns: int = 1) -> None:
    """Each example with what it teaches; a click runs it."""
    places = st.columns(columns, gap="medium")
    for number, example in enumerate(EXAMPLES):
        with places[number * columns // len(EXAMPLES)], st.container(gap=None):
            st.button(
                example.title,
                key=f"{key}.{number}",
                on_click=put,
                args=(example.sql, example.view),
                type="tertiary",
                icon=":material/insert_chart:" if example.view else ":material/table_rows:",
            )
            st.caption(plain(example.teaches))


def toolbar() -> None:
    """Examples, saved queries and history, each drawn only while it is open."""
    with st.container(horizontal=True, gap="small"):
        for key, label, icon, draw in (
            ("query.examples", "Examples", "lightbulb", examples),
            ("query.saved", "Saved", "bookmark", saved_queries),
            ("query.history", "History", "history", history),
        ):
            popover = st.popover(label, icon=f":material/{icon}:", key=key, on_change="rerun")
            if popover.open:
                with popover, blocks.failures():
                    draw()
        if "query:before" in st.session_state:
            st.button(
                "Bring back my text",
                icon=":material/undo:",
                key="query.before",
                on_click=bring_back,
                help="The query that you had not run when it was replaced.",
            )


def saved_queries() -> None:
    """Save what stands in the editor; open, rename and delete what anyone saved, with undo."""
    workspace, state = start.workspace(), st.session_state
    with st.form("query.save", clear_on_submit=True, border=False, enter_to_submit=True):
        name = st.text_input("Save this query as", key="query.name")
        if st.form_submit_button("Save", icon=":material/bookmark_add:", **entrance.guard("save query")):
            view = {key: value for key in ("view", *AXES) if (value := state.get(f"query.{key}"))}
            view = view if view.get("view") == "chart" else {}
            query = SavedQuery(name, state.get("query.sql", ""), view, start.user())
            with blocks.failures():
                replaced = saved.save(workspace, query)
                state["query:undo"] = ("replaced", replaced) if replaced else None
                state.pop("query:renaming", None)
    _undo()
    found = saved.saved(workspace)
    if not found:
        st.caption("Nothing saved yet. A saved query is there for everyone in this workspace.")
    for number, query in enumerate(found):
        _saved_query(number, query)


def _saved_query(number: int, query: SavedQuery) -> None:
    state, workspace = st.session_state, start.workspace()
    if state.get("query:renaming") == query.name:
        with st.form(f"query.rename.{number}", border=False, enter_to_submit=True):
            name = st.text_input("New name", value=query.name)
            if st.form_submit_button("Rename", **entrance.guard("save query")):
                with blocks.failures():
                    saved.rename(workspace, query.name, name)
                    state.pop("query:renaming")
                    st.rerun()
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        with st.container(gap=None):
            st.button(
                plain(query.name),
                key=f"query.open.{number}",
                on_click=put,
                args=(query.sql, query.view),
                type="tertiary",
            )
            st.caption(" · ".join(filter(None, (plain(query.user), words.ago(query.t)))))
        for what, icon, act in (("Rename", "edit", _start_renaming), ("Delete", "delete", _delete)):
            st.button(
                f":material/{icon}:",
                key=f"query.{what.lower()}.{number}",
                **entrance.guard("save query", help=f"{what} “{plain(query.name)}”"),
                on_click=act,
                args=(query.name,),
                type="tertiary",
            )


def _undo() -> None:
    """Say what was deleted, replaced or went wrong, with the way back."""
    state = st.session_state
    if error := state.pop("query:problem", None):
        blocks.problems(error.problems)
    what, query = state.get("query:undo") or ("", None)
    if query is not None:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.caption(f"{what.capitalize()}: “{plain(query.name)}”.", width="content")
            st.button(
                "Undo",
                icon=":material/undo:",
                key="query.undo",
                on_click=_bring_saved_back,
                type="tertiary",
                **entrance.guard("save query"),
            )


def _start_renaming(name: str) -> None:
    st.session_state["query:renaming"] = name


def _delete(name: str) -> None:
    try:
        st.session_state["query:undo"] = ("deleted", saved.delete(start.workspace(), name))
    except SSTMergeError as error:
        st.session_state["query:problem"] = error


def _bring_saved_back() -> None:
    what, query = st.session_state.pop("query:undo")
    try:
        saved.save(start.workspace(), query, replace=what == "replaced")
    except SSTMergeError as error:
        st.session_state["query:problem"] = error


def history() -> None:
    """The last queries of everyone here; a click runs one again."""
    found = saved.history(start.workspace())
    if not found:
        st.caption("Nothing asked yet.")
    for number, past in enumerate(found[:LISTED]):
        outcome = "failed" if past.rows is None else f"{words.count(past.rows, 'row')} in {past.seconds:.2f} s"
        with st.container(gap=None):
            st.button(
                plain(words.shortened(past.sql)),
                key=f"query.past.{number}",
                on_click=put,
                args=(past.sql,),
                type="tertiary",
                icon=":material/error:" if past.rows is None else None,
            )
            st.caption(" · ".join(filter(None, (plain(past.user), words.ago(past.t), outcome))))
    if len(found) > LISTED:
        st.caption(f"The last {LISTED} of {len(found)}.")


def schema_browser(schema: pd.DataFrame) -> None:
    """A table's columns with their types and a sentence each; a button shows what is in it."""
    names = tables(schema)
    st.pills("Tables and views", names, key="query.table", required=True, wrap=True)
    table = st.session_state["query.table"]
    st.markdown(dictionary.TABLES.get(table, ""))
    sql = dictionary.selection(table)
    st.button(f"SELECT from {table}", icon=":material/input:", key="query.select", on_click=put, args=(sql,))
    rows = schema[schema["table"] == table].to_dict("records")
    lines = [
        f"`{row['column']}` :small[:gray[{row['type'].lower()}]]  \n"
        f":small[{plain(dictionary.describe(table, row['column']))}]"
        for row in rows
    ]
    st.html("<style>.st-key-query-columns p {margin-bottom: 0.4rem; line-height: 1.35}</style>")
    with st.container(border=len(rows) > 8, key="query.columns"):  # all of it: a keyboard cannot scroll a container
        st.markdown("\n\n".join(lines))


def tables(schema: pd.DataFrame) -> list[str]:
    """Tables and views in the order in which a newcomer meets them."""
    order = list(dictionary.TABLES)
    return sorted(schema["table"].unique(), key=lambda name: order.index(name) if name in order else len(order))


def ask(store: start.Store, sql: str, limit: str) -> Answer:
    """Run `sql` over everything known by now, and note it in the history."""
    try:
        store.publish(patient=False)
        result = run_sql(start.workspace(), sql, limit=int(limit))
        answer = Answer(sql, limit, result, result.frame())
        past = PastQuery(sql, start.user(), rows=len(result.rows), seconds=result.seconds)
    except StoreError as error:
        answer, past = Answer(sql, limit, error=error), PastQuery(sql, start.user(), error=str(error))
    try:
        saved.remember(start.workspace(), past)
    except StoreError as error:
        st.toast(plain(str(error)), icon=":material/warning:")
    return answer


def failure(error: StoreError) -> None:
    """What is wrong with the query, and where in it."""
    blocks.problems(error.problems)
    if isinstance(error, QueryError) and error.excerpt:
        st.code(error.excerpt, language=None)


def show(answer: Answer, state: link.Link) -> dict[str, Any]:
    """Draw the rows as a table or a picture, with their downloads; returns what the link says of it."""
    result, frame = answer.result, answer.frame
    assert result is not None and frame is not None
    more = f" The first {len(frame):,} are shown: **there are more.**" if result.truncated else ""
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.caption(f"{words.count(len(frame), 'row')} in {result.seconds:.2f} s.{more}", width="content")
        view = st.segmented_control(
            "Shown as",
            list(VIEWS),
            format_func=VIEWS.__getitem__,
            key="query.view",
            required=True,
            label_visibility="collapsed",
        )
    shown = {"view": view}
    if view == "chart":
        shown |= _picture(frame, state)
    else:
        _table(frame)
    values = {"sql": answer.sql, "limit": answer.limit} | shown
    with st.container(horizontal=True):
        blocks.csv_button(frame, "query.csv", key="query.csv")
        st.download_button(
            f"Parquet · {words.count(len(frame), 'row')}",
            data=result.parquet,
            file_name="query.parquet",
            mime="application/vnd.apache.parquet",
            on_click="ignore",
            icon=":material/download:",
            key="query.parquet",
            disabled=frame.empty,
        )
        blocks.share_box(link.share(start.base_url(), "query", values))
    return values


def _table(frame: pd.DataFrame) -> None:
    shares = [name for name in frame if name in MEASURES and MEASURES[name].bounded]
    columns: dict[str, Any] = {name: st.column_config.NumberColumn(name, format="%.3f") for name in shares}
    if "run_id" in frame:  # a click on its key opens the run
        frame = frame.assign(run_id=[words.run_address(run_id) if run_id else None for run_id in frame["run_id"]])
        columns["run_id"] = st.column_config.LinkColumn("run_id", display_text=r"run=(.*)$", help="Open the run")
    st.dataframe(frame, hide_index=True, column_config=columns, placeholder="–", alt="Result of the query")


def _picture(frame: pd.DataFrame, state: link.Link) -> dict[str, str]:
    """The chart and its settings; what no longer fits the columns gives way to what does."""
    session = st.session_state
    columns = tuple(frame)
    wanted = {name: session[f"query.{name}"] for name in AXES}
    if not state.moved and session.get("query:columns", columns) != columns:
        wanted = {}  # chosen for another query's columns
    session["query:columns"] = columns
    chart = picture.usable(frame, wanted)
    if chart is None:
        blocks.empty("Nothing here can be drawn: a picture needs at least one row and a column of single values.")
        return {}
    for name in AXES:
        session[f"query.{name}"] = getattr(chart, name)
    if state.moved:
        _missing_columns(wanted, chart, columns)
    st.plotly_chart(
        picture.figure(frame, chart),
        key="query.chart",
        config=blocks.CHART_CONFIG,
        alt=f"{chart.kind} of {chart.y or 'rows'} by {chart.x}",
    )
    if remarks := picture.remarks(frame, chart):
        st.caption(plain(" ".join(remarks)))
    with st.container(horizontal=True, gap="small"):
        st.selectbox("Picture", picture.kinds(frame), key="query.kind", width=135)
        st.selectbox("Across", picture.xs(frame, chart.kind), key="query.x", width=165)
        if chart.y:
            st.selectbox("Up", picture.ys(frame, chart.kind, chart.x), key="query.y", width=165)
        st.selectbox("Colour", picture.colours(frame), key="query.colour", width=165)
    return {name: getattr(chart, name) for name in AXES}


def _missing_columns(wanted: Mapping[str, str], chart: picture.Chart, columns: tuple[str, ...]) -> None:
    known = {*columns, picture.NONE, ""}
    problems = [
        Problem(
            f"{name}={words.shortened(wanted[name])} in the link",
            "the result has no such column",
            "Another one is drawn instead.",
        )
        for name in ("x", "y", "colour")
        if wanted.get(name, "") not in known
    ]
    blocks.problems(problems, warning=True)
