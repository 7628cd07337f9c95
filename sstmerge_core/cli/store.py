"""``sstmerge store``: adapters, base models and merged adapters by their content, shared between machines."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from sstmerge_core import access, catalog, words
from sstmerge_core.cli.printing import line, table
from sstmerge_core.content import ADAPTER, BASE, ContentStore, Manifest, fetch, named, put, tidy
from sstmerge_core.content.remote import ADDRESS
from sstmerge_core.errors import DataError, Problem
from sstmerge_core.store.trash import weights
from sstmerge_core.upkeep.referred import referred
from sstmerge_core.workspace import Workspace

LISTED = 40


def register(command: Any) -> None:
    """Add the command; `command` makes a parser from name, function and description."""
    store = command("store", _store, "Share adapters and base models by their content: a folder, s3://, or any fsspec.")
    actions = store.add_subparsers(dest="action", required=True, metavar="push|pull|list|check|tidy")
    push = actions.add_parser("push", help="put adapters, base models, or the adapters of runs into the store")
    push.add_argument("what", nargs="+", metavar="WHAT", help="name, folder or SHA-256 of either, or a run's id")
    pull = actions.add_parser("pull", help="fetch them, compare every hash, and register them here")
    pull.add_argument("what", nargs="+", metavar="WHAT", help="name, SHA-256 (or its beginning) or run id in the store")
    pull.add_argument("--out", type=Path, metavar="DIR", help="only write the one item into this folder")
    shown = actions.add_parser("list", help="what the store has")
    check = actions.add_parser("check", help="read everything through and compare the hashes")
    check.add_argument("what", nargs="*", metavar="WHAT", help="default: everything")
    tidying = actions.add_parser("tidy", help="list what the store can do without, and why; with --yes, delete it")
    tidying.add_argument("--older-than", type=float, default=1.0, metavar="DAYS", help="default 1; at least an hour")
    tidying.add_argument(
        "--items",
        action="store_true",
        help="also adapters and base models that no run, recipe or registered name of this workspace refers to",
    )
    tidying.add_argument(
        "--also",
        type=Path,
        action="append",
        default=[],
        metavar="WORKSPACE",
        help="another workspace whose runs, recipes and names keep items; may be repeated",
    )
    tidying.add_argument("--yes", action="store_true", help="do it, for good")
    for parser in (push, pull, shown, check, tidying):
        parser.add_argument("--store", default="", metavar="URL", help=f"its address; default: {ADDRESS}")


def _store(options: argparse.Namespace, workspace: Workspace) -> None:
    actions = {"push": _push, "pull": _pull, "list": _list, "check": _check, "tidy": _tidy}
    actions[options.action](options, workspace)


def _push(options: argparse.Namespace, workspace: Workspace) -> None:
    store = named(options.store)
    for what in options.what:
        kind, folder, name, run_id = _meant(what, workspace)
        pushed = store.push(kind, folder, name, run_id=run_id, progress=_progress)
        line("", True)
        total, sent = words.size(pushed.manifest.bytes), words.size(pushed.sent)
        print(f"{kind} {pushed.manifest.sha256}  {name}: {total}, {sent} of it new in {store.address}")


def _meant(what: str, workspace: Workspace) -> tuple[str, Path, str, str]:
    """Kind, folder, name and run of what somebody names. Raises DataError or AdapterError where it is nothing here."""
    if workspace.is_run(workspace.run(what)) and weights(workspace, what) is not None:
        return ADAPTER, workspace.merged_adapter(what), f"run-{what}", what
    for base in catalog.bases(workspace):
        if base.ready and what in (base.name, base.sha256):
            return BASE, base.path, base.path.name if "/" in base.name else base.name, ""
    if (Path(what) / "config.json").is_file() and not (Path(what) / "adapter_config.json").is_file():
        found = catalog.base_at(what, workspace)
        return BASE, found.path, found.name, ""
    entry = catalog.find(workspace, what)
    return ADAPTER, entry.path, entry.name, entry.origin.removeprefix("run:") if entry.origin[:4] == "run:" else ""


def _pull(options: argparse.Namespace, workspace: Workspace) -> None:
    store = _existing(options.store)
    if options.out and len(options.what) > 1:
        raise DataError(Problem("--out", "takes one item", "Pull them one by one."))
    for found in [store.find(what) for what in options.what]:
        fetch(found.kind, found.sha256, workspace, store=store, progress=_progress)
        line("", True)
        print(f"{found.kind} {found.sha256}  {_kept(found, options.out, workspace)}")


def _kept(found: Manifest, out: Path | None, workspace: Workspace) -> str:
    """Where what was fetched stands now."""
    if out is not None:
        if out.exists() and any(out.iterdir()):
            raise DataError(Problem(str(out), "is not empty", "Give a new folder."))
        put(found.kind, found.sha256, out, workspace)
        return str(out)
    if found.kind == BASE:
        known = next((one for one in catalog.bases(workspace) if one.sha256 == found.sha256), None)
        if known is not None:
            return f"is here as {known.name}"
        target = workspace.root / "bases" / found.sha256[:16]
        put(BASE, found.sha256, target, workspace)
        return catalog.add_base(workspace, target, found.name).name
    if (twin := catalog.twin(workspace, found.sha256)) is not None:
        return f"is here as {twin.name}"
    target = workspace.adapters / f"{found.name}-{found.sha256[:8]}"
    put(ADAPTER, found.sha256, target, workspace)
    origin = f"run:{found.run_id}" if found.run_id else f"store:{found.sha256}"
    taken = {one.name for one in catalog.entries(workspace)}
    name = target.name if found.name in taken else found.name
    return catalog.add(workspace, target, name, origin=origin).name


def _existing(address: str) -> ContentStore:
    """The store at `address`. Raises DataError where there is none: an empty answer would be a wrong one."""
    store = named(address)
    store.must_exist()
    return store


def _list(options: argparse.Namespace, workspace: Workspace) -> None:
    store = _existing(options.store)
    found = list(store.manifests())
    rows = [
        (one.kind, one.name, words.size(one.bytes), one.run_id or "–", words.ago(one.stored_at), one.sha256[:16])
        for one in found
    ]
    table(("kind", "name", "size", "run", "stored", "SHA-256"), rows)
    once = {digest: size for one in found for size, digest in one.files.values()}
    print(f"{words.size(sum(once.values()))} in {words.count(len(once), 'file')}, each kept once, in {store.address}")


def _check(options: argparse.Namespace, workspace: Workspace) -> None:
    store = _existing(options.store)
    bad = []
    for one in [store.find(what) for what in options.what] or list(store.manifests()):
        files = store.damaged(one, progress=_progress)
        line("", True)
        fix = "Remove that object from the store and push the original again."
        where = f"{one.kind} {one.name} {one.sha256[:16]}"
        bad += [Problem(where, f"{file} is damaged or missing", fix) for file in files]
        print(f"{one.kind} {one.sha256[:16]}  {one.name}: {'damaged' if files else 'whole'}")
    if bad:
        raise DataError(bad)


def _tidy(options: argparse.Namespace, workspace: Workspace) -> None:
    store = _existing(options.store)
    older_than = tidy.check_age(options.older_than)
    if options.also and not options.items:
        raise DataError(Problem("--also", "says whose items stay, and no item goes", "Give --items too, or neither."))
    known = None
    if options.items:
        known = set().union(*(referred(one) for one in (workspace, *map(_other, options.also))))
    planned = tidy.plan(store, older_than=older_than, referred=known)
    if not options.yes:
        rows = [(one.what, one.name or one.path, words.size(one.bytes), words.duration(one.age)) for one in planned]
        table(("what", "which", "size", "age"), rows[:LISTED])
        if len(rows) > LISTED:
            print(f"… and {len(rows) - LISTED:,} more")
        print(f"{words.size(sum(one.bytes for one in planned))} would go; `sstmerge store tidy --yes` does it")
        return
    access.require("delete")
    access.require("empty")
    freed, kept = tidy.carry_out(store, planned, older_than=older_than, referred=known)
    for sentence in kept:
        print(f"kept: {sentence}")
    print(f"{words.size(freed)} freed in {store.address}")


def _other(folder: Path) -> Workspace:
    if not (folder / "runs").is_dir():
        raise DataError(Problem(str(folder), "is no workspace: it has no folder runs", "Check --also."))
    return Workspace(folder.resolve())


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        line(f"{words.size(done)} of {words.size(total)}", done >= total)
