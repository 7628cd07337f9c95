"""One job on far workers: what travels, what arrives once, and what happens when a worker is gone."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sstmerge_core.errors import Cancelled, JobError
from sstmerge_core.jobs.backends import Assignment, Batch, missing
from sstmerge_core.jobs.queue import Queue
from sstmerge_core.jobs.trials import Count, Trials
from sstmerge_core.recipe import Recipe
from sstmerge_core.store.events import EventWriter, encode, last_status, read_events
from sstmerge_core.worker.collector import Collector, arrived
from sstmerge_core.worker.remote import Remote, places
from sstmerge_core.worker.spread import Spread
from sstmerge_core.workspace import Workspace
from tests.jobs.conftest import recipe
from tests.there import there

FAKE = "tests.jobs.fake_execute:execute"


class InProcess:
    """A backend whose workers are objects of this process; `dies(number)` says after how many batches one is gone."""

    name = "in process"

    def __init__(self, root: Path, dies: Callable[[int], int | None] = lambda number: None, echo: bool = False):
        self._root, self._dies, self._echo = root, dies, echo
        self._numbers = itertools.count()
        self.brought: list[str] = []
        self.last: dict[int, list[Batch]] = {}

    def start(self) -> Any:
        number = next(self._numbers)
        remote = Remote(FAKE, str(self._root / str(number)))
        return {"number": number, "remote": remote, "left": self._dies(number), "dead": False}

    def ready(self, handle: Any) -> bool:
        return not handle["dead"]

    def lacks(self, handle: Any, paths: list[str]) -> list[str]:
        return handle["remote"].lacks([path for path in paths if Path(path).exists()])

    def bring(self, handle: Any, path: str, name: str, content: bytes) -> None:
        self.brought.append(path)
        handle["remote"].bring(path, name, content)

    def give(self, handle: Any, work: Assignment) -> None:
        handle["remote"].give(work)

    def take(self, handle: Any, after: int) -> list[Batch]:
        if handle["dead"]:
            return []
        found = handle["remote"].take(after)
        if found and handle["left"] is not None:
            handle["left"] -= 1
            handle["dead"] = handle["left"] < 0
        self.last.setdefault(handle["number"], []).extend(found)
        return found + (self.last[handle["number"]] if self._echo else [])

    def alive(self, handle: Any) -> bool:
        return not handle["dead"]

    def cancel(self, handle: Any) -> None:
        handle["remote"].cancel()

    def kill(self, handle: Any) -> None:
        handle["remote"].cancel()
        handle["dead"] = True

    def close(self) -> None:
        pass


class Monitor:
    def __init__(self, cancel: Callable[[], bool] = lambda: False):
        self.should_cancel = cancel
        self.stages: list[tuple[int, str]] = []

    def tell(self, part: str) -> None:
        pass

    def report(self, point: int, stage: str, done: float, total: float) -> None:
        self.stages.append((point, stage))


@pytest.fixture
def idle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setattr("sstmerge_core.worker.spread.POLL", 0.005)
    return Workspace(tmp_path / "w").create()


def spread(workspace: Workspace, recipes: list[Recipe], backend: InProcess, count: int = 2) -> Spread:
    spec: dict[str, Any] = {"recipes": []}
    ids = [one.run_id for one in recipes]
    Queue(workspace).add("j", kind="sweep", name="j", user="ada", device="ray", spec=spec, run_ids=ids, recipes=recipes)
    return Spread(workspace, there(Queue(workspace).job("j")), recipes, backend, count)


def ends(workspace: Workspace, recipes: list[Recipe]) -> list[int]:
    """How often each run was finished."""
    names = [[event["event"] for event in read_events(workspace.run(one.run_id))] for one in recipes]
    return [each.count("run_finished") for each in names]


def test_every_trial_is_done_once_and_its_events_lie_here(idle: Workspace, tmp_path: Path) -> None:
    recipes = [recipe(alpha / 10, sleep=0.0) for alpha in range(5)]
    backend, monitor = InProcess(tmp_path / "far"), Monitor()
    assert spread(idle, recipes, backend).run(monitor) == ("done", None)
    assert ends(idle, recipes) == [1] * 5
    assert {point for point, _ in monitor.stages} <= set(range(5))
    started = next(event for event in read_events(idle.run(recipes[0].run_id)))
    assert (started["event"], started["user"]) == ("run_started", "ada")


def test_a_worker_that_is_gone_costs_what_had_not_arrived_and_nothing_is_doubled(
    idle: Workspace, tmp_path: Path
) -> None:
    recipes = [recipe(alpha / 10, steps=6, sleep=0.02) for alpha in range(6)]
    backend = InProcess(tmp_path / "far", dies=lambda number: 2 if number in (0, 2) else None, echo=True)
    assert spread(idle, recipes, backend).run(Monitor()) == ("done", None)
    assert ends(idle, recipes) == [1] * 6
    own = Trials(idle, "j", "")
    assert own.count() == Count(done=6)
    assert len(backend.last) > 2, "two more were started"


def test_workers_that_never_live_are_not_started_for_ever(idle: Workspace, tmp_path: Path) -> None:
    backend = InProcess(tmp_path / "far")
    backend.ready = lambda handle: handle.update(dead=True) or False  # type: ignore[method-assign]
    with pytest.raises(JobError, match="no worker of it stays alive"):
        spread(idle, [recipe(0.1)], backend).run(Monitor())


def test_a_cancelled_job_stops_by_the_flag_and_its_trials_wait(
    idle: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipes = [recipe(alpha / 10, steps=1000, sleep=0.01) for alpha in range(2)]
    monitor = Monitor()
    monitor.should_cancel = lambda: len(monitor.stages) > 3
    with pytest.raises(Cancelled):
        spread(idle, recipes, InProcess(tmp_path / "far")).run(monitor)
    assert [last_status(idle.run(one.run_id)) for one in recipes] == ["cancelled"] * 2
    assert Trials(idle, "j", "").count() == Count(waiting=2)


def test_a_fault_of_the_input_fails_its_trial_alone_and_a_fault_of_ours_the_job(
    idle: Workspace, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    recipes = [recipe(0.1, ends="data"), recipe(0.2, sleep=0.0)]
    state, error = spread(idle, recipes, InProcess(tmp_path / "far")).run(Monitor())
    assert (state, error) == ("failed", "prompts.csv: it has no rows. Choose another file.")
    assert ends(idle, recipes) == [0, 1]
    other = Workspace(tmp_path / "other").create()
    with pytest.raises(RuntimeError, match="ZeroDivisionError: no luck"):
        spread(other, [recipe(0.3, ends="bug")], InProcess(tmp_path / "far 2")).run(Monitor())


def test_batches_that_came_before_or_are_of_an_older_attempt_or_out_of_turn_are_dropped(idle: Workspace) -> None:
    def batch(attempt: int, number: int) -> Batch:
        return Batch("r", attempt, number, encode({"event": f"{attempt}.{number}", "t": 1.0}))

    collector = Collector(idle)
    assert collector.add(batch(1, 1)) is False, "nobody has begun"
    assert collector.begin("r", 1) == b""
    assert [collector.add(batch(1, number)) for number in (1, 1, 3, 2)] == [True, False, False, True]
    collector.begin("r", 2)
    assert [collector.add(one) for one in (batch(1, 3), batch(2, 1))] == [False, True]
    collector.end("r")
    assert collector.add(batch(2, 2)) is False
    assert [event["event"] for event in read_events(idle.run("r"))] == ["1.1", "1.2", "2.1"]


def test_no_worker_writes_beside_its_own_run(idle: Workspace) -> None:
    collector = Collector(idle)
    collector.begin("r", 1)
    assert collector.add(Batch("r", 1, 1, artifacts={"a.bin": b"1", "../../x": b"2", "/x": b"3"}))
    assert [path.name for path in idle.merged_adapter("r").iterdir()] == ["a.bin"]
    assert not (idle.run("r") / "x").exists()


def test_a_batch_is_kept_until_it_is_known_to_have_arrived(idle: Workspace, tmp_path: Path) -> None:
    one = recipe(0.1, sleep=0.0)
    remote = Remote(FAKE, str(tmp_path / "far"))
    remote.give(Assignment(one.run_id, 1, one.model_dump(mode="json"), {}, "", "j"))
    deadline = time.monotonic() + 20
    while not (found := remote.take(0)) or found[-1].ended is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert remote.take(0) == found and [batch.number for batch in found] == list(range(1, len(found) + 1))
    assert remote.take(found[-1].number) == []


def test_a_run_goes_on_from_what_arrived_and_tells_only_what_is_new(idle: Workspace, tmp_path: Path) -> None:
    one = recipe(0.1, sleep=0.0)
    with EventWriter(idle.run(one.run_id)) as events:
        events.write("run_started", run_id=one.run_id)
        events.write("plan", suite="facts", batches=[[0]])
    known = arrived(idle, one.run_id)
    remote = Remote(FAKE, str(tmp_path / "far"))
    remote.give(Assignment(one.run_id, 2, one.model_dump(mode="json"), {one.run_id: known}, "", "j"))
    there(remote._thread).join(20)
    told = b"".join(batch.lines for batch in remote.take(0))
    assert b'"plan"' not in told and told.count(b'"run_started"') == 1 and b'"run_finished"' in told


def test_what_is_not_there_is_brought_and_the_record_says_where_it_was_here(tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "a.bin").write_bytes(b"weights")
    one = recipe(0.1).model_dump(mode="json")
    one["adapters"][0]["path"] = str(folder)
    assert places(one) == ["base", str(folder), "A7"]
    remote = Remote(FAKE, str(tmp_path / "far"))
    remote.sees = lambda path: False  # type: ignore[method-assign]
    assert remote.lacks(places(one)) == places(one)
    remote.bring(str(folder), "a.bin", b"weights")
    assert remote.lacks(places(one)) == ["base", "A7"]
    moved = remote._here(one)["adapters"][0]["path"]
    assert moved != str(folder) and (Path(moved) / "a.bin").read_bytes() == b"weights"
    remote.give(Assignment(Recipe.model_validate(one).run_id, 1, one, {}, "", "j"))
    there(remote._thread).join(20)
    assert remote.take(0)[-1].ended == "done"


def test_a_backend_that_is_not_installed_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert missing("ray") == 'pip install "sstmerge[ray]"' and missing("local") is None
