"""Prompt files that people bring: made a declared suite of the workspace, taken off again, put back. Imports no torch.

The rows are written in this program's own form beside a YAML that declares them, so that the file they came from may
go. The YAML comes last: killed before it, there is no suite, and the next attempt replaces what was left.
"""

from __future__ import annotations

import glob
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from pydantic import ValidationError

from sstmerge_core import access, errors, metrics
from sstmerge_core.errors import DataError, Problem
from sstmerge_core.store import audit
from sstmerge_core.suites import declared, prepare
from sstmerge_core.suites.columns import NATIVE, Columns
from sstmerge_core.suites.declared import ROLE_METRICS, DeclaredSuite, Origin, Splits
from sstmerge_core.suites.guess import guess_columns
from sstmerge_core.suites.prepare import Prepared
from sstmerge_core.suites.rows import read_rows
from sstmerge_core.workspace import Workspace, given_path, write_file

ROLES = {"harmful": "Harmful: to be refused", "benign": "Harmless: to be answered", "utility": "Task: answered well"}
SHARES: dict[str, dict[str, float]] = {
    "harmful": {"selection": 0.4, "test": 0.6},
    "benign": {"selection": 0.4, "test": 0.6},
    "utility": {"fisher": 0.2, "selection": 0.3, "test": 0.5},
}
"""Role → how its prompts are dealt unless told otherwise; gradients of a task are taken of its Fisher split"""
NAME = re.compile(r"[a-z0-9_]{1,60}")


@dataclass(frozen=True)
class OwnSuite:
    """What the user says of a file of prompts."""

    name: str
    role: str
    """One of `ROLES`"""
    title: str = ""
    metric: str = ""
    """Empty: the role's own. With an encoder of the user's: ``bertscore:FOLDER#LAYER``"""
    columns: Columns | None = None
    """None: found out"""
    as_found: bool = False
    """The columns are the ones found out: a file of which they would lose something is refused"""
    shares: Mapping[str, float] = field(default_factory=dict)
    """Split → share, by a stable hash of topic or prompt; empty: the file's own split column where it has one, else
    `SHARES`"""
    max_new_tokens: int = 48
    """Longest answer to a task"""
    licence: str = "not stated"


def usable_name(text: str) -> str:
    """A suite's name made of a file's: ``My prompts.csv`` → ``my_prompts``."""
    stem = text.rsplit("/", 1)[-1].split(".", 1)[0]
    return re.sub(r"[^a-z0-9]+", "_", stem.lower()).strip("_")[:60] or "prompts"


def preview(workspace: Workspace, path: str | Path, told: OwnSuite) -> Prepared:
    """The rows dealt to their splits as `add` would, nothing declared yet.

    Raises DataError naming the file's rows or the field at fault.
    """
    return _dealt(workspace, given_path(path), told)


def add(workspace: Workspace, path: str | Path, told: OwnSuite) -> DeclaredSuite:
    """Make the file a suite of the workspace. Raises DataError with what is wrong; then there is no suite."""
    path = given_path(path)
    folder = declared.folder(workspace)
    _check_name(workspace, told.name)
    rows = _dealt(workspace, path, told)
    lines = rows.path.read_bytes()
    own = Origin(file=f"{told.name}.jsonl", n=rows.n, sha256=rows.sha256, columns=NATIVE)
    suite = _declared(told, own, Splits())
    shown = suite.model_dump(mode="json", exclude_defaults=True, exclude={"sources"})
    source = {"file": own.file, "n": own.n, "sha256": own.sha256}
    text = yaml.safe_dump(shown | {"sources": [source]}, allow_unicode=True, sort_keys=False)
    target = folder / f"{told.name}.yaml"
    with audit.act(workspace, "add", "added prompt set", f"suite {told.name}", about=path.name):
        write_file(folder / f"{told.name}.jsonl", lines)
        write_file(target, text)
    return declared.read(target)


def is_own(workspace: Workspace, name: str) -> bool:
    """Whether a suite is one that `add` made, which `remove` may take away."""
    folder = declared.folder(workspace)
    return all((folder / f"{name}.{ending}").is_file() for ending in ("yaml", "jsonl"))


def remove(workspace: Workspace, name: str) -> str:
    """Move a suite of one's own into the trash, its declaration first; returns what `restore` takes.

    Runs that were measured on it keep their answers. Raises DataError where there is none.
    """
    if not is_own(workspace, name):
        fix = "Shipped suites stay; one that was declared by hand is removed by hand."
        raise DataError(Problem(f"suite {name}", "was not made of a file here", fix))
    place = f"{name}.suite.{time.time_ns()}"
    target = workspace.trash / place
    with audit.act(workspace, "remove", "removed prompt set", f"suite {name}"):
        target.mkdir(parents=True)
        for ending in ("yaml", "jsonl"):
            os.rename(declared.folder(workspace) / f"{name}.{ending}", target / f"{name}.{ending}")
    return place


