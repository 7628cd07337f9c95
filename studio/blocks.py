"""Blocks that several pages draw: problems, metric cards, run tables, job status, share links."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import pandas as pd
import streamlit as st

from sstmerge_core import access, jobs, metrics, words
from sstmerge_core.errors import Problem, SSTMergeError, StoreError, disk_problem
from sstmerge_core.evaluate.judges_measured import accuracy_words
from sstmerge_core.plots import export, similarity, table
from sstmerge_core.plots.measures import MEASURES, interval, number
from sstmerge_core.store import HeldError
from sstmerge_core.words import plain
from studio import entrance, navigation, newest, start

CHART_CONFIG = {"displaylogo": False, "modeBarButtonsToRemove": ["autoScale2d", "zoomIn2d", "zoomOut2d"]}
BRIEF = 100
"""Rows of a brief table at most."""
COMPARED = 6
"""Runs beside each other at most"""
OFFERED = 1_000
"""Runs to choose from at most, the newest: all 100,000 would be megabytes to send, and more than anybody scrolls"""
CARDS = ("resistance", "utility", "over_refusal", "degenerate")
LABEL_WORDS = {
    "refusal": "refused",
    "moralising": "moralised, did not answer",
    "partial": "declined, then answered",
    "not_refused": "not refused",
    "not_harmful": "not harmful",
    "safe_nonrefusal": "safe, not refused",
    "harmful": "harmful",
    "degenerate": "degenerate",
    "miss": "judge gave no verdict",
    "unjudged": "unjudged: not a language of this judge",
}
STATUS_WORDS = {
    "judge_cannot_tell": "this judge cannot tell",
    "no_gain": "no safety gained, so there is no tax",
    "dominated": "safety and utility both fell",
    "free": "safety gained without losing utility",
    "gain_uncertain": "the gain's interval includes 0",
    "all_missed": "the judge gave no verdict at all",
    "all_unjudged": "every answer is in a language that the judge does not cover",
}
_STATE_ICONS = {
    "queued": ":material/hourglass_empty:",
    "running": ":material/play_circle:",
    "done": ":material/check_circle:",
    "failed": ":material/error:",
    "cancelled": ":material/cancel:",
    "lost": ":material/sync_problem:",
}

Height = int | Literal["auto", "content", "stretch"]


def title(text: str, sentence: str = "") -> None:
    with st.container(key="title"):  # which a telephone shows in the bar on top: navigation.STYLE
        st.header(text, anchor=False)
    if sentence:
        st.caption(sentence)


def problems(found: Sequence[Problem], *, warning: bool = False) -> None:
    """Every problem in one box: where, what, and what to do."""
    if not found:
        return
    lines = [
        f"**{plain(problem.where)}**: {plain(problem.fault).rstrip('.')}. {plain(problem.fix, code=True)}"
        for problem in found
    ]
    body = "\n".join(f"- {line}" for line in lines) if len(lines) > 1 else lines[0]
    if warning:
        st.warning(body, icon=":material/warning:")
    else:
        st.error(body, icon=":material/error:")


@contextlib.contextmanager
def failures() -> Iterator[None]:
    """Draw an error of the library, or of the disk, in place instead of a traceback; the rest of the page goes on."""
    try:
        yield
    except SSTMergeError as error:
        problems(error.problems)
    except OSError as error:
        if (problem := disk_problem(error)) is None:
            raise
        problems([problem])


def database_notice() -> None:
    """One line when another process holds the database, or it cannot be written; the pages go on with what there is."""
    held = start.store().held
    if held is None:
        return
    problem = held.problems[0] if held.problems else Problem("database", "cannot be opened")
    if not isinstance(held, HeldError):
        problems(held.problems)
        return
    st.warning(
        f"**{plain(problem.where)}**: {plain(problem.fault)}. What you see is the last published snapshot; "
        "newer results follow as soon as that process lets go.",
        icon=":material/lock:",
    )


def cards(row: Any) -> None:
    """The four figures of a run with interval and n. `row`: a leaderboard row."""
    with st.container(horizontal=True, gap="small"):
        for column in CARDS:
            measure = MEASURES[column]
            n = row[measure.n_column]
            count = "not measured" if pd.isna(n) and pd.isna(row[column]) else "" if pd.isna(n) else f"n = {n}"
            suite = plain(row["utility_suite"]) if column == "utility" and row["utility_suite"] else ""
            # always two lines: where the cards wrap, a stretched one would lie over the next row
            lines = [interval(row.get(f"{column}_low"), row.get(f"{column}_high")) or count]
            lines.append(" · ".join(filter(None, [count if count not in lines else "", suite])) or "&nbsp;")
            with st.container(border=True, width=138, gap=None):
                st.metric(measure.title, number(row[column]), help=measure.definition)
                st.caption("  \n".join(lines))
    attacked = row.get("resistance_attacked")
    if attacked is not None and not pd.isna(attacked):
        between = interval(row.get("resistance_attacked_low"), row.get("resistance_attacked_high"))
        n = row["resistance_attacked_n"]
        st.caption(f"Resistance under attack **{number(attacked)}** {between}, n = {n}: by attack below.")
    judge = row.get("judge")
    if judge and not pd.isna(judge) and judge != "reported":
        split = row.get("split")
        prompts = f"{split.capitalize()} prompts, one seed. " if isinstance(split, str) and split else ""
        st.caption(f"{prompts}95 % intervals. Judge: {plain(judge)}.")


def judges_help(judges: Sequence[str]) -> str:
    """How often each judge was right where that was measured."""
    known = {name: accuracy_words(name) for name in judges}
    lines = [f"**{plain(name)}** {words or 'Not measured: it does not ship.'}" for name, words in known.items()]
    return "  \n".join(lines)


def run_columns(runs: pd.DataFrame) -> dict[str, Any]:
    """Column settings of every table of runs."""
    config = {
        "open": st.column_config.LinkColumn("", display_text=":material/open_in_new:", width=36, help="Open the run"),
        "name": st.column_config.TextColumn("Run", width=215),
        "pair": st.column_config.TextColumn("Pair", width="small"),
        "method": st.column_config.TextColumn("Method", width="small"),
        "source": st.column_config.TextColumn("Source", width="small"),
        "status": st.column_config.TextColumn("Status", width="small"),
        "alpha": st.column_config.NumberColumn("α", format="%.3g", width=46),
        "k": st.column_config.NumberColumn("k", format="%d", width=52),
        "created_at": st.column_config.DatetimeColumn("Started (UTC)", format="YYYY-MM-DD HH:mm"),
        "user": st.column_config.TextColumn("Who", width="small"),
        "tags": st.column_config.ListColumn("Tags", width="medium"),
        "seconds": st.column_config.NumberColumn("Duration", format="%.0f s", width="small"),
    }
    config |= {column: measure_column(column) for column in MEASURES if column not in config}
    return {name: settings for name, settings in config.items() if name in runs or name == "open"}


def measure_column(name: str) -> Any:
    """A column of one measure, its direction in the header."""
    of_task = next((one for one in metrics.metrics() if one.role == "utility" and name.startswith(one.name)), None)
    if of_task is not None:
        suite = name.removeprefix(of_task.name).replace("_", " ")
        header = f"{of_task.title}{suite} {of_task.arrow}"
        return st.column_config.NumberColumn(header, format="%.3f", help=of_task.help)
    known = next((column for column in MEASURES if name.startswith(column)), None)
    if known is None:
        return st.column_config.NumberColumn(name.replace("_", " "), format="%.3f")
    measure = MEASURES[known]
    header = f"{measure.title} {'↑' if measure.higher_is_better else '↓'}"
    form = f"%.3g {measure.unit}" if measure.unit else "%.3f" if measure.has_interval or measure.bounded else "%.3g"
    return st.column_config.NumberColumn(header, format=form, width=94, help=measure.definition)


def run_table(runs: pd.DataFrame, *, key: str, columns: Sequence[str] = (), height: Height = "auto") -> None:
    """Runs, metrics first; each row opens its run. Columns in which nothing is known are left out."""
    # α is in the name already; a telephone shows three columns
    order = ["open", "name", "resistance", "utility", "over_refusal", "degenerate", "alpha", *columns]
    shown = table.named(runs).assign(open=[words.run_address(run_id) for run_id in runs["run_id"]])
    order = [name for name in order if name in shown and shown[name].notna().any()]
    st.dataframe(
        shown[order],
        column_config=run_columns(shown),
        hide_index=True,
        key=key,
        height=height,
        placeholder="–",
        alt="Table of runs with their measures",
    )


def brief_table(runs: pd.DataFrame) -> None:
    """The first rows as plain text, which every screen shows whole and no table code has to be loaded for."""
    with st.container(height=430 if len(runs) > 11 else "content", border=False):
        st.markdown(table.brief(runs.head(BRIEF)))
    if len(runs) > BRIEF:
        st.caption(f"Showing {BRIEF} of {len(runs):,}; the file has all of them.")


def csv_button(rows: pd.DataFrame, name: str, *, noun: str = "row", key: str) -> None:
    """A download of exactly the rows that the page speaks of, with their true number."""
    st.download_button(
        f"CSV · {words.count(len(rows), noun)}",
        data=lambda: export.csv_text(rows).encode("utf-8", "replace"),
        file_name=name,
        mime="text/csv",
        on_click="ignore",
        icon=":material/download:",
        key=key,
        disabled=rows.empty,
    )


def share_box(address: str) -> None:
    """A link that spells out the whole state, with a copy button."""
    with st.popover("Share", icon=":material/link:"):
        st.caption("This link opens the page as you see it: every setting is in it.")
        st.code(address, language=None, wrap_lines=True)


def run_link(run_id: str, label: str = "Open the run") -> None:
    st.page_link("pages/run.py", label=label, icon=":material/description:", query_params={"run": run_id})


def compare_link(run_ids: Sequence[str], label: str = "Compare") -> None:
    """The way to these runs side by side; the first is the reference."""
    fits = 2 <= len(run_ids) <= COMPARED
    st.page_link(
        "pages/compare.py",
        label=label,
        icon=":material/compare_arrows:",
        query_params={"run": list(run_ids)} if fits else None,
        disabled=not fits,
        help=None if fits else f"Select 2 to {COMPARED} measured runs; these are {len(run_ids):,}.",
    )


def empty(text: str, *, page: str = "", label: str = "", query: dict[str, str] | None = None) -> None:
    """An empty place that says what to do."""
    with st.container(border=True):
        st.markdown(text)
        if page:
            st.page_link(page, label=label, icon=":material/arrow_forward:", query_params=query or {})


def job_line(job: jobs.Job, who: str = "") -> str:
    """``:material/play_circle: Sweep A5_A7 · running · ada``; `who` (Markdown) stands for the user's name."""
    who = f" · {who or plain(job.user)}" if who or job.user else ""
    return f"{_STATE_ICONS.get(job.state, '')} **{plain(job.name)}** · {job.state}{who}"


