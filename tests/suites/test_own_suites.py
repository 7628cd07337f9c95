"""A file of one's own becomes a suite: columns found or told, dealt by hash or by column, removed, put back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from sstmerge_core.builder import chosen_suites
from sstmerge_core.cli import main
from sstmerge_core.errors import DataError, RecipeError
from sstmerge_core.suites import declared, own, prepare
from sstmerge_core.suites.columns import Columns
from sstmerge_core.suites.rows import load_rows
from sstmerge_core.workspace import Workspace

SUMS = Columns(prompt="question", response="answer")


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("SSTMERGE_WORKSPACE", str(tmp_path / "w"))
    return Workspace(tmp_path / "w").create()


def written(folder: Path, name: str, rows: Sequence[Sequence[str]]) -> Path:
    path = folder / name
    path.write_text("\n".join(",".join(row) for row in rows) + "\n")
    return path


@pytest.fixture
def sums(tmp_path: Path) -> Path:
    return written(
        tmp_path, "Sums [1*].csv", [("question", "answer"), *((f"{i} and {i}?", str(2 * i)) for i in range(60))]
    )


def test_a_task_is_dealt_to_fisher_selection_and_test_and_needs_its_file_no_more(
    workspace: Workspace, sums: Path
) -> None:
    made = own.add(workspace, sums, own.OwnSuite("sums", "utility", metric="numeric", columns=SUMS))
    sums.unlink()
    found = prepare.prepare(declared.get("sums", workspace), workspace, fetch=False)
    assert found.n == 60 and set(found.splits) == {"fisher", "selection", "test"}
    assert made.metric == "numeric" and made.title == "Sums"
    assert chosen_suites.names("utility", workspace).index("sums") < len(chosen_suites.names("utility", workspace))
    options = chosen_suites.options(workspace, utility="sums", fetch=False)
    assert options.utility_metric == "numeric" and Path(options.utility_suite).name == "sums.jsonl"


def test_the_preview_says_what_would_be_and_declares_nothing(workspace: Workspace, sums: Path) -> None:
    seen = own.preview(workspace, sums, own.OwnSuite("sums", "utility", columns=SUMS))
    assert seen.n == 60 and "sums" not in declared.names(workspace)
    own.add(workspace, sums, own.OwnSuite("sums", "utility", columns=SUMS))
    assert prepare.prepare(declared.get("sums", workspace), workspace).sha256 == seen.sha256


def test_a_prompt_keeps_its_split_when_the_file_grows(workspace: Workspace, tmp_path: Path) -> None:
    rows = [("prompt",), *((f"never do number {i}",) for i in range(40))]
    before = own.add(workspace, written(tmp_path, "a.csv", rows), own.OwnSuite("a", "harmful"))
    after = own.add(
        workspace,
        written(tmp_path, "b.csv", [rows[0], ("one more of them",), *rows[1:]]),
        own.OwnSuite("b", "harmful"),
    )
    splits = [
        {row.prompt: row.split for row in load_rows(prepare.prepare(one, workspace).path)} for one in (before, after)
    ]
    assert all(splits[1][prompt] == split for prompt, split in splits[0].items())
    assert set(splits[0].values()) == {"selection", "test"}


def test_topics_stay_together_and_a_split_column_is_kept(workspace: Workspace, tmp_path: Path) -> None:
    topics = written(
        tmp_path,
        "t.csv",
        [("prompt", "topic"), *((f"do {topic} {i}", f"t{topic}") for topic in range(9) for i in range(5))],
    )
    made = own.add(workspace, topics, own.OwnSuite("t", "benign"))
    rows = load_rows(prepare.prepare(made, workspace).path)
    assert all(len({row.split for row in rows if row.topic == topic}) == 1 for topic in {row.topic for row in rows})
    given = written(tmp_path, "s.csv", [("prompt", "split"), ("x", "test"), ("y", "selection"), ("z", "test")])
    made = own.add(workspace, given, own.OwnSuite("s", "benign"))
    assert prepare.prepare(made, workspace).splits == {"test": 2, "selection": 1}
    everything = own.add(workspace, given, own.OwnSuite("all", "benign", shares={"test": 1.0}))
    assert prepare.prepare(everything, workspace).splits == {"test": 3}


def test_removed_it_is_in_the_trash_and_comes_back_whole(workspace: Workspace, sums: Path) -> None:
    own.add(workspace, sums, own.OwnSuite("sums", "utility", columns=SUMS))
    before = prepare.prepare(declared.get("sums", workspace), workspace).sha256
    place = own.remove(workspace, "sums")
    assert "sums" not in declared.names(workspace) and not own.is_own(workspace, "sums")
    assert own.restore(workspace, place).name == "sums"
    assert prepare.prepare(declared.get("sums", workspace), workspace).sha256 == before
    with pytest.raises(DataError, match="another suite has it"):
        own.restore(workspace, place)


def test_what_was_left_by_a_kill_before_the_declaration_is_no_suite_and_is_replaced(
    workspace: Workspace, sums: Path
) -> None:
    (declared.folder(workspace)).mkdir(parents=True, exist_ok=True)
    (declared.folder(workspace) / "sums.jsonl").write_text('{"half')
    assert "sums" not in declared.names(workspace)
    own.add(workspace, sums, own.OwnSuite("sums", "utility", columns=SUMS))
    assert prepare.prepare(declared.get("sums", workspace), workspace).n == 60


@pytest.mark.parametrize(
    ("told", "fault"),
    [
        (own.OwnSuite("Sums!", "utility", columns=SUMS), "is no suite's name"),
        (own.OwnSuite("", "utility", columns=SUMS), "is no suite's name"),
        (own.OwnSuite("../up", "utility", columns=SUMS), "is no suite's name"),
        (own.OwnSuite("advbench", "utility", columns=SUMS), "another suite has it"),
        (own.OwnSuite("sums", "poison", columns=SUMS), "is no role of prompts"),
        (own.OwnSuite("sums", "academic", columns=SUMS), "is no role of prompts"),
        (own.OwnSuite("sums", "harmful", metric="numeric", columns=SUMS), "does not measure harmful prompts"),
        (own.OwnSuite("sums", "utility", columns=Columns(prompt="question", response=None)), "no reference answers"),
        (own.OwnSuite("sums", "utility", columns=SUMS, shares={"test": 0.5}), "sum to 1"),
        (own.OwnSuite("sums", "utility", columns=SUMS, shares={"exam": 1.0}), "unknown split"),
    ],
)
def test_what_cannot_be_a_suite_is_refused_and_leaves_nothing(
    workspace: Workspace, sums: Path, told: own.OwnSuite, fault: str
) -> None:
    known = declared.names(workspace)
    with pytest.raises(DataError, match=fault):
        own.add(workspace, sums, told)
    assert declared.names(workspace) == known
    assert not list(declared.folder(workspace).glob("*")) if declared.folder(workspace).exists() else True


def test_columns_that_are_not_sure_are_asked_for_once(workspace: Workspace, sums: Path) -> None:
    with pytest.raises(DataError) as refused:
        own.add(workspace, sums, own.OwnSuite("sums", "utility"))
    assert len(refused.value.problems) == 1 and "question" in str(refused.value)


def test_shipped_suites_and_those_written_by_hand_are_not_removed(workspace: Workspace) -> None:
    for name in ("harmful", "advbench", "no_such"):
        with pytest.raises(DataError, match="was not made of a file here"):
            own.remove(workspace, name)


def test_the_command_line_adds_lists_and_removes(
    workspace: Workspace, sums: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [
        "suites",
        "my_sums",
        "--add",
        str(sums),
        "--role",
        "utility",
        "--columns",
        "prompt=question,response=answer",
    ]
    assert main([*given, "--metric", "numeric", "--shares", "fisher=0.5,test=0.5", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["name"] == "my_sums" and told["metric"] == "numeric"
    assert main([*given, "--shares", "test=a"]) != 0
    assert "--shares test=a" in capsys.readouterr().err
    assert main(["suites", "my_sums", "--remove"]) == 0
    assert "my_sums" not in declared.names(workspace)
    assert main(["suites", "--add", str(sums)]) != 0
    assert "--role" in capsys.readouterr().err
    with pytest.raises(RecipeError):
        chosen_suites.suite("advbench", "utility", workspace, fetch=False)


@pytest.mark.parametrize(
    ("file", "name"),
    [("My prompts.csv", "my_prompts"), ("/a/b/C-3.v2.jsonl.gz", "c_3"), ("日本.csv", "prompts"), ("", "prompts")],
)
def test_a_suite_is_called_after_its_file(file: str, name: str) -> None:
    assert own.usable_name(file) == name
