"""Faults that the fault suite found in the product, each as small as it gets."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.browser import ROOT
from benchmarks.reliability import checks
from sstmerge_core import catalog, jobs
from sstmerge_core import workspace as workspace_module
from sstmerge_core.adapters import fingerprint
from sstmerge_core.errors import JobError, StoreError, disk_problem
from sstmerge_core.fisher import answers, importance
from sstmerge_core.fisher import cache as gradients
from sstmerge_core.fisher.gradients import Gradients
from sstmerge_core.fitting import kept
from sstmerge_core.fitting.fit import Fit
from sstmerge_core.jobs import dispatch
from sstmerge_core.jobs.process import Process
from sstmerge_core.jobs.queue import Queue
from sstmerge_core.models.supervised import Example
from sstmerge_core.store import EventWriter, Owner, Snapshot, rebuild, snapshot
from sstmerge_core.upkeep import tidy
from sstmerge_core.worker import Monitor
from sstmerge_core.workspace import Workspace, is_whole, new_folder, seal


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "ws").create()


def _run(workspace: Workspace, name: str) -> None:
    with EventWriter(workspace.run(name)) as events:
        events.write("run_started", label=name)


def test_the_newest_snapshot_is_the_last_published_when_the_clock_was_set_back(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time_ns
    (workspace.snapshots / f"snap.{now()}.duckdb").write_bytes(b"")  # as if one more had been published before
    with Owner.open(workspace) as owner:
        for number in range(2):
            monkeypatch.setattr(time, "time_ns", lambda: now() - 3600 * 10**9)
            _run(workspace, f"r{number}")
            owner.ingest()
            made = owner.publish()
            assert made.exists() and snapshot.newest(workspace.snapshots) == made
            with Snapshot(made) as opened, closing(opened.cursor()) as cursor:
                found = cursor.execute("SELECT count(*) FROM runs WHERE run_id LIKE 'r_'").fetchone()
            assert found == (number + 1,)


def test_snapshots_are_told_apart_by_number_and_not_by_letters(workspace: Workspace) -> None:
    for name in ("snap.9.duckdb", "snap.10.duckdb", "snap.x.duckdb"):
        (workspace.snapshots / name).write_bytes(b"")
    assert [path.name for path in snapshot.published(workspace.snapshots)] == ["snap.9.duckdb", "snap.10.duckdb"]


@pytest.mark.parametrize("jump", [-3600.0, 86400.0])
def test_a_worker_that_will_not_stop_is_killed_after_its_grace_whatever_the_clock_says(
    workspace: Workspace, jump: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, killed = Queue(workspace), []
    queue.add("j", kind="merge", name="n", user="", device="cpu", spec={}, run_ids=[])
    queue.start_one(lambda job_id, device: Process.of(os.getpid()))
    queue.ask_to_stop("j")
    monkeypatch.setattr(Process, "kill", lambda self, wait=1.0: killed.append(self.pid))
    dispatch.reconcile(workspace)
    assert not killed
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + jump)
    dispatch.reconcile(workspace)
    assert killed == [os.getpid()]


REFUSED = [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS]


@pytest.mark.parametrize("code", REFUSED)
def test_on_a_disk_that_locks_no_files_everything_says_so(
    workspace: Workspace, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Owner.open(workspace):
        pass
    monkeypatch.setattr("sstmerge_core.workspace._LOCKING", set())

    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(fcntl, "lockf", refuse)
    acts: list[tuple[type[Exception], Callable[[], object]]] = [
        (StoreError, lambda: EventWriter(workspace.run("r"))),
        (StoreError, lambda: Owner.open(workspace)),
        (StoreError, lambda: rebuild(workspace)),
        (JobError, lambda: Queue(workspace).active()),
    ]
    for kind, act in acts:
        begun = time.monotonic()
        with pytest.raises(kind, match=r"this disk locks no files.*SSTMERGE_WORKSPACE"):
            act()
        assert time.monotonic() - begun < 2.0  # SQLite would wait for half a minute


def test_whether_a_disk_locks_is_asked_once(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    real = fcntl.lockf

    def counted(*given: Any) -> None:
        asked.append(1)
        real(*given)

    monkeypatch.setattr("sstmerge_core.workspace._LOCKING", set())
    monkeypatch.setattr(fcntl, "lockf", counted)
    for _ in range(3):
        Queue(workspace).active()
    assert len(asked) == 1


def _gradients(workspace: Workspace) -> Path:
    found = Gradients.of({"m": torch.ones(3, 2, 2)}, torch.ones(3))
    gradients.save(workspace, "k", found, {})
    assert gradients.load(workspace, "k") is not None
    return gradients.folder(workspace, "k")


def _fit(workspace: Workspace) -> Path:
    kept.save(workspace, "k", Fit({"m": torch.ones(4, 4)}, []), {})
    assert kept.load(workspace, "k") is not None
    return kept.folder(workspace, "k")


def _elected(workspace: Workspace) -> Path:
    folder = workspace.cache / "elected" / "k"
    importance.save(folder, {"m": torch.ones(4, 4, dtype=torch.bool)}, {})
    assert importance.load(folder) is not None
    return folder


def _answers(workspace: Workspace) -> Path:
    answers.save(workspace, "k", [Example("p", "r", True)], {})
    assert answers.load(workspace, "k") is not None
    return answers.path(workspace, "k")


def _checkpoint(workspace: Workspace) -> Path:
    found = kept.checkpoint(workspace, "k")
    found.save({"m": torch.ones(4, 4)}, {"step": 3})
    assert found.load() is not None and found.path is not None
    return found.path


READ: dict[str, tuple[Callable[[Workspace], Path], Callable[[Workspace], object]]] = {
    "gradients": (_gradients, lambda workspace: gradients.load(workspace, "k")),
    "a fit": (_fit, lambda workspace: kept.load(workspace, "k")),
    "elected weights": (_elected, lambda workspace: importance.load(workspace.cache / "elected" / "k")),
    "own answers": (_answers, lambda workspace: answers.load(workspace, "k")),
    "a fit's checkpoint": (_checkpoint, lambda workspace: kept.checkpoint(workspace, "k").load()),
}


@pytest.mark.parametrize("kind", READ)
@pytest.mark.parametrize("damage", ["one bit", "cut short", "no byte", "text", "no seal"])
def test_what_is_cached_counts_only_as_it_was_written(workspace: Workspace, kind: str, damage: str) -> None:
    make, load = READ[kind]
    place = make(workspace)
    files = [place] if place.is_file() else [path for path in sorted(place.iterdir()) if path.name != "parts.json"]
    rng = random.Random(0)
    for file in files:
        data = file.read_bytes()
        for _ in range(20 if damage == "one bit" else 1):
            spoilt = bytearray(data)
            spoilt[rng.randrange(len(spoilt))] ^= 1 << rng.randrange(7)
            changed = {"one bit": bytes(spoilt), "cut short": data[: len(data) // 2], "no byte": b"", "text": b"text"}
            if damage != "no seal":
                file.write_bytes(changed[damage])
            elif file.name == "sha256.json":
                file.unlink()
            else:
                continue
            try:
                found = load(workspace)
            finally:
                file.write_bytes(data)
            # of JSON some bits say nothing: the same answers spelled otherwise are the same
            assert found is None or (file.suffix == ".json" and repr(found) == repr(load(workspace)))
    assert load(workspace) is not None


def test_a_seal_names_every_file_and_a_folder_without_one_is_not_whole(tmp_path: Path) -> None:
    with new_folder(tmp_path / "entry") as folder:
        (folder / "a").write_text("a")
        seal(folder)
    assert is_whole(tmp_path / "entry") and json.loads((tmp_path / "entry" / "sha256.json").read_text()).keys() == {"a"}
    (tmp_path / "entry" / "a").unlink()
    assert not is_whole(tmp_path / "entry") and not is_whole(tmp_path / "nothing")


def _made(target: Path, text: str) -> None:
    with new_folder(target) as folder:
        (folder / "a").write_text(text)


def test_a_folder_is_replaced_in_one_step_and_what_was_there_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for path in (one, other):
        path.mkdir()
    if not workspace_module._exchange(one, other):
        pytest.skip("this disk exchanges no folders")
    _made(tmp_path / "entry", "old")

    def renamed(source: Path, to: Path) -> None:
        raise AssertionError(f"{source} was renamed: a kill after that would leave nothing at its place")

    monkeypatch.setattr(workspace_module.os, "rename", renamed)
    _made(tmp_path / "entry", "new")
    assert (tmp_path / "entry" / "a").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["entry", "one", "other"]


def test_where_two_steps_are_needed_a_kill_between_them_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace(tmp_path / "w").create()
    target = workspace.cache / "entry"
    _made(target, "old")
    monkeypatch.setattr(workspace_module, "_exchange", lambda one, other: False)
    rename = os.rename

    def killed(source: Path, to: Path) -> None:
        if to == target:
            raise KeyboardInterrupt
        rename(source, to)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(workspace_module.os, "rename", killed)
        _made(target, "new")
    assert not target.exists()
    (hidden,) = workspace.cache.glob(".entry.old.*")
    os.utime(hidden, (0, 0))
    assert not [item for item in tidy.plan(workspace) if ".entry.old." in item.name], "it is the only copy"
    with pytest.raises(ZeroDivisionError), new_folder(target):
        raise ZeroDivisionError
    assert (target / "a").read_text() == "old"
    _made(target, "new")
    assert (target / "a").read_text() == "new" and not list(workspace.cache.glob(".entry*"))


def test_a_hash_that_changed_in_its_cache_is_not_believed(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprint, "_TICK_SECONDS", -1e9)
    weights = workspace.root / "weights"
    weights.write_bytes(b"a")
    right = fingerprint.file_sha256(weights, workspace)
    cache = workspace.cache / "hashes.sqlite"
    data = cache.read_bytes()
    assert data.count(right.encode()) == 1
    cache.write_bytes(data.replace(right.encode(), bytes([right.encode()[0] ^ 1]) + right.encode()[1:]))
    assert fingerprint.file_sha256(weights, workspace) == right


def test_hashes_of_an_earlier_version_are_made_anew_and_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With their table nothing could be remembered: each page hashed the base model anew."""
    workspace = Workspace(tmp_path / "w").create()
    weights = tmp_path / "weights"
    weights.write_bytes(b"weights")
    workspace.cache.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(workspace.cache / "hashes.sqlite")) as old, old:
        old.execute("CREATE TABLE hashes(path TEXT PRIMARY KEY, size INTEGER, mtime INTEGER, sha256 TEXT)")
        old.execute("INSERT INTO hashes VALUES (?, 7, 1, 'of another version')", [str(weights)])
    monkeypatch.setattr(fingerprint, "_TICK_SECONDS", 0.0)
    right = fingerprint.file_sha256(weights, workspace)
    assert right == hashlib.sha256(b"weights").hexdigest()
    monkeypatch.setattr(fingerprint, "_hash", lambda path: pytest.fail("it is known"))
    assert fingerprint.file_sha256(weights, workspace) == right


