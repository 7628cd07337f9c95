"""Another judge beside the one that runs are compared by: how far they agree on each run, and where they differ."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import streamlit as st

from sstmerge_core.evaluate.two_judges import two_judges
from sstmerge_core.store import queries
from sstmerge_core.words import count, plain
from studio import blocks, start


def beside(store: start.Store, letters: Mapping[str, str], judge: str, other: str) -> None:
    """A line a run, and the answers on which they differ. `letters`: run → letter."""
    found = {}
    for run_id, letter in letters.items():
        rows = store.query(queries.both_judged, [run_id], judge, other)
        key = ("run.two judges", run_id, judge, other, len(rows))
        pair = store.recall(key, partial(two_judges, rows, judge, other))
        if pair is not None:
            found[letter] = pair
    if not found:
        return
    lines = [f"**{letter}** {plain(pair.sentence)}" for letter, pair in found.items()]
    st.caption("  \n".join(lines))
    differing = sum(len(pair.differing) for pair in found.values())
    if not differing:
        return
    with st.expander(f"{count(differing, 'answer')} on which {plain(judge)} and {plain(other)} differ"):
        for letter, pair in found.items():
            if pair.differing.empty:
                continue
            shown = pair.differing.assign(run=letter)[["run", "suite", "first", "second", "prompt", "response"]]
            labels = {side: shown[side].map(lambda label: blocks.LABEL_WORDS.get(label, label)) for side in _SIDES}
            st.dataframe(
                shown.assign(**labels),
                hide_index=True,
                row_height=50,
                height=min(300, 45 + 50 * len(shown)),
                column_config={
                    "run": st.column_config.TextColumn("Run", width=40),
                    "suite": "Prompts",
                    "prompt": st.column_config.TextColumn("Prompt", width="medium"),
                    "response": st.column_config.TextColumn("Answer", width="medium"),
                    "first": st.column_config.TextColumn(judge, width=130),
                    "second": st.column_config.TextColumn(other, width=130),
                },
                alt=f"Answers of {letter} on which the judges differ",
            )


_SIDES = ("first", "second")
