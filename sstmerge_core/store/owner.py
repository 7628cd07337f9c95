"""The one process that holds the DuckDB file: it ingests event files and publishes snapshots."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import re
import struct
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sstmerge_core.errors import Problem, StoreError, disk_fault, lock_fault
from sstmerge_core.store import leaderboard, snapshot
from sstmerge_core.store.events import decode, read_lines
from sstmerge_core.store.fold import FIRST_WINS, KEYS, Batch
from sstmerge_core.store.reported import reported_batch
from sstmerge_core.workspace import Workspace, lock_refusal

if TYPE_CHECKING:
    import duckdb

SCHEMA = Path(__file__).with_name("schema.sql")
BATCH_BYTES = 16 << 20
"""Event lines folded into one transaction; bounds memory, not correctness."""

# Two owners of one file can exist within a process (DuckDB allows it); they must not ingest at the same time.
_LOCKS: dict[Path, threading.RLock] = defaultdict(threading.RLock)
_PUBLISHING: dict[Path, threading.RLock] = defaultdict(threading.RLock)


class HeldError(StoreError):
    """Another process holds the database: what it published last can be read."""


class DamagedError(StoreError):
    """The file is no database, or not whole; `rebuild` makes it again."""


class Owner:
    """Holds the database for writing. One connection; `cursor()` gives each thread its own."""

    read_only = False

    def __init__(self, workspace: Workspace, connection: duckdb.DuckDBPyConnection):
        self.workspace = workspace
        self._connection = connection
        self._lock = _LOCKS[workspace.database]
        self._publishing = _PUBLISHING[workspace.database]
        self._inserts = _inserts(connection)
        self._seen: dict[str, int] = dict(connection.execute('SELECT path, "offset" FROM ingested').fetchall())
        self._unpublished = True
        self._published: Path | None = None
        """The snapshot that this owner made last"""
        self._changed: set[str] = set()
        """Whose rows differ from it; an owner is in it once its rows are committed"""
        self._whole_bytes = 0
        """Size of the last snapshot that was copied whole"""
        self.publishing_seconds = 0.0
        """How long the last snapshot took"""
        self.looking_seconds = 0.0
        """How long the last look at the event files took; what was new in them not counted"""

    @classmethod
    def open(cls, workspace: Workspace, *, wait: float = 1.0) -> Owner:
        """Take the database, creating it (or making it again after a change of schema) where needed.

        Raises HeldError that names the process holding the file when it is not free within `wait` seconds,
        DamagedError where it is no whole database, and StoreError where the disk is full, protected or locks no files.
        """
        with _LOCKS[workspace.database], file_errors(workspace.database):
            workspace.create()
            _check_locks(workspace.database)
            connection = _connect(workspace, wait)
            try:
                if _version(connection) != schema_version():
                    connection.close()
                    _delete(workspace)
                    connection = _connect(workspace, wait)
                    _create(connection)
                return cls(workspace, connection)
            except BaseException:
                connection.close()
                raise

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A connection of its own for the calling thread; sees every committed ingest."""
        return self._connection.cursor()

    def ingest(self) -> int:
        """Take in what event files have grown by since the last call; returns the number of new events.

        What a file that is gone had said is forgotten, and counts as one event: a deleted run leaves the tables.

        A batch of rows and the files' offsets are one transaction: a kill loses nothing and doubles nothing.
        Thread-safe. Costs a `stat` per event file when nothing changed. Raises StoreError as `open` does.
        """
        with file_errors(self.workspace.database), self._lock, contextlib.closing(self.cursor()) as cursor:
            begun = time.monotonic()
            sizes = self.workspace.event_files()
            self.looking_seconds = time.monotonic() - begun
            self._follow(cursor, sizes)
            total = self._forget(cursor, sizes)
            for batch, offsets in self._batches(sizes):
                with _transaction(cursor):
                    _write(cursor, self._inserts, batch)
                    cursor.execute(_OFFSETS, [list(offsets), list(offsets.values())])
                self._seen |= offsets
                self._changed.update(Path(name).parent.name for name in offsets)
                total += batch.events
            self._unpublished |= total > 0
            return total

    def publish(self) -> Path:
        """The newest snapshot; makes a new one when anything was ingested since the last.

        Ingesting goes on meanwhile: with a million answers a snapshot takes seconds, and pages do not wait for it.
        Raises StoreError as `open` does.
        """
        with file_errors(self.workspace.database), self._publishing, contextlib.closing(self.cursor()) as cursor:
            current = snapshot.newest(self.workspace.snapshots)
            if current is None or self._unpublished:
                self._unpublished = False  # what is ingested from here on may not be in it
                changed, self._changed = self._changed, set()
                begun = time.monotonic()
                try:
                    current = self._publish(cursor, current, changed)
                except BaseException:
                    self._unpublished, self._published = True, None
                    raise
                self.publishing_seconds = time.monotonic() - begun
            return current

    def _publish(self, cursor: duckdb.DuckDBPyConnection, newest: Path | None, changed: set[str]) -> Path:
        """A new snapshot; of the last one and what has changed, where that is still the newest."""
        since = None
        if newest is not None and newest == self._published:
            since = snapshot.Since(newest, changed, _OWNED, self._whole_bytes)
        made = snapshot.publish(cursor, self.workspace.database.stem, self.workspace.snapshots, since)
        self._published = made
        if since is None:
            self._whole_bytes = made.stat().st_size
        return made

    def close(self) -> None:
        with self._publishing, self._lock:
            self._connection.close()

    def __enter__(self) -> Owner:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _follow(self, cursor: duckdb.DuckDBPyConnection, sizes: Mapping[str, int]) -> None:
        """Read on where a file was left that has moved since: a run that `sstmerge tidy` put to the finished ones."""
        new = {Path(name).parent.name: name for name in sizes.keys() - self._seen.keys() if name.startswith(_MOVING)}
        moved = {}
        for name in self._seen.keys() - sizes.keys() if new else ():
            target = new.get(Path(name).parent.name)
            if target is not None and name.startswith(_MOVING) and sizes[target] >= self._seen[name]:
                moved[name] = target
        if moved:
            with _transaction(cursor):
                renamed = "UPDATE ingested SET path = m.new FROM (SELECT unnest(?) AS old, unnest(?) AS new) m"
                cursor.execute(f"{renamed} WHERE path = m.old", [list(moved), list(moved.values())])
            for name, target in moved.items():
                self._seen[target] = self._seen.pop(name)
            self._unpublished = True

    def _forget(self, cursor: duckdb.DuckDBPyConnection, sizes: Mapping[str, int]) -> int:
        """Forget the runs and pairs whose event files are gone, and those whose annotations are; how many files."""
        gone = self._seen.keys() - sizes.keys()
        if not gone:
            return 0
        owners = {Path(name).parent.name for name in gone}
        files = [name for name in self._seen if Path(name).parent.name in owners]  # what is left of them is read again
        with _transaction(cursor):
            for table, column in _OWNED.items():
                cursor.execute(f"DELETE FROM {table} WHERE list_contains(?, {column})", [list(owners)])
            cursor.execute("DELETE FROM ingested WHERE list_contains(?, path)", [files])
        for name in files:
            del self._seen[name]
        self._changed.update(owners)
        return len(gone)

    def _batches(self, sizes: Mapping[str, int]) -> Iterator[tuple[Batch, dict[str, int]]]:
        batch, offsets = Batch(), {}
        for name, size in sizes.items():
            # A file shorter than what was read has been replaced: it is read from the start, over the same keys.
            start = self._seen.get(name, 0) if size >= self._seen.get(name, 0) else 0
            if size == start:
                continue
            path = self.workspace.root / name
            for offset, line in read_lines(path, start):
                batch.add_line(path.parent.name, offset, decode(line), len(line))
                offsets[name] = offset + len(line)
                if batch.size >= BATCH_BYTES:
                    yield batch, offsets
                    batch, offsets = Batch(), {}
        if offsets:
            yield batch, offsets


