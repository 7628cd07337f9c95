"""A recipe as a YAML file that travels with what it made: no local path in it, every input by SHA-256. No torch.

    sstmerge merge recipe.yaml --out DIR

finds the inputs by their hashes and makes the adapter again, with the same bits on the same machine and versions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path, PurePath
from typing import Any

import yaml

from sstmerge_core import catalog, content, documents, methods
from sstmerge_core.adapters.write import OUTPUT_DTYPES
from sstmerge_core.errors import AdapterError, DataError, Problem, RecipeError, SSTMergeError
from sstmerge_core.recipe import Calibration, Recipe, Source, Suite, record, validated
from sstmerge_core.suites import bundled
from sstmerge_core.suites.rows import load_rows, rows_digest, take
from sstmerge_core.workspace import Workspace, given_path

NAME = "recipe.yaml"
FORMAT = 1
CHOSEN_ON = ("selection", "selection_benign")
"""Fields of a recipe with prompts on which its method chooses a parameter"""


@dataclass(frozen=True)
class Output:
    """What a result is written as. It belongs to the file that leaves, not to the run's identity."""

    kind: str = "adapter"
    """``adapter`` (PEFT LoRA) or ``model`` (base + ΔW, dense)"""
    dtype: str = "float32"
    """``float32``, ``bfloat16``, ``float16``, or ``auto``: that of the adapters, for a model that of the base"""
    rank: int | None = None
    """Of the adapter; None: the merge's own, exact wherever ΔW is low-rank"""
    licence: str = ""
    """A note on the licence, for the model card"""

    def problems(self) -> list[Problem]:
        found = []
        if self.dtype not in OUTPUT_DTYPES:
            fix = f"Use one of {', '.join(OUTPUT_DTYPES)}."
            found.append(Problem(f"--dtype {self.dtype}", "cannot be written", fix))
        if self.kind not in ("adapter", "model"):
            found.append(Problem(f"output kind {self.kind}", "is unknown", "Use adapter or model."))
        if self.rank is not None and (not isinstance(self.rank, int) or self.rank < 1 or self.kind == "model"):
            fault = "must be at least 1" if self.kind == "adapter" else "has no meaning for a dense model"
            found.append(Problem(f"--rank {self.rank}", fault, "Leave it out for the exact result."))
        if not isinstance(self.licence, str):
            found.append(Problem("output licence", "is not a text", "Put it into quotes, or leave it out."))
        return found


@dataclass(frozen=True)
class RecipeFile:
    """What a recipe.yaml says."""

    recipe: Recipe
    """Its sources have no paths"""
    output: Output = Output()
    files: dict[str, str] = field(default_factory=dict)
    """SHA-256 of the weights it made, by file name"""
    versions: dict[str, str] = field(default_factory=dict)

    def to_yaml(self) -> str:
        content = without_paths(self.recipe.model_dump(mode="json", exclude={"artifacts"}))
        body = {"format": FORMAT, "run_id": self.recipe.run_id, **{k: v for k, v in content.items() if v is not None}}
        body |= {"output": {k: v for k, v in asdict(self.output).items() if v not in (None, "")}}
        body |= {"files": self.files, "versions": self.versions}
        text = yaml.safe_dump(body, sort_keys=False, allow_unicode=True, width=120)
        return f"# Makes this again: sstmerge merge {NAME} --out DIR\n{text}"


def without_paths(value: Any) -> Any:
    """A dumped recipe as it may leave this machine: sources keep name and hash, a name that is a path its last part."""
    if isinstance(value, dict):
        if {"name", "sha256"} <= set(value) <= {"name", "path", "sha256"}:
            return {"name": public_name(value["name"]), "sha256": value["sha256"]}
        return {name: without_paths(one) for name, one in value.items()}
    return [without_paths(one) for one in value] if isinstance(value, (list, tuple)) else value


def public_name(name: str) -> str:
    """`name` where it is a name or a hub id; its last part where it is a path on somebody's machine."""
    parts = PurePath(name).parts
    local = name.startswith((".", "~", "/")) or len(parts) > 2
    return parts[-1] if parts and local else name


