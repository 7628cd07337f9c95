"""What Ray and its actors write on this machine: one folder, of which nothing stays. Ray itself is not started."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sstmerge_core.worker import by_ray


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short folder, as sockets need it."""
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


def test_a_folder_of_a_process_that_ended_goes_when_the_next_one_starts(place: Path) -> None:
    (place / f"sst-ray-{_ended()}-x" / "session").mkdir(parents=True)
    living = place / f"sst-ray-{os.getppid()}-x"
    living.mkdir()
    (place / "sst-ray-notes").mkdir()
    made = by_ray.scratch()
    assert made is not None and made.is_dir() and f"-{os.getpid()}-" in made.name
    assert {one.name for one in place.iterdir()} == {made.name, living.name, "sst-ray-notes"}


def _ended() -> int:
    """The id of a process that has ended."""
    child = subprocess.Popen(["true"])
    child.wait()
    return child.pid


def test_where_the_systems_folder_is_too_deep_for_sockets_ray_takes_its_own(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = place / ("d" * by_ray.LONGEST)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    assert by_ray.scratch() is None and list(deep.iterdir()) == []


def test_only_what_starts_inside_has_its_temporary_files_there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "before")
    with by_ray._temporary(place):
        assert os.environ["TMPDIR"] == str(place)
    assert os.environ["TMPDIR"] == "before"
    monkeypatch.delenv("TMPDIR")
    with by_ray._temporary(None):
        assert "TMPDIR" not in os.environ