def test_a_full_disk_is_understood_as_safetensors_tells_it() -> None:
    from safetensors import SafetensorError

    full = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    problem = disk_problem(full, "/data/x")
    assert problem is not None and problem.where == "/data/x" and "the disk is full" in problem.fault
    assert disk_problem(SafetensorError("Error while deserializing header: incomplete metadata")) is None
    assert disk_problem(ValueError("(os error 28)")) is None


def test_a_database_that_a_full_disk_kept_from_being_made_is_not_left_as_a_damaged_one(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    import duckdb

    def full(path: str) -> None:
        Path(path).write_bytes(b"begun")
        raise duckdb.IOException(f'Could not write file "{path}": {os.strerror(errno.ENOSPC)}')

    with monkeypatch.context() as patched:
        patched.setattr(duckdb, "connect", full)
        with pytest.raises(StoreError, match="the disk is full"):
            Owner.open(workspace)
    _run(workspace, "r")
    with Owner.open(workspace) as owner:
        assert owner.ingest() == 1


def test_a_heartbeat_that_cannot_be_written_is_told_once_and_goes_on(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from sstmerge_core.errors import Problem
    from sstmerge_core.jobs.estimate import Estimator

    queue = Queue(workspace)
    queue.add("j", kind="merge", name="n", user="", device="cpu", spec={}, run_ids=[])
    queue.start_one(lambda job_id, device: Process.of(os.getpid()))
    job = queue.job("j")
    assert job is not None
    beats = []

    def full(job_id: str, **fields: object) -> bool:
        beats.append(job_id)
        if len(beats) < 4:
            raise JobError(Problem("queue.sqlite", "the disk is full"))
        return True

    monkeypatch.setattr(queue, "beat", full)
    monitor = Monitor(queue, job, Estimator(plan=[{"merge": 1.0}], started=0.0, history={}))
    for _ in range(4):
        monitor._beat()
    assert monitor.should_cancel()
    monitor.stop()
    assert capsys.readouterr().err.count("the disk is full") == 1


@pytest.fixture
def pages(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """``pages("sweep", job="j")`` → what the page says; an exception on it fails the test."""
    import streamlit

    monkeypatch.setenv("SSTMERGE_WORKSPACE", str(workspace.root))

    def opened(name: str, **query: str) -> str:
        said, faults = checks.page(workspace, name, **query)
        assert not faults
        return said

    yield opened
    streamlit.cache_resource.clear()


def test_a_job_that_ends_while_the_queue_is_drawn_is_drawn_once(
    workspace: Workspace, pages: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = Queue(workspace)
    queue.add("j", kind="merge", name="ending", user="", device="cpu", spec={"recipes": []}, run_ids=[])
    queue.start_one(lambda job_id, device: Process.of(os.getpid()))
    running = jobs.active(workspace)
    queue.end("j", "done")
    monkeypatch.setattr(jobs, "active", lambda workspace: running)
    assert pages("sweep").count("ending") == 1


def test_the_merge_page_says_that_the_queue_is_damaged_where_a_merge_could_be_launched(
    workspace: Workspace, pages: Callable[..., str], tiny_base: Path, tiny_pair: tuple[Path, Path]
) -> None:
    given = _shelf(workspace, tiny_base, tiny_pair)
    workspace.queue.write_bytes(b"no queue " * 1000)
    assert "queue.sqlite" in pages("merge", **given)


def test_a_run_that_does_not_say_its_method_is_no_fault_of_the_merge_page(
    workspace: Workspace, pages: Callable[..., str], tiny_base: Path, tiny_pair: tuple[Path, Path]
) -> None:
    given = _shelf(workspace, tiny_base, tiny_pair)
    with EventWriter(workspace.run("r")) as events:
        events.write("run_started", pair="U_S", source="measured")
        events.write("run_finished", seconds=1.0)
    assert "No merge of U_S has been measured yet" in pages("merge", **given)


def _shelf(workspace: Workspace, tiny_base: Path, tiny_pair: tuple[Path, Path]) -> dict[str, str]:
    """The Merge page's link to the tiny pair."""
    base = catalog.add_base(workspace, tiny_base)
    for path, name, role in zip(tiny_pair, ("U", "S"), ("utility", "safety"), strict=True):
        catalog.add(workspace, path, name=name, role=role)
    return {"base": base.name, "utility": "U", "safety": "S", "method": "linear"}


def test_a_process_that_settles_ends_without_a_word_on_what_it_leaves() -> None:
    script = "from studio import start; import duckdb; duckdb.connect().execute('SELECT 1'); start.settle()"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "leaked" not in done.stderr + done.stdout


def _with_damaged_text(file: Path) -> None:
    """Letters of the tables' own text that are no UTF-8 any more: SQLite quotes them in what it raises."""
    data = file.read_bytes()
    at = data.index(b"CREATE TABLE") + len("CREATE ")
    file.write_bytes(data[:at] + b"\xf3\xa0\xff" + data[at + 3 :])


def test_a_queue_whose_own_text_is_damaged_is_told_as_damaged(workspace: Workspace) -> None:
    Queue(workspace).add("j", kind="merge", name="j", user="", device="cpu", spec={"recipes": []}, run_ids=[])
    with closing(sqlite3.connect(workspace.queue)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    _with_damaged_text(workspace.queue)
    with pytest.raises(JobError, match="damaged"):
        Queue(workspace).active()


def test_a_cache_of_hashes_whose_own_text_is_damaged_makes_itself_anew(workspace: Workspace, tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"w")
    fingerprint._remember(workspace, file, "state", "digest")
    _with_damaged_text(workspace.cache / "hashes.sqlite")
    assert fingerprint._remembered(workspace, file, "state") is None
    fingerprint._remember(workspace, file, "state", "digest")
    assert fingerprint._remembered(workspace, file, "state") == "digest"