def read_recipe(path: Path | str) -> RecipeFile:
    """The recipe in a YAML file. Raises RecipeError that names the file, what is wrong with it, and the fix."""
    path = given_path(path, RecipeError)
    fix = "Give the recipe.yaml of a merged adapter, or the output of `sstmerge recipe RUN_ID`."
    try:
        if not path.exists():
            raise RecipeError(Problem(str(path), "there is no such file", fix))
        content = documents.read_yaml(path)
    except documents.FormatError as error:
        raise RecipeError(Problem(str(path), str(error), fix)) from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise RecipeError(Problem(str(path), f"is not a recipe of format {FORMAT}", fix))
    try:
        settings = dict(content.pop("output", None) or {})
        output = Output(**settings)
        files, versions = dict(content.pop("files", None) or {}), dict(content.pop("versions", None) or {})
        rest = {key: value for key, value in content.items() if key not in ("format", "run_id")}
        recipe = validated(_with_paths(rest), str(path), "Correct the file.")
    except (TypeError, ValueError) as error:
        raise RecipeError(Problem(str(path), f"has an unusable entry: {error}", "Correct the file.")) from None
    complete = methods.get(recipe.method).complete(recipe.parameters)
    if problems := output.problems():
        raise RecipeError(problems)
    return RecipeFile(recipe.model_copy(update={"parameters": complete}), output, files, versions)


def of_run(workspace: Workspace, run_id: str) -> str:
    """A run's recipe as YAML: the file that its adapter carries, which names the hashes of what it made; where it
    has no adapter, from its events.

    Raises RecipeError where there is no such run, or its recipe cannot be read.
    """
    carried = workspace.merged_adapter(run_id) / NAME
    if carried.is_file():
        return carried.read_text(encoding="utf-8")
    folder = workspace.run(run_id)
    started = record.started(folder)
    if started is None:
        raise RecipeError(Problem(f"run {run_id}", "has no recipe here", "It may have been deleted, or be another's."))
    return RecipeFile(validated(started["recipe"], f"run {run_id}"), versions=started.get("versions") or {}).to_yaml()


def locate(
    recipe: Recipe,
    workspace: Workspace,
    *,
    base: catalog.Base | None = None,
    unaligned: catalog.Base | None = None,
    given: Mapping[str, str] | None = None,
    needs_base: bool = True,
    fetch: bool = True,
) -> Recipe:
    """`recipe` with the places of its inputs on this machine, each found by its SHA-256.

    `base`, `unaligned` and `given` (a path by the recipe's name of an adapter or of a calibration file) go before the
    catalogue and the bundled data; what is in neither is fetched from the content store, where one is configured;
    without `fetch` it is only asked for, and its path stays.

    Raises AdapterError, DataError or RecipeError with every input that is missing or has another hash.
    """
    given = dict(given or {})
    chosen_on = {name: suite for name in CHOSEN_ON if (suite := getattr(recipe, name)) is not None}
    known = {source.name for source in recipe.adapters} | {source.name for source in _rows_of(recipe.calibration)}
    known |= {suite.source.name for suite in chosen_on.values()}
    problems = [
        Problem(f"input {name}={path}", "the recipe has none of this name", f"Its inputs: {', '.join(known)}.")
        for name, path in given.items()
        if name not in known
    ]
    if problems:
        raise RecipeError(problems)
    update: dict[str, Any] = {}
    failures: list[SSTMergeError] = []
    steps: dict[str, Callable[[], Any]] = {
        "base": lambda: _base(recipe.base, workspace, base, needs_base, "--base", fetch),
        "adapters": lambda: _adapters(recipe.adapters, workspace, given, fetch),
        "calibration": lambda: _calibration(recipe.calibration, given),
    }
    if recipe.unaligned is not None:
        wanted = recipe.unaligned
        steps["unaligned"] = lambda: _base(wanted, workspace, unaligned, True, "--unaligned", fetch)
    steps |= {name: partial(_suite, suite, given) for name, suite in chosen_on.items()}
    for name, step in steps.items():
        try:
            update[name] = step()
        except SSTMergeError as error:
            failures.append(error)
    if failures:
        raise type(failures[0])([problem for failure in failures for problem in failure.problems])
    return recipe.model_copy(update=update)


def _base(
    wanted: Source, workspace: Workspace, given: catalog.Base | None, needed: bool, option: str, fetch: bool
) -> Source:
    if given is not None:
        if given.sha256 != wanted.sha256:
            raise DataError(_another(str(given.path), f"base model {wanted.name}", given.sha256, wanted))
        return given.source
    found = next((one for one in catalog.bases(workspace) if one.ready and one.sha256 == wanted.sha256), None)
    if found is None and needed and (shared := _shared(content.BASE, wanted, workspace, fetch)) is not None:
        return shared
    if found is None and needed:
        raise DataError(_missing(f"base model {wanted.name}", wanted, "`sstmerge adapters add-base`", f"{option} DIR"))
    return found.source if found else wanted


