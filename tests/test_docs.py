"""What the documents promise is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sstmerge_core.cli import _parser

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "README.ja.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_document_leads_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)\s#]+)(?:#[^)]*)?\)", page.read_text())
    missing = [one for one in targets if "://" not in one and not (page.parent / one).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_a_document_names_exists(page: Path) -> None:
    known = next(action.choices for action in _parser()._actions if hasattr(action, "choices") and action.choices)
    named = set(re.findall(r"^(?:`|\s*)sstmerge ([a-z]+)", page.read_text(), re.MULTILINE))
    assert named <= set(known)
