"""A clock that jumps forward or back, once or more, while a job works, a server publishes or a job is cancelled."""

from __future__ import annotations

import os
import random
import signal
import time
from typing import Any

from benchmarks.reliability import checks, server_kills, traps, worker_kills
from benchmarks.reliability.children import asked
from sstmerge_core.workspace import Workspace

Row = dict[str, Any]
JUMPS = {"an hour back": -3600.0, "a day forward": 86400.0, "ten years back": -3.15e8, "ten years forward": 3.15e8}
PLACES = ("worker", "publishing", "cancelling")


def jump(case: worker_kills.Case | None, server: server_kills.Case, place: str, name: str, seed: int) -> Row:
    """What `place` makes of a jump."""
    rng = random.Random(f"{seed} clock {place} {name}")
    begun = time.monotonic()
    act = _publishing if place == "publishing" else _cancelling
    try:
        if case is not None:
            faults = _worker(case, JUMPS[name], rng)
        else:
            faults = asked(lambda: act(server.fresh(), JUMPS[name]))
    except RuntimeError as error:
        faults = [f"check: {error}"]
    return {"kind": "clock", "stage": place, "mode": name, "faults": faults, "seconds": time.monotonic() - begun}


def _worker(case: worker_kills.Case, seconds: float, rng: random.Random) -> checks.Faults:
    """The clock jumps within a job, and is right again for whoever looks at it."""
    own = case.fresh("killed")
    stage = rng.choice(("gradients", "generation", "scoring"))
    nth = rng.randint(1, max(1, case.census[stage]["lines"] // 2))
    act = traps.jump(seconds)
    job_id, child = worker_kills.start(
        own, case.recipes, lambda: traps.Trap(traps.STAGES[stage], act, nth, False).set()
    )
    faults: checks.Faults = []
    if child.wait() != 0:
        faults.append(f"the worker ended with {child.status}: {child.text()[-800:]}")
        child.kill()
    faults += checks.noise(child.text()) + checks.doubled(own)
    faults += checks.true_so_far(own, case.straight, finished=True)

    def look() -> checks.Faults:
        found = checks.one_truth(own, case.folder / "scratch")
        for page, query in (("merge", {"job": job_id}), ("run", {"run": case.recipes[0].run_id}), ("overview", {})):
            found += checks.page(own, page, **query)[1]
        return found

    return faults + asked(look)


def _publishing(own: Workspace, seconds: float) -> checks.Faults:
    """What is published after a jump is what is read, and stays there."""
    from sstmerge_core.store import EventWriter, Owner, Snapshot, snapshot

    faults: checks.Faults = []
    with Owner.open(own) as owner:
        owner.ingest()
        for number in range(4):
            if number == 1:
                traps.jump(seconds)()
            with EventWriter(own.run(f"late{number}")) as events:
                events.write("run_started", label="late")
            owner.ingest()
            made = owner.publish()
            newest = snapshot.newest(own.snapshots)
            if newest is None or not made.exists() or made != newest:
                faults.append(f"lost: snapshot {number} is not the newest after the jump")
                continue
            with Snapshot(newest) as opened:
                sql = "SELECT count(*) FROM runs WHERE label = 'late'"
                found = opened.cursor().execute(sql).fetchone()
            if not found or found[0] != number + 1:
                faults.append(f"lost: the newest snapshot knows {found} of {number + 1} runs")
    return faults + checks.one_truth(own, own.root.parent / "scratch") + checks.page(own, "overview")[1]


def _cancelling(own: Workspace, seconds: float) -> checks.Faults:
    """A worker that does not listen is killed after its grace, whatever the clock says meanwhile."""
    from sstmerge_core import jobs
    from sstmerge_core.jobs import dispatch
    from sstmerge_core.jobs.process import Process
    from sstmerge_core.jobs.queue import Queue

    dispatch.GRACE = 0.5
    stubborn = os.fork()
    if stubborn == 0:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(60)
        os._exit(0)
    time.sleep(0.2)
    queue = Queue(own)
    queue.add("job-1", kind="sweep", name="deaf", user="", device="cpu", spec={"recipes": []}, run_ids=[])
    queue.start_one(lambda job_id, device: Process.of(stubborn))
    jobs.cancel(own, "job-1")
    traps.jump(seconds)()
    time.sleep(1.5)
    found = jobs.job(own, "job-1")
    gone, _ = os.waitpid(stubborn, os.WNOHANG)
    if not gone:
        os.killpg(stubborn, signal.SIGKILL)
        os.waitpid(stubborn, 0)
    state = found.state if found else "gone"
    return [] if state == "cancelled" else [f"hung: a job that was cancelled is {state} after its grace"]