def _shared(kind: str, wanted: Source, workspace: Workspace, fetch: bool) -> Source | None:
    """An input that the content store has: brought here, or only found there. None where it has not."""
    if not fetch and not content.has(kind, wanted.sha256, workspace):
        return None
    path = content.fetch(kind, wanted.sha256, workspace) if fetch else wanted.path
    return wanted.model_copy(update={"path": str(path)}) if path is not None else None


def _adapters(
    wanted: tuple[Source, ...], workspace: Workspace, given: Mapping[str, str], fetch: bool
) -> tuple[Source, ...]:
    known = {one.sha256: one for one in catalog.entries(workspace)}
    found: list[Source] = []
    problems: list[Problem] = []
    for source in wanted:
        if source.name in given:
            entry = catalog.entry(given[source.name], workspace)
            if entry.sha256 != source.sha256:
                problems.append(_another(str(entry.path), f"adapter {source.name}", entry.sha256, source))
                continue
        elif source.sha256 in known:
            entry = known[source.sha256]
        elif (shared := _shared(content.ADAPTER, source, workspace, fetch)) is not None:
            found.append(shared)
            continue
        else:
            option = f"--adapter {source.name}=DIR"
            problems.append(_missing(f"adapter {source.name}", source, "`sstmerge adapters add`", option))
            continue
        found.append(source.model_copy(update={"path": str(entry.path)}))
    if problems:
        raise AdapterError(problems)
    return tuple(found)


def _calibration(calibration: Calibration | None, given: Mapping[str, str]) -> Calibration | None:
    if calibration is None:
        return None
    found: dict[str, Source] = {}
    problems: list[Problem] = []
    for source, n, split in _parts_of(calibration):
        try:
            found[source.sha256] = _data(source, n, split, given)
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(problems)
    update: dict[str, Any] = {
        name: found[value.sha256] for name, value in dict(calibration).items() if isinstance(value, Source)
    }
    update["further"] = tuple(found[source.sha256] for source in calibration.further)
    if calibration.held is not None:
        parts = {name: found[source.sha256] for name, (source, _) in calibration.held.parts.items()}
        update["held"] = calibration.held.model_copy(update=parts)
    return calibration.model_copy(update=update)


def _suite(suite: Suite, given: Mapping[str, str]) -> Suite:
    """Prompts on which a method chooses, with their place here. Raises DataError."""
    return suite.model_copy(update={"source": _data(suite.source, suite.n, suite.split, given)})


def _data(source: Source, n: int, split: str, given: Mapping[str, str]) -> Source:
    """Rows of a recipe with their place here: given, bundled, or where they were. Raises DataError."""
    known = bundled.BUNDLED.get(source.name)
    place = Path(given.get(source.name) or (bundled.rows_of(known) if known else source.path or source.name))
    if not place.is_file():
        raise DataError(_missing(f"data {source.name}", source, "", f"--data {source.name}=FILE"))
    rows = load_rows(place, split)
    digest = rows_digest(take(rows, min(n, len(rows))))
    if digest != source.sha256:
        raise DataError(_another(str(place), f"data {source.name}", digest, source))
    return source.model_copy(update={"path": str(place.resolve())})


def _parts_of(calibration: Calibration) -> Iterator[tuple[Source, int, str]]:
    """Every file of samples that a recipe names, how many rows of which split; those too that count for nothing."""
    for name, value in dict(calibration).items():
        if isinstance(value, Source):
            yield value, getattr(calibration, f"n_{name}"), calibration.split
    for source, n in zip(calibration.further, calibration.n_further, strict=True):
        yield source, n, calibration.split
    if calibration.held is not None:
        for source, n in calibration.held.parts.values():
            yield source, n, calibration.held.split


def _rows_of(calibration: Calibration | None) -> list[Source]:
    return [source for source, *_ in _parts_of(calibration)] if calibration else []


def _another(where: str, what: str, sha256: str, wanted: Source) -> Problem:
    fault = f"its SHA-256 is {sha256[:16]}…, the recipe's {what} has {wanted.sha256[:16]}…"
    return Problem(where, fault, "Give the one that the recipe was made with, or write a recipe for this one.")


def _missing(what: str, wanted: Source, register: str, option: str) -> Problem:
    fix = f"Give it by {option}" + (f", or register it with {register}" if register else "")
    fix += ", or name the store that has it in SSTMERGE_STORE." if register else "."
    return Problem(what, f"none with the recipe's SHA-256 {wanted.sha256[:16]}… is known here", fix)


def _with_paths(value: Any) -> Any:
    """Sources as `Recipe` wants them, with an empty path."""
    if isinstance(value, dict):
        if set(value) == {"name", "sha256"}:
            return value | {"path": ""}
        return {name: _with_paths(one) for name, one in value.items()}
    return [_with_paths(one) for one in value] if isinstance(value, list) else value