def restore(workspace: Workspace, place: str) -> DeclaredSuite:
    """Undo `remove`. Raises DataError where the files are gone or the name has been taken since."""
    source = workspace.trash / Path(place).name
    name = place.partition(".")[0]
    _check_name(workspace, name)
    if not (source / f"{name}.yaml").is_file():
        raise DataError(Problem(f"suite {name}", "is not in the trash any more", "Add its file again."))
    with audit.act(workspace, "remove", "restored prompt set", f"suite {name}"):
        for ending in ("jsonl", "yaml"):
            os.rename(source / f"{name}.{ending}", declared.folder(workspace) / f"{name}.{ending}")
        source.rmdir()
    return declared.read(declared.folder(workspace) / f"{name}.yaml")


def _check_name(workspace: Workspace, name: str) -> None:
    if not NAME.fullmatch(name):
        fix = "Use small letters, digits and _, for example my_prompts."
        raise DataError(Problem(f"name {name!r}"[:80], "is no suite's name", fix))
    if name in declared.names(workspace):
        raise DataError(Problem(f"name {name}", "another suite has it", "Give another name, or remove that one."))


def _declared(told: OwnSuite, origin: Origin, splits: Splits) -> DeclaredSuite:
    allowed = ROLE_METRICS[told.role]
    metric, _, encoder = (told.metric or allowed[0]).partition(":")
    if metric not in allowed:
        fix = f"Use {', '.join(allowed)}."
        raise DataError(Problem(f"metric {metric}", f"does not measure {told.role} prompts", fix))
    if encoder and metric not in metrics.by_encoder():
        fix = f"Only {' and '.join(metrics.by_encoder())} take one."
        raise DataError(Problem(f"metric {told.metric}", "names an encoder, and none computes it", fix))
    return DeclaredSuite.model_validate(
        {
            "name": told.name,
            "title": told.title.strip() or told.name.replace("_", " ").capitalize(),
            "role": told.role,
            "sources": (origin,),
            "metric": metric,
            "encoder": _lasting(encoder),
            "splits": splits,
            "max_new_tokens": told.max_new_tokens,
            "licence": told.licence.strip() or "not stated",
            "get": "Add its file again.",
        }
    )


def _lasting(encoder: str) -> str:
    """A folder by its whole path, wherever a run is launched from; a name on the hub as it is."""
    model, mark, layer = encoder.partition("#")
    folder = given_path(access.named(model))
    return f"{folder.resolve()}{mark}{layer}" if model and folder.is_dir() else encoder


def _dealt(workspace: Workspace, path: Path, told: OwnSuite) -> Prepared:
    if told.role not in ROLES:
        raise DataError(Problem(f"role {told.role!r}", "is no role of prompts", f"Use {', '.join(ROLES)}."))
    guess = guess_columns(path, told.columns)
    columns = told.columns or guess.columns
    if columns is None or (guess.problem and told.columns is None):
        raise DataError(guess.problem or Problem(str(path), "has no column of prompts", "Name it."))
    if told.columns is not None and guess.columns is not None:
        columns = guess.columns
    if told.role == "utility" and columns.response is None:
        fix = "Name the column of reference answers."
        raise DataError(Problem(str(path), "has no reference answers, which a task is measured by", fix))
    if told.columns is None or told.as_found:
        read_rows(path)  # as sweeps and training read it: what they refuse is no suite either
    by_column = columns.split is not None and not told.shares
    if not by_column:
        columns = columns.model_copy(update={"split": None})
    shares = dict(told.shares) or SHARES.get(told.role, {})
    by = "topic" if columns.topic is not None else "prompt"
    try:
        splits = Splits() if by_column else Splits.model_validate({"by": by, "shares": shares})
    except ValidationError as error:
        fix = "For example selection 0.4, test 0.6."
        raise DataError(errors.of_validation(error, "shares of the splits", fix, unsaid=["shares"])) from None
    origin = Origin(file=glob.escape(str(path.resolve())), columns=columns)
    found = prepare.prepare(_declared(told, origin, splits), workspace, fetch=False)
    unknown = sorted(set(found.splits) - set(declared.SPLITS))
    if unknown:
        shown = unknown[0] or "(empty)"
        fix = f"Use {', '.join(declared.SPLITS)}, or let the prompts be dealt by shares."
        raise DataError(Problem(f"{path}: split {shown}"[:200], "is no split", fix))
    return found
