"""Rows of prompt files are kept from one reading to the next, and never beyond a change of the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from sstmerge_core.suites import rows
from sstmerge_core.suites.columns import Columns


def test_a_file_is_read_once_and_anew_when_it_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "is_settled", lambda path: True)
    read: list[Path] = []
    own = rows._read

    def counted(path: Path, columns: Columns | None, limit: int | None) -> list[rows.Row]:
        read.append(path)
        return own(path, columns, limit)

    monkeypatch.setattr(rows, "_read", counted)
    path = tmp_path / "x.csv"
    path.write_text("prompt,response\nq,a\n")
    first = rows.read_rows(path)
    first.clear()  # what a caller does with its list is its own affair
    assert [row.prompt for row in rows.read_rows(path)] == ["q"] and len(read) == 1
    path.write_text("prompt,response\nanother,a\n")
    assert [row.prompt for row in rows.read_rows(path)] == ["another"] and len(read) == 2


def test_a_file_that_was_just_written_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "is_settled", lambda path: False)
    monkeypatch.setattr(rows, "_kept", lambda *_: pytest.fail("kept though a further change might not show"))
    path = tmp_path / "x.csv"
    path.write_text("prompt,response\nq,a\n")
    assert [row.prompt for row in rows.read_rows(path)] == ["q"]
