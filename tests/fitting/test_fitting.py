from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from sstmerge_core import adapters, methods
from sstmerge_core.errors import Cancelled
from sstmerge_core.fitting import Checkpoint, ModelObjective, Part, coefficients, learn, side_path
from sstmerge_core.fitting.objective import minibatch
from sstmerge_core.models.supervised import Example, collate, encode, sample_losses
from sstmerge_core.space import core_space
from tests.tiny_models import ARCHITECTURES, build_base, make_adapter

ROWS = [("w1 w2 w3", "w4 w5"), ("w6", "w7 w8 w9 w10"), ("w1 w1 w2 w2 w3 w3", "w11"), ("w20 w21", "w22 w23 w24")]
HARM, NEAR, BENIGN = (
    [Example(f"{prompt} {word}", answer) for prompt, answer in ROWS] for word in ("w50", "w51", "w52")
)
LEARNED = [own.name for own in methods.methods() if own.kind == "learned"]


@pytest.fixture(scope="module")
def space(tiny_pair):
    return core_space([adapters.read(path).load() for path in tiny_pair])


@pytest.fixture
def model(tiny_base):
    return AutoModelForCausalLM.from_pretrained(tiny_base)


@pytest.fixture
def objective(model, tiny_base, space):
    parts = {"harm": Part(HARM, 1.0), "near": Part(NEAR, 0.5), "benign": Part(BENIGN, 2.0)}
    return ModelObjective(model, AutoTokenizer.from_pretrained(tiny_base), space, parts, batch=3, seed=5)


def random_cores(space, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: 0.3 * torch.randn(own.cores[0].shape, generator=generator) for name, own in space.items()}


def kept_the_other_way_round(layer):
    return isinstance(layer, torch.nn.Embedding) or type(layer).__name__ == "Conv1D"


def dense_gradient(base, space, cores, rows):
    """Loss of a model whose weights are base + ΔW, and autograd's derivative by the whole weights, in core space."""
    model = AutoModelForCausalLM.from_pretrained(base)
    layers: dict[str, Any] = {name: model.get_submodule(name) for name in space}
    for name, core in cores.items():
        layer = layers[name]
        delta = space[name].delta(core)
        turned = kept_the_other_way_round(layer)
        layer.padding_idx = None  # autograd would leave the padding token out, which is also the end of an answer
        layer.weight = torch.nn.Parameter(layer.weight.detach() + (delta.T if turned else delta))
    loss = sample_losses(model.eval(), collate(rows, 1))[0].mean()
    loss.backward()
    found = {}
    for name, module in space.items():
        layer = layers[name]
        gradient = layer.weight.grad.T if kept_the_other_way_round(layer) else layer.weight.grad
        found[name] = module.q_out.T @ gradient @ module.q_in
    return float(loss.detach()), found


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_side_path_has_the_loss_and_the_gradient_of_a_dense_update(architecture, tmp_path):
    base = build_base(architecture, tmp_path / "base")
    targets = "all-linear" if architecture == "phi3" else _with_embedding(architecture)
    pair = [make_adapter(base, tmp_path / str(seed), seed, target_modules=targets) for seed in (1, 2)]
    space = core_space([adapters.read(path).load() for path in pair])
    tokenizer = AutoTokenizer.from_pretrained(base)
    rows = [encode(tokenizer, prompt, answer, 256) for prompt, answer in ROWS]
    cores = random_cores(space)
    leaves = {name: core.clone().requires_grad_() for name, core in cores.items()}
    model = AutoModelForCausalLM.from_pretrained(base).eval().requires_grad_(False)
    with side_path(model, space, leaves):
        loss = sample_losses(model, collate(rows, 1))[0].mean()
        loss.backward()
    expected_loss, expected = dense_gradient(base, space, cores, rows)
    assert float(loss.detach()) == pytest.approx(expected_loss, rel=1e-5)
    for name, leaf in leaves.items():
        assert float((leaf.grad - expected[name]).norm()) <= 1e-5 * float(expected[name].norm()) + 1e-7, name
    assert not any(module._forward_hooks for module in model.modules())


def _with_embedding(architecture):
    return ["wte", "c_attn", "c_proj"] if architecture == "gpt2" else ["embed_tokens", "q_proj", "down_proj"]


def test_an_objectives_gradient_is_the_weighted_sum_of_the_kinds_of_one_minibatch(objective, tiny_base, space):
    cores = random_cores(space)
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    loss, gradients = objective.gradient(cores, 7)
    expected, total = {name: torch.zeros_like(core) for name, core in cores.items()}, 0.0
    for name, rows, weight in (("harm", HARM, 1.0), ("near", NEAR, 0.5), ("benign", BENIGN, 2.0)):
        chosen = [encode(tokenizer, *rows[index][:2], 256) for index in minibatch(4, 3, 7, f"5/{name}")]
        own, found = dense_gradient(tiny_base, space, cores, chosen)
        total += weight * own
        expected = {key: expected[key] + weight * found[key] for key in expected}
    assert loss == pytest.approx(total, rel=1e-5)
    assert all(torch.allclose(gradients[name], expected[name], rtol=1e-4, atol=1e-6) for name in cores)


