"""From a file of prompts to its records: JSON Lines, JSON, CSV, TSV, Parquet, YAML, plain or gzipped. No torch."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sstmerge_core import documents
from sstmerge_core.errors import DataError, Problem
from sstmerge_core.suites import reading
from sstmerge_core.suites.reading import MOST_LINE
from sstmerge_core.words import count

FORMATS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".tab": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".jsonlines": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
    ".yaml": "yaml",
    ".yml": "yaml",
    ".prompt": "yaml",
}
"""Ending → what the file is, before it is looked into"""
DELIMITERS = (",", ";", "\t", "|")
MOST_DOCUMENT = 128 * 2**20
"""Characters of a JSON file that has to be parsed in one go"""
MOST_YAML = 16 * 2**20


class _Absent(str):
    __slots__ = ()


ABSENT = _Absent()
"""An empty cell that is not there: its line ended before"""


def read_records(
    path: Path, under: str = "", header: bool = True, *, encoding: str | None = None, delimiter: str | None = None
) -> Iterator[tuple[str, Any]]:
    """(where, record) of every record in a JSONL, JSON, CSV, TSV, Parquet or YAML file, plain or gzipped.

    JSON and YAML hold one list, or have it at the dotted path `under`, or are an object with one list of objects. JSON
    Lines called .json are read too. A CSV file without a `header` has the columns 0, 1, 2 …; with one, a cell that its
    row is too short for is `ABSENT`. Encoding and delimiter are found where they are not given. Raises DataError when
    the file cannot be read, for the first fault that would lose rows or move cells.
    """
    kind = format_of(path)
    if kind == "parquet":
        yield from _parquet(path)
        return
    encoding = encoding or reading.encoding_of(path)
    with reading.text(path, encoding) as stream:
        if kind == "csv":
            yield from _csv(path, stream, header, delimiter or delimiter_of(path, encoding))
            return
        if kind == "yaml":
            content = _parse_yaml(_whole(path, stream, MOST_YAML), str(path))
        elif not under and _is_json_lines(path, encoding, kind):
            yield from _json_lines(path, stream)
            return
        else:
            content = _parse(_whole(path, stream, MOST_DOCUMENT), str(path))
    yield from _listed(path, content, under, "YAML" if kind == "yaml" else "JSON")


def format_of(path: Path) -> str:
    """``csv``, ``jsonl``, ``json``, ``parquet`` or ``yaml``, by the ending. Raises DataError for another."""
    suffix = Path(path.stem).suffix.lower() if path.suffix.lower() == ".gz" else path.suffix.lower()
    if suffix not in FORMATS:
        fix = "Use .jsonl, .json, .csv, .tsv, .parquet or .yaml."
        raise DataError(Problem(str(path), f"has the unknown ending {suffix or 'none'}", fix))
    return FORMATS[suffix]


def delimiter_of(path: Path, encoding: str | None = None) -> str:
    """What separates the cells of a CSV file: what gives its first line the most cells; a comma where nothing does.

    Raises DataError where two give as many.
    """
    if Path(path.stem if path.suffix.lower() == ".gz" else path.name).suffix.lower() in (".tsv", ".tab"):
        return "\t"
    with reading.text(path, encoding) as stream:
        first = stream.readline(MOST_LINE)
    if told := _SEPARATOR.match(first):
        return told[1]
    bare = re.sub(r'"(?:[^"]|"")*"', '""', first)
    found = {delimiter: bare.count(delimiter) for delimiter in DELIMITERS}
    most = max(found.values())
    best = [delimiter for delimiter, number in found.items() if number == most]
    if most and len(best) > 1:
        told_ = " or ".join(map(repr, best))
        fix = "Name it, such as `--columns 'delimiter=;'`."
        raise DataError(Problem(f"{path} line 1", f"its cells may be separated by {told_}", fix))
    return best[0] if most else ","


_SEPARATOR = re.compile(r"\ufeff?sep=(.)[\r\n]+\Z", re.IGNORECASE)
"""A first line by which Excel names the delimiter"""


def _csv(path: Path, stream: io.TextIOWrapper, header: bool, delimiter: str) -> Iterator[tuple[str, dict[str, Any]]]:
    csv.field_size_limit(max(csv.field_size_limit(), MOST_LINE))  # of the process; 131,072 unless told otherwise
    lines = _lines(path, stream)
    first = next(lines, "")
    offset = 1 if _SEPARATOR.match(first) else 0
    lines = lines if offset else itertools.chain([first], lines)
    # `a, b` in the first line: blanks after the delimiter belong to it
    loose = header and f"{delimiter} " in first and not re.search(f"{re.escape(delimiter)}(?! )", first.rstrip())
    reader = csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=loose)
    names: list[str] | None = None
    surplus = 0
    fault = ""
    begun = offset + 1
    while True:
        where = f"{path} line {begun}"
        try:
            cells = next(reader, None)
        except csv.Error as error:
            fix = "A cell with a quote, the delimiter or a line break in it stands in quotes, its own quotes doubled."
            raise DataError(Problem(where, f"is not CSV: {error}", fix)) from None
        if cells is None:
            break
        line, begun = begun, offset + reader.line_num + 1
        if not cells or (len(cells) == 1 and not cells[0].strip()):
            continue
        if not header:
            yield where, {str(index): cell for index, cell in enumerate(cells)}
        elif names is None:
            names = _header(path, line, cells)
        elif len(names) > 1 and [cells[0].lstrip("\ufeff"), *cells[1:]] == names:
            fault = "repeats the header: the file was put together of several"
            raise DataError(Problem(f"{path} line {line}", fault, "Take such lines out."))
        elif len(cells) > len(names) and any(cell.strip() for cell in cells[len(names) :]):
            surplus += 1
            fault = fault or f"{where}: has {len(cells)} cells under {count(len(names), 'column')}"
        elif not surplus:
            yield where, dict(itertools.zip_longest(names, cells[: len(names)], fillvalue=ABSENT))
    if surplus:
        place, _, said = fault.rpartition(": ")
        others = f" (and {count(surplus - 1, 'more row')} too many)" if surplus > 1 else ""
        fix = f"Put a text with {_NAMES.get(delimiter, repr(delimiter))} in it into quotes."
        raise DataError(Problem(place, said + others, fix))


_NAMES = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}


def _header(path: Path, line: int, cells: list[str]) -> list[str]:
    """The columns' names; unnamed ones by their number. Raises DataError for a name that comes twice."""
    names = [cell.strip() or f"column {number}" for number, cell in enumerate(cells, start=1)]
    twice = next((name for name, times in Counter(names).items() if times > 1), None)
    if twice is not None:
        fix = "Rename one of them."
        raise DataError(Problem(f"{path} line {line}", f"has two columns called {shown(twice)}", fix))
    return names