def job_progress(job: jobs.Job) -> None:
    """What a job does now, how far it is, and how long it will take."""
    st.markdown(job_line(job))
    if job.state == "queued":
        place = f"number {job.queue_position} in the queue" if job.queue_position else "in the queue"
        st.progress(0.0, text=f"Waiting, {place}: the device is busy with another job.")
    elif job.state == "running":
        point = f"run {min(job.point + 1, job.points)} of {job.points}" if job.points > 1 else ""
        text = " · ".join(filter(None, [point, plain(job.stage) or "Starting", job.left]))
        st.progress(min(max(job.progress, 0.0), 1.0), text=text)
        newest.answers(job, LABEL_WORDS)
    elif job.error:
        st.error(plain(job.error), icon=":material/error:")
    elif job.state == "lost":
        st.error("The worker is gone. Resume the job: finished runs are kept.", icon=":material/sync_problem:")


def job_summary(job: jobs.Job) -> str:
    """How far, how long, how long ago: one line."""
    points = f"{words.count(len(job.run_ids), 'run')}" if job.run_ids else ""
    if job.state == "running":
        return " · ".join(filter(None, [points, f"{job.progress:.0%}", job.left]))
    if job.state == "queued":
        return " · ".join(filter(None, [points, f"number {job.queue_position}" if job.queue_position else ""]))
    return " · ".join(filter(None, [points, words.ago(job.finished_at)]))


