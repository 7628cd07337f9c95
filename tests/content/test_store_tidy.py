"""What a store can do without, whoever writes into it meanwhile: a folder, and a file system without renames."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sstmerge_core.cli import main
from sstmerge_core.content import ADAPTER, ContentStore, tidy
from sstmerge_core.content.tidy import ASIDE, CUT_OFF, FILE, HOUR, ITEM
from sstmerge_core.errors import DataError
from sstmerge_core.upkeep.referred import referred
from sstmerge_core.workspace import Workspace
from tests.there import there

DAY = 24 * HOUR
LATER = 4_000_000_000.0
"""A moment at which everything written by now is old"""


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ContentStore]:
    if request.param == "file":
        yield ContentStore(str(tmp_path / "shared"))
        return
    import fsspec

    yield ContentStore(f"memory://{tmp_path.name}")
    fsspec.filesystem("memory").store.clear()


def put_away(store: ContentStore, *, at: float = LATER, referred: set[str] | None = None) -> tuple[int, list[str]]:
    planned = tidy.plan(store, older_than=DAY, referred=referred, now=at)
    return tidy.carry_out(store, planned, older_than=DAY, referred=referred, now=at)


def kinds(store: ContentStore, at: float = LATER, referred: set[str] | None = None) -> list[str]:
    return [one.what for one in tidy.plan(store, older_than=DAY, referred=referred, now=at)]


def written(store: ContentStore, path: str, data: bytes = b"x") -> None:
    with store.spoken() as (filesystem, root):
        filesystem.makedirs(f"{root}/{path}".rpartition("/")[0], exist_ok=True)
        filesystem.pipe_file(f"{root}/{path}", data)


def forgotten(store: ContentStore, sha256: str) -> None:
    """Its manifest is gone, its objects are not: as after a push that was killed."""
    with store.spoken() as (filesystem, root):
        filesystem.rm_file(f"{root}/{ADAPTER}/{sha256}.json")


def test_what_no_manifest_names_goes_when_it_is_old_and_what_one_names_stays(
    store: ContentStore, tiny_pair: tuple[Path, Path]
) -> None:
    kept = store.push(ADAPTER, tiny_pair[0], "U").manifest
    lost = store.push(ADAPTER, tiny_pair[1], "S").manifest
    assert tidy.plan(store, older_than=DAY, now=LATER) == []
    forgotten(store, lost.sha256)
    written(store, f"objects/ab/{'ab' * 32}.partial-1-2")
    written(store, f"{ADAPTER}/{'cd' * 32}.json.partial-1-2")
    assert tidy.plan(store, older_than=DAY) == [], "nothing young is touched"
    own = {digest for _, digest in lost.files.values()} - {digest for _, digest in kept.files.values()}
    assert kinds(store) == [FILE] * len(own) + [CUT_OFF] * 2
    freed, said = put_away(store)
    assert said == [] and freed == 2 + sum({d: size for size, d in lost.files.values() if d in own}.values())
    assert kinds(store) == [] and store.damaged(kept) == [] and len(store.damaged(lost)) == len(own)


def test_an_item_goes_where_nobody_refers_to_it_with_the_files_that_only_it_has(
    store: ContentStore, tiny_pair: tuple[Path, Path]
) -> None:
    first = store.push(ADAPTER, tiny_pair[0], "U").manifest
    second = store.push(ADAPTER, tiny_pair[1], "S", run_id="r1").manifest
    assert kinds(store, referred={first.sha256, "r1"}) == [] and kinds(store) == []
    assert kinds(store, referred={first.sha256}, at=second.stored_at + HOUR) == [], "the item is young"
    assert kinds(store, referred={first.sha256}) == [ITEM]
    put_away(store, referred={first.sha256})
    assert [one.name for one in store.manifests()] == ["U"] and store.damaged(first) == [] and kinds(store) == []


def test_what_a_killed_tidying_had_put_aside_is_put_back_where_it_is_needed(
    store: ContentStore, tiny_pair: tuple[Path, Path]
) -> None:
    kept = store.push(ADAPTER, tiny_pair[0], "U").manifest
    _, digest = kept.files["adapter_model.safetensors"]
    with store.spoken() as (filesystem, root):
        filesystem.makedirs(f"{root}/removed", exist_ok=True)
        filesystem.mv(f"{root}/objects/{digest[:2]}/{digest}", f"{root}/removed/{digest}")
    written(store, f"removed/{'ef' * 32}")
    assert store.damaged(kept) and kinds(store) == [ASIDE] * 2
    put_away(store)
    assert store.damaged(kept) == [] and kinds(store) == []
    with store.spoken() as (filesystem, root):
        filesystem.mv(f"{root}/{ADAPTER}/{kept.sha256}.json", f"{root}/removed/{ADAPTER}-{kept.sha256}.json")
    put_away(store)
    assert [one.name for one in store.manifests()] == ["U"] and store.damaged(kept) == []


class Interrupted:
    """Every time something is asked of the store this is told; at the `at`th time `act` is done first."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, act: Callable[[], Any]):
        self.at, self.count, self._act = -1, 0, act
        speaking = ContentStore._told

        def told(store: ContentStore, where: str) -> Any:
            at, self.count = self.count, self.count + 1
            if at == self.at:
                self.at = -1
                self._act()
            return speaking(store, where)

        monkeypatch.setattr(ContentStore, "_told", told)

    def each(self, work: Callable[[], Any], begin: Callable[[], Any]) -> Iterator[int]:
        """Do `work` again and again, interrupted at the next place each time, until it has no more."""
        for place in range(1000):
            begin()
            self.at, self.count = place, 0
            work()
            if self.at != -1:
                return
            yield place


