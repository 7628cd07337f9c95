from __future__ import annotations

from collections.abc import Callable

import pytest
from streamlit.testing.v1 import AppTest

from sstmerge_core.workspace import Workspace

pytestmark = pytest.mark.usefixtures("one_store")

Open = Callable[..., AppTest]


def test_the_report_of_measured_runs_is_on_the_page(open_page: Open, full_workspace: Workspace) -> None:
    app = open_page(full_workspace, "report", pair="A5_A7")
    assert not app.exception and not app.error
    titles = [heading.value for heading in app.subheader]
    assert titles[0] == "Which should I ship?" and titles[1].endswith("measured here")
    assert "Is one front above another?" in titles
    assert any("run?run=" in text.value for text in app.markdown)
    assert [button.proto.label for button in app.get("download_button")] == ["Markdown", "HTML", "LaTeX"]


def test_an_empty_workspace_still_has_the_reported_figures_and_their_claims(
    open_page: Open, empty_workspace: Workspace
) -> None:
    app = open_page(empty_workspace, "report")
    assert not app.exception
    assert app.subheader[0].value == "Claims of the 2026-01 report"
    assert any("**contradiction**" in text.value for text in app.markdown)


def test_a_link_to_a_pair_that_is_not_there_says_so(open_page: Open, full_workspace: Workspace) -> None:
    app = open_page(full_workspace, "report", pair="A1_A2")
    assert not app.exception and "A1" in app.warning[0].value


def test_turning_to_the_reported_figures_turns_to_a_pair_that_has_some(
    open_page: Open, full_workspace: Workspace
) -> None:
    app = open_page(full_workspace, "report", source="reported", pair="A6_A7")
    assert not app.exception and any(heading.value == "A6\\_A7, reported" for heading in app.subheader)
