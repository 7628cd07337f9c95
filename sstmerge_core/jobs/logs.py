"""The end of a job's log, without reading the whole file."""

from __future__ import annotations

import os
from pathlib import Path

from sstmerge_core.workspace import is_file

BLOCK = 64 << 10
MOST = 4 << 20
"""A log without line ends (progress bars) is not read further back than this."""


def tail(path: Path, lines: int) -> str:
    """The last `lines` lines, '' without a file. Of a line rewritten with carriage returns, what is seen last."""
    if lines < 1 or not is_file(path):
        return ""
    with open(path, "rb") as file:
        start = end = file.seek(0, os.SEEK_END)
        data = b""
        while start > 0 and data.count(b"\n") <= lines and end - start < MOST:
            step = min(BLOCK, start)
            start -= step
            file.seek(start)
            data = file.read(step) + data
    text = data.decode("utf-8", "replace").replace("\r\n", "\n")
    shown = [line.rstrip("\r").rpartition("\r")[2] for line in text.removesuffix("\n").split("\n")]
    return "\n".join(shown[-lines:])
