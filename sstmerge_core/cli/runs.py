"""``sstmerge runs``: tags, notes and names, deleting with a way back, and weights that their recipes make again."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from sstmerge_core import words
from sstmerge_core.cli.printing import connected, table
from sstmerge_core.cli.records import ingest
from sstmerge_core.errors import JobError, Problem
from sstmerge_core.store.events import run_folder
from sstmerge_core.workspace import Workspace

DAY = 86_400.0


def register(command: Any) -> None:
    """Add the command; `command` makes a parser from name, function and description."""
    runs = command("runs", _runs, "Tag, annotate, name, delete and restore runs; prune the weights of their adapters.")
    actions = runs.add_subparsers(
        dest="action", required=True, metavar="tag|note|name|delete|trash|restore|empty|prune"
    )
    tag = actions.add_parser("tag", help="put tags on a run, or take them off")
    tag.add_argument("run_id", metavar="RUN")
    tag.add_argument("tags", nargs="+", metavar="TAG")
    tag.add_argument("--remove", action="store_true")
    note = actions.add_parser("note", help="write a note about a run")
    note.add_argument("run_id", metavar="RUN")
    note.add_argument("text")
    name = actions.add_parser("name", help="give a run a name of its own; without one it loses it")
    name.add_argument("run_id", metavar="RUN")
    name.add_argument("name", nargs="?", default="")
    delete = actions.add_parser("delete", help="move runs into the trash")
    delete.add_argument("runs", nargs="+", metavar="RUN")
    delete.add_argument("--weights", action="store_true", help="only the weights of the adapter: its recipe stays")
    delete.add_argument("--force", action="store_true", help="even where something refers to the run")
    actions.add_parser("trash", help="what was deleted, and what it takes on the disk")
    actions.add_parser("restore", help="bring deleted runs back").add_argument("runs", nargs="+", metavar="RUN")
    empty = actions.add_parser("empty", help="empty the trash: this cannot be undone")
    prune = actions.add_parser("prune", help="move weights of merged adapters into the trash; their runs stay")
    for parser, default in ((empty, 0.0), (prune, 30.0)):
        about = f"only what is older, default {default:g}"
        parser.add_argument("--older-than", type=float, default=default, metavar="DAYS", help=about)
        parser.add_argument("--dry-run", action="store_true", help="only say what would go")
    prune.add_argument("--keep-tag", action="append", default=[], metavar="TAG", help="keep those of runs tagged so")


def _runs(options: argparse.Namespace, workspace: Workspace) -> None:
    {
        "tag": _tag,
        "note": _note,
        "name": _name,
        "delete": _delete,
        "trash": _trash,
        "restore": _restore,
        "empty": _empty,
        "prune": _prune,
    }[options.action](options, workspace)


def _tag(options: argparse.Namespace, workspace: Workspace) -> None:
    from sstmerge_core.store import remarks

    for text in options.tags:
        remarks.tag(workspace, options.run_id, text, removed=options.remove)
    ingest(workspace)


def _note(options: argparse.Namespace, workspace: Workspace) -> None:
    from sstmerge_core.store import remarks

    remarks.note(workspace, options.run_id, options.text)
    ingest(workspace)


def _name(options: argparse.Namespace, workspace: Workspace) -> None:
    from sstmerge_core.store import remarks

    remarks.rename(workspace, options.run_id, options.name)
    ingest(workspace)


def _delete(options: argparse.Namespace, workspace: Workspace) -> None:
    from sstmerge_core.store import trash

    if not options.force:
        _nobody_needs(options.runs, workspace)
    try:
        for run_id in options.runs:
            entry = (trash.delete_weights if options.weights else trash.delete_run)(workspace, run_id)
            print(f"{run_id}: {words.size(entry.bytes)} in the trash; `sstmerge runs restore {run_id}` brings it back")
    finally:
        ingest(workspace)


def _nobody_needs(run_ids: list[str], workspace: Workspace) -> None:
    """Raise JobError with everything that refers to one of these runs."""
    from sstmerge_core.store import queries
    from sstmerge_core.upkeep.uses import uses

    found = []
    with connected(workspace) as connection:
        connection.ingest()
        cursor = connection.cursor()
        for run_id in run_ids:
            run_folder(workspace, run_id)  # a slip is told as one
            compared = [other for other in queries.measured_against(cursor, run_id) if other not in run_ids]
            sentences = uses(workspace, run_id, compared=compared, sweeps=queries.sweeps_of(cursor, run_id))
            found += [Problem(f"run {run_id}", sentence, "--force deletes it all the same.") for sentence in sentences]
    if found:
        raise JobError(found)


def _trash(options: argparse.Namespace, workspace: Workspace) -> None:
    from sstmerge_core.store import trash

    found = trash.entries(workspace)
    rows = [
        (entry.run_id, entry.kind, words.size(entry.bytes), words.ago(entry.deleted_at), entry.label) for entry in found
    ]
    table(("run", "what", "size", "deleted", "label"), rows)
    print(f"{words.size(sum(entry.bytes for entry in found))} in all; `sstmerge runs empty` frees it")


def _restore(options: argparse.Namespace, workspace: Workspace) -> None:
    from sstmerge_core.store import trash

    try:
        for run_id in options.runs:
            entry = trash.find(workspace, run_id)
            trash.restore(workspace, entry)
            print(f"{run_id}: its {entry.kind if entry.kind == 'weights' else 'folder'} is back, bit for bit")
    finally:
        ingest(workspace)


def _empty(options: argparse.Namespace, workspace: Workspace) -> None:
    from sstmerge_core.store import trash

    age = options.older_than * DAY
    if options.dry_run:
        old = [entry for entry in trash.entries(workspace) if time.time() - entry.deleted_at >= age]
        print(f"{words.size(sum(entry.bytes for entry in old))} of {words.count(len(old), 'deletion')} would go")
        return
    count, freed = trash.empty(workspace, older_than=age)
    print(f"{words.size(freed)} freed, {words.count(count, 'deletion')} final")


def _prune(options: argparse.Namespace, workspace: Workspace) -> None:
    from sstmerge_core.store import queries, trash
    from sstmerge_core.upkeep.uses import prunable

    with connected(workspace) as connection:
        connection.ingest()
        tagged = queries.tags(connection.cursor())
    wanted = {tag.casefold() for tag in options.keep_tag}
    kept = {run_id for run_id, tag in zip(tagged["run_id"], tagged["tag"], strict=True) if tag.casefold() in wanted}
    found = prunable(workspace, older_than=options.older_than * DAY, keep=kept.__contains__)
    total = words.size(sum(one.bytes for one in found))
    if options.dry_run:
        table(("run", "size", "written"), [(o.run_id, words.size(o.bytes), words.ago(o.written_at)) for o in found])
        print(f"{total} of {words.count(len(found), 'adapter')} would go into the trash")
        return
    for one in found:
        trash.delete_weights(workspace, one.run_id)
    print(f"{total} of {words.count(len(found), 'adapter')} in the trash; `sstmerge runs empty` frees it", flush=True)
    if found:
        print("Each run keeps its recipe: `sstmerge recipe RUN` and `sstmerge merge` make it again.", file=sys.stderr)
