"""Event files: the truth of a workspace. One JSON object a line, appended by one writer at a time.

A line ends with the CRC-32 of what is before it, so that a flipped bit is never taken for an answer or a figure; lines
of before 2026-12 have none and are believed.

Nothing here needs DuckDB, so a worker on a machine without it can record its run.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from sstmerge_core import documents
from sstmerge_core.errors import Problem, StoreError, lock_fault
from sstmerge_core.workspace import Workspace, is_file, touch_shelf

FILE_NAME = "events.jsonl"
SYNC_SECONDS = 2.0
"""At most this much finished work is lost when the machine (not only the process) dies."""
FINAL_EVENTS = frozenset({"run_finished", "run_failed", "run_cancelled"})
_SUM = b', "crc32": "'
_SUM_SIZE = len(_SUM) + len('00000000"}')


class EventWriter:
    """Appends events to `folder`/events.jsonl under an exclusive lock; a context manager.

    A last line without its newline (the previous writer was killed) is cut off when the file is opened.
    Raises StoreError when another process holds the file for longer than `wait` seconds, and on a disk that locks none.
    """

    def __init__(self, folder: Path, *, wait: float = 5.0):
        self.path = Path(folder) / FILE_NAME
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # without a buffer, which would try again to write what a full disk has refused; closed by close()
        self._file: IO[bytes] = open(self.path, "a+b", buffering=0)  # noqa: SIM115
        try:
            _lock(self._file, self.path, wait)
            _cut_torn_line(self._file)
        except BaseException:
            self._file.close()
            raise
        self._synced = time.monotonic()

    def write(self, event: str, **fields: Any) -> None:
        """Append one line, whole or not at all.

        A value that is not finite becomes null; numpy scalars, arrays and paths are converted.
        """
        self._append(encode({"event": event, "t": time.time(), **fields}))
        if event in FINAL_EVENTS or time.monotonic() - self._synced >= SYNC_SECONDS:
            self._sync()

    def write_lines(self, lines: bytes) -> None:
        """Append whole lines that another writer has made, all of them or none."""
        if lines:
            self._append(lines)
            self._sync()

    def _append(self, lines: bytes) -> None:
        left = memoryview(lines)
        start = self._file.seek(0, os.SEEK_END)
        try:
            while left:
                left = left[self._file.write(left) :]
        except BaseException:  # half a line on a full disk would spoil the next one too
            with contextlib.suppress(OSError):
                self._file.truncate(start)
            raise
        touch_shelf(self.path.parent)

    def close(self) -> None:
        """Flush to the disk and release the lock. Calling it twice is harmless."""
        if not self._file.closed:
            self._sync()
            self._file.close()

    def __enter__(self) -> EventWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()


def encode(event: dict[str, Any]) -> bytes:
    """One event as a line of UTF-8 JSON that ends in its checksum and a newline."""
    try:
        text = json.dumps(event, ensure_ascii=False, allow_nan=False, default=_plain)
    except ValueError:
        text = json.dumps(_finite(event), ensure_ascii=False, allow_nan=False)
    told = text.encode("utf-8", "replace")[:-1]
    return b'%b%b%08x"}\n' % (told, _SUM, zlib.crc32(told))


def decode(line: bytes) -> dict[str, Any] | None:
    """The event in a complete line; None where the line is no JSON object with a name and a time, or was damaged."""
    line = line.rstrip(b"\r\n")
    if line[-_SUM_SIZE:].startswith(_SUM):
        told = line[:-_SUM_SIZE]
        if line[-10:-2] != b"%08x" % zlib.crc32(told):
            return None
        line = told + b"}"
    try:
        event = documents.from_json(line, parse_constant=lambda _: None)
        if b"\\ud" in line.lower():  # half of a surrogate pair, which no UTF-8 and no database can hold
            event = json.loads(json.dumps(event, ensure_ascii=False).encode("utf-8", "replace"))
    except ValueError:
        return None
    if isinstance(event, dict) and isinstance(event.get("event"), str) and isinstance(event.get("t"), (int, float)):
        return event
    return None


def read_lines(path: Path, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """The complete lines of a file from byte `offset` on, each with the offset it starts at."""
    with open(path, "rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            yield offset, line
            offset += len(line)


def read_events(folder: Path) -> Iterator[dict[str, Any]]:
    """The events of a folder in order. A torn last line is skipped; a missing file has no events."""
    path = Path(folder) / FILE_NAME
    if not is_file(path):
        return
    for _, line in read_lines(path):
        event = decode(line)
        if event is not None:
            yield event


def run_folder(workspace: Workspace, run_id: str) -> Path:
    """The folder of a run. Raises StoreError where there is no such run, whatever else lies at that path."""
    folder = workspace.run(run_id)
    if not run_id or not workspace.is_run(folder) or not is_file(folder / FILE_NAME):
        fix = '`sstmerge query "SELECT run_id, label FROM leaderboard"` lists the runs.'
        raise StoreError(Problem(f"run {run_id}", "there is no such run in this workspace", fix))
    return folder


def last_status(folder: Path) -> str | None:
    """``running``, ``finished``, ``failed`` or ``cancelled`` by the run's last such event; None when never started."""
    names = {"run_started": "running", "run_finished": "finished", "run_failed": "failed", "run_cancelled": "cancelled"}
    status = None
    path = Path(folder) / FILE_NAME
    if is_file(path):
        for _, line in read_lines(path):
            # Sample lines are long and many: only lines that can be a status event are parsed.
            if b'"run_' in line[:40] and (event := decode(line)) is not None:
                status = names.get(event["event"], status)
    return status


def interrupted(folder: Path) -> bool:
    """Whether a run that says ``running`` cannot be: no process holds its event file, as its worker does to the end."""
    try:
        with open(Path(folder) / FILE_NAME, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:  # held, or gone, or on a disk that cannot tell
        return False
    return last_status(folder) == "running"


def _lock(file: IO[bytes], path: Path, wait: float) -> None:
    deadline = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                problem = Problem(str(path), "another process is writing it", "Wait for that job, or cancel it.")
                raise StoreError(problem) from None
            time.sleep(0.02)
        except OSError as error:
            raise StoreError(Problem(str(path), *lock_fault(error))) from error


def _cut_torn_line(file: IO[bytes]) -> None:
    end = file.seek(0, os.SEEK_END)
    position = end
    while position > 0:
        start = max(0, position - 65536)
        file.seek(start)
        newline = file.read(position - start).rfind(b"\n")
        if newline >= 0:
            position = start + newline + 1
            break
        position = start
    if position < end:
        file.truncate(position)
    file.seek(0, os.SEEK_END)


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"{type(value).__name__} cannot be written to an event file")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int, bool)):
        return value
    return _finite(_plain(value))
