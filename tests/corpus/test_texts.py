"""The one reader of JSON and YAML: a hostile text is a typed error within 5 s and 500 MB, and the process lives."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from sstmerge_core import catalog, documents, experiments
from sstmerge_core.adapters import read_base
from sstmerge_core.builder import recipe_file
from sstmerge_core.errors import SSTMergeError
from sstmerge_core.evaluate.degenerate import degeneracy
from sstmerge_core.experiments import result
from sstmerge_core.playground import conversation
from sstmerge_core.store import Owner, read_events
from sstmerge_core.store.saved import saved
from sstmerge_core.suites import declared, rows
from sstmerge_core.train import training_record
from sstmerge_core.workspace import Workspace
from tests.corpus.bounds import bounded
from tests.corpus.texts import DEEP, JSON, YAML

ALPHA_K = experiments.get("alpha-k")
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


def test_there_are_eighty_hostile_texts_and_more() -> None:
    assert len(JSON) + len(YAML) >= 80


@pytest.mark.parametrize("name", JSON)
def test_hostile_json_is_told_in_one_line(name: str) -> None:
    with bounded(), pytest.raises(documents.FormatError) as caught:
        documents.from_json(JSON[name])
    assert 0 < len(str(caught.value)) < 400 and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", YAML)
def test_hostile_yaml_is_told_in_one_line(name: str) -> None:
    with bounded(), pytest.raises(documents.FormatError) as caught:
        documents.from_yaml(YAML[name])
    assert 0 < len(str(caught.value)) < 400 and "\n" not in str(caught.value)


@given(PLAIN)
@settings(max_examples=150, deadline=None)
def test_what_json_and_yaml_write_is_read_as_it_was(value: Any) -> None:
    text = json.dumps(value)
    assert documents.from_json(text) == value == documents.from_json(text.encode())
    assert documents.from_yaml(yaml.safe_dump(value)) == yaml.safe_load(yaml.safe_dump(value))


@given(st.text(alphabet="[]{}\":,\\&*<!|>-? \n'#a1.é\ud800\0", max_size=60) | st.binary(max_size=60))
@settings(max_examples=400, deadline=None)
def test_a_text_of_any_signs_is_read_as_the_libraries_read_it_or_refused(text: str | bytes) -> None:
    try:
        read = documents.from_json(text)
    except documents.FormatError:
        pass
    else:
        plain = text if isinstance(text, str) else text.decode()
        assert read == json.loads(plain.removeprefix("\ufeff")) or read != read
    with contextlib.suppress(documents.FormatError):
        documents.from_yaml(text)


def test_what_is_just_within_the_limits_is_read() -> None:
    nested = documents.from_json("[" * documents.DEPTH + "]" * documents.DEPTH)
    assert documents.from_yaml("[" * documents.DEPTH + "]" * documents.DEPTH) == nested
    assert documents.from_json("9" * documents.DIGITS) == int("9" * documents.DIGITS)
    assert documents.from_json('["' + "9" * 5_000 + '", "' + "[" * 1_000 + '"]') == ["9" * 5_000, "[" * 1_000]
    assert documents.from_json("[" + "[]," * 1_000 + "1]")[-1] == 1
    shared = documents.from_yaml("a: &a {x: [1, 2]}\nb: *a\nc: {<<: *a, y: 3}")
    assert shared == {"a": {"x": [1, 2]}, "b": {"x": [1, 2]}, "c": {"x": [1, 2], "y": 3}}
    assert documents.from_json(b"\xef\xbb\xbf[1]") == [1] and documents.from_json("\ufeff[1]") == [1]


def test_a_file_that_is_no_file_is_told_and_never_waited_for(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path, tmp_path / "none", tmp_path / ("x" * 5_000)):
        with bounded(), pytest.raises(documents.FormatError):
            documents.read_json(path)
    with pytest.raises(documents.FormatError):
        documents.read_yaml(Path("a\0b"))


def _adapter(folder: Path, text: str) -> Any:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(text)
    (folder / "adapter_model.safetensors").write_bytes(b"")
    return catalog.entry(folder)


def _header(folder: Path, text: str) -> Any:
    folder.mkdir()
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 1, "lora_alpha": 1}')
    data = text.encode()[:90_000_000]
    (folder / "adapter_model.safetensors").write_bytes(len(data).to_bytes(8, "little") + data)
    return catalog.entry(folder)


def _base(folder: Path, text: str) -> Any:
    folder.mkdir()
    (folder / "config.json").write_text(text)
    return read_base(folder)


def _file(name: str, reader: Callable[[Path], Any]) -> Callable[[Path, str], Any]:
    def read(folder: Path, text: str) -> Any:
        folder.mkdir()
        (folder / name).write_text(text)
        return reader(folder / name)

    return read


def _conversation(folder: Path, text: str) -> Any:
    workspace, known = Workspace(folder).create(), conversation.new()
    conversation.save(workspace, known)
    (written,) = workspace.playground.rglob("*.json")
    written.write_text(text)
    return conversation.load(workspace, known.id)


def _saved(folder: Path, text: str) -> Any:
    workspace = Workspace(folder).create()
    workspace.queries.mkdir()
    (workspace.queries / "saved.json").write_text(text)
    return saved(workspace)


READERS: dict[str, Callable[[Path, str], Any]] = {
    "an adapter's settings": _adapter,
    "a safetensors header": _header,
    "a base model's settings": _base,
    "rows in JSON": _file("rows.json", lambda path: list(rows.read_records(path))),
    "rows in JSON Lines": _file("rows.jsonl", lambda path: list(rows.read_records(path))),
    "rows in YAML": _file("rows.yaml", lambda path: list(rows.read_records(path))),
    "a recipe": _file("recipe.yaml", recipe_file.read_recipe),
    "a declared suite": _file("suite.yaml", declared.read),
    "an experiment's settings": _file("settings.yaml", ALPHA_K.read),
    "an experiment's result": _file("alpha-k-1.json", result.load),
    "a conversation": _conversation,
    "saved queries": _saved,
}


@pytest.fixture(scope="module", autouse=True)
def _imported() -> None:
    """What the readers import when they are first used is not these texts' time."""
    ALPHA_K.read(None)