def _json_lines(path: Path, stream: io.TextIOWrapper) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(_lines(path, stream), start=1):
        if line.strip():
            yield f"{path} line {number}", _parse(line.lstrip("\ufeff"), f"{path} line {number}")


def _lines(path: Path, stream: io.TextIOWrapper) -> Iterator[str]:
    """Lines with their ends, which are line feeds and carriage returns alone: U+2028 and form feeds are text."""
    number = 0
    while line := stream.readline(MOST_LINE + 1):
        number += 1
        if len(line) > MOST_LINE:
            fault = f"is longer than {MOST_LINE >> 20} Mi characters"
            raise DataError(Problem(f"{path} line {number}", fault, "Give a row a line."))
        yield line


def _is_json_lines(path: Path, encoding: str, kind: str) -> bool:
    """Whether there is an object a line: a list called .jsonl is a list, objects in lines called .json are lines."""
    with reading.text(path, encoding) as stream:
        lines = (line for line in iter(lambda: stream.readline(MOST_LINE), "") if line.strip())
        first, second = next(lines, "").strip(), next(lines, "").strip()
    if kind == "jsonl":
        return not first.startswith("[")
    return first.startswith("{") and first.endswith("}") and second.startswith("{")


def _whole(path: Path, stream: io.TextIOWrapper, most: int) -> str:
    content = stream.read(most + 1)
    if len(content) > most:
        fault = f"is longer than {most >> 20} Mi characters"
        raise DataError(Problem(str(path), fault, "Give it as JSON Lines, one object a line."))
    return content


def _listed(path: Path, content: Any, under: str, what: str) -> Iterator[tuple[str, Any]]:
    found = content
    for key in filter(None, under.split(".")):
        found = found.get(key) if isinstance(found, dict) else None
    if not under and isinstance(found, dict):  # such as {"version": …, "data": [{…}, …]}
        lists = [value for value in found.values() if isinstance(value, list)]
        if len(lists) == 1 and lists[0] and all(isinstance(one, dict) for one in lists[0]) and not _is_row(found):
            found = lists[0]
    if not isinstance(found, list):
        fault = f"has no list at {under!r}" if under else f"is not one {what} list"
        raise DataError(Problem(str(path), fault, "Give a list of objects, or a JSONL file."))
    for number, record in enumerate(found, start=1):
        yield f"{path} item {number}", record


