from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from sstmerge_core import adapters
from sstmerge_core.cli import main


@pytest.fixture(autouse=True)
def own_workspace(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SSTMERGE_WORKSPACE", str(tmp_path / "workspace"))
    return tmp_path / "workspace"


@pytest.fixture
def merge(tiny_base, tiny_pair, tmp_path):
    def call(*more: str, **changes: object) -> int:
        given = {"base": tiny_base, "utility": tiny_pair[0], "safety": tiny_pair[1], "method": "linear", "alpha": 0.5}
        given |= {"out": tmp_path / "out"} | changes
        return main(["merge", *(str(part) for name, value in given.items() for part in (f"--{name}", value)), *more])

    return call


def edit(folder: Path, **changes: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("method", ["linear", "ties", "sst_gevp"])
def test_merge_writes_an_adapter_from_local_folders(merge, tmp_path, capsys, method):
    assert merge("--set", "alpha=0.3", method=method) == 0
    assert adapters.read(tmp_path / "out").rank >= 4
    assert "read back and equal" in capsys.readouterr().out


def test_k_seed_and_set_reach_the_method(merge, tmp_path):
    assert merge("--k", "3", "--set", "mode=interpolate", "layerwise=true", method="sst_gevp") == 0
    parameters = json.loads((tmp_path / "out" / "sstmerge.json").read_text())["recipe"]["parameters"]
    assert parameters["k"] == 3 and parameters["mode"] == "interpolate" and parameters["layerwise"] is True
    assert merge("--seed", "7", method="dare_linear", out=tmp_path / "other") == 0
    assert json.loads((tmp_path / "other" / "sstmerge.json").read_text())["recipe"]["parameters"]["seed"] == 7


def of_a_deeper_base(folder: Path) -> None:
    """As if it had been trained on a model of more layers."""
    path = folder / "adapter_model.safetensors"
    save_file({key.replace("layers.1.", "layers.9."): tensor for key, tensor in load_file(path).items()}, path)
    edit(folder, base_model_name_or_path="x/other")


BAD: dict[str, tuple[Callable[[Path], object], int, str]] = {
    "a truncated file": (lambda f: (f / "adapter_model.safetensors").write_bytes(b"\x10" * 40), 3, "truncated"),
    "another base": (of_a_deeper_base, 3, "trained on, x/other"),
    "rank 0": (lambda f: edit(f, r=0), 3, "rank must be at least 1"),
    "DoRA": (lambda f: edit(f, use_dora=True), 3, "DoRA"),
    "a missing folder": (shutil.rmtree, 3, "no such folder"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_adapter_gives_one_clear_message_and_leaves_nothing(merge, tiny_pair, tmp_path, capsys, case):
    spoil, code, message = BAD[case]
    copy = tmp_path / "bad"
    shutil.copytree(tiny_pair[1], copy)
    spoil(copy)
    assert merge(safety=copy) == code
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error and len(error.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".out")]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alpha": "abc"}, "'abc' must be a number"),
        ({"alpha": "nan"}, "must be a finite number"),
        ({"alpha": "1.5"}, "between 0 and 1"),
        ({"method": "linaer"}, "Did you mean linear?"),
    ],
)
def test_a_bad_parameter_exits_with_2_and_says_what_is_allowed(merge, tmp_path, capsys, changes, message):
    assert merge(**changes) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_missing_base_exits_with_4(merge, tmp_path, capsys):
    assert merge(base=tmp_path / "none") == 4
    assert "no such base model folder" in capsys.readouterr().err


def test_an_out_folder_with_other_things_in_it_is_not_touched(merge, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    assert merge() == 3
    assert "not written by this tool" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["notes.txt"]


def test_adapters_are_added_listed_checked_and_removed(tiny_base, tiny_pair, capsys):
    assert main(["adapters", "add", str(tiny_pair[0]), "--name", "mine", "--role", "utility"]) == 0
    assert main(["adapters", "list"]) == 0
    assert "mine" in capsys.readouterr().out
    assert (
        main(["adapters", "check", "--base", str(tiny_base), "--utility", "mine", "--safety", str(tiny_pair[1])]) == 0
    )
    assert "fit together" in capsys.readouterr().out
    assert main(["adapters", "remove", "mine"]) == 0
    assert main(["adapters", "remove", "mine"]) == 3


def test_query_reads_the_database_and_refuses_to_write(capsys):
    assert main(["query", "SELECT count(*) AS n FROM runs WHERE source = 'reported'", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["n"] > 100
    assert main(["query", "DROP TABLE runs"]) == 5
    assert main(["query", "SELECT * FROM nothing_here"]) == 5
    assert "nothing_here" in capsys.readouterr().err


def test_evaluate_prints_one_json_object_per_run_and_answers_again_without_a_model(tiny_base, tiny_pair, capsys):
    command = ["evaluate", "--base", str(tiny_base), "--adapter", str(tiny_pair[0]), "--n", "3", "--json"]
    assert main(command) == 0
    first = json.loads(capsys.readouterr().out)
    assert first["resistance_n"] == 3 and first["asr"] is None and first["asr_status"] == "judge_cannot_tell"
    code = (
        "import sys; from sstmerge_core.cli import main; code = main(sys.argv[1:]);"
        "sys.exit(code or ('torch' in sys.modules and 99))"
    )
    again = subprocess.run(
        [sys.executable, "-c", code, *command], capture_output=True, text=True, env=os.environ | {}, check=False
    )
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout) == first


def test_train_makes_an_adapter_that_can_be_merged(tiny_base, tiny_pair, tmp_path, merge):
    data = tmp_path / "rows.jsonl"
    data.write_text(
        "".join(json.dumps({"prompt": f"w{i}", "response": f"w{i + 1} w{i + 2}"}) + "\n" for i in range(12))
    )
    command = [
        "train",
        "--base",
        str(tiny_base),
        "--data",
        str(data),
        "--epochs",
        "2",
        "--batch-size",
        "4",
        "--rank",
        "2",
    ]
    assert main([*command, "--out", str(tmp_path / "T")]) == 0
    assert main([*command, "--out", str(tmp_path / "T2")]) == 0
    assert adapters.read(tmp_path / "T").sha256 == adapters.read(tmp_path / "T2").sha256
    record = json.loads((tmp_path / "T" / "sstmerge.json").read_text())["training"]
    assert record["steps"] == 6 and record["loss"][-1] < record["loss"][0]
    assert merge(utility=tmp_path / "T") == 0


def test_train_without_data_says_what_is_missing(tiny_base, tmp_path, capsys):
    assert main(["train", "--base", str(tiny_base), "--out", str(tmp_path / "T")]) == 2
    assert "--data" in capsys.readouterr().err
    assert main(["train", "--base", str(tiny_base), "--data", str(tmp_path / "no.jsonl"), "--out", "T"]) == 4
