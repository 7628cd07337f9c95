"""SIGKILL to the Playground in mid answer: to the process that has the model, and to the dashboard that asks it."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.reliability import checks, traps
from benchmarks.reliability.children import PATIENCE, Child, asked, fork
from benchmarks.reliability.inputs import Inputs, workspace
from benchmarks.reliability.worker_kills import said
from sstmerge_core import catalog
from sstmerge_core.jobs.process import Process
from sstmerge_core.playground import answering, client, columns, conversation, server
from sstmerge_core.workspace import Workspace

Row = dict[str, Any]
MODEL, PAGE = "its model process", "the dashboard that asks it"
STAGES = (MODEL, PAGE)
SCOPES: dict[str, traps.Scope] = {
    MODEL: (
        *("sstmerge_core/playground/", "models/beside.py", "models/chat.py", "models/checkpoint.py"),
        *("jobs/leases.py", "jobs/database.py", "jobs/dispatch.py", "evaluate/generate.py"),
    ),
    PAGE: (
        *("playground/answering.py", "playground/client.py", "playground/conversation.py"),
        *("workspace.py:write_file", "workspace.py:write_json"),
    ),
}
PROMPTS = ("w1 w2 w3", "w4 w5")
TOKENS = 12
IDLE_SECONDS = 60.0
WORDS = ("ended in the middle of the answer", "interrupted when the dashboard ended", "could not be started")
"""Of which the page says one where an answer is not there"""


@dataclass
class Case:
    """A workspace, what its models answer when nobody is killed, and how long either side is."""

    folder: Path
    template: Path
    inputs: Inputs
    straight: list[dict[str, str]] = field(default_factory=list)
    counted: dict[str, dict[str, int]] = field(default_factory=dict)

    @classmethod
    def made(cls, folder: Path, inputs: Inputs) -> Case:
        template = folder / "playground"

        def prepare() -> None:
            workspace(template, inputs)

        asked(prepare)
        case = cls(folder, template, inputs)
        own = case.fresh()
        traced = {stage: traps.Trap(SCOPES[stage], lambda: None) for stage in STAGES}
        child = fork(lambda: _talk(own, inputs, traced, told=True), own.root / "page.log")
        assert child.wait(300) == 0, child.text()
        case.straight = _answers(own)
        case.counted = {stage: checks.read_json(own.root / f"{stage}.json") for stage in STAGES}
        faults = _end(own)
        assert not faults and all(text for turn in case.straight for text in turn.values()), (faults, case.straight)
        return case

    def fresh(self) -> Workspace:
        target = self.folder / "chatting"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(self.template, target)
        return Workspace(target)


def _columns(own: Workspace) -> dict[str, tuple[columns.Column, float | None]]:
    utility, safety = (catalog.find(own, name) for name in ("U", "S"))
    merge = columns.live("linear", ("U", utility), ("S", safety))
    return {"base": (columns.base("base"), None), merge.key: (merge, 0.5)}


def _talk(own: Workspace, inputs: Inputs, traced: dict[str, traps.Trap], *, told: bool = False) -> int:
    """What a page does: ask, look at the answers as they grow, ask the next thing. Starts the model process by a fork.

    `told`: both sides write down how many lines they have run.
    """
    os.environ |= {"SSTMERGE_DEVICE": "cpu", "SSTMERGE_PLAYGROUND_IDLE": str(IDLE_SECONDS)}
    client._start = lambda where: _forked(where, traced.get(MODEL), told)  # type: ignore[assignment, return-value]
    if PAGE in traced:
        traced[PAGE].set()
    talk = conversation.new()
    (own.root / "talk").write_text(talk.id)
    for prompt in PROMPTS:
        now = answering.ask(own, talk, prompt, _columns(own), str(inputs.base), max_new_tokens=TOKENS)
        while now.alive:
            now.watched()
            time.sleep(0.02)
        if any(not answer.text or answer.ended == "failed" for answer in now.turn.answers.values()):
            break
    if told:
        checks.write_json(own.root / f"{PAGE}.json", dict(traps.counts(traced[PAGE])))
        client.stop(own)
        _gone(own)
    return 0


class _Forked:
    """A child as `client` takes it: polled by one thread while another waits for it."""

    def __init__(self, child: Child):
        self._child, self._lock = child, threading.Lock()

    def poll(self) -> int | None:
        with self._lock:
            return self._child.poll()

    def reap(self) -> None:
        while self.poll() is None:
            time.sleep(0.02)


def _forked(own: Workspace, trap: traps.Trap | None, told: bool) -> _Forked:
    def model() -> int:
        sys.settrace(None)
        threading.settrace(None)
        with open(own.root / "pids", "a") as file:
            file.write(f"{os.getpid()}\n")
        sys.argv = ["server", "--workspace", str(own.root)]
        once = own.root / "trapped"
        if trap is not None and not once.exists():
            once.touch()  # a process that is started after the killed one lives
            trap.set()
        # the handler of signals is for the main thread, which this one is: the fork has no other
        threading.main_thread = threading.current_thread
        signal.signal = lambda *_: None
        status = server.main()
        if told and trap is not None:
            checks.write_json(own.root / f"{MODEL}.json", dict(traps.counts(trap)))
        return status

    socket = server.socket_file(own)
    socket.parent.mkdir(parents=True, exist_ok=True)
    found = _Forked(fork(model, own.root / "model.log"))
    threading.Thread(target=found.reap, daemon=True).start()
    return found


def _answers(own: Workspace) -> list[dict[str, str]]:
    """What every column answered, by turn; what is not whole is left out."""
    talk = conversation.load(own, (own.root / "talk").read_text())
    assert talk is not None, "the conversation is not there"
    return [
        {key: answer.text for key, answer in turn.answers.items() if answer.ended in conversation.ANSWERED}
        for turn in talk.turns
    ]


def kill(case: Case, stage: str, seed: int, number: int) -> Row:
    """One side killed while it answers, then the page and the same prompt again; a row with what was found."""
    rng = random.Random(f"{seed} playground {number}")
    own, told = case.fresh(), case.counted[stage]
    begun = time.monotonic()
    mode = rng.choice(["line", "line", "time"])
    nth = rng.randint(1, max(1, told["lines"] if mode == "line" else told["lines"] // 2))
    pause = rng.uniform(0.0, min(0.4, told["ms"] / 2000))
    reading, writing = os.pipe()
    trap = traps.Trap(SCOPES[stage], traps.die if mode == "line" else traps.tell(writing), nth)
    child = fork(lambda: _talk(own, case.inputs, {stage: trap}), own.root / "page.log")
    if mode == "time" and said(reading, child):
        time.sleep(pause)
        if stage == PAGE:
            os.kill(child.pid, signal.SIGKILL)
        else:
            for pid in _pids(own):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
    faults: checks.Faults = []
    if child.wait() is None:
        faults.append(f"hung: the page waited for more than {PATIENCE:g} s")
        child.kill()
    os.close(reading)
    os.close(writing)
    row: Row = {"kind": "kill", "actor": "Playground", "stage": stage, "mode": mode, "life": number}
    row |= {
        "at": nth if mode == "line" else round(pause, 4),
        "died": child.status == -9 or (own.root / "trapped").exists(),
    }
    if child.status not in (0, -9):
        faults.append(f"page: its process ended with {child.status}: {child.text()[-800:]}")
    faults += checks.noise(child.text()) + checks.noise(_text(own.root / "model.log"))
    try:
        faults += asked(lambda: _after(case, own, stage))
    except RuntimeError as error:
        faults.append(f"check: {error}")
    faults += _end(own)
    return row | {"faults": faults, "seconds": time.monotonic() - begun}


def _after(case: Case, own: Workspace, stage: str) -> checks.Faults:
    """Nothing half-written, no lease of a dead process, a page with words, and the same answers when asked again."""
    from sstmerge_core.jobs import leases

    os.environ |= {"SSTMERGE_DEVICE": "cpu", "SSTMERGE_PLAYGROUND_IDLE": str(IDLE_SECONDS)}
    client._start = lambda where: _forked(where, None, False)  # type: ignore[assignment, return-value]
    faults: checks.Faults = []
    alive = [pid for pid in _pids(own) if _alive(pid)]
    if own.queue.exists():
        faults += [
            f"lease: {one.holder} of {one.process.pid}, which is dead"
            for one in leases.held(own)
            if one.process.pid not in alive
        ]
    if stage == PAGE and alive:
        deadline = time.monotonic() + 20
        while (now := client.status(own)) is not None and now.busy and time.monotonic() < deadline:
            time.sleep(0.05)
        if now is not None and now.busy:
            faults.append("hung: the model process answers on, though nobody listens")
    talk_file = own.root / "talk"
    talk = conversation.load(own, talk_file.read_text()) if talk_file.exists() else None
    if talk is not None:
        before = _answers(own)
        faults += _right(case, before)
        whole = len(before) == len(PROMPTS) and all(len(turn) == 2 for turn in before)
        last_whole = bool(before) and len(before[-1]) == 2
        words, shown = checks.page(own, "playground", chat=talk.id)
        faults += shown
        if not last_whole and not any(one in words for one in WORDS):
            faults.append(f"page: playground does not say why an answer is missing: {words[-800:]}")
        if not last_whole and "Start again" not in words:
            faults.append(f"page: playground has no button to start again: {words[-800:]}")
        if not whole and not last_whole:
            now_again = answering.ask_again(own, talk, _columns(own), str(case.inputs.base))
            while now_again.alive:
                now_again.watched()
                time.sleep(0.02)
            again = _answers(own)
            faults += _right(case, again)
            if len(again[-1]) != 2:
                said_now = [vars(answer) for answer in now_again.turn.answers.values()]
                faults.append(f"lost: no answer when asked again: {said_now}")
    left = [path.name for path in (own.playground / "conversations").glob("*") if path.suffix != ".json"]
    left = [name for name in left if ".partial-" not in name]  # what `tidy` knows
    return faults + [f"half-written: {name}" for name in left]


def _right(case: Case, found: list[dict[str, str]]) -> checks.Faults:
    return [
        f"bits: turn {number} of {key} is {text!r}, not {case.straight[number][key]!r}"
        for number, turn in enumerate(found)
        for key, text in turn.items()
        if text != case.straight[number][key]
    ]


def _pids(own: Workspace) -> list[int]:
    """Model processes that were started here, the first first."""
    return [int(line) for line in _text(own.root / "pids").split()]


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def _gone(own: Workspace, seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while (left := any(map(_alive, _pids(own)))) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not left


def _alive(pid: int) -> bool:
    try:
        return Process.of(pid).alive()
    except OSError:
        return False


def _end(own: Workspace) -> checks.Faults:
    """End the model process as *Stop* does; nothing of it may be left."""
    from sstmerge_core.jobs import leases

    faults = []

    def stop() -> None:
        client.stop(own)

    try:
        asked(stop)
    except RuntimeError as error:
        faults.append(f"stop: {error}")
    if not _gone(own):
        faults.append("hung: the model process does not end when it is told to")
        for pid in _pids(own):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    if own.queue.exists() and (held := asked(lambda: [one.holder for one in leases.held(own)])):
        faults.append(f"lease: {held} is left")
    return faults
