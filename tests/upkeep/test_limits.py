"""What a workspace may hold: told before anything goes, set in a file, the oldest goes first."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from sstmerge_core import content
from sstmerge_core.cli import main
from sstmerge_core.errors import DataError
from sstmerge_core.jobs.queue import Queue
from sstmerge_core.upkeep import limits, tidy
from sstmerge_core.upkeep.uses import DAY
from sstmerge_core.workspace import Workspace
from tests.upkeep.test_tidy import a_run


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "w").create()


def aged(path: Path, days: float, size: int = 1000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    then = time.time() - days * DAY
    os.utime(path, (then, then))
    os.utime(path.parent, (then, then))


def of(workspace: Workspace, kind: str) -> list[str]:
    return [item.name for item in tidy.plan(workspace, older_than=1000 * DAY) if item.kind == kind]


def allow(workspace: Workspace, text: str) -> None:
    limits.file(workspace).write_text(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('cache = "1 parsec"', "cache: '1 parsec'"),
        ("jobs = -1", "jobs: -1"),
        ("snapshots = 3", "snapshots: is no limit"),
        ("cache = [", "cannot be read"),
        ("logs = true", "logs: True"),
    ],
)
def test_limits_that_cannot_be_meant_are_refused_with_the_line(workspace: Workspace, text: str, said: str) -> None:
    allow(workspace, text)
    with pytest.raises(DataError, match=said):
        limits.read(workspace)


def test_limits_are_bytes_or_texts_and_the_others_stay_as_they_are(workspace: Workspace) -> None:
    allow(workspace, 'cache = "1.5 GB"\nlogs = 7\njobs = 3')
    found = limits.read(workspace)
    assert (found.cache, found.logs, found.jobs, found.runs) == (1_500_000_000, 7, 3, limits.Limits().runs)


def test_of_the_caches_goes_what_was_used_longest_ago_until_the_rest_fits(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSTMERGE_NODE_CACHE", str(tmp_path / "node"))
    aged(workspace.cache / "gradients" / "a" / "x", 3)
    aged(workspace.cache / "answers" / "b", 2)
    aged(content.folder(workspace) / content.ADAPTER / "c" / "x", 4)
    aged(workspace.cache / "models" / "m" / "x", 9)
    assert of(workspace, tidy.CACHE) == []
    allow(workspace, "cache = 2000")
    fetched = str(tmp_path / "node" / content.ADAPTER / "c")
    assert of(workspace, tidy.CACHE) == [fetched]
    allow(workspace, "cache = 1999")
    assert of(workspace, tidy.CACHE) == [fetched, "cache/gradients/a"]
    gone, kept = tidy.carry_out(workspace, tidy.plan(workspace, older_than=1000 * DAY))
    assert len(gone) == 2 and not kept and not Path(fetched).exists()
    assert (workspace.cache / "answers" / "b").exists() and (workspace.cache / "models" / "m").exists()


def test_logs_and_adapters_beyond_their_limits_go_the_oldest_first(workspace: Workspace) -> None:
    aged(workspace.logs / "old.log", 5)
    aged(workspace.logs / "new.log", 1)
    for number in range(2):
        a_run(workspace, f"r{number}")
        aged(workspace.merged_adapter(f"r{number}") / "adapter_model.safetensors", 5 - number)
    assert of(workspace, tidy.LOG) == of(workspace, tidy.WEIGHTS) == []
    allow(workspace, "logs = 1000\nadapters = 1000")
    assert of(workspace, tidy.LOG) == ["logs/old.log"] and of(workspace, tidy.WEIGHTS) == ["r0"]


def test_of_ended_jobs_the_newest_stay_and_active_ones_always(workspace: Workspace) -> None:
    queue = Queue(workspace)
    for number in range(4):
        queue.add(f"j{number}", kind="m", name="n", user="", device="x", spec={"a": 1}, run_ids=[])
        if number != 1:
            queue.ask_to_stop(f"j{number}")  # one that waits is cancelled at once
    allow(workspace, "jobs = 1")
    assert of(workspace, tidy.JOBS) == ["2 jobs"]
    tidy.carry_out(workspace, tidy.plan(workspace, older_than=1000 * DAY))
    assert {(job.job_id, job.state) for job in queue.jobs(10)} == {("j1", "queued"), ("j3", "cancelled")}
    assert of(workspace, tidy.JOBS) == []


def test_the_command_tells_what_is_held_and_where_limits_are_set(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SSTMERGE_WORKSPACE", str(workspace.root))
    aged(workspace.logs / "a.log", 1)
    allow(workspace, "logs = 10")
    assert main(["tidy"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "logs 1 kB 10 bytes over" in told and "cache 0 bytes 20 GB" in told and "tidy.toml" in told
    assert "snapshots 0, 0 bytes 2" in told
