"""Signing in at a real OpenID Connect provider, in a real browser: who sees what, who may do what, who did it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.browser import drawn, free_port, running
from sstmerge_core import jobs
from sstmerge_core.jobs.process import Process
from sstmerge_core.jobs.queue import Queue
from sstmerge_core.store import audit
from sstmerge_core.workspace import Workspace
from tests.oidc_provider import provider, secrets_toml
from tests.synthetic_workspace import fill

ROOT = Path(__file__).resolve().parents[2]
ROLES = """
[people]
"ada@example.org" = "admin"
"rob@example.org" = "runner"
"eve@example.org" = "none"
"""
PEOPLE = {
    "ada@example.org": {"email_verified": True},
    "rob@example.org": {},
    "vera@example.org": {},
    "eve@example.org": {},
    "ADA@example.org ": {"email_verified": False},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Workspace]]:
    """The app as `sstmerge serve` starts it on a workspace that has secrets.toml and roles.toml."""
    pytest.importorskip("authlib")
    pytest.importorskip("httpx")
    workspace = fill(Workspace(tmp_path_factory.mktemp("team")), samples=2)
    (workspace.root / "roles.toml").write_text(ROLES)
    address = f"http://localhost:{(port := free_port())}"
    with provider(PEOPLE) as known:
        (workspace.root / "secrets.toml").write_text(secrets_toml(known, address))
        command = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", str(port)]
        command += ["--server.headless", "true", "--secrets.files", str(workspace.root / "secrets.toml")]
        environment = os.environ | {"SSTMERGE_WORKSPACE": str(workspace.root)}
        with running(command, f"{address}/_stcore/health", folder=ROOT, environment=environment):
            yield address, workspace


@pytest.fixture
def signed_in(server: tuple[str, Workspace], new_page: Callable[..., Any]) -> Callable[..., Any]:
    """``signed_in("ada@example.org", "/sweep")``: a browser in which that person has signed in and opened a page."""

    def go(who: str, path: str = "/", **look: Any) -> Any:
        page = new_page(**look)
        page.set_default_timeout(20_000)
        page.goto(server[0])
        page.get_by_role("button", name="Sign in").click()
        page.get_by_role("link", name=who, exact=True).click()
        page.wait_for_url(f"{server[0]}/**")
        page.get_by_role("button", name="Sign out").wait_for()
        if path != "/":
            page.goto(f"{server[0]}{path}")
        return page

    return go


@pytest.fixture
def busy() -> Iterator[Process]:
    """A process that does nothing, in a group of its own."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True)
    yield Process.of(child.pid)
    child.communicate(b"\n")


def queued(workspace: Workspace, worker: Process, *users: str) -> list[str]:
    """The ids of jobs of `users`; the first is run by `worker`, so that the others wait."""
    queue, names = Queue(workspace), [f"job-{user.partition('@')[0]}" for user in users]
    for name, user in zip(names, users, strict=True):
        queue.add(name, kind="merge", name=f"of {user}", user=user, device="taken", spec={}, run_ids=[])
        assert queue.adopt(name, worker) == (name == names[0])
    return names


def test_a_stranger_sees_nothing_on_any_page(server, new_page):
    page = new_page()
    for path in ("", "/run", "/query", "/adapters"):
        page.goto(f"{server[0]}{path}")
        page.get_by_role("button", name="Sign in").wait_for()
        text = page.inner_text("body")
        assert "A5" not in text and "SELECT" not in text and "Overview" not in text


def test_who_has_the_role_none_is_told_so_and_sees_nothing(signed_in):
    page = signed_in("eve@example.org")
    page.get_by_text("which has no role here").wait_for()
    assert "A5" not in page.inner_text("body")


def test_a_viewer_reads_and_asks_and_can_start_nothing(signed_in, server):
    page = signed_in("vera@example.org", "/query?sql=SELECT%2042%20AS%20answer")
    page.get_by_text("1 row in").wait_for()
    page.goto(f"{server[0]}/adapters")
    page.get_by_text(re.compile("vera@.?example.org · viewer")).wait_for()  # a word joiner keeps it from being a link
    page.get_by_text("Add an adapter").click()
    add = page.get_by_role("button", name="Add", exact=True).first
    add.wait_for()
    assert add.is_disabled()
    why = page.get_by_text("takes the role runner")
    for _ in range(20):  # a page that is drawn again under the pointer drops the tooltip
        page.mouse.move(0, 0)
        add.hover(force=True)
        page.wait_for_timeout(300)
        if why.count():
            break
    assert why.first.is_visible()


def test_an_address_that_the_provider_has_not_verified_gets_nobodys_role(signed_in):
    page = signed_in("ADA@example.org ")
    page.get_by_text("· viewer").wait_for()


def test_a_runner_cancels_jobs_of_their_own_and_it_is_recorded(signed_in, server, busy):
    _, workspace = server
    other, own = queued(workspace, busy, "vera@example.org", "rob@example.org")
    page = signed_in("rob@example.org", "/sweep")
    drawn(page, ".st-key-footer")
    page.locator(f".st-key-queue-{own}-cancel button").first.click()
    page.locator(f".st-key-queue-{own}-cancel").wait_for(state="detached")
    states = {job.job_id: job.state for job in jobs.jobs(workspace)}
    assert (states[own], states[other]) == ("cancelled", "running")
    assert audit.entries(workspace)[0]["user"] == "rob@example.org"


def test_signing_out_closes_the_door(signed_in, server):
    page = signed_in("ada@example.org")
    page.get_by_text("· admin").wait_for()
    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("button", name="Sign in").wait_for()
