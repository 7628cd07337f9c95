"""From a fresh workspace to a shared α-curve link, as a newcomer goes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks.browser import chromium, serving
from benchmarks.path import ALPHAS, MOST_CLICKS, go, prepare

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
        reason="no Chromium on this machine: apt-get install chromium",
    ),
]


def test_from_a_fresh_workspace_to_a_shared_curve_in_eight_clicks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = prepare(tmp_path / "workspace")
    with serving(workspace, log=tmp_path / "server.log") as address, chromium() as browser:
        walk = go(address, browser)
    with capsys.disabled():  # whether that is below five minutes is for benchmarks/path.py on a quiet machine to say
        print(f"\n{len(walk.clicks)} clicks, {walk.seconds:.0f} s from the first page to a colleague's curve:")
        print("\n".join(walk.clicks))
    assert len(walk.clicks) <= MOST_CLICKS
    assert walk.told == ["Sweep A5_A7: 5 runs: done"]
    assert walk.link.startswith(f"{address}/alpha_curves?pair=A5_A7")
    assert ALPHAS in walk.curves