def test_minibatches_show_every_sample_before_any_again_and_depend_on_nothing_but_the_step():
    drawn = [index for step in range(7) for index in minibatch(7, 3, step, "0/harm")]
    assert all(sorted(drawn[start : start + 7]) == list(range(7)) for start in (0, 7, 14))
    assert drawn[:7] != drawn[7:14]
    assert minibatch(7, 3, 5, "0/harm") == minibatch(7, 3, 5, "0/harm") != minibatch(7, 3, 5, "1/harm")
    assert minibatch(3, 8, 2, "0/harm") == [0, 1, 2]


@pytest.mark.parametrize("method", LEARNED)
def test_without_steps_the_fit_is_task_arithmetic(method, space, objective):
    entry = methods.get(method)
    fit = learn(entry, entry.complete({"steps": 0, "alpha": 1.7}), space, objective)
    for name, module in space.items():
        expected = module.cores[0] + 1.7 * module.cores[1]
        assert torch.allclose(fit.cores[name], expected, atol=2e-6 * float(expected.norm() + 1))


@pytest.mark.parametrize("method", LEARNED)
def test_a_fit_lowers_the_loss_and_says_how_many_numbers_it_fitted(method, space, objective):
    entry = methods.get(method)
    parameters = entry.complete({"steps": 12, "rate": 0.05, "ridge": 0.0})
    start, end = (learn(entry, parameters | {"steps": steps}, space, objective) for steps in (0, 12))
    assert objective.loss(end.cores) < objective.loss(start.cores) - 0.05
    told = {row["stat"]: row["value"] for row in end.statistics if row["module"] == ""}
    assert told["fitted"] == sum(len(own.start) for own in coefficients(entry, parameters, space).values()) > 0
    assert told["steps"] == 12 and told["moved"] > 0


def test_learned_coefficients_are_one_a_direction_or_one_a_module_and_side(space):
    entry = methods.get("sst_learned")
    ranks = [(torch.linalg.matrix_rank(core)) for own in space.values() for core in own.cores]
    for how, expected in (("direction", sum(ranks)), ("module", sum(rank > 0 for rank in ranks))):
        found = coefficients(entry, entry.complete({"coefficients": how}), space)
        assert sum(len(own.start) for own in found.values()) == expected


@pytest.mark.parametrize("how", ["direction", "module"])
def test_a_learned_coefficient_scales_its_side_or_its_direction(how, space):
    entry = methods.get("sst_learned")
    name, module = next((name, own) for name, own in space.items() if own.cores[0].any() and own.cores[1].any())
    own = coefficients(entry, entry.complete({"coefficients": how, "alpha": 0.5}), space)[name]
    values = own.start.clone()
    values[own.told["weight_utility"]] = 0.0
    assert torch.allclose(own.core(values).float(), 0.5 * module.cores[1], atol=1e-5)
    if how == "direction":
        values = torch.zeros_like(values)
        values[1] = 1.0
        u, s, vt = torch.linalg.svd(module.cores[0].double())
        assert torch.allclose(own.core(values), s[1] * torch.outer(u[:, 1], vt[1]), atol=1e-5)


def test_a_strong_ridge_keeps_the_start(space, objective):
    entry = methods.get("sst_learned")
    free, held = (
        learn(entry, entry.complete({"steps": 8, "ridge": ridge}), space, objective) for ridge in (0.0, 1000.0)
    )
    moved = [next(r["value"] for r in fit.statistics if r["stat"] == "moved") for fit in (free, held)]
    assert moved[1] < 0.25 * moved[0]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("method", LEARNED)
@pytest.mark.parametrize("killed_at", [1, 5])
def test_a_fit_that_was_killed_goes_on_to_the_same_bits(method, killed_at, space, objective, tmp_path):
    entry = methods.get(method)
    parameters = entry.complete({"steps": 7, "seed": 3})
    straight = learn(entry, parameters, space, objective)
    checkpoint, seen = Checkpoint(tmp_path / "fit.safetensors"), []

    def kill(done: int, total: int) -> None:
        if done == killed_at:
            raise Killed

    with pytest.raises(Killed):
        learn(entry, parameters, space, objective, checkpoint=checkpoint, progress=kill)
    resumed = learn(
        entry, parameters, space, objective, checkpoint=checkpoint, progress=lambda done, _: seen.append(done)
    )
    assert seen == list(range(killed_at, 8))
    assert all(torch.equal(resumed.cores[name], straight.cores[name]) for name in space)
    assert resumed.statistics == straight.statistics


def test_a_torn_checkpoint_is_no_checkpoint(space, objective, tmp_path):
    entry = methods.get("sst_learned")
    path = tmp_path / "fit.safetensors"
    path.write_bytes(b"{")
    fit = learn(entry, entry.complete({"steps": 1}), space, objective, checkpoint=Checkpoint(path))
    assert next(row["value"] for row in fit.statistics if row["stat"] == "steps") == 1
    assert Checkpoint(path).load() is not None


def test_the_model_is_left_as_it_was(model, objective, space):
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    model.train()
    objective.gradient(random_cores(space), 0)
    objective.losses(random_cores(space))
    assert model.training and not any(module._forward_hooks for module in model.modules())
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad and parameter.grad is None and torch.equal(parameter, before[name])


def test_cancelled_is_no_result(space, objective):
    entry = methods.get("sst_learned")

    def stop(done: int, total: int) -> None:
        raise Cancelled("run")

    with pytest.raises(Cancelled):
        learn(entry, entry.complete({}), space, objective, progress=stop)
