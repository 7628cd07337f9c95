"""What can be merged here: base models and adapters, bundled with the demo or registered by the user. No torch."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from sstmerge_core import adapters
from sstmerge_core.adapters import RECORD, places
from sstmerge_core.adapters.fingerprint import file_state
from sstmerge_core.adapters.json_file import read_object
from sstmerge_core.demo import model as demo_model
from sstmerge_core.demo.adapters import ADAPTERS
from sstmerge_core.errors import AdapterError, DataError, Problem
from sstmerge_core.recipe import Source
from sstmerge_core.store import audit
from sstmerge_core.store.events import EventWriter, read_events
from sstmerge_core.workspace import Workspace, given_path

ROLES = ("utility", "safety", "harm", "")
LONGEST_TAG = 40


@dataclass(frozen=True)
class Base:
    """A base model known in this workspace."""

    name: str
    path: Path
    sha256: str
    """Empty while the model is not ready"""
    ready: bool
    description: str

    @property
    def source(self) -> Source:
        return Source(name=self.name, path=str(self.path), sha256=self.sha256)


@dataclass(frozen=True)
class Entry:
    """An adapter known in this workspace."""

    name: str
    path: Path
    sha256: str
    role: str
    """``utility``, ``safety``, ``harm`` (trained to comply with harmful requests) or unknown (empty)"""
    suite: str
    """What measures its own task: a bundled suite's name or a JSONL file; empty where unknown"""
    base_name: str
    rank: int
    alpha: float
    modules: int
    bytes: int
    description: str
    scores: dict[str, Any] = field(default_factory=dict)
    bundled: bool = False
    tags: tuple[str, ...] = ()
    origin: str = ""
    """``hub:owner/name@commit``, ``upload:file.zip``, ``run:id``; empty for a folder of this machine"""

    @property
    def source(self) -> Source:
        return Source(name=self.name, path=str(self.path), sha256=self.sha256)


def bases(workspace: Workspace) -> list[Base]:
    """The bundled base model first, then those the user registered and that are still there."""
    folder = demo_model.folder(workspace)
    ready = demo_model.is_ready(workspace)
    found = [
        Base(
            demo_model.NAME,
            folder,
            adapters.base_fingerprint(folder, workspace) if ready else "",
            ready,
            "Bundled demo model, 135 million parameters, Apache-2.0",
        )
    ]
    for event in _state(workspace, "base"):
        path = Path(event["path"])
        if (path / "config.json").is_file():
            found.append(Base(event["name"], path, event["sha256"], True, "Registered by path"))
    return found


def base_at(path: str | Path, workspace: Workspace | None = None) -> Base:
    """The base model in a local folder, registered or not. Raises DataError where it cannot be read."""
    model = adapters.read_base(path)
    return Base(
        places.called(model.path),
        model.path,
        adapters.base_fingerprint(model.path, workspace),
        True,
        model.architecture,
    )


def add_base(workspace: Workspace, path: str | Path, name: str = "") -> Base:
    """Register the base model in a local folder, as `name` or as it calls itself; again: under the new name.

    Raises DataError where it cannot be read.
    """
    base = base_at(path, workspace)
    if name.strip():
        base = replace(base, name=" ".join(name.split()))
    told = f"base {base.sha256[:12]}", f"{base.name} in {base.path}"
    with (
        audit.act(workspace, "add", "added base model", told[0], about=told[1]),
        EventWriter(workspace.catalog) as events,
    ):
        events.write("base_added", sha256=base.sha256, name=base.name, path=str(base.path))
    return base


def remove_base(workspace: Workspace, sha256: str) -> Base:
    """Take a registered base model off the list; its folder and its runs stay, and adding it again undoes it.

    Raises DataError where none of this content is registered.
    """
    gone = next((one for one in bases(workspace)[1:] if one.sha256 == sha256), None)
    if gone is None:
        fix = "`sstmerge adapters list` shows what is here; the bundled model stays."
        raise DataError(Problem(f"base model {sha256[:12]}", "is not registered here", fix))
    with (
        audit.act(workspace, "remove", "removed base model", f"base {sha256[:12]}", about=gone.name),
        EventWriter(workspace.catalog) as events,
    ):
        events.write("base_removed", sha256=sha256)
    return gone


