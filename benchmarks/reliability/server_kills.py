"""SIGKILL to Streamlit servers and commands: at start, while they take results in, publish, draw, launch, rebuild."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.browser import ROOT, free_port
from benchmarks.reliability import checks, traps
from benchmarks.reliability.children import PATIENCE, Child, asked, fork
from benchmarks.reliability.inputs import Inputs, workspace
from benchmarks.reliability.visitor import Visitor
from sstmerge_core.adapters.archive import WEIGHTS
from sstmerge_core.workspace import Workspace, write_file

Row = dict[str, Any]
STAGES = ("ingest", "snapshot", "page", "launch")
COMMANDS = ("rebuild", "registration")
KEEPING = ("backup", "restore", "import", "training")
ARRIVING = 12
"""Runs that have come since the database was last written"""


@dataclass
class Case:
    """A workspace of some sixty runs whose database knows fifty of them."""

    folder: Path
    template: Path
    inputs: Inputs

    @classmethod
    def made(cls, folder: Path, inputs: Inputs) -> Case:
        def prepare() -> None:
            from sstmerge_core.store import Owner
            from tests.synthetic_workspace import fill, selected

            known = fill(workspace(folder / "served", inputs))
            with Owner.open(known) as owner:
                owner.ingest()
                owner.publish()
            for number in range(ARRIVING):
                selected(known, "A5", alpha=0.11 + number / 100)

        asked(prepare)
        return cls(folder, folder / "served", inputs)

    def fresh(self, name: str = "server") -> Workspace:
        target = self.folder / name
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(self.template, target)
        return Workspace(target)


def serve(own: Workspace, port: int, before: Callable[[], Any] = lambda: None, log: Path | None = None) -> Child:
    """A Streamlit server on `own`, as `sstmerge serve` runs it, but forked; the merges it launches are made up."""

    def work() -> None:
        os.environ["SSTMERGE_WORKSPACE"] = str(own.root)
        os.environ["SSTMERGE_EXECUTE"] = "tests.jobs.fake_execute:execute"
        os.environ["SSTMERGE_DEVICE"] = "cpu"
        os.environ["PYTHONPATH"] = str(ROOT)
        os.chdir(ROOT)
        from streamlit.web import bootstrap

        options = {
            "server.port": port,
            "server.headless": True,
            "server.fileWatcherType": "none",
            "browser.gatherUsageStats": False,
            "global.developmentMode": False,
        }
        bootstrap.load_config_options(options)
        before()
        bootstrap.run("app.py", False, [], options)

    return fork(work, log or own.root / "server.log")


def visit(port: int, base: str) -> dict[str, Any]:
    """Go through the pages and launch a merge; how far that went before the server was gone, and what was drawn."""
    merge = f"base={base}&utility=U&safety=S&method=linear"
    told: dict[str, Any] = {"pages": 0, "pressed": False, "exceptions": [], "seconds": []}
    with contextlib.suppress(OSError), Visitor(port) as visitor:
        for page, query in (("overview", ""), ("query", ""), ("merge", merge), ("pareto", "pair=A5_A7"), ("run", "")):
            seen = visitor.open(page, query)
            told["pages"] += 1
            told["exceptions"] += seen.exceptions
            told["seconds"].append(round(seen.seconds, 3))
            if page == "merge" and "Merge" in seen.buttons:
                told["pressed"] = True
                seen = visitor.open(page, query, press=seen.buttons["Merge"])
                told["exceptions"] += seen.exceptions
    return told


def census(case: Case) -> dict[str, dict[str, int]]:
    """Lines and seconds of every stage when nobody kills the server, and of the commands."""
    found: dict[str, dict[str, int]] = {}
    own, port, told = case.fresh(), free_port(), case.folder / "census.server.json"
    chosen = {name: traps.Trap(traps.OTHER[name], lambda: None) for name in STAGES}

    def before() -> None:
        many = traps.Census({})
        many.traps = chosen
        many.set()
        import threading

        def write() -> None:
            while True:
                time.sleep(0.2)
                checks.write_json(told, many.found())

        threading.Thread(target=write, daemon=True).start()

    server = serve(own, port, before)
    seen = asked(lambda: visit(port, case.inputs.base.name))
    assert seen["pressed"] and not seen["exceptions"], seen
    time.sleep(0.5)
    server.kill()
    found |= checks.read_json(told)
    for name in (*COMMANDS, *KEEPING):
        own = case.fresh()
        ready(name, own)

        def counting(name: str = name, own: Workspace = own) -> dict[str, int]:
            trap = traps.Trap(traps.OTHER[name], lambda: None)
            trap.set()
            command(name, own, case.inputs)
            return dict(traps.counts(trap))

        found[name] = asked(counting)
    asked(lambda: settled(own))
    return found


def command(name: str, own: Workspace, inputs: Inputs) -> int:
    from sstmerge_core import cli

    os.environ["SSTMERGE_WORKSPACE"] = str(own.root)
    if name == "rebuild":
        return cli.main(["db", "rebuild"])
    if name == "backup":
        return cli.main(["backup", str(_kept(own))])
    if name == "restore":
        return cli.main(["restore", str(_kept(own)), "--into", str(_again(own))])
    if name == "import":
        return cli.main(["import", str(_other(own))])
    if name == "training":
        return _train(own, inputs, _trained(own))
    from sstmerge_core import catalog

    if catalog.twin(own, catalog.entry(inputs.utility).sha256):
        return cli.main(["adapters", "add", str(inputs.utility), "--name", "again"])
    return 0


def _kept(own: Workspace) -> Path:
    return own.root.parent / f"{own.root.name}.backup"


def _again(own: Workspace) -> Path:
    return own.root.parent / f"{own.root.name}.restored"


def _other(own: Workspace) -> Path:
    return own.root.parent / "another workspace"


def _trained(own: Workspace) -> Path:
    return own.root.parent / f"{own.root.name}.trained"


def _train(own: Workspace, inputs: Inputs, out: Path) -> int:
    """Three epochs of six steps on made-up rows."""
    from sstmerge_core import cli

    rows = out.parent / "rows to train on.jsonl"
    if not rows.exists():
        pairs = ({"prompt": f"w{number} w{number + 1}", "response": f"w{number}"} for number in range(24))
        write_file(rows, "".join(json.dumps(pair) + "\n" for pair in pairs))
    what = ["--base", str(inputs.base), "--data", str(rows), "--out", str(out), "--name", "trained"]
    return cli.main(["train", *what, "--epochs", "3", "--batch-size", "4", "--rank", "2", "--device", "cpu"])


def ready(stage: str, own: Workspace) -> None:
    """What a command needs to be there, and nothing that an earlier one has left."""
    from sstmerge_core.train import checkpoint

    _kept(own).unlink(missing_ok=True)
    for folder in (_again(own), _trained(own), checkpoint.folder(_trained(own))):
        shutil.rmtree(folder, ignore_errors=True)
    if stage == "import" and not _other(own).exists():

        def another() -> None:
            from sstmerge_core.store import remarks, saved
            from tests.synthetic_workspace import selected

            there = Workspace(_other(own)).create()
            for number in range(4):
                selected(there, "A5", alpha=0.61 + number / 100)
            remarks.note(there, min(there.runs.iterdir()).name, "a note of theirs")
            saved.save(there, saved.SavedQuery("theirs", "SELECT 3"))

        asked(another)
    if stage == "restore":

        def kept() -> None:
            from sstmerge_core.upkeep import backup

            backup.make(own, _kept(own))

        asked(kept)


def _restored(own: Workspace, inputs: Inputs, stage: str) -> checks.Faults:
    """What a command was to leave is there whole or not at all; the next try goes well, and has every line and bit."""
    from sstmerge_core.upkeep import backup, importing

    if stage not in KEEPING:
        return []
    if stage == "import":
        importing.take(own, _other(own))
        runs = {name: lines for name, lines in checks.whole_lines(Workspace(_other(own))).items() if "runs/" in name}
        again = importing.take(own, _other(own)).new
        return checks.kept(runs, own) + ([f"doubled: imported twice: {again}"] if any(again.values()) else [])
    if stage == "training":
        straight = own.root.parent / "trained straight"
        if not straight.exists():
            _train(own, inputs, straight)
        if not _trained(own).exists() and _train(own, inputs, _trained(own)):
            return ["lost: the training does not go on"]
        same = (_trained(own) / WEIGHTS).read_bytes() == (straight / WEIGHTS).read_bytes()
        return [] if same else ["different: a training that was killed gave other weights"]
    if stage == "backup" and _kept(own).exists():
        backup.check(_kept(own))
    if stage == "backup":
        _kept(own).unlink(missing_ok=True)
        backup.make(own, _kept(own))
    if not _again(own).exists():
        backup.restore(_kept(own), _again(own))
    return checks.kept(checks.whole_lines(own), Workspace(_again(own)))


def kill(case: Case, stage: str, counted: dict[str, dict[str, int]], seed: int, number: int) -> Row:
    """One server or command, killed in `stage`; a row with what was found afterwards."""
    rng = random.Random(f"{seed} server {number}")
    own = case.fresh()
    ready(stage, own)
    told = counted[stage]
    begun = time.monotonic()
    mode = rng.choice(["line", "line", "time"])
    reading, writing = os.pipe()
    nth = rng.randint(1, max(1, told["lines"] if mode == "line" else told["lines"] // 2))
    act = traps.die if mode == "line" else traps.tell(writing)
    trap = traps.Trap(traps.OTHER[stage], act, nth)
    before = checks.whole_lines(own)
    pause = rng.uniform(0.0, min(0.4, told["ms"] / 2000))
    faults: checks.Faults = []
    commanded = stage in (*COMMANDS, *KEEPING)
    if commanded:

        def work() -> int:
            trap.set()
            return command(stage, own, case.inputs)

        child = fork(work, own.root / "command.log")
    else:
        port = free_port()
        child = serve(own, port, trap.set)
        log = case.folder / "visit.log"

        def look() -> None:
            checks.write_json(case.folder / "visit.json", visit(port, case.inputs.base.name))

        visitor = fork(look, log)
    if mode == "time":
        from benchmarks.reliability.worker_kills import said

        if said(reading, child):
            time.sleep(pause)
            child.kill()
    if not commanded:
        if visitor.wait() is None:
            faults.append("hung: a page was not drawn while the server lived")
            visitor.kill()
        elif visitor.status:
            faults.append(f"visitor: {visitor.text()[-800:]}")
        else:
            told_by = checks.read_json(case.folder / "visit.json")
            faults += [f"page: {text}" for text in told_by["exceptions"]]
        log.unlink(missing_ok=True)
        if child.poll() is None:
            mode = "after the last page"
            child.kill()
    elif child.wait() is None:
        faults.append(f"hung: the command did not end within {PATIENCE:g} s")
        child.kill()
    os.close(reading)
    os.close(writing)
    faults += checks.noise(child.text()) + checks.kept(before, own) + checks.doubled(own)
    row: Row = {"kind": "kill", "actor": "command" if commanded else "server", "stage": stage, "mode": mode}
    row |= {"at": nth if mode == "line" else round(pause, 4), "life": number, "died": child.status == -9}

    def after() -> checks.Faults:
        found = settled(own) + registered(own, case.inputs, stage)
        found += _restored(own, case.inputs, stage) + readable(own) + checks.one_truth(own, case.folder / "scratch")
        said_now, shown = checks.page(own, rng.choice(["overview", "merge", "pareto", "query", "adapters"]))
        return found + shown + ([] if said_now else ["page: it says nothing"])

    try:
        faults += asked(after)
    except RuntimeError as error:
        faults.append(f"check: {error}")
    return row | {"faults": faults, "seconds": time.monotonic() - begun}


def settled(own: Workspace, *, resume: bool = False, presses: int = 1) -> checks.Faults:
    """Whatever was launched is there once, and is done once the queue is looked at again.

    `resume`: by pressing Resume, where it has failed.
    """
    from sstmerge_core import jobs
    from sstmerge_core.store.events import read_events

    os.environ |= {"SSTMERGE_EXECUTE": "tests.jobs.fake_execute:execute", "PYTHONPATH": str(ROOT)}
    found = jobs.jobs(own)
    if len(found) > presses:
        return [f"doubled: {len(found)} jobs of {presses} press"]
    faults = []
    for job in found:
        ended = jobs.wait(own, job.job_id, timeout=60)
        if resume and ended.state in ("failed", "lost"):
            jobs.resume(own, job.job_id)
            ended = jobs.wait(own, job.job_id, timeout=60)
        if ended.state != "done":
            faults.append(f"lost: the job is {ended.state} ({ended.error})")
        for run_id in job.run_ids:
            ends = sum(event["event"] == "run_finished" for event in read_events(own.run(run_id)))
            if ends != 1:
                faults.append(f"doubled or lost: {run_id} finished {ends} times")
    return faults


def registered(own: Workspace, inputs: Inputs, stage: str) -> checks.Faults:
    """A registration that was killed can be done again, and is there once."""
    from sstmerge_core import catalog

    if stage != "registration":
        return []
    catalog.add(own, inputs.utility, name="again")
    names = [one.name for one in catalog.entries(own) if one.path == inputs.utility.resolve()]
    return [] if names == ["again"] else [f"registration: the adapter is there as {names}"]


def readable(own: Workspace) -> checks.Faults:
    """What was published last can be read."""
    from sstmerge_core.store import Snapshot, snapshot

    newest = snapshot.newest(own.snapshots)
    if newest is None:
        return []
    with Snapshot(newest) as opened, contextlib.closing(opened.cursor()) as cursor:
        count = cursor.execute("SELECT count(*) FROM leaderboard").fetchone()
    return [] if count and count[0] else ["snapshot: the newest is empty"]
