"""Modules that changed far more than their like."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sstmerge_core import adapters, resources
from sstmerge_core.adapters import scan
from sstmerge_core.adapters.places import WEIGHTS

DEMO = resources.DATA / "demo" / "adapters"


def test_the_norm_is_that_of_the_dense_update(tiny_pair) -> None:
    adapter = adapters.read(tiny_pair[0])
    found = scan.norms(adapter)
    for name, factors in adapter.load().items():
        dense = factors.scaling * factors.b.double() @ factors.a.double()
        assert found[name] == pytest.approx(torch.linalg.norm(dense).item(), rel=1e-9)


@pytest.mark.parametrize("name", ["A5", "A7"])
def test_an_adapter_that_was_trained_as_usual_has_no_module_that_stands_out(name: str) -> None:
    assert scan.doubts(adapters.read(DEMO / name)) == []


def test_a_module_that_was_blown_up_is_named_with_how_much_it_changes(tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    shutil.copytree(DEMO / "A5", folder)
    tensors = load_file(folder / WEIGHTS)
    name = "base_model.model.model.layers.7.self_attn.v_proj.lora_B.weight"
    tensors[name] = tensors[name] * 40
    save_file(tensors, folder / WEIGHTS)
    (first, *_) = scan.outliers(scan.norms(adapters.read(folder)))
    assert first.module == "model.layers.7.self_attn.v_proj" and first.times > 20
    (problem,) = scan.doubts(adapters.read(folder), "utility")
    assert problem.where == "utility adapter" and first.module in problem.fault
    tensors[name] = tensors[name] / 40
    save_file(tensors, folder / WEIGHTS)  # what was remembered of the file before does not stay
    assert scan.doubts(adapters.read(folder)) == []


def test_few_modules_of_a_kind_and_equal_ones_tell_nothing() -> None:
    assert scan.outliers({f"layers.{i}.q": 1.0 for i in range(5)} | {"layers.9.q": 0.0}) == []
    alike = {f"layers.{i}.q": 1.0 for i in range(9)}
    assert scan.outliers(alike | {"layers.9.q": 3.9}) == []
    (one,) = scan.outliers(alike | {"layers.9.q": 4.1, "layers.0.k": 100.0})
    assert (one.module, one.usual) == ("layers.9.q", 1.0)
