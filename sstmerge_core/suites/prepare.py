"""From a declared suite to its rows: find them, map the columns, deal them to splits. Imports no torch.

The result is a JSONL file in the workspace's cache, in this program's own columns, under a name that says what it was
made from; a file that has them already is used where it lies.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import importlib.util
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sstmerge_core.errors import DataError, Problem
from sstmerge_core.suites.chats import RowFault
from sstmerge_core.suites.columns import Columns, at, part, value
from sstmerge_core.suites.declared import DeclaredSuite, Origin, Splits, folder
from sstmerge_core.suites.rows import (
    Layout,
    Row,
    check_whole,
    checked_rows,
    grouped,
    read_records,
    rows_digest,
)
from sstmerge_core.workspace import Workspace, given_path, write_file, write_json

VERSION = 1
"""Raised by hand when the same declaration and data give other rows"""
SUMMARY = "summary.json"
"""Beside prepared rows: their splits and hash, written last"""


@dataclass(frozen=True)
class Prepared:
    """Rows ready to be read by `load_rows`."""

    path: Path
    origin: str
    """Where they came from, for people"""
    splits: dict[str, int]
    """Rows per split"""
    sha256: str
    """`rows_digest` of all rows, in file order"""
    dropped: int = 0
    """Records whose prompt had come before, but for case and spaces"""

    @property
    def n(self) -> int:
        return sum(self.splits.values())


@dataclass(frozen=True)
class _Row:
    row: Row
    split: str
    where: str


def prepare(suite: DeclaredSuite, workspace: Workspace, *, fetch: bool = True) -> Prepared:
    """The suite's rows from the first of its sources that is here.

    Only with `fetch` a source on the Hugging Face hub is asked for, once: its rows are kept. Raises DataError: one
    problem with the exact way to get the rows where they are absent, or what is wrong with those that are here.
    """
    missing: list[str] = []
    for origin in suite.sources:
        if origin.huggingface:
            found: Sequence[Path] = ()
            stamp = ""
        else:
            located = _locate(origin, suite, workspace)
            if isinstance(located, str):
                missing.append(located)
                continue
            found, stamp = located, _stamp(located)
            if origin.native and suite.splits.by == "column" and len(found) == 1:
                return _checked(_in_place(found[0], origin), origin, suite)
        target = _target(suite, origin, stamp, workspace)
        if not target.with_name(SUMMARY).is_file():
            try:
                records = _downloaded(origin, fetch) if origin.huggingface else _of_files(found, origin)
            except _Absent as reason:
                missing.append(f"{origin.name}: {reason}")
                continue
            rows, dropped = _rows(suite, origin, records)
            _write(target, rows, dropped)
        return _checked(_read(target, origin), origin, suite)
    reasons = f" ({'; '.join(missing)})" if missing else ""
    raise DataError(Problem(f"suite {suite.name}", f"its rows are not here{reasons}", suite.how_to_get(workspace)))


def mapped(path: Path | str, columns: Columns, workspace: Workspace) -> Path:
    """A file's rows under `columns` as a file of this program's own columns, made once while the file stays as it is.

    Its name is the file's own. Raises DataError as `suites.read_rows` does.
    """
    path = given_path(path).resolve()
    found = [_Row(row, row.split, where) for where, row in checked_rows(path, columns)]
    if not found:
        raise DataError(Problem(str(path), "has no rows", "Add rows with a prompt column."))
    key = hashlib.sha256(f"{VERSION} {path} {rows_digest(one.row for one in found)}".encode()).hexdigest()[:16]
    name = Path(path.stem).stem if path.suffix.lower() == ".gz" else path.stem
    target = workspace.cache / "suites" / key / f"{name}.jsonl"
    _write(target, found, 0)
    return target


def is_here(suite: DeclaredSuite, workspace: Workspace) -> bool:
    """Whether one of its sources is on this machine; nothing is read or fetched to know it."""
    for origin in suite.sources:
        if origin.huggingface:
            if _target(suite, origin, "", workspace).with_name(SUMMARY).is_file():
                return True
        elif not isinstance(_locate(origin, suite, workspace), str):
            return True
    return False


def _target(suite: DeclaredSuite, origin: Origin, stamp: str, workspace: Workspace) -> Path:
    """Where the prepared rows of one origin are kept."""
    key = hashlib.sha256(f"{VERSION} {suite.identity(origin)} {stamp}".encode()).hexdigest()[:16]
    return workspace.cache / "suites" / key / f"{suite.name}.jsonl"


def assign(key: str, shares: Mapping[str, float]) -> str:
    """The split of a topic or prompt: its hash as a number in [0, 1) against the shares' running sum."""
    position = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) / 2**64
    for name, share in shares.items():
        position -= share
        if position < 0:
            return name
    return name


