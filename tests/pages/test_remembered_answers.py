"""What pages ask is computed once for all who ask, and again when what it depends on has changed."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from sstmerge_core.store.events import EventWriter, read_events
from sstmerge_core.workspace import Workspace
from studio import start
from tests.synthetic_workspace import fill


def test_eight_who_ask_at_once_wait_for_one_computation() -> None:
    answers, begun, barrier = start.Answers(), [], threading.Barrier(8)

    def make() -> int:
        begun.append(threading.current_thread().name)
        time.sleep(0.05)
        return len(begun)

    def ask() -> None:
        barrier.wait()
        got.append(answers.of("key", make))

    got: list[int] = []
    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [1] * 8
    assert len(begun) == 1


def test_a_computation_that_failed_is_tried_by_the_next_who_asks() -> None:
    answers = start.Answers()
    with pytest.raises(ZeroDivisionError):
        answers.of("key", lambda: 1 // 0)
    assert answers.of("key", lambda: 7) == 7


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(start, "PUBLISH_EVERY", 3600.0)
    store = start.Store(fill(Workspace(tmp_path / "w")))
    store.refresh()
    yield store
    store.close()


def _asked(store: start.Store) -> int:
    """How often the database was asked for the finished runs, of three questions."""
    calls: list[int] = []

    def finished(cursor: Any) -> int:
        calls.append(1)
        return cursor.execute("SELECT count(*) FROM runs WHERE status = 'finished'").fetchone()[0]

    for _ in range(3):
        store.finished.query(finished)
    return len(calls)


def test_what_runs_at_work_write_leaves_the_answers_about_ended_runs_and_the_end_of_one_does_not(
    opened: start.Store,
) -> None:
    ended = next(iter(opened.workspace.runs.iterdir()))
    started = next(read_events(ended))
    at_work = opened.workspace.run("at-work")
    with EventWriter(at_work) as events:
        events.write(**started | {"run_id": "at-work"})
    opened.refresh()
    known = opened.query(lambda cursor: cursor.execute("SELECT status FROM runs WHERE run_id = 'at-work'").fetchone())
    assert known == ("running",)
    assert _asked(opened) == 1

    with EventWriter(at_work) as events:
        events.write("stage", stage="generate", status="done", seconds=0.0)
    opened.refresh()
    assert _asked(opened) == 0, "what a run at work writes has changed no ended run"
    assert opened.query(lambda cursor: cursor.execute("SELECT count(*) FROM events").fetchone()) is not None

    before = opened.finished.query(lambda cursor: cursor.execute("SELECT count(*) FROM leaderboard").fetchone())
    with EventWriter(at_work) as events:
        events.write("run_finished", seconds=1.0, peak_memory_bytes=1)
    opened.refresh()
    assert _asked(opened) == 1
    assert before is not None

    with EventWriter(ended) as events:
        events.write("tag", tag="late", user="me", removed=False)
    opened.refresh()
    assert _asked(opened) == 1, "a word about an ended run is news of it"


def test_a_run_whose_folder_is_gone_is_gone_from_the_answers_too(opened: start.Store) -> None:
    def finished(cursor: Any) -> int:
        return cursor.execute("SELECT count(*) FROM runs WHERE status = 'finished'").fetchone()[0]

    before = opened.finished.query(finished)
    shutil.rmtree(next(iter(opened.workspace.runs.iterdir())))
    opened.refresh()
    assert opened.finished.query(finished) == before - 1
