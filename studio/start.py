"""One-time start-up of the server: the workspace, and the one owner of its database."""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import UTC, datetime
from typing import Any, Concatenate, ParamSpec, TypeVar

import pandas as pd
import streamlit as st
from streamlit.runtime import Runtime

from sstmerge_core import access
from sstmerge_core.errors import StoreError, disk_problem
from sstmerge_core.store import DamagedError, HeldError, Owner, Snapshot, connect, file_errors
from sstmerge_core.workspace import Workspace
from studio import memory

PUBLISH_EVERY = 5.0
"""Seconds between snapshots while results come in: the command line reads them while this server runs."""
PUBLISH_SHARE = 4.0
"""A snapshot that takes long waits this many times as long for the next, and nobody waits for it"""
AT_ONCE = 1.0
"""Seconds that a snapshot may take for a page to wait for a new one"""
QUIET, PATIENCE = 1.0, 30.0
"""A longer snapshot takes both cores from the pages: it waits until none was drawn for so many seconds, or at most"""
LOOK_EVERY = 2.0
"""Seconds between two looks through the event files, where that takes long and no page waits for it"""
LOOK_SHARE = 4.0
"""Such a look is done again after this many times as long at the earliest"""
NOTICED = 0.1
"""Seconds of looking that count as long: some 20,000 runs"""
RETRY_EVERY = 5.0
"""Seconds between attempts to take a database that another process holds."""
REMEMBERED = 200
"""Answers of queries kept at most, of each kind."""
LENT = 10
"""Times that pages get the same frame before it is copied anew"""

NEW_MODULES = 20
"""Modules that are worth it to `settle`"""
_settled = 0

P = ParamSpec("P")
R = TypeVar("R")

_OF_FINISHED = """
    SELECT count(*), bit_xor(hash(path, "offset")) FROM ingested
    WHERE regexp_extract(path, '([^/]+)/[^/]+$', 1) NOT IN (SELECT run_id FROM runs WHERE status = 'running')
"""
"""Equal as long as nothing was read but events of runs that are at work"""


class Answers:
    """What was computed, each once: who asks while another visitor's page computes the same waits for that."""

    def __init__(self) -> None:
        self._known: dict[Any, Any] = {}
        self._making: dict[Any, threading.Lock] = {}
        self._lent: Counter[Any] = Counter()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._known)

    def of(self, key: Any, make: Callable[[], R]) -> R:
        """The answer to `key`, which says all that `make` depends on."""
        if key in self._known:
            return self._known[key]
        with self._lock:
            making = self._making.setdefault(key, threading.Lock())
        with making:
            if key not in self._known:
                self._known[key] = make()
        with self._lock:
            self._making.pop(key, None)
        return self._known[key]

    def lend(self, key: Any, frame: pd.DataFrame) -> pd.DataFrame:
        """The answer to `key` for a page, which may change what it gets: pandas copies on write.

        Beside every block pandas notes who shares it, and looks for those that are gone only after 500 notes: over
        hundreds of frames that is tens of megabytes, so that a frame which was lent often is replaced by a copy.
        """
        with self._lock:
            self._lent[key] += 1
            if self._lent[key] % LENT == 0:
                frame = frame.copy()
                frame.index, frame.columns = frame.index.copy(deep=True), frame.columns.copy(deep=True)
                self._known[key] = frame
        return frame.copy(deep=False)


