"""A job's points as rows: who claims which, what happens to those of a worker that is gone, and old files."""

from __future__ import annotations

import itertools
import json
import os
import signal
import sqlite3
import time
from pathlib import Path
from typing import Literal

import pytest

from sstmerge_core import jobs
from sstmerge_core.errors import JobError
from sstmerge_core.jobs import choice, dispatch
from sstmerge_core.jobs.process import Process
from sstmerge_core.jobs.queue import Queue
from sstmerge_core.jobs.trials import CLAIMABLE, LEASE, MOST_LOST, POINT, REFERENCE, Count, Trials
from sstmerge_core.recipe import Calibration, Evaluation, Recipe, Source, Suite
from sstmerge_core.store.events import last_status, read_events
from sstmerge_core.workspace import Workspace
from tests.jobs.conftest import eventually, recipe
from tests.there import there

KINDS: tuple[Literal["base", "utility"], ...] = ("base", "utility")
SUITE = Suite(
    name="facts", role="utility", source=Source(name="facts", path="facts", sha256="f" * 64), split="test", n=1
)


def add(workspace: Workspace, recipes: list[Recipe], name: str = "j", **settings: object) -> None:
    spec = {"recipes": [one.model_dump(mode="json") for one in recipes]}
    given = {"kind": "sweep", "user": "", "device": "cpu", "run_ids": [one.run_id for one in recipes]} | settings
    Queue(workspace).add(name, name=name, spec=spec, recipes=recipes, **given)  # type: ignore[arg-type]


def measured(alpha: float) -> Recipe:
    """A merge that is compared with its utility adapter alone."""
    return recipe(alpha).model_copy(update={"evaluation": Evaluation(suites=(SUITE,))})


def of_family(alpha: float, expansion: Literal["base", "utility"]) -> Recipe:
    rows = Source(name="rows", path="rows", sha256="a" * 64)
    calibration = Calibration(harm=rows, benign=rows, n_harm=1, n_benign=1, split="train", expansion=expansion)
    return recipe(alpha).model_copy(update={"calibration": calibration})


def rows(workspace: Workspace) -> list[sqlite3.Row]:
    with sqlite3.connect(workspace.queue) as db:
        db.row_factory = sqlite3.Row
        return db.execute("SELECT job, run, state, worker, attempt, lease_until FROM trials ORDER BY number").fetchall()


def here(pid: int = 0) -> Process:
    me = Process.of(os.getpid())
    return me if not pid else Process(pid, 1, me.host)


@pytest.fixture
def idle(tmp_path: Path) -> Workspace:
    """A workspace in which no process is started."""
    return Workspace(tmp_path / "idle").create()


def test_points_are_claimed_in_their_order_once_each(idle: Workspace) -> None:
    recipes = [recipe(alpha / 10) for alpha in range(5)]
    add(idle, recipes)
    ada, bob = Trials(idle, "j", "ada"), Trials(idle, "j", "bob")
    claimed = [there((ada, bob)[turn % 2].next()) for turn in range(5)]
    assert [trial.run for trial in claimed] == [one.run_id for one in recipes]
    assert ada.next() is None and ada.count() == Count(running=5)
    assert [row["worker"] for row in rows(idle)] == ["ada", "bob", "ada", "bob", "ada"]
    assert all(0 < row["lease_until"] - time.time() <= LEASE for row in rows(idle))


def test_a_run_that_others_are_compared_with_comes_first_and_they_wait_for_it(idle: Workspace) -> None:
    recipes = [measured(0.1), recipe(0.2), measured(0.3)]
    add(idle, recipes)
    ada, bob = Trials(idle, "j", "ada"), Trials(idle, "j", "bob")
    first = there(ada.next())
    assert (first.run, first.part) == (there(recipes[0].reference).run_id, REFERENCE)
    assert there(bob.next()).run == recipes[1].run_id, "what needs no reference goes on meanwhile"
    assert bob.next() is None
    second = there(ada.ended(first, "done", then=True))
    assert (second.run, second.part) == (recipes[0].run_id, POINT)
    assert there(bob.next()).run == recipes[2].run_id