def ever_registered(workspace: Workspace) -> list[Path]:
    """Every folder that was ever registered here, so that what was taken off the list can be put back."""
    events = filter(_whole, read_events(workspace.catalog))
    return list(dict.fromkeys(Path(event["path"]) for event in events if event["event"].endswith("_added")))


def entries(workspace: Workspace) -> list[Entry]:
    """The bundled adapters that ship, then the registered ones that are still on disk."""
    found = [
        _bundled(demo.path, workspace, *(file_state(file) for file in sorted(demo.path.iterdir())))
        for demo in ADAPTERS.values()
        if (demo.path / RECORD).is_file()
    ]
    known = {one.sha256 for one in found}
    for event in _state(workspace, "adapter"):
        path = Path(event["path"])
        if event["sha256"] not in known and (path / "adapter_config.json").is_file():
            known.add(event["sha256"])
            found.append(_of_event(event))
    return found


@lru_cache(maxsize=64)
def _bundled(path: Path, workspace: Workspace, *_state: str) -> Entry:
    """The entry of an adapter that ships, read once: every page asks for it at every click."""
    return entry(path, workspace, bundled=True)


_STORED = ("name", "sha256", "role", "suite", "base_name", "rank", "alpha", "modules", "bytes", "description", "scores")
_LATER = ("tags", "origin")
"""What events of earlier days do not say"""


def entry(
    path: str | Path,
    workspace: Workspace | None = None,
    *,
    name: str = "",
    role: str | None = None,
    suite: str = "",
    bundled: bool = False,
) -> Entry:
    """The adapter in a local folder, with what its own record says of it. Raises AdapterError with every problem."""
    adapter = adapters.read(path, check_values=not bundled, saved=True)
    record = _record(adapter.path)
    return Entry(
        name=name or record.get("name") or adapter.name,
        path=adapter.path,
        sha256=adapter.fingerprint(workspace) if workspace else adapter.sha256,
        role=record.get("role", "") if role is None else role,
        suite=suite or record.get("suite", ""),
        base_name=adapter.base_name,
        rank=adapter.rank,
        alpha=float(adapter.config.get("lora_alpha") or 0),
        modules=len(adapter.modules),
        bytes=adapter.bytes,
        description=record.get("description", ""),
        scores=record.get("scores", {}),
        bundled=bundled,
    )


def add(
    workspace: Workspace,
    path: str | Path,
    name: str | None = None,
    role: str | None = None,
    suite: str = "",
    *,
    tags: Iterable[str] = (),
    origin: str = "",
    becomes: Path | None = None,
) -> Entry:
    """Register the adapter in a local folder; it stays where it is, or is about to become the folder `becomes`.

    Until that is there the catalogue does not show it.

    Raises AdapterError with every problem, where the name is taken by another adapter, and for a copy of a bundled one.
    """
    added = entry(path, workspace, name=(name or "").strip(), role=role or None, suite=suite)
    if (known := twin(workspace, added.sha256)) and known.bundled:
        raise AdapterError(is_here(known, str(added.path)))
    check_name(workspace, added.name, added.sha256)
    added = replace(added, tags=usable_tags(tags), origin=origin, path=becomes.resolve() if becomes else added.path)
    about = f"{added.name} from {origin or added.path}"
    with audit.act(workspace, "add", "added adapter", f"adapter {added.sha256[:12]}", about=about):
        _write(workspace, added)
    return added


def twin(workspace: Workspace, sha256: str) -> Entry | None:
    """The adapter of this content that is here already."""
    return next((one for one in entries(workspace) if one.sha256 == sha256), None)


def is_here(known: Entry, where: str) -> Problem:
    """That what `where` names is in the catalogue under another name."""
    fix = "Use that one." if known.bundled else "Use that one; rename it where you want another name."
    return Problem(where, f"is here already, as {known.name}", fix)


