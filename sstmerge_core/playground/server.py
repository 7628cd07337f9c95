"""The model process: ``python -m sstmerge_core.playground.server --workspace W``. One per workspace.

It listens before it imports torch, answers until nobody has asked for a while, and takes its socket with it. Several
questions at once go forward token by token in turn.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import queue
import select
import signal
import socketserver
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from sstmerge_core import documents
from sstmerge_core.errors import SSTMergeError
from sstmerge_core.jobs import default_device, dispatch, leases
from sstmerge_core.playground.protocol import Event, Question, Status, address, failure, send, socket_file
from sstmerge_core.workspace import Workspace

IDLE_SECONDS = 600.0
AT_ONCE = 4
"""Questions answered in turn; further ones wait for one of them to end"""
LOOK_SECONDS = 0.5
"""Between looks whether a client that is sent nothing is still there"""


class Model(Protocol):
    @property
    def base(self) -> str: ...

    @property
    def adapters(self) -> list[str]: ...

    def answers(self, question: Question) -> Iterator[list[Event]]: ...


@dataclass(eq=False)
class Request:
    """A question and the way back to who asked it."""

    question: Question
    events: queue.Queue[Event] = field(default_factory=queue.Queue)
    abandoned: threading.Event = field(default_factory=threading.Event)
    steps: Iterator[list[Event]] | None = None

    @property
    def needs(self) -> tuple[str, str]:
        """What has to be in memory: a base and its number format."""
        return self.question.base, self.question.dtype


class Scheduler:
    """Who is answered when: up to `AT_ONCE` questions of one base in turn, the others in the order of asking."""

    def __init__(self, model: Model, idle_seconds: float):
        self.model = model
        self.idle_seconds = idle_seconds
        self._asked: queue.SimpleQueue[Request | None] = queue.SimpleQueue()  # a signal's handler may put into it
        self._waiting: deque[Request] = deque()
        self._active: deque[Request] = deque()
        self._quit = False

    def submit(self, question: Question) -> Request:
        request = Request(question)
        request.events.put({"event": "waiting", "ahead": self.busy})
        self._asked.put(request)
        return request

    def quit(self) -> None:
        self._quit = True
        self._asked.put(None)

    @property
    def busy(self) -> int:
        return len(self._active) + len(self._waiting) + self._asked.qsize()

    def run(self) -> None:
        """Answer until there has been nothing to do for `idle_seconds`, or `quit`."""
        while self._take():
            self._admit()
            for _ in range(len(self._active)):
                self._advance(self._active.popleft())

    def _take(self) -> bool:
        """Receive what was asked meanwhile, and wait for it where there is nothing else to do; False: go home."""
        until = time.monotonic() + self.idle_seconds
        while not self._quit:
            idle = not self._active and not self._waiting
            left = until - time.monotonic()
            if idle and left <= 0:
                break
            try:
                # in slices: a signal that another thread receives does not wake this one
                request = self._asked.get(block=idle, timeout=min(left, LOOK_SECONDS) if idle else None)
            except queue.Empty:
                if idle:
                    continue
                break
            if request is not None:
                self._waiting.append(request)
        return not self._quit and bool(self._active or self._waiting)

    def _admit(self) -> None:
        while self._waiting and len(self._active) < AT_ONCE:
            if self._active and self._active[0].needs != self._waiting[0].needs:
                return
            request = self._waiting.popleft()
            if request.abandoned.is_set():
                continue
            request.steps = self.model.answers(request.question)
            self._active.append(request)
            for ahead, other in enumerate(self._waiting, start=len(self._active)):
                other.events.put({"event": "waiting", "ahead": ahead})

    def _advance(self, request: Request) -> None:
        """One step of one question; it goes to the end of the line, or is over."""
        assert request.steps is not None
        if request.abandoned.is_set():
            return
        try:
            events = next(request.steps)
        except StopIteration:
            request.events.put({"event": "finished"})
            return
        except Exception as error:  # whatever befalls one question, the process goes on
            if not isinstance(error, SSTMergeError):
                print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            request.events.put(failure(error))
            return
        for event in events:
            request.events.put(event)
        self._active.append(request)


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

    def __init__(self, path: str, scheduler: Scheduler):
        self.scheduler = scheduler
        super().__init__(path, _Connection)


class _Connection(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        """One request; a client that goes away is told by the failing write."""
        scheduler = self.server.scheduler
        with contextlib.suppress(OSError):
            try:
                asked = documents.from_json(self.rfile.readline() or b"{}")
                if asked.get("do") != "answer":
                    self._about(asked.get("do"), scheduler)
                    return
                question = Question.from_json(asked)
            except (ValueError, AttributeError, SSTMergeError) as error:
                send(self.wfile, failure(error))
                return
            request = scheduler.submit(question)
            try:
                while True:
                    try:
                        event = request.events.get(timeout=LOOK_SECONDS)
                    except queue.Empty:
                        if self._left():
                            return
                        continue
                    send(self.wfile, event)
                    if event["event"] == "finished" or (event["event"] == "failed" and "column" not in event):
                        return
            finally:
                request.abandoned.set()

    def _left(self) -> bool:
        """Whether the client closed the connection; it sends nothing after its request."""
        readable, _, _ = select.select([self.connection], [], [], 0)
        return bool(readable) and not self.connection.recv(1)

    def _about(self, what: Any, scheduler: Scheduler) -> None:
        send(self.wfile, asdict(status(scheduler)))
        if what == "quit":
            scheduler.quit()


def status(scheduler: Scheduler) -> Status:
    model = scheduler.model
    return Status(
        os.getpid(), model.base, _resident_bytes(), scheduler.idle_seconds, scheduler.busy, list(model.adapters)
    )


def serve(workspace: Workspace, model: Model, idle_seconds: float) -> bool:
    """Answer on the workspace's socket until it is time to go; False where another process already does."""
    place = socket_file(workspace)
    place.parent.mkdir(parents=True, exist_ok=True)
    scheduler = Scheduler(model, idle_seconds)
    with _alone(place.parent) as first:
        if not first:
            return False
        place.unlink(missing_ok=True)  # left by a process that was killed
        before = os.umask(0o177)  # nobody but this user may connect
        try:
            with address(place) as path:
                server = _Server(path, scheduler)
        finally:
            os.umask(before)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, lambda *_: scheduler.quit())
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
        try:
            scheduler.run()
        finally:
            place.unlink(missing_ok=True)
            server.shutdown()
            server.server_close()
    return True


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Hold the workspace's Playground, if nobody does; the kernel lets go of it however this process dies."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            first = True
        except BlockingIOError:
            first = False
        except (
            OSError
        ):  # some network disks lock no folders: a second process takes the socket, the first goes when idle
            first = True
        yield first
    finally:
        os.close(descriptor)


