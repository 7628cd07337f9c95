"""Runs that ship with the demo: the base model and the bundled adapters alone, measured by this program."""

from __future__ import annotations

import json
import shutil
from typing import Any

from sstmerge_core.demo.adapters import DATA
from sstmerge_core.store.events import last_status, read_events
from sstmerge_core.workspace import Workspace, new_folder, write_file

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


def ship(workspace: Workspace) -> int:
    """Copy every finished run of the bundled adapters into the demo's data, without this machine's paths.

    How the shipped ones were made; how many there are.
    """
    shutil.rmtree(RUNS, ignore_errors=True)
    count = 0
    for folder in sorted(workspace.runs.iterdir()):
        if last_status(folder) == "finished":
            lines = "".join(
                json.dumps(_without_paths(event), ensure_ascii=False) + "\n" for event in read_events(folder)
            )
            write_file(RUNS / folder.name / "events.jsonl", lines)
            count += 1
    return count


def _without_paths(value: Any) -> Any:
    """A recipe's sources keep their hashes; where they lay on the machine that measured says nothing elsewhere."""
    if isinstance(value, dict):
        sources = {"name", "path", "sha256"} == set(value)
        return {k: "" if sources and k == "path" else _without_paths(v) for k, v in value.items()}
    return [_without_paths(one) for one in value] if isinstance(value, list) else value
