"""The runs that ship with the demo: packed to the same bytes each time, unpacked whole or not at all."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sstmerge_core.store.events import FILE_NAME
from sstmerge_core.upkeep import shipped
from sstmerge_core.workspace import Workspace


def installed(workspace: Workspace) -> dict[str, bytes]:
    """Event files by run, of the folders that say they are a run."""
    folders = [folder for folder in workspace.runs.iterdir() if not folder.name.startswith(".")]
    return {folder.name: (folder / FILE_NAME).read_bytes() for folder in folders}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "workspace").create()


def test_the_archive_stays_small_and_every_run_is_in_it_once() -> None:
    names = [run_id for run_id, _ in shipped.runs()]
    assert len(names) > 60 and names == sorted(set(names))
    assert shipped.RUNS.stat().st_size < 5e6


def test_what_is_packed_is_the_same_in_any_order_and_comes_back_byte_for_byte(tmp_path, monkeypatch) -> None:
    found = [("b2", '{"event": "é"}\n'.encode()), ("a1", b"one\r\ntwo"), ("c3", b"")]
    packed = shipped.pack(found)
    time.sleep(1.1)  # an archive with a time in it would differ after a second
    assert shipped.pack(reversed(found)) == packed
    monkeypatch.setattr(shipped, "RUNS", tmp_path / "runs.tar.xz")
    shipped.RUNS.write_bytes(packed)
    assert list(shipped.runs()) == sorted(found)


def test_installing_leaves_what_is_there_and_a_second_call_installs_nothing(workspace) -> None:
    first, *_ = (run_id for run_id, _ in shipped.runs())
    workspace.run(first).mkdir()
    (workspace.run(first) / FILE_NAME).write_text("mine")
    assert shipped.install(workspace) == len(dict(shipped.runs())) - 1
    assert installed(workspace) == dict(shipped.runs()) | {first: b"mine"}
    assert shipped.install(workspace) == 0


def test_a_kill_leaves_no_half_run_and_the_next_call_finishes(workspace) -> None:
    whole = dict(shipped.runs())
    script = f"""
from sstmerge_core.upkeep import shipped
from sstmerge_core.workspace import Workspace
from pathlib import Path
shipped.install(Workspace(Path({str(workspace.root)!r})))
"""
    process = subprocess.Popen([sys.executable, "-c", script])
    while len(installed(workspace)) < 20:
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    found = installed(workspace)
    assert 20 <= len(found) < len(whole)
    assert all(events == whole[run_id] for run_id, events in found.items())
    assert shipped.install(workspace) == len(whole) - len(found)
    assert installed(workspace) == whole


def test_a_workspaces_runs_are_shipped_as_they_are(workspace, tmp_path, monkeypatch) -> None:
    """What ships was made by `ship`: shipping it again changes not one byte of it."""
    some = dict(list(shipped.runs())[:5])
    for run_id, events in some.items():
        workspace.run(run_id).mkdir()
        (workspace.run(run_id) / FILE_NAME).write_bytes(events)
    workspace.run("unfinished").mkdir()
    (workspace.run("unfinished") / FILE_NAME).write_bytes(b'{"event": "run_started", "t": 1}\n')
    monkeypatch.setattr(shipped, "RUNS", tmp_path / "data" / "runs.tar.xz")
    monkeypatch.setattr(shipped, "EXPERIMENTS", tmp_path / "data" / "experiments")
    assert shipped.ship(workspace) == 5
    assert dict(shipped.runs()) == some
