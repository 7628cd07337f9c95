"""The catalogue: names, tags, removal and its undoing, lineage."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from pathlib import Path

import pytest

from sstmerge_core import catalog
from sstmerge_core.builder.recipe_file import without_paths
from sstmerge_core.catalog import intake
from sstmerge_core.catalog.lineage import ancestry
from sstmerge_core.cli import main
from sstmerge_core.demo.adapters import ADAPTERS
from sstmerge_core.errors import AdapterError
from sstmerge_core.recipe import Recipe, Source
from sstmerge_core.store import Owner, queries
from sstmerge_core.workspace import Workspace
from tests.there import there


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "w").create()


@pytest.fixture
def own(workspace: Workspace, tiny_pair) -> catalog.Entry:
    """An adapter whose files the workspace keeps."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in tiny_pair[0].iterdir():
            archive.write(path, path.name)
    return intake.upload(workspace, [("own.zip", buffer)])


def test_name_role_and_tags_change_everywhere_and_the_content_stays(workspace: Workspace, tiny_pair) -> None:
    added = catalog.add(workspace, tiny_pair[0], name="old", tags=["first"])
    changed = catalog.change(workspace, added.sha256, name="new", role="safety", tags=["a", "b", "a"])
    assert (changed.name, changed.role, changed.tags, changed.sha256) == ("new", "safety", ("a", "b"), added.sha256)
    assert catalog.find(workspace, "new") == changed
    with Owner.open(workspace) as owner:
        owner.ingest()
        assert list(queries.adapters(owner.cursor())["name"]) == ["new"]


def test_a_name_that_is_taken_or_unusable_changes_nothing(workspace: Workspace, tiny_pair) -> None:
    first = catalog.add(workspace, tiny_pair[0], name="first")
    catalog.add(workspace, tiny_pair[1], name="second")
    for name, message in (("second", "taken by another"), ("a b", "not usable"), ("..", "not usable")):
        with pytest.raises(AdapterError, match=message):
            catalog.change(workspace, first.sha256, name=name)
    assert catalog.find(workspace, "first") == first


def test_an_adapter_of_the_demo_cannot_be_changed(workspace: Workspace) -> None:
    shipped = catalog.entry(ADAPTERS["A5"].path)
    with pytest.raises(AdapterError, match="ships with the program"):
        catalog.change(workspace, shipped.sha256, name="mine")
    assert catalog.remove(workspace, shipped.sha256) is None


def test_a_removed_adapter_of_the_workspace_moves_to_the_trash_and_back_as_it_was(
    workspace: Workspace, own: catalog.Entry
) -> None:
    catalog.change(workspace, own.sha256, tags=["kept"])
    assert there(catalog.remove(workspace, own.sha256)).name == "own"
    assert not own.path.exists() and catalog.removed(workspace)[0].tags == ("kept",)
    assert all(one.sha256 != own.sha256 for one in catalog.entries(workspace))
    restored = catalog.restore(workspace, own.sha256)
    assert restored.path == own.path and catalog.entry(own.path).sha256 == own.sha256
    assert catalog.find(workspace, "own").tags == ("kept",) and catalog.removed(workspace) == []


