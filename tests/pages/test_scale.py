"""What a page asks of the database and sends to the browser does not grow with the number of runs beyond need."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from benchmarks.filled import fill
from benchmarks.scale import PAGES
from sstmerge_core.store import EventWriter, Owner, queries
from sstmerge_core.workspace import Workspace
from studio import blocks, start

Open = Callable[..., AppTest]
FEW, MANY = 12, 120


@pytest.fixture(scope="module")
def workspaces(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Workspace]:
    """Workspaces by the number of their runs, with as many answers each."""
    folder = tmp_path_factory.mktemp("scale")
    return {runs: fill(Workspace(folder / str(runs)), runs, 6 * runs) for runs in (FEW, MANY)}


class Counted:
    """A cursor that notes what it is asked."""

    def __init__(self, cursor: Any, asked: list[str]):
        self.cursor, self.asked = cursor, asked

    def execute(self, sql: str, *values: Any) -> Any:
        self.asked.append(sql)
        return self.cursor.execute(sql, *values)

    def sql(self, sql: str, *values: Any, **named: Any) -> Any:
        self.asked.append(sql)
        return self.cursor.sql(sql, *values, **named)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.cursor, name)


@pytest.mark.parametrize("page", PAGES)
def test_ten_times_the_runs_need_no_more_statements(
    open_page: Open, workspaces: dict[int, Workspace], monkeypatch: pytest.MonkeyPatch, page: str
) -> None:
    plain = Owner.cursor
    monkeypatch.setattr(start, "PUBLISH_EVERY", 3600.0)  # the snapshot's own statements are not the page's
    counts = {}
    for runs, workspace in workspaces.items():
        asked: list[str] = []
        monkeypatch.setattr(Owner, "cursor", lambda self, asked=asked: Counted(plain(self), asked))
        app = open_page(workspace, page, **_said(workspace, page))
        assert not app.exception
        counts[runs] = len(asked)
    assert counts[MANY] == counts[FEW] < 50


def test_the_generator_writes_what_it_is_asked_for_and_the_owner_finds_nothing_more_to_take_in(
    workspaces: dict[int, Workspace],
) -> None:
    with Owner.open(workspaces[MANY]) as owner:
        assert owner.ingest() == 0
        counts = queries.counts(owner.cursor())
        assert (counts["runs"], counts["finished"], counts["samples"]) == (MANY, MANY, 6 * MANY)
        runs = queries.pair_runs(owner.cursor(), "A5_A7", sources=["measured"])
    assert runs[["resistance", "utility", "over_refusal", "safety_tax"]].notna().all(axis=None)


def _said(workspace: Workspace, page: str) -> dict[str, Any]:
    first, second = sorted(path.name for path in workspace.runs.iterdir())[:2]
    said: dict[str, dict[str, Any]] = {"run": {"run": first}, "compare": {"run": [first, second]}}
    return said.get(page, {"pair": "A5_A7"} if page == "pareto" else {})


def test_a_page_of_a_folder_that_is_no_run_goes_on(open_page: Open, tmp_path: Path) -> None:
    workspace = fill(Workspace(tmp_path / "w"), 4, 12)
    (workspace.runs / "left over").mkdir()
    (workspace.runs / "a file").write_text("")
    assert not open_page(workspace, "pareto").exception


def test_where_looking_takes_long_no_page_looks_and_news_are_there_a_little_later(
    workspaces: dict[int, Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = workspaces[FEW]
    looks: list[str] = []
    plain = Workspace.event_files

    def event_files(self: Workspace) -> dict[str, int]:
        looks.append(threading.current_thread().name)
        return plain(self)

    for name, value in {"PUBLISH_EVERY": 3600.0, "LOOK_EVERY": 0.2, "NOTICED": -1.0}.items():
        monkeypatch.setattr(start, name, value)
    opened = start.Store(workspace)
    try:
        monkeypatch.setattr(Workspace, "event_files", event_files)
        opened.refresh()
        assert "MainThread" not in looks
        run = next(workspace.runs.iterdir())
        with EventWriter(run) as events:
            events.write("stage", stage="news", status="done", seconds=0.0)
        asked = "SELECT count(*) FROM events WHERE data->>'$.stage' = 'news'"

        def told(cursor: Any) -> int:
            return cursor.execute(asked).fetchone()[0]

        deadline = time.monotonic() + 30
        while not opened.query(told) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert opened.query(told) == 1
        assert set(looks) == {"look"}
        opened.refresh(now=True)  # what a page has written itself it sees at once
        assert looks[-1] == "MainThread"
    finally:
        opened.close()


def test_compare_offers_the_newest_runs_and_takes_any_from_a_link(
    open_page: Open, workspaces: dict[int, Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "OFFERED", 5)
    workspace = workspaces[MANY]
    with Owner.open(workspace) as owner:
        owner.ingest()
        known = list(queries.comparable_runs(owner.cursor())["run_id"])
    app = open_page(workspace, "compare", run=[known[-1], known[0]])
    assert not app.exception and not app.warning
    assert app.multiselect("compare.run").value == [known[-1], known[0]]
    assert len(app.multiselect("compare.run").options) == 6
    assert "Of 120 runs" in app.caption[0].value


def test_the_libraries_are_left_out_of_the_collection_after_every_run_once_and_not_at_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    frozen = []
    monkeypatch.setattr(start.gc, "freeze", lambda: frozen.append(1))
    monkeypatch.setattr(start, "_settled", 0)
    start.settle()
    start.settle()
    assert len(frozen) == 1
    monkeypatch.setattr(start, "_settled", start._settled - start.NEW_MODULES - 1)
    start.settle()
    assert len(frozen) == 2


def test_a_long_snapshot_waits_while_pages_are_drawn_but_not_for_ever(
    workspaces: dict[int, Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"PUBLISH_EVERY": 3600.0, "QUIET": 0.1, "PATIENCE": 0.3}.items():
        monkeypatch.setattr(start, name, value)
    opened = start.Store(workspaces[FEW])
    try:
        waits: list[float] = []

        def wait(seconds: float) -> None:
            waits.append(seconds)
            time.sleep(seconds)

        monkeypatch.setattr(opened._closed, "wait", wait)
        opened.asked = time.monotonic() + 1000  # pages are drawn all the time
        opened._wait_for_quiet()
        assert not waits  # a short snapshot
        assert opened._connection is not None
        monkeypatch.setattr(opened._connection, "publishing_seconds", 2.0, raising=False)
        opened._wait_for_quiet()
        assert waits
        waits.clear()
        opened.asked = 0.0
        opened._wait_for_quiet()
        assert not waits
    finally:
        opened.close()
