"""Tags, notes and the name of a run: what people say about it, drawn as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from sstmerge_core import access, words
from sstmerge_core.errors import SSTMergeError
from sstmerge_core.store import queries
from sstmerge_core.store import remarks as stored
from sstmerge_core.words import plain
from studio import blocks, entrance, start


def tags_and_notes(store: start.Store, run_id: str) -> None:
    """The run's tags as chips to add and remove, and its notes."""
    session = st.session_state
    if error := session.pop("run:annotation problem", None):
        blocks.problems(error.problems)
    own = list(store.query(queries.tags, run_id)["tag"])
    session["run.tags"] = own
    notes = store.query(queries.notes, run_id)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.multiselect(
            "Tags",
            list(dict.fromkeys([*own, *store.query(queries.tag_names)])),
            key="run.tags",
            accept_new_options=True,
            select_all=False,
            placeholder="Add a tag",
            label_visibility="collapsed",
            width=320,
            disabled=not access.allowed("say"),
            on_change=_take_tags,
            args=(run_id, own),
        )
        with st.popover(words.count(len(notes), "note") if len(notes) else "Add a note", icon=":material/edit_note:"):
            _notes(run_id, notes)
    if len(notes):
        newest = notes.iloc[0].to_dict()
        st.caption(f"{_who(newest)}: {plain(words.shortened(newest['note'], 200))}")
    _undo(run_id)


def rename(run: Mapping[str, Any]) -> None:
    """A run's own name: to give, to change and, left empty, to take away. `run`: of `queries.run`."""
    own, run_id = run.get("own_name") or "", str(run["run_id"])
    with st.popover("", icon=":material/edit:", type="tertiary", help="Name this run", key="run.naming"):
        with st.form("run.naming form", border=False):
            name = st.text_input(
                "Name",
                value=own,
                max_chars=stored.LONGEST_NAME,
                key=f"run.name.{run_id}",
                placeholder="as its recipe calls it",
                help="Every table, menu and chart shows it. Left empty, the run is called by its recipe again.",
            )
            if st.form_submit_button("Save", icon=":material/check:", **entrance.guard("say")):
                with blocks.failures():
                    stored.rename(start.workspace(), run_id, name, user=who())
                    start.take_in()
                    st.rerun()
        if own:
            by = f", named by {plain(run['named_by'])}" if run.get("named_by") else ""
            st.caption(f"By its recipe: {plain(words.run_name({**run, 'own_name': None}))}{by}.")


def who() -> str:
    """Under which name people's words are kept: who is signed in, else the name that was given in this session."""
    return start.user() or str(st.session_state.get("visitor:name", ""))


def tagged(store: start.Store, runs: pd.DataFrame) -> pd.DataFrame:
    """`runs` with the column ``tags``, a list each; without it where no run has any."""
    found = store.query(queries.tags)
    if found.empty:
        return runs
    by_run = found.groupby("run_id")["tag"].agg(list)
    return runs.assign(tags=[by_run.get(run_id) for run_id in runs["run_id"]])


def _take_tags(run_id: str, before: Sequence[str]) -> None:
    after = st.session_state["run.tags"]
    try:
        for tag in before:
            if tag not in after:
                stored.tag(start.workspace(), run_id, tag, user=who(), removed=True)
        for tag in after:
            if tag not in before:
                stored.tag(start.workspace(), run_id, tag, user=who())
    except SSTMergeError as error:
        st.session_state["run:annotation problem"] = error
    start.take_in()


def _notes(run_id: str, notes: pd.DataFrame) -> None:
    with st.form("run.note", clear_on_submit=True, border=False):
        text = st.text_area("Note", max_chars=stored.LONGEST_NOTE, key="run.note.text", height=90)
        if st.form_submit_button("Add", icon=":material/add:", **entrance.guard("say")):
            with blocks.failures():
                stored.note(start.workspace(), run_id, text, user=who())
                start.take_in()
                st.rerun()
    for place, row in enumerate(notes.to_dict("records")):
        note = {str(name): value for name, value in row.items()}
        with st.container(horizontal=True, vertical_alignment="center"):
            st.caption(_who(note), width="stretch")
            st.button(
                ":material/delete:",
                key=f"run.note.{place}",
                **entrance.guard("say", help="Delete this note"),
                on_click=_remove_note,
                args=(run_id, note["note_id"]),
                type="tertiary",
            )
        st.text(note["note"])


def _remove_note(run_id: str, note_id: str, *, removed: bool = True) -> None:
    session = st.session_state
    session.pop("run:note", None)
    try:
        stored.remove_note(start.workspace(), run_id, note_id, user=who(), removed=removed)
    except SSTMergeError as error:
        session["run:annotation problem"] = error
        return
    start.take_in()
    if removed:
        session["run:note"] = (run_id, note_id)


def _undo(run_id: str) -> None:
    of_run, note_id = st.session_state.get("run:note") or ("", "")
    if of_run == run_id:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.caption("Note deleted.", width="content")
            st.button(
                "Undo",
                icon=":material/undo:",
                key="run.note.undo",
                on_click=_remove_note,
                args=(run_id, note_id),
                kwargs={"removed": False},
                type="tertiary",
            )


def _who(said: Mapping[str, Any]) -> str:
    return " · ".join(filter(None, [plain(said["user"]), words.ago(start.epoch(said["t"]))]))