def normalised(prompt: str) -> str:
    """What makes two prompts the same: their words, but for case and spaces."""
    return " ".join(prompt.casefold().split())


class _Absent(Exception):
    """A source that is not here, with the reason; the next one may be."""


def _locate(origin: Origin, suite: DeclaredSuite, workspace: Workspace) -> list[Path] | str:
    """The origin's files, or why there are none."""
    assert origin.file is not None
    if origin.package:
        try:
            spec = importlib.util.find_spec(origin.package)
        except (ImportError, ValueError):
            spec = None
        if spec is None:
            return f"package {origin.package} is not installed"
        roots = [Path(place) for place in spec.submodule_search_locations or ()]
    else:
        roots = [folder(workspace), suite.path.parent]
    for root in roots:
        named = given_path(origin.file)
        # only what the suite says is a pattern: the folder it lies in may have a * or ? in its own name
        wanted = str(named if named.is_absolute() else Path(glob.escape(str(root)), named))
        with contextlib.suppress(OSError, ValueError):  # no path at all: a NUL in it, or longer than the disk takes
            if (root / named).is_file():
                return [root / named]
            if files := sorted(Path(name) for name in glob.glob(wanted) if Path(name).is_file()):
                return files
    if origin.package:
        return f"package {origin.package} is installed but has no {origin.file}"
    return f"no {origin.file} in {folder(workspace)}"


def _stamp(files: Iterable[Path]) -> str:
    """Changes when a file is replaced; reading large files only to hash them would make every listing slow."""
    return " ".join(f"{file} {file.stat().st_mtime_ns} {file.stat().st_size}" for file in files)


def _of_files(files: Iterable[Path], origin: Origin) -> Iterator[tuple[str, Any]]:
    """Their records; each also has the name of its file, without the ending, at ``_file``."""
    for file in files:
        about = {"encoding": origin.columns.encoding, "delimiter": origin.columns.delimiter}
        for where, record in read_records(file, origin.under, origin.header, **about):
            yield where, {**record, "_file": file.stem} if isinstance(record, Mapping) else record


def _downloaded(origin: Origin, fetch: bool) -> Iterator[tuple[str, Any]]:
    """The records of a hub set. Raises _Absent where they cannot be had now."""
    if importlib.util.find_spec("datasets") is None:
        raise _Absent('needs `pip install "sstmerge[hub]"`')
    if not fetch:
        raise _Absent("not fetched yet")
    import datasets

    try:
        found = datasets.load_dataset(origin.huggingface, origin.config, split=origin.split, revision=origin.revision)
    except Exception as error:  # the library has no common base for: no network, gated, unknown set, unknown split
        reason = " ".join(str(error).split())[:200]
        raise _Absent(f"{type(error).__name__}: {reason}") from None
    return ((f"{origin.huggingface} row {number}", record) for number, record in enumerate(found, start=1))


def _rows(suite: DeclaredSuite, origin: Origin, records: Iterable[tuple[str, Any]]) -> tuple[list[_Row], int]:
    """Mapped, chosen and dealt rows, and how many repeated a prompt. Raises DataError naming records at fault."""
    rows: list[_Row] = []
    faults: dict[tuple[str, str], list[str]] = {}
    first: dict[str, _Row] = {}
    ids: set[str] = set()
    dropped = chosen = 0
    # what a declaration does not say of its columns is not there; one that says nothing leaves them to be found
    given = Columns(**dict(origin.columns)) if "columns" in origin.model_fields_set else None
    layout = Layout(f"suite {suite.name}: {origin.name}", given)
    for where, record in records:
        if isinstance(record, Mapping) and not _wanted(record, origin):
            continue
        chosen += 1
        try:
            columns = layout.columns(record)
            prompt = part(record, columns, "prompt")
            if not prompt.strip():
                has = ", ".join(map(str, list(record)[:8]))
                raise RowFault(f"has no prompt at {columns.prompt!r}", f"Its columns: {has}.")
            row = _row(record, prompt, columns, ids)
        except RowFault as error:
            faults.setdefault((str(error), error.fix), []).append(where)
            continue
        found = _Row(row, _split(record, prompt, columns, suite.splits), where)
        earlier = first.setdefault(normalised(prompt), found)
        if earlier is not found:
            dropped += 1
            if earlier.split != found.split:
                fault = (
                    f"repeats the prompt of {earlier.where}, which is in split {earlier.split!r}, not {found.split!r}"
                )
                faults.setdefault((fault, "Remove one of them: splits must be disjoint."), []).append(where)
            continue
        ids.add(found.row.prompt_id)
        rows.append(found)
    layout.check_seen()
    if faults:
        raise DataError(grouped(faults, f"suite {suite.name}"))
    if not rows:
        fault = "no record passes `where`" if not chosen else "has no rows"
        raise DataError(Problem(f"suite {suite.name}", f"{origin.name}: {fault}", f"Correct {suite.path}."))
    return rows, dropped