class Snapshot:
    """A published snapshot, opened read-only: what a process gets while another one owns the database."""

    read_only = True
    publishing_seconds = 0.0
    looking_seconds = 0.0

    def __init__(self, path: Path, held: Problem | None = None):
        import duckdb

        self.path = path
        self.held = held
        """Why it is not the database itself"""
        self._connection = duckdb.connect(str(path), read_only=True)

    def cursor(self) -> duckdb.DuckDBPyConnection:
        return self._connection.cursor()

    def ingest(self) -> int:
        """Nothing: the owner does it."""
        return 0

    def publish(self) -> Path:
        return self.path

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Snapshot:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def connect(workspace: Workspace) -> Owner | Snapshot:
    """The command line's way in: the database itself when it is free, otherwise the newest snapshot, read-only.

    Raises StoreError when the database is held and nothing has been published yet, and for any other reason for which
    it cannot be opened: what was published may then be of long ago.
    """
    try:
        return Owner.open(workspace, wait=0.3)
    except HeldError as held:
        newest = snapshot.newest(workspace.snapshots)
        if newest is None:
            raise
        with file_errors(newest):
            return Snapshot(newest, held.problems[0])


def rebuild(workspace: Workspace) -> int:
    """Make the database again from the event files and the reported figures; returns the number of events.

    What it replaces is never opened, and may be anything. Raises HeldError when another process holds the database.
    """
    with _LOCKS[workspace.database], file_errors(workspace.database):
        with _free(workspace.database):  # only the process that can own the file may delete it
            _delete(workspace)
        with Owner.open(workspace) as owner:
            events = owner.ingest()
            owner.publish()
            return events


