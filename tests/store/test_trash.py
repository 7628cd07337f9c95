"""Deleting runs and weights, bringing them back, emptying the trash."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from sstmerge_core.cli import main
from sstmerge_core.errors import StoreError
from sstmerge_core.store import EventWriter, Owner, queries, remarks, trash
from sstmerge_core.upkeep import uses
from sstmerge_core.workspace import Workspace
from tests.store.conftest import metric, write_run
from tests.there import there

TABLES = ("runs", "metrics", "samples", "verdicts", "spectra", "events", "annotations", "leaderboard")


@pytest.fixture
def run_id(workspace: Workspace) -> str:
    """A run with weights, a label and a tag, and another run beside it."""
    for name in ("aaaa", "bbbb"):
        write_run(workspace, name)
        folder = workspace.merged_adapter(name)
        folder.mkdir(parents=True)
        (folder / "adapter_model.safetensors").write_bytes(b"w" * 1000)
        (folder / "adapter_config.json").write_text("{}")
        (folder / "recipe.yaml").write_text("format: 1\n")
        remarks.label(workspace, name, {("harmful", "h1"): "harmful"})
        remarks.tag(workspace, name, "keep")
    return "aaaa"


def rows(owner: Owner, run_id: str) -> dict[str, list[tuple]]:
    owner.ingest()
    cursor = owner.cursor()
    found = {
        table: cursor.execute(f"SELECT * FROM {table} WHERE run_id = ? ORDER BY ALL", [run_id]).fetchall()
        for table in TABLES
    }
    stats = cursor.execute("SELECT * FROM module_stats WHERE subject = ?", [run_id]).fetchall()
    return found | {"module_stats": stats}


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_deleted_run_leaves_every_table_and_comes_back_bit_for_bit(workspace, owner, run_id) -> None:
    before, on_disk, other = rows(owner, run_id), files(workspace.run(run_id)), rows(owner, "bbbb")
    assert all(before.values())
    entry = trash.delete_run(workspace, run_id)
    assert not workspace.run(run_id).exists() and not any(rows(owner, run_id).values())
    assert rows(owner, "bbbb") == other
    trash.restore(workspace, entry)
    assert files(workspace.run(run_id)) == on_disk and rows(owner, run_id) == before
    assert trash.entries(workspace) == []


def test_a_folder_that_somebody_removed_is_forgotten_too(workspace, owner, run_id) -> None:
    rows(owner, run_id)
    os.rename(workspace.run(run_id), workspace.root / "elsewhere")
    assert owner.ingest() > 0 and not any(rows(owner, run_id).values())
    assert owner.ingest() == 0


def test_an_owner_that_was_closed_meanwhile_forgets_too(workspace, run_id) -> None:
    with Owner.open(workspace) as owner:
        assert rows(owner, run_id)["runs"]
    trash.delete_run(workspace, run_id)
    with Owner.open(workspace) as owner:
        assert not any(rows(owner, run_id).values())


def test_a_run_that_is_being_written_is_not_deleted(workspace, run_id) -> None:
    with EventWriter(workspace.run(run_id)), pytest.raises(StoreError, match="another process is writing it"):
        trash.delete_run(workspace, run_id)
    assert workspace.run(run_id).exists()


def test_what_cannot_be_moved_stays_whole(workspace, run_id, monkeypatch) -> None:
    def full(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    before = files(workspace.run(run_id))
    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", full)
        for delete in (trash.delete_run, trash.delete_weights):
            with pytest.raises(OSError, match="No space"):
                delete(workspace, run_id)
    assert files(workspace.run(run_id)) == before and trash.entries(workspace) == []


def test_weights_alone_are_deleted_and_come_back_and_the_recipe_stays(workspace, owner, run_id) -> None:
    before = rows(owner, run_id)
    entry = trash.delete_weights(workspace, run_id)
    assert entry.bytes == 1000 and trash.weights(workspace, run_id) is None
    assert (workspace.merged_adapter(run_id) / "recipe.yaml").exists() and rows(owner, run_id) == before
    with pytest.raises(StoreError, match="the weights of its adapter are not here"):
        trash.delete_weights(workspace, run_id)
    trash.restore(workspace, trash.find(workspace, run_id))
    assert there(trash.weights(workspace, run_id)).read_bytes() == b"w" * 1000


def test_a_run_that_was_made_again_is_not_overwritten(workspace, run_id) -> None:
    entry = trash.delete_run(workspace, run_id)
    write_run(workspace, run_id)
    again = files(workspace.run(run_id))
    with pytest.raises(StoreError, match="it was made again since"):
        trash.restore(workspace, entry)
    assert files(workspace.run(run_id)) == again and len(trash.entries(workspace)) == 1


def test_emptying_tells_what_it_frees_and_takes_what_was_said_along(workspace, run_id) -> None:
    trash.delete_run(workspace, run_id)
    size = sum(len(data) for data in files(workspace.trash).values())
    assert trash.empty(workspace, older_than=60.0) == (0, 0)
    assert trash.empty(workspace) == (1, size) and not files(workspace.trash)
    assert not (workspace.annotations / run_id).exists() and (workspace.annotations / "bbbb").exists()
    with pytest.raises(StoreError, match="is not in the trash"):
        trash.find(workspace, run_id)


@pytest.mark.parametrize("run_id", ["", ".", "..", "zzzz", "../catalog", "aaaa/artifacts"])
def test_only_runs_can_be_deleted(workspace, run_id) -> None:
    write_run(workspace, "aaaa")
    remarks.tag(workspace, "aaaa", "x")
    with EventWriter(workspace.catalog) as events:
        events.write("adapter_removed", sha256="0")
    with pytest.raises(StoreError, match="no such run"):
        trash.delete_run(workspace, run_id)


def test_weights_that_something_needs_are_not_pruned(workspace, run_id) -> None:
    write_run(workspace, "cccc", finish=False)
    workspace.merged_adapter("cccc").mkdir(parents=True)
    (workspace.merged_adapter("cccc") / "adapter_model.safetensors").write_bytes(b"w")
    old = time.time() - 10 * 86_400
    os.utime(workspace.merged_adapter("bbbb") / "adapter_model.safetensors", (old, old))
    assert [one.run_id for one in uses.prunable(workspace)] == ["bbbb", "aaaa"]
    assert [one.run_id for one in uses.prunable(workspace, older_than=86_400)] == ["bbbb"]
    assert [one.run_id for one in uses.prunable(workspace, keep="bbbb".__eq__)] == ["aaaa"]
    fields = {"path": str(workspace.merged_adapter("aaaa")), "sha256": "a" * 64, "name": "mine", "role": "utility"}
    with EventWriter(workspace.catalog) as events:
        events.write("adapter_added", **_entry(fields))
    assert [one.run_id for one in uses.prunable(workspace)] == ["bbbb"]


def _entry(fields: dict[str, str]) -> dict[str, object]:
    return {
        "suite": "",
        "base": "b",
        "rank": 8,
        "alpha": 16.0,
        "modules": 1,
        "bytes": 1,
        "description": "",
        "base_name": "b",
        "scores": {},
    } | fields


def test_the_command_line_says_who_needs_a_run_and_deletes_and_restores_it(workspace, run_id, capsys, monkeypatch):
    monkeypatch.setenv("SSTMERGE_WORKSPACE", str(workspace.root))
    with EventWriter(workspace.run("bbbb")) as events:
        events.write("metrics", rows=[metric("safety_tax", "facts", 0.1, reference=run_id)])
    assert main(["runs", "delete", run_id]) == 6
    assert "1 run took it as the reference" in capsys.readouterr().err and workspace.run(run_id).exists()
    assert main(["runs", "delete", run_id, "--force"]) == 0
    assert not workspace.run(run_id).exists()
    assert main(["runs", "trash"]) == 0
    assert run_id in capsys.readouterr().out
    assert main(["runs", "restore", run_id]) == 0
    with Owner.open(workspace) as owner:
        assert queries.run(owner.cursor(), run_id) is not None


def test_the_command_line_prunes_after_saying_what_would_go(workspace, run_id, capsys, monkeypatch) -> None:
    monkeypatch.setenv("SSTMERGE_WORKSPACE", str(workspace.root))
    main(["runs", "tag", "bbbb", "precious"])
    prune = ["runs", "prune", "--older-than", "0", "--keep-tag", "Precious"]
    assert main([*prune, "--dry-run"]) == 0
    assert "1 kB of 1 adapter would go" in capsys.readouterr().out and trash.weights(workspace, run_id)
    assert main(prune) == 0
    assert trash.weights(workspace, run_id) is None and trash.weights(workspace, "bbbb")
    assert main(["runs", "empty"]) == 0
    assert "1 kB freed" in capsys.readouterr().out