def _resident_bytes() -> int:
    import psutil

    return int(psutil.Process().memory_info().rss)


class _LateModel:
    """`ChatModel`, made with the first question: torch takes seconds to import, and clients are waiting by then."""

    def __init__(self, workspace: Workspace):
        self._workspace = workspace
        self._model: Any = None

    @property
    def base(self) -> str:
        return self._model.base if self._model else ""

    @property
    def adapters(self) -> list[str]:
        return self._model.adapters if self._model else []

    def answers(self, question: Question) -> Iterator[list[Event]]:
        if self._model is None:
            yield [{"event": "loading", "what": Path(question.base).name}]
            from sstmerge_core.playground.model import ChatModel

            device = os.environ.get("SSTMERGE_DEVICE") or default_device()
            while (by := leases.take(self._workspace, device, "Playground")) is not None:
                yield [{"event": "loading", "what": f"once {device} is free: {by} has it"}]
                time.sleep(LOOK_SECONDS)
                dispatch.reconcile(self._workspace)
            self._model = ChatModel(self._workspace, device)
        yield from self._model.answers(question)


def main() -> int:
    from sstmerge_core.models.device import share_the_machine

    parser = argparse.ArgumentParser()
    parser.add_argument("--workspace", type=Path, required=True)
    workspace = Workspace(parser.parse_args().workspace)
    share_the_machine()
    begun = time.monotonic()
    served = serve(workspace, _LateModel(workspace), idle_seconds())
    if workspace.queue.exists():
        leases.give_back(workspace, os.environ.get("SSTMERGE_DEVICE") or default_device())
        dispatch.settle(workspace)  # what waited for the device
    print(f"{'ended' if served else 'another one is there'} after {time.monotonic() - begun:.0f} s", flush=True)
    return 0


def idle_seconds() -> float:
    """``SSTMERGE_PLAYGROUND_IDLE`` in seconds, else `IDLE_SECONDS`."""
    try:
        return max(0.1, float(os.environ.get("SSTMERGE_PLAYGROUND_IDLE") or IDLE_SECONDS))
    except ValueError:
        return IDLE_SECONDS


if __name__ == "__main__":
    sys.exit(main())
