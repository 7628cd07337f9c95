"""The short form of the fault suite: a seeded sample of what `make reliability` tries."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.browser import ROOT
from benchmarks.reliability import document


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, tiny_pair: tuple[Path, Path]) -> list[document.Row]:
    """The trials, in a process of its own: what forks must not have computed gradients, as this process may have."""
    folder = tmp_path_factory.mktemp("reliability")
    command = [sys.executable, "-m", "benchmarks.reliability", "--short", "--kills", "4", "--folder", str(folder)]
    command += ["--inputs", *map(str, (tiny_base, *tiny_pair))]
    done = subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, timeout=280)
    found = document.read(folder / "results.jsonl")
    assert found, done.stderr[-3000:]
    assert done.returncode == any(row["faults"] for row in found), done.stderr[-3000:]
    return found


def test_nothing_is_lost_doubled_or_different_after_a_fault(rows: list[document.Row]) -> None:
    assert [f"{row['name']}: {fault}" for row in rows for fault in row["faults"]] == []


def test_the_sample_kills_workers_and_a_server_and_resumes_to_the_end(rows: list[document.Row]) -> None:
    kinds = Counter(row["kind"] for row in rows)
    assert kinds["kill"] >= 4 and kinds["resumed"] >= 1 and kinds["damage"] == 1
    killed = [row for row in rows if row["kind"] == "kill"]
    assert {row["actor"] for row in killed} == {"worker", "server"}
    assert sum(row["stage"] == "generation" for row in killed) >= 2


def test_the_document_tells_the_numbers_of_the_trials(
    rows: list[document.Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(document, "PATH", tmp_path / "reliability.md")
    document.write(rows, 1)
    first = document.PATH.read_text()
    assert f"**{sum(row['kind'] == 'kill' for row in rows)} kills**" in first
    document.section("load", "## Load\n\nA section of another program.")
    document.write([*rows, {**rows[0], "kind": "damage", "stage": "x", "faults": ["lost: one"]}], 1)
    second = document.PATH.read_text()
    assert "A section of another program." in second and "| 1 | 0 | 0 | 0 | 0 | 0 | 0 | 0 | 0 |" in second
    assert json.dumps(first) != json.dumps(second)
