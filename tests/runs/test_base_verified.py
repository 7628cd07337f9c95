"""A base model changed in place is noticed wherever it is read; one that stays as it is is hashed once."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from sstmerge_core import adapters, catalog, methods
from sstmerge_core.adapters import fingerprint
from sstmerge_core.builder.recipe_file import Output
from sstmerge_core.errors import DataError
from sstmerge_core.models.resident import ResidentModel
from sstmerge_core.recipe import Recipe, Source
from sstmerge_core.runs.execute import merge_now, merge_to
from sstmerge_core.runs.session import Session, check_base
from sstmerge_core.workspace import Workspace

CHANGED = "base model's files have changed since this run was planned"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "workspace").create()


@pytest.fixture
def folder(tmp_path: Path, tiny_base: Path) -> Path:
    return shutil.copytree(tiny_base, tmp_path / "base")


@pytest.fixture
def base(folder: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Source:
    monkeypatch.setattr(fingerprint, "_TICK_SECONDS", -1e9)  # files this young are not remembered otherwise
    return catalog.base_at(folder, workspace).source


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are hashed from now on."""
    found: list[str] = []
    real = fingerprint._hash

    def noted(path: Path) -> str:
        found.append(path.name)
        return real(path)

    monkeypatch.setattr(fingerprint, "_hash", noted)
    return found


def change(folder: Path, name: str = "model.safetensors") -> None:
    """One byte in place: neither the size nor the time of modification tells."""
    path = folder / name
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(-3, os.SEEK_END)
        byte = file.read(1)[0]
        file.seek(-3, os.SEEK_END)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size and path.stat().st_mtime_ns == status.st_mtime_ns


def test_a_base_that_stays_is_not_hashed_again_and_a_changed_file_alone_is(
    folder: Path, base: Source, workspace: Workspace, hashed: list[str]
) -> None:
    for _ in range(3):
        check_base(base, workspace)
    assert hashed == []
    time.sleep(0.02)  # a step of the file system's clock
    change(folder)
    with pytest.raises(DataError, match=CHANGED):
        check_base(base, workspace)
    assert hashed == ["model.safetensors"]


def test_a_base_replaced_by_one_of_the_same_size_and_times_is_noticed(
    folder: Path, base: Source, workspace: Workspace, hashed: list[str]
) -> None:
    path = folder / "model.safetensors"
    status, data = path.stat(), bytearray(path.read_bytes())
    data[-3] ^= 1
    (folder / "new").write_bytes(data)
    os.utime(folder / "new", ns=(status.st_atime_ns, status.st_mtime_ns))
    os.replace(folder / "new", path)
    with pytest.raises(DataError, match=CHANGED):
        check_base(base, workspace)


@pytest.mark.parametrize("when", ["before", "while it is loaded", "once it is in memory"])
def test_a_model_of_changed_files_is_not_used(
    folder: Path, base: Source, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    def load(path: Any, *rest: Any) -> object:
        if when == "while it is loaded":
            change(folder)
        return object()

    monkeypatch.setattr(ResidentModel, "load", load)
    session = Session(workspace, "cpu")
    time.sleep(0.02)
    if when == "before":
        change(folder)
    elif when == "once it is in memory":
        assert session.model(base, "float32") is session.model(base, "float32")
        change(folder)
    with pytest.raises(DataError, match=CHANGED):
        session.model(base, "float32")


def test_another_model_at_the_same_path_is_another_model(
    folder: Path, base: Source, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ResidentModel, "load", lambda *given: object())
    session = Session(workspace, "cpu")
    first = session.model(base, "float32")
    time.sleep(0.02)
    change(folder)
    later = catalog.base_at(folder, workspace).source
    assert later.sha256 != base.sha256 and session.model(later, "float32") is not first


def test_a_merge_that_reads_the_base_refuses_one_that_changes_meanwhile(
    folder: Path, base: Source, workspace: Workspace, tiny_pair: tuple[Path, Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    sources = tuple(Source(name=one.name, path=str(one), sha256=adapters.read(one).sha256) for one in tiny_pair)
    name = next(one for one in methods.names() if methods.get(one).needs_base and not methods.get(one).needs_fisher)
    reading = Recipe(base=base, adapters=sources, method=name, parameters=methods.get(name).complete({}))
    dense = Recipe(base=base, adapters=sources, method="linear", parameters=methods.get("linear").complete({}))
    merge_now(reading, Session(workspace, "cpu"))
    merge_to(dense, workspace, tmp_path / "kept", output=Output(kind="model", dtype="auto"), device="cpu")
    time.sleep(0.02)
    monkeypatch.setattr("sstmerge_core.runs.execute.merge", lambda *given, **named: change(folder))
    with pytest.raises(DataError, match=CHANGED):
        merge_now(reading, Session(workspace, "cpu"))
    monkeypatch.undo()
    with pytest.raises(DataError, match=CHANGED):
        merge_to(dense, workspace, tmp_path / "dense", output=Output(kind="model", dtype="auto"), device="cpu")
