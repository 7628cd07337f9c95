"""Prompt files as people have them and as nobody should: encodings, separators, nesting, numbers, packing, pipes.

Right is a file whose rows are the ones written, for suites and for training alike; what is not clear is refused.
"""

from __future__ import annotations

import gzip
import io
import itertools
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sstmerge_core.suites.guess import guess_columns
from sstmerge_core.suites.rows import read_rows, rows_digest, splits
from sstmerge_core.train import training_data
from tests.corpus.case import EITHER, REFUSED, RIGHT, Case, Expected
from tests.corpus.texts import DEEP, JSON, YAML

Pairs = list[tuple[str, str]]
ONE: Pairs = [("q, 1", "a")]
TURNS = [{"role": "user", "content": "q, 1"}, {"role": "assistant", "content": "a"}]
Content = str | bytes | Callable[[Path], Any]


def lines(*records: Any) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def parquet(records: list[dict[str, Any]], **options: Any) -> bytes:
    import pyarrow
    from pyarrow import parquet as written

    file = io.BytesIO()
    written.write_table(pyarrow.Table.from_pylist(records), file, **options)
    return file.getvalue()


def _case(name: str, file: str, content: Content, expected: Expected, pairs: Pairs | None = None) -> Case:
    def tried(folder: Path) -> bool:
        path = folder / file
        if callable(content):
            content(path)
        else:
            path.write_bytes(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)
        rows = read_rows(path)
        found = [(row.prompt, row.response) for row in rows]
        guess_columns(path)
        splits(path)
        sound = len(rows_digest(rows)) == 64 and len({row.prompt_id for row in rows}) == len(rows)
        if pairs is None:
            return sound
        return sound and found == pairs == training_data.read([path]).rows

    return Case(name, expected, tried)


def cases(scratch: Path) -> list[Case]:
    import pyarrow.parquet  # noqa: F401 (its import is no file's time)
    import yaml  # noqa: F401

    import sstmerge_core.suites.prepare  # noqa: F401

    return [*_right(), *_refused(), *_nested(), *_large(), *_no_files()]


