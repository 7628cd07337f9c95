"""Fetching a base model from the hub as a job of the queue: it goes on when the page is left, and resumes. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sstmerge_core import words
from sstmerge_core.catalog import base_intake, hub
from sstmerge_core.errors import JobError, Problem
from sstmerge_core.jobs import enqueue
from sstmerge_core.jobs.model import NETWORK
from sstmerge_core.workspace import Workspace

KIND = "base"


def submit(workspace: Workspace, repository: str, revision: str = "", *, user: str = "") -> str:
    """Queue the download of a model of the hub; returns the job's id. Raises JobError for what is no repository's id.

    Downloads wait for one another and for nothing else.
    """
    name = hub.repository_id(repository)
    if name.count("/") != 1 or not all(name.split("/")):
        fix = "Write owner/name, as at the top of its page on the hub."
        raise JobError(Problem(f"repository {words.shortened(repository)}", "is no repository's id", fix))
    revision = revision.strip()
    called = f"Base model {name}" + (f"@{revision}" if revision else "")
    spec = {"download": {"repository": name, "revision": revision}}
    return enqueue(workspace, KIND, called, spec, device=NETWORK, user=user)


def run(
    workspace: Workspace,
    spec: Mapping[str, str],
    *,
    report: Callable[[int, str, float, float], None],
    should_cancel: Callable[[], bool],
) -> None:
    """Do it, in the worker; units are mebibytes. Raises what `base_intake.download` raises."""

    def progress(done: int, total: int) -> None:
        report(0, KIND, done / 2**20, max(1.0, total / 2**20))

    base = base_intake.download(workspace, spec["repository"], spec["revision"], progress, should_cancel)
    print(f"{base.name} in {base.path}", flush=True)
