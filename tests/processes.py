"""A program in a process of its own that need not import torch anew, for tests that kill it in the middle.

The processes are forks of one that has imported and not computed yet: each is begun in a hundredth of the time, and
ends, by a signal too, without a trace of what it had in memory.
"""

from __future__ import annotations

import multiprocessing
import os
import sys

_IMPORTED = ("torch", "transformers", "peft", "rouge_score.rouge_scorer", "sstmerge_core.runs.execute")


def died(program: str, *arguments: str, timeout: float = 120.0) -> int:
    """Carry out the text of a program with these arguments; its exit code, negative the signal that ended it.

    What it prints is left to pytest. Raises TimeoutError where it does not end.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_IMPORTED))
    place = (os.getcwd(), dict(os.environ), list(sys.path))
    process = context.Process(target=_carry_out, args=(program, arguments, *place))
    process.start()
    process.join(timeout)
    if process.exitcode is None:
        process.kill()
        raise TimeoutError(f"it did not end in {timeout:.0f} s")
    return process.exitcode


def _carry_out(
    program: str, arguments: tuple[str, ...], folder: str, variables: dict[str, str], path: list[str]
) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    sys.path[:] = path
    sys.argv = ["-c", *arguments]
    exec(compile(program, "<program>", "exec"), {"__name__": "__main__"})
