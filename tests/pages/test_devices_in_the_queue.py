"""Who computes on which device, and who waits for it, in the words of the queue."""

from __future__ import annotations

from sstmerge_core.jobs import Job, Lease, Worker
from sstmerge_core.jobs.process import Process
from studio.queue import device_texts

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
