"""Prompt files as people have them: read as they are meant or refused in one line; no lost rows, no moved cells."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sstmerge_core.errors import DataError
from sstmerge_core.suites import reading
from sstmerge_core.suites.columns import Columns, Template
from sstmerge_core.suites.guess import guess_columns
from sstmerge_core.suites.rows import load_rows, read_records, read_rows, splits
from sstmerge_core.train import training_data

JAPANESE = "prompt,response\n東京はどこの首都ですか。,日本です。\nりんごは何色ですか？,赤いです。\n"
TURNS = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
SHAREGPT = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]


def put(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def lines(*records: Any) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def pairs(path: Path, columns: Columns | None = None) -> list[tuple[str, str]]:
    """What suites and training read alike."""
    found = [(row.prompt, row.response) for row in read_rows(path, columns)]
    assert training_data.read([path], columns=columns).rows == found
    return found


def refused(path: Path) -> str:
    """The one problem of a file that neither suites nor training read."""
    texts = []
    for read in (lambda: read_rows(path), lambda: training_data.read([path])):
        with pytest.raises(DataError) as error:
            read()
        assert len(error.value.problems) == 1 and str(path) in str(error.value), str(error.value)
        problem = error.value.problems[0]
        assert problem.fix
        texts.append(str(problem))
    assert texts[0] == texts[1]
    return texts[0]


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e"])
def test_a_row_of_a_csv_ends_at_a_line_end_and_at_nothing_else(tmp_path: Path, mark: str) -> None:
    file = put(tmp_path / "x.csv", f"prompt,response\nfirst{mark}second,a{mark}\n{mark}third,b\n")
    assert pairs(file) == [(f"first{mark}second", f"a{mark}"), (f"{mark}third", "b")]
    file = put(tmp_path / "x.jsonl", json.dumps({"prompt": f"a{mark}b", "response": "c"}, ensure_ascii=mark < " "))
    assert pairs(file) == [(f"a{mark}b", "c")]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_kind_of_line_end_is_one(tmp_path: Path, end: str) -> None:
    file = put(tmp_path / "x.csv", end.join(["prompt,response", f'"a{end}{end}b",c', "d,e", ""]))
    assert pairs(file) == [(f"a{end}{end}b", "c"), ("d", "e")]
    file = put(tmp_path / "x.jsonl", end.join(json.dumps({"prompt": p, "response": p}) for p in "ab"))
    assert pairs(file) == [("a", "a"), ("b", "b")]


def test_a_cell_may_be_longer_than_the_csv_modules_limit(tmp_path: Path) -> None:
    text = "long " * 40_000
    assert pairs(put(tmp_path / "x.csv", f"prompt,response\n{text},{text}\n")) == [(text, text)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("semicolons.csv", "prompt;response\nq, 1;a\n"),
        ("excel.csv", "sep=;\r\nprompt;response\r\nq, 1;a\r\n"),
        ("bars.csv", "prompt|response\nq, 1|a\n"),
        ("tabs.csv", "prompt\tresponse\nq, 1\ta\n"),
        ("x.tsv", "prompt\tresponse\nq, 1\ta\n"),
        ("x.tsv.gz", gzip.compress(b"prompt\tresponse\nq, 1\ta\n")),
        ("spaces.csv", 'prompt, response\n"q, 1", "a"\n'),
        ("CAPS.CSV", 'PROMPT,Response \n"q, 1",a\n'),
        ("empty_ends.csv", 'prompt,response\n"q, 1",a,,\n'),
        ("bom.csv", b'\xef\xbb\xbfprompt,response\n"q, 1",a\n'),
        ("utf16.csv", 'prompt,response\n"q, 1",a\n'.encode("utf-16")),
        ("utf16_be_unmarked.csv", 'prompt,response\n"q, 1",a\n'.encode("utf-16-be")),
        ("utf16_le_unmarked.csv", 'prompt,response\n"q, 1",a\n'.encode("utf-16-le")),
        ("utf32.csv", 'prompt,response\n"q, 1",a\n'.encode("utf-32")),
        ("utf16.jsonl", lines({"prompt": "q, 1", "response": "a"}).encode("utf-16")),
        ("gzip_under_another_name.jsonl", gzip.compress(lines({"prompt": "q, 1", "response": "a"}).encode())),
        ("list_in_lines.jsonl", json.dumps([{"prompt": "q, 1", "response": "a"}], indent=1)),
        ("under_one_key.json", json.dumps({"version": 2, "data": [{"prompt": "q, 1", "response": "a"}]})),
        ("two_marks.jsonl", "\ufeff" + lines({"prompt": "q, 1", "response": "a"})),
        ("answer.jsonl", lines({"prompt": "q, 1", "answer": "a"})),
        ("trl.jsonl", lines({"prompt": [{"role": "user", "content": "q, 1"}], "completion": TURNS[1:]})),
        ("instruction.jsonl", lines({"instruction": "q, 1", "output": "a"})),
        ("x.yaml", "- prompt: q, 1\n  response: a\n"),
    ],
)
def test_what_is_clear_is_read_without_a_word(tmp_path: Path, name: str, content: str | bytes) -> None:
    assert pairs(put(tmp_path / name, content)) == [("q, 1", "a")]


def test_concatenated_files_with_a_mark_each_are_read(tmp_path: Path) -> None:
    one = b"\xef\xbb\xbf" + lines({"prompt": "q", "response": "a"}).encode()
    assert pairs(put(tmp_path / "x.jsonl", one + one)) == [("q", "a"), ("q", "a")]


@pytest.mark.parametrize("encoding", ["cp932", "shift_jis", "euc_jp", "iso2022_jp", "utf-8", "utf-8-sig", "utf-16"])
def test_japanese_in_its_own_encodings_is_read(tmp_path: Path, encoding: str) -> None:
    file = put(tmp_path / "x.csv", JAPANESE.encode(encoding))
    assert pairs(file) == [("東京はどこの首都ですか。", "日本です。"), ("りんごは何色ですか？", "赤いです。")]


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Où est le café ?,Là-bas, à côté", "cp1252"),
        ("Où est le café ?,Là", "latin-1"),
        ("где столица?,москва", "cp1251"),
        ("中国的首都是哪里？,北京是首都。", "gb18030"),
        ("中國的首都是哪裡？,北京是首都。", "big5"),
        ("한국의 수도는 어디입니까?,서울입니다.", "euc_kr"),
        ("ｱｲｳｴｵ,ｶｷｸｹｺ", "cp932"),
    ],
)
def test_what_could_be_several_encodings_is_refused_until_it_is_named(tmp_path: Path, text: str, encoding: str) -> None:
    prompt, _, response = text.partition(",")
    file = put(tmp_path / "x.csv", f'prompt,response\n{prompt},"{response}"\n'.encode(encoding))
    told = refused(file)
    assert "is not UTF-8 text (first in line 2)" in told and "--columns encoding=" in told
    assert pairs(file, Columns(encoding=encoding)) == [(prompt, response)]


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"messages": TURNS}, ("q", "a")),
        ({"messages": [{"role": "system", "content": " "}, *TURNS]}, ("q", "a")),
        (
            {"messages": [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in TURNS]},
            ("q", "a"),
        ),
        ({"conversations": SHAREGPT, "source": "x"}, ("q", "a")),
        ({"Conversations": [{"from": "Human", "value": "q"}, {"from": "GPT", "value": "a"}]}, ("q", "a")),
        ({"instruction": "i", "input": "x", "output": "a"}, ("i\n\nx", "a")),
        ({"instruction": "i", "input": "", "output": "a"}, ("i", "a")),
        ({"Instruction": "i", "Input": "x", "Output": "a"}, ("i\n\nx", "a")),
    ],
)
@pytest.mark.parametrize("ending", ["jsonl", "json", "parquet"])
def test_chats_and_alpaca_are_read(tmp_path: Path, record: dict, expected: tuple[str, str], ending: str) -> None:
    file = tmp_path / f"x.{ending}"
    if ending == "parquet":
        pd.DataFrame([record, record]).to_parquet(file)
    else:
        put(file, lines(record, record) if ending == "jsonl" else json.dumps([record, record]))
    assert pairs(file) == [expected, expected]


def test_a_chat_in_a_cell_of_a_csv_is_read(tmp_path: Path) -> None:
    pd.DataFrame([{"messages": json.dumps(TURNS)}]).to_csv(tmp_path / "x.csv", index=False)
    assert pairs(tmp_path / "x.csv") == [("q", "a")]


def test_rows_of_several_formats_in_one_file_are_each_read_as_they_are(tmp_path: Path) -> None:
    file = put(
        tmp_path / "x.jsonl",
        lines({"prompt": "1", "response": "a"}, {"messages": TURNS}, {"Prompt": "3", "Response": "b"}),
    )
    assert pairs(file) == [("1", "a"), ("q", "a"), ("3", "b")]


LONG = {"messages": [*TURNS, {"role": "user", "content": "q2"}, {"role": "assistant", "content": "a2"}]}
SYSTEM = {"messages": [{"role": "system", "content": "s"}, *TURNS]}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("ragged.csv", "prompt,response\nWhat is 1,000 + 1?,1001\nok,fine\n1,2,3\n", "line 2: has 3 cells under 2 col"),
        (
            "broken_row.csv",
            "prompt,response,split\nWhat is\n1 + 1?,2,test\n",
            "line 2: ends before its column response",
        ),
        ("open_quote.csv", 'prompt,response\n"open,a\nb,c\n', "line 2: is not CSV"),
        ("backslash.csv", 'prompt,response\n"say \\"hi\\", ok",x\n', "line 2: is not CSV"),
        ("one_column.csv", "prompt\nhello, you\n", "line 2: has 2 cells under 1 column"),
        ("two_prompts.csv", "prompt,prompt\na,b\n", "line 1: has two columns called prompt"),
        ("undecided.csv", "prompt;response,x\n1;2,3\n", "separated by ',' or ';'"),
        ("other_names.csv", "question,answer\n" + "a,b\n" * 50, "--columns 'prompt=question,response=answer'"),
        (
            "no_header.csv",
            "What is 1?,one\nWhat is 2?,two\n",
            "has no column prompt and no column response; its columns: What is 1?, one",
        ),
        ("frage.csv", "frage;antwort\n1;2\n", "--columns 'prompt=frage,response=antwort'"),
        ("sjis.csv", "質問,回答\n何ですか,本です\n".encode("cp932"), "--columns 'prompt=質問,response=回答'"),
        ("two_answers.jsonl", lines({"prompt": "q", "answer": "a", "output": "b"}), "its response in output or answer"),
        ("long_chat.jsonl", lines(LONG, LONG), "line 1: has a conversation of 4 turns.*1 more row.*turns=first"),
        ("system.jsonl", lines(SYSTEM), "line 1: has a system turn.*turns=first"),
        ("tool.jsonl", lines({"messages": [TURNS[0], {"role": "tool", "content": "x"}]}), "a turn of the role 'tool'"),
        ("picture.jsonl", lines({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}), "not text"),
        (
            "context.jsonl",
            lines({"instruction": "q", "context": "c", "response": "a"}),
            r"line 1: has text in the column context.*prompt=\{context\}\\n\\n\{instruction\}",
        ),
        ("history.json", json.dumps([{"prompt": "q", "response": "a", "history": [["b", "c"]]}]), "column history"),
        (
            "bools.jsonl",
            lines(*[{"prompt": "q", "response": True}] * 30),
            "line 1: has a response that is bool.*29 more",
        ),
        ("lists.jsonl", lines({"prompt": ["q"], "response": "a"}), "line 1: has a prompt that is list"),
        ("yes.yaml", "- prompt: q\n  response: yes\n", "item 1: has a response that is bool"),
        ("twice.jsonl", '{"prompt": "a", "prompt": "b", "response": "c"}\n', "line 1: has the key prompt twice"),
        ("surrogate.jsonl", '{"prompt": "\\ud83d", "response": "a"}\n', "line 1: has half a character in its prompt"),
        ("in_id.jsonl", '{"id": "\\udc00", "prompt": "q", "response": "a"}\n', "half a character in its id"),
        ("in_key.jsonl", '{"\\ud800": "q", "response": "a"}\n', r"its columns: \\xd800"),
        ("digits.jsonl", '{"prompt": "q", "response": %s}\n' % ("9" * 5000), "line 1: has a number of too many digits"),
        ("digits.json", '[{"prompt": "q", "n": %s}]' % ("9" * 5000), "has a number of too many digits"),
        ("digits.yaml", f"- prompt: q\n  n: {'9' * 5000}\n", "more than 308 digits"),
        ("deep.json", "[" * 100_000, "within each other"),
        ("deep.jsonl", '{"prompt":' + "[" * 100_000, "within each other"),
        ("deep.yaml", "[" * 50_000, "within each other"),
        ("maps.yaml", "{a: " * 50_000, "within each other"),
        ("aliases.yaml", "- &a [" + "x, " * 200 + "x]\n- [" + "*a, " * 200 + "*a]\n", "aliases"),
        ("object.yaml", "- !!python/object/apply:os.getpid []\n", "is not YAML"),
        ("zeros.csv", b"\0" * 5000, "binary"),
        ("cut_utf16.csv", "prompt,response\nq,a\n".encode("utf-16")[:-1], "is not UTF-8 text, nor all of it utf-16"),
        ("excel.csv", b"PK\x03\x04" + b"x" * 50, "is a ZIP archive or an Excel workbook"),
        ("zstd.jsonl", b"\x28\xb5\x2f\xfdxxxx", "is packed by zstd"),
        ("parquet.csv", b"PAR1xxxx", "is a Parquet file"),
        ("pointer.jsonl", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer"),
        ("cut.jsonl.gz", gzip.compress(lines({"prompt": "q", "response": "a"}).encode())[:-6], "cannot be read"),
        ("crc.jsonl.gz", gzip.compress(lines({"prompt": "q", "response": "a"}).encode())[:-8] + b"12345678", "CRC"),
        ("plain.jsonl.gz", lines({"prompt": "q", "response": "a"}), "cannot be read: Not a gzipped file"),
        ("noise.jsonl", b"\x1f\x8b" + bytes(range(200)), "cannot be read"),
        ("by_column.json", json.dumps({"prompt": {"0": "q"}, "response": {"0": "a"}}), "is not one JSON list"),
        ("empty.csv", "", "has no rows"),
        ("header.csv", "prompt,response\n", "has no rows"),
    ],
)
def test_what_is_not_clear_is_refused_once_in_one_line(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    told = refused(put(tmp_path / name, content))
    assert re.search(message, told) or message in told, told
    assert "\n" not in told and len(told) < 700


def test_surplus_cells_are_counted(tmp_path: Path) -> None:
    file = put(tmp_path / "x.csv", "prompt,response\nq,a\n1,000,x\nok,b\n2,000,y\n")
    assert "line 3: has 3 cells under 2 columns (and 1 more row too many)" in refused(file)


def test_numbers_are_text_as_they_are_written(tmp_path: Path) -> None:
    written = ["0.10", "1e400", "-0.0", "7"]
    file = put(tmp_path / "x.jsonl", "".join(f'{{"prompt": "q", "response": {one}}}\n' for one in written))
    assert [response for _, response in pairs(file)] == written
    written = ["012", "12:30", "1_000", "0.10", ".inf", "2026-01-01", "2026-13-45", "2026-01-01 10:00"]
    file = put(tmp_path / "x.yaml", "".join(f"- prompt: q\n  response: {one}\n" for one in written))
    assert [response for _, response in pairs(file)] == written
    pd.DataFrame({"prompt": ["a", "b"], "response": [1, 2]}).to_parquet(tmp_path / "x.parquet")
    assert pairs(tmp_path / "x.parquet") == [("a", "1"), ("b", "2")]


def test_what_pandas_writes_for_missing_is_missing(tmp_path: Path) -> None:
    frame = pd.DataFrame({"prompt": ["a", "b"], "response": ["x", None]})
    frame.to_parquet(tmp_path / "x.parquet")
    frame.to_csv(tmp_path / "x.csv", index=False)
    put(tmp_path / "x.jsonl", '{"prompt": "a", "response": "x"}\n{"prompt": "b", "response": NaN}\n')
    for name in ("x.parquet", "x.csv", "x.jsonl"):
        assert [row.response for row in read_rows(tmp_path / name)] == ["x", ""], name


def test_a_prompt_may_come_again_where_no_ids_are_given(tmp_path: Path) -> None:
    records = [{"prompt": "q", "response": str(number)} for number in range(4)]
    plain = read_rows(put(tmp_path / "one.jsonl", lines(records[0])))[0].prompt_id
    named = {"id": f"{plain}-3", "prompt": "other", "response": "x"}
    rows = read_rows(put(tmp_path / "x.jsonl", lines(*records[:2], named, *records[2:])))
    assert [row.prompt_id for row in rows] == [plain, f"{plain}-2", f"{plain}-3", f"{plain}-4", f"{plain}-5"]
    file = put(tmp_path / "ids.csv", "id,prompt,response\n0,q,a\n0,r,b\n")
    assert "line 3: id '0' was used before, at" in refused(file)
    assert read_rows(put(tmp_path / "zero.jsonl", lines({"id": 0, "prompt": "q"})))[0].prompt_id == "0"


def test_ten_thousand_equal_prompts_take_no_longer_than_others(tmp_path: Path) -> None:
    file = put(tmp_path / "x.jsonl", lines({"prompt": "q", "response": "a"}) * 10_000)
    assert len({row.prompt_id for row in read_rows(file)}) == 10_000


@pytest.mark.parametrize("name", ["x.jsonl", "x.csv", "x.json", "x.yaml", "x.parquet", "x.jsonl.gz"])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path, name: str) -> None:
    for make in (
        lambda path: os.mkfifo(path),
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.mkdir(),
        lambda path: path.symlink_to(path),
        lambda path: path.symlink_to(tmp_path / "nowhere"),
    ):
        path = tmp_path / name
        make(path)
        assert "regular file" in (told := refused(path)) or "cannot be read" in told
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink()


@pytest.mark.parametrize("name", ["x.jsonl.gz", "x.csv.gz", "x.json.gz", "x.yaml.gz"])
@pytest.mark.parametrize("filling", [b" ", b"a", b"\n", b'{"prompt": "q", "response": "a"}\n'])
def test_a_file_that_unpacks_to_more_than_the_limit_is_refused(
    tmp_path: Path, name: str, filling: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MOST_BYTES", 2**20)
    file = put(tmp_path / name, gzip.compress(filling * (2**21 // len(filling))))
    assert "has more than 1 MiB of text once unpacked" in refused(file)


def test_a_gigabyte_in_a_small_file_is_refused_in_little_memory(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl.gz"
    with gzip.open(file, "wb", 1) as stream:
        for _ in range(300):
            stream.write(b" " * 2**20)
    code = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (2**29, 2**29))
from sstmerge_core.errors import DataError
from sstmerge_core.suites.rows import read_rows
try:
    read_rows(sys.argv[1])
except DataError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, timeout=60)
    assert "has more than 256 MiB" in done.stdout, done.stderr[-500:]


def test_a_text_that_parquet_keeps_once_counts_for_each_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MOST_BYTES", 2**20)
    frame = pd.DataFrame({"prompt": ["z" * 2**14] * 200, "response": ["a"] * 200})
    frame.astype("category").to_parquet(tmp_path / "x.parquet")
    assert (tmp_path / "x.parquet").stat().st_size < 2**17
    assert "has more than 1 MiB of text once unpacked" in refused(tmp_path / "x.parquet")


def test_a_line_that_never_ends_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sstmerge_core.suites import records

    monkeypatch.setattr(records, "MOST_LINE", 1000)
    assert "line 2 is longer" in refused(
        put(tmp_path / "x.jsonl", lines({"prompt": "q", "response": "a"}, {"prompt": "q" * 2000}))
    ).replace(": is", " is")


def test_the_splits_of_a_file_are_found_under_any_case_and_delimiter(tmp_path: Path) -> None:
    file = put(tmp_path / "x.csv", "Prompt;Response;Split;Topic\nq;a;test;t\nr;b;train;t\n")
    assert splits(file) == ["test", "train"] == training_data.splits([file])
    assert [(row.prompt, row.split, row.topic) for row in load_rows(file, "test")] == [("q", "test", "t")]
    with pytest.raises(DataError, match="no rows of split 'dev'. Its splits: test, train"):
        load_rows(file, "dev")
    with pytest.raises(DataError, match="--columns split:=test"):
        load_rows(put(tmp_path / "y.jsonl", lines({"messages": TURNS})), "test")


def test_a_preview_reads_no_further_than_it_shows(tmp_path: Path) -> None:
    file = put(tmp_path / "x.jsonl", lines({"prompt": "q", "response": "a"}) * 5 + "broken\n")
    assert len(read_rows(file, limit=5)) == 5
    with pytest.raises(DataError, match="line 6: is not JSON"):
        read_rows(file)


def test_a_guess_tells_all_that_a_form_shows(tmp_path: Path) -> None:
    found = guess_columns(put(tmp_path / "x.csv", "Question;Answer;level\nq;a;1\n"))
    assert (found.sure, found.format, found.encoding, found.delimiter) == (False, "csv", "utf-8", ";")
    assert found.names == ("Question", "Answer", "level") and found.unused == ("level",)
    assert found.option == "prompt=Question,response=Answer"
    assert found.problem is not None and found.problem.where == str(tmp_path / "x.csv")
    assert [(row.prompt, row.response) for row in read_rows(tmp_path / "x.csv", found.columns)] == [("q", "a")]
    sure = guess_columns(put(tmp_path / "y.json", json.dumps([{"conversations": SHAREGPT}])))
    assert (sure.sure, sure.shape, sure.option) == (True, "chat", "prompt=conversations,response=conversations")
    nothing = guess_columns(put(tmp_path / "z.jsonl", lines({"a": 1, "b": 2})))
    assert nothing.columns is None and nothing.names == ("a", "b") and nothing.problem is not None


def test_records_keep_what_they_are_for_filters(tmp_path: Path) -> None:
    file = put(tmp_path / "x.jsonl", '{"prompt": "q", "score": 0.50, "flag": true}\n')
    ((_, record),) = read_records(file)
    assert record["score"] == 0.5 and record["flag"] is True and str(record["score"]) == "0.50"


@pytest.mark.parametrize("text", ["\x1b$ is an escape", "\x1b(B after it", "\x1b$B and \u65e5\u672c", "\x1b[0m red"])
def test_escape_sequences_of_terminals_are_text_like_any_other(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.csv"
    path.write_text(f'prompt,response\n"{text}",r\n')
    assert [row.prompt for row in read_rows(path)] == [text]


@pytest.mark.parametrize("encoding", ["rot13", "base64", "hex", "zlib", "nosuch", "undefined"])
def test_a_codec_that_is_of_no_text_is_no_encoding(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "x.csv"
    path.write_text("prompt,response\na,b\n")
    with pytest.raises(DataError):
        read_rows(path, columns=Columns(encoding=encoding))


ASKED = {"from": "human", "value": "a"}
LOSSES = {
    "joined.csv": "prompt,response\na,b\n\ufeffprompt,response\nc,d\n",
    "kto.csv": "prompt,completion,label\na,b,False\n",
    "kto.jsonl": '{"prompt": "a", "completion": "b", "label": 0}\n',
    "text.jsonl": '{"prompt": "a", "completion": "b", "label": "false"}\n',
    "weight.jsonl": json.dumps({"conversations": [ASKED, {"from": "gpt", "value": "b", "weight": 0}]}),
    "system.jsonl": json.dumps({"system": "s", "conversations": [ASKED, {"from": "gpt", "value": "b"}]}),
}


@pytest.mark.parametrize("name", LOSSES)
def test_what_would_be_learnt_wrongly_is_refused_and_the_advice_is_not_wrong(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(LOSSES[name])
    with pytest.raises(DataError) as raised:
        read_rows(path)
    [problem] = raised.value.problems
    assert problem.fix and "{conversations}" not in problem.fix


def test_a_conversation_is_no_text_for_a_template(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(LOSSES["system.jsonl"])
    with pytest.raises(DataError, match="no text to put into a template"):
        read_rows(path, columns=Columns(prompt=Template(template="{system}\n\n{conversations}")))


def test_parquet_with_two_columns_of_one_name_is_refused(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    columns = [pyarrow.array(["a"]), pyarrow.array(["b"]), pyarrow.array(["c"])]
    parquet.write_table(pyarrow.table(columns, names=["prompt", "prompt", "response"]), tmp_path / "x.parquet")
    with pytest.raises(DataError, match="two columns called 'prompt'"):
        read_rows(tmp_path / "x.parquet")
