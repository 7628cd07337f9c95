"""What the server has ready by the time that a browser asks is what the first page imports."""

from __future__ import annotations

from studio import launch


def test_everything_that_the_first_page_imports_is_imported_before():
    found = {name for file in launch.FIRST for name in launch.imported(launch.TOP / file)}
    assert {
        "streamlit",
        "studio.start",
        "studio.decision",
        "sstmerge_core.plots.pareto",
        "pages.parts.first_merge",
    } <= found
