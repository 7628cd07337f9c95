"""The merged adapter of a run: to take along, to talk to, and made again where only its figures are here."""

from __future__ import annotations

import streamlit as st

from sstmerge_core import adapters
from sstmerge_core.adapters.archive import WEIGHTS
from sstmerge_core.jobs.model import Job
from sstmerge_core.runs import push
from sstmerge_core.words import plain
from sstmerge_core.worker import adapter_job
from studio import blocks, entrance, start, visitor


def is_here(run_id: str) -> bool:
    return (start.workspace().merged_adapter(run_id) / WEIGHTS).is_file()


def download(run_id: str, label: str, *, key: str = "adapter") -> None:
    """The adapter as a zip that PEFT loads, built only when it is asked for; otherwise the button that makes it."""
    folder = start.workspace().merged_adapter(run_id)
    if is_here(run_id):
        st.download_button(
            "Adapter (zip)",
            data=lambda: adapters.zip_adapter(folder),
            file_name=f"adapter-{run_id}.zip",
            mime="application/zip",
            on_click="ignore",
            icon=":material/download:",
            key=f"{key}.{run_id}",
            help=f"{label}: a PEFT LoRA folder with its recipe in the model card.",
        )
        return
    job = _job(run_id)
    if st.button(
        "Making its adapter …" if job and job.active else "Make its adapter",
        icon=":material/build:",
        key=f"{key}.make.{run_id}",
        **entrance.guard(
            "launch",
            disabled=bool(job and job.active),
            help="To download it and to talk to it: only this run's figures and recipe are here. The same merge is "
            "made again, bit for bit with the same versions, and nothing is measured: seconds, and some minutes where "
            "it needs gradients.",
        ),
    ):
        with blocks.failures():
            asked = adapter_job.submit(start.workspace(), run_id, label=label, user=start.user())
            st.session_state[f"adapter:job.{run_id}"] = visitor.remember(asked)
            st.rerun()


def to_the_hub(run_id: str, label: str) -> None:
    """A repository's name, what would be sent there, and the button that sends it; nothing without the adapter."""
    if not is_here(run_id):
        return
    with st.popover("Push to the hub", icon=":material/cloud_upload:"):
        st.caption("Adapter, recipe and model card, in the name of the token that this server has.")
        repository = st.text_input("Repository", key=f"push.name.{run_id}", placeholder="owner/name").strip()
        public = st.checkbox("Public", key=f"push.public.{run_id}", help="Otherwise private.")
        update = st.checkbox("Add a commit where it is there already", key=f"push.update.{run_id}")
        planned = None
        if repository:
            with blocks.failures():
                message = f"{label} ({run_id}), by SST-Merge Studio"
                planned = push.plan(
                    start.workspace(), run_id, repository, public=public, update=update, message=message
                )
                st.code("\n".join(planned.lines), language=None)
        if st.button(
            "Push",
            icon=":material/cloud_upload:",
            key=f"push.now.{run_id}",
            type="primary",
            **entrance.guard("push", disabled=planned is None),
        ):
            with blocks.failures(), st.spinner("Sending …"):
                assert planned is not None
                st.session_state[f"push:done.{run_id}"] = push.push(start.workspace(), planned)
        if url := st.session_state.get(f"push:done.{run_id}"):
            st.markdown(f":material/check: [{plain(url)}]({url})")


def progress(run_id: str) -> None:
    """The job that makes the adapter, while it works or where it failed."""
    job = _job(run_id)
    if job is not None and not is_here(run_id) and (job.active or job.state in ("failed", "lost")):
        blocks.watch(job.job_id, key=f"adapter.watch.{run_id}")


def talk(run_id: str) -> None:
    """The way to the Playground, with the run beside the base model; nothing where its adapter is not here."""
    if is_here(run_id):
        st.page_link(
            "pages/playground.py",
            label="Talk to it",
            icon=":material/forum:",
            query_params={"column": ["base", f"run:{run_id}"]},
        )


def _job(run_id: str) -> Job | None:
    """The newest job of this run's adapter that this session asked for, or that works now."""
    job = adapter_job.last(start.workspace(), run_id)
    asked = st.session_state.get(f"adapter:job.{run_id}")
    return job if job is not None and (job.active or job.job_id == asked) else None
