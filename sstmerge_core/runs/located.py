"""Where the adapters and base models of a recipe are on this machine: found by content, fetched where they are not.

A recipe was planned on some machine, and says where its inputs lay there. What it means it says by SHA-256.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sstmerge_core import catalog, content
from sstmerge_core.recipe import Recipe, Source, record
from sstmerge_core.store.events import EventWriter
from sstmerge_core.workspace import Workspace

MIB = 1 << 20
_CONFIG = {content.ADAPTER: "adapter_config.json", content.BASE: "config.json"}


def located(
    recipe: Recipe, workspace: Workspace, progress: Callable[[float, float], None] = lambda done, total: None
) -> Recipe:
    """`recipe` with the places of its inputs here; its id, which goes by content, stays.

    An input whose folder is where the recipe says is left alone (whether it has changed is told where it is read). One
    whose folder is not here is looked for in the catalogue, in the run that made it, and in the content store. What is
    nowhere keeps its path, and reading it says so. `progress` is told MiB done and in all of what is fetched; it may
    raise to stop. Raises DataError where the store cannot be used.
    """
    update: dict[str, Any] = {}
    adapters = tuple(_here(content.ADAPTER, source, workspace, progress) for source in recipe.adapters)
    if adapters != recipe.adapters:
        update["adapters"] = adapters
    for name in ("base", "unaligned"):
        source = getattr(recipe, name)
        if source is not None and (found := _here(content.BASE, source, workspace, progress)) != source:
            update[name] = found
    return recipe.model_copy(update=update) if update else recipe


def merged_in_store(workspace: Workspace, run_id: str) -> str:
    """The SHA-256 of a run's adapter where the content store has it; empty where not, or the run wrote none.

    Raises DataError where the store cannot be used.
    """
    sha256 = str((record.read(workspace.run(run_id)).artifact or {}).get("sha256") or "")
    return sha256 if sha256 and content.has(content.ADAPTER, sha256, workspace) else ""


def bring_back(
    workspace: Workspace, run_id: str, sha256: str, progress: Callable[[float, float], None] = lambda done, total: None
) -> None:
    """Put the adapter of a run back into its place from the content store, by its SHA-256; its event file says so.

    Raises DataError where it is not in the store any more or comes with other bytes.
    """
    content.fetch(content.ADAPTER, sha256, workspace, progress=lambda done, total: progress(done / MIB, total / MIB))
    target = workspace.merged_adapter(run_id)
    content.put(content.ADAPTER, sha256, target, workspace)
    with EventWriter(workspace.run(run_id)) as events:
        size = sum(path.stat().st_size for path in target.iterdir())
        events.write("artifact", name="adapter", path="artifacts/adapter", sha256=sha256, bytes=size)


def _here(kind: str, source: Source, workspace: Workspace, progress: Callable[[float, float], None]) -> Source:
    if (Path(source.path) / _CONFIG[kind]).is_file():
        return source
    found = _known(kind, source, workspace)
    if found is None:
        found = content.fetch(
            kind, source.sha256, workspace, progress=lambda done, total: progress(done / MIB, total / MIB)
        )
    return source.model_copy(update={"path": str(found)}) if found is not None else source


def _known(kind: str, source: Source, workspace: Workspace) -> Path | None:
    if kind == content.BASE:
        return next((one.path for one in catalog.bases(workspace) if one.ready and one.sha256 == source.sha256), None)
    if (twin := catalog.twin(workspace, source.sha256)) is not None:
        return twin.path
    parts = Path(source.path).parts
    if parts[-2:] == ("artifacts", "adapter"):  # a run's own, whose folder may have moved
        folder = workspace.merged_adapter(parts[-3])
        if (folder / _CONFIG[kind]).is_file():
            return folder
    return None
