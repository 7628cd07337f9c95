"""Where workers run: as processes of this machine (`local`), or behind a `Backend` in actors of Ray or jobs of Slurm.

A backend starts workers that need nothing of this machine's disk: what a trial needs is brought to them, and what it
gave comes back in numbered batches. One process of this machine collects those and is the only one that writes.
"""

from __future__ import annotations

import importlib.util
import socket
from dataclasses import dataclass, field
from typing import Any, Protocol

LOCAL, RAY, SLURM = "local", "ray", "slurm"
NAMES = (LOCAL, RAY, SLURM)
NEEDS = {RAY: ("ray", "sstmerge[ray]"), SLURM: ("submitit", "sstmerge[slurm]")}
"""The module that a backend needs, and the extra that brings it"""
ANSWERS = 5.0
"""Seconds that a cluster may take to answer at its address"""


@dataclass(frozen=True)
class Assignment:
    """One attempt of one trial, with all that is known of it so far."""

    run: str
    attempt: int
    recipe: dict[str, Any]
    known: dict[str, bytes]
    """Event files of this run, which then goes on, and of the run that it is compared with, by run id"""
    user: str
    job: str


@dataclass(frozen=True)
class Batch:
    """What a worker has to tell since its last batch."""

    run: str
    attempt: int
    number: int
    """From 1 on within an attempt"""
    lines: bytes = b""
    """Whole lines of the run's event file"""
    progress: tuple[str, float, float] | None = None
    """Stage, and how much of how much of it is done"""
    ended: str | None = None
    """``done``, ``failed``, ``cancelled``, or ``broken`` by a fault of ours"""
    error: str | None = None
    artifacts: dict[str, bytes] = field(default_factory=dict)
    """Files of the merged adapter, by name"""


class Backend(Protocol):
    """How workers are started and spoken to. A handle is whatever the backend knows a worker by."""

    name: str

    def start(self) -> Any:
        """A handle of a new worker, which may have to wait for a place."""

    def ready(self, handle: Any) -> bool:
        """Whether it can be given work now."""

    def lacks(self, handle: Any, paths: list[str]) -> list[str]:
        """Which of these files and folders it cannot see where it is."""

    def bring(self, handle: Any, path: str, name: str, content: bytes) -> None:
        """One file to stand in for `path`, or for the file `name` in the folder `path`."""

    def give(self, handle: Any, work: Assignment) -> None: ...

    def take(self, handle: Any, after: int) -> list[Batch]:
        """Batches of the current assignment above number `after`, which have not been received; [] where none came."""

    def alive(self, handle: Any) -> bool: ...

    def cancel(self, handle: Any) -> None:
        """Ask it to stop at its next look."""

    def kill(self, handle: Any) -> None: ...

    def close(self) -> None:
        """Let go of everything."""


def unreachable(address: str) -> str | None:
    """What is wrong with the address of a cluster of Ray, ``HOST:PORT``; None where somebody answers, or Ray looks."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not address or address in ("auto", "local"):
        return None
    if not (host and port.isdecimal() and 0 < int(port) < 65536):
        return "is no address such as 10.0.0.1:6379"
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWERS).close()
    except (OSError, UnicodeError) as error:
        return f"nobody answers there ({error})"
    return None


def missing(name: str) -> str | None:
    """How to install what a backend needs, in one line; None where it is here."""
    if name not in NEEDS:
        return None
    module, extra = NEEDS[name]
    return None if importlib.util.find_spec(module) else f'pip install "{extra}"'
