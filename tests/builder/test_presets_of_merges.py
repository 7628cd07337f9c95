from __future__ import annotations

import csv

import pytest

from sstmerge_core import methods
from sstmerge_core.builder import grid, preflight, presets
from sstmerge_core.store.reported import REFERENCE


@pytest.mark.parametrize("name", presets.sweeps())
def test_every_point_of_a_sweep_preset_is_one_that_its_method_takes(name: str) -> None:
    preset = presets.sweeps()[name]
    lists = {each: grid.numbers(getattr(preset, each), where=each) for each in ("alpha", "strength")}
    ks, seeds = (grid.numbers(getattr(preset, each), where=each, whole=True) for each in ("k", "seed"))
    for method in preset.methods:
        points = preflight.grid(method, lists["alpha"], lists["strength"], ks, seeds)
        assert points and all(not methods.get(method).problems(point) for point in points)


@pytest.mark.parametrize("name", presets.merges())
def test_every_merge_preset_is_one_that_its_method_takes(name: str) -> None:
    preset = presets.merges()[name]
    assert methods.get(preset.method).problems(preset.parameters) == []


def test_the_reports_grid_is_that_of_its_table() -> None:
    with open(REFERENCE / "sst_merge_report.csv", newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["table"] == "detail"]
    preset = presets.sweeps()["report_2026_01"]
    assert grid.numbers(preset.alpha, where="alpha") == sorted({float(row["alpha"]) for row in rows if row["alpha"]})
    assert grid.numbers(preset.k, where="k", whole=True) == sorted({int(row["k"]) for row in rows if row["k"]})
    reported = {row["method"] for row in rows} - {"adapter", "base"}
    assert {name.replace("sst_gevp", "sst_reported") for name in preset.methods} == reported


def test_the_quick_sweep_has_five_points() -> None:
    quick = presets.sweeps()["quick"]
    assert len(quick.methods) == 1 and len(grid.numbers(quick.alpha, where="alpha")) == 5
