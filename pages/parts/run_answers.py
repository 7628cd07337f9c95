"""A run's answers: found by verdict and words, read one by one or in a table, labelled by hand beside the judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import streamlit as st

from sstmerge_core.errors import Problem, SSTMergeError
from sstmerge_core.evaluate import hand, judges_measured
from sstmerge_core.plots import table
from sstmerge_core.store import queries
from sstmerge_core.store import remarks as stored
from sstmerge_core.words import count, plain
from studio import blocks, entrance, link, remarks, start

LABEL_WORDS = blocks.LABEL_WORDS | {"miss": "cannot tell"}
"""In a reader's words"""
SHOWS = {"all": "All", "open": "Not labelled", "done": "Labelled by hand", "differs": "Judge and reader differ"}
WAYS = {"table": "Table", "one": "One by one"}
KEYS = dict(zip("12345", stored.LABELS, strict=True))
"""Keyboard shortcut → label; 0 takes it back"""


@dataclass(frozen=True)
class Measured:
    """What the run's own metrics say about one suite and judge."""

    role: str
    tells_harm: bool
    tells_refusal: bool


def fields() -> link.Fields:
    """What the link says of this part."""
    return {
        "suite": (link.text, ""),
        "judge": (link.text, ""),
        "label": (link.texts, []),
        "search": (link.text, ""),
        "hand": (link.one_of(list(SHOWS)), "all"),
        "way": (link.one_of(list(WAYS)), "table"),
    }


def answers(
    store: start.Store, state: link.Link, run: Mapping[str, Any], metrics: pd.DataFrame, judges: Sequence[str]
) -> None:
    """Filters, the answers that they leave, and the means to label them. Call `state.read(fields())` before."""
    run_id, session = run["run_id"], st.session_state
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        unknown = _fit(state, "judge", judges)
        judge = judges[0]
        if len(judges) > 1:
            judge = st.selectbox("Judge", judges, key="run.judge", width=200, help=blocks.judges_help(judges))
        by_hand = store.query(queries.hand_labels, run_id)
        samples = table.beside(store.query(queries.run_samples, run_id, None, judge), by_hand)
        suites = table.suites(samples)
        unknown += _fit(state, "suite", suites)
        suite = st.selectbox("Prompts", suites, key="run.suite", width=150)
        of_suite = samples[samples["suite"] == suite]
        shows = st.selectbox("By hand", list(SHOWS), key="run.hand", format_func=SHOWS.__getitem__, width=190)
        words_ = st.text_input("Search", key="run.search", placeholder="in prompts and answers", width=220)
        labels = sorted(of_suite["label"].dropna().unique())
        unknown += state.unknown("label", labels) if state.moved else []  # else a verdict of another suite
        session["run.label"] = [label for label in session["run.label"] if label in labels]
        picked = st.pills(
            "Verdict",
            labels,
            selection_mode="multi",
            key="run.label",
            format_func=lambda name: plain(blocks.LABEL_WORDS.get(name, name)),
        )
        way = st.segmented_control("Read", list(WAYS), key="run.way", format_func=WAYS.__getitem__, required=True)
    blocks.problems(unknown, warning=True)
    rows: list[dict[str, Any]] = of_suite.to_dict("records")
    shown = table.search(of_suite, words_, labels=picked)
    if shows != "all":
        wanted = {row["prompt_id"] for row in rows if _wanted(row, shows)}
        shown = shown[shown["prompt_id"].isin(wanted)]
    reading = hand.reading(rows)
    st.caption(
        f"Showing {len(shown):,} of {len(of_suite):,} answers. Model output is shown as it is.  \n"
        f"Judge: {plain(judge)}. {judges_measured.accuracy_words(judge)}"
        + (f"  \n**{plain(reading.sentence(judge))}.**" if reading.labelled else "")
    )
    _undo()
    reader = remarks.who()
    if way == "one":
        _one_by_one(run_id, shown, judge, reader)
    else:
        _table(run_id, shown, reader, [suite, judge, shows, words_, *picked])
    _metrics(metrics, suite, judge, rows, _measured(run, metrics, suite, judge))
    blocks.csv_button(shown, f"answers-{run_id}-{suite}.csv", noun="answer", key="run.csv")


def _wanted(row: Mapping[str, Any], shows: str) -> bool:
    return {"open": not row["hand"], "done": bool(row["hand"]), "differs": hand.differs(row)}[shows]


