"""Architectures that people bring: text parts of multimodal models, experts of mixtures, old and new names."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests.architectures import ARCHITECTURES, measured
from tests.there import there

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def table():
    """The module that writes the document."""
    spec = there(importlib.util.spec_from_file_location("architectures_page", ROOT / "docs" / "architectures.py"))
    module = importlib.util.module_from_spec(spec)
    there(spec.loader).exec_module(module)
    return module


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_what_the_table_says_of_an_architecture_is_what_happens(name, table, tmp_path):
    written = (ROOT / "docs" / "architectures.md").read_text().splitlines()
    for row in table.rows(measured(name, tmp_path)):
        assert row in written, row
