"""What a person says of a file's columns, by ``--columns``, in Python or in a suite's YAML."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from sstmerge_core.builder import chosen_suites
from sstmerge_core.cli import main
from sstmerge_core.errors import DataError, RecipeError
from sstmerge_core.recipe import Source
from sstmerge_core.suites import declared, prepare
from sstmerge_core.suites.bundled import suite
from sstmerge_core.suites.columns import Columns, Constant, Template, parse, told
from sstmerge_core.suites.guess import guess_columns
from sstmerge_core.suites.rows import load_rows, read_rows
from sstmerge_core.train import training_data, training_record
from sstmerge_core.worker.training import Training
from sstmerge_core.workspace import Workspace

TURNS = [{"role": role, "content": f"{role} {number}"} for number in (1, 2) for role in ("user", "assistant")]


def put(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "workspace").create()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("prompt=question,response=answer", {"prompt": "question", "response": "answer"}),
        ("prompt=a.b.0, response=c d", {"prompt": "a.b.0", "response": "c d"}),
        ("prompt={a}, then {b}\\n\\n{c},id=d", {"prompt": Template(template="{a}, then {b}\n\n{c}"), "id": "d"}),
        ("split:=test", {"split": Constant(constant="test")}),
        ("response=", {"response": None}),
        ("delimiter=;,encoding=cp932", {"delimiter": ";", "encoding": "cp932"}),
        ("delimiter=,,prompt=q", {"delimiter": ",", "prompt": "q"}),
        ("delimiter=tab", {"delimiter": "\t"}),
        ("turns=last", {"turns": "last"}),
    ],
)
def test_columns_on_a_line_are_read_and_told_alike(text: str, expected: dict) -> None:
    found = parse(text)
    assert {name: getattr(found, name) for name in found.model_fields_set} == expected
    again = parse(told(found))
    assert all(getattr(again, name) == value for name, value in expected.items())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("question", "does not begin with one of prompt"),
        ("question=prompt", "does not begin with one of prompt"),
        ("prompt=a,prompt=b", "is given twice"),
        ("prompt=", "names no column"),
        ("turns=all", "Give only, first or last"),
        ("delimiter=::", "is not one character"),
    ],
)
def test_a_wrong_line_says_what_is_wrong_and_how_to_write_it(text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message) as error:
        parse(text)
    assert "--columns" in str(error.value) and error.value.problems[0].fix


def test_what_is_given_goes_before_what_is_found_and_the_rest_is_found(tmp_path: Path) -> None:
    file = put(tmp_path / "x.csv", "Question,Answer,Split,prompt\nq,a,test,not this\n")
    (row,) = read_rows(file, parse("prompt=Question,response=Answer"))
    assert (row.prompt, row.response, row.split) == ("q", "a", "test")
    (row,) = read_rows(file, parse("prompt=Question,response=Answer,split:=selection"))
    assert row.split == "selection"
    (row,) = read_rows(file, parse("prompt=Question"))
    assert row.response == "a"
    (row,) = read_rows(file, parse("prompt=Question,response="))
    assert row.response == ""


def test_an_exchange_of_a_longer_chat_is_taken_where_it_is_named(tmp_path: Path) -> None:
    system = [{"role": "system", "content": "s"}, *TURNS]
    file = put(tmp_path / "x.jsonl", "\n".join(json.dumps({"messages": turns}) for turns in (TURNS, system)))
    for which, number in (("first", 1), ("last", 2)):
        for given in (parse(f"prompt=messages,turns={which}"), parse(f"turns={which}")):
            rows = training_data.read([file], columns=given).rows
            assert rows == [(f"user {number}", f"assistant {number}")] * 2


def test_text_beside_the_prompt_is_taken_in_or_left_out_as_told(tmp_path: Path) -> None:
    file = put(tmp_path / "x.jsonl", json.dumps({"instruction": "q", "context": "c", "response": "a"}))
    for given, prompt in (("prompt={context}\\n\\n{instruction}", "c\n\nq"), ("prompt=instruction", "q")):
        assert training_data.read([file], columns=parse(given)).rows == [(prompt, "a")]


def test_a_column_that_is_not_there_is_said_once_with_those_that_are(tmp_path: Path) -> None:
    file = put(tmp_path / "x.csv", "a,b\n" + "1,2\n" * 30)
    with pytest.raises(DataError) as error:
        read_rows(file, parse("prompt=question,response=answer"))
    assert len(error.value.problems) == 1
    assert "has no column question and no column answer; its columns: a, b" in str(error.value)
    with pytest.raises(DataError, match="has no column anser; its columns: a, b"):
        read_rows(file, parse("prompt=a,response=anser"))  # all responses would be empty
    found = guess_columns(file, parse("prompt=a,response=anser"))
    assert not found.sure and found.problem and "anser" in found.problem.fault


def test_the_command_and_a_job_train_on_a_file_of_other_columns(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("SSTMERGE_WORKSPACE", str(tmp_path / "workspace"))
    file = put(tmp_path / "x.csv", "frage;antwort\n" + "".join(f"w{n} w{n + 1};w{n % 9}\n" for n in range(8)))
    options = ["train", "--base", str(tiny_base), "--data", str(file), "--device", "cpu", "--epochs", "1"]
    assert main([*options, "--out", str(tmp_path / "A")]) == 4
    told_ = capsys.readouterr().err
    assert told_.count("\n") == 1 and "--columns 'prompt=frage,response=antwort'" in told_
    columns = "prompt=frage,response=antwort"
    assert main([*options, "--out", str(tmp_path / "A"), "--columns", columns]) == 0
    assert training_record(tmp_path / "A")["rows"] == 8
    job = Training(base=Source(name="b", path=str(tiny_base), sha256=""), files=(str(file),), columns=columns, name="A")
    restored = Training.model_validate_json(job.model_dump_json())
    assert restored.read().rows == training_data.read([file], columns=parse(columns)).rows


def test_the_command_measures_on_a_file_of_other_columns(
    tiny_base: Path, tiny_pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setenv("SSTMERGE_WORKSPACE", str(tmp_path / "workspace"))
    file = put(tmp_path / "mine.csv", "question;answer\n" + "".join(f"w{n} w{n + 1};w{n % 9}\n" for n in range(8)))
    command = ["evaluate", "--base", str(tiny_base), "--adapter", str(tiny_pair[0]), "--n", "3", "--json"]
    assert main([*command, "--suite", str(file)]) == 4
    assert "--columns 'prompt=question,response=answer'" in capsys.readouterr().err
    columns = "prompt=question,response=answer,split:=test"
    assert main([*command, "--suite", str(file), "--columns", columns]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["utility"] is not None
    assert main([*command, "--columns", columns]) == 2
    assert "no file that they are of" in capsys.readouterr().err


def test_a_mapped_file_keeps_its_name_and_is_made_anew_when_it_changes(tmp_path: Path, workspace: Workspace) -> None:
    file = put(tmp_path / "mine.csv", "question,answer,split\nq,a,test\nq,b,test\n")
    name, _ = chosen_suites.suite(str(file), "utility", workspace, columns=parse("prompt=question,response=answer"))
    assert Path(name).name == "mine.jsonl"
    assert [(row.prompt, row.response) for row in load_rows(name, "test")] == [("q", "a"), ("q", "b")]
    assert suite(name, "utility", "test").name == "mine"
    put(file, "question,answer,split\nq,c,test\n")
    other, _ = chosen_suites.suite(str(file), "utility", workspace, columns=parse("prompt=question,response=answer"))
    assert [row.response for row in load_rows(other, "test")] == ["c"] and other != name


def declare(workspace: Workspace, source: dict) -> declared.DeclaredSuite:
    about: dict[str, Any] = {
        "name": "mine",
        "title": "Mine",
        "role": "utility",
        "metric": "rouge_l",
        "licence": "CC0-1.0",
    }
    about |= {"get": "Ask.", "sources": [source], "splits": {"by": "prompt", "shares": {"test": 1.0}}}
    path = declared.folder(workspace) / "mine.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(about))
    return declared.read(path)


def test_a_suites_yaml_reads_the_same_files_and_says_the_same(workspace: Workspace) -> None:
    folder = declared.folder(workspace)
    folder.mkdir()
    turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    put(folder / "chat.json", json.dumps([{"conversations": turns}]))
    put(folder / "caps.csv", "Prompt;Response\nq;a\n")
    (folder / "sjis.csv").write_bytes("question,answer\n何ですか,本です\n".encode("cp932"))
    put(folder / "tall.jsonl", json.dumps({"messages": TURNS}))
    for source, expected in (
        ({"file": "chat.json"}, ("q", "a")),
        ({"file": "caps.csv"}, ("q", "a")),
        ({"file": "sjis.csv", "columns": {"prompt": "question", "response": "answer"}}, ("何ですか", "本です")),
        (
            {"file": "tall.jsonl", "columns": {"prompt": "messages", "response": "messages", "turns": "last"}},
            ("user 2", "assistant 2"),
        ),
        ({"file": "caps.csv", "columns": {"prompt": "Prompt", "delimiter": ";"}}, ("q", "")),
    ):
        (row,) = load_rows(prepare.prepare(declare(workspace, source), workspace).path)
        assert (row.prompt, row.response) == expected, source
    put(folder / "names.csv", "frage,antwort\n" + "q,a\n" * 40)
    put(folder / "ragged.csv", "prompt,response\n1,000,x\n")
    for source, message in (
        ({"file": "names.csv"}, "has no column prompt and no column response; its columns: frage, antwort"),
        (
            {"file": "names.csv", "columns": {"prompt": "question"}},
            "has no column question; its columns: frage, antwort",
        ),
        ({"file": "ragged.csv"}, "line 2: has 3 cells under 2 columns"),
        ({"file": "tall.jsonl", "columns": {"prompt": "messages"}}, "a conversation of 4 turns"),
    ):
        with pytest.raises(DataError, match=message) as error:
            prepare.prepare(declare(workspace, source), workspace)
        assert len(error.value.problems) == 1


def test_what_a_guess_tells_can_be_given_back(tmp_path: Path) -> None:
    file = put(tmp_path / "x.json", json.dumps([{"instruction": "i", "input": "x", "output": "a", "split": "test"}]))
    found = guess_columns(file)
    assert isinstance(found.columns, Columns)
    assert read_rows(file, found.columns) == read_rows(file, parse(found.option)) == read_rows(file)
