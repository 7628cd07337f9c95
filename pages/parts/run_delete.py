"""Deleting a run or its weights, saying first who needs it; bringing it back; emptying the trash."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import streamlit as st

from sstmerge_core import words
from sstmerge_core.errors import SSTMergeError
from sstmerge_core.store import queries, trash
from sstmerge_core.upkeep.uses import uses
from sstmerge_core.words import plain
from sstmerge_core.workspace import Workspace
from studio import blocks, entrance, start

LISTED = 20


def delete(store: start.Store, run: Mapping[str, Any]) -> None:
    """The way to a dialog that says what refers to the run, and the two things that can be deleted of it."""
    if st.button("Delete", icon=":material/delete:", key="run.delete", **entrance.guard("delete")):
        st.session_state.pop("run:deleted", None)
        st.dialog(f"Delete {plain(words.run_name(run))}", icon=":material/delete:")(_dialog)(store, run["run_id"])


def _dialog(store: start.Store, run_id: str) -> None:
    if st.session_state.pop("run:deleted", False):
        st.rerun()  # closes the dialog
    workspace = start.workspace()
    with blocks.failures():
        compared = store.query(queries.measured_against, run_id)
        found = uses(workspace, run_id, compared=compared, sweeps=store.query(queries.sweeps_of, run_id))
        if found:
            st.warning("  \n".join(map(plain, found)), icon=":material/link:")
        else:
            st.caption("Nothing here refers to this run.")
        if weights := trash.weights(workspace, run_id):
            words_ = f"Delete the weights of its adapter · {words.size(trash.size(weights))}"
            st.button(
                words_,
                key="run.delete.weights",
                icon=":material/folder_off:",
                on_click=_do,
                args=(trash.delete_weights, run_id),
                **entrance.guard("delete"),
            )
            st.caption("The run stays with its figures and its recipe, which makes the same weights again.")
        words_ = f"Delete the run · {words.size(trash.size(workspace.run(run_id)))}"
        st.button(
            words_,
            key="run.delete.run",
            icon=":material/delete:",
            on_click=_do,
            args=(trash.delete_run, run_id),
            **entrance.guard("delete"),
        )
        st.caption("Either goes to the trash and can be brought back until somebody empties it.")


def in_trash(run_id: str, kind: str) -> bool:
    """Say that the run, or its weights, are in the trash, with the way back; False where they are not."""
    entry = next((one for one in trash.entries(start.workspace()) if (one.run_id, one.kind) == (run_id, kind)), None)
    if entry is None:
        return False
    what = "This run was deleted" if kind == trash.RUN else "The weights of its adapter were deleted"
    with st.container(border=True, horizontal=True, vertical_alignment="center"):
        st.markdown(
            f":material/delete: {what} {words.ago(entry.deleted_at)}: {words.size(entry.bytes)} in the trash.",
            width="content",
        )
        st.button(
            "Undo",
            icon=":material/undo:",
            key=f"run.restore.{kind}",
            on_click=_restore,
            args=(entry,),
            **entrance.guard("restore"),
        )
    return True


def problem() -> None:
    """What went wrong when something was deleted or brought back."""
    if error := st.session_state.pop("run:trash problem", None):
        blocks.problems(error.problems)


def contents() -> None:
    """The trash of the workspace, where there is anything in it."""
    found = trash.entries(start.workspace())
    if not found:
        return
    total = words.size(sum(entry.bytes for entry in found))
    with st.expander(f"Trash: {words.count(len(found), 'deletion')}, {total}", icon=":material/delete:"):
        for entry in found[:LISTED]:
            with st.container(horizontal=True, vertical_alignment="center"):
                what = plain(entry.label) if entry.kind == trash.RUN else "weights"
                st.caption(
                    f"{plain(entry.run_id)} · {what} · {words.size(entry.bytes)} · {words.ago(entry.deleted_at)}",
                    width="stretch",
                )
                st.button(
                    "Restore",
                    icon=":material/undo:",
                    key=f"run.restore.{entry.path.name}",
                    on_click=_restore,
                    args=(entry,),
                    type="tertiary",
                    **entrance.guard("restore"),
                )
        if len(found) > LISTED:
            st.caption(f"The last {LISTED} of {len(found):,}; `sstmerge runs trash` lists all.")
        with st.popover("Empty the trash", icon=":material/delete_forever:"):
            st.markdown(f"{total} go for good, with what people said about these runs. This cannot be undone.")
            st.button("Empty it", key="run.empty", type="primary", on_click=_empty, **entrance.guard("empty"))


def _do(act: Callable[[Workspace, str], trash.Entry], run_id: str) -> None:
    st.session_state["run:deleted"] = True
    try:
        act(start.workspace(), run_id)
        start.take_in()
    except SSTMergeError as error:
        st.session_state["run:trash problem"] = error


def _restore(entry: trash.Entry) -> None:
    try:
        trash.restore(start.workspace(), entry)
        start.take_in()
    except SSTMergeError as error:
        st.session_state["run:trash problem"] = error


def _empty() -> None:
    try:
        trash.empty(start.workspace())
    except SSTMergeError as error:
        st.session_state["run:trash problem"] = error
