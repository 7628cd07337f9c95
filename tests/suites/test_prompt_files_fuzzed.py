"""Whatever bytes a prompt file holds: rows, or a typed error in a few lines, and never another exception."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sstmerge_core.errors import DataError, RecipeError
from sstmerge_core.suites import reading
from sstmerge_core.suites.columns import parse, told
from sstmerge_core.suites.guess import guess_columns
from sstmerge_core.suites.rows import read_rows, rows_digest, splits

NAMES = st.sampled_from(
    [
        "prompt",
        "Prompt",
        " response",
        "messages",
        "instruction",
        "input",
        "output",
        "id",
        "split",
        "system",
        "a.b",
        "",
        "x",
    ]
)
TEXTS = st.text(st.characters(codec=None), max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.sampled_from(["[{", "[]", "{a}", "NaN"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.sampled_from(["role", "content"]), inner, max_size=3)
    ),
    max_leaves=6,
)
TURN = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "tool", 3, None]), "content": VALUES}
)
RECORDS = st.lists(st.dictionaries(NAMES, VALUES | st.lists(TURN, max_size=3), max_size=5) | VALUES, max_size=6)
CELLS = st.lists(st.lists(st.text(" \",;\t\r\n\u2028\x0cab'|", max_size=6), max_size=4), max_size=6)
FUZZ = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def tried(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    for read in (checked, guess_columns, splits):
        try:
            read(path)
        except DataError as error:
            assert error.problems and len(error.problems) <= 11
            text = str(error)
            assert str(path) in text and len(text) < 8000
            assert text.encode(), "the message can be printed"


def checked(path: Path) -> None:
    rows = read_rows(path)
    assert len(rows_digest(rows)) == 64 and all(row.prompt.strip() for row in rows)
    assert len({row.prompt_id for row in rows}) == len(rows)


@FUZZ
@given(
    st.binary(max_size=200), st.sampled_from(["csv", "tsv", "json", "jsonl", "yaml", "parquet", "jsonl.gz", "csv.gz"])
)
def test_any_bytes(tmp_path: Path, content: bytes, ending: str) -> None:
    tried(tmp_path / f"x.{ending}", content)


@FUZZ
@given(RECORDS, st.booleans())
def test_any_records(tmp_path: Path, records: list, ascii_only: bool) -> None:
    lines = "\n".join(json.dumps(record, ensure_ascii=ascii_only) for record in records)
    tried(tmp_path / "x.jsonl", lines.encode("utf-8", "surrogatepass"))
    tried(tmp_path / "x.json", json.dumps(records, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass"))
    tried(tmp_path / "x.jsonl.gz", gzip.compress(lines.encode("utf-8", "surrogatepass"), 1))


@FUZZ
@given(
    CELLS, st.sampled_from([",", ";", "\t", "|"]), st.sampled_from(["utf-8", "utf-16", "cp932", "euc_jp", "latin-1"])
)
def test_any_cells(tmp_path: Path, rows: list, delimiter: str, encoding: str) -> None:
    head = delimiter.join(["prompt", "response", "split"])
    text = "\n".join([head, *(delimiter.join(cells) for cells in rows)])
    tried(tmp_path / "x.csv", text.encode(encoding, "replace"))


@FUZZ
@given(st.text("-:[]{}&*!|>'\"%@`#, \n\tab1.~?", max_size=60))
def test_any_yaml(tmp_path: Path, text: str) -> None:
    tried(tmp_path / "x.yaml", text.encode())
    tried(tmp_path / "y.yaml", f"- prompt: {text}\n  response: a\n".encode())


@FUZZ
@given(
    st.lists(
        st.sampled_from([*"abc.{}=:,;\\n ", "prompt=", "response=", "turns=", "split:=", "delimiter="]),
        max_size=12,
    )
)
def test_any_columns(parts: list[str]) -> None:
    try:
        found = parse("".join(parts))
    except RecipeError as error:
        assert error.problems[0].fix
    else:
        assert parse(told(found)) is not None if told(found) else True


@FUZZ
@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=5))
def test_what_a_csv_writer_writes_is_read_back(tmp_path: Path, pairs: list[tuple[str, str]]) -> None:
    import csv
    import io

    kept = [(p, r) for p, r in pairs if p.strip() and (p + r).isprintable() | ("\n" in p) and _encodes(p + r)]
    if not kept:
        return
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    writer.writerows([("prompt", "response"), *kept])
    path = tmp_path / "x.csv"
    path.write_bytes(stream.getvalue().encode())
    if reading._TWO_BYTES.search(path.read_bytes()) and path.read_bytes().isascii():
        return  # is text of ISO-2022, by all that a reader can know
    assert [(row.prompt, row.response) for row in read_rows(path)] == kept


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


@pytest.mark.parametrize("ending", ["json", "jsonl", "csv", "yaml"])
def test_a_file_cut_at_any_byte(tmp_path: Path, ending: str) -> None:
    texts = {
        "json": json.dumps([{"prompt": "qé", "response": "a"}] * 2),
        "jsonl": '{"prompt": "qé", "response": "a"}\n' * 2,
        "csv": 'prompt,response\n"qé\n1",a\nb,c\n',
        "yaml": "- prompt: qé\n  response: a\n- {prompt: r, response: 'b'}\n",
    }
    content = texts[ending].encode()
    for end in range(len(content)):
        tried(tmp_path / f"x.{ending}", content[:end])
