"""Who launched, cancelled, added, removed and deleted what: one line each, appended and never changed.

What people say about runs (labels, tags, notes) carries its name already, in `store.remarks`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from sstmerge_core import access
from sstmerge_core.store.events import EventWriter, read_events
from sstmerge_core.workspace import Workspace

EVENT = "acted"
OWNER = "audit"
"""The folder of its file: such a line in a run's file says nothing"""
LONGEST = 300
"""Characters kept of a text"""


@contextlib.contextmanager
def act(workspace: Workspace, action: str, what: str, subject: str = "", *, about: str = "") -> Iterator[None]:
    """Do something in the name of who acts now, and record it once it is done.

    `action` is one of `access.ACTIONS`, `what` a word for the record (``launched``), `subject` what it was done to and
    `about` what people call that. Raises AccessError, before anything is done, where the role does not allow it.
    """
    access.require(action)
    yield
    record(workspace, what, subject, about=about)


def record(workspace: Workspace, what: str, subject: str = "", *, about: str = "") -> None:
    """Append a line in the name of who acts now."""
    who = access.actor()
    told = {"action": what, "subject": subject[:LONGEST], "about": about[:LONGEST]}
    with EventWriter(workspace.audit) as events:
        events.write(EVENT, **told, user=who.name, role=who.role, origin=who.origin)


def entries(workspace: Workspace) -> list[dict[str, Any]]:
    """What was recorded, the last first: ``t`` (UTC epoch seconds), ``action``, ``subject``, ``about``, ``user`` …"""
    return [event for event in read_events(workspace.audit) if event["event"] == EVENT][::-1]


def row(offset: int, time: str | None, event: Mapping[str, Any]) -> dict[str, Any]:
    """The row of table ``audit`` for an event; for `store.fold`."""
    names = ("action", "subject", "about", "user", "role", "origin")
    return {"seq": offset, "t": time} | {name: str(event.get(name) or "") for name in names}