def test_what_is_compared_with_a_run_that_failed_fails_with_it_and_the_fault_is_told_once(idle: Workspace) -> None:
    add(idle, [measured(0.1), measured(0.2)])
    ada = Trials(idle, "j", "ada")
    assert ada.ended(there(ada.next()), "failed", "facts: it has no rows.", then=True) is None
    assert ada.count() == Count(failed=3) and ada.faults() == ["facts: it has no rows."]


def test_a_worker_stays_with_the_points_that_share_its_gradients_and_another_takes_others(idle: Workspace) -> None:
    recipes = [of_family(alpha / 10, expansion) for alpha in range(3) for expansion in KINDS]
    add(idle, recipes)
    ada, bob = Trials(idle, "j", "ada"), Trials(idle, "j", "bob")
    first, second = there(ada.next()), there(bob.next())
    assert first.family != second.family
    for _ in range(2):
        first = there(ada.ended(first, "done", then=True))
        second = there(bob.ended(second, "done", then=True))
        assert [recipes[trial.number].calibration for trial in (first, second)] == [
            there(recipes[number].calibration) for number in (0, 1)
        ]


def test_one_run_is_never_at_work_in_two_jobs_at_a_time(idle: Workspace) -> None:
    add(idle, [recipe(0.1), recipe(0.2)], "first")
    add(idle, [recipe(0.1)], "second")
    one = there(Trials(idle, "first", "ada").next())
    assert Trials(idle, "second", "bob").next() is None
    Trials(idle, "first", "ada").ended(one, "done")
    assert there(Trials(idle, "second", "bob").next()).run == one.run


def test_a_job_that_has_ended_keeps_no_run_from_another(idle: Workspace) -> None:
    add(idle, [recipe(0.1)], "first")
    Queue(idle).start_one(lambda *_: here())
    Trials(idle, "first", "a far worker").next()
    Queue(idle).end("first", "lost")
    add(idle, [recipe(0.1)], "second")
    assert there(Trials(idle, "second", "bob").next()).run == recipe(0.1).run_id


def test_the_trial_of_a_dead_worker_is_claimed_again_and_what_the_dead_one_says_later_is_not_taken(
    idle: Workspace,
) -> None:
    add(idle, [recipe(0.1)], workers=2)
    queue, dead = Queue(idle), here(2**22 + 1)
    queue.start_one(lambda *_: dead)
    old = there(Trials(idle, "j", dead.name).next())
    dispatch.reconcile(idle)
    assert Trials(idle, "j", "").count() == Count(waiting=1) and there(queue.job("j")).state == "running"
    new = there(Trials(idle, "j", "bob").next())
    assert (new.run, new.attempt) == (old.run, old.attempt + 1)
    Trials(idle, "j", dead.name).ended(old, "failed", "too late")
    assert Trials(idle, "j", "").count() == Count(running=1)
    Trials(idle, "j", "bob").ended(new, "done")
    assert [(row["state"], row["attempt"]) for row in rows(idle)] == [("done", 2)]