class Store:
    """The database as the pages see it: owned, or a snapshot of it while another process owns it.

    Pages call `query`; ingesting is cheap where nothing changed, so each page does it on its way. What is asked of
    `finished` is remembered while runs at work write their answers.
    """

    def __init__(self, workspace: Workspace):
        self.workspace = workspace
        self.finished = Finished(self)
        self.held: StoreError | None = None
        """Why the database itself cannot be had, or took in nothing new; None when all is well."""
        self._connection: Owner | Snapshot | None = None
        self._known = Answers()
        self._lock = threading.Lock()
        self._tried = 0.0
        self.asked = 0.0
        """When a page last wanted something"""
        self._closed = threading.Event()
        self._open()
        self._trimmer = memory.Trimmer()
        threading.Thread(target=self._publish_now_and_then, name="publish", daemon=True).start()
        threading.Thread(target=self._look_now_and_then, name="look", daemon=True).start()

    @property
    def read_only(self) -> bool:
        return not isinstance(self._connection, Owner)

    @property
    def looking_seconds(self) -> float:
        """How long it takes to look through the event files."""
        return self._connection.looking_seconds if self._connection else 0.0

    def query(self, function: Callable[Concatenate[Any, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """`function(cursor, …)` on a cursor of its own, remembered until something new is ingested.

        Raises StoreError where there is nothing to read yet.
        """
        return self._ask(self._known, function, *args, **kwargs)

    def recall(self, key: Any, make: Callable[[], R]) -> R:
        """What `make` gave for `key` since something new was last ingested; `key` says all that `make` depends on."""
        return self._known.of(key, make)

    def _ask(self, known: Answers, function: Callable[Concatenate[Any, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        connection = self._connection
        if connection is None:
            raise self.held or StoreError([])

        def ask() -> R:
            cursor = connection.cursor()
            try:
                with file_errors(self.workspace.database):
                    return function(cursor, *args, **kwargs)
            finally:
                cursor.close()

        key = (function.__qualname__, repr(args), repr(sorted(kwargs.items())))
        answer = known.of(key, ask)
        return known.lend(key, answer) if isinstance(answer, pd.DataFrame) else answer

    def refresh(self, *, now: bool = False) -> None:
        """Take in what the workers have written; try again to own a database that was held.

        Where there are so many event files that looking through them takes long, a thread does it every few seconds
        and no page waits for it, but with `now`.
        """
        if not now and self.looking_seconds > NOTICED:
            return
        with self._lock:
            if self.read_only and time.monotonic() - self._tried > RETRY_EVERY:
                self._open()
            if self._connection is None:
                return
            try:
                new = self._connection.ingest()
            except DamagedError as error:
                self._connection.close()
                self._connection, self.held, new = None, error, 1
            except StoreError as error:  # a full disk: what is known can still be seen
                self.held, new = error, 0
            else:
                self.held = None if isinstance(self._connection, Owner) else self.held
            if new or len(self._known) > REMEMBERED:
                self._known = Answers()
            self.finished.renew(self._connection if new else None)

    def publish(self, *, patient: bool = True) -> None:
        """Make everything that is known readable for the SQL page and for other processes.

        Not `patient`: where that takes long, what was published last has to do, and a new one is on its way.
        """
        self.refresh(now=patient)
        if self._connection is not None and (patient or self._connection.publishing_seconds < AT_ONCE):
            self._connection.publish()

    def close(self) -> None:
        self._closed.set()
        if self._connection is not None:
            self._connection.close()

    def _open(self) -> None:
        self._tried = time.monotonic()
        self._known = Answers()
        # a connection that is replaced closes when the last page that uses it is done
        try:
            self._connection, self.held = connect(self.workspace), None
            if isinstance(self._connection, Snapshot) and self._connection.held:
                self.held = HeldError(self._connection.held)
        except StoreError as error:
            self._connection, self.held = None, error
        except OSError as error:
            if (problem := disk_problem(error, str(self.workspace.root))) is None:
                raise
            self._connection, self.held = None, StoreError(problem)
        self.finished.renew(self._connection)

    def _look_now_and_then(self) -> None:
        while not self._closed.wait(max(LOOK_EVERY, LOOK_SHARE * self.looking_seconds)):
            if self.looking_seconds > NOTICED:
                with suppress(Exception):  # a closed database must not end the thread; the pages show their own error
                    self.refresh(now=True)

    def _wait_for_quiet(self) -> None:
        until = time.monotonic() + PATIENCE
        long = self._connection is not None and self._connection.publishing_seconds > AT_ONCE
        while long and time.monotonic() < min(until, self.asked + QUIET) and not self._closed.wait(QUIET / 5):
            pass

    def _publish_now_and_then(self) -> None:
        pause = PUBLISH_EVERY
        while not self._closed.wait(pause):
            try:
                self._wait_for_quiet()
                self.publish()
                seconds = self._connection.publishing_seconds if self._connection else 0.0
                pause = max(PUBLISH_EVERY, PUBLISH_SHARE * seconds)
                self._trimmer.look(self.asked)
            except (
                Exception
            ):  # a full disk or a closed database must not end the thread; the pages show their own error
                continue


class Finished:
    """Answers that no run at work changes: they are remembered until a run ends, or anything else is ingested.

    For functions that read ended runs alone. While workers write answers every second, a page that ranks and tests
    ended runs has nothing to compute anew.
    """

    def __init__(self, store: Store):
        self._store = store
        self._known = Answers()
        self._stamp: Any = None

    def query(self, function: Callable[Concatenate[Any, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        return self._store._ask(self._known, function, *args, **kwargs)

    def recall(self, key: Any, make: Callable[[], R]) -> R:
        return self._known.of(key, make)

    def renew(self, connection: Owner | Snapshot | None) -> None:
        """Forget where `connection` tells something new of more than runs at work; None: nothing is new."""
        if connection is None and len(self._known) <= REMEMBERED:
            return
        stamp = self._stamp
        if connection is not None:
            with closing(connection.cursor()) as cursor:
                stamp = cursor.execute(_OF_FINISHED).fetchone()
        if stamp != self._stamp or len(self._known) > REMEMBERED:
            self._known, self._stamp = Answers(), stamp


@st.cache_resource(show_spinner=False, on_release=Store.close)
def _store(root: str) -> Store:
    return Store(Workspace.default())


def workspace() -> Workspace:
    return Workspace.default()


def store() -> Store:
    """The server's store with everything ingested that is on disk. Raises AccessError for who may not look."""
    access.require("look")
    opened = _store(str(Workspace.default().root))
    opened.asked = time.monotonic()
    opened.refresh()
    return opened


def take_in() -> None:
    """Have the store read what this page has just written, so that it is on the page that is drawn next."""
    _store(str(Workspace.default().root)).refresh(now=True)


def query(function: Callable[Concatenate[Any, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
    """`function(cursor, …)` of `sstmerge_core.store.queries` on the up-to-date store."""
    return store().query(function, *args, **kwargs)


def settle() -> None:
    """Leave what the libraries made out of the garbage collection that Streamlit does after every run of a page.

    Looking at their 200,000 objects each time took 0.13 s: for a page a third of its time, and four times a second
    while the Playground answers. What is here now is never looked at again, so this is done only where many modules
    have come since the last time.
    """
    global _settled
    if len(sys.modules) > _settled + NEW_MODULES:
        before, _settled = _settled, len(sys.modules)
        gc.collect()
        gc.freeze()
        if not before:
            memory.bound_arenas()
            # a test of a page, whose runtime is a stand-in, has a process that is not ours to end
            serves = Runtime.exists() and type(Runtime.instance()) is Runtime
            atexit.register(_end if serves else gc.unfreeze)


def _end() -> None:
    """End the server once everything that is registered has run, and leave its memory to the system.

    Python would take its objects apart one by one, and DuckDB's bindings print a line into the log for each of theirs
    that something still holds: the frozen ones, and connections of threads. What goes wrong before a page was ever
    drawn never comes here, so the exit status is 0.
    """
    atexit.unregister(_end)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # closed, or nobody reads it any more
            stream.flush()
    os._exit(0)


def base_url() -> str:
    """Where colleagues reach this server: ``BASE_URL``, else the address in this browser, without a trailing slash."""
    if configured := os.environ.get("BASE_URL", "").strip():
        return configured.rstrip("/")
    address = st.context.url or "http://localhost:8501"
    scheme, _, rest = address.partition("://")
    path = str(st.get_option("server.baseUrlPath") or "").strip("/")
    return "/".join(filter(None, [f"{scheme}://{rest.split('/')[0]}", path]))


def signed_in() -> bool:
    return bool(st.user.get("is_logged_in"))


def user() -> str:
    """The signed-in user's e-mail address or name; where nobody signs in, the name given here, else empty."""
    if not signed_in():
        return str(st.session_state.get("visitor:name", ""))
    return str(st.user.get("email") or st.user.get("name") or "")


def epoch(moment: Any) -> float | None:
    """A UTC timestamp of the database as epoch seconds; None for NaT."""
    if moment is None or moment != moment:
        return None
    stamp: datetime = moment.to_pydatetime() if hasattr(moment, "to_pydatetime") else moment
    return stamp.replace(tzinfo=UTC).timestamp()
