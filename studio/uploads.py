"""Files that browsers send: how large, and how many from one visitor and from all."""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from typing import Any

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from sstmerge_core import access, words
from sstmerge_core.errors import AccessError, Problem
from studio import start

SPAN = 3600.0
"""Seconds over which uploads are counted"""
EACH = (60, 2 << 30)
"""Files and bytes of one visitor within `SPAN`: of who is signed in, else of a browser tab"""
ALL = (600, 16 << 30)
"""Files and bytes of all visitors"""
_EVERYBODY = ""

Sent = tuple[float, str, int]
"""When, which, how many bytes"""


class Counter:
    """What was sent lately, by visitor."""

    def __init__(self) -> None:
        self._sent: dict[str, deque[Sent]] = defaultdict(deque)
        self._lock = threading.Lock()

    def take(self, who: str, file: str, size: int, now: float) -> str | None:
        """Count a file, once however often a page is drawn; why it is too much, and then it is not counted."""
        with self._lock:
            for name in [name for name, sent in self._sent.items() if not sent or sent[-1][0] < now - SPAN]:
                del self._sent[name]
            for name in (who, _EVERYBODY):
                sent = self._sent[name]
                while sent and sent[0][0] < now - SPAN:
                    sent.popleft()
            if any(known == file for _, known, _ in self._sent[who]):
                return None
            for name, (files, most), whose in ((who, EACH, "of yours"), (_EVERYBODY, ALL, "of all visitors")):
                sent = self._sent[name]
                if len(sent) >= files:
                    return f"{files} files {whose} in an hour are the limit"
                if sum(one for _, _, one in sent) + size > most:
                    return f"{words.size(most)} {whose} in an hour are the limit"
            for name in (who, _EVERYBODY):
                self._sent[name].append((now, file, size))
            return None


@st.cache_resource(show_spinner=False)
def _counter() -> Counter:
    return Counter()


def accept(file: Any, *, largest: int | None = None) -> None:
    """Let a file of `st.file_uploader` in. Raises AccessError where the visitor may not, or it is too much."""
    access.require("add")
    where = f"upload {words.shortened(file.name)}"
    if largest is not None and file.size > largest:
        fix = "Give its path on this machine instead."
        raise AccessError(Problem(where, f"is larger than {words.size(largest)}", fix))
    context = get_script_run_ctx(suppress_warning=True)
    who = start.user() if start.signed_in() else context.session_id if context else "-"
    if why := _counter().take(who, file.file_id, file.size, time.time()):
        raise AccessError(Problem(where, f"is one too many: {why}", "Wait, or give a path on this machine."))