@pytest.mark.parametrize("interrupted", ["push", "tidy"])
def test_at_whatever_moment_a_push_and_a_tidying_meet_what_was_pushed_is_whole(
    tiny_pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interrupted: str
) -> None:
    store = ContentStore("memory://meeting")
    found = store.push(ADAPTER, tiny_pair[0], "U").manifest
    old: set[str] = set()
    turns = itertools.count()
    # what was there before a turn is old, what is written in it is young
    monkeypatch.setattr(tidy, "_changed", lambda entry: 0.0 if entry["name"] in old else LATER)

    def begin() -> None:
        """Old files of a push that was killed; every other time an old item that nobody refers to."""
        push()
        with store.spoken() as (filesystem, root):
            path = f"{root}/{ADAPTER}/{found.sha256}.json"
            if next(turns) % 2:
                filesystem.rm_file(path)
            else:
                filesystem.pipe_file(
                    path, json.dumps(json.loads(filesystem.cat_file(path)) | {"stored_at": 0}).encode()
                )
            old.clear()
            old.update(filesystem.find(root))

    def push() -> None:
        store.push(ADAPTER, tiny_pair[0], "U")

    def put() -> None:
        put_away(store, at=found.stored_at + DAY / 2, referred=set())

    first, second = (push, put) if interrupted == "push" else (put, push)
    meeting = Interrupted(monkeypatch, second)
    places = 0
    for place in meeting.each(first, begin):
        known = there(store.manifest(ADAPTER, found.sha256))
        assert store.damaged(known) == [], f"at place {place}"
        places += 1
    assert places > 10


def test_a_store_with_a_manifest_that_cannot_be_read_is_left_alone(
    store: ContentStore, tiny_pair: tuple[Path, Path]
) -> None:
    found = store.push(ADAPTER, tiny_pair[0], "U").manifest
    written(store, f"{ADAPTER}/{found.sha256}.json", b"{}")
    with pytest.raises(DataError, match="is no manifest"):
        tidy.plan(store, older_than=DAY, now=LATER)


def test_a_workspace_refers_to_what_its_runs_name_also_in_the_trash_and_to_its_queue(
    tiny_pair: tuple[Path, Path], tmp_path: Path
) -> None:
    from sstmerge_core.jobs.queue import Queue
    from sstmerge_core.store import EventWriter, trash

    workspace = Workspace(tmp_path / "w").create()
    for run, digest in (("here", "a" * 64), ("gone", "b" * 64)):
        with EventWriter(workspace.run(run)) as events:
            events.write("run_started", run_id=run, recipe={"base": {"sha256": digest}})
    trash.delete_run(workspace, "gone")
    spec = {"recipes": [{"adapters": [{"sha256": "c" * 64}]}]}
    Queue(workspace).add("j", kind="merge", name="", user="", device="cpu", spec=spec, run_ids=["x"])
    assert {"here", "gone", "a" * 64, "b" * 64, "c" * 64} <= referred(workspace)


def test_the_command_shows_first_and_refuses_a_store_that_is_not_there(
    tiny_pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SSTMERGE_WORKSPACE", str(Workspace(tmp_path / "w").create().root))
    monkeypatch.setenv("SSTMERGE_STORE", str(tmp_path / "shared"))
    for words in (["list"], ["check"], ["tidy"], ["pull", "A5"]):
        assert main(["store", *words]) == 4
        (said,) = capsys.readouterr().err.strip().splitlines()
        assert "there is no store here" in said
    store = ContentStore(str(tmp_path / "shared"))
    sha256 = store.push(ADAPTER, tiny_pair[0], "U").manifest.sha256
    shutil.rmtree(tmp_path / "shared" / ADAPTER)
    monkeypatch.setattr(tidy.time, "time", lambda: LATER)
    assert main(["store", "tidy", "--older-than", "0"]) == 4 and "at least an hour" in capsys.readouterr().err
    assert main(["store", "tidy"]) == 0 and "would go" in capsys.readouterr().out
    assert list((tmp_path / "shared").rglob("objects/*/*")), "the preview deletes nothing"
    assert main(["store", "tidy", "--yes"]) == 0 and "freed" in capsys.readouterr().out
    assert not [path for path in (tmp_path / "shared").rglob("*") if path.is_file()]
    monkeypatch.undo()
    monkeypatch.setenv("SSTMERGE_WORKSPACE", str(tmp_path / "w"))
    store.push(ADAPTER, tiny_pair[0], "U")
    assert main(["adapters", "add", str(tiny_pair[0]), "--name", "U"]) == 0
    assert sha256 in referred(Workspace(tmp_path / "w"))
    at = ["store", "tidy", "--items", "--store", store.address]
    assert main([*at, "--also", str(tmp_path / "nowhere")]) == 4 and "is no workspace" in capsys.readouterr().err
    assert main([*at, "--also", str(tmp_path / "w")]) == 0 and "0 bytes would go" in capsys.readouterr().out
