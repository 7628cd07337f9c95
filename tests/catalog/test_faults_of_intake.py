"""A registration that fails at any step leaves no folder, no half and nothing that blocks its name."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sstmerge_core import catalog
from sstmerge_core.catalog import intake
from sstmerge_core.errors import AdapterError, StoreError
from sstmerge_core.recipe import Source
from sstmerge_core.runs.session import Session
from sstmerge_core.store import EventWriter
from sstmerge_core.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "ws").create()


def sent(folder: Path) -> list[tuple[str, io.BytesIO]]:
    names = ("adapter_config.json", "adapter_model.safetensors")
    return [(name, io.BytesIO((folder / name).read_bytes())) for name in names]


def _full(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


FAULTS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "the catalogue is held": lambda patch: patch.setattr(
        "sstmerge_core.catalog.EventWriter", lambda *_: (_ for _ in ()).throw(StoreError([]))
    ),
    "the disk is full for the event": lambda patch: patch.setattr(EventWriter, "write", _full),
    "the disk is full for the files": lambda patch: patch.setattr("sstmerge_core.adapters.archive._copy", _full),
    "the folder cannot be put in place": lambda patch: patch.setattr("sstmerge_core.workspace.os.rename", _full),
    "the files are not written through": lambda patch: patch.setattr("sstmerge_core.workspace.sync", _full),
    "it is stopped": lambda patch: patch.setattr(
        EventWriter, "write", lambda *_, **__: (_ for _ in ()).throw(SystemExit)
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_upload_that_fails_can_be_sent_again_under_its_name(
    workspace: Workspace, tiny_pair: tuple[Path, Path], fault: str
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        FAULTS[fault](patch)
        with pytest.raises((OSError, StoreError, AdapterError, SystemExit)):
            intake.upload(workspace, sent(tiny_pair[0]), intake.AdapterInfo("mine"))
    assert [one.name for one in catalog.entries(workspace) if not one.bundled] == []
    assert not (workspace.adapters / "mine").exists()
    kept = intake.upload(workspace, sent(tiny_pair[0]), intake.AdapterInfo("mine"))
    assert kept.path == (workspace.adapters / "mine").resolve() and catalog.find(workspace, "mine") == kept
    assert [path.name for path in workspace.adapters.iterdir()] == ["mine"]


def test_of_a_folder_that_is_in_the_way_the_way_out_is_told(workspace: Workspace, tiny_pair: tuple[Path, Path]) -> None:
    (workspace.adapters / "mine").mkdir(parents=True)
    with pytest.raises(AdapterError, match=r"not registered.*add .*mine from a folder, or move it away"):
        intake.upload(workspace, sent(tiny_pair[0]), intake.AdapterInfo("mine"))


@pytest.mark.parametrize("act", ["remove", "restore"])
def test_a_removal_or_its_undoing_that_cannot_be_written_moves_nothing(
    workspace: Workspace, tiny_pair: tuple[Path, Path], act: str
) -> None:
    kept = intake.upload(workspace, sent(tiny_pair[0]), intake.AdapterInfo("mine"))
    if act == "restore":
        catalog.remove(workspace, kept.sha256)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EventWriter, "write", _full)
        with pytest.raises(OSError, match="No space"):
            getattr(catalog, act)(workspace, kept.sha256)
    assert kept.path.is_dir() == (act == "remove")
    getattr(catalog, act)(workspace, kept.sha256)
    assert kept.path.is_dir() == (act == "restore")


@pytest.mark.parametrize("name", ["a*b", "a?b", "[a]", "a b", "**", "a'b", "{a,b}"])
def test_an_adapter_in_a_folder_of_any_name_is_registered_and_read(
    workspace: Workspace, tmp_path: Path, tiny_pair: tuple[Path, Path], name: str
) -> None:
    os.symlink(tiny_pair[0], tmp_path / "link")
    folder = tmp_path / name
    folder.mkdir()
    for file in tiny_pair[0].iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    added = catalog.add(workspace, folder, name="mine")
    assert catalog.find(workspace, "mine") == added and added.path == folder.resolve()


def test_a_merge_hashes_its_adapters_itself(
    workspace: Workspace, tmp_path: Path, tiny_pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    for file in tiny_pair[0].iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    added = catalog.add(workspace, folder, name="mine")
    # a disk that says the same of the file whatever is written into it
    monkeypatch.setattr("sstmerge_core.adapters.fingerprint.file_state", lambda path: "the same")
    monkeypatch.setattr("sstmerge_core.adapters.fingerprint._TICK_SECONDS", -1e9)
    assert catalog.entry(folder, workspace).sha256 == added.sha256
    weights = folder / "adapter_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-4] ^= 1
    weights.write_bytes(data)
    assert catalog.entry(folder, workspace).sha256 == added.sha256  # as remembered
    session = Session(workspace, device="cpu")
    with pytest.raises(AdapterError, match="have changed since this run was planned"):
        session.adapter(Source(name="mine", path=str(folder), sha256=added.sha256))
    assert catalog.entry(folder, workspace).sha256 != added.sha256
