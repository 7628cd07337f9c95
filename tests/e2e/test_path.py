"""From a fresh workspace to a shared α-curve link, as a newcomer goes: counted in clicks and timed."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.browser import chromium, drawn, serving
from sstmerge_core.cli import main

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
        reason="no Chromium on this machine: apt-get install chromium",
    ),
]
MOST_CLICKS = 8
MOST_SECONDS = 300
PROMPTS = 4
"""Of each set, so that the walk is short; the page's own quick preset takes more"""
BROWSER = """
    localStorage.setItem("sstmerge.notify", "1");
    window.told = [];
    window.Notification = class { constructor(title) { window.told.push(title); } };
    window.Notification.permission = "granted";
"""
"""A browser whose notifications are allowed, and remembered instead of shown"""
LINEAR = """() => [...document.querySelectorAll('.js-plotly-plot')].flatMap(plot => plot._fullData || [])
    .filter(trace => (trace.name || '').includes('Linear') && trace.x && trace.x.length > 1)
    .map(trace => [...trace.x].map(x => Math.round(x * 100) / 100))"""


class Walk:
    """Counts what a hand does."""

    def __init__(self) -> None:
        self.clicks: list[str] = []
        self.started = time.monotonic()

    def press(self, what: str, thing: Any, **options: Any) -> None:
        thing.click(**options)
        self.clicks.append(f"{time.monotonic() - self.started:5.1f} s  {what}")


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace as `make app` prepares it, the base model converted."""
    folder = tmp_path_factory.mktemp("path") / "workspace"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSTMERGE_WORKSPACE", str(folder))
        assert main(["demo", "--prepare"]) == 0
    return folder


def test_from_a_fresh_workspace_to_a_shared_curve_in_eight_clicks_and_five_minutes(
    fresh: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(fresh, log=tmp_path / "server.log") as address, chromium() as browser:
        context = browser.new_context(viewport={"width": 1440, "height": 900})
        context.grant_permissions(["clipboard-write"])
        context.add_init_script(BROWSER)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.goto(address)
        walk = Walk()
        walk.press("Sweep over 5 α", page.get_by_role("button", name=re.compile("Sweep over 5 α")))
        prompts = page.get_by_role("spinbutton", name="Prompts of each set")
        walk.press("number of prompts", prompts)
        prompts.fill(str(PROMPTS))
        prompts.press("Enter")
        page.wait_for_url(f"**n={PROMPTS}**")
        walk.press("Start 5 runs", page.get_by_role("button", name=re.compile("Start 5 runs")))
        page.get_by_text("5 of 5 runs finished").wait_for(timeout=500_000)
        page.wait_for_function("() => window.told.length > 0")
        assert page.evaluate("() => window.told") == ["Sweep A5_A7: 5 runs: done"]
        page.wait_for_function("() => document.title.includes('(done)')")
        walk.press("Alpha curves", page.get_by_role("button", name=re.compile("Alpha curves")))
        page.wait_for_url("**/alpha_curves?**")
        drawn(page, ".js-plotly-plot")
        walk.press("Share", page.get_by_role("button", name=re.compile("Share$")))
        code = page.get_by_test_id("stCode").first
        code.hover()
        walk.press("copy the link", code.get_by_role("button").first)
        link = code.inner_text().strip()
        assert link.startswith(f"{address}/alpha_curves?pair=A5_A7")

        colleague = browser.new_context(viewport={"width": 390, "height": 844}).new_page()
        colleague.goto(link)
        drawn(colleague, ".js-plotly-plot")
        assert [0.1, 0.3, 0.5, 0.7, 0.9] in colleague.evaluate(LINEAR)
        passed = time.monotonic() - walk.started
    with capsys.disabled():
        print(f"\n{len(walk.clicks)} clicks, {passed:.0f} s from the first page to a colleague's curve:")
        print("\n".join(walk.clicks))
    assert len(walk.clicks) <= MOST_CLICKS
    if passed > MOST_SECONDS:  # said, not failed: what else the machine does is not this program's doing
        pytest.skip(f"{len(walk.clicks)} clicks, but {passed:.0f} s on this machine now; {MOST_SECONDS} s are meant")
