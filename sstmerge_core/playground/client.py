"""The page's side of the model process: start it on demand, ask, listen. No torch."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

from sstmerge_core import access, documents
from sstmerge_core.errors import JobError, Problem
from sstmerge_core.jobs.backends.local import environment
from sstmerge_core.playground.protocol import Event, Question, Status, address, socket_file
from sstmerge_core.workspace import Workspace

START_SECONDS = 30.0
"""Until a new process must listen: it does so before it imports torch"""
_GONE = (FileNotFoundError, ConnectionRefusedError, NotADirectoryError)
ATTEMPTS = 5
"""Connections that may end before anything is heard: the socket of a killed process lives on for a moment"""


def status(workspace: Workspace) -> Status | None:
    """What the model process says of itself; None where none runs, or it does not reply at once."""
    return _about(workspace, "status")


def stop(workspace: Workspace) -> Status | None:
    """Ask the model process to end and free its memory; what it was when it was told. Answers in progress are lost."""
    access.require("end model")
    return _about(workspace, "quit")


def answer(workspace: Workspace, question: Question, *, tick: float = 0.25) -> Generator[Event | None, None, None]:
    """The events of `question` as they arrive (see `protocol`), None where nothing came for `tick` seconds.

    Starts the model process where none runs. Closing this iterator stops the answer. Raises JobError where the process
    cannot be started or ends in the middle of the answer.
    """
    access.require("talk")
    request = json.dumps(question.to_json()).encode() + b"\n"
    for _ in range(ATTEMPTS):
        with contextlib.closing(_connected(workspace)) as connection:
            connection.settimeout(tick)
            heard = False
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(request)
                for event in _lines(connection):
                    heard = heard or (event is not None and event["event"] != "waiting")
                    yield event
                    if event is not None and _is_last(event):
                        return
        if heard:
            break
        # one that was just going home, or that is still being killed, has heard nothing: ask the next one
        time.sleep(0.1)
    fault = "ended in the middle of the answer: it was killed, or the memory was not enough"
    raise JobError(Problem("model process", fault, "Start again; the conversation so far is kept."))


def _is_last(event: Event) -> bool:
    return event["event"] == "finished" or (event["event"] == "failed" and "column" not in event)


def _lines(connection: socket.socket) -> Iterator[Event | None]:
    """Whole lines until the other side closes; None at every timeout."""
    rest = b""
    while True:
        try:
            received = connection.recv(65_536)
        except TimeoutError:
            yield None
            continue
        if not received:
            return
        *lines, rest = (rest + received).split(b"\n")
        yield from (documents.from_json(line) for line in lines)


def _about(workspace: Workspace, what: str) -> Status | None:
    connection = _connect(workspace)
    if connection is None:
        return None
    with contextlib.closing(connection), contextlib.suppress(OSError, ValueError, TypeError):
        connection.settimeout(2.0)
        connection.sendall(json.dumps({"do": what}).encode() + b"\n")
        given: Any = next((line for line in _lines(connection)), None)
        return Status(**given) if given else None
    return None


def _connect(workspace: Workspace) -> socket.socket | None:
    """A connection, None where nobody listens; the socket that a killed process left refuses it."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with address(socket_file(workspace)) as path:
            connection.connect(path)
    except _GONE:
        connection.close()
        return None
    except OSError as error:
        connection.close()
        where = str(socket_file(workspace))
        raise JobError(Problem(where, f"cannot be reached: {error.strerror}", "Check whose file it is.")) from error
    return connection


def _connected(workspace: Workspace) -> socket.socket:
    """A connection to the model process, which is started where it does not run."""
    child: subprocess.Popen[bytes] | None = None
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if connection := _connect(workspace):
            return connection
        # one that ended with 0 left the place to another, which will listen in a moment or is just going home
        if child is None or child.poll() == 0:
            child = _start(workspace)
        elif child.poll():
            break
        time.sleep(0.05)
    fault = "could not be started" + (f": {last}" if (last := _last_line(workspace)) else "")
    raise JobError(Problem("model process", fault, f"Its log is {_log(workspace)}."))


def _start(workspace: Workspace) -> subprocess.Popen[bytes]:
    """The process, detached: it outlives this one until nobody has asked for a while."""
    workspace.create()
    socket_file(workspace).parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "sstmerge_core.playground.server", "--workspace", str(workspace.root)]
    with open(_log(workspace), "ab") as log:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=environment(os.environ.get("SSTMERGE_DEVICE", "")),
        )
    threading.Thread(target=child.wait, daemon=True, name="reap playground").start()
    return child


def _log(workspace: Workspace) -> Path:
    return workspace.logs / "playground.log"


def _last_line(workspace: Workspace) -> str:
    with contextlib.suppress(OSError):
        return _log(workspace).read_text(errors="replace").strip().rpartition("\n")[2][:200]
    return ""
