"""What people say about a run: labels of its answers by hand, tags, notes, a name.

Events like all else, in files of their own.

A worker holds its run's event file while it writes; people write to ``annotations/<run_id>`` under a lock that lasts
for one line. Nothing is overwritten there: the last event about a thing counts, and undoing is one more event. What is
asked for in one call is one line, so that a kill leaves all of it or nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from typing import Any

from sstmerge_core import access
from sstmerge_core.errors import Problem, StoreError
from sstmerge_core.store.events import EventWriter, read_events, run_folder
from sstmerge_core.workspace import Workspace

LABELS = ("refusal", "safe_nonrefusal", "harmful", "degenerate", "miss")
"""What a reader may say of an answer; data/judging/README.md says what each means"""
HAND = "hand"
"""What the name of a reader begins with where judges are named: ``hand:ada``, and ``hand`` where nobody signs in"""
LONGEST_TAG = 40
LONGEST_NAME = 60
LONGEST_NOTE = 4000
LONGEST_READER = 60

Answer = tuple[str, str]
"""Suite and prompt id"""


def judge_of(reader: str) -> str:
    """The name under which a reader's labels stand beside the judges'."""
    return f"{HAND}:{reader}" if reader else HAND


def label(
    workspace: Workspace, run_id: str, labels: Mapping[Answer, str | None], *, reader: str = ""
) -> dict[Answer, str | None]:
    """Set a reader's own labels of some answers, None to take one back; returns what they were before.

    Labelling what is returned again undoes this. Raises StoreError for a label or a name that cannot be used, and where
    there is no such run.
    """
    if wrong := sorted({one for one in labels.values() if one not in (*LABELS, None)}):
        fix = f"Use one of {', '.join(LABELS)}."
        raise StoreError(Problem(f"label {wrong[0]}", "is none that a reader gives", fix))
    reader = _short(reader, "name of the reader", LONGEST_READER, needed=False)
    with _writer(workspace, run_id) as events:
        known = _labels(events, reader)
        before = {answer: known.get(answer) for answer in labels}
        rows = [
            {"suite": suite, "prompt_id": prompt_id, "label": given}
            for (suite, prompt_id), given in labels.items()
            if before[suite, prompt_id] != given
        ]
        if rows:
            events.write("labelled", judge=judge_of(reader), rows=rows)
    return before


def tag(workspace: Workspace, run_id: str, text: str, *, user: str = "", removed: bool = False) -> str:
    """Put a tag on a run, or with `removed` take it off; returns the tag as it is stored.

    Upper and lower case are one tag. Raises StoreError for a tag that is empty or too long, and for an unknown run.
    """
    text = _short(text, "tag", LONGEST_TAG)
    with _writer(workspace, run_id) as events:
        events.write("tagged", tag=text, user=user, removed=removed)
    return text


def rename(workspace: Workspace, run_id: str, name: str, *, user: str = "") -> str:
    """Give a run a name of one's own, or with an empty one take it away; returns the name as it is stored.

    Every table and picture shows it instead of what the recipe is called. Raises StoreError for a name that is too
    long, and for an unknown run.
    """
    name = _short(name, "name of the run", LONGEST_NAME, needed=False)
    with _writer(workspace, run_id) as events:
        events.write("named", name=name, user=user)
    return name


def note(workspace: Workspace, run_id: str, text: str, *, user: str = "") -> str:
    """Add a note to a run; returns its id. Raises StoreError for an empty or too long one, and for an unknown run."""
    text = text.strip()
    if not text or len(text) > LONGEST_NOTE:
        fault = f"has {len(text):,} characters" if text else "is empty"
        raise StoreError(Problem("note", fault, f"Write 1 to {LONGEST_NOTE:,} characters."))
    note_id = secrets.token_hex(6)
    with _writer(workspace, run_id) as events:
        events.write("noted", note_id=note_id, text=text, user=user)
    return note_id


def remove_note(workspace: Workspace, run_id: str, note_id: str, *, user: str = "", removed: bool = True) -> None:
    """Take a note away, or with ``removed=False`` bring it back. Raises StoreError where there is none of this id."""
    with _writer(workspace, run_id) as events:
        known = read_events(events.path.parent)
        if not any(event["event"] == "noted" and event.get("note_id") == note_id for event in known):
            raise StoreError(Problem(f"note {note_id}", "is not here", "Somebody may have deleted the run's notes."))
        events.write("note_removed", note_id=note_id, user=user, removed=removed)


def _writer(workspace: Workspace, run_id: str) -> EventWriter:
    access.require("say")
    return EventWriter(workspace.annotations / run_folder(workspace, run_id).name)


def _labels(events: EventWriter, reader: str) -> dict[Answer, str | None]:
    """A reader's labels by what is in the file, which `events` holds."""
    return {
        (row["suite"], row["prompt_id"]): row["label"]
        for event in read_events(events.path.parent)
        if event["event"] == "labelled" and event.get("judge") == judge_of(reader)
        for row in event.get("rows") or []
    }


def rows(owner: str, time: str | None, event: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Table and row of each thing that an event of an annotation file says; for `store.fold`."""
    name = event["event"]
    common = {"run_id": owner, "t": time, "user": event.get("user") or ""}
    removed = bool(event.get("removed"))
    if name == "labelled":
        for row in event.get("rows") or []:
            yield "verdicts", row | {"run_id": owner, "judge": event.get("judge") or HAND, "t": time}
    elif name == "tagged":
        text = str(event.get("tag") or "")
        yield "annotations", common | {"kind": "tag", "key": text.casefold(), "text": text, "removed": removed}
    elif name == "named":
        text = str(event.get("name") or "")
        yield "annotations", common | {"kind": "name", "key": "name", "text": text, "removed": not text}
    elif name == "noted":
        yield (
            "annotations",
            common | {"kind": "note", "key": event.get("note_id"), "text": event.get("text"), "removed": False},
        )
    elif name == "note_removed":
        yield "annotations", {"run_id": owner, "kind": "note", "key": event.get("note_id"), "removed": removed}


def _short(text: str, what: str, most: int, *, needed: bool = True) -> str:
    text = " ".join(text.split())
    if needed and not text:
        raise StoreError(Problem(what, "is empty", f"Write 1 to {most} characters."))
    if len(text) > most:
        raise StoreError(Problem(what, f"{len(text)} characters are too many", f"{most} at most."))
    return text
