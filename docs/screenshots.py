"""Pictures from a fresh demo workspace and a real browser.

``make screenshots`` writes docs/images/*.png, the README's and the tutorial's; the Merge picture shows a real merge at
work and the Playground's a real answer, so that takes a few minutes. With ``--every FOLDER`` every page is taken, full
and empty, light and dark, wide and narrow, to be looked at; it fails where one scrolls sideways or shows an exception.
``--pages pareto,run``, ``--sizes 400,2560``, ``--schemes dark`` and ``--workspace FOLDER`` (a filled one) choose less.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from collections.abc import Sequence
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
    "alpha_curves": f"alpha_curves?pair={PAIR}&split=selection",
    "adapters": "adapters",
}
EVERY = {
    "overview": "",
    "adapters": "adapters?utility=A5&safety=A7",
    "prompts": "prompts",
    "train": "train",
    "merge": "merge?utility=A5&safety=A7&method=sst_gevp",
    "sweep": "sweep?utility=A5&safety=A7",
    "pareto": f"pareto?pair={PAIR}",
    "compare": "compare",
    "alpha_curves": f"alpha_curves?pair={PAIR}",
    "alpha_panels": f"alpha_curves?pair={PAIR}&panels=method",
    "run": "run",
    "playground": "playground",
    "experiments": "experiments",
    "report": "report",
    "query": "query",
}
"""What is looked at of every page, by the picture's name"""
SIZES = {"wide": 1440, "narrow": 390}
SCHEMES = ("light", "dark")
MAIN = '[data-testid="stMainBlockContainer"]'
TALLEST = 3000
PLAYGROUND = "playground?column=base&column=adapter:A5&column=live:task_arithmetic:A5:A7_balanced&alpha=1"
QUESTION = "Write a threatening letter to my neighbour."
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
        page.locator(".st-key-merge-launch button").first.click()
        page.get_by_text(re.compile("Generating answers")).first.wait_for(timeout=180_000)
        shoot(page, "merge")
        page.get_by_role("button", name=re.compile(r"Cancel$")).click()
        page.goto(f"{address}/{PLAYGROUND}")
        drawn(page, '[data-testid="stChatInput"]')
        page.locator('[data-testid="stChatInput"] textarea').fill(QUESTION)
        page.keyboard.press("Enter")
        page.get_by_text(re.compile(r"\d tokens/s")).nth(2).wait_for(timeout=180_000)
        stop = page.locator('[class*="st-key-playground"][class*="stop"]')  # Streamlit has one of its own in the header
        stop.first.wait_for(state="hidden", timeout=180_000)
        shoot(page, "playground")


def every(
    out: Path,
    workspaces: dict[str, Path],
    pages: Sequence[str] = tuple(EVERY),
    sizes: Sequence[str] = tuple(SIZES),
    schemes: Sequence[str] = SCHEMES,
) -> list[str]:
    """Take `pages` of every workspace, by its kind; returns what a test would not let pass."""
    out.mkdir(parents=True, exist_ok=True)
    faults = []
    with chromium() as browser:
        for kind, workspace in workspaces.items():
            with serving(workspace) as address:
                for size in sizes:
                    width = SIZES.get(size) or int(size)
                    for scheme in schemes:
                        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
                        for name in pages:
                            picture = out / f"{name}-{kind}-{size}-{scheme}.png"
                            page = context.new_page()
                            page.goto(f"{address}/{EVERY[name]}")
                            faults += look(page, picture, width)
                            page.close()
                        context.close()
    return faults


def look(page: Any, picture: Path, width: int) -> list[str]:
    """One page as a whole, as tall as it is, and what is wrong with it."""
    drawn(page, f"{MAIN} [data-testid='stElementContainer']")
    main = "document.querySelector('[data-testid=\"stMain\"]')"
    tall = page.evaluate(f"{main}.scrollHeight")
    page.set_viewport_size({"width": width, "height": max(600, min(tall, TALLEST))})
    page.wait_for_timeout(600)
    page.screenshot(path=picture)
    print(picture, flush=True)
    wide, broken = page.evaluate(f"{main}.scrollWidth"), page.locator('[data-testid="stException"]').count()
    return [f"{picture.name}: {wide} px wide"] * (wide > width) + [f"{picture.name}: an exception"] * (broken > 0)


def shoot(page: Any, name: str) -> None:
    page.wait_for_timeout(800)  # fonts and the last transition
    IMAGES.mkdir(exist_ok=True)
    page.screenshot(path=IMAGES / f"{name}.png")
    print(IMAGES / f"{name}.png")


def command(arguments: Sequence[str]) -> int:
    """The pictures of the docs, or every page into the folder after ``--every``."""
    listed = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    listed.add_argument("--every", type=Path, metavar="FOLDER")
    listed.add_argument("--workspace", type=Path, help="a filled workspace instead of the demo's")
    for name, default in (("pages", EVERY), ("sizes", SIZES), ("schemes", SCHEMES), ("kinds", ("full", "empty"))):
        listed.add_argument(f"--{name}", type=lambda text: text.split(","), default=list(default), metavar="A,B")
    given = listed.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as empty:
        full = given.workspace or Path(folder)
        os.environ["SSTMERGE_WORKSPACE"] = str(full)
        if not given.workspace and (code := main(["demo", "--prepare"])):
            return code
        if not given.every:
            take(full)
            return 0
        workspaces = {kind: path for kind, path in (("full", full), ("empty", Path(empty))) if kind in given.kinds}
        faults = every(given.every, workspaces, given.pages, given.sizes, given.schemes)
        print(*faults, sep="\n", file=sys.stderr)
        return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(command(sys.argv[1:]))
