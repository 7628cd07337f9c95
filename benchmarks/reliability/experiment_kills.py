"""SIGKILL to experiments in mid work: a contest, a search and one that trains, by a job and by a command."""

from __future__ import annotations

import functools
import importlib.util
import os
import random
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.reliability import checks, traps
from benchmarks.reliability.children import PATIENCE, Child, asked, fork
from benchmarks.reliability.inputs import Inputs, workspace
from benchmarks.reliability.worker_kills import said, start
from sstmerge_core import experiments, jobs
from sstmerge_core.workspace import Workspace

Row = dict[str, Any]
COMMON: dict[str, Any] = {"n": 3, "n_selection": 2}
# a random model keeps no utility, so that only the sum chooses among what it says
SETTINGS: dict[str, dict[str, Any]] = {
    "alpha-k": {
        **{"pairs": [["U", "S"]], "methods": ["linear", "dare_linear", "sst_gevp"], "seeds": [1, 2], "goals": ["sum"]},
        **{"count": 1, "extend": 0, "ks": [2], "layerwise": [False], "goal": "sum"},
    },
    "search": {
        **{"utility": "U", "safety": "S", "methods": ["linear", "dare_linear", "sst_gevp"]},
        **{"trials": 4, "finalists": 2, "screen": 1},
    },
    "interference": {
        **{"counts": [2], "safety": "S", "rank": 2, "epochs": 1},
        "methods": {"linear": {"alpha": 0.5}, "sst_gevp": [{"alpha": 1.0, "k": 2}]},
    },
}
"""One that chooses on the selection split, one that searches by what it has seen, one that trains its adapters"""
SEARCHES = importlib.util.find_spec("optuna") is not None
STAGES = tuple(name for name in SETTINGS if name != "search" or SEARCHES)
SCOPE: traps.Scope = (
    *("sstmerge_core/experiments/", "sstmerge_core/runs/", "sstmerge_core/merge/", "sstmerge_core/fisher/"),
    *("sstmerge_core/train/", "sstmerge_core/catalog/", "evaluate/generate.py", "evaluate/judge.py"),
    *("adapters/write.py", "workspace.py:new_folder", "workspace.py:write_file", "store/events.py"),
)
KILLS = 3
"""Of one experiment at most"""
TOPICS = 3
"""Of the bundled facts, so that there is little to train on"""


@dataclass
class Case:
    """A workspace, and what each experiment finds in it when nobody kills it."""

    folder: Path
    template: Path
    inputs: Inputs
    found: dict[str, dict[str, Any]] = field(default_factory=dict)
    runs: dict[str, dict[str, checks.Results]] = field(default_factory=dict)
    files: dict[str, list[str]] = field(default_factory=dict)
    counted: dict[str, dict[str, int]] = field(default_factory=dict)

    @classmethod
    def made(cls, folder: Path, inputs: Inputs) -> Case:
        template = folder / "experiments"

        def prepare() -> None:
            workspace(template, inputs)

        asked(prepare)
        return cls(folder, template, inputs)

    def fresh(self) -> Workspace:
        """Always in the same place: an experiment's own prompts are named in its recipes by their path."""
        target = self.folder / "experimenting"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(self.template, target)
        return Workspace(target)

    def straight(self, name: str) -> None:
        """Have `name` carried out once without a fault, its lines counted."""
        if name in self.found:
            return
        own = self.fresh()

        def undisturbed() -> dict[str, int]:
            trap = traps.Trap(SCOPE, lambda: None)
            trap.set()
            _run(own, name, self.inputs)
            return dict(traps.counts(trap))

        self.counted[name] = asked(undisturbed, 600)
        self.found[name] = asked(lambda: _result(own, name))
        self.runs[name] = {path.name: checks.results(own, path.name) for path in own.runs.iterdir()}
        self.files[name] = _files(own)


def settings(name: str, inputs: Inputs) -> dict[str, Any]:
    given = {"base": str(inputs.base), **COMMON, **SETTINGS[name]}
    return experiments.get(name).read(given).model_dump(mode="json")


def _short() -> None:
    """Have this process ask for answers of three tokens, and know few of the bundled facts."""
    from sstmerge_core.builder import preflight
    from sstmerge_core.demo import adapters as demo

    made, all_rows = preflight.bundled.suite, demo.rows

    def suite(*given: Any, **more: Any) -> Any:
        return made(*given, **more).model_copy(update={"max_new_tokens": 3})

    @functools.cache
    def topics() -> list[str]:
        return list(dict.fromkeys(row["topic"] for row in all_rows(("facts",), "test")))[:TOPICS]

    def rows(names: Any, split: str) -> Any:
        found = all_rows(names, split)
        return [row for row in found if row["topic"] in topics()] if tuple(names) == ("facts",) else found

    preflight.bundled.suite = suite
    demo.rows = rows


def _run(own: Workspace, name: str, inputs: Inputs) -> int:
    """As the command does it."""
    from sstmerge_core import cli

    _short()
    os.environ["SSTMERGE_WORKSPACE"] = str(own.root)
    recipe = own.root.parent / f"{name}.yaml"
    chosen = experiments.get(name)
    recipe.write_text(experiments.write(chosen.read(settings(name, inputs))))
    return cli.main(["experiment", name, "--recipe", str(recipe), "--device", "cpu"])


