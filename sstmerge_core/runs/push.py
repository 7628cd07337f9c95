"""A merged adapter or model into a repository of the Hugging Face hub, with its card and recipe. Imports no torch.

What would be sent is planned first, and shown: files, sizes, the card. The token is the environment's (``HF_TOKEN``) or
that of `hf auth login`; nothing of it is kept or shown. Repositories are private unless told otherwise, and one that is
there already is only written to where that is asked for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from sstmerge_core import access, words
from sstmerge_core.adapters.archive import CONFIG, WEIGHTS
from sstmerge_core.errors import AdapterError, DataError, Problem
from sstmerge_core.runs.artifact import CARD
from sstmerge_core.runs.card import PLACE
from sstmerge_core.store import audit
from sstmerge_core.workspace import Workspace

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
ENDINGS = (".safetensors", ".json", ".jinja", ".yaml", ".md", ".model", ".txt", ".tiktoken")
"""Of the files that are sent; no pickle, no program, no log"""


class Client(Protocol):
    """What is used of `huggingface_hub.HfApi`."""

    def whoami(self) -> Any: ...

    def repo_exists(self, repo_id: str) -> bool: ...

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> Any: ...

    def create_commit(self, repo_id: str, operations: Any, *, commit_message: str) -> Any: ...


@dataclass(frozen=True)
class Plan:
    """What would be sent where."""

    repository: str
    folder: Path
    private: bool
    update: bool
    message: str
    sizes: dict[str, int]
    """Bytes by file name"""
    left_out: tuple[str, ...]
    """Files of the folder that stay"""
    card: str = field(repr=False)
    """README.md as it is sent: its snippet loads from the repository"""

    @property
    def url(self) -> str:
        return f"https://huggingface.co/{self.repository}"

    @property
    def lines(self) -> list[str]:
        """The plan in words."""
        whose = "private" if self.private else "public"
        told = [f"{self.repository}: {whose}{', or as it is where it is there already' if self.update else ''}"]
        told += [f"  {name}  {words.size(size)}" for name, size in self.sizes.items()]
        told += [f"  ({name} stays here)" for name in self.left_out]
        return [*told, f"commit: {self.message}"]


def plan(
    workspace: Workspace, what: str, repository: str, *, public: bool = False, update: bool = False, message: str = ""
) -> Plan:
    """What of a run's adapter, or of a folder that this program wrote, would be sent. Nothing leaves the machine.

    `what` is a run's id or a folder. Raises AdapterError where there is nothing to send, DataError for a name that no
    repository may have.
    """
    repository = repository.strip().removeprefix("https://huggingface.co/").strip("/")
    if not REPOSITORY.fullmatch(repository) or ".." in repository or "--" in repository:
        fix = "Write owner/name, your own name or that of an organisation first."
        raise DataError(Problem(f"repository {repository}"[:80], "is no repository's id", fix))
    folder = _folder(workspace, what)
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.is_symlink())
    sent = [path for path in files if path.suffix in ENDINGS and not path.name.startswith(".")]
    names = {path.name for path in sent}
    if not ({CONFIG, WEIGHTS} <= names or ("config.json" in names and any(n.endswith(".safetensors") for n in names))):
        fix = "Make its adapter first: the Run page does, and `sstmerge merge`."
        raise AdapterError(Problem(str(folder), "holds neither an adapter nor a model in safetensors", fix))
    if CARD not in names:
        fix = "Give a folder that `sstmerge merge` or a run of this program wrote."
        raise AdapterError(Problem(str(folder), f"has no model card ({CARD})", fix))
    card = (folder / CARD).read_text(encoding="utf-8").replace(PLACE, repository)
    message = " ".join(message.split()) or f"{words.shortened(what)}, by SST-Merge Studio"
    sizes = {path.name: path.stat().st_size for path in sent} | {CARD: len(card.encode())}
    left = tuple(path.name for path in folder.iterdir() if path.name not in names)
    return Plan(repository, folder, not public, update, message, sizes, left, card)


def push(workspace: Workspace, planned: Plan, client: Client | None = None) -> str:
    """Send it; returns the repository's address. `client` is for tests.

    Raises AdapterError in the hub's words: no token, a repository that is there, a refusal, no network. AccessError
    where who acts may not.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    api: Client = client or HfApi()
    where = f"hub repository {planned.repository}"
    with audit.act(workspace, "push", "pushed", planned.repository, about=planned.message):
        try:
            api.whoami()
            there = api.repo_exists(planned.repository)
        except Exception as error:  # the library has no common base for: no token, a wrong one, no network
            raise _refused(error, where) from None
        if there and not planned.update:
            fix = "Give another name, or --update to add a commit to it; what it holds stays in its history."
            raise AdapterError(Problem(where, "is there already", fix))
        given: dict[str, Any] = {name: str(planned.folder / name) for name in planned.sizes}
        given[CARD] = planned.card.encode()
        operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=file) for name, file in given.items()]
        try:
            if not there:
                api.create_repo(planned.repository, private=planned.private, exist_ok=False)
            api.create_commit(planned.repository, operations, commit_message=planned.message)
        except Exception as error:  # as above
            raise _refused(error, where) from None
    return planned.url


def _folder(workspace: Workspace, what: str) -> Path:
    of_run = workspace.merged_adapter(what) if re.fullmatch(r"[0-9a-f]{16}", what) else None
    if of_run is not None and (workspace.run(what)).is_dir():
        if not of_run.is_dir():
            fix = "Make it: the Run page has a button, and `sstmerge merge` takes its recipe."
            raise AdapterError(Problem(f"run {what}", "its adapter is not on this machine", fix))
        return of_run
    folder = access.place(what)
    if not folder.is_dir():
        fix = "Give a run's id, or a folder that `sstmerge merge` wrote."
        raise AdapterError(Problem(what[:80], "is neither a run of this workspace nor a folder", fix))
    return folder


def _refused(error: Exception, where: str) -> AdapterError:
    from huggingface_hub import errors

    code = getattr(getattr(error, "response", None), "status_code", None)
    said = " ".join(str(error).split())[:200]
    if isinstance(error, errors.LocalTokenNotFoundError) or code == 401:
        fix = "Set HF_TOKEN to a token that may write, or run `hf auth login`."
        return AdapterError(Problem(where, "there is no token for the hub, or it is not valid", fix))
    if code == 403:
        fix = "Take a token that may write there, and a name or an organisation of your own."
        return AdapterError(Problem(where, f"the hub does not let you write ({said})", fix))
    if code is not None:
        return AdapterError(Problem(where, f"the hub refuses it ({said})", "Correct it, then push again."))
    fault = f"the hub cannot be reached from here ({type(error).__name__}: {said})"
    return AdapterError(Problem(where, fault, "Push again where there is a network."))
