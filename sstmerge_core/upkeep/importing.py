"""The runs of another workspace, or of a backup of one, taken into this one: nothing doubled, nothing replaced."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sstmerge_core import catalog, words
from sstmerge_core.catalog import Entry
from sstmerge_core.errors import DataError, Problem, SSTMergeError
from sstmerge_core.experiments import result
from sstmerge_core.store import audit, saved
from sstmerge_core.store.events import FILE_NAME, EventWriter, decode, last_status, read_events, read_lines
from sstmerge_core.suites import declared
from sstmerge_core.upkeep import backup
from sstmerge_core.workspace import Workspace, new_folder, write_file

_RUN = re.compile(r"[A-Za-z0-9][\w.-]{0,99}")
ENDED = ("finished", "failed", "cancelled")


@dataclass
class Imported:
    """What came in."""

    new: dict[str, int] = field(default_factory=dict)
    """``runs``, ``pairs``, ``remarks``, ``adapters``, ``experiments``, ``prompt sets``, ``queries``, ``sweeps``"""
    known: int = 0
    """Things that are here already, the same"""
    conflicts: list[str] = field(default_factory=list)
    """What is here otherwise and stayed as it is, a sentence each"""

    def count(self, kind: str, number: int = 1) -> None:
        self.new[kind] = self.new.get(kind, 0) + number


Progress = Callable[[int, int], None]


def take(
    workspace: Workspace, source: Path, *, dry_run: bool = False, progress: Progress = lambda done, total: None
) -> Imported:
    """Take in what the workspace in folder `source`, or the backup in that file, has and this one has not.

    Runs go by their id, adapters by their content, the rest by name. A run is here whole or not at all, and what is
    here is never replaced: where the other one differs, that is named. `dry_run`: only say what would come. The queue
    and the record of who did what stay behind. Raises DataError for what is no workspace and for a damaged backup.
    """
    source = Path(source).expanduser().resolve()
    if source.is_file():
        with tempfile.TemporaryDirectory(prefix=".import.partial-", dir=workspace.root) as folder:
            backup.restore(source, Path(folder) / "w")
            return _take(workspace, Workspace(Path(folder) / "w"), source, dry_run, progress)
    other = Workspace(source)
    if not other.runs.is_dir():
        fix = "Give the folder of a workspace, or a file that `sstmerge backup` made."
        raise DataError(Problem(str(source), "is no workspace: it has no folder `runs`", fix))
    if source == workspace.root.resolve():
        raise DataError(Problem(str(source), "is this workspace itself", "Give another one."))
    return _take(workspace, other, source, dry_run, progress)


def _take(workspace: Workspace, other: Workspace, source: Path, dry_run: bool, progress: Progress) -> Imported:
    found = Imported()
    folders = [folder for folder in sorted(other.run_folders()) if _RUN.fullmatch(folder.name)]
    for number, folder in enumerate(folders):
        _run(workspace, folder, found, dry_run)
        progress(number + 1, len(folders))
    if other.pairs.is_dir():
        for folder in sorted(other.pairs.iterdir()):
            if _RUN.fullmatch(folder.name) and (folder / FILE_NAME).is_file():
                _folder(folder, workspace.pairs / folder.name, "pairs", found, dry_run)
    _remarks(workspace, other, found, dry_run)
    _adapters(workspace, other, found, dry_run)
    _sweeps(workspace, other, found, dry_run)
    _files(result.folder(other).glob("*.json"), result.folder(workspace), "experiments", found, dry_run)
    _files(other.screenings.glob("*.json"), workspace.screenings, "screenings", found, dry_run)
    files = [path for ending in ("jsonl", "yaml") for path in sorted(declared.folder(other).glob(f"*.{ending}"))]
    _files(iter(files), declared.folder(workspace), "prompt sets", found, dry_run)
    _queries(workspace, other, found, dry_run)
    if not dry_run and found.new:
        told = ", ".join(f"{number:,} {kind}" for kind, number in found.new.items())
        audit.record(workspace, "imported", str(source), about=told)
    return found


def _run(workspace: Workspace, folder: Path, found: Imported, dry_run: bool) -> None:
    theirs, ours = folder / FILE_NAME, workspace.run(folder.name) / FILE_NAME
    status = last_status(folder)
    if status not in ENDED:
        if status is not None:
            found.conflicts.append(f"Run {folder.name} is {status} there: import it once it has ended.")
        return
    if not ours.is_file():
        _folder(folder, workspace.run(folder.name), "runs", found, dry_run)
    elif ours.read_bytes().startswith(theirs.read_bytes()):  # what was judged since is here too
        found.known += 1
    else:
        here = last_status(ours.parent) or "not begun"
        more = "has other events there" if here == status else f"is {here} here and {status} there"
        found.conflicts.append(f"Run {folder.name} {more}: the one here stays.")


def _folder(source: Path, target: Path, kind: str, found: Imported, dry_run: bool) -> None:
    """Copy a folder that is not here, whole or not at all."""
    if target.exists():
        found.known += 1
        return
    found.count(kind)
    if dry_run:
        return
    with new_folder(target) as temporary:
        _copy(source, temporary)


def _copy(source: Path, target: Path) -> None:
    """The regular files below a folder; links and what is being written are passed over, event files cut to lines."""
    for path in sorted(source.rglob("*")):
        inside = path.relative_to(source)
        if path.is_symlink() or not path.is_file() or any(part.startswith(".") for part in inside.parts):
            continue
        if any((source / parent).is_symlink() for parent in inside.parents):
            continue
        place = target / inside
        place.parent.mkdir(parents=True, exist_ok=True)
        if path.name == FILE_NAME:
            place.write_bytes(b"".join(line for _, line in read_lines(path)))
        else:
            shutil.copyfile(path, place)


def _remarks(workspace: Workspace, other: Workspace, found: Imported, dry_run: bool) -> None:
    """What people said there and not here; of one tag or label, what was said here later stands."""
    if not other.annotations.is_dir():
        return
    for folder in sorted(other.annotations.iterdir()):
        run = workspace.run(folder.name) if _RUN.fullmatch(folder.name) else None
        if run is None or not ((run / FILE_NAME).is_file() or dry_run) or not (folder / FILE_NAME).is_file():
            continue
        mine = workspace.annotations / folder.name
        known = {line for _, line in read_lines(mine / FILE_NAME)} if (mine / FILE_NAME).is_file() else set()
        latest: dict[Any, float] = {}
        for event in read_events(mine):
            for thing in _things(event):
                latest[thing] = max(latest.get(thing, 0.0), event["t"])
        new = []
        for _, line in read_lines(folder / FILE_NAME):
            said = None if line in known else decode(line)
            if said is None:
                continue
            if all(said["t"] > latest.get(thing, -1.0) for thing in _things(said)):
                new.append(said)
            else:
                found.conflicts.append(f"Run {folder.name}: something said of it there was said otherwise here, later.")
        if new:
            found.count("remarks", len(new))
            if not dry_run:
                with EventWriter(mine) as events:
                    for event in new:
                        name = event.pop("event")
                        events.write(name, **event)


def _things(event: dict[str, Any]) -> Iterator[Any]:
    """What an event says something about: of two that speak of the same, the later one counts."""
    name = event["event"]
    if name == "tagged":
        yield "tag", str(event.get("tag")).casefold()
    elif name in ("noted", "note_removed"):
        yield "note", event.get("note_id"), name
    elif name == "named":
        yield ("name",)
    elif name == "labelled":
        for row in event.get("rows") or []:
            yield "label", event.get("judge"), row.get("suite"), row.get("prompt_id")


def _adapters(workspace: Workspace, other: Workspace, found: Imported, dry_run: bool) -> None:
    """Adapters whose files lie in the other workspace; a folder that is only registered there stays where it is."""
    here = {one.sha256 for one in catalog.entries(workspace)}
    names = {one.name for one in catalog.entries(workspace)}
    for one in catalog.entries(other):
        if one.bundled or not catalog.is_kept(other, one):
            continue
        if one.sha256 in here:
            found.known += 1
        elif one.name in names or (workspace.adapters / one.name).exists():
            found.conflicts.append(f"Adapter {one.name} is another one here: rename one of them.")
        else:
            found.count("adapters")
            if not dry_run:
                _adapter(workspace, one, found)


def _adapter(workspace: Workspace, one: Entry, found: Imported) -> None:
    try:
        catalog.check_name(workspace, one.name)
        target = workspace.adapters / one.name
        with new_folder(target) as temporary:
            _copy(one.path, temporary)
            told = {"tags": one.tags, "origin": one.origin, "becomes": target}
            catalog.add(workspace, temporary, one.name, one.role, one.suite, **told)  # type: ignore[arg-type]
    except SSTMergeError as error:
        found.new["adapters"] -= 1
        found.conflicts.append(f"Adapter {one.name}: {error}")


def _sweeps(workspace: Workspace, other: Workspace, found: Imported, dry_run: bool) -> None:
    name = "sweep_submitted"
    here = {event.get("sweep_id") for event in read_events(workspace.catalog) if event["event"] == name}
    new = [e for e in read_events(other.catalog) if e["event"] == name and e.get("sweep_id") not in here]
    if new:
        found.count("sweeps", len(new))
        if not dry_run:
            with EventWriter(workspace.catalog) as events:
                for event in new:
                    events.write(event.pop("event"), **event)


def _files(sources: Iterator[Path], folder: Path, kind: str, found: Imported, dry_run: bool) -> None:
    """Files by name."""
    for source in sources:
        target = folder / source.name
        if source.is_symlink() or not source.is_file():
            continue
        if not target.exists():
            found.count(kind)
            if not dry_run:
                write_file(target, source.read_bytes())
        elif target.read_bytes() == source.read_bytes():
            found.known += 1
        else:
            found.conflicts.append(f"{source.name} ({kind}) is another one here: the one here stays.")


def _queries(workspace: Workspace, other: Workspace, found: Imported, dry_run: bool) -> None:
    here = {one.name: one for one in saved.saved(workspace)}
    for one in saved.saved(other):
        if one.name not in here:
            found.count("queries")
            if not dry_run:
                saved.save(workspace, one, replace=False)
        elif here[one.name].sql == one.sql:
            found.known += 1
        else:
            found.conflicts.append(f"The query “{one.name}” is another one here: the one here stays.")


def told(found: Imported) -> str:
    """In a sentence."""
    came = ", ".join(f"{number:,} {kind}" for kind, number in found.new.items() if number) or "nothing new"
    return f"{came}; {words.count(found.known, 'thing')} known already; {words.count(len(found.conflicts), 'conflict')}"
