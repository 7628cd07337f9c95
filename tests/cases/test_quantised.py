"""Quantised bases: what has no gradients of them is refused before a launch everywhere, and bits are measured again."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import pytest

from sstmerge_core import catalog
from sstmerge_core.builder import preflight
from sstmerge_core.cli import main
from sstmerge_core.errors import DataError, RecipeError
from sstmerge_core.train import TrainingSettings, train
from sstmerge_core.workspace import Workspace
from tests.tiny_models import build_base, make_adapter

with_tool = pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")


@pytest.mark.parametrize("four", [True, False])
@pytest.mark.parametrize("method", ["sst_gevp", "safe_lora"])
def test_a_method_that_looks_at_the_base_is_refused_on_a_quantised_one_before_anything_runs(
    method, four, tiny_base, tiny_pair, tmp_path, monkeypatch, capsys
) -> None:
    real = importlib.util.find_spec
    tools = ("bitsandbytes", "accelerate")
    monkeypatch.setattr(
        "sstmerge_core.models.bits.importlib.util.find_spec",
        lambda name, *rest: object() if name in tools else real(name, *rest),
    )
    base = shutil.copytree(tiny_base, tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    told = {"quant_method": "bitsandbytes", "load_in_4bit": four, "load_in_8bit": not four}
    (base / "config.json").write_text(json.dumps(config | {"quantization_config": told}))
    monkeypatch.setenv("SSTMERGE_WORKSPACE", str(tmp_path / "ws"))
    workspace = Workspace(tmp_path / "ws").create()
    on = catalog.base_at(base, workspace)
    utility = catalog.entry(tiny_pair[0], workspace, name="U", role="utility", suite="facts")
    safety = catalog.entry(tiny_pair[1], workspace, name="S", role="safety")
    with pytest.raises(RecipeError) as caught:  # in Python
        preflight.merge_recipe(on, (utility,), safety, method, {}, preflight.Options(n=2))
    (problem,) = caught.value.problems
    assert "is quantised (bitsandbytes), so that" in problem.fault and "float checkpoint" in problem.fix
    planned = preflight.plan(  # what the pages ask
        workspace, base=on, utility=utility, safety=safety, method=method, parameters={}, evaluate=False
    )
    assert planned.recipe is None and [one.fault for one in planned.problems] == [problem.fault]
    trio = ["--base", str(base), "--utility", str(tiny_pair[0]), "--safety", str(tiny_pair[1])]
    assert main(["merge", *trio, "--method", method, "--suite", "facts", "--out", str(tmp_path / "out")]) == 4
    assert problem.fault in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize("tool", ["bitsandbytes", "gptq"])
def test_training_on_a_quantised_base_is_refused_in_one_line(tool, tiny_base, tmp_path) -> None:
    base = shutil.copytree(tiny_base, tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": tool}}))
    with pytest.raises((DataError, RecipeError)) as caught:
        train(base, [("w1", "w2")], tmp_path / "out", TrainingSettings(epochs=1), device="cpu")
    (problem,) = caught.value.problems
    assert tool in problem.fault and problem.fix and "\n" not in str(problem)
    assert not (tmp_path / "out").exists()


@with_tool
def test_a_finished_run_is_measured_again_in_both_and_told_beside_the_floats(tmp_path: Path, monkeypatch, capsys):
    from sstmerge_core.runs.execute import execute
    from sstmerge_core.store import Owner

    base = build_base("llama", tmp_path / "wide", hidden_size=64, intermediate_size=128, head_dim=32)
    workspace = Workspace(tmp_path / "w").create()
    monkeypatch.setenv("SSTMERGE_WORKSPACE", str(workspace.root))
    catalog.add_base(workspace, base)
    utility = catalog.add(workspace, make_adapter(base, tmp_path / "U", 1), name="U", role="utility", suite="facts")
    safety = catalog.add(workspace, make_adapter(base, tmp_path / "S", 2), name="S", role="safety")
    options = preflight.Options(n=2, utility_tokens=4)
    one = preflight.merge_recipe(catalog.base_at(base, workspace), (utility,), safety, "ties", {}, options)
    execute([one], workspace, device="cpu")
    with Owner.open(workspace) as owner:
        owner.ingest()
    capsys.readouterr()
    assert main(["precision", one.run_id, "--json", "--device", "cpu"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert {row["precision"] for row in rows} == {"float32", "8 bits", "4 bits"}
    assert {row["figure"] for row in rows} == {"resistance", "over_refusal", "utility"}
    assert all(row["n"] == 2 for row in rows if row["value"] is not None) and len(rows) == 9


def test_the_plan_of_a_training_says_so_before_its_launch(tiny_base, tmp_path) -> None:
    from sstmerge_core.recipe import Source
    from sstmerge_core.train import training_data
    from sstmerge_core.worker import training

    base = shutil.copytree(tiny_base, tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "awq"}}))
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "w1", "response": "w2"}\n')
    told = training.Training(base=Source(name="b", path=str(base), sha256="1"), files=(str(rows),), name="new")
    planned = training.plan(Workspace(tmp_path / "ws").create(), told, training_data.read([rows]))
    assert any("is quantised (awq)" in problem.fault for problem in planned.problems)
