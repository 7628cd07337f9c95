"""Who computes on which device, and who waits for it, in the words of the queue."""

from __future__ import annotations

import pytest

from sstmerge_core import jobs
from sstmerge_core.jobs import Job, Lease, Worker
from sstmerge_core.jobs.process import Process
from sstmerge_core.jobs.queue import Queue
from sstmerge_core.workspace import Workspace
from studio.queue import device_texts
from tests.pages.test_sweep_page import TINY, Open, workspace

__all__ = ["workspace"]

ME = Process(1, 1, "here")


def job(name: str, user: str = "", *, state: str = "running", device: str = "cuda:0", devices: tuple[str, ...] = ()):
    return Job(
        name, "sweep", name, user, state, [], 0.0, None, None, 0.0, "", 0, 1, None, None, None, device,
        devices=devices or (device,),
    )  # fmt: skip


def worker(name: str, device: str) -> Worker:
    return Worker(name, ME, device, "", 0.0, 0.0, None, None)


def test_each_device_says_who_has_it_and_how_many_wait() -> None:
    both = ("cuda:0", "cuda:1")
    active = [job("sweep", "ada", devices=both), job("next", state="queued", devices=both), job("small", device="cpu")]
    at_work = [worker("sweep", "cuda:0"), worker("sweep", "cuda:1"), worker("small", "cpu"), worker("small", "cpu")]
    assert device_texts(active, at_work, [Lease("cpu", "Playground", "", ME, 0.0)]) == [
        "**cuda\\:0**: sweep of ada · 1 job waiting for it",
        "**cuda\\:1**: sweep of ada · 1 job waiting for it",
        "**cpu**: small, 2 workers; Playground",
    ]


def test_a_name_on_a_device_is_text_and_no_formatting() -> None:
    told = device_texts([job("**x** [a](b)")], [worker("**x** [a](b)", "cuda:0")], [])
    assert "[a](b)" not in told[0] and "x" in told[0]


def test_a_sweep_is_shared_out_as_the_form_says(
    open_page: Open, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = open_page(workspace, "sweep", **TINY)
    assert any("busy of cleo" in caption.value for caption in app.caption), "who has the device that others wait for"
    app.number_input("sweep.workers").set_value(3).run()
    if jobs.backends.missing("ray") is None:
        app.toggle("sweep.ray").set_value(True).run()
        app.text_input("sweep.address").set_value("head:6379").run()
        app.toggle("sweep.ray").set_value(False).run()
    app.button("sweep.launch").click().run()
    assert not app.exception
    launched = next(one for one in jobs.jobs(workspace) if one.job_id != "busy")
    assert launched.workers == 3 and "backend" not in Queue(workspace).spec(launched.job_id)


def test_where_ray_is_not_installed_the_form_says_how_to_get_it(
    open_page: Open, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sstmerge_core.jobs.backends.missing", lambda name: 'pip install "sstmerge[ray]"')
    app = open_page(workspace, "sweep", **TINY)
    assert any('pip install "sstmerge[ray]"' in caption.value for caption in app.caption)
    assert not [one for one in app.toggle if one.key == "sweep.ray"]
