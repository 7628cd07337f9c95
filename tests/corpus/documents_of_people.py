"""Recipes, suites, settings, results, conversations, saved queries and event lines as somebody may have written them.

For each kind a right text, then each of its fields with a value of every type, and every text of `texts` in its place.
A reader gives what can be written again, or refuses in words.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from sstmerge_core import experiments
from sstmerge_core.builder import recipe_file
from sstmerge_core.errors import SSTMergeError
from sstmerge_core.experiments import result
from sstmerge_core.playground import conversation
from sstmerge_core.playground.protocol import Question
from sstmerge_core.recipe import Recipe, Source
from sstmerge_core.store import read_events
from sstmerge_core.store.saved import history, saved
from sstmerge_core.suites import declared, prepare
from sstmerge_core.workspace import Workspace
from tests.corpus.case import EITHER, REFUSED, RIGHT, Case, Expected
from tests.corpus.texts import DEEP, JSON, YAML

Reader = Callable[[Path, bytes], Any]
ODD: dict[str, Any] = {
    "a text": "x",
    "an empty text": "",
    "a number": 5,
    "a negative": -1,
    "a fraction": 0.5,
    "not a number": math.nan,
    "infinite": math.inf,
    "of 300 digits": 10**300,
    "true": True,
    "null": None,
    "a list": [1],
    "an empty list": [],
    "a mapping": {"a": 1},
    "nested": {"a": [{"b": [None, {"c": "d"}]}]},
    "odd letters": "a\u202e\u200b\x00\x1b[31m${7*7}{{7*7}}",
    "a path upwards": "../../../etc/passwd",
    "a long text": "x" * 100_000,
}


def _hash(letter: str) -> str:
    return letter * 64


RECIPE = recipe_file.RecipeFile(
    Recipe(
        base=Source(name="base", path="", sha256=_hash("b")),
        adapters=(Source(name="U", path="", sha256=_hash("c")), Source(name="S", path="", sha256=_hash("d"))),
        method="linear",
        parameters={"alpha": 0.5},
    )
)
SUITE: dict[str, Any] = {
    "name": "mine",
    "title": "Mine",
    "role": "utility",
    "sources": [{"file": "rows.jsonl", "columns": {"prompt": "q", "response": "a"}, "where": {"lang": ["en"]}, "n": 2}],
    "metric": "rouge_l",
    "judge": "refusal_regex_v2",
    "max_new_tokens": 8,
    "splits": {"by": "prompt", "shares": {"selection": 0.4, "test": 0.6}},
    "licence": "CC0-1.0",
    "citation": "nobody",
    "note": "for tests",
    "get": "It is in {folder}.",
}
RESULT = {
    "experiment": "alpha-k",
    "question": "Which?",
    "settings": {"n": 4},
    "judge": "refusal_regex_v2",
    "base": "base",
    "tables": [{"name": "t", "title": "T", "about": "", "rows": [{"method": "linear", "run_id": "r", "rouge_l": 0.5}]}],
    "analysis": {"best_method": None},
    "findings": ["None."],
    "left_out": [],
    "seconds": 1.0,
    "versions": {},
}
ANSWER = {"title": "base", "alpha": None, "text": "a", "ended": "stop"}
TALK = {"turns": [{"prompt": "q", "max_new_tokens": 8, "temperature": 0.0, "seed": 0, "answers": {"base": ANSWER}}]}
QUERY = {"name": "mine", "sql": "SELECT 1", "view": {"view": "chart"}, "user": "ada", "t": 1.0}
PAST = {"sql": "SELECT 1", "user": "ada", "rows": 1, "seconds": 0.1, "error": "", "t": 1.0}
ASKED = {
    "base": "b",
    "columns": [{"adapters": [["U", "folder", 1.0]], "messages": [{"role": "user", "content": "q"}]}],
    "max_new_tokens": 4,
}


def cases(scratch: Path) -> list[Case]:
    import sstmerge_core.catalog  # noqa: F401 (its import is no text's time)

    for name in experiments.EXPERIMENTS:
        experiments.get(name).read(None)
    found: list[Case] = []
    recipe = yaml.safe_load(RECIPE.to_yaml())
    for name, reader, right, texts in (
        ("recipe", _recipe, recipe, YAML),
        ("suite", _suite, SUITE, YAML),
        ("experiment's settings", _settings, {"n": 4, "n_selection": 4, "judge": "refusal_regex_v2"}, YAML),
    ):
        found += _kind(name, reader, right, lambda value: yaml.safe_dump(value, allow_unicode=True).encode(), texts)
    for name, reader, right in (
        ("result", _result, RESULT),
        ("conversation", _conversation, TALK),
        ("saved queries", _saved, [QUERY]),
        ("history of queries", _history, [PAST]),
        ("question to the model", _question, ASKED),
    ):
        texts = JSON if name != "question to the model" else {}
        found += _kind(name, reader, right, lambda value: json.dumps(value).encode(), texts)
    found += _of_one_field() + _event_lines()
    return found


def _kind(
    name: str, reader: Reader, right: Any, spell: Callable[[Any], bytes], texts: Mapping[str, str | bytes]
) -> list[Case]:
    """The right document, each of its fields of each type, without each of them, and every hostile text."""
    found = [_case(f"{name}: right", reader, spell(right), RIGHT)]
    for place, changed in _changed(right):
        found.append(_case(f"{name}: {place}", reader, spell(changed), EITHER))
    for odd, value in ODD.items():
        if not isinstance(value, type(right)):
            empty = reader is _settings and value in (None, "")
            found.append(_case(f"{name}: all of it {odd}", reader, spell(value), EITHER if empty else REFUSED))
    for text, content in texts.items():
        if len(content) > 100_000 and reader not in (_recipe, _result):
            continue  # they cost a second each; one reader of YAML and one of JSON is enough
        # what is nothing is the default settings
        nothing = reader is _settings and content in ("", " ", "\0")
        data = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
        found.append(_case(f"{name}: text, {text}", reader, data, EITHER if nothing else REFUSED))
    return found


def _case(name: str, reader: Reader, content: bytes, expected: Expected) -> Case:
    def tried(folder: Path) -> bool:
        value = reader(folder, content)
        json.dumps(value, default=_plain)
        return value is not None

    return Case(name, expected, tried)


def _plain(value: Any) -> Any:
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else str(value)


def _changed(value: Any) -> Iterator[tuple[str, Any]]:
    """(what is changed, the document) for each field with each odd value, without it, and with one more."""
    for number, path in enumerate(_paths(value)):
        for odd in list(ODD)[number % 3 :: 3]:  # each field has a third of them
            changed = copy.deepcopy(value)
            _put(changed, path, ODD[odd])
            yield f"{'.'.join(map(str, path))} is {odd}", changed
        without = copy.deepcopy(value)
        _put(without, path, _put)
        yield f"without {'.'.join(map(str, path))}", without
    if isinstance(value, dict):
        yield "a field of nobody's", value | {"a\nfield": 1}


def _paths(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in items:
        yield (*before, key)
        yield from _paths(one, (*before, key))


def _put(value: Any, path: tuple[Any, ...], new: Any) -> None:
    for key in path[:-1]:
        value = value[key]
    if new is _put:
        del value[path[-1]]
    else:
        value[path[-1]] = new


def _written(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def _recipe(folder: Path, content: bytes) -> Any:
    read = recipe_file.read_recipe(_written(folder, "recipe.yaml", content))
    again = recipe_file.read_recipe(_written(folder, "again.yaml", read.to_yaml().encode()))
    assert again.recipe.run_id == read.recipe.run_id
    return read.to_yaml()


def _suite(folder: Path, content: bytes) -> Any:
    workspace = Workspace(folder / "workspace").create()
    place = declared.folder(workspace)
    place.mkdir()
    (place / "rows.jsonl").write_text('{"q": "1?", "a": "one", "lang": "en"}\n{"q": "2?", "a": "two", "lang": "en"}\n')
    (place / "mine.yaml").write_bytes(content)
    list(declared.suites(workspace))
    suite = declared.read(place / "mine.yaml")
    said = suite.how_to_get(workspace)
    try:
        rows: Any = prepare.prepare(suite, workspace, fetch=False)
    except SSTMergeError as error:
        rows = str(error)
    return [suite.model_dump(mode="json"), said, str(rows)]


def _settings(folder: Path, content: bytes) -> Any:
    path = _written(folder, "settings.yaml", content)
    return experiments.get("alpha-k").read(path).model_dump(mode="json")


def _result(folder: Path, content: bytes) -> Any:
    read = result.load(_written(folder, "alpha-k-1.json", content))
    return [read.why_none, read.prompts, read.run_ids, [table.columns for table in read.tables]]


def _conversation(folder: Path, content: bytes) -> Any:
    workspace, known = Workspace(folder).create(), conversation.new()
    conversation.save(workspace, known)
    (written,) = workspace.playground.rglob("*.json")
    written.write_bytes(content)
    read = conversation.load(workspace, known.id)
    assert read is not None
    return [turn.prompt for turn in read.turns], read.history("base", len(read.turns))


def _queries(folder: Path, name: str, content: bytes) -> Workspace:
    workspace = Workspace(folder).create()
    workspace.queries.mkdir()
    (workspace.queries / name).write_bytes(content)
    return workspace


def _saved(folder: Path, content: bytes) -> Any:
    return [(one.name, one.sql) for one in saved(_queries(folder, "saved.json", content))]


def _history(folder: Path, content: bytes) -> Any:
    return [(one.sql, one.rows) for one in history(_queries(folder, "history.json", content))]


def _question(folder: Path, content: bytes) -> Any:
    return Question.from_json(json.loads(content)).to_json()


def _of_one_field() -> list[Case]:
    """Documents that are refused for one thing."""
    recipe = yaml.safe_load(RECIPE.to_yaml())
    faults: dict[str, dict[str, Any]] = {
        "another format": {"format": 2},
        "a format of 5,000 digits": {"format": "9" * 5_000},
        "a method of nobody's": {"method": "no_such_method"},
        "a method that leads elsewhere": {"method": "../../x"},
        "a parameter of nobody's": {"parameters": {"no_such": 1}},
        "α of a text": {"parameters": {"alpha": "x"}},
        "α not a number": {"parameters": {"alpha": math.nan}},
        "α infinite": {"parameters": {"alpha": math.inf}},
        "an adapter of nothing": {"adapters": [{}]},
        "an output of nobody's": {"output": {"kind": "pickle"}},
        "an output with a command": {"output": {"run": "rm"}},
        "an output in a format of nobody's": {"output": {"dtype": "int4"}},
        "a rank of nothing": {"output": {"rank": 0}},
        "a rank of a text": {"output": {"rank": "x"}},
        "files a list": {"files": [1]},
        "versions a number": {"versions": 5},
    }
    found = [
        _case(f"recipe: {name}", _recipe, yaml.safe_dump(recipe | change).encode(), REFUSED)
        for name, change in faults.items()
    ]
    suites: dict[str, dict[str, Any]] = {
        "a name with a slash": {"name": "a/b"},
        "another name than its file": {"name": "other"},
        "a role of nobody's": {"role": "admin"},
        "no sources": {"sources": []},
        "a source of two places": {"sources": [{"file": "a", "huggingface": "b/c", "split": "d"}]},
        "a source of none": {"sources": [{}]},
        "shares that are too many": {"splits": {"by": "prompt", "shares": {"test": 0.9, "selection": 0.9}}},
        "shares of nothing": {"splits": {"by": "prompt", "shares": {"test": 0.0, "selection": 1.0}}},
        "shares not a number": {"splits": {"by": "prompt", "shares": {"test": math.nan}}},
        "a split of nobody's": {"splits": {"by": "prompt", "shares": {"x": 1.0}}},
        "no tokens": {"max_new_tokens": 0},
        "a metric of another role": {"metric": "refusal"},
        "a hash that is none": {"sources": [{"file": "a", "sha256": "x"}]},
    }
    found += [
        _case(f"suite: {name}", _suite, yaml.safe_dump(SUITE | change).encode(), REFUSED)
        for name, change in suites.items()
    ]
    for text in (
        "{",
        "}",
        "{}",
        "{0}",
        "{folder.__class__}",
        "{folder!r:>1000000}",
        "{x}",
        "%s",
        "{folder:>999999999}",
    ):
        content = yaml.safe_dump(SUITE | {"get": text}).encode()
        found.append(_case(f"suite: get is {text!r}", _suite, content, EITHER))
    for file in (
        "/etc/passwd",
        "../../../etc/passwd",
        "/dev/zero",
        "**/*",
        "/proc/self/environ",
        "~",
        "",
        "\0",
        "x" * 5_000,
    ):
        content = yaml.safe_dump(SUITE | {"sources": [{"file": file}]}, allow_unicode=True).encode()
        found.append(_case(f"suite: its file is {file[:20]!r}", _suite, content, EITHER))
    for package in ("os", "..", ".", "", "a/b", "__main__", "sstmerge_core", "x" * 5_000, "\0", "numpy.no.such"):
        content = yaml.safe_dump(SUITE | {"sources": [{"file": "a.csv", "package": package}]}).encode()
        found.append(_case(f"suite: its package is {package[:20]!r}", _suite, content, EITHER))
    return found


def _event_lines() -> list[Case]:
    """Lines of an event file: what is whole is read, the rest is passed over, and the one behind it is still read."""
    odd = [json.dumps(value) for value in ODD.values()]
    lines: dict[str, bytes] = {f"a line that is {name}": line.encode() for name, line in zip(ODD, odd, strict=True)}
    lines |= {f"an event called {name}": json.dumps({"event": value, "t": 1}).encode() for name, value in ODD.items()}
    lines |= {f"a time that is {name}": json.dumps({"event": "x", "t": value}).encode() for name, value in ODD.items()}
    lines |= {
        f"rows: {name}": b'{"event": "samples", "t": 1, "rows": %s}' % text.encode() for name, text in DEEP.items()
    }
    for name, text in JSON.items():
        if len(text) > 1_000_000:
            continue
        data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
        if b"\n" not in data:
            lines[f"a line, {name}"] = data
    return [Case(f"event: {name}", RIGHT, _event(line)) for name, line in lines.items()]


def _event(line: bytes) -> Callable[[Path], bool]:
    def tried(folder: Path) -> bool:
        (folder / "events.jsonl").write_bytes(line + b'\n{"event": "run_finished", "t": 2}\n')
        found = list(read_events(folder))
        return found[-1]["event"] == "run_finished" and all(isinstance(one["event"], str) for one in found)

    return tried
