"""The ways in for an adapter: a folder of this machine, files of a browser, a repository of the Hugging Face hub."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

from sstmerge_core import access, adapters, catalog, words
from sstmerge_core.adapters import archive
from sstmerge_core.catalog import Entry, hub
from sstmerge_core.errors import AdapterError, Problem
from sstmerge_core.workspace import Workspace, new_folder

if TYPE_CHECKING:
    from sstmerge_core.adapters.convert import Converted


@dataclass(frozen=True)
class AdapterInfo:
    """What the user says of an adapter that comes in."""

    name: str = ""
    """Empty: its own"""
    role: str | None = None
    """One of `catalog.ROLES`; None: what its own record says"""
    suite: str = ""
    """What measures its task; empty: what its own record says"""
    tags: tuple[str, ...] = ()


NOTHING = AdapterInfo()


def folder(workspace: Workspace, path: str | Path, info: AdapterInfo = NOTHING, *, origin: str = "") -> Entry:
    """Register the adapter in a local folder; it stays where it is. Raises AdapterError with every problem."""
    return catalog.add(workspace, path, info.name, info.role, info.suite, tags=info.tags, origin=origin)


def upload(
    workspace: Workspace,
    sent: Sequence[tuple[str, IO[bytes]]],
    info: AdapterInfo = NOTHING,
    *,
    largest: int = archive.LARGEST,
) -> Entry:
    """Keep and register the adapter in `sent`: one ZIP archive, or its files (name and content).

    Raises AdapterError that names the file at fault; then nothing is kept.
    """
    access.require("add")
    if not sent:
        raise AdapterError(Problem("upload", "holds no file", "Choose a ZIP archive, or the adapter's files."))
    zipped = sent[0][0].lower().endswith(".zip")
    where = sent[0][0] if zipped else ""
    called = info.name.strip() or (_usable(Path(sent[0][0]).stem) if zipped else "uploaded")

    def fill(target: Path) -> None:
        archive.unpack(sent, target, largest=largest)

    return _keep(workspace, replace(info, name=called), fill, where, origin=f"upload:{where or 'files'}")


def download(
    workspace: Workspace,
    repository: str,
    info: AdapterInfo = NOTHING,
    *,
    revision: str = "",
    largest: int = archive.LARGEST,
) -> Entry:
    """Keep and register the adapter in a model repository of the hub: its settings and safetensors, nothing else.

    The commit that `revision` (a branch, tag or commit; empty: the main branch) stands for is recorded. Raises
    AdapterError that says what the hub said, or that it cannot be reached; then nothing is kept.
    """
    access.require("add")
    repository = hub.repository_id(repository)
    called = info.name.strip() or _usable(repository.rpartition("/")[2])
    catalog.check_name(workspace, called)
    where = f"hub repository {repository}"
    commit, sizes = hub.ask(repository, revision.strip(), where)
    if archive.CONFIG not in sizes or archive.WEIGHTS not in sizes:
        missing = next(file for file in (archive.CONFIG, archive.WEIGHTS) if file not in sizes)
        pickled = missing == archive.WEIGHTS and archive.PICKLE in sizes
        fault = f"has only {archive.PICKLE}, a pickle, which can run code" if pickled else f"has no {missing}"
        raise AdapterError(Problem(where, fault, "Give the repository of a PEFT LoRA adapter in safetensors."))
    wanted = [file for file in archive.FILES if file in sizes]
    size = sum(sizes[file] for file in wanted)
    if size > min(largest, archive.free_space(workspace.adapters)):
        fault = f"its files take {words.size(size)}, more than there is room for here"
        raise AdapterError(Problem(where, fault, "Free some disk, or add a folder from another disk."))

    def fill(target: Path) -> None:
        for file in wanted:
            hub.fetch(repository, file, commit, where, target=target)
        shutil.rmtree(target / ".cache", ignore_errors=True)  # what the hub's client notes for itself

    return _keep(workspace, replace(info, name=called), fill, where, origin=f"hub:{repository}@{commit}")


def converted(
    workspace: Workspace, source: str | Path, base: Path, info: AdapterInfo, *, rank: int = 0
) -> tuple[Entry, Converted]:
    """Keep and register a LoRA that stands for the adapter `source` on a base, see `adapters.convert`.

    Raises what that raises; then nothing is kept.
    """
    from sstmerge_core.adapters.convert import convert

    found: list[Converted] = []

    def fill(target: Path) -> None:
        made = convert(source, base, target / "made", rank=rank)
        for file in sorted(made.path.iterdir()):
            file.rename(target / file.name)
        made.path.rmdir()
        found.append(made)

    return _keep(workspace, info, fill, str(source), origin=f"converted from {Path(source).name}"), found[0]


def _keep(workspace: Workspace, info: AdapterInfo, fill: Callable[[Path], None], where: str, *, origin: str) -> Entry:
    """A new folder of the workspace's own, filled and checked, then registered; `where` stands for it in errors."""
    catalog.check_name(workspace, info.name)
    target = workspace.adapters / info.name
    if target.exists():
        fault = "a folder of the workspace has it that is not registered"
        fix = f"Give another name; or add {target} from a folder, or move it away."
        raise AdapterError(Problem(f"name {info.name}", fault, fix))
    info = replace(info, tags=catalog.usable_tags(info.tags))
    with new_folder(target) as new:
        fill(new)
        try:
            sha256 = adapters.read(new, saved=True).sha256
            if known := catalog.twin(workspace, sha256):
                raise AdapterError(catalog.is_here(known, where or info.name))
            # before the folder is in place: one that is there is registered, and none stays behind to block its name
            return catalog.add(
                workspace, new, info.name, info.role, info.suite, tags=info.tags, origin=origin, becomes=target
            )
        except AdapterError as error:
            raise AdapterError([_renamed(problem, new, where) for problem in error.problems]) from None


def _renamed(problem: Problem, temporary: Path, where: str) -> Problem:
    """A problem of a temporary folder under the name by which the user knows the file."""
    here = problem.where.replace(f"{temporary.resolve()}/", f"{where}: " if where else "")
    # the temporary folder is gone when this is read; a command for it has to name the user's own
    fix = problem.fix.replace(str(temporary.resolve()), "FOLDER")
    return Problem(here.replace(str(temporary.resolve()), where), problem.fault, fix)


def _usable(name: str) -> str:
    return re.sub(r"[^\w.@+-]+", "-", name).strip("-.")[:60] or "adapter"