def _right() -> list[Case]:
    plain = 'prompt,response\n"q, 1",a\n'
    row = {"prompt": "q, 1", "response": "a"}
    kinds: dict[str, tuple[str, str | bytes]] = {
        "CSV": ("x.csv", plain),
        "CSV of Windows": ("x.csv", plain.replace("\n", "\r\n")),
        "CSV of old Macs": ("x.csv", plain.replace("\n", "\r")),
        "CSV without a last line end": ("x.csv", plain.rstrip()),
        "CSV with empty lines": ("x.csv", f"\n\n{plain}\n\n"),
        "semicolons": ("x.csv", "prompt;response\nq, 1;a\n"),
        "bars": ("x.csv", "prompt|response\nq, 1|a\n"),
        "tabs": ("x.csv", "prompt\tresponse\nq, 1\ta\n"),
        "TSV": ("x.tsv", "prompt\tresponse\nq, 1\ta\n"),
        "Excel's first line": ("x.csv", "sep=;\r\nprompt;response\r\nq, 1;a\r\n"),
        "capital letters": ("X.CSV", 'PROMPT,Response \n"q, 1",a\n'),
        "more columns": ("x.csv", 'a,prompt,b,response,c\n1,"q, 1",2,a,3\n'),
        "UTF-8 with a mark": ("x.csv", b"\xef\xbb\xbf" + plain.encode()),
        **{f"{one}": ("x.csv", plain.encode(one)) for one in ("utf-16", "utf-16-le", "utf-16-be", "utf-32")},
        "JSON Lines": ("x.jsonl", lines(row)),
        "JSON Lines of Windows": ("x.jsonl", lines(row).replace("\n", "\r\n")),
        "JSON Lines in UTF-16": ("x.jsonl", lines(row).encode("utf-16")),
        "JSON Lines, marked twice": ("x.jsonl", "\ufeff\ufeff" + lines(row)),
        "JSON": ("x.json", json.dumps([row])),
        "JSON on many lines": ("x.json", json.dumps([row], indent=4)),
        "JSON under a key": ("x.json", json.dumps({"version": 1, "data": [row]})),
        "JSON Lines called JSON": ("x.json", lines(row, row)),
        "a list called JSON Lines": ("x.jsonl", json.dumps([row], indent=1)),
        "YAML": ("x.yaml", "- prompt: q, 1\n  response: a\n"),
        "YAML with anchors": ("x.yaml", "- &one {prompt: 'q, 1', response: b}\n- {<<: *one, response: a}\n"),
        "Parquet": ("x.parquet", parquet([row])),
        "Parquet by Brotli": ("x.parquet", parquet([row], compression="brotli")),
        "Parquet by zstd": ("x.parquet", parquet([row], compression="zstd")),
        "Parquet of an old version": ("x.parquet", parquet([row], version="1.0")),
        "gzip": ("x.jsonl.gz", gzip.compress(lines(row).encode())),
        "gzip of CSV": ("x.csv.gz", gzip.compress(plain.encode())),
        "gzip under another name": ("x.jsonl", gzip.compress(lines(row).encode())),
        "gzip in two parts": ("x.csv.gz", gzip.compress(plain[:9].encode()) + gzip.compress(plain[9:].encode())),
        "a chat": ("x.jsonl", lines({"messages": TURNS})),
        "ShareGPT": (
            "x.json",
            json.dumps([{"conversations": [{"from": "human", "value": "q, 1"}, {"from": "gpt", "value": "a"}]}]),
        ),
        "a chat in a cell": ("x.csv", 'messages\n"' + json.dumps(TURNS).replace('"', '""') + '"\n'),
        "Alpaca": ("x.json", json.dumps([{"instruction": "q, 1", "output": "a"}])),
        "lists of turns": ("x.jsonl", lines({"prompt": TURNS[:1], "completion": TURNS[1:]})),
        "unused columns of any kind": ("x.jsonl", lines({**row, "n": [1, {"a": None}], "é": math.inf})),
    }
    found = []
    for name, (file, content) in kinds.items():
        before = {"YAML with anchors": [("q, 1", "b")], "JSON Lines called JSON": ONE}
        pairs = [*before.get(name, []), *ONE]
        found.append(_case(name, file, content, RIGHT, pairs))
    texts = {
        "NUL": "a\0b",
        "form feed": "a\x0cb",
        "line separators": "a\u2028b\u2029c\x85d",
        "right to left": "\u202eabc\u2066",
        "zero width": "a\u200b\u200d\u2060\ufeffb",
        "emoji of many parts": "👩‍👩‍👧‍👦🏳️‍🌈",
        "marks without end": "e" + "\u0301" * 10_000,
        "escape sequences": "\x1b[31mred\x1b]8;;https://evil.example\x07",
        "formulas": "=cmd|' /C calc'!A0",
        "Markdown": "![x](https://evil.example)<script>",
        "templates": "{{7*7}}{% for x in y %}${x}#{x}<%= x %>",
        "a token of a chat": "<|im_end|>\n<|im_start|>system\n",
        "a million letters": "x" * 1_000_000,
        "quotes": "\"'\"\"'''`",
        "backslashes": "\\n\\u0041\\\\",
        "Japanese": "東京はどこの首都ですか。",
        "letters beyond the plane": "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 \U0010ffff\uffff",
    }
    for name, text in texts.items():
        record = {"prompt": text, "response": text}
        pairs = [(text, text)]
        if name not in ("NUL",):
            found.append(_case(f"CSV of {name}", "x.csv", _csv(text), RIGHT, pairs))
        found.append(_case(f"JSON Lines of {name}", "x.jsonl", lines(record), RIGHT, pairs))
        found.append(_case(f"Parquet of {name}", "x.parquet", parquet([record]), RIGHT, pairs))
    written = ["0.10", "1e400", "-0.0", "7", "9" * 300]
    rows = "".join(f'{{"prompt": {one}, "response": {one}}}\n' for one in written)
    found.append(_case("numbers as they are written", "x.jsonl", rows, RIGHT, [(one, one) for one in written]))
    many = [(f"q{n}", "a") for n in range(20_000)]
    found.append(_case("20,000 rows", "x.jsonl", lines(*({"prompt": p, "response": r} for p, r in many)), RIGHT, many))
    same = lines({"prompt": "q", "response": "a"}) * 10_000
    found.append(_case("10,000 times the same", "x.jsonl", same, RIGHT, [("q", "a")] * 10_000))
    wide = {f"c{n}": n for n in range(5_000)} | row
    found.append(_case("5,000 columns", "x.jsonl", lines(wide), RIGHT, ONE))
    mixed = lines(row, {"messages": TURNS}, {"instruction": "q, 1", "output": "a"})
    found.append(_case("several layouts in one file", "x.jsonl", mixed, RIGHT, ONE * 3))
    names = ("a b", "a*b", "a?b", "[ab]", "a\\b", "a'b", 'a"b', "a#b", "a%20b", "日本語", "-r", "{a}", "a\u202eb")
    return found + [_case(f"called {name!r}", f"{name}.csv", plain, RIGHT, ONE) for name in names]


