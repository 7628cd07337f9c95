from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from sstmerge_core import adapters
from sstmerge_core.fisher import cache, core_gradients
from sstmerge_core.space import core_space
from sstmerge_core.supervised import collate, encode, sample_losses
from sstmerge_core.workspace import Workspace

ROWS = [("w1 w2 w3", "w4 w5"), ("w6", "w7 w8 w9 w10"), ("w1 w1 w2 w2 w3 w3", "w11"), ("w20 w21", "w22 w23 w24")]


@pytest.fixture
def model(tiny_base):
    return AutoModelForCausalLM.from_pretrained(tiny_base)


@pytest.fixture
def tokenizer(tiny_base):
    return AutoTokenizer.from_pretrained(tiny_base)


def test_gradients_by_hooks_are_autograds_gradients_in_core_coordinates(model, tokenizer, tiny_pair):
    space = core_space([adapters.read(path).load() for path in tiny_pair])
    found = core_gradients(model, tokenizer, space, ROWS, batch_size=3)
    for index, (prompt, response) in enumerate(ROWS):
        model.zero_grad()
        batch = collate([encode(tokenizer, prompt, response, 256)], 1)
        losses, counts = sample_losses(model, batch)
        losses.sum().backward()
        assert float(found.tokens[index]) == float(counts[0])
        for name, module in space.items():
            expected = module.q_out.T @ model.get_submodule(name).weight.grad @ module.q_in
            assert torch.allclose(found.modules[name][index], expected, atol=2e-6)


def test_a_sample_loss_does_not_depend_on_its_neighbours_in_the_batch(model, tokenizer):
    encoded = [encode(tokenizer, prompt, response, 256) for prompt, response in ROWS]
    together, _ = sample_losses(model, collate(encoded, 1))
    alone = torch.cat([sample_losses(model, collate([one], 1))[0] for one in encoded])
    assert torch.allclose(together, alone, atol=1e-5)


def test_the_loss_is_the_mean_over_response_tokens_and_eos(model, tokenizer):
    ids, prompt_length = encode(tokenizer, *ROWS[1], 256)
    losses, counts = sample_losses(model, collate([(ids, prompt_length)], 1))
    logits = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    expected = -sum(logits[t - 1, ids[t]] for t in range(prompt_length, len(ids))) / (len(ids) - prompt_length)
    assert ids[-1] == tokenizer.eos_token_id
    assert float(counts[0]) == 5
    assert float(losses[0]) == pytest.approx(float(expected), rel=1e-5)


def test_the_pass_leaves_the_model_as_it_was(model, tokenizer, tiny_pair):
    space = core_space([adapters.read(path).load() for path in tiny_pair])
    model.train()
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    core_gradients(model, tokenizer, space, ROWS)
    assert model.training
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad and parameter.grad is None and torch.equal(parameter, before[name])
    assert not any(module._forward_hooks for module in model.modules())


def test_cached_gradients_come_back_bit_for_bit(model, tokenizer, tiny_pair, tmp_path):
    space = core_space([adapters.read(path).load() for path in tiny_pair])
    found = core_gradients(model, tokenizer, space, ROWS)
    workspace = Workspace(tmp_path)
    entry = cache.key(base="x", rows="y")
    assert cache.load(workspace, entry) is None
    cache.save(workspace, entry, found, {"base": "x"})
    again = cache.load(workspace, entry)
    assert torch.equal(again.tokens, found.tokens)
    assert all(torch.equal(again.modules[name], found.modules[name]) for name in space)