def test_a_registered_folder_is_never_moved_nor_deleted(workspace: Workspace, tiny_pair, tmp_path: Path) -> None:
    folder = tmp_path / "users" / "lora"
    shutil.copytree(tiny_pair[0], folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    added = catalog.add(workspace, folder)
    catalog.remove(workspace, added.sha256)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert catalog.restore(workspace, added.sha256) == added


def test_what_cannot_be_restored_says_why(workspace: Workspace, own: catalog.Entry, tiny_pair) -> None:
    catalog.remove(workspace, own.sha256)
    taken = catalog.add(workspace, tiny_pair[1], name="own")
    with pytest.raises(AdapterError, match="name own: is taken"):
        catalog.restore(workspace, own.sha256)
    catalog.remove(workspace, taken.sha256)
    shutil.rmtree(workspace.trash)
    with pytest.raises(AdapterError, match="its files are gone"):
        catalog.restore(workspace, own.sha256)
    assert [one.sha256 for one in catalog.removed(workspace)] == [taken.sha256]
    with pytest.raises(AdapterError, match="was not removed here"):
        catalog.restore(workspace, "f" * 64)


def _merged(folder: Path, tiny_pair, sources: tuple[Source, ...], run_id: str) -> Path:
    """A copy of an adapter whose record says that it was merged from `sources`."""
    shutil.copytree(tiny_pair[1], folder)
    base = Source(name="base", path="/models/base", sha256="b" * 64)
    recipe = Recipe(base=base, adapters=sources, method="linear", parameters={"alpha": 0.3})
    record = {"recipe": without_paths(recipe.model_dump(mode="json")), "run_id": run_id}
    (folder / "sstmerge.json").write_text(json.dumps(record))
    return folder


def test_lineage_leads_from_a_merge_over_its_adapters_to_theirs(
    workspace: Workspace, own: catalog.Entry, tiny_pair, tmp_path: Path
) -> None:
    stranger = Source(name="elsewhere", path="/x", sha256="e" * 64)
    merged = catalog.add(workspace, _merged(tmp_path / "m", tiny_pair, (own.source, stranger), "abc"), name="merged")
    found = ancestry(merged, catalog.entries(workspace))
    assert (found.how, found.run_id, found.text) == ("merged", "abc", "Linear α=0.3")
    assert [(parent.name, parent.known, parent.text) for parent in found.parents] == [
        ("own", True, "Uploaded as own.zip"),
        ("elsewhere", False, ""),
    ]


def test_the_lineage_of_a_trained_adapter_is_its_training(workspace: Workspace) -> None:
    shipped = catalog.entry(ADAPTERS["A5"].path)
    found = ancestry(shipped, [])
    assert found.how == "trained" and "rank 8" in found.text and found.parents == ()


def test_a_record_that_is_no_record_gives_no_lineage_and_no_error(workspace: Workspace, tiny_pair, tmp_path) -> None:
    shutil.copytree(tiny_pair[0], tmp_path / "odd")
    for text in ("[1]", "{", '{"recipe": {"adapters": [1]}}', '{"recipe": {"adapters": [], "method": "gone"}}'):
        (tmp_path / "odd" / "sstmerge.json").write_text(text)
        assert ancestry(catalog.entry(tmp_path / "odd"), []).parents == ()


def test_the_command_line_takes_in_renames_tags_removes_and_restores(
    workspace: Workspace, tiny_pair, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setenv("SSTMERGE_WORKSPACE", str(workspace.root))
    shutil.make_archive(str(tmp_path / "lora"), "zip", tiny_pair[0])
    for arguments in (
        ["add", str(tmp_path / "lora.zip"), "--tag", "lab"],
        ["rename", "lora", "renamed"],
        ["tag", "renamed", "one", "two"],
        ["remove", "renamed"],
        ["restore", "renamed"],
        ["lineage", "renamed"],
    ):
        assert main(["adapters", *arguments]) == 0
    assert catalog.find(workspace, "renamed").tags == ("one", "two")
    assert "renamed <- Uploaded as lora.zip" in capsys.readouterr().out
    assert main(["adapters", "restore", "renamed"]) == AdapterError.exit_code


def test_a_copy_of_a_bundled_adapter_is_refused_by_the_name_it_has_here(workspace: Workspace, tmp_path: Path) -> None:
    copy = shutil.copytree(ADAPTERS["A5"].path, tmp_path / "mine")
    with pytest.raises(AdapterError, match="mine: is here already, as A5"):
        catalog.add(workspace, copy, name="mine")
    assert [one.name for one in catalog.entries(workspace) if not one.bundled] == []