def _wanted(record: Any, origin: Origin) -> bool:
    def holds(path: str, values: Any) -> bool:
        return at(record, path) in (values if isinstance(values, list) else [values])

    return all(holds(*item) for item in origin.where.items()) and not any(
        holds(*item) for item in origin.where_not.items()
    )


def _row(record: Any, prompt: str, columns: Columns, taken: set[str]) -> Row:
    """An id that is not unique (a question asked in two splits of a hub set) gives way to the prompt's hash."""
    prompt_id = value(record, columns.id)
    if not prompt_id or prompt_id in taken:
        prompt_id = hashlib.sha256(normalised(prompt).encode()).hexdigest()[:12]
    response = part(record, columns, "response")
    check_whole({"prompt": prompt, "response": response, "id": prompt_id})
    return Row(prompt_id, value(record, columns.topic), prompt, response)


def _split(record: Any, prompt: str, columns: Columns, splits: Splits) -> str:
    if splits.by == "column":
        return value(record, columns.split)
    topic = value(record, columns.topic)
    return assign(normalised(topic if splits.by == "topic" and topic else prompt), splits.shares)


def _write(target: Path, rows: Sequence[_Row], dropped: int) -> None:
    lines = [
        json.dumps(
            {
                "id": found.row.prompt_id,
                "topic": found.row.topic,
                "split": found.split,
                "prompt": found.row.prompt,
                "response": found.row.response,
                **({"twin_of": found.row.twin_of} if found.row.twin_of else {}),
            },
            ensure_ascii=False,
        )
        + "\n"
        for found in rows
    ]
    write_file(target, "".join(lines))
    splits = dict(Counter(found.split for found in rows))
    sha256 = rows_digest(found.row for found in rows)
    write_json(target.with_name(SUMMARY), {"splits": splits, "sha256": sha256, "dropped": dropped})


def _read(path: Path, origin: Origin) -> Prepared:
    return Prepared(path, origin.name, **json.loads(path.with_name(SUMMARY).read_text()))


def _in_place(path: Path, origin: Origin) -> Prepared:
    """A file of this program's own format, with the check that no prompt sits in two splits."""
    rows: list[Row] = []
    seen: dict[str, str] = {}
    counts: Counter[str] = Counter()
    problems = []
    for where, row in checked_rows(path):
        rows.append(row)
        counts[row.split] += 1
        split = seen.setdefault(normalised(row.prompt), row.split)
        if split != row.split:
            fault = f"repeats a prompt of split {split!r} in split {row.split!r}"
            problems.append(Problem(where, fault, "Remove one of them: splits must be disjoint."))
    if not rows:
        raise DataError(Problem(str(path), "has no rows", "Add rows with a prompt column."))
    if problems:
        raise DataError(problems[:10])
    return Prepared(path.resolve(), origin.name, dict(counts), rows_digest(rows))


def _checked(found: Prepared, origin: Origin, suite: DeclaredSuite) -> Prepared:
    """Raises DataError where the rows are not those that were declared."""
    fix = f"Take the version that {suite.path} declares, or put a copy of it without n and sha256 into your suites."
    if origin.n is not None and found.n != origin.n:
        raise DataError(Problem(f"suite {suite.name}", f"{origin.name} has {found.n} rows, not {origin.n}", fix))
    if origin.sha256 is not None and found.sha256 != origin.sha256:
        fault = f"the rows of {origin.name} have the SHA-256 {found.sha256[:16]}…, not {origin.sha256[:16]}…"
        raise DataError(Problem(f"suite {suite.name}", fault, fix))
    return found
