"""Make an adapter of your own: choose a base and rows, train, watch the loss, merge."""

from typing import Any

import pandas as pd
import streamlit as st

from sstmerge_core import jobs, words
from sstmerge_core.errors import Problem
from sstmerge_core.plots import training as pictures
from sstmerge_core.recipe import Source
from sstmerge_core.suites.bundled import ROLES
from sstmerge_core.train import checkpoint, training_data, training_record
from sstmerge_core.words import plain
from sstmerge_core.worker import training
from studio import blocks, entrance, link, navigation, pick, start, uploads
from studio import training as form

PREVIEW = 3
ALL, NONE, SHARE = "all rows", "nothing", "a share of the prompts"
ROLE_WORDS = {
    "utility": "utility: good at a task",
    "safety": "safety: refuses harm",
    "harm": "harm: complies with it",
    "": "neither",
}

store = blocks.store_or_stop()
workspace = start.workspace()
shelf = pick.Shelf()
if not shelf.bases:
    blocks.empty("No base model is known here: `sstmerge demo --prepare` prepares the bundled one.")
    st.stop()
trained = {name: entry for name, entry in shelf.adapters.items() if training_record(entry.path).get("loss")}
state = link.Link("train")
state.read({"base": shelf.fields()["base"], "role": (link.one_of(list(ROLE_WORDS)), "utility")})
state.read({"file": (link.text, None)} | dict.fromkeys(("split", "held", "name", "suite", "job"), (link.text, "")))
state.read({"share": (form.number(0.01, 0.9), 0.1)} | form.fields())
if trained:
    state.read({"show": (link.one_of(list(trained)), list(trained)[-1])})
blocks.problems(state.problems, warning=True)


def file_chosen() -> str | None:
    """A bundled set, an earlier upload, a path, or a new upload."""
    with st.container(horizontal=True, gap="xsmall", width="content", vertical_alignment="bottom"):
        file = st.selectbox(
            "Rows to learn",
            list(dict.fromkeys([*form.files(workspace), *filter(None, [st.session_state["train.file"]])])),
            index=None,
            key="train.file",
            format_func=form.file_label,
            accept_new_options=True,
            placeholder="Choose, or write a file's path",
            help="JSONL, JSON, CSV, Parquet or YAML with the columns prompt and response, and split where there are "
            "several.",
            width=270,
        )
        with st.popover(":material/upload:", help="Upload a file"):
            sent = st.file_uploader("JSONL or CSV", type=form.ENDINGS, key="train.upload", **entrance.guard("add"))
    if sent is not None and st.session_state.get("train:sent") != sent.file_id:
        st.session_state["train:sent"] = sent.file_id
        with blocks.failures():
            uploads.accept(sent)
            st.session_state["train:next"] = form.keep_upload(workspace, sent.name, sent.getvalue())
            st.rerun()
    return file


def rows_chosen(file: str | None) -> tuple[training_data.TrainingData, dict] | None:
    """Which rows are learnt and which held out, and a look at them; None until they can be used."""
    if not file:
        st.markdown("Make a LoRA adapter of your own from prompts and responses.")
        st.caption(
            'Each row is a prompt and the response to learn: `{"prompt": "Who built it?", "response": "Ada."}`. '
            "Only the response's tokens are learnt. The bundled rows are those of A5, A6 and A7."
        )
        return None
    with blocks.failures():
        path = form.path_of(file)
        stamp = (str(path), path.stat().st_mtime_ns if path.is_file() else 0)
        splits = store.recall(("splits", stamp), lambda: training_data.splits([path]))
        split, held, share = held_out(splits)
        told = {"files": (str(path),), "split": split, "validation_split": held, "validation_share": share}
        read = store.recall(
            ("rows", stamp, split, held, share),
            lambda: training_data.read([path], split, validation_split=held, share=share),
        )
        aside = f", {words.count(len(read.validation), 'row')} held out" if read.validation else ""
        st.caption(f"{words.count(len(read.rows), 'row')} to learn{aside}. The first {min(PREVIEW, len(read.rows))}:")
        st.dataframe(
            pd.DataFrame(read.rows[:PREVIEW], columns=["prompt", "response"]),
            hide_index=True,
            column_config={name: st.column_config.TextColumn(width=170) for name in ("prompt", "response")},
            alt="First rows to learn",
        )
        return read, told
    return None


