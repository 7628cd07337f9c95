"""Who sits at this browser: a name beside jobs, which jobs are their own, and word when one of them ends."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import streamlit as st

from sstmerge_core import jobs
from sstmerge_core.words import plain
from studio import start

SCRIPT = Path(__file__).with_name("visitor.js")
LOOK = """
label { display: inline-flex; align-items: center; gap: 0.45rem; cursor: pointer; color: var(--st-text-color);
  font: 0.87rem var(--st-font); min-height: 1.6rem; }
input { accent-color: var(--st-primary-color); width: 1rem; height: 1rem; margin: 0; }
span.why { display: block; font: 0.8rem var(--st-font);
  color: color-mix(in srgb, var(--st-text-color) 72%, transparent); }
"""
HTML = """<label><input type="checkbox"> Notify me when my jobs end</label><span class="why"></span>"""
LONGEST_NAME = 40


def is_mine(job: jobs.Job) -> bool:
    """Whether the job was launched under this name, or in this session."""
    return bool(job.user and job.user == start.user()) or job.job_id in _own()


def whose(job: jobs.Job) -> str:
    """``you``, a name, or ``somebody``."""
    return "you" if is_mine(job) else job.user or "somebody"


def submit(recipes: Sequence[Any] = (), **settings: Any) -> str:
    """`jobs.submit` in this visitor's name; the job's id. What is at work already is watched, not queued again."""
    known = jobs.working_on(start.workspace(), [recipe.run_id for recipe in recipes])
    if known is not None:
        st.toast("This is running already: you are watching it.", icon=":material/visibility:")
        return known.job_id
    return remember(jobs.submit(start.workspace(), recipes, user=start.user(), **settings))


def remember(job_id: str) -> str:
    st.session_state["visitor:jobs"] = _own() | {job_id}
    return job_id


def _own() -> set[str]:
    """Ids of the jobs that this browser has launched, as far as this session knows."""
    return set(st.session_state.get("visitor:jobs", ()))


def desk(listed: Sequence[jobs.Job], *, watched: str = "", key: str) -> None:
    """The switch for notifications, a field for the name where nobody signs in, and word of jobs that have ended.

    Told are the visitor's own jobs among `listed`, and the one they watch.
    """
    told = [job for job in listed if is_mine(job) or job.job_id == watched]
    _toast(told)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        if not start.signed_in():
            _ask_name(key)
        found = _component()(
            data={"name": start.user(), "jobs": [_word(job) for job in told], "mine": sorted(_own())},
            default={"name": "", "jobs": []},
            on_name_change=lambda: None,
            on_jobs_change=lambda: None,
            key=f"{key}.desk",
            width=330,
        )
    # the browser remembers the name from one visit to the next
    if found.name and not start.user():
        st.session_state["visitor:name"] = str(found.name)[:LONGEST_NAME]
        st.rerun()
    # and the jobs that were launched in it, in whatever tab
    launched = {str(job_id)[:LONGEST_NAME] for job_id in found.jobs or ()}
    if launched - _own():
        st.session_state["visitor:jobs"] = _own() | launched
        st.rerun()


def _ask_name(key: str) -> None:
    def keep() -> None:
        st.session_state["visitor:name"] = st.session_state[f"{key}.name"].strip()[:LONGEST_NAME]

    if start.user() and not st.session_state.get(f"{key}.name"):  # else what is being typed would be put back
        st.session_state[f"{key}.name"] = start.user()
    with st.popover(plain(start.user()) or "Your name", icon=":material/person:", type="tertiary"):
        st.text_input(
            "Your name",
            key=f"{key}.name",
            on_change=keep,
            max_chars=LONGEST_NAME,
            placeholder="Ada",
            help="Stands beside your jobs, so that others see whose they are. This browser remembers it.",
        )


def _toast(told: Sequence[jobs.Job]) -> None:
    """Say on the page that a job has ended, once."""
    seen = st.session_state.setdefault("visitor:seen", {})
    for job in told:
        if seen.get(job.job_id) and not job.active:
            st.toast(f"**{plain(job.name)}** is {job.state}.", icon=":material/notifications:")
        seen[job.job_id] = job.active


def _word(job: jobs.Job) -> dict[str, Any]:
    return {"id": job.job_id, "name": job.name, "state": job.state, "active": job.active, "error": job.error or ""}


@st.cache_resource(show_spinner=False)
def _component() -> st.components.v2.types.ComponentRenderer:
    return st.components.v2.component("sstmerge_visitor", html=HTML, css=LOOK, js=SCRIPT.read_text(encoding="utf-8"))
