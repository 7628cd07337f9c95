"""A program in a process of its own that need not import torch anew, for tests that kill it in the middle.

The processes are forks of one that has imported and not computed yet: each is begun in a hundredth of the time, and
ends, by a signal too, without a trace of what it had in memory.
"""

from __future__ import annotations

import atexit
import functools
import importlib
import json
import os
import subprocess
import sys
import traceback
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
_IMPORTED = ("torch", "transformers", "peft", "rouge_score.rouge_scorer", "sstmerge_core.runs.execute")


def died(program: str, *arguments: str) -> int:
    """Carry out the text of a program with these arguments; its exit code, negative the signal that ended it."""
    server = _server()
    assert server.stdin is not None and server.stdout is not None
    asked = {"program": program, "arguments": arguments, "folder": os.getcwd(), "variables": dict(os.environ)}
    print(json.dumps(asked), file=server.stdin, flush=True)
    return int(server.stdout.readline())


@functools.cache
def _server() -> subprocess.Popen[str]:
    command = [sys.executable, "-m", __name__]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=_ROOT)
    atexit.register(server.kill)
    return server


def _carry_out(program: str, arguments: list[str], folder: str, variables: dict[str, str]) -> None:
    """In the child: what the program prints is told as errors, for the server's answers go the other way."""
    os.dup2(2, 1)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    sys.argv = ["-c", *arguments]
    exec(compile(program, "<program>", "exec"), {"__name__": "__main__"})


def _serve() -> None:
    for name in _IMPORTED:
        importlib.import_module(name)
    for line in sys.stdin:
        if (child := os.fork()) == 0:
            code = 1
            try:
                _carry_out(**json.loads(line))
                code = 0
            except BaseException:
                traceback.print_exc()
            os._exit(code)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    _serve()
