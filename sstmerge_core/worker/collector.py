"""What arrives from far workers and the one process that writes it: each batch once, of the newest attempt alone."""

from __future__ import annotations

import contextlib
from pathlib import Path

from sstmerge_core.jobs.backends import Batch
from sstmerge_core.store.events import FILE_NAME, EventWriter, read_lines
from sstmerge_core.workspace import Workspace, is_file, new_folder


class Collector:
    """Writes batches into the event files of a workspace. A file is held from an attempt's start to its end."""

    def __init__(self, workspace: Workspace):
        self._workspace = workspace
        self._attempts: dict[str, int] = {}
        self._numbers: dict[str, int] = {}
        self._files: dict[str, EventWriter] = {}

    def begin(self, run: str, attempt: int) -> bytes:
        """Take in batches of this attempt from now on, and of none before; what had arrived of the run until now.

        Raises StoreError where another process writes the run.
        """
        self.end(run)
        self._files[run] = EventWriter(self._workspace.run(run))
        self._attempts[run], self._numbers[run] = attempt, 0
        return arrived(self._workspace, run)

    def add(self, batch: Batch) -> bool:
        """Write a batch; whether it was new. One that came before, of an older attempt, or out of turn is dropped."""
        run = batch.run
        if self._attempts.get(run) != batch.attempt or self._numbers[run] + 1 != batch.number:
            return False
        if batch.artifacts:
            self._write(self._workspace.merged_adapter(run), batch.artifacts)  # before the lines that say it is there
        self._files[run].write_lines(batch.lines)
        self._numbers[run] = batch.number
        return True

    def number(self, run: str) -> int:
        """Of the last batch of a run's attempt that has arrived."""
        return self._numbers.get(run, 0)

    def end(self, run: str) -> None:
        """Let go of a run's file; what still arrives of it is dropped."""
        self._attempts.pop(run, None)
        if (file := self._files.pop(run, None)) is not None:
            file.close()

    def close(self) -> None:
        for run in list(self._files):
            with contextlib.suppress(OSError):
                self.end(run)

    @staticmethod
    def _write(folder: Path, files: dict[str, bytes]) -> None:
        with new_folder(folder) as fresh:
            for name, content in files.items():
                target = (fresh / name).resolve()
                if not target.is_relative_to(fresh.resolve()):
                    continue  # no worker writes beside its own run
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)


def arrived(workspace: Workspace, run: str) -> bytes:
    """The whole lines of a run's event file; b'' where there is none."""
    path = workspace.run(run) / FILE_NAME
    return b"".join(line for _, line in read_lines(path)) if is_file(path) else b""