def _is_row(content: dict[Any, Any]) -> bool:
    """Whether an object is a single row itself, whose list is its conversation."""
    turn = next(value for value in content.values() if isinstance(value, list))[0]
    return {"content", "value"} & set(turn) != set()


def _parquet(path: Path) -> Iterator[tuple[str, Any]]:
    import pyarrow
    from pyarrow import parquet

    with reading.opened(path) as stream:
        data = io.BytesIO(stream.read())
    try:
        file = parquet.ParquetFile(data)
        names = file.schema_arrow.names
        if twice := next((name for name in names if names.count(name) > 1), None):
            fault = f"has two columns called {twice[:40]!r}"
            raise DataError(Problem(str(path), fault, "Give every column a name of its own."))
        number = size = 0
        for batch in file.iter_batches(batch_size=64):
            for record in batch.to_pylist():
                number += 1
                # a text that is kept once for all rows of the file is one of each row here
                size += sum(len(found) for found in record.values() if isinstance(found, (str, bytes)))
                if size > reading.MOST_BYTES:
                    fault = f"has more than {reading.MOST_BYTES >> 20} MiB of text once unpacked"
                    raise DataError(Problem(str(path), fault, "Cut it into several files, or leave columns out."))
                yield f"{path} row {number}", record
    except (OSError, pyarrow.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise DataError(Problem(str(path), f"cannot be read: {reason}", "Give a complete Parquet file.")) from error


def _parse(text: str, where: str) -> Any:
    try:
        documents.look_at_json(text)
        return _DECODER.decode(text)
    except documents.FormatError as error:
        raise DataError(Problem(where, str(error), "Give flat objects.")) from None
    except json.JSONDecodeError as error:
        raise DataError(Problem(where, f"is not JSON: {error.msg}", "Correct it, or remove it.")) from error
    except RecursionError:
        raise DataError(Problem(where, "is nested too deeply", "Give flat objects.")) from None
    except _Twice as error:
        raise DataError(Problem(where, f"has the key {shown(error)} twice", "Remove one of them.")) from None
    except ValueError:  # the interpreter's limit
        fix = "Write it as text in quotes, or remove it."
        raise DataError(Problem(where, "has a number of too many digits", fix)) from None


class _Float(float):
    """A number that, as text, is what stood in the file: 0.10 and 1e400 too."""

    written: str

    def __new__(cls, text: str, value: float | None = None) -> _Float:
        made = super().__new__(cls, text if value is None else value)
        made.written = text
        return made

    def __str__(self) -> str:
        return self.written


class _Int(int):
    """The same for whole numbers, which YAML reads in several ways: 012 is 10 and 12:30 is 750."""

    written: str

    def __new__(cls, text: str, value: int) -> _Int:
        made = super().__new__(cls, value)
        made.written = text
        return made

    def __str__(self) -> str:
        return self.written


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _Twice(next(name for name, times in Counter(names).items() if times > 1))
    return found


class _Twice(ValueError):
    """A key that an object has twice; JSON readers differ in which one they take."""


_DECODER = json.JSONDecoder(object_pairs_hook=_once, parse_float=_Float)


def _parse_yaml(text: str, where: str) -> Any:
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        """With numbers and dates as they are written."""

    tag = "tag:yaml.org,2002:"
    for kind, made in (("int", _Int), ("float", _Float)):
        plain = Loader.yaml_constructors[tag + kind]
        Loader.add_constructor(tag + kind, lambda own, node, plain=plain, made=made: made(node.value, plain(own, node)))
    Loader.add_constructor(f"{tag}timestamp", lambda own, node: node.value)
    try:
        documents.look_at_yaml(yaml.parse(text, Loader))  # the C loader overflows the stack on deep nesting
        return yaml.load(text, Loader)
    except documents.FormatError as error:
        raise DataError(Problem(where, str(error), "Give a list of flat objects.")) from None
    except yaml.YAMLError as error:
        fault = f"is not YAML: {shown(' '.join(str(error).split()), 300)}"
        raise DataError(Problem(where, fault, "Correct it, or remove it.")) from error
    except Exception as error:  # of its constructors: !!timestamp and !!int of anything end in errors of every kind
        many = "digits" in str(error)
        fault = "has a number of too many digits" if many else f"has a value that cannot be read: {shown(error, 120)}"
        raise DataError(Problem(where, fault, "Put texts into quotes.")) from None


def shown(text: object, most: int = 40) -> str:
    """A name or value from a file for a message: one line, printable, not long."""
    line = "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in str(text)[: most + 1])
    return line if len(line) <= most else f"{line[: most - 1]}…"
