"""Cases that break every bound: for the test that `sweep` sees it."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tests.corpus.bounds import BYTES
from tests.corpus.case import RIGHT, Case


def cases(scratch: Path) -> list[Case]:
    return [
        Case("fine", RIGHT, lambda folder: True),
        Case("hangs", RIGHT, _sleep),
        Case("takes memory", RIGHT, lambda folder: len(bytearray(b"x") * (BYTES + 10_000_000)) > 0),
        Case("takes too much memory", RIGHT, lambda folder: len(bytearray(b"x") * (4 << 30)) > 0),
        Case("ends the process", RIGHT, lambda folder: os._exit(3)),
        Case("fine at the end", RIGHT, lambda folder: True),
    ]


def _sleep(folder: Path) -> bool:
    time.sleep(60)
    return True
