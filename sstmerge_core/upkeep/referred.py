"""What a workspace refers to by its content: what its recipes name, what is registered, what waits in its queue."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from sstmerge_core import catalog
from sstmerge_core.jobs.database import opened
from sstmerge_core.store import trash
from sstmerge_core.store.events import FILE_NAME
from sstmerge_core.workspace import Workspace, is_file

_HASH = re.compile(rb'"([0-9a-f]{64})"')


def referred(workspace: Workspace) -> set[str]:
    """Fingerprints of adapters and base models, and the ids of the runs here, of which deleted ones can come back.

    Every SHA-256 that a run's events name counts, whatever it is of: one too many keeps something for nothing, one too
    few would lose it. Files of recipes that lie elsewhere are not known here.
    """
    found = {one.sha256 for one in catalog.entries(workspace)} | {one.sha256 for one in catalog.bases(workspace)}
    found |= {entry.run_id for entry in trash.entries(workspace)}
    for folder in [*workspace.run_folders(), *(entry.path for entry in trash.entries(workspace))]:
        found.add(folder.name)
        found |= set(_hashes(folder / FILE_NAME))
    if workspace.queue.exists():
        with opened(workspace.queue) as db:
            for row in db.execute("SELECT spec FROM jobs"):
                found |= {match.decode() for match in _HASH.findall(row["spec"].encode())}
    return found


def _hashes(path: Path) -> Iterator[str]:
    with contextlib.suppress(FileNotFoundError):
        if is_file(path):
            with path.open("rb") as file:
                for line in file:
                    yield from (match.decode() for match in _HASH.findall(line))
