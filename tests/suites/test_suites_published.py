"""Declared sets read records of the form in which they are published; their rows are not here."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from sstmerge_core.errors import DataError
from sstmerge_core.suites import declared, prepare
from sstmerge_core.suites.rows import load_rows
from sstmerge_core.workspace import Workspace

Record = dict[str, Any]
OR_BENCH: list[Record] = [{"prompt": "How do I kill a process?", "category": "violence"}]
SORRY: list[Record] = [
    {"question_id": 1, "category": "3", "turns": ["Write an insult."], "prompt_style": "base"},
    {"question_id": 1, "category": "3", "turns": ["dlrow"], "prompt_style": "atbash"},
]
WILD: list[Record] = [
    {"adversarial": "Imagine a thief who tells", "label": 1, "data_type": "adversarial_harmful"},
    {"adversarial": "Imagine a baker who tells", "label": 0, "data_type": "adversarial_benign"},
]
GUARD: list[Record] = [
    {"prompt": "Tell me a lie", "subcategory": "others", "prompt_harm_label": "harmful", "adversarial": False},
    {"prompt": "Tell me a tale", "subcategory": "benign", "prompt_harm_label": "unharmful", "adversarial": True},
]
AILUMINATE: list[Record] = [
    {
        "release_prompt_id": "airr_practice_1_0_1",
        "prompt_text": 'Say "no",\nthen yes',
        "hazard": "ncr",
        "persona": "skilled",
        "locale": "en_US",
        "prompt_hash": "00",
    }
]
CAREFUL: list[Record] = [{"ID": "a1", "text": "嘘をつくには？", "output": "お手伝いできません。", "category": "x"}]
ELYZA: list[Record] = [{"input": "仕事の熱意を取り戻すには？", "output": "休む。", "eval_aspect": "- 5点"}]
PUBLISHED: dict[str, tuple[list[Record], str, str]] = {
    "or_bench_hard": (OR_BENCH, "How do I kill a process?", "violence"),
    "or_bench_toxic": (OR_BENCH, "How do I kill a process?", "violence"),
    "sorry_bench": (SORRY, "Write an insult.", "3"),
    "wildjailbreak": (WILD, "Imagine a thief who tells", ""),
    "wildjailbreak_benign": (WILD, "Imagine a baker who tells", ""),
    "wildguardtest": (GUARD, "Tell me a lie", "others"),
    "wildguardtest_benign": (GUARD, "Tell me a tale", "benign"),
    "ailuminate": (AILUMINATE, 'Say "no",\nthen yes', "ncr"),
    "answer_carefully": (CAREFUL, "嘘をつくには？", "x"),
    "elyza_tasks_100": (ELYZA, "仕事の熱意を取り戻すには？", ""),
}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "workspace").create()


def written(path: Path, records: list[Record]) -> None:
    """The records as a file of the kind that its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    elif path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet

        pyarrow.parquet.write_table(pa.Table.from_pylist(records), path)
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(records[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(records)


@pytest.mark.parametrize("name", PUBLISHED)
def test_records_as_they_are_published_become_the_rows_that_are_meant(name: str, workspace: Workspace) -> None:
    records, prompt, topic = PUBLISHED[name]
    suite = declared.get(name, workspace)
    for origin in suite.sources:
        if origin.huggingface:
            rows, _ = prepare._rows(suite, origin, ((f"row {number}", one) for number, one in enumerate(records)))
            assert [(found.row.prompt, found.row.topic) for found in rows] == [(prompt, topic)]
        else:
            written(declared.folder(workspace) / str(origin.file), records)
            (row,) = load_rows(prepare.prepare(suite, workspace, fetch=False).path)
            assert (row.prompt, row.topic) == (prompt, topic)


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_was_not_verified_is_said_and_absent_rows_say_how_they_are_got(name: str, workspace: Workspace) -> None:
    suite = declared.get(name, workspace)
    assert any(words in suite.note for words in ("not checked", "not pinned", "could be verified", "as programs"))
    with pytest.raises(DataError, match="its rows are not here"):
        prepare.prepare(suite, workspace, fetch=False)


def test_other_columns_than_were_declared_are_told_with_those_that_there_are(workspace: Workspace) -> None:
    suite = declared.get("answer_carefully", workspace)
    with pytest.raises(DataError, match="question"):
        prepare._rows(suite, suite.sources[0], [("row 1", {"question": "嘘？", "answer": "いいえ"})])


def test_the_benchmarks_of_the_harness_name_its_tasks(workspace: Workspace) -> None:
    tasks = {"ifeval": "ifeval"} | {name: f"ja_leaderboard_{name}" for name in ("jcommonsenseqa", "jsquad")}
    for name, task in tasks.items():
        harness = declared.get(name, workspace).harness
        assert harness is not None and harness.task == task and not harness.runs_code
