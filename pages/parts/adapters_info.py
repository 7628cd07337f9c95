"""One adapter of the workspace: where it comes from, what was merged of it, its name, role and tags, the way out."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from sstmerge_core import adapters, catalog, jobs, words
from sstmerge_core.adapters import scan
from sstmerge_core.catalog import Entry
from sstmerge_core.catalog.lineage import Ancestry, ancestry
from sstmerge_core.plots import table
from sstmerge_core.store import queries
from sstmerge_core.words import plain, run_link
from studio import blocks, entrance, pick, start

ROLES = {role: role or "either" for role in ("", *filter(None, catalog.ROLES))}
RUNS = 8
"""Runs merged from it that are listed, the newest"""
TEXTS = ("name", "role", "task", "modules", "base model", "about", "size", "folder")
"""Columns of the table whose names are their headings"""


def show_next(entry: Entry) -> None:
    """Show this adapter when the page runs again: its name in the list may be another by then."""
    st.session_state["adapters:show"] = entry.sha256


def fit_shown(shelf: pick.Shelf) -> None:
    """Before the widgets are drawn: show what `show_next` asked for; another where the shown one is not here."""
    session, names = st.session_state, list(shelf.adapters)
    wanted = session.pop("adapters:show", None)
    asked = next((name for name, entry in shelf.adapters.items() if entry.sha256 == wanted), None)
    if wanted or session["adapters.show"] not in names:
        session["adapters.show"] = asked or next(iter(names), None)


def catalogue(shelf: pick.Shelf) -> None:
    """Every adapter with its scores; a row that is selected is shown below."""
    entries = list(shelf.adapters.values())

    def select() -> None:
        if rows := st.session_state["adapters.table"]["selection"]["rows"]:
            st.session_state["adapters.show"] = list(shelf.adapters)[rows[0]]

    st.dataframe(
        table.adapters(entries),
        hide_index=True,
        column_config={name: name.capitalize() for name in TEXTS}
        | {
            "alpha": st.column_config.NumberColumn("LoRA α", format="%g"),
            "rank": st.column_config.NumberColumn("Rank", format="%d"),
            "tags": st.column_config.ListColumn("Tags"),
            "sha256": "SHA-256",
        }
        | {name: blocks.measure_column(name) for name in table.score_names(entries)},
        placeholder="–",
        alt="Adapters of this workspace",
        key="adapters.table",
        on_select=select,
        selection_mode="single-row",
    )


def about(entry: Entry, shelf: pick.Shelf) -> None:
    """What the adapter is and where it comes from."""
    facts = [f"rank {entry.rank}", words.count(entry.modules, "module"), words.size(entry.bytes)]
    facts += [f"base {entry.base_name}"] if entry.base_name else []
    st.caption(" · ".join(plain(fact) for fact in facts))
    st.markdown(f"**Comes from**\n\n{_tree(ancestry(entry, shelf.adapters.values()))}")
    st.caption(f"{plain(str(entry.path))}  \nSHA-256 {plain(entry.sha256[:16])}")
    with blocks.failures():
        blocks.problems(scan.doubts(adapters.read(entry.path, saved=True)), warning=True)


def merged_in(store: start.Store, entry: Entry) -> None:
    """The runs that were merged from it."""
    runs = store.query(queries.runs_merged_from, entry.sha256)
    if runs.empty:
        st.caption("No merge of it has finished here.")
        return
    pairs = ", ".join(plain(pair) for pair in dict.fromkeys(runs["pair"]))
    last = f", the last {RUNS}:" if len(runs) > RUNS else ":"
    st.markdown(f"**Merged in {words.count(len(runs), 'run')}** ({pairs}){last}")
    st.markdown(table.brief(runs.head(RUNS)))


def role_field(key: str, given: str = "") -> str:
    place = list(ROLES).index(given) if given in ROLES else 0
    return st.selectbox("Role", list(ROLES), place, key=key, format_func=ROLES.__getitem__, width=120)


def tag_field(shelf: pick.Shelf, key: str, given: Sequence[str]) -> list[str]:
    known = sorted({tag for entry in shelf.adapters.values() for tag in entry.tags} | set(given))
    if key not in st.session_state:
        st.session_state[key] = list(given)
    return st.multiselect("Tags", known, key=key, accept_new_options=True, placeholder="Type a tag", width=220)


def change(entry: Entry, shelf: pick.Shelf) -> None:
    """Rename, role, tags, and the way out."""
    if entry.bundled:
        st.caption("Ships with the program: it keeps its name and cannot be removed.")
        return
    place = entry.sha256[:8]
    with (
        st.form(f"change.{place}", border=False),
        st.container(horizontal=True, vertical_alignment="bottom", gap="small"),
    ):
        name = st.text_input("Name", entry.name, key=f"change.name.{place}", width=170)
        role = role_field(f"change.role.{place}", entry.role)
        tags = tag_field(shelf, f"change.tags.{place}", entry.tags)
        saved = st.form_submit_button("Save", icon=":material/check:", **entrance.guard("change"))
    if saved:
        with blocks.failures():
            changed = catalog.change(start.workspace(), entry.sha256, name=name, role=role, tags=tags)
            show_next(changed)
            st.toast(f"Saved {plain(changed.name)}. Runs keep the name that they were made under.")
            st.rerun()
    _remove(entry, f"change.remove.{place}")


def removed() -> None:
    """What was removed can be put back; the last one at once."""
    gone = catalog.removed(start.workspace())
    last = next((entry for entry in gone if entry.sha256 == st.session_state.get("adapters:gone")), None)
    if last is not None:
        with st.container(border=True, horizontal=True, vertical_alignment="center"):
            st.markdown(f":material/delete: **{plain(last.name)}** was removed.", width="content")
            _undo(last, "Undo")
    if others := [entry for entry in gone if entry is not last]:
        with st.expander(f"Removed: {len(others)}", icon=":material/restore_from_trash:"):
            for entry in others:
                with st.container(horizontal=True, vertical_alignment="center"):
                    told = f"**{plain(entry.name)}** · rank {entry.rank} · {words.size(entry.bytes)}"
                    st.markdown(told, width="content")
                    _undo(entry, "Restore")


def _remove(entry: Entry, key: str) -> None:
    workspace = start.workspace()
    needed = jobs.needing(workspace, entry.sha256)
    own = catalog.is_kept(workspace, entry)
    fate = "Its files move into the workspace's trash." if own else "The folder itself stays where it is."
    if st.button(
        "Remove",
        icon=":material/delete:",
        type="tertiary",
        key=key,
        **entrance.guard(
            "remove",
            disabled=bool(needed),
            help=f"The job “{plain(needed[0].name)}” needs it." if needed else f"{fate} It can be undone.",
        ),
    ):
        with blocks.failures():
            catalog.remove(workspace, entry.sha256)
            st.session_state["adapters:gone"] = entry.sha256
            st.rerun()


def _undo(entry: Entry, label: str) -> None:
    may = entrance.guard("remove")
    if st.button(label, icon=":material/undo:", key=f"restore.{entry.sha256[:8]}", **may):
        with blocks.failures():
            catalog.restore(start.workspace(), entry.sha256)
            show_next(entry)
            st.session_state.pop("adapters:gone", None)
            st.rerun()


def _tree(one: Ancestry, depth: int = 0) -> str:
    """The ancestry as a Markdown list, this adapter first."""
    unknown = "" if one.known else " (not in this workspace)"
    how = plain(one.text) or ("a folder of this machine" if one.known and not one.parents else "")
    if one.run_id:
        how = run_link(one.text, one.run_id)
    line = f"{'    ' * depth}- **{plain(one.name)}**{unknown}" + (f" ← {how}" if how else "")
    return "\n".join([line, *(_tree(parent, depth + 1) for parent in one.parents)])
