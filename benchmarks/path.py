"""How long a newcomer needs from a fresh workspace to an α curve that a colleague sees: clicks and seconds.

    python -m benchmarks.path

Prepares a workspace as `make app` does, then goes through the dashboard in a real browser: a sweep of five α on the
bundled model, its curve, the link, a colleague's telephone. The seconds are from the first page to the colleague's
curve; there is no peer, but a time that is allowed. One JSON object.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.browser import ROOT, chromium, drawn, serving
from benchmarks.lines import Line, parser, report, within

MOST_CLICKS = 8
ALLOWED = 300.0
"""Seconds"""
PROMPTS = 4
"""Of each set, so that the walk is short; the page's own quick preset takes more"""
ALPHAS = [0.1, 0.3, 0.5, 0.7, 0.9]
_BROWSER = """
    localStorage.setItem("sstmerge.notify", "1");
    window.told = [];
    window.Notification = class { constructor(title) { window.told.push(title); } };
    window.Notification.permission = "granted";
"""
"""A browser whose notifications are allowed, and remembered instead of shown"""
_LINEAR = """() => [...document.querySelectorAll('.js-plotly-plot')].flatMap(plot => plot._fullData || [])
    .filter(trace => (trace.name || '').includes('Linear') && trace.x && trace.x.length > 1)
    .map(trace => [...trace.x].map(x => Math.round(x * 100) / 100))"""


@dataclass
class Walk:
    """What a hand did, and what was seen."""

    clicks: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    told: list[str] = field(default_factory=list)
    """Titles of the browser's notifications"""
    link: str = ""
    curves: list[list[float]] = field(default_factory=list)
    """The α of each linear curve that the colleague sees"""

    def press(self, what: str, thing: Any, **options: Any) -> None:
        thing.click(**options)
        self.clicks.append(f"{time.monotonic() - self.started:5.1f} s  {what}")


def main() -> int:
    parser(__doc__).parse_args()
    return report(figures())


def figures() -> Iterator[Line]:
    with tempfile.TemporaryDirectory() as folder:
        workspace = prepare(Path(folder) / "workspace")
        with serving(workspace) as address, chromium() as browser:
            walk = go(address, browser)
    print("\n".join(walk.clicks), file=sys.stderr)
    yield within(
        f"within: fresh workspace to a colleague's α curve, {len(walk.clicks)} clicks, sweep of {len(ALPHAS)} α",
        walk.seconds,
        ALLOWED,
    )


def prepare(workspace: Path) -> Path:
    """A workspace as `make app` prepares it, the base model converted."""
    command = [sys.executable, "-m", "sstmerge_core.cli", "demo", "--prepare"]
    subprocess.run(command, env=os.environ | {"SSTMERGE_WORKSPACE": str(workspace)}, cwd=ROOT, check=True)
    return workspace


def go(address: str, browser: Any, prompts_of_each: int = PROMPTS) -> Walk:
    """Walk from the first page to a colleague's curve, measured on so many prompts of each set."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.grant_permissions(["clipboard-write"])
    context.add_init_script(_BROWSER)
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.goto(address)
    walk = Walk()
    walk.press("Sweep over 5 α", page.get_by_role("button", name=re.compile("Sweep over 5 α")))
    prompts = page.get_by_role("spinbutton", name="Prompts of each set")
    walk.press("number of prompts", prompts)
    prompts.fill(str(prompts_of_each))
    prompts.press("Enter")
    page.wait_for_url(f"**n={prompts_of_each}**")
    walk.press("Start 5 runs", page.get_by_role("button", name=re.compile("Start 5 runs")))
    page.get_by_text("5 of 5 runs finished").wait_for(timeout=500_000)
    page.wait_for_function("() => window.told.length > 0")
    walk.told = page.evaluate("() => window.told")
    page.wait_for_function("() => document.title.includes('(done)')")
    walk.press("Alpha curves", page.get_by_role("button", name=re.compile("Alpha curves")))
    page.wait_for_url("**/alpha_curves?**")
    drawn(page, ".js-plotly-plot")
    walk.press("Share", page.get_by_role("button", name=re.compile("Share$")))
    code = page.get_by_test_id("stCode").first
    code.hover()
    walk.press("copy the link", code.get_by_role("button").first)
    walk.link = code.inner_text().strip()

    colleague = browser.new_context(viewport={"width": 390, "height": 844}).new_page()
    colleague.goto(walk.link)
    drawn(colleague, ".js-plotly-plot")
    walk.curves = colleague.evaluate(_LINEAR)
    walk.seconds = time.monotonic() - walk.started
    return walk


if __name__ == "__main__":
    sys.exit(main())
