"""The command line: ``sstmerge COMMAND``; `sstmerge --help` lists the commands.

Exit codes: 0 done; 2 wrong usage, method or parameter; 3 adapter; 4 data, base model or disk; 5 database; 6 job; 7 not
allowed; 130 stopped. Errors go to standard error, one line each; results go to standard output.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sstmerge_core import __version__
from sstmerge_core.errors import DataError, Problem, SSTMergeError, disk_problem
from sstmerge_core.workspace import Workspace


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    typed = sys.argv[1:] if arguments is None else arguments
    options = _parser(typed[0] if typed else "").parse_args(arguments)
    if named := getattr(options, "workspace", None):  # of `serve`; whatever it starts is to find the same folder
        os.environ["SSTMERGE_WORKSPACE"] = named
    try:
        workspace = Workspace.default()
        with _terminable(), _shown_as_text(), _device(options, workspace.create()):
            return options.run(options, workspace) or 0
    except SSTMergeError as error:
        for problem in error.problems:
            print(f"sstmerge: {' '.join(str(problem).split())}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("sstmerge: stopped; launch it again to go on where it stopped.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except UnicodeEncodeError:
        strange = next((text for text in typed if not text.isascii() and re.search(r"[\ud800-\udfff]", text)), None)
        if strange is None:
            raise
        shown = strange.encode("ascii", "backslashreplace").decode()[:80]
        print(f"sstmerge: {shown}: has bytes that are no UTF-8 text. Give it as text.", file=sys.stderr)
        return DataError.exit_code
    except OSError as error:
        if (fault := disk_problem(error) or _typed(error, typed)) is None:
            raise  # a fault of ours, which shows its traceback
        print(f"sstmerge: {fault}", file=sys.stderr)
        return DataError.exit_code


def _typed(error: OSError, arguments: Sequence[str]) -> Problem | None:
    """What the system said of a path that was typed, such as one below a file; None where it is of another."""
    if not isinstance(error.filename, str) or not error.strerror:
        return None
    place = Path(error.filename).absolute()
    for text in arguments:
        if text and "\0" not in text and len(text) < 4096:
            path = Path(text).expanduser().absolute()
            if path.is_relative_to(place) or (place.is_relative_to(path) and path != Path(path.anchor)):
                fault = error.strerror[:1].lower() + error.strerror[1:]
                return Problem(error.filename, f"cannot be used: {fault}", "Give another path.")
    return None


@contextlib.contextmanager
def _shown_as_text() -> Iterator[None]:
    """What is printed on a terminal is text; into a file or another program it goes as it is."""
    from sstmerge_core.cli.printing import Terminal

    if not sys.stdout.isatty():
        yield
        return
    with contextlib.redirect_stdout(Terminal(sys.stdout)):
        yield


_COMMANDS = {
    "serve": ("serve",),
    "merge": ("merge", "recipe"),
    "measure": ("demo", "evaluate", "sweep"),
    "screen": ("screen",),
    "pick": ("pick", "score"),
    "precision": ("precision",),
    "experiment": ("experiment",),
    "judge": ("judge",),
    "suites": ("suites", "academic"),
    "shelf": ("train", "adapters"),
    "store": ("store",),
    "records": ("jobs", "query", "db"),
    "runs": ("runs",),
    "push": ("push",),
    "report": ("report",),
    "keeping": ("backup", "restore", "import", "tidy", "audit"),
}
"""Module → its commands, in the order of ``--help``"""


def _parser(called: str = "") -> argparse.ArgumentParser:
    """The parser of the command that is called; of all of them where that is none. What it imports is all it needs."""
    wanted = [module for module, names in _COMMANDS.items() if called in names]
    parser = argparse.ArgumentParser(prog="sstmerge", description="Merge safety adapters and measure what they cost.")
    parser.add_argument("--version", action="version", version=f"sstmerge {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[..., Any], about: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=about, description=about)
        added.set_defaults(run=run, called=name)
        return added

    for module in wanted or _COMMANDS:
        importlib.import_module(f"{__name__}.{module}").register(command)
    return parser


@contextlib.contextmanager
def _device(options: argparse.Namespace, workspace: Workspace) -> Iterator[None]:
    """A lease of the device that the command computes on, where it does: a GPU that is taken is waited for."""
    if not hasattr(options, "device") or any(getattr(options, flag, False) for flag in _WITHOUT_A_DEVICE):
        yield
        return
    if getattr(options, "where", "local") != "local":  # workers compute, and have their own
        yield
        return
    from sstmerge_core import jobs

    told: set[str] = set()

    def waiting(by: str) -> None:
        if by not in told:
            print(f"Waiting for {device}: {by} has it.", file=sys.stderr, flush=True)
            told.add(by)

    device = jobs.default_device() if options.device == "auto" else options.device
    with jobs.holding(workspace, device, f"sstmerge {options.called}", waiting=waiting):
        yield


_WITHOUT_A_DEVICE = ("detach", "dry_run", "only_show", "prepare", "write_recipe", "workers", "address")
"""Options with which a command computes nothing, or has workers do it"""


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """A polite kill ends the command as Ctrl-C does, so that nothing half-written stays behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