def _fit(state: link.Link, name: str, options: Sequence[str]) -> list[Problem]:
    """The first of `options` where none is chosen; what is wrong where the link chose none of them."""
    key = state.key(name)
    wrong = st.session_state[key] not in options
    found = state.unknown(name, options) if wrong and st.session_state[key] else []
    if wrong:
        st.session_state[key] = options[0]
    return found


def _take_name() -> None:
    st.session_state["visitor:name"] = " ".join(st.session_state["run.reader"].split())


def _table(run_id: str, shown: pd.DataFrame, reader: str, filters: Sequence[str]) -> None:
    bar = st.container()
    event = st.dataframe(
        table.answers(shown, LABEL_WORDS),
        hide_index=True,
        row_height=70,
        height=min(560, 45 + 70 * max(len(shown), 1)),
        key=f"run.answers {filters} {st.session_state.get('run:labelled', 0)}",  # what was selected was labelled
        on_select="rerun",
        selection_mode="multi-row",
        column_config={
            "prompt": st.column_config.TextColumn("Prompt", width="large"),
            "response": st.column_config.TextColumn("Answer", width="large"),
            "label": st.column_config.TextColumn("Verdict", width="small"),
            "hand": st.column_config.TextColumn("By hand", width="small"),
            "reader": st.column_config.TextColumn("Reader", width="small"),
            "reference": st.column_config.TextColumn("Reference answer", width="medium"),
            "n_tokens": st.column_config.NumberColumn("Tokens", width="small"),
            "topic": st.column_config.TextColumn("Topic", width="small"),
            "asked": st.column_config.TextColumn("What the model saw", width="large"),
        },
        placeholder="–",
        alt="Prompts, answers and verdicts",
    )
    rows = shown.iloc[event["selection"]["rows"]]
    with bar:
        about = f"**{count(len(rows), 'answer')}** selected:" if len(rows) else "Select answers to label them together:"
        _labels(run_id, [*zip(rows["suite"], rows["prompt_id"], strict=True)], reader, about)


def _one_by_one(run_id: str, shown: pd.DataFrame, judge: str, reader: str) -> None:
    """One answer at a time; the judge's verdict only once the reader has given his, so that it does not lead him."""
    if shown.empty:
        blocks.empty("No answer is left. Change the filters above for others.")
        return
    ids = [*zip(shown["suite"], shown["prompt_id"], strict=True)]
    at = st.session_state.get("run:at")
    place = ids.index(at) if at in ids else min(st.session_state.get("run:place", 0), len(ids) - 1)
    st.session_state["run:place"] = place
    row = shown.iloc[place]
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center"):
            for step, icon, shortcut in ((-1, "arrow_back", "Left"), (1, "arrow_forward", "Right")):
                there = 0 <= place + step < len(ids)
                st.button(
                    "Back" if step < 0 else "Next",
                    icon=f":material/{icon}:",
                    key=f"run.step.{step}",
                    shortcut=shortcut,
                    disabled=not there,
                    on_click=_go,
                    args=(ids[place + step] if there else ids[place],),
                )
            topic = f" · {plain(row['topic'])}" if row["topic"] else ""
            st.caption(f"{place + 1:,} of {len(ids):,}{topic} · {plain(row['prompt_id'])}", width="content")
        st.text(row["prompt"])
        if isinstance(row.get("asked"), str) and row["asked"]:
            with st.expander("What the model saw in place of the prompt"):
                st.text(row["asked"])
        with st.container(border=True):
            st.text(row["response"] or "(empty)")
        if isinstance(row["reference"], str) and row["reference"]:
            st.caption(f"Reference answer: {plain(row['reference'])}")
        if row["hand"]:
            judged = plain(blocks.LABEL_WORDS.get(row["label"], row["label"]) or "no verdict")
            st.markdown(f"By hand: **{LABEL_WORDS[row['hand']]}**{_by(row['reader'])}. {plain(judge)}: **{judged}**.")
        else:
            st.caption("The judge's verdict is shown once you have given yours.")
        _labels(run_id, [ids[place]], reader, "What is it?", then=ids[min(place + 1, len(ids) - 1)])


