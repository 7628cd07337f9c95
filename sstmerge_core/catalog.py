"""What can be merged here: base models and adapters, bundled with the demo or registered by the user. No torch."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sstmerge_core import adapters
from sstmerge_core.adapters import RECORD
from sstmerge_core.demo import model as demo_model
from sstmerge_core.demo.adapters import ADAPTERS
from sstmerge_core.errors import AdapterError, Problem
from sstmerge_core.recipe import Source
from sstmerge_core.store.events import EventWriter, read_events
from sstmerge_core.workspace import Workspace

ROLES = ("utility", "safety", "")


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
    """``utility``, ``safety`` or unknown (empty)"""
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
    return Base(model.path.name, model.path, adapters.base_fingerprint(model.path, workspace), True, model.architecture)


def add_base(workspace: Workspace, path: str | Path) -> Base:
    """Register the base model in a local folder. Raises DataError where it cannot be read."""
    base = base_at(path, workspace)
    with EventWriter(workspace.catalog) as events:
        events.write("base_added", sha256=base.sha256, name=base.name, path=str(base.path))
    return base


def entries(workspace: Workspace) -> list[Entry]:
    """The bundled adapters that ship, then the registered ones that are still on disk."""
    found = [entry(demo.path, workspace, bundled=True) for demo in ADAPTERS.values() if (demo.path / RECORD).is_file()]
    known = {one.sha256 for one in found}
    for event in _state(workspace, "adapter"):
        path = Path(event["path"])
        if event["sha256"] not in known and (path / "adapter_config.json").is_file():
            known.add(event["sha256"])
            found.append(Entry(**{name: event[name] for name in _STORED}, path=path))
    return found


_STORED = ("name", "sha256", "role", "suite", "base_name", "rank", "alpha", "modules", "bytes", "description", "scores")


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
    adapter = adapters.read(path, check_values=not bundled)
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
    workspace: Workspace, path: str | Path, name: str | None = None, role: str | None = None, suite: str = ""
) -> Entry:
    """Register the adapter in a local folder; it stays where it is.

    Raises AdapterError with every problem, and where the name is taken by another adapter.
    """
    added = entry(path, workspace, name=(name or "").strip(), role=role or None, suite=suite)
    if not re.fullmatch(r"[\w.@+-]{1,60}", added.name):
        fix = "Give a name of letters, digits and . @ + - _ without spaces."
        raise AdapterError(Problem(f"name {added.name!r}", "is not usable as an adapter's name", fix))
    for other in entries(workspace):
        if other.name == added.name and other.sha256 != added.sha256:
            raise AdapterError(Problem(f"name {added.name}", "is taken by another adapter", "Give another name."))
    with EventWriter(workspace.catalog) as events:
        stored = {key: getattr(added, key) for key in _STORED}
        events.write("adapter_added", **stored, path=str(added.path), base=added.base_name)
    return added


def remove(workspace: Workspace, sha256: str) -> None:
    """Take an adapter off the catalogue; its files and its runs stay."""
    with EventWriter(workspace.catalog) as events:
        events.write("adapter_removed", sha256=sha256)


def find(workspace: Workspace, name_or_path: str) -> Entry:
    """The known adapter called so, else the one in the folder of that path.

    Raises AdapterError with the known names.
    """
    known = entries(workspace)
    for one in known:
        if name_or_path in (one.name, one.sha256):
            return one
    if Path(name_or_path).expanduser().exists() or "/" in name_or_path:
        return entry(name_or_path, workspace)
    names = ", ".join(one.name for one in known) or "none"
    fix = f"Known adapters: {names}. Or give the path of a folder."
    raise AdapterError(Problem(f"adapter {name_or_path}", "there is no such adapter", fix))


def _record(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / RECORD).read_text())
    except (OSError, ValueError):
        return {}


def _state(workspace: Workspace, kind: str) -> list[dict[str, Any]]:
    """What was added and not removed since, in the order of adding."""
    present: dict[str, dict[str, Any]] = {}
    for event in read_events(workspace.catalog):
        if event["event"] == f"{kind}_added":
            present[event["sha256"]] = event
        elif event["event"] == f"{kind}_removed":
            present.pop(event["sha256"], None)
    return list(present.values())
