"""Runs that ship with the demo: the base model and the bundled adapters alone, measured by this program."""

from __future__ import annotations

import shutil
from pathlib import Path

from sstmerge_core.demo.adapters import DATA
from sstmerge_core.workspace import Workspace, new_folder

RUNS = DATA / "runs"


def install(workspace: Workspace) -> int:
    """Copy the shipped event files into the workspace where they are not there yet; how many were new."""
    count = 0
    for source in sorted(RUNS.glob("*/events.jsonl")):
        target = workspace.run(source.parent.name)
        if not target.exists():
            with new_folder(target) as temporary:
                shutil.copyfile(source, temporary / source.name)
            count += 1
    return count


def ship(workspace: Workspace, run_id: str) -> Path:
    """Copy a run's event file from the workspace into the demo's data: how the shipped ones were made."""
    target = RUNS / run_id
    with new_folder(target) as temporary:
        shutil.copyfile(workspace.run(run_id) / "events.jsonl", temporary / "events.jsonl")
    return target
