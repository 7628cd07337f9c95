"""The far side of a backend: a worker that has nothing but what it is brought, and tells in batches what came of it.

It keeps one session, so that the base model stays in memory from one trial to the next. No torch before the first one.
"""

from __future__ import annotations

import importlib
import os
import shutil
import tempfile
import threading
import traceback
from pathlib import Path
from typing import Any

from sstmerge_core.errors import Cancelled, SSTMergeError
from sstmerge_core.jobs.backends import Assignment, Batch
from sstmerge_core.recipe import Recipe
from sstmerge_core.store.events import FILE_NAME, decode, encode, read_lines
from sstmerge_core.workspace import Workspace, is_file


class Remote:
    """One worker. Its methods are called by the backend, one at a time; the work goes on in a thread."""

    def __init__(self, execute: str, root: str | None = None):
        name, _, self._function = execute.partition(":")
        self._module = importlib.import_module(name)
        self._root = Path(root or tempfile.mkdtemp(prefix="sstmerge-"))
        self._workspace = Workspace(self._root / "workspace").create()
        self._brought: dict[str, str] = {}
        """Where what is not here lies instead"""
        self._session: Any = None
        self._cancelled = threading.Event()
        self._thread: threading.Thread | None = None
        self._work: Assignment | None = None
        self._ended: tuple[str, str | None] | None = None
        self._progress: tuple[str, float, float] | None = None
        self._sent: list[Batch] = []
        self._number = self._offset = 0
        self._over = False

    def lacks(self, paths: list[str]) -> list[str]:
        return [path for path in paths if path not in self._brought and not self.sees(path)]

    def sees(self, path: str) -> bool:
        """Whether a file or folder is on the disk of this machine."""
        return os.path.exists(path)

    def bring(self, path: str, name: str, content: bytes) -> None:
        """A file for `path`, or for the file `name` in the folder `path`."""
        folder = self._root / "brought" / str(len(self._brought))
        place = Path(self._brought.setdefault(path, str(folder / Path(path).name)))
        target = place / name if name else place
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)

    def give(self, work: Assignment) -> None:
        """Begin an attempt. What is known of the run is where it goes on."""
        self._work, self._ended, self._progress, self._sent = work, None, None, []
        self._number, self._over = 0, False
        for run, content in work.known.items():
            folder = self._workspace.run(run)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / FILE_NAME).write_bytes(content)
        self._offset = len(work.known.get(work.run, b""))
        self._cancelled.clear()
        self._thread = threading.Thread(target=self._carry_out, args=(work,), daemon=True)
        self._thread.start()

    def take(self, after: int) -> list[Batch]:
        """Batches above number `after`; those up to it have arrived and are forgotten."""
        self._sent = [batch for batch in self._sent if batch.number > after]
        if self._work is not None and not self._over:
            self._look(self._work)
        return list(self._sent)

    def cancel(self) -> None:
        self._cancelled.set()

    def close(self) -> None:
        shutil.rmtree(self._root, ignore_errors=True)

    def _look(self, work: Assignment) -> None:
        """Make a batch of what is new."""
        ended = self._ended  # before the file is read: its last lines are there by now
        lines = self._new_lines(work)
        progress, self._progress = self._progress, None
        if not lines and progress is None and ended is None:
            return
        artifacts = {}
        if ended is not None and ended[0] == "done":
            folder = self._workspace.merged_adapter(work.run)
            files = sorted(folder.rglob("*")) if folder.is_dir() else []
            artifacts = {str(one.relative_to(folder)): one.read_bytes() for one in files if one.is_file()}
        self._number += 1
        self._over = ended is not None
        state, error = ended or (None, None)
        batch = Batch(work.run, work.attempt, self._number, lines, progress, state, error, artifacts)
        self._sent.append(batch)

    def _new_lines(self, work: Assignment) -> bytes:
        """Whole lines of the run's event file since the last look, with the recipe as it was given."""
        path = self._workspace.run(work.run) / FILE_NAME
        found = []
        if is_file(path):
            for start, line in read_lines(path, self._offset):
                self._offset = start + len(line)
                event = decode(line) if b'"run_started"' in line[:60] else None
                found.append(line if event is None else encode(event | {"recipe": work.recipe}))
        return b"".join(found)

    def _carry_out(self, work: Assignment) -> None:
        recipe = Recipe.model_validate(self._here(work.recipe))
        try:
            if self._session is None:
                self._session = self._module.opened([recipe], self._workspace)
            getattr(self._module, self._function)(
                [recipe],
                self._workspace,
                report=self._report,
                tell=lambda part: None,
                should_cancel=self._cancelled.is_set,
                user=work.user,
                job_id=work.job,
                session=self._session,
            )
        except Cancelled:
            self._ended = "cancelled", None
        except SSTMergeError as error:
            self._ended = "failed", "; ".join(str(problem) for problem in error.problems)
        except BaseException as error:
            traceback.print_exc()
            self._ended = "broken", " ".join(f"{type(error).__name__}: {error}".split())
        else:
            self._ended = "done", None

    def _report(self, point: int, stage: str, done: float, total: float) -> None:
        self._progress = stage, float(done), float(total)

    def _here(self, value: Any) -> Any:
        """A recipe's fields with the places that its inputs have on this machine."""
        if isinstance(value, dict):
            found = {name: self._here(each) for name, each in value.items()}
            if isinstance(path := value.get("path"), str) and path in self._brought:
                found["path"] = self._brought[path]
            return found
        return [self._here(each) for each in value] if isinstance(value, list) else value


def places(recipe: dict[str, Any]) -> list[str]:
    """Every file and folder that a recipe reads."""
    found: list[str] = []

    def look(value: Any) -> None:
        if isinstance(value, dict):
            if isinstance(value.get("path"), str) and "sha256" in value:
                found.append(value["path"])
            for each in value.values():
                look(each)
        elif isinstance(value, list):
            for each in value:
                look(each)

    look(recipe)
    return list(dict.fromkeys(found))