def weights(effective: dict[str, float] | str, adapters: Sequence[str]) -> None:
    """What multiplies the adapters (utility experts first, safety last), as it will really be."""
    if isinstance(effective, str):
        st.caption(f"Merged: {plain(effective)}.")
        return
    terms = zip(effective.items(), adapters, strict=True)
    st.caption(
        "Merged = " + " + ".join(f"**{value:.4g}** · {symbol} ({plain(name)})" for (symbol, value), name in terms)
    )


def formula(latex: str) -> None:
    """A method's formula; its further parts go below the first, so that it fits a telephone."""
    latex = re.sub(r",\\ (?=[A-Za-z]=)", r",\\quad ", latex)
    if r",\quad" in latex:
        latex = r"\begin{gathered}" + latex.replace(r",\quad", r",\\") + r"\end{gathered}"
    st.latex(latex)


def job_controls(job: jobs.Job, *, key: str) -> None:
    """Cancel or resume, and the log."""
    with st.container(horizontal=True):
        if job.active:
            if st.button(
                "Stopping …" if job.cancelling else "Cancel",
                key=f"{key}.cancel",
                icon=":material/stop_circle:",
                **entrance.guard(access.whose("cancel", job.user), disabled=job.cancelling),
            ):
                with failures():
                    jobs.cancel(start.workspace(), job.job_id)
                    st.toast("Cancelling. Finished runs are kept.")
        elif job.state in ("failed", "cancelled", "lost") and st.button(
            "Resume", key=f"{key}.resume", icon=":material/replay:", type="primary", **entrance.guard("launch")
        ):
            with failures():
                jobs.resume(start.workspace(), job.job_id)
                st.rerun(scope="app")
    with st.expander("Log", icon=":material/terminal:"):
        log(job.job_id)