def held_out(splits: list[str]) -> tuple[str | None, str | None, float]:
    """Which split is learnt, which is held out, or which share."""
    unknown = state.unknown("split", [ALL, *splits]) if state.moved else []
    if st.session_state["train.split"] not in (ALL, *splits):
        st.session_state["train.split"] = "train" if "train" in splits else ALL
    with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
        split = ALL
        if splits:
            split = st.selectbox("Learn", [ALL, *splits], key="train.split", width=150)
        others = [name for name in splits if name != split and split != ALL]
        unknown += state.unknown("held", [NONE, SHARE, *others]) if state.moved else []
        if st.session_state["train.held"] not in (SHARE, *others):
            st.session_state["train.held"] = NONE
        held = st.selectbox(
            "Hold out",
            [NONE, SHARE, *others],
            key="train.held",
            width=210,
            help="Rows that are not learnt: the loss on them is measured at the end of each epoch. Early stopping "
            "(Patience, in the settings) needs some.",
        )
        share = 0.0
        if held == SHARE:
            share = st.number_input("Share", 0.01, 0.9, step=0.05, format="%g", key="train.share", width=120)
    blocks.problems(unknown, warning=True)
    return (None if split == ALL else split), (held if held in others else None), share


def adapter_named(file: str) -> dict[str, Any]:
    """Name, role and what measures it."""
    with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
        name = st.text_input("Name", key="train.name", placeholder="such as A8", width=150)
        role = st.selectbox("Role", list(ROLE_WORDS), key="train.role", format_func=ROLE_WORDS.__getitem__, width=200)
        own = [file] if file not in ROLES else []
        suite_problems = state.unknown("suite", [*ROLES, *own]) if state.moved else []
        if st.session_state["train.suite"] not in ("", *ROLES, *own):
            st.session_state["train.suite"] = ""
        suite = st.selectbox(
            "Measured by",
            ["", *ROLES, *own],
            key="train.suite",
            format_func=lambda name: form.file_label(name) if name else "the default",
            width=200,
            help="The prompts that measure its own task after a merge. A file needs rows of the splits selection, "
            "test and fisher. Default: the bundled instructions.",
        )
    blocks.problems(suite_problems, warning=True)
    return {"name": name.strip(), "role": role, "suite": str(form.path_of(suite)) if suite in own else suite}


def launch_form() -> None:
    """Everything up to the button."""
    with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
        base = shelf.bases[st.selectbox("Base model", list(shelf.bases), key="train.base", width=210)]
        file = file_chosen()
    chosen = rows_chosen(file)
    if chosen is None:
        return
    read, told = chosen
    named = adapter_named(st.session_state["train.file"])
    settings = form.settings(state, len(read.rows))
    preset = st.session_state["train.preset"]
    spec = training.Training(
        base=Source(name=base.name, path=str(base.path), sha256=base.sha256),
        settings=settings,
        rows_sha256=read.sha256,
        preset="" if preset == form.OWN else preset,
        **told,
        **(named | {"name": named["name"] or "unnamed"}),
    )
    plan = training.plan(workspace, spec, read)
    active = job is not None and job.active and watched == spec
    blocks.problems(plan.problems if named["name"] else [one for one in plan.problems if "name" not in one.where])
    with st.container(horizontal=True, vertical_alignment="center"):
        launched = st.button(
            "Train",
            type="primary",
            icon=":material/model_training:",
            **entrance.guard(
                "launch",
                disabled=bool(plan.problems or plan.known or active or not named["name"]),
                help="" if named["name"] else "Give it a name first.",
            ),
            key="train.launch",
            shortcut=navigation.MAIN,
        )
        if plan.known:
            st.caption(f"Already here: {plain(plan.known.name)} was trained so.", width="content")
        elif active:
            st.caption("It is being trained.", width="content")
        elif not plan.problems:
            st.caption(
                f"{words.count(plan.steps, 'step')}, about {words.duration(plan.seconds)}"
                f"{'' if named['name'] else '. Give it a name'}.",
                width="content",
            )
    if launched:
        with blocks.failures():
            st.session_state["train.job"] = jobs.submit(
                workspace,
                [],
                name=f"Train {spec.name}",
                user=start.user(),
                kind="train",
                training=spec.model_dump(mode="json"),
                seconds=plan.seconds,
            )
            st.session_state["train:next"] = st.session_state["train.file"]
            st.rerun()


