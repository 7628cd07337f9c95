"""Judges and data sets of the hub whose revision nobody pinned: noted before a launch, and known by what was taken."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sstmerge_core import catalog
from sstmerge_core.builder import preflight, unpinned
from sstmerge_core.cli import main
from sstmerge_core.evaluate.judges import usual_model
from sstmerge_core.evaluate.judges_models import find
from sstmerge_core.recipe import Evaluation, Recipe, Source, Suite
from sstmerge_core.workspace import Workspace

COMMIT = "9213176726f574b556790deb65791e0c5aa438b6"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    refs = tmp_path / "hub" / "models--meta-llama--Llama-Guard-3-8B" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text(COMMIT)
    return tmp_path / "hub"


def recipe(judge: str, *suites: str) -> Recipe:
    at = Source(name="x", path="x", sha256="1")
    chosen = tuple(Suite(name=name, role="harmful", split="test", n=2, source=at) for name in suites)
    return Recipe(base=at, adapters=(), method="base", parameters={}, evaluation=Evaluation(suites=chosen, judge=judge))


def test_a_guard_of_the_hub_without_a_revision_is_noted_with_the_commit_that_is_here(cache, tmp_path) -> None:
    workspace = Workspace(tmp_path / "ws").create()
    (note,) = unpinned.notes(recipe("llama_guard_3"), workspace)
    assert "meta-llama/Llama-Guard-3-8B is pinned; 921317672" in note.fault
    assert f"llama_guard_3:meta-llama/Llama-Guard-3-8B@{COMMIT}" in note.fix
    (absent,) = unpinned.notes(recipe("wildguard"), workspace)
    assert "allenai/wildguard@REVISION" in absent.fix and "is here" not in absent.fault
    pinned = (f"llama_guard_3:org/other@{COMMIT}", f"qwen3guard:{tmp_path}", "refusal_regex_v2", "endpoint:gpt")
    assert not [note for judge in pinned for note in unpinned.notes(recipe(judge), workspace)]
    assert usual_model("hf_classifier:org/name,LABEL_0=harmful") == "org/name"


def test_a_data_set_without_a_revision_is_noted_and_one_that_is_known_by_its_rows_is_not(tmp_path) -> None:
    workspace = Workspace(tmp_path / "ws").create()
    notes = unpinned.notes(recipe("refusal_regex_v2", "harmful", "strongreject", "or_bench_hard", "gone"), workspace)
    assert [note.where for note in notes] == ["suite or_bench_hard"]
    assert "revision" in notes[0].fix and "hash of the rows" in notes[0].fix


def test_a_snapshot_given_as_a_folder_is_known_by_repository_and_commit(tiny_base, tmp_path) -> None:
    folder = tmp_path / "models--org--guard" / "snapshots" / COMMIT
    shutil.copytree(tiny_base, folder)
    for given in (folder, folder.parent, folder.parent.parent):
        assert find(str(given), "qwen3guard").judge_id("qwen3guard") == f"qwen3guard:org/guard@{COMMIT[:12]}"
    assert find(str(tiny_base), "qwen3guard").name == "tiny-llama"


def test_the_check_before_a_merge_says_so(cache, tiny_base, tiny_pair, tmp_path) -> None:
    workspace = Workspace(tmp_path / "ws").create()
    planned = preflight.plan(
        workspace,
        base=catalog.base_at(tiny_base, workspace),
        utility=catalog.entry(tiny_pair[0], workspace, name="U", role="utility", suite="facts"),
        safety=catalog.entry(tiny_pair[1], workspace, name="S", role="safety"),
        method="linear",
        parameters={},
        options=preflight.Options(n=2, judge="llama_guard_3"),
    )
    assert planned.recipe and any(COMMIT[:12] in warning.fault for warning in planned.warnings)


def test_a_sweep_notes_it_once_before_it_starts(cache, tmp_path, tiny_base, tiny_pair, monkeypatch, capsys) -> None:
    workspace = Workspace(tmp_path / "ws").create()
    monkeypatch.setenv("SSTMERGE_WORKSPACE", str(workspace.root))
    base = catalog.add_base(workspace, tiny_base)
    for path, role in zip(tiny_pair, ("utility", "safety"), strict=True):
        catalog.add(workspace, path, name=role, role=role)
    pair = catalog.find(workspace, "utility"), catalog.find(workspace, "safety")
    options = preflight.Options(judge="llama_guard_3", n=2)
    plan = preflight.plan_sweep(
        workspace, base, *pair, methods=["linear", "sst_gevp"], alphas=[0.2, 0.4], ks=[300], options=options
    )
    assert not plan.problems and plan.points > 2
    wheres = [note.where for note in plan.warnings]
    assert "judge llama_guard_3" in wheres and "parameter k=300" in wheres
    assert len(wheres) == len(set(wheres))
    given = ["--base", str(tiny_base), "--utility", "utility", "--safety", "safety", "--n", "2"]
    assert not main(["sweep", *given, "--methods", "sst_gevp", "--alphas", "0.2,0.4", "--ks", "300", "--dry-run"])
    assert capsys.readouterr().err.count("note: parameter k=300: is more than") == 1
