"""A folder may be called anything: of base, adapters, prompts, workspace and result, with all that others expand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from sstmerge_core import adapters, catalog
from sstmerge_core.cli import main
from sstmerge_core.models.resident import ResidentModel
from sstmerge_core.store import Owner, run_sql
from sstmerge_core.suites import own
from sstmerge_core.suites.bundled import source
from sstmerge_core.workspace import Workspace

NAME = "a?b\\c*[d]{e} 'f\"#%20$g;~日本é"


def test_everything_works_in_a_folder_whose_name_others_would_expand(
    tmp_path: Path, tiny_base: Path, tiny_pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / NAME
    monkeypatch.setenv("SSTMERGE_WORKSPACE", str(here / "workspace"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    base, utility, safety = (shutil.copytree(one, here / one.name) for one in (tiny_base, *tiny_pair))
    for name, folder in (("u", utility), ("s", safety)):
        assert main(["adapters", "add", str(folder), "--name", name]) == 0
    assert main(["adapters", "add-base", str(base)]) == 0
    inputs = ["--base", str(base), "--utility", "u", "--safety", str(safety), "--method", "linear"]
    assert main(["merge", *inputs, "--out", str(here / "out")]) == 0
    assert main(["merge", str(here / "out" / "recipe.yaml"), "--out", str(here / "again"), "--base", str(base)]) == 0
    assert adapters.read(here / "out").sha256 == adapters.read(here / "again").sha256
    assert main(["merge", *inputs, "--dense", "--out", str(here / "dense")]) == 0
    assert ResidentModel.load(here / "dense", "float32", "cpu").tokenizer is not None
    workspace = Workspace(here / "workspace")
    assert {one.path for one in catalog.entries(workspace) if not one.bundled} == {utility, safety}
    rows = here / f"{NAME}.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"q{n}", "response": "a"}) + "\n" for n in range(20)))
    assert own.add(workspace, rows, own.OwnSuite("mine", "harmful", shares={"test": 1.0})).path.is_file()
    rows.write_text("".join(json.dumps({"prompt": f"q{n}", "response": "a", "split": "test"}) + "\n" for n in range(4)))
    assert source(str(rows), "test")[1] == 4
    with Owner.open(workspace) as owner:
        owner.ingest()
        owner.publish()
    assert run_sql(workspace, "SELECT count(*) FROM adapters").rows == [(2,)]
