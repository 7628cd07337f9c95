"""Attacks are chosen where prompts are; a link says which."""

from __future__ import annotations

from typing import Any

import pytest

from sstmerge_core.builder import preflight
from tests.pages.conftest import Open


def test_a_link_chooses_attacks_and_the_merge_is_planned_under_them(
    open_page: Open, full_workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned: list[tuple[str, ...]] = []
    plan = preflight.plan

    def noted(*given: Any, **how: Any) -> preflight.Preflight:
        planned.append(how["options"].attacks)
        return plan(*given, **how)

    monkeypatch.setattr("sstmerge_core.builder.preflight.plan", noted)
    app = open_page(full_workspace, "merge", attack=["prefill", "base64"])
    assert not app.exception
    assert app.multiselect("merge.attack").value == ["prefill", "base64"]
    assert planned[-1] == ("prefill", "base64")
    assert any("under prefill and base64" in one.label for one in app.expander)
    app.multiselect("merge.attack").set_value([]).run()
    assert planned[-1] == () and not app.exception
