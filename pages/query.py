"""SELECT over everything that is known."""

import streamlit as st

from pages.parts import query_completion, query_editor
from sstmerge_core.plots.result import KINDS
from sstmerge_core.store import queries
from studio import blocks, link, navigation

store = blocks.store_or_stop()
schema = store.query(queries.schema)
tables = query_editor.tables(schema)
state = link.Link("query")
fields: link.Fields = {
    "sql": (link.text, ""),
    "limit": (link.one_of(query_editor.LIMITS), "5000"),
    "table": (link.one_of(tables), tables[0]),
    "view": (link.one_of(list(query_editor.VIEWS)), "table"),
    "kind": (link.one_of(KINDS), ""),
    "x": (link.text, ""),
    "y": (link.text, ""),
    "colour": (link.text, ""),
}
state.read(fields)
session = st.session_state
blocks.title("Query", "Read-only SQL (DuckDB) over everything known here.")
blocks.problems(state.problems, warning=True)
st.html("<style>.st-key-query-sql textarea {font-family: monospace; font-size: 0.9rem}</style>")

left, right = st.columns([5, 2], gap="large")
with left:
    query_editor.toolbar()
    sql = st.text_area(
        "SQL", key="query.sql", height=165, placeholder="SELECT * FROM leaderboard", label_visibility="collapsed"
    )
    query_completion.bar(schema, editor="query.sql")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        submitted = st.button(
            "Run query", type="primary", icon=":material/play_arrow:", key="query.go", shortcut=navigation.MAIN
        )
        limit = st.selectbox(
            "Rows at most",
            query_editor.LIMITS,
            key="query.limit",
            format_func=lambda rows: f"{int(rows):,} rows",
            on_change=query_editor.run_again,
            label_visibility="collapsed",
            width=130,
        )

    followed = state.moved and state.given("sql") != getattr(session.get("query:answer"), "sql", None)
    if state.moved and not state.given("sql"):
        session.pop("query:answer", None)
    if session.pop("query:run", False) or submitted or followed:
        session.pop("query:answer", None)
        if sql.strip():
            session["query:answer"] = query_editor.ask(store, sql, limit)
        elif submitted:
            st.info("Write a query, or take one of the examples.")

    answer = session.get("query:answer")
    values = dict.fromkeys(fields, "") | {"view": session["query.view"], "limit": limit}
    if answer is None:
        st.subheader("A dozen questions to begin with", anchor=False)
        query_editor.examples("query.first", columns=2)
    else:
        values |= {"sql": answer.sql}
        if sql != answer.sql:
            st.caption(":material/edit: Edited since this answer.")
        if answer.error is not None:
            query_editor.failure(answer.error)
        else:
            values |= query_editor.show(answer, state)
with right:
    query_editor.schema_browser(schema)

state.write(values | {"table": session["query.table"]})
