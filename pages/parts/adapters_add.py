"""The ways in for an adapter, one at a time: a folder, an upload, a repository of the Hugging Face hub, a merge."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from pages.parts import adapters_info, adapters_line
from sstmerge_core import access
from sstmerge_core.catalog import Entry, intake
from sstmerge_core.plots import table
from sstmerge_core.store import queries
from sstmerge_core.words import plain
from sstmerge_core.worker import convert_job
from studio import blocks, entrance, pick, start, uploads, visitor

WAYS = {
    "folder": ":material/folder: Folder",
    "upload": ":material/upload: Upload",
    "hub": ":material/cloud_download: Hugging Face",
    "merge": ":material/merge: A merge of here",
    "convert": ":material/transform: Of another kind",
}
LACKING = {
    "folder": "Write the folder's path.",
    "upload": "Choose a ZIP archive, or the adapter's files.",
    "hub": "Write the repository's id.",
    "merge": "Choose a merge.",
}
MERGES = 200
"""Offered for registration, the newest"""

Keep = Callable[[intake.AdapterInfo], Entry]
"""Takes in what the form names, with what the user says of it"""


def form(store: start.Store, shelf: pick.Shelf) -> None:
    """One of the ways in at a time; what is wrong is said below the form, and nothing is kept."""
    way = st.segmented_control(
        "Add from",
        list(WAYS),
        key="adapters.way",
        format_func=WAYS.__getitem__,
        default="folder",
        label_visibility="collapsed",
    )
    way = way or "folder"
    if way == "convert":
        _convert(shelf)
        return
    with adapters_line.line(f"add.{way}"):
        keep = _merge(store) if way == "merge" else {"folder": _folder, "upload": _upload, "hub": _hub}[way]()
        name = st.text_input("Name", key="adapters.name", placeholder="its own name", width=170)
        role = adapters_info.role_field("adapters.role")
        tags = adapters_info.tag_field(shelf, "adapters.tags", [])
        added = st.form_submit_button("Add", icon=":material/add:", **entrance.guard("add"))
    if not added:
        return
    if keep is None:
        st.info(LACKING[way])
        return
    with blocks.failures(), st.spinner("Reading and checking …"):
        entry = keep(intake.AdapterInfo(name, role or None, tags=tuple(tags)))
        adapters_info.show_next(entry)
        st.toast(f"Added {plain(entry.name)}.")
        st.rerun()


def _convert(shelf: pick.Shelf) -> None:
    """A LoRA made of an adapter that is none, as a job: it loads the base model."""
    bases = {name: base for name, base in shelf.bases.items() if base.ready}
    with adapters_line.line("add.convert"):
        path = adapters_line.folder_field(
            "adapters.source",
            "my-dora",
            "DoRA, LoHa, LoKr, OFT, IA³, VeRA, trained tokens, modules_to_save, pickled weights, MLX; or a file "
            "in kohya's format. A LoRA that stands for it on this base is made beside it and added.",
            width=300,
        )
        base = st.selectbox("On the base model", list(bases), key="adapters.on", width=210)
        rank = st.number_input(
            "Rank", 0, 4096, 0, key="adapters.rank", width=110, help="0: the smallest that is exact to 1e-6."
        )
        name = st.text_input("Name", key="adapters.called", placeholder="its own name, -lora", width=170)
        pressed = st.form_submit_button("Convert", icon=":material/transform:", **entrance.guard("launch"))
    if pressed and path and base in bases:
        with blocks.failures():
            started = convert_job.submit(start.workspace(), path, bases[base], name, rank=int(rank), user=start.user())
            st.session_state["convert:job"] = visitor.remember(started)
            st.rerun()
    elif pressed:
        st.info("Write the folder's path, and choose the base model that it was trained on.")
    if watched := st.session_state.get("convert:job"):
        job = blocks.watch(watched, key="convert.watch")
        visitor.desk([job] if job else [], watched=watched, key="convert.job")


def _folder() -> Keep | None:
    about = "It holds adapter_config.json and adapter_model.safetensors. It stays where it is."
    path = adapters_line.folder_field("adapters.path", "my-lora", about)
    return (lambda told: intake.folder(start.workspace(), access.place(path), told)) if path else None


def _upload() -> Keep | None:
    files = st.file_uploader(
        "ZIP archive, or adapter_config.json and adapter_model.safetensors",
        type=["zip", "json", "safetensors"],
        accept_multiple_files=True,
        key="adapters.upload",
        width=440,
        **entrance.guard("add"),
    )

    def keep(told: intake.AdapterInfo) -> Entry:
        for file in files:
            uploads.accept(file)
        return intake.upload(start.workspace(), [(file.name, file) for file in files], told)

    return keep if files else None


def _hub() -> Keep | None:
    about = "A branch, a tag or a commit. The commit that it stands for now is kept beside the adapter."
    repository, revision = adapters_line.hub_fields("adapters.hub", "adapters.revision", about)
    if not repository:
        return None
    return lambda told: intake.download(start.workspace(), repository, told, revision=revision)


def _merge(store: start.Store) -> Keep | None:
    workspace = start.workspace()
    runs = table.named(store.query(queries.recent_runs, MERGES))
    kept = {
        run["run_id"]: f"{run['name']} · {run['pair']}"
        for run in runs.to_dict("records")
        if (workspace.merged_adapter(run["run_id"]) / "adapter_model.safetensors").is_file()
    }
    run_id = st.selectbox(
        "Merge",
        list(kept),
        index=None,
        key="adapters.merge",
        format_func=lambda run_id: kept.get(run_id, run_id),
        placeholder="Choose" if kept else "No merge has kept its adapter here",
        width=380,
        help="Its adapter becomes one to merge again, with its lineage.",
    )
    if run_id is None:
        return None
    return lambda told: intake.folder(workspace, workspace.merged_adapter(run_id), told, origin=f"run:{run_id}")
