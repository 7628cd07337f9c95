"""What the commands print: tables, one line of progress; and problems as the exit code of their kind."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from sstmerge_core import words
from sstmerge_core.errors import AdapterError, DataError, Problem, RecipeError, visible
from sstmerge_core.recipe import Recipe
from sstmerge_core.workspace import Workspace

if TYPE_CHECKING:
    from sstmerge_core.store import Owner, Snapshot


def progress(recipes: Sequence[Recipe]) -> Callable[[int, str, float, float], None]:
    from sstmerge_core.jobs.model import stage_text

    def report(point: int, stage: str, done: float, total: float) -> None:
        label = f"{point + 1}/{len(recipes)} {recipes[point].label}: " if recipes else ""
        line(f"{label}{stage_text(stage, done, total)}", False)

    return report


def line(text: str, last: bool) -> None:
    """One line that is written over on a terminal, and a line each in a log."""
    if sys.stderr.isatty():
        print(f"\r\033[K{visible(text)}", end="\n" if last and text else "", file=sys.stderr, flush=True)
    elif text:
        print(text, file=sys.stderr, flush=True)


def connected(workspace: Workspace) -> Owner | Snapshot:
    """The database, or what was last published of it while another process holds it, which is said."""
    from sstmerge_core import store

    connection = store.connect(workspace)
    if isinstance(connection, store.Snapshot) and connection.held:
        when = words.ago(connection.path.stat().st_mtime)
        told = f"{connection.held.where}: {connection.held.fault}"
        print(f"sstmerge: {told}. This is what it published last, {when}.", file=sys.stderr)
    return connection


class Terminal:
    """A terminal that shows what is printed and obeys none of it: names, notes and answers may hold its commands.

    Colours and positions are then text too, so that the progress line writes to the stream itself.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(visible(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(str(row[index])) for row in [columns, *rows]) for index in range(len(columns))]
    for row in [columns, ["─" * width for width in widths], *rows]:
        print("  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def tell_notes(notes: Iterable[Problem]) -> None:
    """What is no fault and is to be known, on standard error, each once."""
    for note in dict.fromkeys(notes):
        print(f"sstmerge: note: {note}", file=sys.stderr)


def raise_found(problems: Any) -> None:
    """Raise what preflight found, under the exit code of its kind."""
    found = list(dict.fromkeys(problems))
    if found:
        about = found[0].where
        kind = RecipeError if about.startswith(("parameter", "method", "--")) else AdapterError
        raise (DataError if about.startswith("base model") else kind)(found)