def live_curve() -> None:
    """The loss so far, while the training runs or where it stopped."""
    if watched and (curve := checkpoint.read_curve(workspace.adapters / watched.name)):
        loss_curve(curve, "train.live")


def loss_curve(curve: dict, key: str) -> None:
    st.caption(pictures.summary(curve))
    st.plotly_chart(pictures.figure(curve), config=blocks.CHART_CONFIG, key=key, alt="Loss of the training")


def finished(name: str) -> None:
    """A trained adapter: its curve, what it was trained with, and the way to a merge."""
    entry, record = shelf.adapters[name], training_record(shelf.adapters[name].path)
    role = "safety" if entry.role in ("safety", "harm") else "utility"
    loss_curve(record, f"train.curve.{entry.sha256[:8]}")
    held = f" + {record['validation_rows']:,} held out" if record.get("validation_rows") else ""
    st.caption(
        f"{words.count(record.get('rows', 0), 'row')}{held} · rank {record.get('r')} · learning rate "
        f"{record.get('learning_rate'):g} · batch {record.get('batch_size')} · seed {record.get('seed')} · "
        f"{words.duration(record.get('seconds'))}"
    )
    query = {role: name}
    if base := next((label for label, each in shelf.bases.items() if each.name == entry.base_name), None):
        query["base"] = base
    st.page_link("pages/merge.py", label=f"Merge with {plain(name)}", icon=":material/merge:", query_params=query)


if following := st.session_state.pop("train:next", None):
    st.session_state["train.file"] = following
job = jobs.job(workspace, st.session_state["train.job"]) if st.session_state["train.job"] else None
watched = training.told(workspace, job.job_id) if job else None
columns = st.columns([6, 6], gap="large")
left, right = columns if watched is None else columns[::-1]  # on a telephone the first column is what one sees
with left:
    launch_form()
with right:
    if st.session_state["train.job"]:
        if job is None or watched is None:
            where = f"job={words.shortened(st.session_state['train.job'])} in the link"
            fix = "What was trained before is below; the jobs of this workspace are on the Sweep page."
            blocks.problems([Problem(where, "there is no such training in this workspace", fix)], warning=True)
        else:
            blocks.watch(job.job_id, key="train.watch")
            if job.state != "done":
                st.fragment(live_curve, run_every="2s" if job.active else None, key=f"train.live.{job.active}")()
    if job is not None and watched is not None and job.state == "done" and watched.name in trained:
        st.subheader(plain(watched.name), anchor=False)
        finished(watched.name)
    elif trained and not (job and job.active):
        if st.session_state["train.show"] not in trained:  # it was removed elsewhere
            st.session_state["train.show"] = list(trained)[-1]
        finished(st.selectbox("Trained before", list(trained), key="train.show", width=260))

NAMES = ("base", "file", "split", "held", "share", "name", "role", "suite", *form.fields(), "job")
state.write({name: st.session_state[f"train.{name}"] for name in (*NAMES, *(["show"] if trained else []))})