def change(
    workspace: Workspace,
    sha256: str,
    *,
    name: str | None = None,
    role: str | None = None,
    suite: str | None = None,
    tags: Iterable[str] | None = None,
) -> Entry:
    """Rename a registered adapter, or give it another role, task or tags; None leaves a thing as it is.

    Its runs keep the name that they were made under: the recipe goes by the content. Raises AdapterError for a name
    that is taken or not usable, and for an adapter that is not registered (those of the demo cannot be changed).
    """
    known = registered(workspace, sha256)
    told = {"name": name.strip() if name is not None else None, "role": role, "suite": suite}
    said: dict[str, Any] = {field: value for field, value in told.items() if value is not None}
    if tags is not None:
        said["tags"] = usable_tags(tags)
    changed = replace(known, **said)
    check_name(workspace, changed.name, sha256)
    if changed != known:
        about = changed.name if changed.name == known.name else f"{known.name}, now {changed.name}"
        with audit.act(workspace, "change", "changed adapter", f"adapter {sha256[:12]}", about=about):
            _write(workspace, changed)
    return changed


def check_name(workspace: Workspace, name: str, sha256: str = "") -> None:
    """Raises AdapterError where an adapter other than that of `sha256` has the name, or nothing can be called so."""
    if not re.fullmatch(r"[\w.@+-]{1,60}", name) or not name.strip("."):
        fix = "Give a name of letters, digits and . @ + - _ without spaces."
        raise AdapterError(Problem(f"name {name!r}", "is not usable as an adapter's name", fix))
    if any(other.name == name and other.sha256 != sha256 for other in entries(workspace)):
        raise AdapterError(Problem(f"name {name}", "is taken by another adapter", "Give another name."))


def usable_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """`tags` without spaces around them, empty ones and repetitions. Raises AdapterError for overlong ones."""
    found = tuple(dict.fromkeys(filter(None, (tag.strip() for tag in tags))))
    if long := [tag for tag in found if len(tag) > LONGEST_TAG]:
        raise AdapterError(Problem(f"tag {long[0][:20]}…", f"has more than {LONGEST_TAG} characters", "Shorten it."))
    return found


def registered(workspace: Workspace, sha256: str) -> Entry:
    """The registered adapter of this content. Raises AdapterError where there is none."""
    found = next((_of_event(event) for event in _state(workspace, "adapter") if event["sha256"] == sha256), None)
    if found is None:
        bundled = any(one.sha256 == sha256 for one in entries(workspace))
        fault = "ships with the program and cannot be changed" if bundled else "is not registered here"
        raise AdapterError(Problem(f"adapter {sha256[:12]}", fault, "`sstmerge adapters list` shows what is."))
    return found


def is_kept(workspace: Workspace, one: Entry) -> bool:
    """Whether the adapter's files are the workspace's own (uploaded, downloaded, trained), not a registered folder."""
    return one.path.resolve().parent == workspace.adapters.resolve()


def remove(workspace: Workspace, sha256: str) -> Entry | None:
    """Take an adapter off the catalogue; its runs stay. `restore` undoes it.

    Files that the workspace keeps move into its trash; a folder of the user's own stays where it is and as it is.
    Returns what was removed, None where it was not registered.
    """
    try:
        gone = registered(workspace, sha256)
    except AdapterError:
        return None
    moved = ""
    if is_kept(workspace, gone) and gone.path.is_dir():
        target = workspace.trash / f"{gone.name}.adapter.{time.time_ns()}"
        moved = target.name
    with (
        audit.act(workspace, "remove", "removed adapter", f"adapter {sha256[:12]}", about=gone.name),
        _moved(gone.path, workspace.trash / moved) if moved else contextlib.nullcontext(),
        EventWriter(workspace.catalog) as events,
    ):
        events.write("adapter_removed", sha256=sha256, trash=moved)
    return gone


def removed(workspace: Workspace) -> list[Entry]:
    """Adapters that were removed and can be restored, the last one first: their files are still somewhere."""
    return [entry for entry, trash in _removed(workspace) if (trash or entry.path).is_dir()]


