"""Prompts and rows longer than the positions of the model."""

from __future__ import annotations

import pytest
import torch

from sstmerge_core import adapters
from sstmerge_core.errors import DataError
from sstmerge_core.evaluate.generate import generate_suite, plan_batches
from sstmerge_core.fisher import core_gradients
from sstmerge_core.models.resident import ResidentModel
from sstmerge_core.space import core_space
from sstmerge_core.suites.rows import Row
from tests.tiny_models import build_base, make_adapter


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def model(request, tmp_path_factory) -> ResidentModel:
    size = {"n_positions": 40} if request.param == "gpt2" else {"max_position_embeddings": 40}
    return ResidentModel.load(build_base(request.param, tmp_path_factory.mktemp("b") / "base", **size), device="cpu")


def row(name: str, words: int) -> Row:
    return Row(prompt_id=name, prompt=" ".join(["w1"] * words), response="w2", topic="")


def test_a_prompt_without_room_for_its_answer_is_refused_by_its_id_before_any_is_answered(model):
    rows = [row("short", 3), row("long", 60), row("longer", 70), row("full", 30)]
    with pytest.raises(DataError) as caught:
        plan_batches(rows, model, 4, 8)
    (problem,) = caught.value.problems
    assert problem.where == "prompt longer" and "more than the model's 40" in problem.fault
    assert "So have 2 others" in problem.fix and "\n" not in str(problem)


def test_a_prompt_that_fits_exactly_is_answered(model):
    fits = next(
        words
        for words in range(30, 0, -1)
        if len(model.tokenizer(model.chat(row("x", words).prompt))["input_ids"]) <= 32
    )
    rows = [row("a", fits), row("b", 2)]
    plan = plan_batches(rows, model, 2, 8)
    assert len([one for _, _, batch in generate_suite(model, rows, plan, (), 8) for one in batch]) == 2


def test_rows_of_gradients_are_cut_to_the_positions_and_keep_their_answers(tmp_path):
    base = build_base("gpt2", tmp_path / "base", n_positions=40)
    adapter = adapters.read(make_adapter(base, tmp_path / "A", 1, target_modules=["c_attn"]))
    model = ResidentModel.load(base, device="cpu")
    space = core_space([adapter.load()])
    found = core_gradients(model.model, model.tokenizer, space, [("w1 " * 200, "w2 w3")], max_length=256)
    cut = core_gradients(model.model, model.tokenizer, space, [("w1 " * 200, "w2 w3")], max_length=40)
    assert torch.equal(found.rows, cut.rows) and float(found.rows.abs().max()) > 0
