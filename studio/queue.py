"""The queue as everyone sees it: whose job is whose, when each starts, and the buttons that move and stop them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import streamlit as st

from sstmerge_core import access, jobs, words
from sstmerge_core.errors import Problem, SSTMergeError
from sstmerge_core.words import plain
from studio import blocks, entrance, start, visitor

ENDED = 8
"""Jobs shown that have ended; the others are folded away"""
LISTED = 100


def draw(*, key: str, watched: str = "", watch: Callable[[str], None] | None = None, ended: bool = True) -> None:
    """Running jobs, waiting ones in their order, and with `ended` those of before. `watch(job_id)` follows one."""
    with blocks.failures():
        active = jobs.active(start.workspace())
        starts = jobs.expected_starts(active)
        at_work, holders = jobs.workers(start.workspace()), jobs.holders(start.workspace())
        for told in device_texts(active, at_work, holders):
            st.caption(told)
        last = {job.device: job.job_id for job in active}
        for job in active:
            at_the_end = last[job.device] == job.job_id
            own = [one for one in at_work if one.job_id == job.job_id]
            _active(job, starts.get(job.job_id), at_the_end, own, key=key, watched=watched, watch=watch)
        if not active and ended:
            st.caption("Nothing runs or waits.")
        if not ended:
            return
        drawn = {job.job_id for job in active}  # one that has ended since is drawn already, as it was
        past = [job for job in jobs.jobs(start.workspace(), LISTED) if not job.active and job.job_id not in drawn]
        for job in past[:ENDED]:
            _ended(job, key=key, watched=watched, watch=watch)
        if past[ENDED:]:
            with st.expander(f"{words.count(len(past) - ENDED, 'job')} before"):
                for job in past[ENDED:]:
                    _ended(job, key=key, watched=watched, watch=watch)


def watched(job_id: str, *, key: str) -> jobs.Job | None:
    """Follow the job that a link names, as `blocks.watch` does. None, with what to do instead: there is none."""
    job = blocks.watch(job_id, key=key)
    if job is None:
        where = f"job={words.shortened(job_id)} in the link"
        fix = "The jobs of this workspace are on the Sweep page."
        blocks.problems([Problem(where, "there is no such job in this workspace", fix)], warning=True)
    return job


def wait_text(job: jobs.Job, starts_in: float | None) -> str:
    """``Number 2 in the queue, starts in about 3 min``"""
    if starts_in is None:
        when = "when it starts cannot be told yet"
    elif starts_in < 1:
        when = "starts as soon as the device is free"
    else:
        when = f"starts in about {words.duration(starts_in)}"
    takes = f", takes about {words.duration(job.eta_seconds)}" if job.eta_seconds is not None else ""
    return f"Number {job.queue_position} in the queue, {when}{takes}."


def device_texts(
    active: Sequence[jobs.Job], at_work: Sequence[jobs.Worker], holders: Sequence[jobs.Lease]
) -> list[str]:
    """``cpu: Sweep A5_A7 of ada, 2 workers · 1 job waits for it``, a line for each device that anybody has or wants."""
    named = {job.job_id: f"{job.name} of {job.user}" if job.user else job.name for job in active}
    waiting = [job for job in active if job.state == "queued"]
    devices = [one.device for one in at_work] + [one.device for one in holders] + [job.device for job in waiting]
    found = []
    for device in dict.fromkeys(devices):
        workers = Counter(named.get(one.job_id, "a job that stops") for one in at_work if one.device == device)
        who = [name if n == 1 else f"{name}, {n} workers" for name, n in workers.items()]
        who += [f"{one.holder} of {one.user}" if one.user else one.holder for one in holders if one.device == device]
        wanting = [job.name for job in waiting if device in job.devices]
        waits = f" · {words.count(len(wanting), 'job')} waiting for it" if wanting else ""
        found.append(f"**{plain(device)}**: {plain('; '.join(who)) or 'nobody'}{waits}")
    return found


def _do(what: Callable[..., object], *arguments: str) -> None:
    """Callback: the queue is drawn after it, as it then is. What cannot be done any more is said in a toast."""
    try:
        what(start.workspace(), *arguments)
    except SSTMergeError as error:
        st.toast(plain(str(error)), icon=":material/error:")


def _active(
    job: jobs.Job,
    starts_in: float | None,
    last: bool,
    at_work: Sequence[jobs.Worker],
    *,
    key: str,
    watched: str,
    watch: Callable[[str], None] | None,
) -> None:
    where = f"{key}.{job.job_id}"
    with st.container(border=True, gap="xsmall"):
        icon = ":material/play_circle:" if job.state == "running" else ":material/hourglass_empty:"
        st.markdown(f"{icon} **{plain(job.name)}** · {_who(job)}")
        if job.state == "running":
            text = " · ".join(filter(None, [plain(job.stage) or "Starting", job.left]))
            st.progress(min(max(job.progress, 0.0), 1.0), text=text)
            if len(at_work) > 1:
                count = jobs.trial_count(start.workspace(), job.job_id)
                done = f"{count.done} of {count.open + count.done + count.failed} runs done"
                st.caption("  \n".join([done, *(f"{one.device}: {plain(one.stage) or 'Starting'}" for one in at_work)]))
        else:
            st.caption(wait_text(job, starts_in))
        with st.container(horizontal=True, gap="xsmall", vertical_alignment="center"):
            if job.state == "queued":
                first = job.queue_position == 1
                for to, symbol, about in (
                    ("first", "vertical_align_top", "To the front of the queue"),
                    ("up", "arrow_upward", "One place up"),
                    ("down", "arrow_downward", "One place down"),
                ):
                    st.button(
                        "",
                        icon=f":material/{symbol}:",
                        key=f"{where}.{to}",
                        type="tertiary",
                        **entrance.guard(
                            access.whose("move", job.user),
                            disabled=(first and to != "down") or (last and to == "down"),
                            help=about,
                        ),
                        on_click=_do,
                        args=(jobs.move, job.job_id, to),
                    )
            _watch(job, where, watched, watch)
            _cancel(job, where)


def _cancel(job: jobs.Job, where: str) -> None:
    """One's own job at a click; somebody else's after a second look."""
    if job.cancelling:
        st.caption("Stopping …", width="content")
        return
    do: dict[str, Any] = {"key": f"{where}.cancel", "on_click": _do, "args": (jobs.cancel, job.job_id)}
    do |= entrance.guard(access.whose("cancel", job.user), help="Finished runs are kept.")
    if visitor.is_mine(job) or not job.user:
        st.button("Cancel", icon=":material/stop_circle:", type="tertiary", **do)
    else:
        with st.popover("Cancel", icon=":material/stop_circle:", type="tertiary"):
            st.markdown(f"This is the job of **{plain(job.user)}**. Finished runs are kept.")
            st.button("Cancel it all the same", **do)


def _ended(job: jobs.Job, *, key: str, watched: str, watch: Callable[[str], None] | None) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(blocks.job_line(job, _who(job)), width="content")
        st.caption(blocks.job_summary(job), width="content")
        _watch(job, f"{key}.{job.job_id}", watched, watch)


def _watch(job: jobs.Job, where: str, watched: str, watch: Callable[[str], None] | None) -> None:
    if watch is not None and st.button(
        "Watch", key=f"{where}.watch", type="tertiary", disabled=job.job_id == watched, icon=":material/visibility:"
    ):
        watch(job.job_id)


def _who(job: jobs.Job) -> str:
    return "**you**" if visitor.is_mine(job) else plain(visitor.whose(job))
