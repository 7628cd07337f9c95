"""Two Streamlit servers on one workspace: both draw, both launch; the one that owns the database is killed."""

from __future__ import annotations

import contextlib
import random
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.browser import free_port
from benchmarks.reliability import checks, server_kills
from benchmarks.reliability.children import Child, asked, fork
from benchmarks.reliability.visitor import Visitor
from sstmerge_core.workspace import Workspace

Row = dict[str, Any]
TAKES_OVER = 15.0
"""Seconds within which the other server has the database"""


def pair(case: server_kills.Case, seed: int, number: int) -> Row:
    """Two servers visited at once; the first is killed, the second goes on, and nothing is lost or doubled."""
    rng = random.Random(f"{seed} two {number}")
    own, begun = case.fresh(), time.monotonic()
    before = checks.whole_lines(own)
    ports = [free_port(), free_port()]
    logs = [case.folder / f"server.{index}.log" for index in (0, 1)]
    servers: list[Child] = []
    faults: checks.Faults = []
    base = case.inputs.base.name
    try:
        for port, log in zip(ports, logs, strict=True):
            servers.append(server_kills.serve(own, port, log=log))
            if not servers[1:]:  # the first one takes the database
                asked(partial(_told, port, owns=True))
        visits = [
            fork(partial(_visited, port, base, case.folder / f"visit.{n}.json"), case.folder / f"visit.{n}.log")
            for n, port in enumerate(ports)
        ]
        for n, visitor in enumerate(visits):
            if visitor.wait() != 0:
                faults.append(f"visitor {n}: {visitor.status} {visitor.text()[-600:]}")
                visitor.kill()
                continue
            told = checks.read_json(case.folder / f"visit.{n}.json")
            faults += [f"page: server {n}: {text}" for text in told["exceptions"]]
            if told["pages"] < 5:
                faults.append(f"server {n}: gone after {told['pages']} pages")
        faults += asked(partial(_told, ports[1], owns=False))
        time.sleep(rng.uniform(0.0, 1.0))
        servers[0].kill()
        faults += asked(lambda: _taken_over(own, ports[1]))
    except RuntimeError as error:
        faults.append(f"check: {error}")
    finally:
        for server in servers:
            server.kill()
    faults += checks.noise("".join(server.text() for server in servers))
    for log in logs:
        log.unlink(missing_ok=True)
    faults += checks.kept(before, own) + checks.doubled(own)

    def after() -> checks.Faults:
        return (
            server_kills.settled(own, presses=2)
            + server_kills.readable(own)
            + checks.one_truth(own, case.folder / "scratch")
        )

    try:
        faults += asked(after)
    except RuntimeError as error:
        faults.append(f"check: {error}")
    return {"kind": "two servers", "stage": "", "life": number, "faults": faults, "seconds": time.monotonic() - begun}


def _visited(port: int, base: str, told: Path) -> None:
    checks.write_json(told, server_kills.visit(port, base))


def _told(port: int, *, owns: bool) -> checks.Faults:
    """The server that does not own the database says who does; the one that does says nothing of it."""
    with Visitor(port) as visitor:
        seen = visitor.open("overview")
    if ("holds the database" in seen.text) != owns and not seen.exceptions:
        return []
    return [f"words: who owns the database is told wrongly: {seen.text[:400]} {seen.exceptions}"]


def _taken_over(own: Workspace, port: int) -> checks.Faults:
    """Once the owner is dead the other one owns, and shows what has come since."""
    from sstmerge_core.store import EventWriter

    with EventWriter(own.run("late")) as events:
        events.write("run_started", label="after the kill", source="measured", run_id="late")
        events.write("run_finished", seconds=1.0)
    deadline = time.monotonic() + TAKES_OVER
    said = ""
    with contextlib.suppress(OSError), Visitor(port) as visitor:
        while time.monotonic() < deadline:
            seen = visitor.open("run", "run=late")
            said = seen.text + " ".join(seen.exceptions)
            if "holds the database" not in said and "no such run" not in said and not seen.exceptions:
                return []
            time.sleep(0.5)
    return [f"words: the second server did not take over within {TAKES_OVER:g} s: {said[:400]}"]