def schema_version() -> str:
    """Changes with the schema, so that a database of another version is made again."""
    return hashlib.sha256(_schema().encode()).hexdigest()[:16]


def _schema() -> str:
    """The tables, then the leaderboard's macro, then what rests on it."""
    tables, mark, views = SCHEMA.read_text().partition("-- The owner renews")
    return tables + leaderboard.macro() + mark + views


_MOVING = ("runs/", "finished/")
"""Where the event file of a run may be, before and after"""
_OWNED = {
    "leaderboard": "run_id",
    "pair_inspections": "pair_id",
    "module_stats": "subject",
    **{table: "run_id" for table, key in KEYS.items() if "run_id" in key},
}
"""Tables with rows that go when their run or pair goes, and the column that says whose they are"""
_OFFSETS = """
    INSERT INTO ingested SELECT unnest(?::VARCHAR[]), unnest(?::BIGINT[])
    ON CONFLICT DO UPDATE SET "offset" = excluded."offset"
"""


def _connect(workspace: Workspace, wait: float) -> duckdb.DuckDBPyConnection:
    import duckdb

    deadline = time.monotonic() + wait
    while True:
        new = not workspace.database.exists()
        try:
            return duckdb.connect(str(workspace.database))
        except duckdb.IOException as error:
            if new and _fault(str(error), True) is not None and "Could not set lock" not in str(error):
                _delete(workspace)  # a full disk: what was begun is no database, and would be called damaged
            if "Could not set lock" not in str(error):
                raise
            if time.monotonic() >= deadline:
                found = re.search(r"PID (\d+)", str(error))
                raise _held(workspace.database, int(found[1]) if found else 0) from error
            time.sleep(0.05)


def _held(database: Path, pid: int) -> HeldError:
    fault = f"{f'process {pid}' if pid else 'another process'} holds the database"
    return HeldError(Problem(str(database), fault, "Stop it, or wait for it; reading goes by snapshot."))


def _check_locks(database: Path) -> None:
    """Raises StoreError for a place where nothing keeps a second process away."""
    if (refusal := lock_refusal(database.parent)) is not None:
        raise StoreError(Problem(str(database), *lock_fault(refusal))) from refusal


@contextlib.contextmanager
def _free(database: Path) -> Iterator[None]:
    """Hold the lock that DuckDB takes on its file, without DuckDB. Raises HeldError where another process has it."""
    if not database.is_file():
        yield
        return
    with open(database, "r+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise _held(database, _holder(file.fileno())) from None
        except OSError as error:
            raise StoreError(Problem(str(database), *lock_fault(error))) from error
        yield


def _holder(descriptor: int) -> int:
    """The process that holds a lock on a file; 0 where the system does not tell, or not in the way of Linux."""
    if not sys.platform.startswith("linux"):
        return 0
    layout = "hhqqi4x"  # struct flock: type, whence, start, length, process
    try:
        asked = struct.pack(layout, fcntl.F_WRLCK, 0, 0, 0, 0)
        return struct.unpack(layout, fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))[-1]
    except (OSError, struct.error):
        return 0


@contextlib.contextmanager
def file_errors(database: Path) -> Iterator[None]:
    """DuckDB's errors of files as StoreError that says what to do; any other of its errors is a fault of ours."""
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        if (told := _fault(str(error), isinstance(error, _of_files(duckdb)))) is None:
            raise
        kind, fault, fix = told
        raise kind(Problem(str(database), fault, fix)) from error


