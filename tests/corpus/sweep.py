"""Try every input of a corpus, in one child with limits; behind an input that hangs or ends it another one goes on.

The child is this module too: it says which case it begins, then what came of it. Memory is the most that the process
had while it was at one input (the kernel's high-water mark, set back before each), above what it had before.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tests.corpus.bounds import BYTES, SECONDS, peak, reset_peak
from tests.corpus.case import Case, Outcome, outcome

KINDS = ("adapters", "data_files", "documents_of_people", "statements", "injections")
"""Modules of this package that have `cases()`"""
ROOT = Path(__file__).resolve().parents[2]
_ADDRESS_SPACE = 3 << 30
"""Bytes that the child may map beyond what it has after its imports: a wall behind the measured bound"""
PATIENCE = 6 * SECONDS
"""Seconds without a word after which an input hangs; more than it may work, for other processes are at work too"""
_STARTING = 60.0
"""Seconds for the imports of a child"""


def sweep(kind: str) -> list[Outcome]:
    """What came of every input of a kind."""
    found: list[Outcome] = []
    done = False
    while not done:
        more, done = _child(kind, len(found))
        found += more
    return found


def _child(kind: str, start: int) -> tuple[list[Outcome], bool]:
    """The outcomes of one child from case `start` on, and whether it came to the end; else the last one ended it."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "tests.corpus.sweep", kind, str(start)]
    found: list[Outcome] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, cwd=ROOT) as child:
        assert child.stdout is not None
        begun, patience = "", _STARTING
        pending = b""
        while True:
            ready, _, _ = select.select([child.stdout], [], [], patience)
            chunk = os.read(child.stdout.fileno(), 1 << 16) if ready else b""
            if not chunk:
                child.kill()
                how, told = ("in no words", f"the process ended ({child.wait()})") if ready else ("hung", "")
                assert begun, f"the child of {kind} began no case"
                return [*found, Outcome(begun, how, told)], False
            *lines, pending = (pending + chunk).split(b"\n")
            for line in lines:
                said = json.loads(line)
                if "begun" in said:
                    begun, patience = said["begun"], PATIENCE
                elif "end" in said:
                    return found, True
                else:
                    found.append(Outcome(**said))


def _bounded(case: Case, folder: Path) -> Outcome:
    before, begun = reset_peak(), _worked()
    found = outcome(case, folder)
    # another process's work on this machine is not this input's time; what waits without working hangs, see `sweep`
    found = replace(found, seconds=round(_worked() - begun, 3), bytes=max(0, peak() - before))
    if not found.is_fault and (found.seconds > SECONDS or found.bytes > BYTES):
        return replace(found, how="beyond the bounds", told=f"{found.seconds:.1f} s, {found.bytes / 1e6:.0f} MB")
    return found


def _worked() -> float:
    """Seconds of processor time of this process and of its children that ended."""
    return sum(os.times()[:4])


def _limit_memory() -> None:
    with contextlib.suppress(OSError, ValueError):  # not on every system
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + _ADDRESS_SPACE, mapped + _ADDRESS_SPACE))


def _main(kind: str, start: int) -> None:
    say = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no outcome
    with tempfile.TemporaryDirectory(prefix="corpus-") as scratch:
        cases: Sequence[Case] = importlib.import_module(f"tests.corpus.{kind}").cases(Path(scratch))
        _limit_memory()
        for number, case in enumerate(cases[start:]):
            print(json.dumps({"begun": case.name}), file=say, flush=True)
            folder = Path(scratch) / f"case-{number}"
            folder.mkdir()
            print(json.dumps(_bounded(case, folder).as_dict()), file=say, flush=True)
            shutil.rmtree(folder, ignore_errors=True)
        print(json.dumps({"end": True}), file=say, flush=True)


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]))
