"""Damaged, full and protected disks: a typed error that says what to do, and nothing that stays broken."""

from __future__ import annotations

import errno
import os
import random
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from sstmerge_core import cli
from sstmerge_core.adapters import fingerprint
from sstmerge_core.errors import JobError, StoreError, disk_problem
from sstmerge_core.jobs.queue import Queue
from sstmerge_core.store import (
    DamagedError,
    EventWriter,
    HeldError,
    Owner,
    connect,
    read_events,
    rebuild,
    run_sql,
    snapshot,
)
from sstmerge_core.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """One run, in the database and in a snapshot."""
    made = Workspace(tmp_path / "ws").create()
    with EventWriter(made.run("r1")) as events:
        events.write("run_started", label="r1", user="ada")
        events.write("run_finished", seconds=1.0)
    with Owner.open(made) as owner:
        owner.ingest()
        owner.publish()
    return made


def _whole(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(400):
        changed[rng.randrange(len(changed))] ^= 0xFF
    return bytes(changed)


DAMAGES = {
    "text": lambda data, rng: b"no database at all " * 500,
    "a header of zeros": lambda data, rng: b"\0" * 4096 + data[4096:],
    "another magic number": lambda data, rng: data[:8] + b"XXXX" + data[12:],
    "both main headers": lambda data, rng: data[:4096] + b"\0" * 8192 + data[12288:],
    "half a file": lambda data, rng: data[: len(data) // 2],
    "one page": lambda data, rng: data[:4096],
    "no byte": lambda data, rng: b"",
    "bytes here and there": _whole,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_database_is_named_with_the_fix_and_rebuilt_without_being_opened(
    workspace: Workspace, damage: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    data = workspace.database.read_bytes()
    workspace.database.write_bytes(DAMAGES[damage](data, random.Random(0)))
    # not from the last snapshot, which may be of long ago
    with pytest.raises(DamagedError, match=r"sstmerge\.duckdb.*damaged.*`sstmerge db rebuild`"):
        connect(workspace).close()
    monkeypatch.setenv("SSTMERGE_WORKSPACE", str(workspace.root))
    assert cli.main(["query", "SELECT 1"]) == StoreError.exit_code
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "db rebuild" in told and "Traceback" not in told
    assert rebuild(workspace) == 2
    with connect(workspace) as owner:
        assert owner.cursor().execute("SELECT user, status FROM runs WHERE run_id = 'r1'").fetchall() == [
            ("ada", "finished")
        ]


def test_rebuild_takes_away_a_journal_that_belongs_to_nothing(workspace: Workspace) -> None:
    Path(f"{workspace.database}.wal").write_bytes(b"\xff" * 5000)
    workspace.database.write_bytes(b"x" * 9000)
    assert rebuild(workspace) == 2 and connect(workspace).ingest() == 0


def test_rebuild_of_a_database_that_is_gone_or_a_dead_link_makes_one(workspace: Workspace) -> None:
    workspace.database.unlink()
    assert rebuild(workspace) == 2
    workspace.database.unlink()
    workspace.database.symlink_to(workspace.root / "nowhere")
    assert rebuild(workspace) == 2


def test_a_folder_in_the_database_s_place_is_named(workspace: Workspace) -> None:
    workspace.database.unlink()
    workspace.database.mkdir()
    for act in (connect, rebuild):
        with pytest.raises(StoreError, match=r"sstmerge\.duckdb"):
            act(workspace)


_HOLD = """
import sys; from pathlib import Path; import duckdb
held = duckdb.connect(sys.argv[1]); print("held", flush=True); input()
"""


def test_a_database_that_is_held_is_not_rebuilt_and_its_snapshot_is_read_and_said(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    command = [sys.executable, "-c", _HOLD, str(workspace.database)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None and child.stdout.readline() == "held\n"
        before = workspace.database.stat().st_ino
        holder = rf"process {child.pid} holds" if sys.platform.startswith("linux") else "holds"
        with pytest.raises(HeldError, match=holder):
            rebuild(workspace)
        assert workspace.database.stat().st_ino == before
        monkeypatch.setenv("SSTMERGE_WORKSPACE", str(workspace.root))
        assert cli.main(["query", "SELECT count(*) AS n FROM runs WHERE run_id = 'r1'"]) == 0
        said = capsys.readouterr()
        assert f"process {child.pid} holds the database. This is what it published last" in said.err
        assert said.out.splitlines()[-1].strip() == "1"
    finally:
        child.kill()
        child.communicate()


def test_what_a_killed_publishing_left_is_removed_by_the_next(workspace: Workspace) -> None:
    for name in (".snap.1.duckdb.99", ".snap.1.duckdb.99.wal", ".snap.2.duckdb.7"):
        (workspace.snapshots / name).write_bytes(b"x" * 1000)
    with EventWriter(workspace.run("r2")) as events:
        events.write("run_started", label="r2")
    with Owner.open(workspace) as owner:
        owner.ingest()
        newest = owner.publish()
    assert [path for path in workspace.snapshots.iterdir() if path.name.startswith(".")] == []
    assert newest == snapshot.newest(workspace.snapshots)


@pytest.mark.parametrize("name", ["a*b", "[x]", "{a}", "a b", "é", "a'b", "#1", "%3F", "a;b"])
def test_a_workspace_of_an_odd_name_is_a_workspace(tmp_path: Path, name: str) -> None:
    workspace = Workspace(tmp_path / name).create()
    with EventWriter(workspace.run("r1")) as events:
        events.write("run_started", label="r1")
    with Owner.open(workspace) as owner:
        assert owner.ingest() == 1
        owner.publish()
    assert rebuild(workspace) == 1


@pytest.mark.parametrize("name", ["a?b", "?", "a\\b", "?x=1&y#"])
def test_a_workspace_in_which_duckdb_can_keep_nothing_has_its_database_in_the_users_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / name).mkdir()
    os.symlink(tmp_path / name, tmp_path / "link")
    for root in (tmp_path / name, tmp_path / "link"):  # DuckDB follows links
        workspace = Workspace(root).create()
        with EventWriter(workspace.run("r1")) as events:
            events.write("run_started", label="r1")
        with Owner.open(workspace) as owner:
            owner.ingest()
            owner.publish()
        assert rebuild(workspace) == len((workspace.run("r1") / "events.jsonl").read_text().splitlines())
        assert run_sql(workspace, "SELECT label FROM runs WHERE run_id = 'r1'").rows == [("r1",)]
        assert (tmp_path / "cache") in workspace.database.parents and workspace.database.is_file()
        assert workspace.database.parent.stat().st_mode & 0o077 == 0
    assert Workspace(tmp_path / "link").database == Workspace(tmp_path / name).database
    assert Workspace(tmp_path / "plain").database == tmp_path / "plain" / "sstmerge.duckdb"


@pytest.mark.parametrize("left", [0, 10, 5000])
def test_an_event_that_finds_the_disk_full_leaves_no_half_line(
    tmp_path: Path, left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EventWriter(tmp_path) as events:
        events.write("run_started", label="one")
        whole = events._file

        class Full:
            """A disk with `left` bytes free."""

            def __getattr__(self, name: str) -> object:
                return getattr(whole, name)

            def write(self, data: memoryview) -> int:
                room = left - (whole.tell() - start)
                if room <= 0:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return whole.write(data[:room])

        start = whole.seek(0, os.SEEK_END)
        monkeypatch.setattr(events, "_file", Full())
        with pytest.raises(OSError, match="No space"):
            events.write("samples", rows=[{"response": "x" * 10_000}])
        monkeypatch.setattr(events, "_file", whole)
        events.write("run_finished")
    assert [event["event"] for event in read_events(tmp_path)] == ["run_started", "run_finished"]


def test_a_full_disk_is_told_in_one_line_by_the_command_line(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("SSTMERGE_WORKSPACE", str(workspace.root))

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/x")

    monkeypatch.setattr("sstmerge_core.store.owner.snapshot.publish", full)
    with EventWriter(workspace.run("r2")) as events:
        events.write("run_started")
    assert cli.main(["db", "rebuild"]) == 4
    told = capsys.readouterr().err
    assert told.startswith("sstmerge: /data/x: the disk is full. Free some space") and told.count("\n") == 1


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO, errno.EMFILE])
def test_every_error_of_the_disk_has_a_fix(code: int) -> None:
    problem = disk_problem(OSError(code, os.strerror(code), "/data/x"))
    assert problem is not None and problem.where == "/data/x" and problem.fix.endswith((".", ")"))
    assert disk_problem(OSError(errno.ESRCH, "no such process")) is None


SMALL = """
import os, sys
from pathlib import Path
from sstmerge_core.errors import SSTMergeError, disk_problem
from sstmerge_core.jobs.queue import Queue
from sstmerge_core.store import EventWriter, Owner, rebuild
from sstmerge_core.workspace import Workspace
workspace = Workspace(Path(sys.argv[1]))
def told(what):
    try: what(); print("went well")
    except SSTMergeError as error: print("told:", " ".join(str(error).split()))
    except OSError as error: print("told:", disk_problem(error))
"""


def _on_a_disk(tmp_path: Path, options: str, script: str, prepare: str = "") -> list[str]:
    """What `script` prints with its workspace on a disk of its own; skips where this system lets nobody mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    shell = f"mount -t tmpfs -o size=64m tmpfs {place} && {prepare or 'true'} && mount -o remount,{options} {place}"
    shell += f" && {sys.executable} -c '{SMALL}{script}' {place}/ws"
    done = subprocess.run(["unshare", "-rm", "bash", "-c", shell], capture_output=True, text=True, timeout=120)
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip("no mounts here")
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mounts a small disk")
def test_on_a_disk_that_can_only_be_read_everything_is_a_typed_error(tmp_path: Path) -> None:
    script = (
        "told(lambda: Owner.open(workspace)); told(lambda: rebuild(workspace)); told(lambda: Queue(workspace).active())"
    )
    script += "; told(lambda: EventWriter(workspace.run(str(1))))"
    lines = _on_a_disk(tmp_path, "ro", script)
    assert len(lines) == 4 and all(line.startswith("told: ") for line in lines)
    assert all("read" in line or "cannot be opened" in line for line in lines)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mounts a small disk")
def test_on_a_full_disk_everything_is_a_typed_error_and_goes_on_once_there_is_room(tmp_path: Path) -> None:
    script = """
with EventWriter(workspace.run("r1")) as events:
    events.write("run_started", label="r1")
with Owner.open(workspace) as owner:
    owner.ingest()
Queue(workspace).active()
filler = open(workspace.root / "filler", "wb", buffering=0)
try:
    while True: filler.write(bytes(4096))
except OSError: pass
def more():
    with EventWriter(workspace.run("r2")) as events:
        for number in range(300):
            events.write("samples", suite="s", rows=[dict(prompt_id=str(number), response="x" * 4000)])
told(more)
told(lambda: rebuild(workspace))
job = dict(kind="k", name="n" * 90000, user="", device="cpu", spec={}, run_ids=[])
told(lambda: [Queue(workspace).add(str(n), **job) for n in range(9)])
filler.close()
os.unlink(workspace.root / "filler")
told(more)
print(rebuild(workspace) > 300)
"""
    lines = _on_a_disk(tmp_path, "size=64m", script.replace("'", '"'))
    assert "the disk is full" in lines[0] and "the disk is full" in lines[2]
    assert lines[1] == "went well" or "the disk is full" in lines[1]  # what it replaces may have been enough room
    assert lines[3:] == ["went well", "True"]


QUEUES = {
    "text": b"not a database " * 300,
    "zeros": b"\0" * 8192,
    "half a header": b"SQLite format 3\0" + b"\xff" * 8000,
}


@pytest.mark.parametrize("damage", QUEUES)
def test_a_damaged_queue_is_named_with_what_to_do_and_what_is_lost(workspace: Workspace, damage: str) -> None:
    Queue(workspace).active()
    workspace.queue.write_bytes(QUEUES[damage])
    for ending in ("-wal", "-shm"):
        Path(f"{workspace.queue}{ending}").unlink(missing_ok=True)
    for act in (lambda: Queue(workspace).active(), lambda: Queue(workspace).rates("cpu")):
        with pytest.raises(JobError, match=r"queue\.sqlite.*damaged.*mv .*finished runs"):
            act()
    os.rename(workspace.queue, f"{workspace.queue}.damaged")
    assert Queue(workspace).active() == []


def test_a_queue_of_another_program_is_named(workspace: Workspace) -> None:
    with sqlite3.connect(workspace.queue) as db:
        db.execute("CREATE TABLE rates (a)")
    with pytest.raises(JobError, match="damaged or no queue"):
        Queue(workspace).active()


@pytest.mark.parametrize("damage", [*QUEUES, "a folder", "another table"])
def test_hashes_that_are_damaged_are_taken_again_and_remembered_again(workspace: Workspace, damage: str) -> None:
    weights = workspace.root / "weights"
    weights.write_bytes(b"a")
    os.utime(weights)
    cache = workspace.cache / "hashes.sqlite"
    right = fingerprint.file_sha256(weights)
    if damage == "a folder":
        cache.unlink(missing_ok=True)
        cache.mkdir()
    elif damage == "another table":
        with sqlite3.connect(cache) as db:
            db.execute("CREATE TABLE hashes (a)")
    else:
        cache.write_bytes(QUEUES[damage])
    assert fingerprint.file_sha256(weights, workspace) == right
    assert fingerprint.file_sha256(weights, workspace) == right


def _settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if every file were written long before it is hashed: what is just written is never remembered."""
    monkeypatch.setattr(fingerprint, "_TICK_SECONDS", -1e9)


def test_weights_changed_in_place_with_the_time_put_back_have_another_hash(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    _settled(monkeypatch)
    weights = workspace.root / "weights"
    weights.write_bytes(b"a" * 1000)
    before = weights.stat()
    first = fingerprint.file_sha256(weights, workspace)
    assert fingerprint.file_sha256(weights, workspace) == first
    with weights.open("r+b") as file:
        file.write(b"b")
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = weights.stat()
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (before.st_ino, before.st_size, before.st_mtime_ns)
    assert fingerprint.file_sha256(weights, workspace) == fingerprint.file_sha256(weights) != first


def test_a_hash_is_remembered_and_forgotten(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    _settled(monkeypatch)
    weights = workspace.root / "weights"
    weights.write_bytes(b"a")
    taken: list[Path] = []
    real = fingerprint._hash

    def hashed(path: Path) -> str:
        taken.append(path)
        return real(path)

    monkeypatch.setattr(fingerprint, "_hash", hashed)
    for _ in range(3):
        fingerprint.file_sha256(weights, workspace)
    assert len(taken) == 1
    fingerprint.forget(weights, workspace)
    fingerprint.file_sha256(weights, workspace)
    assert len(taken) == 2


def test_what_was_just_written_is_hashed_again_for_the_clock_of_the_disk_is_coarse(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprint, "_TICK_SECONDS", 60.0)
    weights = workspace.root / "weights"
    weights.write_bytes(b"a")
    first = fingerprint.file_sha256(weights, workspace)
    monkeypatch.setattr(fingerprint, "file_state", lambda path: "the same")
    weights.write_bytes(b"b")
    assert fingerprint.file_sha256(weights, workspace) != first
