"""What can be merged: the catalogue, where each adapter comes from, whether two fit, and how alike they are."""

from pathlib import Path

import streamlit as st

from sstmerge_core import catalog, intake, jobs, words
from sstmerge_core.adapters import check_pair
from sstmerge_core.catalog import Entry
from sstmerge_core.lineage import Ancestry, ancestry
from sstmerge_core.plots import similarity, table
from sstmerge_core.store import queries
from sstmerge_core.words import plain
from studio import blocks, link, pick, start, visitor

WAYS = {
    "folder": ":material/folder: Folder",
    "upload": ":material/upload: Upload",
    "hub": ":material/cloud_download: Hugging Face",
    "merge": ":material/merge: A merge of here",
}
ROLES = {"": "either", "utility": "utility", "safety": "safety"}
MERGES = 200  # offered for registration, the newest
RUNS = 8

store = blocks.store_or_stop()
workspace = start.workspace()
shelf = pick.Shelf()
names = list(shelf.adapters)
state = link.Link("adapters")
state.read(shelf.fields() | {"job": (link.text, ""), "stat": (link.text, "cosine")})
state.read({"show": (link.one_of(names), names[0] if names else None)})


def select_row() -> None:
    if rows := st.session_state["adapters.table"]["selection"]["rows"]:
        st.session_state["adapters.show"] = names[rows[0]]


def catalogue() -> None:
    entries = list(shelf.adapters.values())
    st.dataframe(
        table.adapters(entries),
        hide_index=True,
        column_config={
            "alpha": st.column_config.NumberColumn("LoRA α", format="%g"),
            "rank": st.column_config.NumberColumn("rank", format="%d"),
            "tags": st.column_config.ListColumn("tags"),
        }
        | {name: blocks.measure_column(name) for name in table.score_names(entries)},
        placeholder="–",
        alt="Adapters of this workspace",
        key="adapters.table",
        on_select=select_row,
        selection_mode="single-row",
    )


def add_forms() -> None:
    """One of the ways in at a time; what is wrong is said below the form, and nothing is kept."""
    way = st.segmented_control(
        "Add from", list(WAYS), key="adapters.way", format_func=WAYS.get, default="folder", label_visibility="collapsed"
    )
    with (
        st.form(f"add.{way}", enter_to_submit=True, border=False),
        st.container(horizontal=True, vertical_alignment="bottom", gap="small"),
    ):
        chosen = source(way or "folder")
        name = st.text_input("Name", key="adapters.name", placeholder="its own name", width=170)
        role = st.selectbox("Role", list(ROLES), key="adapters.role", format_func=ROLES.get, width=120)
        tags = tag_field("adapters.tags", [])
        added = st.form_submit_button("Add", icon=":material/add:")
    if not added:
        return
    if not chosen:
        st.info(
            {"upload": "Choose a ZIP archive, or the adapter's files.", "hub": "Write the repository's id."}.get(
                way or "", "Choose a merge." if way == "merge" else "Write the folder's path."
            )
        )
        return
    with blocks.failures(), st.spinner("Reading and checking …"):
        entry = keep(way or "folder", chosen, intake.Told(name, role or None, tags=tuple(tags)))
        st.session_state["adapters:show"] = entry.sha256
        st.toast(f"Added {entry.name}.")
        st.rerun()


def source(way: str) -> list | str | None:
    """The widget that says where an adapter comes from, and what it says."""
    if way == "upload":
        return st.file_uploader(
            "ZIP archive, or adapter_config.json and adapter_model.safetensors",
            type=["zip", "json", "safetensors"],
            accept_multiple_files=True,
            key="adapters.upload",
            width=440,
        )
    if way == "hub":
        repository = st.text_input("Repository", key="adapters.hub", placeholder="owner/name", width=290)
        revision = st.text_input(
            "Revision",
            key="adapters.revision",
            placeholder="main",
            width=150,
            help="A branch, a tag or a commit. The commit that it stands for now is kept beside the adapter.",
        )
        return [repository.strip(), revision.strip()] if repository.strip() else None
    if way == "merge":
        runs = table.named(store.query(queries.recent_runs, MERGES))
        kept = {
            run["run_id"]: f"{run['name']} · {run['pair']}"
            for run in runs.to_dict("records")
            if (workspace.merged_adapter(run["run_id"]) / "adapter_model.safetensors").is_file()
        }
        return st.selectbox(
            "Merge",
            list(kept),
            index=None,
            key="adapters.merge",
            format_func=lambda run_id: kept.get(run_id, run_id),
            placeholder="Choose" if kept else "No merge has kept its adapter here",
            width=380,
            help="Its adapter becomes one to merge again, with its lineage.",
        )
    return st.text_input(
        "Folder on this machine",
        key="adapters.path",
        placeholder="/models/my-lora",
        width=380,
        help="It holds adapter_config.json and adapter_model.safetensors. It stays where it is.",
    ).strip()