def _labels(
    run_id: str, chosen: Sequence[stored.Answer], reader: str, about: str, then: stored.Answer | None = None
) -> None:
    """A button and a key for each label."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(about, width="content")
        for key, label in (*KEYS.items(), ("0", None)):
            st.button(
                LABEL_WORDS[label].capitalize() if label else "Clear",
                key=f"run.give.{label or 'nothing'}",
                shortcut=key,
                **entrance.guard("say", disabled=not chosen),
                on_click=_give,
                args=(run_id, chosen, label, reader, then),
                type="secondary" if label else "tertiary",
            )
        if not start.user():
            with st.popover(plain(reader) or "Your name", icon=":material/person:", type="tertiary"):
                st.text_input(
                    "Your name",
                    value=reader,
                    key="run.reader",
                    max_chars=stored.LONGEST_READER,
                    on_change=_take_name,
                    help="Your labels are kept under it, beside those of other readers. Nobody signs in here.",
                )


def _go(answer: stored.Answer) -> None:
    st.session_state["run:at"] = answer


def _give(
    run_id: str,
    chosen: Sequence[stored.Answer],
    label: str | None,
    reader: str,
    then: stored.Answer | None = None,
) -> None:
    session = st.session_state
    try:
        before = stored.label(start.workspace(), run_id, dict.fromkeys(chosen, label), reader=reader)
    except SSTMergeError as error:
        session["run:problem"] = error
        start.take_in()  # the run may have been deleted
        return
    start.take_in()
    said = f"labelled “{LABEL_WORDS[label]}”" if label else "without a label"
    session["run:undo"] = (run_id, reader, before, f"{count(len(chosen), 'answer')} {said}")
    if then is None:
        session["run:labelled"] = session.get("run:labelled", 0) + 1
    else:
        _go(then)


def _undo() -> None:
    """Say what was labelled or went wrong, with the way back."""
    session = st.session_state
    if error := session.pop("run:problem", None):
        blocks.problems(error.problems)
    with st.container(horizontal=True, vertical_alignment="center"):  # always there, so that nothing below it moves
        if done := session.get("run:undo"):
            st.caption(f"{done[3]}.", width="content")
            may = entrance.guard("say")
            st.button("Undo", icon=":material/undo:", key="run.undo", on_click=_take_back, type="tertiary", **may)


def _take_back() -> None:
    run_id, reader, before, _ = st.session_state.pop("run:undo")
    try:
        stored.label(start.workspace(), run_id, before, reader=reader)
    except SSTMergeError as error:
        st.session_state["run:problem"] = error
        return
    start.take_in()
    _go(next(iter(before)))


def _measured(run: Mapping[str, Any], metrics: pd.DataFrame, suite: str, judge: str) -> Measured:
    told = metrics[(metrics["judge"] == judge) & (metrics["status"] == "judge_cannot_tell")]["metric"]
    suites = ((run["recipe"] or {}).get("evaluation") or {}).get("suites") or []
    role = next((one["role"] for one in suites if one["name"] == suite), "")
    return Measured(role, "asr" not in set(told), "resistance" not in set(told) and "over_refusal" not in set(told))


def _by(judge: str) -> str:
    name = judge.partition(":")[2]
    return f" ({plain(name)})" if name else ""


def _metrics(metrics: pd.DataFrame, suite: str, judge: str, rows: Sequence[Mapping[str, Any]], known: Measured) -> None:
    """The judge's figures and those with the labels by hand, each under who judged."""
    if known.role not in ("harmful", "benign", "utility"):
        return
    found = hand.readings(
        suite, known.role, rows, judge, tells_harm=known.tells_harm, tells_refusal=known.tells_refusal
    )
    if not found:
        return
    names = {row["metric"] for row in found}
    alone = metrics[(metrics["suite"] == suite) & (metrics["judge"] == judge) & metrics["metric"].isin(names)]
    both = pd.concat([alone, pd.DataFrame(found)], ignore_index=True)
    st.markdown(f"**{plain(suite)}**: what these labels change")
    st.dataframe(
        table.metric_rows(both, blocks.STATUS_WORDS),
        hide_index=True,
        column_order=("metric", "value", "interval", "n", "judge", "status"),
        column_config={
            "metric": "Measure",
            "value": st.column_config.NumberColumn("Value", format="%.3f"),
            "interval": "95 % interval",
            "n": {"width": 52},
            "judge": "Judge",
            "status": "Why no figure",
        },
        placeholder="–",
        alt="Metrics by the judge and with the labels by hand",
    )
    st.caption(
        "Shown here only: leaderboard, charts and comparisons keep the judge's figures. A suite that is labelled whole "
        "has figures of its reader alone."
    )