@pytest.mark.parametrize(("reader", "name"), itertools.product(READERS, DEEP))
def test_every_file_from_elsewhere_that_is_too_deep_is_a_typed_error(tmp_path: Path, reader: str, name: str) -> None:
    with bounded(), pytest.raises(SSTMergeError):
        READERS[reader](tmp_path / "here", DEEP[name])


@pytest.mark.parametrize("name", DEEP)
def test_what_is_only_looked_at_says_nothing_where_it_is_too_deep(tmp_path: Path, name: str) -> None:
    (tmp_path / "sstmerge.json").write_text(DEEP[name])
    with bounded():
        assert training_record(tmp_path) == {}
        assert isinstance(degeneracy(DEEP[name][:4_000]), str)


@pytest.mark.parametrize("name", DEEP)
def test_an_event_line_that_is_too_deep_is_passed_over(tmp_path: Path, name: str) -> None:
    line = f'{{"event": "samples", "t": 1, "rows": {DEEP[name]}}}\n{{"event": "run_started", "t": 2}}\n'
    (tmp_path / "events.jsonl").write_text(line)
    with bounded():
        assert [event["event"] for event in read_events(tmp_path)] == ["run_started"]


ODD_EVENTS = {
    "a time beyond the calendar": '{"event": "run_started", "t": 1e300}',
    "a time before it": '{"event": "run_started", "t": -1e15}',
    "a time of 300 digits": '{"event": "run_started", "t": ' + "9" * 300 + "}",
    "a number for rows": '{"event": "samples", "t": 1, "rows": 5}',
    "rows that are numbers": '{"event": "samples", "t": 1, "rows": [5]}',
    "a text for a recipe": '{"event": "run_started", "t": 1, "recipe": "x"}',
    "a number for an evaluation": '{"event": "run_started", "t": 1, "recipe": {"evaluation": 5}}',
    "suites that are numbers": '{"event": "run_started", "t": 1, "recipe": {"evaluation": {"suites": [1]}}}',
    "half a surrogate pair": '{"event": "run_started", "t": 1, "user": "a\\ud800b"}',
    "half a pair in an answer": '{"event": "samples", "t": 1, "rows": [{"suite": "s", "prompt_id": "p", '
    '"response": "\\uDC00"}]}',
    "a list for a key": '{"event": "samples", "t": 1, "rows": [{"suite": ["s"], "prompt_id": {"a": 1}}]}',
    "a value of 300 digits": '{"event": "metrics", "t": 1, "rows": [{"suite": "s", "metric": "m", "judge": "j", '
    '"value": ' + "9" * 300 + "}]}",
    "an infinite value": '{"event": "metrics", "t": 1, "rows": [{"suite": "s", "metric": "m", "judge": "j", '
    '"value": 1e999}]}',
    "a number for a spectrum": '{"event": "spectrum", "t": 1, "eigenvalues": 7}',
    "an object for statistics": '{"event": "module_stats", "t": 1, "rows": {"a": 1}}',
    "a number for a tag": '{"event": "tagged", "t": 1, "tag": 5, "user": []}',
    "a label that is an object": '{"event": "run_started", "t": 1, "label": {"a": [1]}, "utility": {"name": [1]}}',
    "NUL": '{"event": "run_started", "t": 1, "user": "a\\u0000b"}',
}


@pytest.mark.parametrize("name", ODD_EVENTS)
def test_an_event_of_odd_fields_stops_neither_the_database_nor_the_lines_after_it(tmp_path: Path, name: str) -> None:
    workspace = Workspace(tmp_path).create()
    (workspace.runs / "r").mkdir()
    after = json.dumps({"event": "run_started", "t": 2.0, "label": "after"})
    (workspace.runs / "r" / "events.jsonl").write_text(f"{ODD_EVENTS[name]}\n{after}\n")
    with Owner.open(workspace) as owner:
        assert owner.ingest() == 2
        assert owner.cursor().execute("SELECT label FROM runs WHERE run_id = 'r'").fetchall() == [("after",)]
        owner.publish()


@pytest.mark.parametrize(
    "line",
    [
        '{"event": "adapter_added", "t": 1}',
        '{"event": "adapter_added", "t": 1, "sha256": [1], "path": "x"}',
        '{"event": "adapter_added", "t": 1, "sha256": "a", "path": 5, "name": {}}',
        '{"event": "adapter_removed", "t": 1}',
        '{"event": "base_added", "t": 1, "sha256": "b"}',
        '{"event": "base_added", "t": 1, "sha256": "b", "name": "n", "path": null}',
    ],
)
def test_the_catalogue_passes_over_a_line_that_says_half(tmp_path: Path, line: str) -> None:
    workspace = Workspace(tmp_path).create()
    (workspace.catalog / "events.jsonl").write_text(line + "\n")
    assert all(entry.bundled for entry in catalog.entries(workspace))
    assert len(catalog.bases(workspace)) == 1 and catalog.removed(workspace) == []


def test_numbers_of_a_recipe_s_size_stay_finite() -> None:
    assert math.isfinite(float(documents.from_json("9" * documents.DIGITS)))
