"""A LoRA that stands for an adapter of another kind, made and registered as a job of the queue. No torch at the top."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sstmerge_core import access, words
from sstmerge_core.catalog import Base, check_name, intake
from sstmerge_core.errors import Cancelled, Problem, RecipeError
from sstmerge_core.jobs import default_device, enqueue
from sstmerge_core.workspace import Workspace

KIND = "convert"


def submit(workspace: Workspace, path: str, base: Base, name: str = "", *, rank: int = 0, user: str = "") -> str:
    """Queue the conversion of the adapter in `path` on a base; returns the job's id. `rank` 0: the smallest exact one.

    Raises AdapterError for a name that is taken, AccessError for a folder that the visitor may not name, RecipeError
    for a rank below 0.
    """
    access.require("add")
    if rank < 0:
        raise RecipeError(Problem("rank", f"is {rank}", "Give 0 for the smallest exact rank, or a rank."))
    source = access.place(path)
    called = name.strip() or f"{Path(source).name}-lora"
    check_name(workspace, called)
    spec = {"convert": {"source": str(source), "base": str(base.path), "name": called, "rank": rank}}
    title = f"LoRA of {words.shortened(Path(source).name)} on {base.name}"
    return enqueue(workspace, KIND, title, spec, device=default_device(), user=user)


def run(
    workspace: Workspace,
    spec: Mapping[str, Any],
    *,
    report: Callable[[int, str, float, float], None],
    should_cancel: Callable[[], bool],
) -> None:
    """Do it, in the worker. Raises what `intake.converted` raises, and Cancelled where it was stopped before."""
    report(0, KIND, 0, 1)
    if should_cancel():
        raise Cancelled("conversion")
    info = intake.AdapterInfo(spec["name"])
    entry, made = intake.converted(workspace, spec["source"], Path(spec["base"]), info, rank=spec["rank"])
    error = f"relative error {made.rank_error:.1e}" if made.rank_error else "the same numbers"
    print(f"{entry.name}: of {made.was}, rank {entry.rank}, {error}, in {entry.path}", flush=True)
    report(0, KIND, 1, 1)
