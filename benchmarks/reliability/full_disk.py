"""A disk that is full from one moment on, at every stage of a job, of a server and of the commands.

The workspace lies on a small disk of its own (tmpfs, mounted in a namespace of this process), which a file fills up to
some bytes. Where nobody may mount one, nothing is tried, and the document says so.
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path
from typing import Any

from benchmarks.browser import free_port
from benchmarks.reliability import checks, server_kills, traps, worker_kills
from benchmarks.reliability.children import PATIENCE, asked, fork
from sstmerge_core import jobs, worker

Row = dict[str, Any]
WORKER = worker_kills.STAGES
OTHERS = (*server_kills.STAGES, *server_kills.COMMANDS)
LEFT = (0, 4096, 65536)
"""Bytes that are left"""


def job(case: worker_kills.Case, stage: str, seed: int, number: int) -> Row:
    """A job whose disk fills up in `stage`; then there is room again, and it is resumed."""
    rng = random.Random(f"{seed} disk worker {number}")
    own = case.fresh("killed")
    told = case.census[stage]
    scope = traps.STAGES.get(stage) or tuple(part for parts in traps.STAGES.values() for part in parts)
    left, nth = rng.choice(LEFT), rng.randint(1, max(1, told["lines"] * 2 // 3))
    row = {"kind": "full disk", "actor": "worker", "stage": stage, "at": nth, "left": left, "life": number}
    begun = time.monotonic()
    act = traps.fill(own.root, left)
    reference = stage == traps.REFERENCE

    def before() -> None:
        worker.END_SECONDS = 1.0  # nobody makes room meanwhile
        traps.Trap(scope, act, nth, reference).set()

    job_id, child = worker_kills.start(own, case.recipes, before)
    faults: checks.Faults = []
    if child.wait() is None:
        faults.append("hung")
        child.kill()
    reached = (own.root / "filler").exists()
    if reached and stage != "queue":
        faults += checks.noise(child.text())
    name = rng.choice(["merge", "run", "overview"])

    def full() -> checks.Faults:
        query = {"job": job_id} if name == "merge" else {}
        said, shown = checks.page(own, name, **query)
        return shown + ([] if said else [f"page: {name} says nothing"])

    lines = checks.whole_lines(own)
    faults += _asked(full)
    (own.root / "filler").unlink(missing_ok=True)
    found = jobs.job(own, job_id)
    told_why = f"{found.error if found else ''} {child.text()}"
    if found is not None and found.state != "done":
        if "disk" not in told_why:
            faults.append(f"words: neither the job nor its log says that the disk was full: {told_why[-800:]}")
        (own.root / "worker.log").unlink(missing_ok=True)
        job_id, child = worker_kills.start(own, job_id)
        if child.wait() != 0:
            faults.append(f"resume: ended with {child.status}: {child.text()[-800:]}")
            child.kill()
    faults += checks.kept(lines, own) + checks.doubled(own)
    faults += checks.true_so_far(own, case.straight, finished=True)
    faults += _asked(lambda: checks.one_truth(own, case.folder / "scratch"))
    return row | {"reached": reached, "faults": faults, "seconds": time.monotonic() - begun}


def other(case: server_kills.Case, stage: str, counted: dict[str, dict[str, int]], seed: int, number: int) -> Row:
    """A server or a command whose disk fills up in `stage`; then there is room again, and all is as it should be."""
    rng = random.Random(f"{seed} disk server {number}")
    own = case.fresh()
    left, nth = rng.choice(LEFT), rng.randint(1, max(1, counted[stage]["lines"] * 2 // 3))
    actor = "command" if stage in server_kills.COMMANDS else "server"
    row = {"kind": "full disk", "actor": actor, "stage": stage, "at": nth, "left": left, "life": number}
    trap = traps.Trap(traps.OTHER[stage], traps.fill(own.root, left), nth)
    begun, before, faults = time.monotonic(), checks.whole_lines(own), []
    if actor == "command":

        def command() -> int:
            trap.set()
            return server_kills.command(stage, own, case.inputs)

        child = fork(command, case.folder / "command.log")
        if child.wait() is None:
            faults.append(f"hung for {PATIENCE:g} s")
            child.kill()
    else:
        port = free_port()
        child = server_kills.serve(own, port, trap.set, case.folder / "server.log")
        try:
            told = asked(lambda: server_kills.visit(port, case.inputs.base.name))
            faults += [f"page: {text}" for text in told["exceptions"]]
            if told["pages"] < 5:
                faults.append(f"server: gone after {told['pages']} pages: {child.text()[-800:]}")
        except RuntimeError as error:
            faults.append(f"visitor: {error}")
        child.kill()
    reached = (own.root / "filler").exists()
    faults += checks.noise(child.text())
    child.log.unlink(missing_ok=True)
    (own.root / "filler").unlink(missing_ok=True)
    faults += checks.kept(before, own) + checks.doubled(own)

    def after() -> checks.Faults:
        found = server_kills.settled(own, resume=True) + server_kills.registered(own, case.inputs, stage)
        return found + server_kills.readable(own) + checks.one_truth(own, case.folder / "scratch")

    faults += _asked(after)
    return row | {"reached": reached, "faults": faults, "seconds": time.monotonic() - begun}


def _asked(work: Any) -> checks.Faults:
    try:
        return asked(work)
    except RuntimeError as error:
        return [f"check: {error}"]


def possible(folder: Path) -> bool:
    """Whether this folder lies on a disk small enough to fill."""
    return os.statvfs(folder).f_blocks * os.statvfs(folder).f_frsize < 1 << 30