def restore(workspace: Workspace, sha256: str) -> Entry:
    """Undo `remove`. Raises AdapterError where the files are gone, or the name or the folder has been taken since."""
    entry, trash = next((found for found in _removed(workspace) if found[0].sha256 == sha256), (None, None))
    if entry is None:
        raise AdapterError(Problem(f"adapter {sha256[:12]}", "was not removed here", "Add its folder."))
    check_name(workspace, entry.name, sha256)
    restored = audit.act(workspace, "remove", "restored adapter", f"adapter {sha256[:12]}", about=entry.name)
    if trash and not entry.path.exists() and trash.is_dir():
        with restored, _moved(trash, entry.path):
            _write(workspace, entry)
        return entry
    if trash or not entry.path.is_dir():
        fault = "another adapter is in its place" if entry.path.exists() else "its files are gone"
        raise AdapterError(Problem(str(entry.path), fault, "Add the adapter again from where it came."))
    with restored:
        _write(workspace, entry)
    return entry


@contextlib.contextmanager
def _moved(source: Path, target: Path) -> Iterator[None]:
    """A folder is moved, and moved back where the block ends in an error."""
    target.parent.mkdir(parents=True, exist_ok=True)
    os.rename(source, target)
    try:
        yield
    except BaseException:
        os.rename(target, source)
        raise


def find(workspace: Workspace, name_or_path: str) -> Entry:
    """The known adapter called so, else the one in the folder of that path.

    Raises AdapterError with the known names.
    """
    known = entries(workspace)
    for one in known:
        if name_or_path in (one.name, one.sha256):
            return one
    if "/" in name_or_path or given_path(name_or_path, AdapterError).exists():
        return entry(name_or_path, workspace)
    names = ", ".join(one.name for one in known) or "none"
    fix = f"Known adapters: {names}. Or give the path of a folder."
    raise AdapterError(Problem(f"adapter {name_or_path}", "there is no such adapter", fix))


def _write(workspace: Workspace, one: Entry) -> None:
    """A later event of the same adapter replaces what an earlier one said."""
    with EventWriter(workspace.catalog) as events:
        stored = {key: getattr(one, key) for key in (*_STORED, *_LATER)}
        events.write("adapter_added", **stored, path=str(one.path), base=one.base_name)


def _of_event(event: dict[str, Any]) -> Entry:
    later: dict[str, Any] = {"tags": tuple(event.get("tags") or ()), "origin": event.get("origin") or ""}
    return Entry(**{name: event[name] for name in _STORED}, **later, path=Path(event["path"]))


def _removed(workspace: Workspace) -> list[tuple[Entry, Path | None]]:
    """Adapters that are removed now, the last one first, each with its folder in the trash (None: it was not moved)."""
    last: dict[str, dict[str, Any]] = {}
    gone: dict[str, str] = {}
    for event in filter(_whole, read_events(workspace.catalog)):
        if event["event"] == "adapter_added":
            last[event["sha256"]] = event
            gone.pop(event["sha256"], None)
        elif event["event"] == "adapter_removed" and event["sha256"] in last:
            gone.pop(event["sha256"], None)
            gone[event["sha256"]] = event.get("trash") or ""
    return [
        (_of_event(last[sha256]), workspace.trash / name if name else None) for sha256, name in reversed(gone.items())
    ]


_RECORD_TYPES = {"name": str, "role": str, "suite": str, "description": str, "scores": dict}


def _record(folder: Path) -> dict[str, Any]:
    """What an adapter's own record says of it; a record from elsewhere may be anything, and what is odd is left out."""
    try:
        found = read_object(folder / RECORD)
    except (OSError, ValueError):
        return {}
    return {key: value for key, value in found.items() if isinstance(value, _RECORD_TYPES.get(key, ()))}


def _whole(event: dict[str, Any]) -> bool:
    """Whether an event of the catalogue says what its name promises; a damaged line is passed over."""
    needed = {"adapter_added": (*_STORED, "path"), "base_added": ("sha256", "name", "path")}
    texts = {name: event.get(name, "") for name in ("sha256", "name", "path")}
    told = all(name in event for name in needed.get(event["event"], ("sha256",)))
    return told and all(isinstance(text, str) for text in texts.values())


def _state(workspace: Workspace, kind: str) -> list[dict[str, Any]]:
    """What was added and not removed since, in the order of adding."""
    present: dict[str, dict[str, Any]] = {}
    for event in filter(_whole, read_events(workspace.catalog)):
        if event["event"] == f"{kind}_added":
            present[event["sha256"]] = event
        elif event["event"] == f"{kind}_removed":
            present.pop(event["sha256"], None)
    return list(present.values())
