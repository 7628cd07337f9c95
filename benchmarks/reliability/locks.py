"""Disks that lock no files, as some network disks: every call for a lock fails, or is granted to everybody.

Locks of Python's own calls are replaced in the process; those that SQLite and DuckDB take are refused by a library
that is compiled here and loaded before libc (LD_PRELOAD), where there is a C compiler.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.browser import ROOT
from benchmarks.reliability import checks, server_kills, worker_kills
from benchmarks.reliability.children import asked
from sstmerge_core import jobs
from sstmerge_core.workspace import Workspace

Row = dict[str, Any]
REFUSALS = {"ENOLCK": errno.ENOLCK, "EOPNOTSUPP": errno.EOPNOTSUPP, "ENOSYS": errno.ENOSYS, "granted to all": 0}
PLACES = ("worker", "catalogue", "pages", "rebuild")

_LIBRARY = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/file.h>
static int code(void) { return NUMBER; }
static int locking(int what) {
    return what == F_SETLK || what == F_SETLKW || what == F_OFD_SETLK || what == F_OFD_SETLKW;
}
int flock(int file, int what) { (void)file; (void)what; if (code()) { errno = code(); return -1; } return 0; }
#define FORWARD(NAME)                                                       \
    int NAME(int file, int what, ...) {                                     \
        va_list rest; va_start(rest, what);                                 \
        void *argument = va_arg(rest, void *); va_end(rest);                \
        if (locking(what)) { if (code()) { errno = code(); return -1; } return 0; } \
        int (*next)(int, int, ...) = dlsym(RTLD_NEXT, #NAME);               \
        return next(file, what, argument);                                  \
    }
FORWARD(fcntl)
FORWARD(fcntl64)
"""

_WITHOUT = """
import sys
from pathlib import Path
from sstmerge_core.errors import SSTMergeError
from sstmerge_core.jobs.queue import Queue
from sstmerge_core.store import EventWriter, connect, rebuild
from sstmerge_core.workspace import Workspace, new_folder

own = Workspace(Path(sys.argv[1]))

def tried(name, what):
    try:
        what()
        print(name, "went well")
    except SSTMergeError as error:
        print(name, "told:", " ".join(str(error).split()))

def written():
    with EventWriter(own.run("late")) as events:
        events.write("run_started", label="late")

def folder():
    with new_folder(own.cache / "x") as temporary:
        (temporary / "a").write_text("a")

tried("events", written)
tried("folder", folder)
tried("queue", lambda: Queue(own).active())
tried("database", lambda: connect(own).close())
tried("rebuild", lambda: rebuild(own))
"""


def refuse(code: int) -> None:
    """Have every lock that this process's Python asks for refused with `code`; 0: granted without being one."""

    def lock(*_: Any, **__: Any) -> None:
        if code:
            raise OSError(code, os.strerror(code))

    fcntl.flock = lock
    fcntl.lockf = lock


def within(case: worker_kills.Case | None, server: server_kills.Case, place: str, name: str) -> Row:
    """What `place` makes of a disk that answers `name` when asked for a lock."""
    begun = time.monotonic()
    try:
        faults = _worker(case, REFUSALS[name]) if case is not None else _asked(server, place, REFUSALS[name])
    except RuntimeError as error:
        faults = [f"check: {error}"]
    return {"kind": "locks", "stage": place, "mode": name, "faults": faults, "seconds": time.monotonic() - begun}


def _worker(case: worker_kills.Case, code: int) -> checks.Faults:
    """A job on such a disk does its work, or is refused in words; on another disk it is done as ever."""
    own = case.fresh("killed")
    job_id, child = worker_kills.start(own, case.recipes, lambda: refuse(code))
    child.wait()
    faults = checks.noise(child.text())
    if child.status != 0:
        job = jobs.job(own, job_id)
        if job is None or "locks no files" not in (job.error or ""):
            faults.append(f"words: the job says {job.error if job else None}: {child.text()[-800:]}")
        _, child = worker_kills.start(own, job_id)
        child.wait()
    return faults + checks.true_so_far(own, case.straight, finished=True)


def _asked(server: server_kills.Case, place: str, code: int) -> checks.Faults:
    own = server.fresh()

    def work() -> checks.Faults:
        refuse(code)
        if place == "pages":
            return [fault for page in ("overview", "adapters", "run") for fault in checks.page(own, page)[1]]
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            status = server_kills.command("registration" if place == "catalogue" else "rebuild", own, server.inputs)
        well = status == 0 or "locks no files" in said.getvalue()
        return checks.noise(said.getvalue()) + ([] if well else [f"words: {status} {said.getvalue()}"])

    return asked(work) + asked(lambda: checks.one_truth(own, server.folder / "scratch"))


def beneath(server: server_kills.Case, name: str) -> Row | None:
    """The same for locks that SQLite and DuckDB take; None where no library can be made."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        return None
    own, begun = server.fresh(), time.monotonic()
    library = _compiled(compiler, server.folder, REFUSALS[name])
    environment = os.environ | {"LD_PRELOAD": str(library), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", _WITHOUT, str(own.root)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    faults = checks.noise(done.stderr)
    told = [line for line in done.stdout.splitlines() if "told:" in line]
    faults += [f"words: {line}" for line in told if "lock" not in line]
    if len(done.stdout.splitlines()) != 5:
        faults.append(f"ended with {done.returncode}: {done.stdout} {done.stderr[-800:]}")
    faults += asked(lambda: checks.one_truth(Workspace(own.root), server.folder / "scratch"))
    row = {"kind": "locks", "stage": "SQLite and DuckDB", "mode": name, "faults": faults, "said": told}
    return row | {"seconds": time.monotonic() - begun}


def _compiled(compiler: str, folder: Path, code: int) -> Path:
    source, library = folder / "locks.c", folder / f"locks.{code}.so"
    source.write_text(_LIBRARY.replace("NUMBER", str(code)))
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
    return library