def keep(way: str, chosen: list | str, told: intake.Told) -> Entry:
    if way == "upload":
        return intake.upload(workspace, [(file.name, file) for file in chosen], told)
    if way == "hub":
        return intake.download(workspace, chosen[0], told, revision=chosen[1])
    if way == "merge":
        return intake.folder(workspace, workspace.merged_adapter(chosen), told, origin=f"run:{chosen}")
    return intake.folder(workspace, Path(chosen).expanduser(), told)


def tag_field(key: str, given: list[str]) -> list[str]:
    known = sorted({tag for entry in shelf.adapters.values() for tag in entry.tags} | set(given))
    if key not in st.session_state:
        st.session_state[key] = given
    return st.multiselect("Tags", known, key=key, accept_new_options=True, placeholder="Type a tag", width=220)


def about(entry: Entry) -> None:
    """What the adapter is and where it comes from."""
    facts = [f"rank {entry.rank}", words.count(entry.modules, "module"), words.size(entry.bytes)]
    facts += [f"base {entry.base_name}"] if entry.base_name else []
    st.caption(" · ".join(plain(fact) for fact in facts))
    st.markdown(f"**Comes from**\n\n{tree(ancestry(entry, shelf.adapters.values()))}")
    st.caption(f"`{entry.path}`  \nSHA-256 {entry.sha256[:16]}")


def merged_in(entry: Entry) -> None:
    runs = store.query(queries.runs_merged_from, entry.sha256)
    if runs.empty:
        st.caption("No merge of it has finished here.")
        return
    pairs = ", ".join(plain(pair) for pair in dict.fromkeys(runs["pair"]))
    last = f", the last {RUNS}:" if len(runs) > RUNS else ":"
    st.markdown(f"**Merged in {words.count(len(runs), 'run')}** ({pairs}){last}")
    st.markdown(table.brief(runs.head(RUNS)))


def tree(one: Ancestry, depth: int = 0) -> str:
    """The ancestry as a Markdown list, this adapter first."""
    unknown = "" if one.known else " (not in this workspace)"
    how = plain(one.text) or ("a folder of this machine" if one.known and not one.parents else "")
    if one.run_id:
        how = f"[{how}](run?run={one.run_id})"
    line = f"{'    ' * depth}- **{plain(one.name)}**{unknown}" + (f" ← {how}" if how else "")
    return "\n".join([line, *(tree(parent, depth + 1) for parent in one.parents)])


def change(entry: Entry) -> None:
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
        role = st.selectbox(
            "Role",
            list(ROLES),
            list(ROLES).index(entry.role) if entry.role in ROLES else 0,
            key=f"change.role.{place}",
            format_func=ROLES.get,
            width=120,
        )
        tags = tag_field(f"change.tags.{place}", list(entry.tags))
        saved = st.form_submit_button("Save", icon=":material/check:")
    if saved:
        with blocks.failures():
            changed = catalog.change(workspace, entry.sha256, name=name, role=role, tags=tags)
            st.session_state["adapters:show"] = changed.sha256
            st.toast(f"Saved {changed.name}. Runs keep the name that they were made under.")
            st.rerun()
    own = catalog.is_kept(workspace, entry)
    needed = jobs.needing(workspace, entry.sha256)
    fate = "Its files move into the workspace's trash." if own else "The folder itself stays where it is."
    if st.button(
        "Remove",
        icon=":material/delete:",
        type="tertiary",
        key=f"change.remove.{place}",
        disabled=bool(needed),
        help=f"The job “{needed[0].name}” needs it." if needed else f"{fate} It can be undone.",
    ):
        with blocks.failures():
            catalog.remove(workspace, entry.sha256)
            st.session_state["adapters:gone"] = entry.sha256
            st.rerun()


def removed() -> None:
    """What was removed can be put back; the last one at once."""
    gone = catalog.removed(workspace)
    last = next((entry for entry in gone if entry.sha256 == st.session_state.get("adapters:gone")), None)
    if last is not None:
        with st.container(border=True, horizontal=True, vertical_alignment="center"):
            st.markdown(f":material/delete: **{plain(last.name)}** was removed.", width="content")
            undo(last, "Undo")
    if others := [entry for entry in gone if entry is not last]:
        with st.expander(f"Removed: {len(others)}", icon=":material/restore_from_trash:"):
            for entry in others:
                with st.container(horizontal=True, vertical_alignment="center"):
                    st.markdown(
                        f"**{plain(entry.name)}** · rank {entry.rank} · {words.size(entry.bytes)}", width="content"
                    )
                    undo(entry, "Restore")