def watch(job_id: str, *, key: str) -> jobs.Job | None:
    """Draw a job's live status and follow it; when it ends, the whole page runs once more. None: no such job."""
    job = jobs.job(start.workspace(), job_id)
    if job is None:
        return None
    if job.state == "done":
        with st.container(horizontal=True, vertical_alignment="center"):
            st.caption(f"{job_line(job)} {words.ago(job.finished_at)}", width="content")
            with st.popover("Log", icon=":material/terminal:", type="tertiary"):
                log(job_id)
        return job

    def live() -> None:
        with failures():
            current = jobs.job(start.workspace(), job_id)
            if current is None:
                return
            if job.active and not current.active:
                st.rerun(scope="app")
            with st.container(border=True):
                job_progress(current)
                job_controls(current, key=key)

    st.fragment(live, run_every="1s" if job.active else None, key=f"{key}.{job.state}")()
    return job


def log(job_id: str) -> None:
    """The last lines of what a job's worker printed."""
    with failures():
        st.code(jobs.log_tail(start.workspace(), job_id) or "Nothing written yet.", language=None)


def pooled(stats: pd.DataFrame) -> None:
    """The statistics of the whole merge, each with its definition in a tooltip."""
    with st.container(horizontal=True, gap="small"):
        for name, value in similarity.pooled(stats).items():
            about = similarity.describe(name)
            st.metric(about.title, f"{value:.3g}", help=about.help or None, border=True, width=205)


def module_map(stats: pd.DataFrame, *, key: str) -> None:
    """A heat map over the modules, with a choice of statistic where there are several."""
    names = similarity.present(stats)
    if not names:
        return
    name = names[0]
    if len(names) > 1:
        name = st.selectbox(
            "Statistic", names, key=key, width=320, format_func=lambda each: similarity.describe(each).title
        )
    st.plotly_chart(similarity.figure(stats, name), key=f"{key}.chart", config=CHART_CONFIG, alt=f"{name} per module")
    st.caption(similarity.describe(name).help)


def pair_facts(facts: dict[str, str]) -> None:
    """What the two adapters are like, side by side."""
    rows, both = table.side_by_side(facts)
    if len(rows):
        st.table(
            rows.map(lambda cell: plain(cell) if isinstance(cell, str) else cell),
            border="horizontal",
            hide_index=True,
            alt="Facts of the two adapters",
        )
    if both:
        st.caption(" · ".join(f"{plain(name)}: {plain(value)}" for name, value in both.items()))


def store_or_stop() -> start.Store:
    """The store, or a page that says why there is none. The first line of every page."""
    navigation.enter_by_the_door()
    entrance.gate()
    opened = start.store()
    if opened.held is not None:
        database_notice()
        try:
            opened.query(lambda cursor: None)
        except StoreError:
            st.stop()
    return opened