def test_the_lease_of_a_silent_worker_of_another_machine_ends_and_a_sign_of_life_extends_it(
    idle: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(idle, [recipe(0.1)], workers=2)
    queue, far = Queue(idle), Process(1, 1, "elsewhere")
    queue.start_one(lambda *_: far)
    Trials(idle, "j", far.name).next()
    before, now = rows(idle)[0]["lease_until"], time.time
    monkeypatch.setattr(time, "time", lambda: now() + 30)
    assert queue.beat("j", far) is False
    assert rows(idle)[0]["lease_until"] - before >= 30
    dispatch.reconcile(idle)
    assert Trials(idle, "j", "").count() == Count(running=1)
    monkeypatch.setattr(time, "time", lambda: now() + 30 + LEASE + 1)
    dispatch.reconcile(idle)
    assert Trials(idle, "j", "").count() == Count(waiting=1)


def test_a_trial_that_takes_every_worker_with_it_fails_in_the_end_and_the_others_are_done(idle: Workspace) -> None:
    add(idle, [recipe(0.1), recipe(0.2)], workers=2)
    queue = Queue(idle)
    for number in range(MOST_LOST):
        dead = here(2**22 + 1 + number)
        assert queue.start_one(lambda *_, dead=dead: dead) == "j"
        assert there(Trials(idle, "j", dead.name).next()).run == recipe(0.1).run_id
        dispatch.reconcile(idle)
    last = Trials(idle, "j", "bob")
    last.ended(there(last.next()), "done")
    assert last.count() == Count(done=1, failed=1)
    dispatch.reconcile(idle)
    job = there(queue.job("j"))
    assert job.state == "failed" and "ended without a word 3 times" in there(job.error)


def test_a_job_whose_worker_died_after_its_last_word_is_done(idle: Workspace) -> None:
    add(idle, [recipe(0.1)])
    dead = here(2**22 + 1)
    Queue(idle).start_one(lambda *_: dead)
    own = Trials(idle, "j", dead.name)
    own.ended(there(own.next()), "done")
    dispatch.reconcile(idle)
    assert there(Queue(idle).job("j")).state == "done"


def test_a_resumed_job_looks_at_every_trial_again_and_counts_its_attempts_on(idle: Workspace) -> None:
    add(idle, [recipe(0.1), recipe(0.2)])
    dead = here(2**22 + 1)
    Queue(idle).start_one(lambda *_: dead)
    own = Trials(idle, "j", dead.name)
    own.ended(there(own.next()), "done")
    own.next()
    dispatch.reconcile(idle)
    assert there(Queue(idle).job("j")).state == "lost"
    Queue(idle).requeue("j")
    assert own.count() == Count(waiting=2)
    assert [there(own.next()).attempt for _ in range(2)] == [2, 2]


# --- which device, and whose turn ---


PIDS = itertools.count(1)


def start_all(workspace: Workspace) -> list[tuple[str, str]]:
    """(job, device) of every worker that may be started now, each a process that lives."""
    found: list[tuple[str, str]] = []

    def start(job_id: str, device: str) -> Process:
        found.append((job_id, device))
        return Process(next(PIDS), 1, "elsewhere")

    while Queue(workspace).start_one(start):
        pass
    return found


def test_a_sweep_takes_every_gpu_and_a_job_that_waits_gets_one_at_the_next_trial(idle: Workspace) -> None:
    gpus = ["cuda:0", "cuda:1"]
    add(idle, [recipe(alpha / 10) for alpha in range(5)], "sweep", device="cuda:0", devices=gpus, workers=2)
    assert start_all(idle) == [("sweep", "cuda:0"), ("sweep", "cuda:1")]
    add(idle, [recipe(0.9)], "next", device="cuda:0", devices=gpus)
    assert start_all(idle) == []
    queue, (first, second) = Queue(idle), [worker.process for worker in Queue(idle).workers()]
    assert queue.give_way("sweep", second) is True and queue.give_way("sweep", first) is False
    assert start_all(idle) == [("next", "cuda:1")]
    assert [(worker.job_id, worker.device) for worker in queue.workers()] == [("sweep", "cuda:0"), ("next", "cuda:1")]
    queue.leave("next", queue.workers()[1].process, "done")
    assert start_all(idle) == [("sweep", "cuda:1")], "what nobody waits for any more is the sweep's again"


def test_no_more_workers_are_started_than_there_are_trials(idle: Workspace) -> None:
    gpus = [f"cuda:{index}" for index in range(4)]
    add(idle, [recipe(0.1), recipe(0.2)], device="cuda:0", devices=gpus, workers=4)
    assert len(start_all(idle)) == 2


def test_workers_of_one_job_share_the_cpu_and_another_job_waits_for_it(idle: Workspace) -> None:
    add(idle, [recipe(alpha / 10) for alpha in range(5)], "sweep", workers=3)
    add(idle, [recipe(0.9)], "next")
    assert start_all(idle) == [("sweep", "cpu")] * 3
    assert there(Queue(idle).job("next")).queue_position == 1


def test_the_second_job_of_one_user_is_not_before_the_first_of_another(idle: Workspace) -> None:
    for number in range(3):
        add(idle, [recipe(0.1)], f"ada{number}", user="ada")
    add(idle, [recipe(0.2)], "bob0", user="bob")
    add(idle, [recipe(0.2)], "bob1", user="bob")
    add(idle, [recipe(0.3)], "eve0", user="eve", priority=1)
    order = [job.job_id for job in Queue(idle).active()]
    assert order == ["eve0", "ada0", "bob0", "ada1", "bob1", "ada2"]
    assert [there(Queue(idle).job(name)).queue_position for name in order] == [1, 2, 3, 4, 5, 6]


def test_who_comes_later_is_not_put_before_what_has_waited_through_many_turns(idle: Workspace) -> None:
    for number in range(4):
        add(idle, [recipe(0.1)], f"ada{number}", user="ada")
    queue = Queue(idle)
    for _ in range(2):
        there(queue.start_one(lambda *_: here()))
        queue.end(queue.active()[0].job_id, "done")
    add(idle, [recipe(0.2)], "bob0", user="bob")
    assert [job.job_id for job in queue.active()] == ["ada2", "bob0", "ada3"]


def test_a_pressing_job_is_put_before_what_its_own_user_has_waiting_and_before_nobody_elses(idle: Workspace) -> None:
    for number in range(3):
        add(idle, [recipe(0.1)], f"ada{number}", user="ada")
    add(idle, [recipe(0.2)], "bob0", user="bob")
    add(idle, [recipe(0.3)], "pressing", user="ada", priority=1)
    order = [job.job_id for job in Queue(idle).active()]
    assert order == ["pressing", "bob0", "ada0", "ada1", "ada2"]


def test_an_order_that_somebody_chose_by_hand_stands_against_turns_and_priorities(idle: Workspace) -> None:
    for number in range(2):
        add(idle, [recipe(0.1)], f"ada{number}", user="ada")
    add(idle, [recipe(0.2)], "bob0", user="bob", priority=5)
    queue = Queue(idle)
    assert queue.move("ada1", "first") == 1
    assert [job.job_id for job in queue.active()] == ["ada1", "bob0", "ada0"]
    assert queue.move("bob0", "down") == 3
    assert queue.start_one(lambda *_: here()) == "ada1"


def test_a_long_sweep_gives_the_device_to_another_user_after_its_time_and_goes_on_later(
    idle: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = Queue(idle)
    add(idle, [recipe(alpha / 10) for alpha in range(5)], "sweep", user="ada")
    queue.start_one(lambda *_: here())
    own = Trials(idle, "sweep", here().name)
    own.ended(there(own.next()), "done")
    add(idle, [recipe(0.8)], "again", user="ada")
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + choice.SLICE + 1)
    assert queue.give_way("sweep", here()) is False, "its own user waits for it to end"
    add(idle, [recipe(0.9)], "merge", user="bob")
    assert queue.move("merge", "first") == 1
    assert queue.give_way("sweep", here()) is True
    assert next((job.job_id, job.state) for job in queue.active()) == ("merge", "queued")
    assert queue.start_one(lambda *_: here()) == "merge"
    assert own.count() == Count(waiting=4, done=1)


def test_devices_go_by_one_name_and_what_is_hidden_is_not_taken(
    idle: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sstmerge_core.jobs import devices

    assert devices.canonical("cuda") == "cuda:0" and devices.canonical("cpu") == "cpu"
    monkeypatch.setattr(devices, "devices", lambda: ["cpu", "cuda:0", "cuda:1"])
    monkeypatch.delenv("SSTMERGE_DEVICE", raising=False)
    monkeypatch.delenv("SSTMERGE_WORKERS", raising=False)
    assert devices.default_device() == "cuda:0"
    assert devices.spread("cuda:0") == (["cuda:0", "cuda:1"], 2) and devices.spread("cpu") == (["cpu"], 1)
    assert devices.spread("cpu", 3) == (["cpu"], 3)
    monkeypatch.setenv("SSTMERGE_WORKERS", "two")
    with pytest.raises(JobError, match="no number of workers"):
        devices.spread("cpu")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert devices.place("cuda:1") == "cuda:5" and devices.place("cuda") == "cuda:3" and devices.place("cpu") == "cpu"


def test_no_gpu_is_the_default_where_none_may_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    from sstmerge_core.models import device

    monkeypatch.delenv("SSTMERGE_DEVICE", raising=False)
    monkeypatch.setattr(device, "_torch_is_for_cpus", lambda: False)
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter([Path("/dev/nvidia0")]))
    assert jobs.default_device() == "cuda:0"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert jobs.default_device() == "cpu"


def test_a_gpu_that_the_playground_holds_is_waited_for_and_the_cpu_is_shared(idle: Workspace) -> None:
    from sstmerge_core.jobs import leases

    assert leases.take(idle, "cuda", "Playground") is None
    assert leases.take(idle, "cpu", "sstmerge evaluate", "ada") is None
    add(idle, [recipe(0.1)], "on the GPU", device="cuda:0", user="bob")
    add(idle, [recipe(0.2)], "on the CPU")
    assert start_all(idle) == [("on the CPU", "cpu")]
    assert [(lease.device, lease.holder) for lease in jobs.holders(idle)] == [
        ("cuda:0", "Playground"),
        ("cpu", "sstmerge evaluate"),
    ]
    leases.give_back(idle, "cuda:0")
    assert start_all(idle) == [("on the GPU", "cuda:0")]
    assert leases.take(idle, "cuda:0", "Playground") == "the job on the GPU of bob"


def test_a_lease_ends_with_the_process_that_had_it(idle: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    from sstmerge_core.jobs import leases

    gone = here(2**22 + 1)
    monkeypatch.setattr(leases.Process, "of", lambda pid: gone)
    assert leases.take(idle, "cuda:0", "Playground") is None
    monkeypatch.undo()
    assert jobs.holders(idle) == []
    with jobs.holding(idle, "cuda:0", "sstmerge sweep"):
        assert [lease.holder for lease in jobs.holders(idle)] == ["sstmerge sweep"]
    assert jobs.holders(idle) == []


# --- real processes ---


def test_several_workers_share_one_sweep_and_a_killed_one_loses_and_doubles_nothing(workspace: Workspace) -> None:
    recipes = [recipe(alpha / 100, steps=4, sleep=0.05) for alpha in range(12)]
    job_id = jobs.submit(workspace, recipes, name="sweep", kind="sweep", workers=2)
    at_work = eventually(lambda: len(found := [one for one in jobs.workers(workspace) if one.run]) == 2 and found)
    assert {worker.device for worker in at_work} == {"cpu"}
    os.kill(at_work[1].process.pid, signal.SIGKILL)
    job = jobs.wait(workspace, job_id, timeout=60)
    assert (job.state, job.error, jobs.trial_count(workspace, job_id)) == ("done", None, Count(done=12))
    assert {row["worker"].split(":")[1] for row in rows(workspace)} != {str(at_work[0].process.pid)}
    for one in recipes:
        events = [event["event"] for event in read_events(workspace.run(one.run_id))]
        assert events.count("run_finished") == 1 and events[-1] == "run_finished"
    attempts = {row["run"]: row["attempt"] for row in rows(workspace)}
    assert attempts.pop(there(at_work[1].run)) >= 2 and set(attempts.values()) == {1}
    assert jobs.workers(workspace) == []


def test_every_worker_of_a_cancelled_sweep_stops_and_no_run_is_left_open(workspace: Workspace) -> None:
    recipes = [recipe(alpha / 100, steps=1000, sleep=0.05) for alpha in range(4)]
    job_id = jobs.submit(workspace, recipes, name="sweep", kind="sweep", workers=2)
    at_work = eventually(lambda: len(found := [one for one in jobs.workers(workspace) if one.run]) == 2 and found)
    jobs.cancel(workspace, job_id)
    assert jobs.wait(workspace, job_id, timeout=30).state == "cancelled"
    assert [last_status(workspace.run(there(worker.run))) for worker in at_work] == ["cancelled"] * 2
    assert jobs.trial_count(workspace, job_id) == Count(waiting=4) and jobs.workers(workspace) == []


# --- files of older versions ---

OLD = """
CREATE TABLE jobs (
    place INTEGER PRIMARY KEY AUTOINCREMENT, job_id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL, name TEXT NOT NULL, user TEXT NOT NULL, device TEXT NOT NULL,
    spec TEXT NOT NULL, run_ids TEXT NOT NULL, points INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'queued', created_at REAL NOT NULL, started_at REAL, finished_at REAL,
    host TEXT, pid INTEGER, pid_started INTEGER, heartbeat_at REAL, cancel_at REAL,
    point INTEGER NOT NULL DEFAULT 0, stage TEXT NOT NULL DEFAULT '', progress REAL NOT NULL DEFAULT 0,
    eta_seconds REAL, eta_at_half REAL, eta_error REAL, error TEXT
);
CREATE INDEX jobs_by_state ON jobs (state, device, place);
CREATE TABLE rates (scope TEXT, stage TEXT, seconds REAL, PRIMARY KEY (scope, stage));
"""


def test_an_old_queue_goes_on_as_it_was_and_its_waiting_jobs_get_their_trials(workspace: Workspace) -> None:
    recipes = [recipe(0.1), recipe(0.2)]
    spec = json.dumps({"recipes": [one.model_dump(mode="json") for one in recipes]})
    run_ids, me = json.dumps([one.run_id for one in recipes]), here()
    with sqlite3.connect(workspace.queue) as db:
        db.executescript(OLD)
        sql = "INSERT INTO jobs (job_id, kind, name, user, device, spec, run_ids, points, created_at) VALUES "
        for name in ("old", "second", "third"):
            db.execute(f"{sql} (?, 'sweep', ?, '', 'cpu', ?, ?, 2, 1.0)", [name, name, spec, run_ids])
        set_ = "state = 'running', started_at = 1, heartbeat_at = 1, host = ?, pid = ?, pid_started = ?"
        db.execute(f"UPDATE jobs SET {set_} WHERE job_id = 'old'", [me.host, me.pid, me.started])
        db.execute("INSERT INTO rates VALUES ('cpu/x', 'generate', 0.5)")
    db.close()
    queue = Queue(workspace)
    assert [(job.job_id, job.state) for job in jobs.active(workspace)] == [
        ("old", "running"),
        ("second", "queued"),
        ("third", "queued"),
    ]
    assert [worker.process for worker in queue.workers()] == [me] and queue.rates("cpu/x") == {"generate": 0.5}
    queue.ask_to_stop("third")
    queue.end("old", "done", process=me)
    assert jobs.wait(workspace, "second", timeout=30).state == "done"
    assert jobs.trial_count(workspace, "second") == Count(done=2)
    assert [last_status(workspace.run(one.run_id)) for one in recipes] == ["finished"] * 2


def test_ten_thousand_rows_do_not_make_a_claim_read_them_all(idle: Workspace) -> None:
    add(idle, [recipe(0.1)])
    plans = []
    with sqlite3.connect(idle.queue) as db:
        for where, order in (("part = 'point'", "number"), ("family = '0'", "number")):
            sql = CLAIMABLE.format(where=where, order=order)
            plans.append(" ".join(row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {sql}", ["j"])))
    assert "trials_by_number (job=? AND state=? AND part=?)" in plans[0]
    assert "trials_by_family (job=? AND state=? AND family=?)" in plans[1]
    assert not any("TEMP B-TREE" in plan for plan in plans), plans


def test_simulated_workers_that_die_in_the_middle_lose_and_double_nothing(idle: Workspace) -> None:
    from benchmarks.scale_out import recipes, simulate
    from sstmerge_core.jobs.database import opened

    with opened(idle.queue):
        found = simulate(idle, list(recipes(120)), workers=4, dying=0.1, seed=3)
    assert set(found.finished.values()) == {1} and len(found.finished) + found.given_up == 120
    assert found.at_once == 1 and found.deaths > 3
    assert found.attempts == len(found.finished) + found.deaths