def undo(entry: Entry, label: str) -> None:
    if st.button(label, icon=":material/undo:", key=f"restore.{entry.sha256[:8]}"):
        with blocks.failures():
            catalog.restore(workspace, entry.sha256)
            st.session_state["adapters:show"] = entry.sha256
            st.session_state.pop("adapters:gone", None)
            st.rerun()


def fit(trio: pick.Trio) -> bool:
    """Whether the pair can be merged; every problem where it cannot."""
    report = check_pair(trio.base.path, trio.utility.path, trio.safety.path)
    if report.problems:
        blocks.problems(report.problems)
    else:
        st.success("They fit: every method can merge them.", icon=":material/check_circle:")
    blocks.problems(report.warnings, warning=True)
    blocks.pair_facts(report.facts)
    st.page_link("pages/merge.py", label="Merge this pair", icon=":material/merge:", query_params=trio.values)
    return report.compatible


def alike(trio: pick.Trio, fits: bool) -> None:
    """Norms, cosine and overlap per layer and module as heat maps, once a worker has measured them."""
    measuring = None
    if job_id := st.session_state["adapters.job"]:
        measuring = blocks.watch(job_id, key="adapters.watch")
        if measuring is None:
            st.warning(f"There is no job “{job_id}” in this workspace.", icon=":material/search_off:")
    contents = {"base": trio.base.sha256, "utility": trio.utility.sha256, "safety": trio.safety.sha256}
    pair_id = store.query(queries.inspected_pair, **contents)
    if pair_id is not None:
        maps(trio, store.query(queries.module_stats, pair_id))
    elif measuring is None or not measuring.active:
        with st.container(border=True):
            st.markdown("How alike the two adapters are, layer by layer, has not been measured yet.")
            st.caption("A worker computes it within seconds; nothing is merged.")
            if st.button("Measure similarity", icon=":material/straighten:", disabled=not fits):
                with blocks.failures():
                    st.session_state["adapters.job"] = visitor.submit(
                        sources={
                            "base": trio.base.source,
                            "utility": trio.utility.source,
                            "safety": trio.safety.source,
                        },
                        name=f"Similarity of {trio.utility.name} and {trio.safety.name}",
                        kind="inspect",
                    )
                    st.rerun()


def maps(trio: pick.Trio, stats) -> None:
    known = similarity.present(stats)
    if st.session_state["adapters.stat"] not in known:
        st.session_state["adapters.stat"] = known[0]
    stat = st.pills(
        "Statistic",
        known,
        key="adapters.stat",
        format_func=lambda each: similarity.describe(each).title,
        label_visibility="collapsed",
        required=True,
    )
    st.plotly_chart(
        similarity.figure(stats, stat),
        key=f"adapters.map.{stat}",
        config=blocks.CHART_CONFIG,
        alt=f"{similarity.describe(stat).title} of {trio.pair} per layer and module",
    )
    st.caption(f"{similarity.describe(stat).help} U is {plain(trio.utility.name)}, S is {plain(trio.safety.name)}.")


if following := st.session_state.pop("adapters:show", None):
    st.session_state["adapters.show"] = next(
        (name for name, entry in shelf.adapters.items() if entry.sha256 == following), names[0] if names else None
    )
blocks.title("Adapters", "LoRA adapters (PEFT folders) known to this workspace, with what they were measured at.")
blocks.problems(state.problems, warning=True)
if names:
    catalogue()
else:
    blocks.empty("No adapter yet. Add one below; `make setup` brings the demo adapters.")
removed()
with st.expander("Add an adapter", icon=":material/add:", expanded=not names):
    add_forms()

said = {"job": st.session_state["adapters.job"]}
if names:
    if st.session_state["adapters.show"] not in shelf.adapters:  # it was removed elsewhere
        st.session_state["adapters.show"] = names[0]
    left, right = st.columns([5, 7], gap="large")
    with left:
        shown = st.selectbox("Adapter", names, key="adapters.show", width=260)
        about(shelf.adapters[shown])
        change(shelf.adapters[shown])
    with right:
        merged_in(shelf.adapters[shown])
    said |= {"show": shown}

if not pick.missing(shelf):
    st.subheader("Two adapters beside each other", anchor=False)
    trio = pick.trio(state, shelf)
    left, right = st.columns([5, 7], gap="large")
    fits = False
    with left, blocks.failures():
        fits = fit(trio)
    with right:
        alike(trio, fits)
    said |= trio.values | {"stat": st.session_state["adapters.stat"]}
if names:
    state.write(said)
