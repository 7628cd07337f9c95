"""Whatever a parser is given: the right result or a typed error, each within 5 s and 500 MB."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sstmerge_core import adapters, catalog, documents
from sstmerge_core.adapters.settings import Scales, config_problems
from sstmerge_core.builder import recipe_file
from sstmerge_core.errors import SSTMergeError
from sstmerge_core.playground.protocol import Question
from sstmerge_core.store import events, sandbox_child
from sstmerge_core.suites import declared
from sstmerge_core.train import training_record
from sstmerge_core.words import plain
from studio import link
from tests.corpus import bounds
from tests.corpus.adapters import SETTINGS, made, safetensors, whole, write
from tests.corpus.bounds import bounded
from tests.corpus.case import badly_told
from tests.corpus.documents_of_people import RECIPE, SUITE

FUZZ = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
TEXTS = st.text(st.characters(codec=None), max_size=20) | st.sampled_from(
    ["", "LORA", "\ud800", "\x1b[31m", "{", "../x"]
)
NUMBERS = st.integers() | st.floats() | st.sampled_from([10**400, -(10**400), 2**63, -1, 0])
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@contextlib.contextmanager
def in_words() -> Iterator[None]:
    """Within the bounds; an error is a typed one that says place, fault and fix."""
    with bounded():
        try:
            yield
        except SSTMergeError as error:
            assert not badly_told(error)


def mutated(document: Any) -> st.SearchStrategy[Any]:
    """The document with some of its values, at any depth, replaced, taken away or added."""

    @st.composite
    def change(draw: st.DrawFn) -> Any:
        found = copy.deepcopy(document)
        for _ in range(draw(st.integers(1, 3))):
            place = found
            while isinstance(place, (dict, list)) and place:
                key: Any = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else list(range(len(place)))))
                if isinstance(place[key], (dict, list)) and place[key] and draw(st.booleans()):
                    place = place[key]
                    continue
                how = draw(st.sampled_from(["put", "take", "add"]))
                if how == "put":
                    place[key] = draw(VALUES)
                elif how == "take":
                    del place[key]
                elif isinstance(place, dict):
                    place[draw(st.text(max_size=8))] = draw(VALUES)
                break
        return found

    return change()


@FUZZ
@given(mutated({**SETTINGS, "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"a|b": 3.0}, "use_rslora": False}))
def test_any_settings_of_an_adapter(tmp_path: Path, config: Any) -> None:
    with in_words():
        write(tmp_path, json.dumps(config).encode("utf-8", "surrogatepass"), made().tensors)
        entry = catalog.entry(tmp_path)
        assert entry.rank >= 1 and json.dumps(entry.alpha)
    if isinstance(config, dict):
        with bounded():
            problems = config_problems("x", config)
            if not problems:
                assert Scales(config).rank("model.layers.0.self_attn.q_proj") >= 1


_PLAIN = safetensors(made().tensors)
_LENGTH = struct.unpack("<Q", _PLAIN[:8])[0]
_HEADER = json.loads(_PLAIN[8 : 8 + _LENGTH])


@FUZZ
@given(mutated(_HEADER))
def test_any_header_of_weights_is_read_as_safetensors_reads_it_or_refused(tmp_path: Path, header: Any) -> None:
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    write(tmp_path, SETTINGS, whole(text, _PLAIN[8 + _LENGTH :]))
    with in_words():
        adapter = adapters.read(tmp_path)
        import safetensors as library

        with library.safe_open(tmp_path / "adapter_model.safetensors", framework="numpy") as file:
            for module in adapter.modules.values():
                assert file.get_tensor(module.key_a).shape == (module.rank, module.in_features)


@FUZZ
@given(
    st.lists(st.tuples(st.integers(0, len(_PLAIN) - 1), st.integers(0, 255)), min_size=1, max_size=4), st.integers(0, 9)
)
def test_any_flipped_or_cut_bytes_of_weights(tmp_path: Path, flips: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(_PLAIN)
    for at, byte in flips:
        data[at] = byte
    write(tmp_path, SETTINGS, bytes(data[: len(data) - cut]))
    with in_words():
        adapters.read(tmp_path)


@FUZZ
@given(
    mutated(
        {
            "name": "A",
            "role": "utility",
            "suite": "facts",
            "description": "",
            "scores": {"a": 1.0},
            "training": {"r": 1},
        }
    )
)
def test_any_record_of_an_adapter_is_no_obstacle(tmp_path: Path, record: Any) -> None:
    write(tmp_path, SETTINGS, _PLAIN)
    (tmp_path / "sstmerge.json").write_bytes(json.dumps(record).encode("utf-8", "surrogatepass"))
    with bounded():
        entry = catalog.entry(tmp_path)
        assert isinstance(entry.scores, dict) and isinstance(entry.name, str) and entry.name
        assert isinstance(training_record(tmp_path), dict)


@FUZZ
@given(
    st.binary(max_size=80)
    | VALUES.map(lambda value: json.dumps({"event": value, "t": value}).encode())
    | VALUES.map(lambda value: json.dumps({"event": "samples", "t": 1.0, "rows": value}).encode())
)
def test_any_line_of_events(tmp_path: Path, line: bytes) -> None:
    with bounded():
        found = events.decode(line + b"\n")
        assert found is None or isinstance(found["event"], str)
        if found is not None:
            assert events.decode(events.encode(found)) is not None


@FUZZ
@given(mutated(yaml.safe_load(RECIPE.to_yaml())))
def test_any_recipe(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(yaml.safe_dump(content, allow_unicode=False).encode())
    with in_words():
        read = recipe_file.read_recipe(path)
        path.write_text(read.to_yaml())
        again = recipe_file.read_recipe(path)
        # a name that is a path on somebody's machine is written without its folders
        told, told_again = (recipe_file.without_paths(one.recipe.model_dump()) for one in (read, again))
        assert told_again == told


@FUZZ
@given(mutated(SUITE))
def test_any_declared_suite(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(yaml.safe_dump(content).encode())
    with in_words():
        declared._read.cache_clear()
        suite = declared.read(path)
        assert suite.name == "mine" and json.dumps(suite.model_dump(mode="json"))


@FUZZ
@given(VALUES)
def test_any_question_to_the_model(value: Any) -> None:
    for given_ in (value, {"base": value, "columns": value}, {"base": "b", "columns": [value]}):
        with in_words():
            Question.from_json(given_)


_WRITTEN = Path(tempfile.gettempdir()) / f"written-by-a-query-{os.getpid()}"
_PIECES = st.sampled_from([
    *("SELECT", "FROM", "WITH", "AS", "1", "*", "runs", "(", ")", ";", ",", "'", '"', "--", "/*", "*/", "$$"),
    *("read_text('/etc/passwd')", "COPY", "TO", f"'{_WRITTEN}'", "ATTACH", "INSERT INTO", "DELETE", "SET", "PRAGMA"),
    *("UNION ALL", "LIMIT", "query('DROP TABLE t')", "EXPLAIN", "PIVOT", "getenv('HOME')", "\u00a0", "\ud800"),
    *("e'\\n'", "\n", " ", "x", "\0"),
])  # fmt: skip


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("d") / "x.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE runs AS SELECT 'r1' AS run_id")
    return path


@FUZZ
@given(st.lists(_PIECES, max_size=14))
def test_any_sql_changes_nothing_and_shows_no_file(database: Path, pieces: list[str]) -> None:
    before = database.read_bytes()
    with bounded():
        try:
            answer = sandbox_child.run(duckdb, str(database), " ".join(pieces), 10)
        except (sandbox_child.Rejected, duckdb.OutOfMemoryException):
            pass
        else:
            assert "root:" not in json.dumps(answer) and os.environ.get("HOME", "?") not in json.dumps(answer)
    assert database.read_bytes() == before and not _WRITTEN.exists()


@FUZZ
@given(st.text(st.characters(codec=None), max_size=40))
def test_any_text_is_plain_in_markdown(text: str) -> None:
    import markdown_it

    from tests.corpus.injections import _in_markdown

    with bounded():
        assert _in_markdown(text) == ""
        assert markdown_it.MarkdownIt("commonmark").render(plain(text)).count("<p>") <= 1


PARSERS: dict[str, Callable[[list[str]], Any]] = {
    "one of": link.one_of(["a", "b"]),
    "some of": link.some_of(["a", "b"]),
    "flag": link.flag,
    "text": link.text,
    "texts": link.texts,
}


@FUZZ
@given(st.sampled_from(sorted(PARSERS)), st.lists(TEXTS, min_size=1, max_size=3))
def test_any_parameter_of_a_link(name: str, values: list[str]) -> None:
    with bounded():
        try:
            found = PARSERS[name](values)
        except ValueError as error:
            assert str(error)
        else:
            # what it stands for leads back to it
            written = {"x": found} if not isinstance(found, list) else {"x": found or "none"}
            again = link.spelled(written).get("x", values[-1])
            assert PARSERS[name]([again] if isinstance(again, str) else again) == found or name == "texts"


def test_any_document_is_read_or_refused_within_the_bounds_of_the_reader() -> None:
    @settings(max_examples=100, deadline=None)
    @given(st.text("[]{}:,-&*!|>'\"%@`#? \n\tab1.~<\\0x_", max_size=200), st.integers(1, 2_000))
    def read(text: str, times: int) -> None:
        with bounded():
            for reader in (documents.from_json, documents.from_yaml):
                with contextlib.suppress(documents.FormatError):
                    reader(text * times)

    read()


def test_the_bounds_are_seen() -> None:
    with pytest.raises(AssertionError), bounded():
        assert bytearray(b"x") * (bounds.BYTES + 20_000_000)