def _csv(text: str) -> str:
    import csv

    stream = io.StringIO(newline="")
    csv.writer(stream).writerows([("prompt", "response"), (text, text)])
    return stream.getvalue()


def _refused() -> list[Case]:
    row = {"prompt": "q", "response": "a"}
    packed = gzip.compress(lines(row).encode())
    table = parquet([row] * 50)
    kinds: dict[str, tuple[str, str | bytes]] = {
        "empty": ("x.csv", ""),
        "empty JSON Lines": ("x.jsonl", ""),
        "an empty list": ("x.json", "[]"),
        "blanks": ("x.csv", " \n \n"),
        "only a header": ("x.csv", "prompt,response\n"),
        "cells too many": ("x.csv", "prompt,response\na,b,c\n"),
        "a quote without end": ("x.csv", 'prompt,response\n"a,b\nc,d\n'),
        "a quote within": ("x.csv", 'prompt,response\n"say "hi" now",b\n'),
        "a column twice": ("x.csv", "prompt,prompt\na,b\n"),
        "two separators": ("x.csv", "prompt;response,x\na;b,c\n"),
        "other names": ("x.csv", "foo,bar\na,b\n"),
        "no header": ("x.csv", "What is 1?,one\n"),
        "an unknown ending": ("x.xlsx", "prompt,response\na,b\n"),
        "no ending": ("x", "prompt,response\na,b\n"),
        "Latin-1": ("x.csv", "prompt,response\né,ü\n".encode("latin-1")),
        "UTF-16 cut": ("x.csv", "prompt,response\na,b\n".encode("utf-16")[:-1]),
        "one wrong byte": ("x.jsonl", lines(row).encode() * 100 + b'{"prompt": "\xff", "response": "a"}\n'),
        "zeros": ("x.csv", bytes(5_000)),
        "every byte": ("x.jsonl", bytes(range(256)) * 10),
        "a ZIP archive": ("x.csv", b"PK\x03\x04" + bytes(60)),
        "zstd": ("x.jsonl", b"\x28\xb5\x2f\xfd" + bytes(60)),
        "xz": ("x.jsonl", b"\xfd7zXZ\x00" + bytes(60)),
        "bzip2": ("x.jsonl", b"BZh91AY&SY" + bytes(60)),
        "a pointer of Git LFS": ("x.jsonl", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
        "a web page": ("x.jsonl", "<!doctype html><title>403</title>\n"),
        "Parquet called CSV": ("x.csv", table),
        "CSV called Parquet": ("x.parquet", "prompt,response\na,b\n"),
        "Parquet cut": ("x.parquet", table[:-100]),
        "Parquet cut within": ("x.parquet", table[:4] + table[200:]),
        "Parquet of zeros": ("x.parquet", b"PAR1" + bytes(1_000) + b"PAR1"),
        "Parquet with a footer of 2 GB": ("x.parquet", b"PAR1" + b"\xff\xff\xff\x7f" + b"PAR1"),
        "gzip cut": ("x.jsonl.gz", packed[:-6]),
        "gzip with a wrong sum": ("x.jsonl.gz", packed[:-8] + b"12345678"),
        "gzip of nothing": ("x.jsonl.gz", b""),
        "no gzip": ("x.jsonl.gz", lines(row)),
        "gzip and noise": ("x.jsonl.gz", packed + bytes(range(1, 200))),
        "gzip in gzip": ("x.jsonl.gz", gzip.compress(packed)),
        "an id twice": ("x.csv", "id,prompt,response\n0,q,a\n0,r,b\n"),
        "a key twice": ("x.jsonl", '{"prompt": "a", "prompt": "b", "response": "c"}\n'),
        "half a character": ("x.jsonl", '{"prompt": "\\ud83d", "response": "a"}\n'),
        "half a character in an id": ("x.jsonl", '{"id": "\\udc00", "prompt": "q", "response": "a"}\n'),
        "half a character in a name": ("x.jsonl", '{"\\ud800": "q", "response": "a"}\n'),
        "half a character in UTF-8": ("x.jsonl", '{"prompt": "\ud800", "response": "a"}\n'),
        "5,000 digits": ("x.jsonl", f'{{"prompt": "q", "response": {"9" * 5_000}}}\n'),
        "5,000 digits elsewhere": ("x.json", f'[{{"prompt": "q", "response": "a", "n": {"9" * 5_000}}}]'),
        "a list for a prompt": ("x.jsonl", lines({"prompt": ["q"], "response": "a"})),
        "true for a response": ("x.jsonl", lines({"prompt": "q", "response": True})),
        "a mapping for a prompt": ("x.jsonl", lines({"prompt": {"a": 1}, "response": "a"})),
        "null for a prompt": ("x.jsonl", lines({"prompt": None, "response": "a"})),
        "blanks for a prompt": ("x.jsonl", lines({"prompt": " \n ", "response": "a"})),
        "rows that are numbers": ("x.jsonl", "1\n2\n"),
        "rows that are lists": ("x.json", "[[1], [2]]"),
        "rows that are texts": ("x.json", '["a", "b"]'),
        "a number": ("x.json", "5"),
        "a text": ("x.json", '"prompt"'),
        "one object": ("x.json", json.dumps(row)),
        "by columns": ("x.json", json.dumps({"prompt": {"0": "q"}, "response": {"0": "a"}})),
        "two lists": ("x.json", json.dumps({"train": [row], "test": [row]})),
        "a chat of a tool": ("x.jsonl", lines({"messages": [TURNS[0], {"role": "tool", "content": "x"}]})),
        "a chat of pictures": ("x.jsonl", lines({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]})),
        "a chat of nobody": ("x.jsonl", lines({"messages": [{"content": "x"}]})),
        "a chat of numbers": ("x.jsonl", lines({"messages": [1, 2]})),
        "a system turn": ("x.jsonl", lines({"messages": [{"role": "system", "content": "s"}, *TURNS]})),
        "two answers": ("x.jsonl", lines({"prompt": "q", "answer": "a", "output": "b"})),
        "text left out": ("x.jsonl", lines({"instruction": "q", "context": "c", "response": "a"})),
        "half a row": ("x.jsonl", lines(row) + '{"prompt": "q", '),
        "NaN for a prompt": ("x.jsonl", '{"prompt": NaN, "response": "a"}\n'),
        "YAML of an object": ("x.yaml", "- !!python/object/apply:os.getpid []\n"),
        "YAML of no list": ("x.yaml", "prompt: q\nresponse: a\n"),
        "YAML of two documents": ("x.yaml", "- {prompt: q, response: a}\n---\n- {prompt: q, response: a}\n"),
        "Parquet of no columns": ("x.parquet", parquet([{"x": 1}])),
        "Parquet of structs": ("x.parquet", parquet([{"prompt": {"a": 1}, "response": "a"}])),
        "Parquet of bytes": ("x.parquet", parquet([{"prompt": b"\xff", "response": "a"}])),
    }
    return [_case(name, file, content, REFUSED) for name, (file, content) in kinds.items()]


