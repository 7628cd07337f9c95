from __future__ import annotations

import json
from pathlib import Path

import pytest

from sstmerge_core.errors import DataError
from sstmerge_core.suites.rows import Row, load_rows, rows_digest, take


def write(path: Path, records: list[object]) -> Path:
    path.write_text("\n".join(json.dumps(record, ensure_ascii=False) for record in records) + "\n", encoding="utf-8")
    return path


def test_rows_of_one_split_come_in_file_order(tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.jsonl",
        [
            {"id": "a", "prompt": "Où?", "response": "Là.", "topic": "t", "split": "test", "extra": 1},
            {"id": "b", "prompt": "Who?", "split": "train"},
            {"prompt_id": "c", "prompt": "Why?", "split": "test"},
        ],
    )
    assert load_rows(path, "test") == [Row("a", "t", "Où?", "Là."), Row("c", "", "Why?", "")]
    assert len(load_rows(path)) == 3


def test_csv_and_json_give_the_same_rows_as_jsonl(tmp_path: Path) -> None:
    record = {"id": "a", "prompt": 'Say "x",\nplease', "response": "x", "topic": "t"}
    (tmp_path / "x.json").write_text(json.dumps([record]))
    (tmp_path / "x.csv").write_text('id,prompt,response,topic\r\na,"Say ""x"",\nplease",x,t\r\n', newline="")
    expected = load_rows(write(tmp_path / "x.jsonl", [record]))
    assert load_rows(tmp_path / "x.json") == load_rows(tmp_path / "x.csv") == expected


def test_every_unusable_row_is_named_at_once(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", [{"id": "a", "prompt": "q"}, {"id": "a", "prompt": "r"}, {"id": "b"}, 7])
    with pytest.raises(DataError) as error:
        load_rows(path)
    text = str(error.value)
    assert "line 2: id 'a' was used before" in text
    assert "line 3: has no prompt" in text
    assert "line 4: is not an object" in text


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", b'{"prompt": "q"}\n{"pro', "line 2: is not JSON"),
        ("x.jsonl", b"", "has no rows"),
        ("x.jsonl", b"\xff\xfe\x00", "is not UTF-8 text"),
        ("x.txt", b"q", "unknown ending .txt"),
        ("x.json", b'{"prompt": "q"}', "is not one JSON list"),
    ],
)
def test_an_unreadable_file_gives_one_clear_error(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_rows(tmp_path / name)


def test_a_missing_file_and_a_missing_split_say_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        load_rows(tmp_path / "none.jsonl")
    path = write(tmp_path / "x.jsonl", [{"prompt": "q", "split": "train"}, {"prompt": "r", "split": "test"}])
    with pytest.raises(DataError, match="Its splits: test, train"):
        load_rows(path, "dev")


def test_taking_some_rows_spreads_them_over_the_topics() -> None:
    rows = [Row(f"{topic}{n}", topic, "q", "") for topic in "abc" for n in range(3)]
    assert [row.prompt_id for row in take(rows, 4)] == ["a0", "a1", "b0", "c0"]
    assert take(rows, 9) == rows
    with pytest.raises(DataError, match="10 asked for, 9 there"):
        take(rows, 10)


def test_the_digest_depends_on_content_and_order_only() -> None:
    one, two = Row("a", "t", "q", "r"), Row("b", "t", "q", "r")
    assert rows_digest([one, two]) == rows_digest([Row("a", "other topic", "q", "r"), two])
    assert rows_digest([one, two]) != rows_digest([two, one])
    assert rows_digest([one]) != rows_digest([Row("a", "t", "q", "s")])
