"""Where a record has what a row needs: paths, templates, constants, tables and chats, declared or given on a line."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from sstmerge_core.errors import Problem, RecipeError
from sstmerge_core.suites import chats

Scalar = str | int | float | bool


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Template(_Frozen):
    """Text with {dotted.paths} into a record; the ends are stripped, so that a last empty field leaves no trace."""

    template: str


class Constant(_Frozen):
    constant: str


class Choice(_Frozen):
    """A field's value by way of a table, such as 0 → A."""

    path: str
    values: dict[Scalar, str]


Column = str | Template | Constant | Choice
"""A dotted path into a record (``harm_categories.0``), or one of the others"""


class Columns(_Frozen):
    """Where a record has what a row needs, and how its file is written where that is not to be found out."""

    prompt: Column = "prompt"
    """Where it leads to a list of turns (``role``/``content`` or ``from``/``value``): the user's"""
    response: Column | None = None
    """The reference, the assistant's turn of a chat; none: the rows have none"""
    topic: Column | None = None
    id: Column | None = None
    split: Column | None = None
    twin_of: Column | None = None
    turns: Literal["only", "first", "last"] = "only"
    """Which exchange of a chat: its only one, without a system turn, or the first or last, whatever else there is"""
    encoding: str | None = None
    """Of the file, such as ``cp932``; none: found out"""
    delimiter: str | None = None
    """Between the cells of a CSV file; none: found out"""


NATIVE = Columns(response="response", topic="topic", id="id", split="split", twin_of="twin_of")
"""The columns of this program's own files"""
ROW_FIELDS = ("prompt", "response", "topic", "id", "split", "twin_of")
_PLACE = re.compile(r"\{([^{}]*)\}")
_GIVEN = re.compile(rf"(?:^|,)\s*({'|'.join([*ROW_FIELDS, 'turns', 'encoding', 'delimiter'])})(:?=)")


def part(record: Any, columns: Columns, field: Literal["prompt", "response"]) -> str:
    """The prompt or the response of a record, empty where it has none. Raises `chats.RowFault` for unclear chats."""
    column = getattr(columns, field)
    if isinstance(column, str) and (turns := chats.turns(at(record, column))) is not None:
        return chats.part(turns, field, columns.turns, column)
    return value(record, column)


def value(record: Any, column: Column | None) -> str:
    """A column's text in a record; empty where the record has nothing there."""
    if column is None:
        return ""
    if isinstance(column, Constant):
        return column.constant
    if isinstance(column, Template):
        return _PLACE.sub(lambda match: _text(_no_chat(at(record, match[1]), match[1])), column.template).strip()
    if isinstance(column, Choice):
        return column.values.get(at(record, column.path), "")
    return _text(at(record, column))


def _no_chat(found: Any, path: str) -> Any:
    """What a template takes in. Raises `chats.RowFault` for a conversation, of which it would show the notation."""
    if isinstance(found, list) and chats.turns(found) is not None:
        fix = f"Take the conversation alone, `--columns prompt={path}`, and write the rest into its first turn."
        raise chats.RowFault(f"has a conversation in {path[:40]!r}, which is no text to put into a template", fix)
    return found


def at(record: Any, path: str) -> Any:
    """What lies at a dotted path of keys and list positions; None where the path ends early."""
    if isinstance(record, Mapping) and path in record:  # a column whose own name has a dot
        return record[path]
    for key in path.split("."):
        if isinstance(record, Mapping):
            record = record.get(key)
        elif isinstance(record, Sequence) and not isinstance(record, str) and key.isdecimal():
            record = record[int(key)] if int(key) < len(record) else None
        else:
            return None
    return record


def paths(column: Column | None) -> tuple[str, ...]:
    """The paths into a record that a column reads."""
    if isinstance(column, Template):
        return tuple(_PLACE.findall(column.template))
    if isinstance(column, Choice):
        return (column.path,)
    return (column,) if isinstance(column, str) else ()


def parse(text: str, where: str = "--columns") -> Columns:
    r"""Columns as they are given on a line: ``prompt=question,response=answer``; what is not named is found out.

    A value is a dotted path; one with braces is a template (``prompt={context}\n\n{question}``, with ``\n`` for a line
    break); after ``:=`` it is a text that every row has (``split:=test``); an empty one says that there is none.
    `turns`, `encoding` and `delimiter` are given likewise. Raises RecipeError.
    """
    found = list(_GIVEN.finditer(text))
    fix = "Write for example prompt=question,response=answer."
    if not found or found[0].start() != 0:
        known = ", ".join([*ROW_FIELDS, "turns", "encoding", "delimiter"])
        raise RecipeError(Problem(f"{where} {text[:60]}", f"does not begin with one of {known} and =", fix))
    given: dict[str, Any] = {}
    for match, after in zip(found, [*found[1:], None], strict=True):
        name, kind, said = match[1], match[2], text[match.end() : after.start() if after else len(text)]
        if name in given:
            raise RecipeError(Problem(f"{where} {name}", "is given twice", "Give it once."))
        if name in ("turns", "encoding", "delimiter"):
            given[name] = {"tab": "\t", "\\t": "\t"}.get(said, said)
        elif kind == ":=":
            given[name] = Constant(constant=said)
        elif _PLACE.search(said):
            given[name] = Template(template=said.replace("\\n", "\n").replace("\\t", "\t"))
        else:
            given[name] = said.strip() or None
    if given.get("prompt", "prompt") is None:
        raise RecipeError(Problem(f"{where} prompt", "names no column", fix))
    if given.get("turns", "only") not in ("only", "first", "last"):
        raise RecipeError(Problem(f"{where} turns", f"is {given['turns']!r}", "Give only, first or last."))
    if len(given.get("delimiter", ",")) != 1:
        raise RecipeError(Problem(f"{where} delimiter", "is not one character", "Such as ; or tab."))
    return Columns(**given)


def told(columns: Columns) -> str:
    """Columns as `parse` takes them; tables, which it cannot take, by their path."""
    parts = []
    for name in ROW_FIELDS:
        column = getattr(columns, name)
        if isinstance(column, Constant):
            parts.append(f"{name}:={column.constant}")
        elif isinstance(column, Template):
            parts.append(f"{name}=" + column.template.replace("\n", "\\n").replace("\t", "\\t"))
        elif column is not None:
            parts.append(f"{name}={paths(column)[0]}")
    parts += [f"turns={columns.turns}"] if columns.turns != "only" else []
    parts += [f"encoding={columns.encoding}"] if columns.encoding else []
    parts += [f"delimiter={'tab' if columns.delimiter == chr(9) else columns.delimiter}"] if columns.delimiter else []
    return ",".join(parts)


def _text(found: Any) -> str:
    if found is None or found != found:  # NaN, as pandas writes what is missing
        return ""
    if isinstance(found, (list, dict)):
        return json.dumps(found, ensure_ascii=False)
    return str(found)
