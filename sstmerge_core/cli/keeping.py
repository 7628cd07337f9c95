"""``sstmerge backup|restore|import|tidy|audit``: a workspace kept, moved, joined with another and put in order."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from sstmerge_core import words
from sstmerge_core.cli.printing import line, table
from sstmerge_core.cli.records import ingest
from sstmerge_core.workspace import Workspace

DAY = 86_400.0
LISTED = 40


def register(command: Any) -> None:
    """Add the commands; `command` makes a parser from name, function and description."""
    backup = command("backup", _backup, "Write the workspace into one file, with a hash of everything in it.")
    backup.add_argument("file", type=Path)
    backup.add_argument("--trash", action="store_true", help="with what was deleted and can be brought back")

    restore = command("restore", _restore, "Make a workspace of a backup: all of it, or nothing where it is damaged.")
    restore.add_argument("file", type=Path)
    restore.add_argument("--into", type=Path, metavar="DIR", help="default: the workspace, which must be empty")
    restore.add_argument("--check", action="store_true", help="only read it through and compare the hashes")

    take = command("import", _import, "Take in the runs of another workspace, or of a backup; nothing is replaced.")
    take.add_argument("source", type=Path, help="the folder of a workspace, or a file of `sstmerge backup`")
    take.add_argument("--dry-run", action="store_true", help="only say what would come")

    tidy = command("tidy", _tidy, "List what the workspace can do without, and why; with --yes, put it away.")
    tidy.add_argument("--older-than", type=float, default=30.0, metavar="DAYS", help="default 30")
    tidy.add_argument("--yes", action="store_true", help="do it: runs and weights go to the trash, caches for good")

    audit = command("audit", _audit, "List who launched, cancelled, added, removed and deleted what.")
    audit.add_argument("--limit", type=int, default=50, help="default 50, the last first")


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        of = f" of {words.size(total)}" if total else ""
        line(f"{words.size(done)}{of}", bool(total) and done >= total)


def _backup(options: argparse.Namespace, workspace: Workspace) -> None:
    from sstmerge_core.upkeep import backup

    made = backup.make(workspace, options.file, trash=options.trash, progress=_progress)
    line("", True)
    size = words.size(options.file.expanduser().stat().st_size)
    print(f"{options.file}: {words.count(made.files, 'file')}, {words.size(made.bytes)} in {size}")
    for path, why in made.left_out.items():
        print(f"left out: {path}: {why}")


def _restore(options: argparse.Namespace, workspace: Workspace) -> None:
    from sstmerge_core.upkeep import backup

    if options.check:
        found, what = backup.check(options.file, progress=_progress), "whole"
    else:
        target = options.into or workspace.root
        found, what = backup.restore(options.file, target, progress=_progress), f"restored into {target}"
    when = time.strftime("%Y-%m-%d %H:%M", time.gmtime(found.made_at))
    told = f"{words.count(len(found.files), 'file')}, {words.size(found.bytes)}"
    print(f"{options.file}: {what}: {told}, made {when} UTC by version {found.version}")


def _import(options: argparse.Namespace, workspace: Workspace) -> None:
    from sstmerge_core.upkeep import importing

    found = importing.take(workspace, options.source, dry_run=options.dry_run)
    for conflict in found.conflicts:
        print(f"conflict: {conflict}")
    print(f"{'would come: ' if options.dry_run else ''}{importing.told(found)}")
    if not options.dry_run:
        ingest(workspace)


def _tidy(options: argparse.Namespace, workspace: Workspace) -> None:
    from sstmerge_core.upkeep import limits, tidy

    items = tidy.plan(workspace, older_than=options.older_than * DAY)
    if not options.yes:
        rows = [(one.what, one.now, one.most, "over" if one.over else "") for one in tidy.held(workspace)]
        table(("holds", "now", "limit", ""), rows)
        print(f"Limits are set in {limits.file(workspace)}.\n")
        table(("what", "which", "size", "why"), [(i.kind, i.name, words.size(i.bytes), i.why) for i in items[:LISTED]])
        if len(items) > LISTED:
            print(f"… and {len(items) - LISTED:,} more")
        print(f"{words.size(sum(item.bytes for item in items))} would go; `sstmerge tidy --yes` does it")
        return
    gone, kept = tidy.carry_out(workspace, items)
    for sentence in kept:
        print(f"kept: {sentence}")
    back = sum(item.bytes for item in gone if item.kind in tidy.TO_TRASH)
    freed = sum(item.bytes for item in gone) - back
    print(f"{words.size(freed)} freed; {words.size(back)} in the trash, which `sstmerge runs restore` brings back")
    ingest(workspace)


def _audit(options: argparse.Namespace, workspace: Workspace) -> None:
    from sstmerge_core.store import audit

    rows = [
        (
            time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(one["t"])),
            str(one.get("user") or "–"),
            str(one.get("origin") or ""),
            str(one.get("action") or ""),
            str(one.get("subject") or ""),
            str(one.get("about") or ""),
        )
        for one in audit.entries(workspace)[: max(0, options.limit)]
    ]
    table(("when (UTC)", "who", "from", "did", "what", "about"), rows)
