"""Two judges of one run: agreement, what each says of attack success, and the answers on which they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from sstmerge_core.evaluate.two_judges import asr_of, matrix, two_judges
from sstmerge_core.store import queries
from sstmerge_core.words import plain
from studio import blocks, link, start


def fields() -> link.Fields:
    """What the link says of this part."""
    return {"first": (link.text, ""), "second": (link.text, "")}


def show(
    store: start.Store, state: link.Link, run: Mapping[str, Any], metrics: pd.DataFrame, judges: Sequence[str]
) -> None:
    """Nothing of a run that one judge alone has judged. Call `state.read(fields())` before."""
    if len(judges) < 2:
        return
    st.subheader("Two judges", anchor=False)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        first = _judge(state, "first", "One judge", judges, judges[0])
        others = [judge for judge in judges if judge != first]
        second = _judge(state, "second", "Another judge", others, others[0])
    run_id = str(run["run_id"])
    rows = store.query(queries.both_judged, [run_id], first, second)
    found = store.recall(("run.two judges", run_id, first, second, len(rows)), lambda: two_judges(rows, first, second))
    if found is None:
        st.caption("They have judged no answer both.")
        return
    st.markdown(plain(found.sentence))
    suites = ((run["recipe"] or {}).get("evaluation") or {}).get("suites") or []
    harmful = next((suite["name"] for suite in suites if suite["role"] == "harmful"), "")
    told = asr_of(metrics[metrics["suite"] == harmful].to_dict("records"), [first, second])
    st.caption(
        "Attack success by each: " + "; ".join(f"{plain(judge)} {plain(words)}" for judge, words in told.items())
    )
    if found.found is None:
        return
    left, right = st.columns([4, 8], gap="large")
    with left:
        st.caption(f"{plain(first)} down, {plain(second)} across")
        counts = matrix(found.found).rename(index=blocks.LABEL_WORDS, columns=blocks.LABEL_WORDS)
        st.dataframe(counts, height="content", alt="How many answers each pair of labels has")
    with right:
        differing = found.differing
        st.caption(f"{len(differing):,} answers on which they differ. Model output is shown as it is.")
        if differing.empty:
            return
        labels = {side: differing[side].map(lambda label: blocks.LABEL_WORDS.get(label, label)) for side in _SIDES}
        st.dataframe(
            differing.assign(**labels)[["suite", *_SIDES, "prompt", "response"]],
            hide_index=True,
            row_height=60,
            height=min(420, 45 + 60 * len(differing)),
            column_config={
                "suite": "Prompts",
                "prompt": st.column_config.TextColumn("Prompt", width="medium"),
                "response": st.column_config.TextColumn("Answer", width="large"),
                "first": st.column_config.TextColumn(first, width=130),
                "second": st.column_config.TextColumn(second, width=130),
            },
            alt="Answers on which the judges differ",
        )
        blocks.csv_button(differing, f"judges-{run_id}.csv", noun="answer", key="run.csv.judges")


_SIDES = ("first", "second")


def _judge(state: link.Link, name: str, label: str, options: Sequence[str], usual: str) -> str:
    key = state.key(name)
    if st.session_state[key] not in options:
        blocks.problems(state.unknown(name, options) if st.session_state[key] and state.moved else [], warning=True)
        st.session_state[key] = usual
    return st.selectbox(label, options, key=key, width=260)