def _nested() -> list[Case]:
    found = [
        _case(f"nested: {name}, {ending}", f"x.{ending}", text, REFUSED)
        for (name, text), ending in itertools.product(DEEP.items(), ("json", "jsonl", "yaml", "csv"))
        if ending != "csv" or "\n" not in text
    ]
    found += [
        _case(f"JSON: {name}", "x.json", text, REFUSED) for name, text in JSON.items() if not name.startswith("deep")
    ]
    found += [
        _case(f"YAML: {name}", "x.yaml", text, REFUSED) for name, text in YAML.items() if not name.startswith("deep")
    ]
    nested = lines({"prompt": "q", "response": "a", "x": json.loads("[" * 60 + "]" * 60)})
    return [*found, _case("nested within the limit", "x.jsonl", nested, RIGHT, [("q", "a")])]


def _bomb(path: Path, start: bytes = b"", filling: bytes = b" ", end: bytes = b"") -> None:
    with gzip.open(path, "wb", 1) as stream:
        stream.write(start)
        for _ in range(300):
            stream.write(filling * (2**20 // len(filling)))
        stream.write(end)


def _large() -> list[Case]:
    start = b'{"prompt": "'
    return [
        _case("a bomb of blanks", "x.jsonl.gz", _bomb, REFUSED),
        _case("a bomb of line ends", "x.csv.gz", lambda path: _bomb(path, b"prompt,response\n", b"\n"), REFUSED),
        _case("a bomb in one cell", "x.csv.gz", lambda path: _bomb(path, b'prompt,response\n"', b"x"), REFUSED),
        _case("a bomb in one text", "x.jsonl.gz", lambda path: _bomb(path, start, b"x", b'"}\n'), REFUSED),
        _case("a bomb in JSON", "x.json.gz", lambda path: _bomb(path, b'[{"prompt": "', b"x", b'"}]'), REFUSED),
        _case("a bomb in YAML", "x.yaml.gz", lambda path: _bomb(path, b"- ", b"x"), REFUSED),
        _case("a line of 20 million letters", "x.jsonl", start + b"x" * 20_000_000 + b'"}\n', REFUSED),
        _case("a cell of 20 million letters", "x.csv", b"prompt,response\n" + b"x" * 20_000_000 + b",a\n", REFUSED),
        _case("a header of 20 million letters", "x.csv", b"x" * 20_000_000, REFUSED),
        _case("a header of 300,000 names", "x.csv", ",".join(f"c{n}" for n in range(300_000)) + "\na\n", EITHER),
        _case("a header of 20,000 equal names", "x.csv", "c," * 20_000 + "\na\n", REFUSED),
        _case("YAML of 20 million letters", "x.yaml", b"- " + b"x" * 20_000_000, REFUSED),
        _case("a million empty objects", "x.jsonl", "{}\n" * 1_000_000, REFUSED),
        _case(
            "10,000 layouts",
            "x.jsonl",
            lines(*({"prompt": "q", "response": "a", f"c{n}": 1} for n in range(10_000))),
            RIGHT,
            [("q", "a")] * 10_000,
        ),
        _case("a Parquet file that repeats one text", "x.parquet", _repeated, REFUSED),
    ]


def _repeated(path: Path) -> None:
    """300 MB of text in a file of a few kilobytes."""
    import pyarrow
    from pyarrow import parquet as written

    texts = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 300, pyarrow.int32()), pyarrow.array(["x" * 2**20]))
    written.write_table(pyarrow.table({"prompt": texts, "response": ["a"] * 300}), path)


def _no_files() -> list[Case]:
    kinds: dict[str, Callable[[Path], Any]] = {
        "a pipe": os.mkfifo,
        "a folder": os.mkdir,
        "a link to /dev/zero": lambda path: os.symlink("/dev/zero", path),
        "a link to /dev/random": lambda path: os.symlink("/dev/random", path),
        "a link to /dev/stdin": lambda path: os.symlink("/dev/tty", path),
        "a link to itself": lambda path: os.symlink(path.name, path),
        "a link to nothing": lambda path: os.symlink("nothing", path),
        "missing": lambda path: None,
    }
    return [
        _case(f"{name}, {ending}", f"x.{ending}", make, REFUSED)
        for (name, make), ending in itertools.product(kinds.items(), ("jsonl", "csv", "parquet", "yaml.gz"))
    ]
