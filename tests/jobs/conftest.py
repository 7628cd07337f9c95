from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Literal, TypeVar

import pytest

from sstmerge_core import jobs
from sstmerge_core.jobs.queue import Queue
from sstmerge_core.recipe import Recipe, Source
from sstmerge_core.workspace import Workspace

T = TypeVar("T")
A5, A7, BASE = (Source(name=name, path=name, sha256=name * 8) for name in ("A5", "A7", "base"))


def recipe(alpha: float = 0.5, **parameters: object) -> Recipe:
    return Recipe(base=BASE, adapters=(A5, A7), method="linear", parameters={"alpha": alpha, **parameters})


def eventually(condition: Callable[[], T | Literal[False] | None], seconds: float = 15.0) -> T:
    """What `condition` gives once it gives something that counts."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
    return value


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Iterator[Workspace]:
    """A workspace whose workers do fake work; none of them outlives the test."""
    monkeypatch.setenv("SSTMERGE_EXECUTE", "tests.jobs.fake_execute:execute")
    monkeypatch.setenv("SSTMERGE_DEVICE", "cpu")
    workspace = Workspace(tmp_path / "w").create()
    yield workspace
    queue = Queue(workspace)
    for job in queue.jobs(1000):
        if job.state == "queued":
            queue.ask_to_stop(job.job_id)
    for job, process, _, _ in queue.running():
        process.kill()
        queue.end(job.job_id, "cancelled")
    assert jobs.jobs(workspace) is not None
