"""Run generated programs in a child process of their own, one each, and say how many pass. Imports no torch."""

from __future__ import annotations

import json
import math
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from sstmerge_core.errors import Problem, RecipeError

CHILD = Path(__file__).with_name("code_child.py")
SECONDS = 5.0
"""Wall and processor time of one program"""


def passes(program: str, seconds: float = SECONDS) -> bool:
    """Whether a Python program runs to its end without an error, within `seconds`.

    It runs under `python -I` with an empty environment in an empty folder, with limits on memory, time and processes,
    and may neither write, nor read beyond Python's own files, nor reach the network; see `code_child`.
    """
    token = secrets.token_hex(16)
    request = {"program": program, "seconds": max(1, math.ceil(seconds)), "token": token}
    with tempfile.TemporaryDirectory(prefix="sstmerge-code-") as folder:
        try:
            child = subprocess.run(
                [sys.executable, "-I", "-B", str(CHILD)],
                input=json.dumps(request).encode(),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=seconds + 1,
                env={"LC_ALL": "C.UTF-8"},
                cwd=folder,
            )
        except subprocess.TimeoutExpired:
            return False
    return child.stdout == token.encode()


def pass_at_k(n: int, c: int, k: int) -> float:
    """1 − C(n−c, k)/C(n, k): the chance that one of k answers passes, from c that pass of n (arXiv:2107.03374, eq. 1).

    Raises RecipeError where k answers cannot be drawn from n.
    """
    if not 1 <= k <= n or not 0 <= c <= n:
        raise RecipeError(Problem("pass@k", f"n={n}, c={c}, k={k} do not fit", "Take 1 ≤ k ≤ n answers."))
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def share_passing(programs: Sequence[str], k: int = 1) -> float:
    """pass@k of one problem from its answers, each a whole program with its tests."""
    return pass_at_k(len(programs), sum(passes(program) for program in programs), k)
