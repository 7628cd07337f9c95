"""Declared suites: what a YAML file says of a set of prompts, and which of them are known here. Imports no torch.

A suite is prompts, a reference, a metric and a judge, with its licence and disjoint splits. Those of ``data/suites``
ship; a YAML in ``<workspace>/suites`` adds one, or goes before the shipped one of its name. `prepare` finds the rows.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sstmerge_core import documents, errors, metrics, resources
from sstmerge_core.errors import DataError, Problem
from sstmerge_core.metrics.labels import DEFAULT_JUDGE
from sstmerge_core.suites.columns import NATIVE, Columns, Scalar
from sstmerge_core.suites.columns import Choice as Choice
from sstmerge_core.suites.columns import Constant as Constant
from sstmerge_core.suites.columns import Template as Template
from sstmerge_core.workspace import Workspace, given_path, is_file

SHIPPED = resources.DATA / "suites"
SPLITS = ("train", "fisher", "selection", "test", "unseen")
METRICS = {
    "refusal": "refusals by the judge's verdict: resistance where the prompts are harmful, over-refusal where benign",
    **{name: metrics.get(name).help.removesuffix(".") for name in metrics.utility()},
    "harness": "the task's own, by lm-evaluation-harness",
    "none": "measures nothing: the rows are for training or for the Fisher",
}
ROLE_METRICS = {
    "harmful": ("refusal",),
    "benign": ("refusal",),
    "utility": metrics.utility(),
    "academic": ("harness",),
    "train": ("none",),
    "general": ("none",),
}
"""What each role may be measured by; the first is the role's own."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Origin(_Frozen):
    """One place where the rows may be: a file, a file inside an installed package, or a set on the Hugging Face hub."""

    file: str | None = None
    """Beside the YAML or in ``<workspace>/suites``; ``*`` matches several; with `package`, inside that package"""
    package: str | None = None
    """Import name of a package, which is located and never imported"""
    huggingface: str | None = None
    """Id of a data set"""
    config: str | None = None
    split: str | None = None
    revision: str | None = None
    under: str = ""
    """Dotted path to the list of records, in JSON and YAML"""
    header: bool = True
    """Whether a CSV's first line names its columns"""
    columns: Columns = NATIVE
    where: dict[str, Scalar | list[Scalar]] = Field(default_factory=dict)
    """Only records with this value, or one of these, at a path"""
    where_not: dict[str, Scalar | list[Scalar]] = Field(default_factory=dict)
    n: int | None = Field(default=None, gt=0)
    """Rows that this origin is known to give"""
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """Of those rows, as `suites.rows_digest` takes it"""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.file is None) == (self.huggingface is None):
            raise ValueError("names no place, or two: give `file`, `package` and `file`, or `huggingface`")
        if self.package and not self.file:
            raise ValueError("names a package but no file in it: give `file` too")
        if self.huggingface and not self.split:
            raise ValueError("names a hub set but not its split: give `split`")
        if not self.huggingface and (self.config or self.split or self.revision):
            raise ValueError("config, split and revision are only for `huggingface`")
        return self

    @property
    def name(self) -> str:
        if self.huggingface:
            return f"Hugging Face {self.huggingface}"
        return f"package {self.package}" if self.package else f"file {Path(self.file or '').name}"

    @property
    def native(self) -> bool:
        """Whether the file is this program's own format already."""
        plain = bool(self.file and self.file.endswith(".jsonl")) and not self.under
        return plain and self.columns == NATIVE and not (self.where or self.where_not)


class Splits(_Frozen):
    """How rows are dealt to splits: by the rows' own split column, or by a stable hash with shares."""

    by: Literal["column", "topic", "prompt"] = "column"
    shares: dict[str, float] = Field(default_factory=dict)
    """Split → share of the topics or prompts, summing to 1; a row's split never depends on the other rows"""

    @model_validator(mode="after")
    def _shares_fit(self) -> Self:
        if self.by == "column":
            if self.shares:
                raise ValueError("`shares` are only for splits by topic or prompt")
            return self
        unknown = [name for name in self.shares if name not in SPLITS]
        if unknown:
            raise ValueError(f"unknown split {unknown[0]!r}: use {', '.join(SPLITS)}")
        if not (all(share > 0 for share in self.shares.values()) and abs(sum(self.shares.values()) - 1) <= 1e-9):
            raise ValueError("`shares` must be above 0 and sum to 1")
        return self


class Harness(_Frozen):
    """A task of lm-evaluation-harness."""

    task: str
    few_shot: int | None = Field(default=None, ge=0)
    """None: the task's own"""
    runs_code: bool = False
    """The answers are programs: only with ``--execute-code``, in a sandboxed child process"""


