"""Base models: those known here, the ways in for another, and the one that an adapter names but is not here yet."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from pages.parts import adapters_line
from sstmerge_core import access, catalog, words
from sstmerge_core.catalog import Base, Entry, base_intake
from sstmerge_core.errors import AccessError
from sstmerge_core.words import plain
from sstmerge_core.worker import base_download
from studio import blocks, entrance, pick, start, visitor

WAYS = {
    "folder": ":material/folder: Folder",
    "cache": ":material/inventory_2: Hugging Face cache",
    "hub": ":material/cloud_download: Hugging Face hub",
}


@st.cache_data(ttl=20, show_spinner=False)
def cached() -> list[base_intake.Cached]:
    return base_intake.cached()


def known(shelf: pick.Shelf) -> None:
    """The base models of this workspace, each with the way out."""
    gone: Base | None = st.session_state.get("adapters:gone base")
    if gone is not None and gone.sha256 not in {base.sha256 for base in shelf.bases.values()}:
        with st.container(border=True, horizontal=True, vertical_alignment="center"):
            st.markdown(f":material/delete: **{plain(gone.name)}** was taken off the list.", width="content")
            if st.button("Undo", icon=":material/undo:", key="base.undo", **entrance.guard("add")):
                with blocks.failures():
                    catalog.add_base(start.workspace(), gone.path, gone.name)
                    st.rerun()
    for place, (name, base) in enumerate(shelf.bases.items()):
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            state = "" if base.ready else " · not prepared yet: `sstmerge demo --prepare`"
            st.markdown(f"**{plain(name)}** · {plain(base.description)}{state}  \n`{base.path}`", width="stretch")
            if place and st.button(
                "Take off the list",
                icon=":material/playlist_remove:",
                type="tertiary",
                key=f"base.remove.{base.sha256[:8]}",
                **entrance.guard("remove", help="Its folder and its runs stay. It can be undone."),
            ):
                with blocks.failures():
                    st.session_state["adapters:gone base"] = catalog.remove_base(start.workspace(), base.sha256)
                    st.rerun()


def form(shelf: pick.Shelf) -> None:
    """One of the ways in at a time; what is wrong is said below the form, and nothing is kept."""
    way = st.segmented_control(
        "Add a base model from",
        list(WAYS),
        key="base.way",
        format_func=WAYS.__getitem__,
        default="folder",
        label_visibility="collapsed",
    )
    if way == "cache" and not cached():
        st.caption("The Hugging Face cache of this machine holds no model in safetensors.")
    else:
        {"folder": _folder, "cache": _cache, "hub": _hub}[way or "folder"](shelf)
    if job_id := st.session_state.get("base:job"):
        job = blocks.watch(job_id, key="base.watch")
        visitor.desk([job] if job else [], watched=job_id, key="base.job")


def offer(entry: Entry, shelf: pick.Shelf) -> None:
    """Beside an adapter whose base model is not known here: the way to it."""
    if not entry.base_name or any(base_intake.means(entry.base_name, base) for base in shelf.bases.values()):
        return
    by_path = entry.base_name.startswith(("/", "~"))  # written by whoever made the adapter
    found = base_intake.named(entry.base_name, cached()) if not by_path or _may_name(entry.base_name) else None
    name = plain(words.shortened(entry.base_name))
    with st.container(border=True, horizontal=True, vertical_alignment="center"):
        if found is not None:
            st.markdown(f"Its base model, **{name}**, is on this machine but not registered.", width="stretch")
            may = entrance.guard("add")
            if st.button("Register it", icon=":material/add:", type="primary", key="base.offer", **may):
                _keep(found, "" if by_path else entry.base_name, door=by_path)
        elif entry.base_name.count("/") == 1 and not entry.base_name.startswith("/"):
            st.markdown(f"Its base model, **{name}**, is not here.", width="stretch")
            may = entrance.guard("launch")
            if st.button("Fetch it from the hub", icon=":material/cloud_download:", key="base.offer", **may):
                _fetch(entry.base_name, "")
        else:
            st.markdown(f"It names **{name}** as its base model, which is not here. Add it below.", width="stretch")


def _may_name(path: str) -> bool:
    """Whether a visitor may name it: what lies elsewhere is not looked for, so that nobody learns what is there."""
    try:
        access.place(path)
    except AccessError:
        return False
    return True


def _folder(shelf: pick.Shelf) -> None:
    with adapters_line.line("base.folder"):
        about = "Of a transformers model: config.json, weights in safetensors, its tokenizer. It stays where it is."
        path = adapters_line.folder_field("base.path", "my-model", about)
        name = st.text_input("Name", key="base.name", placeholder="its own name", width=170)
        added = st.form_submit_button("Add", icon=":material/add:", **entrance.guard("add"))
    if added and path:
        _keep(path, name, door=True)
    elif added:
        st.info("Write the folder's path.")


def _cache(shelf: pick.Shelf) -> None:
    here = {base.path for base in shelf.bases.values()}
    models = {one.name: one for one in cached() if one.path.resolve() not in here}
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        name = st.selectbox(
            "Model",
            list(models),
            index=None,
            key="base.cached",
            format_func=lambda name: f"{name} · {words.size(models[name].bytes)}" if name in models else name,
            placeholder="Choose" if models else "All of them are registered",
            width=420,
        )
        may = entrance.guard("add", disabled=name is None)
        if st.button("Add", icon=":material/add:", key="base.add cached", **may) and name in models:
            _keep(models[name].path, name)


def _hub(shelf: pick.Shelf) -> None:
    with adapters_line.line("base.hub"):
        about = "A branch, a tag or a commit."
        repository, revision = adapters_line.hub_fields("base.repository", "base.revision", about)
        added = st.form_submit_button("Fetch", icon=":material/cloud_download:", **entrance.guard("launch"))
    if added:
        _fetch(repository, revision)


def _keep(path: str | Path, name: str, *, door: bool = False) -> None:
    """Register the model; `door`: somebody wrote the path."""
    with blocks.failures(), st.spinner("Reading and checking …"):
        base = catalog.add_base(start.workspace(), access.place(path) if door else path, name)
        st.toast(f"Added {plain(base.name)}.")
        st.rerun()


def _fetch(repository: str, revision: str) -> None:
    with blocks.failures():
        job_id = base_download.submit(start.workspace(), repository, revision, user=start.user())
        st.session_state["base:job"] = visitor.remember(job_id)
        st.rerun()
