"""What the Hugging Face hub says and gives: a revision's commit and files, one file of it, its refusals in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sstmerge_core.errors import AdapterError, Problem, SSTMergeError

TIMEOUT = 20.0
"""Seconds that the hub has to answer the first question"""


def repository_id(given: str) -> str:
    """``owner/name`` of what was written or pasted."""
    return given.strip().removeprefix("https://huggingface.co/").strip("/")


def ask(repository: str, revision: str, where: str) -> tuple[str, dict[str, int]]:
    """The commit of a revision, and its files with their sizes in bytes. Raises AdapterError in the hub's words."""
    from huggingface_hub import HfApi

    try:
        info = HfApi().model_info(repository, revision=revision or None, files_metadata=True, timeout=TIMEOUT)
    except Exception as error:  # the library has no common base for: no network, gated, unknown, not an id
        raise refused(error, where, revision) from None
    return str(info.sha), {file.rfilename: int(file.size or 0) for file in info.siblings or ()}


def fetch(repository: str, file: str, commit: str, where: str, *, target: Path | None = None, bar: Any = None) -> Path:
    """One file into `target`, or into the hub's own cache, from where it broke off. Raises AdapterError.

    `bar`: a class like tqdm that is told the bytes.
    """
    from huggingface_hub import hf_hub_download

    try:
        told = {"tqdm_class": bar} if bar else {}
        return Path(hf_hub_download(repository, file, revision=commit, local_dir=target, **told))
    except SSTMergeError:  # of `bar`: the user cancelled
        raise
    except Exception as error:  # as above
        raise refused(error, f"{where}: {file}", commit) from None


def refused(error: Exception, where: str, revision: str) -> AdapterError:
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
