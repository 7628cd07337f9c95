"""The fault suite: kills, full disks, damage, clocks, two servers and locks, and the document of what was found.

    python -m benchmarks.reliability [--kills 200] [--seed 1] [--short] [--only KIND ...] [--new]

Every trial is a line of `results.jsonl` in the working folder: a run that was stopped goes on where it was. At the end
the section of `docs/reliability.md` that the faults stand in is written anew. Exit status 1 where anything was lost,
doubled, different, hung or not told in words. `--short` is the form that the tests run.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import pkgutil
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# a fork of a process with threads may wait for a lock for ever: one core for everything here, and in the children
os.environ |= {"OMP_NUM_THREADS": "1", "SSTMERGE_DEVICE": "cpu", "TOKENIZERS_PARALLELISM": "false"}

from benchmarks.browser import ROOT
from benchmarks.reliability import (
    clocks,
    damage,
    document,
    experiment_kills,
    full_disk,
    locks,
    playground_kills,
    server_kills,
    two_servers,
    worker_kills,
)
from benchmarks.reliability.children import asked
from benchmarks.reliability.inputs import Inputs, make

Row = dict[str, Any]
KINDS = ("kill", "experiment", "Playground", "full disk", "damage", "clock", "two servers", "locks")
SERVER_SHARE = 0.3
"""Of the kills, those of servers and commands"""
EXPERIMENTS = 10
"""Of them, each killed up to `experiment_kills.KILLS` times"""
ANSWERS = 24
"""Of the Playground, half of them with the model process killed and half with the dashboard"""
MOUNTED = "SSTMERGE_RELIABILITY_MOUNTED"
DISK = 192 << 20
"""Bytes of the small disk on which everything happens"""


def main() -> int:
    options = _parser().parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    if not os.environ.get(MOUNTED) and (status := _on_a_small_disk(options.folder)) is not None:
        return status
    results = options.folder / "results.jsonl"
    if options.new:
        results.unlink(missing_ok=True)
    begun = time.monotonic()
    work = Path(tempfile.mkdtemp(prefix="work-", dir=_disk(options.folder)))
    try:
        suite = Suite(work, options)
        suite.run(results)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    rows = document.read(results)
    wrong = [row for row in rows if row["faults"]]
    print(f"{len(rows)} trials in all, {len(wrong)} with faults; {time.monotonic() - begun:.0f} s", file=sys.stderr)
    if not options.short:
        document.write(rows, options.seed)
    return 1 if wrong else 0


def _parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--kills", type=int, default=200)
    found.add_argument("--seed", type=int, default=1)
    found.add_argument("--short", action="store_true", help="one trial of most kinds; writes no document")
    found.add_argument("--only", nargs="*", choices=KINDS, default=list(KINDS))
    found.add_argument("--new", action="store_true", help="forget what was found before")
    found.add_argument("--folder", type=Path, default=ROOT / "workspace" / "reliability", help="of results")
    found.add_argument(
        "--inputs", type=Path, nargs=3, metavar=("BASE", "UTILITY", "SAFETY"), help="instead of made ones"
    )
    return found


class Suite:
    """All trials in one order; what a trial needs is prepared when the first one needs it."""

    def __init__(self, work: Path, options: argparse.Namespace):
        self.work, self.options = work, options
        self._import_all()
        made = options.folder / "inputs"
        if options.inputs:
            self.inputs = Inputs(*(path.resolve() for path in options.inputs))
        else:
            asked(lambda: bool(make(made)), 300)
            self.inputs = Inputs.at(made)
        self._worker: worker_kills.Case | None = None
        self._server: server_kills.Case | None = None
        self._damage: damage.Case | None = None
        self._experiments: experiment_kills.Case | None = None
        self._playground: playground_kills.Case | None = None
        self._counted: dict[str, dict[str, int]] | None = None

    def run(self, results: Path) -> None:
        """Every trial that `results` does not have yet."""
        known = {row["name"] for row in document.read(results)}
        trials = [(name, trial) for name, trial in self.trials() if name.split(" · ")[0] in self.options.only]
        begun, done = time.monotonic(), 0
        with open(results, "a") as file:
            for number, (name, trial) in enumerate(trials, start=1):
                if name in known:
                    continue
                for row in trial():
                    file.write(json.dumps(row | {"name": name}) + "\n")
                    file.flush()
                    for fault in row["faults"]:
                        print(f"\n{name}: {json.dumps(row)[:300]}\n  {fault}", file=sys.stderr)
                done += 1
                left = (time.monotonic() - begun) / done * (len(trials) - number)
                print(
                    f"\r{number}/{len(trials)} {name:60} {left / 60:4.0f} min left ",
                    end="",
                    file=sys.stderr,
                    flush=True,
                )
        print(file=sys.stderr)

    def trials(self) -> Iterator[tuple[str, Callable[[], Iterator[Row]]]]:
        """Name and trial; the name says all that it depends on."""
        seed, kills, short = self.options.seed, self.options.kills, self.options.short
        others = round(kills * SERVER_SHARE)
        lives = worker_kills.lives(kills - others, kills, seed)
        for number, stages in enumerate(lives):
            yield f"kill · worker {seed} {number} of {kills}", self._killed(stages, number)
        served = (*server_kills.STAGES, *server_kills.COMMANDS)
        for number in range(others):
            yield f"kill · server {seed} {number} of {kills}", self._served(served[number % len(served)], number)
        for number, stage in enumerate(server_kills.KEEPING * (0 if short else 6)):
            yield f"kill · {stage} {seed} {number}", self._served(stage, others + number)
        for number in range(0 if short else EXPERIMENTS):
            named = experiment_kills.STAGES[number % len(experiment_kills.STAGES)]
            yield f"experiment · {seed} {number}", self._experiment(named, number)
        for number in range(0 if short else ANSWERS):
            side = playground_kills.STAGES[number % len(playground_kills.STAGES)]
            yield f"Playground · {seed} {number}", self._talk(side, number)
        for number, stage in enumerate(full_disk.WORKER * (1 if short else 2)):
            if not short or stage == "generation":
                yield f"full disk · worker {seed} {number}", self._full(stage, number)
        for number, stage in enumerate(full_disk.OTHERS * (1 if short else 2)):
            if not short:
                yield f"full disk · server {seed} {number}", self._full_server(stage, number)
        for number, (file, kind) in enumerate((file, kind) for kind in damage.DAMAGES for file in damage.FILES):
            if not short or (file, kind) in damage.SHORT:
                yield f"damage · {seed} {number}", self._damaged(file, kind)
        for place in clocks.PLACES:
            for name in clocks.JUMPS:
                if not short:
                    yield f"clock · {place} {name} {seed}", self._jumped(place, name)
        for number in range(0 if short else 6):
            yield f"two servers · {seed} {number}", self._two(number)
        for name in locks.REFUSALS:
            for place in locks.PLACES:
                if not short:
                    yield f"locks · {place} {name}", self._unlocked(place, name)
            if not short:
                yield f"locks · beneath {name}", self._beneath(name)

    @property
    def worker(self) -> worker_kills.Case:
        if self._worker is None:
            self._worker = worker_kills.Case.made(self.work, self.inputs, counted=not self.options.short)
        return self._worker

    @property
    def server(self) -> server_kills.Case:
        if self._server is None:
            self._server = server_kills.Case.made(self.work, self.inputs)
        return self._server

    @property
    def counted(self) -> dict[str, dict[str, int]]:
        if self._counted is None:
            stages = (*server_kills.STAGES, *server_kills.COMMANDS)
            short = {stage: dict(worker_kills.SHORTEST) for stage in (*stages, *server_kills.KEEPING)}
            self._counted = short if self.options.short else server_kills.census(self.server)
        return self._counted

    def _killed(self, stages: list[str], number: int) -> Callable[[], Iterator[Row]]:
        return lambda: worker_kills.kill(self.worker, stages, self.options.seed, number)

    def _served(self, stage: str, number: int) -> Callable[[], Iterator[Row]]:
        return lambda: iter([server_kills.kill(self.server, stage, self.counted, self.options.seed, number)])

    def _experiment(self, name: str, number: int) -> Callable[[], Iterator[Row]]:
        def trial() -> Iterator[Row]:
            if self._experiments is None:
                self._experiments = experiment_kills.Case.made(self.work, self.inputs)
            yield from experiment_kills.kill(self._experiments, name, self.options.seed, number)

        return trial

    def _talk(self, stage: str, number: int) -> Callable[[], Iterator[Row]]:
        def trial() -> Iterator[Row]:
            if self._playground is None:
                self._playground = playground_kills.Case.made(self.work, self.inputs)
            yield playground_kills.kill(self._playground, stage, self.options.seed, number)

        return trial

    def _full(self, stage: str, number: int) -> Callable[[], Iterator[Row]]:
        return lambda: self._if_small(lambda: full_disk.job(self.worker, stage, self.options.seed, number))

    def _full_server(self, stage: str, number: int) -> Callable[[], Iterator[Row]]:
        work = lambda: full_disk.other(self.server, stage, self.counted, self.options.seed, number)  # noqa: E731
        return lambda: self._if_small(work)

    def _if_small(self, trial: Callable[[], Row]) -> Iterator[Row]:
        if full_disk.possible(self.work):
            yield trial()

    def _damaged(self, file: str, kind: str) -> Callable[[], Iterator[Row]]:
        def trial() -> Iterator[Row]:
            if self._damage is None:
                self._damage = damage.Case.made(self.worker)
            yield damage.harm(self._damage, file, kind, self.options.seed)

        return trial

    def _jumped(self, place: str, name: str) -> Callable[[], Iterator[Row]]:
        def trial() -> Iterator[Row]:
            case = self.worker if place == "worker" else None
            yield clocks.jump(case, self.server, place, name, self.options.seed)

        return trial

    def _two(self, number: int) -> Callable[[], Iterator[Row]]:
        return lambda: iter([two_servers.pair(self.server, self.options.seed, number)])

    def _unlocked(self, place: str, name: str) -> Callable[[], Iterator[Row]]:
        def trial() -> Iterator[Row]:
            yield locks.within(self.worker if place == "worker" else None, self.server, place, name)

        return trial

    def _beneath(self, name: str) -> Callable[[], Iterator[Row]]:
        return lambda: iter(filter(None, [locks.beneath(self.server, name)]))

    def _import_all(self) -> None:
        """What children would import one by one, for seconds each."""
        import sstmerge_core
        import studio

        for package in (sstmerge_core, studio):
            for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
                if not module.name.endswith(("__main__", "sandbox_child", "code_child")):
                    importlib.import_module(module.name)
        for name in PRELOADED:
            importlib.import_module(name)
        gc.collect()
        gc.freeze()  # else a collection in a child would copy every page of this process


PRELOADED = (
    *("torch", "duckdb", "pandas", "plotly.express", "plotly.io", "pyarrow", "rouge_score.rouge_scorer", "numpy"),
    *("transformers", "transformers.models.llama.modeling_llama", "transformers.integrations.sdpa_attention"),
    *("transformers.models.auto.modeling_auto", "transformers.models.auto.tokenization_auto", "safetensors.torch"),
    *("streamlit", "streamlit.testing.v1", "streamlit.web.bootstrap", "uvicorn", "websockets.sync.client"),
    *(["optuna"] if experiment_kills.SEARCHES else []),
)


def _disk(folder: Path) -> Path:
    """Where the trials' workspaces lie: the small disk, where one could be mounted."""
    mounted = os.environ.get(MOUNTED, "")
    return Path(mounted) if mounted and mounted != "no" else folder


def _on_a_small_disk(folder: Path) -> int | None:
    """Run this program anew with a small disk of its own; None where this system lets nobody mount one."""
    place = Path(tempfile.mkdtemp(prefix="sstmerge-disk-"))
    mount = f"mount -t tmpfs -o size={DISK} tmpfs {place}"
    try:
        tried = subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True, check=False)
    except OSError:
        tried = None
    try:
        if tried is None or tried.returncode:
            os.environ[MOUNTED] = "no"
            return None
        command = [sys.executable, "-m", "benchmarks.reliability", *sys.argv[1:]]
        run = ["unshare", "-rm", "sh", "-c", f'{mount} && exec "$@"', "sh", *command]
        return subprocess.run(run, env=os.environ | {MOUNTED: str(place)}, check=False).returncode
    finally:
        place.rmdir()


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # what was frozen is not torn down: DuckDB's bindings would print every object as a leak
