"""What page and model process say to each other: one JSON object a line over a Unix socket in the workspace.

A connection carries one request. ``{"do": "status"}`` and ``{"do": "quit"}`` get one line back. ``{"do": "answer"}``
with the fields of `Question` gets a stream of events:

- ``waiting`` (`ahead`: requests before this one), ``loading`` (`what`), ``started``
- ``text`` (`column`, `text`: the whole answer so far, which is safe where a character spans tokens)
- ``done`` (`column`, `text`, `tokens`, `seconds`, `ended`) and ``failed`` (`column`, `problems`) for one column
- ``finished``, or ``failed`` without a column, as the last line

Closing the connection stops the answer.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from io import BufferedIOBase
from pathlib import Path
from typing import Any

from sstmerge_core.errors import JobError, Problem, SSTMergeError
from sstmerge_core.workspace import Workspace

Event = dict[str, Any]
LONGEST_ADDRESS = 100
"""Bytes of a socket's path; Linux takes 107, macOS 103"""
OPEN_FOLDERS = Path("/proc/self/fd")
"""Where Linux shows the folders that this process has open"""


@dataclass(frozen=True)
class Asked:
    """One column of a question."""

    adapters: list[tuple[str, str, float]]
    """(name, PEFT folder, weight)"""
    messages: list[dict[str, str]]
    """The conversation so far, a user's message last"""


@dataclass(frozen=True)
class Question:
    """What the model process is asked to answer."""

    base: str
    """Folder of the base model"""
    columns: list[Asked]
    max_new_tokens: int = 128
    temperature: float = 0.0
    seed: int = 0
    dtype: str = "float32"

    def to_json(self) -> dict[str, Any]:
        return {"do": "answer"} | asdict(self)

    @classmethod
    def from_json(cls, given: dict[str, Any]) -> Question:
        """Raises JobError for what is no question."""
        try:
            fields = {name: value for name, value in given.items() if name != "do"}
            columns = [Asked(**column) for column in fields.pop("columns")]
            return cls(columns=columns, **fields)
        except (KeyError, TypeError, AttributeError) as error:
            fix = "Stop the model process: it is of another version."
            raise JobError(Problem("model process", f"does not understand the request: {error}", fix)) from error


@dataclass(frozen=True)
class Status:
    """What the model process says of itself."""

    pid: int
    base: str
    """Name of the base in memory; empty before the first question"""
    memory_bytes: int
    idle_seconds: float
    """After which it ends by itself"""
    busy: int
    """Questions being answered or waiting"""
    adapters: list[str] = field(default_factory=list)
    """Names of the adapters in memory"""


def socket_file(workspace: Workspace) -> Path:
    return workspace.playground / "model.sock"


@contextlib.contextmanager
def address(path: Path) -> Iterator[str]:
    """What to give to bind and connect: the path, or where it is too long for the kernel one through its folder."""
    if len(os.fsencode(path)) <= LONGEST_ADDRESS:
        yield str(path)
        return
    if not OPEN_FOLDERS.exists():  # macOS
        with tempfile.TemporaryDirectory(prefix="sst") as short:
            link = Path(short) / "w"
            link.symlink_to(path.parent.absolute(), target_is_directory=True)
            yield str(link / path.name)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"{OPEN_FOLDERS}/{folder}/{path.name}"
    finally:
        os.close(folder)


def send(stream: BufferedIOBase, message: dict[str, Any]) -> None:
    """Write one line. Raises OSError where the other side is gone."""
    stream.write(json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
    stream.flush()


def failure(error: Exception, column: int | None = None) -> Event:
    """A ``failed`` event."""
    problems = error.problems if isinstance(error, SSTMergeError) else [_unexpected(error)]
    event: Event = {"event": "failed", "problems": [vars(problem) for problem in problems]}
    return event if column is None else event | {"column": column}


def _unexpected(error: Exception) -> Problem:
    if type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error):
        return Problem("model process", "the memory is not enough", "Ask fewer columns, or for fewer tokens.")
    first = str(error).strip().split("\n")[0]
    return Problem("model process", f"{type(error).__name__}: {first}", "Its log is logs/playground.log.")
