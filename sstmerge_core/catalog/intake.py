"""The ways in for an adapter: a folder of this machine, files of a browser, a repository of the Hugging Face hub."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from sstmerge_core import adapters, catalog, words
from sstmerge_core.adapters import archive
from sstmerge_core.catalog import Entry
from sstmerge_core.errors import AdapterError, Problem
from sstmerge_core.workspace import Workspace, new_folder

TIMEOUT = 20.0
"""Seconds that the hub has to answer the first question"""


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
    repository = repository.strip().removeprefix("https://huggingface.co/").strip("/")
    called = info.name.strip() or _usable(repository.rpartition("/")[2])
    catalog.check_name(workspace, called)
    where = f"hub repository {repository}"
    commit, sizes = _ask_hub(repository, revision.strip(), where)
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
            _fetch(repository, file, commit, target, where)
        shutil.rmtree(target / ".cache", ignore_errors=True)  # what the hub's client notes for itself

    return _keep(workspace, replace(info, name=called), fill, where, origin=f"hub:{repository}@{commit}")


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
            sha256 = adapters.read(new).sha256
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
    return Problem(here.replace(str(temporary.resolve()), where), problem.fault, problem.fix)


def _usable(name: str) -> str:
    return re.sub(r"[^\w.@+-]+", "-", name).strip("-.")[:60] or "adapter"


def _ask_hub(repository: str, revision: str, where: str) -> tuple[str, dict[str, int]]:
    """The commit of a revision, and its files with their sizes in bytes."""
    from huggingface_hub import HfApi

    try:
        info = HfApi().model_info(repository, revision=revision or None, files_metadata=True, timeout=TIMEOUT)
    except Exception as error:  # the library has no common base for: no network, gated, unknown, not an id
        raise _hub_error(error, where, revision) from None
    return str(info.sha), {file.rfilename: int(file.size or 0) for file in info.siblings or ()}


def _fetch(repository: str, file: str, commit: str, target: Path, where: str) -> None:
    from huggingface_hub import hf_hub_download

    try:
        hf_hub_download(repository, file, revision=commit, local_dir=target)
    except Exception as error:  # as above
        raise _hub_error(error, f"{where}: {file}", commit) from None


def _hub_error(error: Exception, where: str, revision: str) -> AdapterError:
    from huggingface_hub import errors

    name = where.removeprefix("hub repository ").partition(":")[0]
    if isinstance(error, errors.GatedRepoError):
        fault, fix = (
            "asks for its terms to be accepted",
            f"Accept them at https://huggingface.co/{name}, then `hf auth login`.",
        )
    elif isinstance(error, errors.RevisionNotFoundError):
        fault, fix = f"has no revision {revision}", "Give a branch, a tag or a commit; empty for the main branch."
    elif isinstance(error, errors.RepositoryNotFoundError):
        fault, fix = (
            "there is none, or it is private",
            "Check the id, owner/name; for a private one run `hf auth login`.",
        )
    elif isinstance(error, errors.HFValidationError):
        fault, fix = "is no repository's id", "Write owner/name, as at the top of its page on the hub."
    else:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:160]
        fault = f"the hub cannot be reached from here ({reason})"
        local = name.rpartition("/")[2]
        fix = f"Where there is a network, `hf download {name} --local-dir {local}`; then add the folder."
    return AdapterError(Problem(where, fault, fix))
