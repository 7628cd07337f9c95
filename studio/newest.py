"""The newest answers of a job at work, as the text they are: nothing that a model says is Markdown here."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

from sstmerge_core import jobs
from sstmerge_core.words import shortened

PROMPT, ANSWER = 110, 260
"""Characters of each that are shown; the run's page has all of them once it has finished"""


def answers(job: jobs.Job, label_words: Mapping[str, str]) -> None:
    """The newest answers with their verdicts, the last one first; nothing where there are none."""
    if not job.answers:
        return
    with st.container(key="newest", gap="xsmall"):
        st.caption("The newest answers; the last one first.")
        for row in reversed(job.answers):
            label = row.get("label")
            verdict = label_words.get(label, label) if label else "not judged yet"
            prompt, answer = shortened(row.get("prompt", ""), PROMPT), shortened(row.get("response", ""), ANSWER)
            st.text(f"{row.get('suite', '')} · {verdict} · {prompt}\n→ {answer or '(empty)'}")
