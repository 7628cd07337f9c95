"""The ways in for a base model: the Hugging Face cache of this machine, a repository of the hub."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sstmerge_core import catalog, words
from sstmerge_core.adapters import archive
from sstmerge_core.catalog import Base, hub
from sstmerge_core.errors import AdapterError, Cancelled, Problem
from sstmerge_core.workspace import Workspace

CONFIG = "config.json"
WANTED = (
    CONFIG,
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "model.safetensors.index.json",
)
"""Files beside the weights that a base model needs; nothing that could run is fetched"""


@dataclass(frozen=True)
class Cached:
    """A model in the Hugging Face cache of this machine, as its main branch, or the newest revision, stands there."""

    name: str
    """``owner/name``"""
    path: Path
    """Of the snapshot"""
    commit: str
    bytes: int


def cached(repository: str = "", revision: str = "") -> list[Cached]:
    """Whole models in the Hugging Face cache, by name; those without weights in safetensors are left out.

    Of `repository` alone where it is given, at `revision` (a branch, a tag, a commit or its beginning) where that is.
    """
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = scan_cache_dir().repos
    except (CacheNotFound, OSError):  # none yet, or not to be read: then nothing is here
        return []
    found = []
    for one in repositories:
        if one.repo_type != "model" or repository not in ("", one.repo_id):
            continue
        whole = [
            version
            for version in one.revisions
            if _is_model(version.snapshot_path)
            and (not revision or revision in version.refs or version.commit_hash.startswith(revision))
        ]
        if whole:
            newest = max(whole, key=lambda version: ("main" in version.refs, version.last_modified))
            found.append(Cached(one.repo_id, newest.snapshot_path, newest.commit_hash, newest.size_on_disk))
    return sorted(found, key=lambda one: one.name.casefold())


def named(name: str, models: Sequence[Cached] = ()) -> Path | None:
    """Where the model that an adapter was trained on is, by the name it gives: a folder, or a model of the cache."""
    if not name.strip():
        return None
    try:
        folder = Path(name).expanduser()
        if folder.is_absolute() and _is_model(folder):
            return folder
    except (OSError, RuntimeError, ValueError):  # no path at all
        return None
    return next((one.path for one in models if one.name == name.strip().strip("/")), None)


def means(name: str, base: Base) -> bool:
    """Whether an adapter that gives `name` means this base: by name or folder, or by the last part of either."""
    last = name.strip().rstrip("/").rpartition("/")[2].casefold()
    return bool(last) and last in (base.name.rpartition("/")[2].casefold(), base.path.name.casefold())


def download(
    workspace: Workspace,
    repository: str,
    revision: str = "",
    progress: Callable[[int, int], None] = lambda done, total: None,
    should_cancel: Callable[[], bool] = lambda: False,
) -> Base:
    """Fetch a model of the hub into the Hugging Face cache and register it under its id.

    What is in the cache already is not fetched again, and a file that broke off goes on where it was. `progress` is
    told bytes done and in all. The folder's name is the commit that `revision` stands for. Raises AdapterError in the
    hub's words, or where the disk has no room; Cancelled between two pieces.
    """
    repository = hub.repository_id(repository)
    where = f"hub repository {repository}"
    commit, sizes = hub.ask(repository, revision.strip(), where)
    weights = [file for file in sizes if file.endswith(".safetensors") and "/" not in file]
    if CONFIG not in sizes or not weights:
        fault = f"has no {CONFIG}" if CONFIG not in sizes else "has no weights in safetensors"
        raise AdapterError(Problem(where, fault, "Give the repository of a transformers model in safetensors."))
    files = [file for file in WANTED if file in sizes] + sorted(weights)
    total = sum(sizes[file] for file in files)
    home = _cache()
    if total > archive.free_space(home):
        fault = f"its files take {words.size(total)}, more than there is room for in {home}"
        raise AdapterError(Problem(where, fault, "Free some disk, or set HF_HOME to a folder of another disk."))
    told = _Told(progress, should_cancel, total)
    path = Path()
    for file in files:
        path = hub.fetch(repository, file, commit, where, bar=told.bar()).parent
        told.finished(sizes[file])
    return catalog.add_base(workspace, path, repository)


class _Told:
    """Bytes of all files together, told as they come."""

    def __init__(self, progress: Callable[[int, int], None], should_cancel: Callable[[], bool], total: int) -> None:
        self._progress, self._should_cancel, self._total = progress, should_cancel, total
        self._before = 0

    def finished(self, size: int) -> None:
        self._before += size
        self.at(0)

    def at(self, here: int) -> None:
        if self._should_cancel():
            raise Cancelled("download")
        self._progress(min(self._before + here, self._total), self._total)

    def bar(self) -> type[Any]:
        from huggingface_hub.utils import tqdm

        told = self

        class Bar(tqdm):
            def __init__(self, *arguments: Any, **named: Any) -> None:
                named.pop("name", None)  # of the hub's own bars
                super().__init__(*arguments, **(named | {"disable": False, "file": _Nowhere()}))

            def update(self, n: float | None = 1) -> bool | None:
                shown = super().update(n)
                told.at(int(self.n))
                return shown

        return Bar


class _Nowhere:
    """A stream for a bar that nobody looks at."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        return None


def _is_model(folder: Path) -> bool:
    return (folder / CONFIG).is_file() and any(folder.glob("*.safetensors"))


def _cache() -> Path:
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE)
    return next((one for one in (folder, *folder.parents) if one.is_dir()), Path("/"))
