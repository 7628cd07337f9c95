"""The README's pictures, from a fresh demo workspace and a real browser: ``make screenshots``.

Writes docs/images/*.png. The Merge picture shows a real merge at work, so this takes a minute or two.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.browser import chromium, drawn, serving
from sstmerge_core.cli import main

IMAGES = Path(__file__).with_name("images")
PAIR = "A5_A7_balanced"
PAGES = {
    "overview": "",
    "pareto": f"pareto?pair={PAIR}",
    "alpha_curves": f"alpha_curves?pair={PAIR}",
    "adapters": "adapters",
}
MERGE = "merge?utility=A5&safety=A7_balanced&method=sst_gevp&alpha=1.25&k=48"


def take(workspace: Path) -> None:
    """Take every picture on a prepared workspace."""
    with serving(workspace) as address, chromium() as browser:
        context = browser.new_context(
            viewport={"width": 1360, "height": 800}, device_scale_factor=1.5, color_scheme="light"
        )
        page = context.new_page()
        for name, path in PAGES.items():
            page.goto(f"{address}/{path}")
            drawn(page, '[data-testid="stMainBlockContainer"]')
            shoot(page, name)
        page.goto(f"{address}/{MERGE}")
        drawn(page, '[data-testid="stMainBlockContainer"]')
        page.get_by_role("button", name=re.compile(r"Merge$")).click()
        page.get_by_text(re.compile("Generating answers")).first.wait_for(timeout=180_000)
        shoot(page, "merge")
        page.get_by_role("button", name=re.compile(r"Cancel$")).click()


def shoot(page: Any, name: str) -> None:
    page.wait_for_timeout(800)  # fonts and the last transition
    IMAGES.mkdir(exist_ok=True)
    page.screenshot(path=IMAGES / f"{name}.png")
    print(IMAGES / f"{name}.png")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SSTMERGE_WORKSPACE"] = folder
        if code := main(["demo", "--prepare"]):
            sys.exit(code)
        take(Path(folder))
