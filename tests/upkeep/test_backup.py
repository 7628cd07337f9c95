"""A workspace in one file and back: the same, whole or not at all, also while workers write and where bytes flip."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from sstmerge_core import catalog
from sstmerge_core.cli import main
from sstmerge_core.errors import DataError
from sstmerge_core.jobs.process import Process
from sstmerge_core.jobs.queue import Queue
from sstmerge_core.store import EventWriter, Owner, audit, queries, remarks, saved
from sstmerge_core.upkeep import backup
from sstmerge_core.workspace import Workspace


def finished(workspace: Workspace, run_id: str, weights: bytes = b"") -> None:
    with EventWriter(workspace.run(run_id)) as events:
        events.write("run_started", method="linear", label=f"label of {run_id}", parameters={}, recipe={})
        rows = [{"prompt_id": "p", "prompt": "a question " * 20, "response": "an answer"}]
        events.write("samples", suite="harmful", batch=0, rows=rows)
        events.write("run_finished", seconds=1.0)
    if weights:
        folder = workspace.merged_adapter(run_id)
        folder.mkdir(parents=True)
        (folder / "adapter_model.safetensors").write_bytes(weights)


@pytest.fixture
def workspace(tmp_path: Path, tiny_pair: tuple[Path, Path]) -> Workspace:
    """Two runs, one with weights, an adapter of its own, tags, a saved query, jobs, caches and secrets."""
    made = Workspace(tmp_path / "before").create()
    finished(made, "r1", random.Random(0).randbytes(50_000))
    finished(made, "r2")
    remarks.tag(made, "r1", "keep")
    shutil.copytree(tiny_pair[0], made.adapters / "mine")
    catalog.add(made, made.adapters / "mine", "mine", "utility")
    saved.save(made, saved.SavedQuery("all", "SELECT 1"))
    queue = Queue(made)
    queue.add("j1", kind="merge", name="n", user="ada", device="none", spec={}, run_ids=["r1"])
    queue.adopt("j1", Process.of(os.getpid()))
    queue.add("j2", kind="merge", name="n", user="ada", device="none", spec={}, run_ids=["r2"])
    (made.cache / "gradients").mkdir(parents=True)
    (made.cache / "gradients" / "g").write_bytes(b"again")
    (made.root / "secrets.toml").write_text("[auth]\n")
    (made.root / "link").symlink_to("/etc/passwd")
    with Owner.open(made) as owner:
        owner.ingest()
        owner.publish()
    return made


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_backup_is_restored_to_the_same_workspace_elsewhere(workspace, tmp_path):
    made = backup.make(workspace, tmp_path / "w.zip")
    assert {"cache", "snapshots", "secrets.toml", "link", "sstmerge.duckdb"} <= set(made.left_out)
    after = tmp_path / "after"
    backup.restore(tmp_path / "w.zip", after)
    was, now = contents(workspace.root), contents(after)
    kept = {path for path in was if path.startswith(("runs/", "annotations/", "adapters/", "queries/"))}
    assert kept and {path: now[path] for path in kept} == {path: was[path] for path in kept}
    assert not [path for path in now if path.startswith(("cache/", "snapshots/", "secrets", "sstmerge.duckdb"))]
    new = Workspace(after)
    assert [(one.name, one.path) for one in catalog.entries(new) if not one.bundled] == [
        ("mine", after / "adapters" / "mine")
    ]
    with Owner.open(new) as owner:
        owner.ingest()
        assert queries.counts(owner.cursor())["finished"] == 2
        assert queries.tags(owner.cursor())["tag"].tolist() == ["keep"]
    states = {job.job_id: (job.state, bool(job.error)) for job in Queue(new).jobs(9)}
    assert states == {"j1": ("lost", True), "j2": ("cancelled", True)}, "nobody works on the copy's jobs"
    assert {job.job_id: job.state for job in Queue(workspace).jobs(9)} == {"j1": "running", "j2": "queued"}
    assert audit.entries(new)[0]["action"] == "restored a backup"


def _told(folder: Path) -> dict[str, bytes]:
    """What a restored workspace holds; of events what they say, without the checksum, which depends on the folder."""
    found = {path: data for path, data in contents(folder).items() if not path.startswith("audit/")}
    return {path: re.sub(rb', "crc32": "[0-9a-f]{8}"', b"", data) for path, data in found.items()}


def test_a_damaged_backup_is_refused_by_name_and_leaves_nothing(workspace, tmp_path):
    backup.make(workspace, tmp_path / "w.zip")
    whole, file, target = (tmp_path / "w.zip").read_bytes(), tmp_path / "bad.zip", tmp_path / "after"
    backup.restore(tmp_path / "w.zip", tmp_path / "good")
    good = _told(tmp_path / "good")
    rng = random.Random(19)
    refused = 0
    for number in range(40):
        data = bytearray(whole)
        if number % 4 == 3:
            del data[rng.randrange(len(data)) :]
        else:
            place = rng.randrange(len(data))
            data[place] ^= 1 << rng.randrange(8)
        file.write_bytes(data)
        try:
            backup.restore(file, target)
        except DataError as error:
            refused += 1
            assert "bad.zip" in str(error)
            assert not target.exists() and not list(tmp_path.glob(".after*"))
        else:  # a byte that says nothing, such as a time of day: what was restored is what was backed up
            same = {path: data.replace(b"/after/", b"/good/") for path, data in _told(target).items()}
            assert same == good, number
            shutil.rmtree(target)
    assert refused >= 30


def test_a_folder_with_something_in_it_is_never_replaced(workspace, tmp_path):
    backup.make(workspace, tmp_path / "w.zip")
    before = contents(workspace.root)
    with pytest.raises(DataError, match="has something in it"):
        backup.restore(tmp_path / "w.zip", workspace.root)
    assert contents(workspace.root) == before
    empty = Workspace(tmp_path / "empty").create()
    backup.restore(tmp_path / "w.zip", empty.root)
    assert (empty.run("r1") / "events.jsonl").is_file()


def hostile(name: str, how: Callable[[dict[str, list[object]]], None] = lambda listed: None) -> bytes:
    """A backup whose list and hashes are right, with a file of that name in it."""
    import hashlib
    import io

    file, data = io.BytesIO(), b"text"
    listed: dict[str, list[object]] = {name: [len(data), hashlib.sha256(data).hexdigest()]}
    how(listed)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, data)
        told = {"format": 1, "version": "0", "made_at": 0.0, "root": "/w", "files": listed}
        archive.writestr(backup.MANIFEST, json.dumps(told))
    return file.getvalue()


@pytest.mark.parametrize(
    "name", ["../out", "/etc/out", "runs/../../out", "runs//x", "a\\b", "secrets.toml", ".streamlit/secrets.toml", "."]
)
def test_a_backup_that_would_write_elsewhere_is_refused(name, tmp_path):
    (tmp_path / "bad.zip").write_bytes(hostile(name))
    with pytest.raises(DataError, match="outside"):
        backup.restore(tmp_path / "bad.zip", tmp_path / "after")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.zip"]


def test_a_backup_that_says_less_than_it_holds_is_refused_where_it_holds_more(tmp_path):
    def small(listed: dict[str, list[object]]) -> None:
        listed["runs/x"][0] = 1

    (tmp_path / "bad.zip").write_bytes(hostile("runs/x", small))
    with pytest.raises(DataError, match="runs/x in it is damaged"):
        backup.check(tmp_path / "bad.zip")


@pytest.mark.parametrize("data", [b"", b"PK\x05\x06" + b"\0" * 18, b"not a zip", os.urandom(500)])
def test_what_is_no_backup_is_told_so(data, tmp_path):
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(DataError, match="x: "):
        backup.check(tmp_path / "x")


def test_a_backup_while_a_worker_writes_holds_whole_lines_and_every_run_that_ended_before(workspace, tmp_path):
    stop, begun = threading.Event(), threading.Event()

    def work() -> None:
        number = 0
        while not stop.is_set():
            finished(workspace, f"w{number}", b"weights" * 100)
            with open(workspace.run(f"w{number}") / "events.jsonl", "ab") as file:
                file.write(b'{"event": "verdicts", "t": 1, "ro')  # half a line, as in the middle of writing
            number += 1
            begun.set()

    worker = threading.Thread(target=work)
    worker.start()
    try:
        begun.wait(20)
        there = [path.name for path in workspace.runs.iterdir()]
        for number in range(3):
            backup.make(workspace, tmp_path / f"{number}.zip")
    finally:
        stop.set()
        worker.join()
    backup.restore(tmp_path / "2.zip", tmp_path / "after")
    after = Workspace(tmp_path / "after")
    assert set(there[:-1]) <= {path.name for path in after.runs.iterdir()}
    for folder in after.runs.iterdir():
        text = (folder / "events.jsonl").read_bytes() if (folder / "events.jsonl").is_file() else b""
        assert not text or (text.endswith(b"\n") and all(json.loads(line) for line in text.splitlines()))


def test_a_backup_that_fails_leaves_the_one_before(workspace, tmp_path, monkeypatch):
    backup.make(workspace, tmp_path / "w.zip")
    before = (tmp_path / "w.zip").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    with pytest.raises(DataError, match="the disk is full"):
        backup.make(workspace, tmp_path / "w.zip")
    assert (tmp_path / "w.zip").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".w")] == []


def test_the_commands_say_what_they_did_and_what_is_left_out(workspace, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SSTMERGE_WORKSPACE", str(workspace.root))
    file = tmp_path / "w.zip"
    assert main(["backup", str(file)]) == 0
    assert "left out: cache: made again" in capsys.readouterr().out
    assert main(["restore", str(file), "--check"]) == 0
    assert ": whole: " in capsys.readouterr().out
    assert main(["restore", str(file)]) == 4
    assert "has something in it" in capsys.readouterr().err
    assert main(["restore", str(file), "--into", str(tmp_path / "new")]) == 0
    assert main(["audit"]) == 0
    assert "restored a backup" not in capsys.readouterr().out.split("restored into")[-1].partition("when")[2]