def _result(own: Workspace, name: str) -> dict[str, Any]:
    """Everything of the result but how long it took."""
    paths = experiments.results(own, name)
    assert len(paths) == 1, f"{len(paths)} results of {name}"
    found = vars(experiments.load(paths[0])) | {"seconds": 0.0}
    found["tables"] = [vars(table) | {"rows": [_timeless(row) for row in table.rows]} for table in found["tables"]]
    return found


def _timeless(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if not key.endswith("seconds")}


def _files(own: Workspace) -> list[str]:
    """What an experiment leaves beside its runs, hidden files of a process that was killed included."""
    root = own.root / "experiments"
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*"))


def kill(case: Case, name: str, seed: int, life: int) -> Iterator[Row]:
    """One experiment, killed up to `KILLS` times and then done and compared: a row a kill and one of the end."""
    case.straight(name)
    rng = random.Random(f"{seed} experiment {life}")
    own, told = case.fresh(), case.counted[name]
    as_job = bool(rng.randrange(2))
    job_id, killed, before = "", 0, checks.whole_lines(own)
    while True:
        begun = time.monotonic()
        last = killed == KILLS
        mode = "" if last else rng.choice(["line", "line", "time"])
        # each time within what should be left
        nth = rng.randint(1, max(1, told["lines"] // (killed + 1) if mode == "line" else told["lines"] // 3))
        pause = rng.uniform(0.0, min(0.5, told["ms"] / 2000))
        reading, writing = os.pipe()
        trap = traps.Trap(SCOPE, traps.die if mode == "line" else traps.tell(writing), nth) if mode else None
        job_id, child = _begin(case, own, name, trap, job_id if as_job else None)
        os.close(writing)
        if mode == "time" and said(reading, child):
            time.sleep(pause)
            child.kill()
        faults: checks.Faults = []
        if child.wait(2 * PATIENCE) is None:
            faults.append(f"hung: the experiment did not end within {2 * PATIENCE:g} s")
            child.kill()
        os.close(reading)
        died = child.status == -9
        place: Row = {"kind": "kill", "actor": "experiment", "stage": f"{name}, {'job' if as_job else 'command'}"}
        place |= {"mode": mode, "at": nth if mode == "line" else round(pause, 4), "life": life}
        faults += checks.noise(child.text()) + checks.kept(before, own) + checks.doubled(own)
        runs = {run_id: found for run_id, found in case.runs[name].items() if own.run(run_id).exists()}
        faults += checks.true_so_far(own, case.runs[name] if not died else runs, finished=not died)
        faults += _asked(functools.partial(_told, case, own, name, job_id, died=died))
        before = checks.whole_lines(own)
        if not died:
            if child.status:
                faults.append(f"resume: ended with {child.status}: {child.text()[-800:]}")
            else:
                faults += _compared(case, own, name)
            yield place | {"kind": "resumed", "kills": killed, "faults": faults, "seconds": time.monotonic() - begun}
            return
        killed += 1
        yield place | {"faults": faults, "seconds": time.monotonic() - begun}


def _begin(case: Case, own: Workspace, name: str, trap: traps.Trap | None, job_id: str | None) -> tuple[str, Child]:
    """The experiment in a child: by a worker where `job_id` is given (empty: of a new job), else by the command."""
    log = own.root / ("command.log" if job_id is None else "worker.log")
    log.unlink(missing_ok=True)

    def before() -> None:
        _short()
        if trap is not None:
            trap.set()

    if job_id is not None:
        return start(own, job_id or {"name": name, "settings": settings(name, case.inputs)}, before)

    def command() -> int:
        if trap is not None:
            trap.set()
        return _run(own, name, case.inputs)

    return "", fork(command, log)


def _told(case: Case, own: Workspace, name: str, job_id: str, *, died: bool) -> checks.Faults:
    """Database and page; a result that is there can be read, and a job that was killed says so."""
    found = checks.one_truth(own, own.root.parent / "scratch")
    words, shown = checks.page(own, "experiments", experiment=name)
    found += shown + ([] if words else ["page: experiments says nothing"])
    for path in experiments.results(own, name):
        experiments.load(path)
    job = jobs.job(own, job_id) if job_id else None
    if died and job is not None and job.state == "lost" and "worker ended without a word" not in words:
        found.append(f"page: experiments does not say that the worker is gone: {words[-600:]}")
    expected = {"lost", "done"} if died else {"done"}
    if job_id and (job is None or job.state not in expected):
        found.append(f"queue: the job is {job.state if job else None} ({job.error if job else ''})")
    return found


def _compared(case: Case, own: Workspace, name: str) -> checks.Faults:
    """The same runs, rows, sentences and files as without a kill."""
    faults = []
    extra = {path.name for path in own.runs.iterdir()} ^ case.runs[name].keys()
    if extra:
        faults.append(f"doubled or lost: runs {sorted(extra)}")
    found = asked(lambda: _result(own, name))
    faults += [f"bits: {key} of the result differs" for key in found if found[key] != case.found[name][key]]
    asked(lambda: _tidied(own))
    left = set(_files(own)) ^ set(case.files[name])
    if left:
        faults.append(f"half-written: files that no undisturbed experiment leaves, or none: {sorted(left)}")
    return faults


def _tidied(own: Workspace) -> None:
    """Have what killed processes left taken away, as `sstmerge tidy --yes` does after a day."""
    from sstmerge_core.upkeep import tidy

    tidy.LEFT_BEHIND = 0.0
    tidy.carry_out(own, [item for item in tidy.plan(own) if item.kind == tidy.LEFTOVER])


def _asked(work: Any) -> checks.Faults:
    try:
        return asked(work)
    except RuntimeError as error:
        return [f"check: {error}"]
