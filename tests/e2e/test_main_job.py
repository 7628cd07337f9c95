"""The main job as a newcomer and a user do it: a real browser, the bundled model and adapters, real merges.

One workspace, one server: the walk finds it fresh, what comes after finds the base's own answers there already.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.browser import chromium, drawn, serving
from benchmarks.path import ALPHAS, MOST_CLICKS, go, prepare

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
        reason="no Chromium on this machine: apt-get install chromium",
    ),
]
PROMPTS = 2
MERGE = f"merge?utility=A5&safety=A7&method=linear&alpha=0.55&n={PROMPTS}"
POINTS = """() => [...document.querySelectorAll('.js-plotly-plot')].flatMap(plot => plot._fullData || [])
    .filter(trace => (trace.mode || '').includes('markers') && trace.x && trace.x.length).map(trace => trace.name)"""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh workspace as `make app` prepares it."""
    return prepare(tmp_path_factory.mktemp("demo") / "workspace")


@pytest.fixture(scope="module")
def address(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("server") / "server.log"
    with serving(demo, log=log) as address:
        yield address
    assert "leaked" not in log.read_text(), "DuckDB's bindings took a frozen object for a leak"


def test_from_a_fresh_workspace_to_a_shared_curve_in_eight_clicks(
    address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with chromium() as browser:
        walk = go(address, browser, PROMPTS)
    with capsys.disabled():  # whether that is below five minutes is for benchmarks/path.py on a quiet machine to say
        print(f"\n{len(walk.clicks)} clicks, {walk.seconds:.0f} s from the first page to a colleague's curve:")
        print("\n".join(walk.clicks))
    assert len(walk.clicks) <= MOST_CLICKS
    assert walk.told == ["Sweep A5_A7: 5 runs: done"]
    assert walk.link.startswith(f"{address}/alpha_curves?pair=A5_A7")
    assert ALPHAS in walk.curves


def test_a_user_merges_sees_the_point_shares_the_curve_and_queries_it(address: str, demo: Path) -> None:
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(f"{address}/{MERGE}")
        page.locator(".st-key-merge-launch button").first.click()
        page.get_by_role("button", name=re.compile(r"Cancel$")).wait_for(timeout=30_000)
        watched = page.url
        page.reload()  # the job goes on, and the reloaded page watches it
        page.get_by_role("button", name=re.compile(r"Adapter \(zip\)$")).wait_for(timeout=400_000)
        assert "job=" in watched and page.locator('[data-testid="stException"]').count() == 0
        page.wait_for_selector('[data-testid="stApp"][data-test-script-state="notRunning"]')
        with page.expect_download() as download:
            page.get_by_role("button", name=re.compile(r"Adapter \(zip\)$")).click()
        assert Path(download.value.path()).stat().st_size > 1_000_000

        page.goto(f"{address}/pareto?pair=A5_A7")
        drawn(page, ".js-plotly-plot")
        assert any("Linear" in (name or "") for name in page.evaluate(POINTS))

        page.goto(f"{address}/alpha_curves?pair=A5_A7&method=linear")
        drawn(page, ".js-plotly-plot")
        page.get_by_role("button", name=re.compile(r"Share$")).click()
        link = page.locator('[data-testid="stCode"]').first.inner_text().strip()
        assert link.startswith("http") and "pair=A5_A7" in link

        colleague = browser.new_context().new_page()
        colleague.goto(link)
        drawn(colleague, ".js-plotly-plot")
        assert any("Linear" in (name or "") for name in colleague.evaluate(POINTS))

        sql = "SELECT count(*) AS merges FROM runs WHERE method='linear' AND round(alpha,2)=0.55 AND status='finished'"
        colleague.goto(f"{address}/query?sql={sql}")
        colleague.get_by_text(re.compile(r"^1 row in")).first.wait_for(timeout=30_000)
        with colleague.expect_download() as table:
            colleague.get_by_role("button", name=re.compile("CSV ·")).click()
        assert Path(table.value.path()).read_text().split() == ["merges", "1"]

    records = [json.loads(path.read_text())["recipe"] for path in demo.glob("runs/*/artifacts/adapter/sstmerge.json")]
    merged = [(record["method"], record["parameters"]["alpha"]) for record in records]
    assert sorted(merged) == [("linear", alpha) for alpha in sorted([*ALPHAS, 0.55])]
