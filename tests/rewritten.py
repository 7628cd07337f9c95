"""Event files changed by hand, as nobody but a test does: every line with the checksum of what it says then."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from sstmerge_core.store.events import encode, read_events

Event = dict[str, Any]


def write_events(folder: Path, events: Iterable[Event]) -> None:
    """`folder`/events.jsonl with these events and no others."""
    told = b"".join(map(encode, events))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "events.jsonl").write_bytes(told)


def rewrite_events(folder: Path, change: Callable[[Event], Event]) -> None:
    """Each event of `folder` as `change` returns it."""
    write_events(folder, [change(event) for event in read_events(folder)])
