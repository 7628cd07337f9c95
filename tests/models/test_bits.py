"""Bases in 8 and 4 bits: what is refused in words before a launch, and what bitsandbytes answers where it is there."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from sstmerge_core import adapters, catalog
from sstmerge_core.builder import preflight
from sstmerge_core.errors import DataError, RecipeError
from sstmerge_core.models import bits
from sstmerge_core.models.resident import ResidentModel
from sstmerge_core.recipe import Evaluation, Recipe, Source
from tests.tiny_models import build_base, make_adapter

HERE = importlib.util.find_spec("bitsandbytes") is not None
with_tool = pytest.mark.skipif(not HERE, reason="bitsandbytes is not installed")
without_tool = pytest.mark.skipif(HERE, reason="bitsandbytes is installed")
IDS = torch.tensor([[3, 7, 9, 20, 44, 51, 60, 8]])


@pytest.fixture
def inputs(tiny_base: Path, tiny_pair: tuple[Path, Path]):
    utility = catalog.entry(tiny_pair[0], name="U", role="utility", suite="facts")
    return catalog.base_at(tiny_base), (utility,), catalog.entry(tiny_pair[1], name="S", role="safety")


def quantised(base: Path, folder: Path, method: str) -> Path:
    shutil.copytree(base, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": method}}))
    return folder


@pytest.mark.parametrize("method", ["gptq", "awq", "fp8", "mxfp4"])
def test_a_base_that_another_tool_quantised_is_refused_by_that_tools_name(method, tiny_base, tiny_pair, tmp_path):
    base = quantised(tiny_base, tmp_path / "base", method)
    report = adapters.check_many(base, {"utility": tiny_pair[0]})
    assert len(report.problems) == 1 and method in report.problems[0].fault
    with pytest.raises(DataError, match=method) as error:
        ResidentModel.load(base, "float32", "cpu")
    assert len(error.value.problems) == 1


def test_a_folder_of_gguf_is_said_to_be_one(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model-Q4_K_M.gguf").write_bytes(b"GGUF")
    with pytest.raises(DataError, match=r"model-Q4_K_M\.gguf, a GGUF file"):
        adapters.read_base(tmp_path)


@without_tool
def test_bits_without_the_tool_are_refused_before_a_launch(inputs):
    with pytest.raises(RecipeError, match=r"sstmerge\[bits\]"):
        preflight.merge_recipe(inputs[0], inputs[1], inputs[2], "linear", {}, preflight.Options(n=4, bits=4))


def test_what_a_quantised_base_cannot_do_is_said_in_words(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert "no gradients" in str(bits.problem("base b", "bitsandbytes", None, gradients="SST-Merge"))
    assert "already" in str(bits.problem("base b", "bitsandbytes", 8))
    assert bits.problem("base b", "bitsandbytes", None) is None
    assert bits.problem("base b", "", 4, gradients="SST-Merge") is None, "the gradients are those of the floats"


def test_a_run_keeps_its_id_until_bits_are_asked_for():
    one = Evaluation(suites=())
    assert "bits" not in one.model_dump()
    about: dict[str, Any] = {
        "base": Source(name="b", path="b", sha256="1"),
        "adapters": (),
        "method": "base",
        "parameters": {},
    }
    ids = {Recipe(**about, evaluation=one.model_copy(update={"bits": said})).run_id for said in (None, 8, 4)}
    assert len(ids) == 3 and Recipe(**about, evaluation=one).run_id in ids


@pytest.fixture
def wide(tmp_path: Path) -> tuple[Path, Path]:
    """A base as wide as a block of 4-bit numbers, and an adapter of it."""
    base = build_base("llama", tmp_path / "wide", hidden_size=64, intermediate_size=128, head_dim=32)
    return base, make_adapter(base, tmp_path / "of-it", 1)


@with_tool
@pytest.mark.parametrize("few", [8, 4])
def test_a_merge_works_beside_quantised_weights_and_comes_off_again(few, wide):
    float_model = ResidentModel.load(wide[0], "float32", "cpu")
    model = ResidentModel.load(wide[0], "float32", "cpu", bits=few)
    assert model.quantised
    factors = adapters.read(wide[1]).load()
    sides = {name: lambda own=own: (own.a, own.scaling * own.b) for name, own in factors.items()}
    with torch.no_grad():
        plain = model.model(input_ids=IDS).logits
        assert not torch.equal(plain, float_model.model(input_ids=IDS).logits)
        model.set_delta(None, sides)
        moved = model.model(input_ids=IDS).logits
        float_model.set_delta(None, sides)
        wanted = float_model.model(input_ids=IDS).logits
        model.set_delta(None)
        assert torch.equal(model.model(input_ids=IDS).logits, plain)
    assert float((moved - wanted).norm() / wanted.norm()) < 0.3 < float((plain - wanted).norm() / wanted.norm())


@with_tool
def test_a_base_saved_in_four_bits_is_checked_and_loaded(wide, tmp_path):
    model = ResidentModel.load(wide[0], "float32", "cpu", bits=4)
    folder = tmp_path / "saved"
    model.model.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    report = adapters.check_many(folder, {"utility": wide[1]})
    assert report.compatible, report.problems
    again = ResidentModel.load(folder, "float32", "cpu")
    with torch.no_grad():
        assert torch.equal(again.model(input_ids=IDS).logits, model.model(input_ids=IDS).logits)


@with_tool
def test_a_run_in_eight_bits_is_measured_beside_the_one_of_the_floats(wide, tmp_path):
    from sstmerge_core.runs.execute import execute
    from sstmerge_core.store.events import read_events
    from sstmerge_core.workspace import Workspace

    workspace = Workspace(tmp_path / "w").create()
    utility = catalog.entry(wide[1], name="U", role="utility", suite="facts")
    safety = catalog.entry(make_adapter(wide[0], tmp_path / "S", 2), name="S", role="safety")
    found = {}
    for few in (None, 8):
        options = preflight.Options(n=2, utility_tokens=4, bits=few)
        one = preflight.merge_recipe(catalog.base_at(wide[0]), (utility,), safety, "ties", {}, options)
        execute([one], workspace, device="cpu")
        rows = [row for event in read_events(workspace.run(one.run_id)) for row in event.get("rows", [])]
        found[few] = {row["metric"] for row in rows if "metric" in row}
    assert {"resistance", "over_refusal"} <= found[None] == found[8]
