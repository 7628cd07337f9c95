from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from sstmerge_core import adapters, methods
from sstmerge_core.fisher import core_gradients
from sstmerge_core.fitting import KINDS, Checkpoint, ModelObjective, Part, iterate
from sstmerge_core.models.supervised import Example
from sstmerge_core.space import core_space

WORDS = dict(zip(KINDS, ("w50", "w51", "w51", "w52"), strict=True))
ANSWERS = {"harm": "w4 w5", "refused": "w4 w5", "near": "w30 w31 w32", "benign": "w40 w41"}
PROMPTS = ["w1 w2 w3", "w6", "w1 w1 w2 w2", "w20 w21", "w33"]
METHOD = methods.get("sst_newton")


@pytest.fixture(scope="module")
def space(tiny_pair):
    return core_space([adapters.read(path).load() for path in tiny_pair])


def part(kind: str, words: str = "") -> Part:
    return Part([Example(f"{prompt} {WORDS[kind]}{words}", f"{ANSWERS[kind]} {prompt[:2]}") for prompt in PROMPTS], 1.0)


class Samples:
    def __init__(self, base, space):
        self.model, tokenizer = AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)
        fitted = ModelObjective(self.model, tokenizer, space, {kind: part(kind) for kind in KINDS})
        watched = {kind: part(kind, " w60") for kind in ("harm", "near", "benign")}
        self.gradients, self.losses = fitted.gradients, fitted.losses
        self.held = ModelObjective(self.model, tokenizer, space, watched).loss


@pytest.fixture
def samples(tiny_base, space):
    return Samples(tiny_base, space)


def pooled(fit):
    return {row["stat"]: row["value"] for row in fit.statistics if row["module"] == ""}


def utility(space):
    return {name: own.cores[0] for name, own in space.items()}


def test_gradients_and_losses_at_the_moved_point_are_those_of_a_dense_model(samples, tiny_base, space):
    cores = {name: own.cores[0] - 0.5 * own.cores[1] for name, own in space.items()}
    found, losses = samples.gradients(cores, lambda share: None)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny_base), AutoTokenizer.from_pretrained(tiny_base)
    with torch.no_grad():
        for name, core in cores.items():
            model.get_submodule(name).weight += space[name].delta(core)
    for kind in KINDS:
        expected = core_gradients(model, tokenizer, space, part(kind).examples)
        assert torch.allclose(found[kind].rows, expected.rows, atol=1e-5)
        assert torch.allclose(losses[kind], samples.losses(cores)[kind], atol=1e-5)


def test_a_gradient_row_predicts_how_its_samples_loss_changes(samples, space):
    """By finite differences, so that sign and kind of every row of X are what the residuals take them for."""
    at = utility(space)
    found, before = samples.gradients(at, lambda share: None)
    step = {name: 1e-3 * own.cores[1] for name, own in space.items()}
    after = samples.losses({name: core + step[name] for name, core in at.items()})
    flat = torch.cat([step[name].reshape(-1) for name in found["harm"].shapes])
    for kind in KINDS:
        predicted = found[kind].rows @ flat
        assert torch.allclose((after[kind] - before[kind]).float(), predicted, atol=0.02 * float(predicted.abs().max()))


def test_passes_bring_the_losses_nearer_to_their_targets_and_stop_where_held_out_samples_say_so(samples, space):
    parameters = METHOD.complete({"passes": 6, "damping": 0.01, "radius": 2.0, "alpha": 1.0, "kappa": 0.0})
    fit = iterate(METHOD, parameters, space, samples)
    told = pooled(fit)
    assert told["held_last"] == pytest.approx(samples.held(fit.cores), rel=1e-5) and told["passes"] <= 6
    assert told["held_last"] <= told["held_first"] == pytest.approx(samples.held(utility(space)), rel=1e-5)
    assert told["fitted"] % (3 * len(PROMPTS)) == 0


def said(losses):
    """Held-out losses that are made up, one a call."""
    given = iter(losses)
    return lambda cores: float(next(given))


def missing(samples, space, cores, alpha):
    """Root mean square distance of the losses from what was asked for: h as Task Arithmetic, r − m and b as at ΔU."""
    before, after = samples.losses(utility(space)), samples.losses(cores)
    full = samples.losses({name: own.cores[0] + alpha * own.cores[1] for name, own in space.items()})
    off = [after["harm"] - full["harm"], after["benign"] - before["benign"]]
    off.append((after["refused"] - after["near"]) - (before["refused"] - before["near"]))
    return float(torch.cat(off).square().mean().sqrt())


def test_gauss_newton_reaches_its_targets_where_nothing_stops_it(samples, space):
    samples.held = said(range(0, -100, -1))  # always better
    fit = iterate(METHOD, METHOD.complete({"passes": 8, "damping": 1e-3}), space, samples)
    assert missing(samples, space, fit.cores, 1.0) < 1e-3 * missing(samples, space, utility(space), 1.0)


def test_strength_zero_is_the_utility_adapter(samples, space):
    fit = iterate(METHOD, METHOD.complete({"alpha": 0.0, "passes": 2}), space, samples)
    assert all(torch.equal(fit.cores[name], own.cores[0]) for name, own in space.items())


def test_where_the_first_pass_helps_nobody_the_utility_adapter_stays(samples, space):
    samples.held = said(range(100))  # always worse
    fit = iterate(METHOD, METHOD.complete({"passes": 5}), space, samples)
    assert pooled(fit)["passes"] == 1 and pooled(fit)["fitted"] == 0
    assert all(torch.equal(fit.cores[name], own.cores[0]) for name, own in space.items())


class Killed(BaseException):
    pass


def test_passes_that_were_killed_go_on_to_the_same_bits(samples, space, tmp_path):
    parameters = METHOD.complete({"passes": 3, "radius": 0.01})
    samples.held = lambda cores: missing(samples, space, cores, 1.0)  # falls with every pass
    straight = iterate(METHOD, parameters, space, samples)
    checkpoint = Checkpoint(tmp_path / "fit.safetensors")

    def kill(done: float, total: float) -> None:
        if done > 1.2:
            raise Killed

    with pytest.raises(Killed):
        iterate(METHOD, parameters, space, samples, checkpoint=checkpoint, progress=kill)
    seen = []
    resumed = iterate(
        METHOD, parameters, space, samples, checkpoint=checkpoint, progress=lambda done, _: seen.append(done)
    )
    assert seen[0] == 1 and resumed.statistics == straight.statistics
    assert all(torch.equal(resumed.cores[name], straight.cores[name]) for name in space)
