"""SELECT over everything that is known."""

import streamlit as st

from sstmerge_core import words
from sstmerge_core.store import queries, run_sql
from studio import blocks, link, start

LIMIT = 5_000
EXAMPLES = {
    "Leaderboard": (
        "SELECT label, pair, resistance, utility, over_refusal, resistance_n AS n\nFROM leaderboard\n"
        "WHERE source = 'measured' AND status = 'finished'\nORDER BY resistance + utility DESC\nLIMIT 20"
    ),
    "Best α per method": (
        "SELECT pair, method, arg_max(alpha, resistance + utility) AS best_alpha,\n"
        "       max(resistance + utility) AS best_sum, count(*) AS runs\nFROM leaderboard\n"
        "WHERE alpha IS NOT NULL AND source = 'measured'\nGROUP BY ALL ORDER BY pair, best_sum DESC"
    ),
    "Harmless prompts that get refused": (
        "SELECT s.prompt, count(*) AS refused, (SELECT count(*) FROM runs WHERE status = 'finished') AS runs\n"
        "FROM samples s JOIN verdicts v USING (run_id, suite, prompt_id)\n"
        "WHERE s.suite = 'near_miss' AND v.label = 'refusal'\nGROUP BY ALL ORDER BY refused DESC LIMIT 20"
    ),
    "Measured against reported": (
        "SELECT pair, method, source, round(avg(resistance), 3) AS resistance, round(avg(utility), 3) AS utility,\n"
        "       count(*) AS runs\nFROM leaderboard\nGROUP BY ALL ORDER BY pair, method, source"
    ),
}


def use_example(sql: str) -> None:
    st.session_state["query.sql"] = sql
    st.session_state["query:run"] = True


store = blocks.store_or_stop()
state = link.Link("query")
state.read({"sql": (link.text, "")})
blocks.title("Query", "Read-only SQL (DuckDB) over every run, metric, prompt, answer and verdict of this workspace.")

with st.popover("Examples", icon=":material/lightbulb:"):
    for name, sql in EXAMPLES.items():
        st.button(name, key=f"query.example.{name}", on_click=use_example, args=(sql,), type="tertiary")
with st.form("query", enter_to_submit=True, border=False):
    sql = st.text_area(
        "SQL",
        key="query.sql",
        height=150,
        placeholder="SELECT * FROM leaderboard LIMIT 20",
        label_visibility="collapsed",
    )
    submitted = st.form_submit_button("Run query", type="primary", icon=":material/play_arrow:")

asked = sql if submitted or st.session_state.pop("query:run", False) else state.given("sql") or ""
if submitted and not sql.strip():
    st.info("Write a query, or take one of the examples above.")
if asked.strip():
    with blocks.failures():
        store.publish()
        result = run_sql(start.workspace(), asked, limit=LIMIT)
        frame = result.frame()
        more = f" The first {LIMIT:,} are shown: there are more." if result.truncated else ""
        st.caption(f"{words.count(len(frame), 'row')} in {result.seconds:.2f} s.{more}")
        st.dataframe(frame, hide_index=True, alt="Result of the query")
        with st.container(horizontal=True):
            blocks.csv_button(frame, "query.csv", key="query.csv")
            blocks.share_box(link.share(start.base_url(), "query", {"sql": asked}))

with st.expander("Tables and columns", icon=":material/schema:", expanded=not asked.strip()):
    schema = store.query(queries.schema)
    st.dataframe(schema, hide_index=True, height=360, alt="Tables and columns of the database")

if submitted or asked.strip():
    state.write({"sql": asked})