class DeclaredSuite(_Frozen):
    name: str = Field(pattern="^[a-z0-9_]+$")
    title: str
    role: Literal["harmful", "benign", "utility", "academic", "train", "general"]
    sources: tuple[Origin, ...] = ()
    """In the order in which they are tried"""
    metric: str
    """One of `METRICS` that the role may have"""
    encoder: str = ""
    """Of a metric that an encoder computes, which one: ``FOLDER#LAYER``, ``ORG/NAME@REVISION#LAYER``; empty: its usual
    one"""
    judge: str = DEFAULT_JUDGE
    max_new_tokens: int = Field(default=48, gt=0)
    splits: Splits = Splits()
    harness: Harness | None = None
    licence: str
    citation: str = ""
    note: str = ""
    get: str
    """The exact way to get the rows, as shown where they are absent; ``{folder}`` is ``<workspace>/suites``"""

    _path: Path = Path()
    """The YAML it was read from"""

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        allowed = ROLE_METRICS[self.role]
        if self.metric not in allowed:
            raise ValueError(f"role {self.role} is measured by {' or '.join(allowed)}, not by {self.metric}")
        if self.encoder and self.metric not in metrics.by_encoder():
            raise ValueError(f"encoder is for {' and '.join(metrics.by_encoder())}, not for {self.metric}")
        if (self.harness is None) == (self.role == "academic"):
            raise ValueError("an academic suite, and no other, names its `harness` task")
        if not self.sources and self.role != "academic":
            raise ValueError("has no `sources`")
        return self

    @property
    def measured_by(self) -> str:
        """The metric, with the encoder where one is named: ``bertscore:FOLDER#9``."""
        return f"{self.metric}:{self.encoder}" if self.encoder else self.metric

    @property
    def path(self) -> Path:
        return self._path

    def how_to_get(self, workspace: Workspace) -> str:
        return self.get.strip().replace("{folder}", str(folder(workspace)))

    def identity(self, origin: Origin) -> str:
        """Hash of everything here that decides the rows from one origin and their splits."""
        decides = origin.model_dump(mode="json", exclude={"n", "sha256"}) | {
            "splits": self.splits.model_dump(mode="json")
        }
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def folder(workspace: Workspace) -> Path:
    """Where users put YAML files and rows of their own."""
    return workspace.root / "suites"


def read(path: Path) -> DeclaredSuite:
    """The suite that a YAML file declares, read once until the file changes.

    Raises DataError naming the file, the fields at fault, and the fix.
    """
    try:
        changed = path.stat().st_mtime_ns
    except OSError:
        changed = 0  # what is wrong is said where it is read
    return _read(path, changed)


@lru_cache(maxsize=256)
def _read(path: Path, changed: int) -> DeclaredSuite:
    try:
        content = documents.read_yaml(path)
    except documents.FormatError as error:
        raise DataError(Problem(str(path), str(error), "Give a suite's YAML file.")) from None
    if not isinstance(content, dict):
        raise DataError(Problem(str(path), "declares no suite", "See docs/suites.md for the fields."))
    try:
        suite = DeclaredSuite.model_validate(content)
    except ValidationError as error:
        fix = "Correct the field; docs/suites.md describes them."
        raise DataError(errors.of_validation(error, str(path), fix, fields=_FIELDS, unsaid=_UNION_BRANCHES)) from None
    if suite.name != path.stem:
        fault = f"is called {path.stem} but declares the suite {suite.name!r}"
        raise DataError(Problem(f"{path}: name", fault, "Give file and suite one name."))
    suite._path = path
    return suite


def find(name_or_path: str, workspace: Workspace) -> DeclaredSuite | None:
    """The suite of this name, the user's before the shipped one, or of this YAML file; None where there is none."""
    if name_or_path.endswith((".yaml", ".yml")):
        return read(given_path(name_or_path).resolve())
    for place in (folder(workspace), SHIPPED):
        path = place / f"{name_or_path}.yaml"
        if "/" not in name_or_path and is_file(path):
            return read(path)
    return None


def get(name_or_path: str, workspace: Workspace) -> DeclaredSuite:
    """As `find`. Raises DataError naming the nearest ones."""
    found = find(name_or_path, workspace)
    if found is None:
        known = names(workspace)
        near = difflib.get_close_matches(name_or_path, known, 2, 0.5)
        fix = f"Did you mean {' or '.join(near)}?" if near else f"`sstmerge suites` lists them: {', '.join(known)}."
        raise DataError(Problem(f"suite {name_or_path}", "there is no such suite", fix))
    return found


def names(workspace: Workspace) -> list[str]:
    return sorted({path.stem for place in (SHIPPED, folder(workspace)) for path in place.glob("*.yaml")})


def suites(workspace: Workspace) -> Iterator[DeclaredSuite | DataError]:
    """Every known suite by name; in place of one that cannot be read, why."""
    for name in names(workspace):
        try:
            yield get(name, workspace)
        except DataError as error:
            yield error


_UNION_BRANCHES = ("Template", "Constant", "Choice", "str")
_FIELDS = sorted({name for model in (DeclaredSuite, Origin, Columns, Splits, Harness) for name in model.model_fields})