def _of_files(duckdb: Any) -> tuple[type[Exception], ...]:
    return duckdb.IOException, duckdb.SerializationException, duckdb.FatalException, duckdb.InternalException


def _fault(message: str, of_files: bool) -> tuple[type[StoreError], str, str] | None:
    """What one of DuckDB's messages comes to: the kind of error, the fault and the fix."""
    for text, code in _DISK.items():
        if text in message:
            return StoreError, *disk_fault(code)
    if not of_files and "orrupt" not in message:
        return None
    first = " ".join(message.splitlines()[0].split())
    fault = f"the database is damaged or no database ({first[:200].rstrip('.')})"
    return DamagedError, fault, "Close the dashboard, then `sstmerge db rebuild` makes it again from the event files."


_DISK = {
    "No space left on device": errno.ENOSPC,
    "Disk quota exceeded": errno.EDQUOT,
    "File too large": errno.EFBIG,
    "Read-only file system": errno.EROFS,
    "Permission denied": errno.EACCES,
    "Operation not permitted": errno.EPERM,
    "Input/output error": errno.EIO,
    "Too many open files": errno.EMFILE,
}
"""What the system says within DuckDB's messages"""


def _version(connection: duckdb.DuckDBPyConnection) -> str | None:
    import duckdb

    try:
        row = connection.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()
    except duckdb.CatalogException:
        return None
    return row[0] if row else None


def _create(connection: duckdb.DuckDBPyConnection) -> None:
    with _transaction(connection):
        connection.execute(_schema())
        _write(connection, _inserts(connection), reported_batch())
        connection.execute("INSERT INTO meta VALUES ('schema', ?)", [schema_version()])


def _delete(workspace: Workspace) -> None:
    for path in (workspace.database, Path(f"{workspace.database}.wal")):
        if path.is_dir() and not path.is_symlink():
            raise StoreError(Problem(str(path), *disk_fault(errno.EISDIR)))
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _transaction(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    connection.execute("BEGIN")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _write(connection: duckdb.DuckDBPyConnection, inserts: dict[str, str], batch: Batch) -> None:
    """The rows of `batch`, and the leaderboard's rows of every run that they change."""
    for table, rows in batch.tables.items():
        if rows:
            connection.execute(inserts[table], [[json.dumps(row) for row in rows.values()]])
    changed = {key[0] for table in ("runs", "metrics") for key in batch.tables[table]}
    changed |= {run_id for run_id, kind, _ in batch.tables["annotations"] if kind == "name"}
    if changed:
        connection.execute("INSERT OR REPLACE INTO leaderboard FROM leaderboard_of(?)", [sorted(changed)])


def _inserts(connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
    """table → how JSON objects are inserted by one parameter.

    A field of the wrong type becomes NULL, an unknown one is dropped.
    """
    columns = connection.execute(
        "SELECT table_name, column_name, data_type FROM information_schema.columns "
        "WHERE table_catalog = current_database() ORDER BY table_name, ordinal_position"
    ).fetchall()
    types: dict[str, dict[str, str]] = {table: {} for table in KEYS}
    for table, column, kind in columns:
        if table in types:
            types[table][column] = kind
    lines = "SELECT unnest(?::JSON[]) AS line"
    return {
        table: f"INSERT INTO {table} "
        f"SELECT unnest(from_json(line, '{json.dumps(own)}'), max_depth := 2) FROM ({lines}) "
        f"ON CONFLICT {_on_conflict(table, list(own))}"
        for table, own in types.items()
    }


def _on_conflict(table: str, columns: list[str]) -> str:
    if table in FIRST_WINS:
        return "DO NOTHING"
    # An event that ends a run, or removes an adapter or a note, says nothing about the other columns: they stay.
    partial = {"runs": ("finished_at", "seconds", "peak_memory_bytes", "error"), "adapters": (), "annotations": ()}
    updates = []
    for column in columns:
        new, old = f'excluded."{column}"', f'{table}."{column}"'
        if column in KEYS[table]:
            continue
        if table == "runs" and column == "created_at":
            updates.append(f'"{column}" = coalesce({old}, {new})')
        elif table in partial and column not in partial[table]:
            updates.append(f'"{column}" = coalesce({new}, {old})')
        else:
            updates.append(f'"{column}" = {new}')
    return f"DO UPDATE SET {', '.join(updates)}"
