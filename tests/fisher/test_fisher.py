from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from sstmerge_core import adapters, catalog, fisher
from sstmerge_core.adapters import Factors
from sstmerge_core.fisher import Gradients, cache, core_gradients, dual_problem, expansion, primal, sampling, stack
from sstmerge_core.merge import merge
from sstmerge_core.models.resident import ResidentModel
from sstmerge_core.models.supervised import Example, collate, encode, sample_losses
from sstmerge_core.recipe import Calibration, Recipe, Source
from sstmerge_core.runs.session import Session
from sstmerge_core.space import core_space
from sstmerge_core.store.events import read_events
from sstmerge_core.suites.rows import load_rows, rows_digest
from sstmerge_core.workspace import Workspace
from tests.there import there
from tests.tiny_models import make_adapter

ROWS = [("w1 w2 w3", "w4 w5"), ("w6", "w7 w8 w9 w10"), ("w1 w1 w2 w2 w3 w3", "w11"), ("w20 w21", "w22 w23 w24")]


@pytest.fixture
def model(tiny_base):
    return AutoModelForCausalLM.from_pretrained(tiny_base)


@pytest.fixture
def tokenizer(tiny_base):
    return AutoTokenizer.from_pretrained(tiny_base)


def autograd(model, space, encoded) -> Gradients:
    """The same gradients from whole weight gradients, one sample at a time."""
    found: dict[str, list[torch.Tensor]] = {name: [] for name in space}
    model.requires_grad_(True)
    for one in encoded:
        model.zero_grad()
        sample_losses(model, collate([one], 1))[0].sum().backward()
        for name, module in space.items():
            found[name].append(module.q_out.T @ model.get_submodule(name).weight.grad @ module.q_in)
    return Gradients.of({name: torch.stack(each) for name, each in found.items()}, torch.ones(len(encoded)))


def close(first: Gradients, second: Gradients) -> bool:
    return first.shapes == second.shapes and torch.allclose(first.rows, second.rows, atol=2e-6)


def test_gradients_by_hooks_are_autograds_gradients_in_core_coordinates(model, tokenizer, tiny_pair):
    space = core_space([adapters.read(path).load() for path in tiny_pair])
    found = core_gradients(model, tokenizer, space, ROWS, batch_size=3)
    encoded = [encode(tokenizer, *row, 256) for row in ROWS]
    assert found.tokens.tolist() == [len(ids) - start for ids, start in encoded]
    assert close(found, autograd(model, space, encoded))


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
    again = there(cache.load(workspace, entry))
    assert torch.equal(again.tokens, found.tokens)
    assert all(torch.equal(again.modules[name], found.modules[name]) for name in space)


def test_an_answer_that_was_cut_off_gets_no_end_of_sequence(tokenizer):
    whole, start = encode(tokenizer, "w1", "w2 w3", 256)
    assert encode(tokenizer, "w1", "w2 w3", 256, ended=False) == (whole[:-1], start)


# --- expansion points ---


def calibration_file(folder: Path, name: str, rows) -> tuple[Source, int]:
    path = folder / f"{name}.jsonl"
    lines = [{"id": f"{name}-{i}", "split": "fisher", "prompt": p, "response": r} for i, (p, r) in enumerate(rows)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    loaded = load_rows(path, "fisher")
    return Source(name=name, path=str(path), sha256=rows_digest(loaded)), len(loaded)


GENERAL = [("w30 w31", ""), ("w32", ""), ("w33 w34 w35", "")]


@pytest.fixture
def recipe(tiny_base, tiny_pair, tmp_path):
    """A recipe over ROWS as harmful samples, ROWS in other words as utility samples, and GENERAL."""
    harm, n_harm = calibration_file(tmp_path, "harm", ROWS)
    benign, n_benign = calibration_file(tmp_path, "benign", [(prompt + " w50", answer) for prompt, answer in ROWS[:3]])
    general, n_general = calibration_file(tmp_path, "general", GENERAL)

    def make(**settings) -> Recipe:
        if settings.get("general_weight") is not None:
            settings = {"general": general, "n_general": n_general} | settings
        calibration = Calibration(harm=harm, benign=benign, n_harm=n_harm, n_benign=n_benign, **settings)
        sources = tuple(catalog.entry(path).source for path in tiny_pair)
        base = catalog.base_at(tiny_base).source
        return Recipe(base=base, adapters=sources, method="sst_gevp", parameters={}, calibration=calibration)

    return make


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return Workspace(tmp_path / "workspace").create()


def moved(tiny_base, tiny_pair, weights):
    """The base model with the weighted ΔW added the plain way."""
    model = AutoModelForCausalLM.from_pretrained(tiny_base)
    with torch.no_grad():
        for path, weight in zip(tiny_pair, weights, strict=True):
            for name, factors in adapters.read(path).load().items():
                model.get_submodule(name).weight += weight * factors.scaling * factors.b @ factors.a
    return model


@pytest.mark.parametrize(
    ("name", "at_harm", "at_benign"),
    [
        ("utility", (1.0, 0.0), (1.0, 0.0)),
        ("own", (0.0, 1.0), (1.0, 0.0)),
        ("midpoint", (0.5, 0.5), (0.5, 0.5)),
        ("base", (0.0, 0.0), (0.0, 0.0)),
    ],
)
def test_gradients_are_taken_at_the_expansion_point(
    recipe, workspace, tokenizer, tiny_base, tiny_pair, name, at_harm, at_benign
):
    one = recipe(expansion=name)
    found = Session(workspace, "cpu").calibrated(one)
    benign = [(prompt + " w50", answer) for prompt, answer in ROWS[:3]]
    for gradients, rows, weights in ((found.harm, ROWS, at_harm), (found.benign, benign, at_benign)):
        encoded = [encode(tokenizer, *row, 256) for row in rows]
        assert close(gradients, autograd(moved(tiny_base, tiny_pair, weights), found.space, encoded))


def test_several_utility_adapters_expand_at_their_mean():
    generator = torch.Generator().manual_seed(0)
    each = [
        {"m": Factors(torch.randn(2, 5, generator=generator), torch.randn(4, 2, generator=generator), scaling)}
        for scaling in (0.5, 2.0, 1.0)
    ]
    dense = [one["m"].scaling * one["m"].b @ one["m"].a for one in each]
    expected = {"utility": (dense[0] + dense[1]) / 2, "safety": dense[2]}
    expected["midpoint"] = (expected["utility"] + expected["safety"]) / 2
    for point, delta in expected.items():
        found = expansion.deltas(each, expansion.weights(point, 3))
        assert torch.allclose(found["m"](), delta, atol=1e-6)
    assert expansion.deltas(each, expansion.weights("base", 3)) == {}


@pytest.fixture
def trio(tiny_base, tiny_pair, tmp_path) -> tuple[Path, ...]:
    """Two utility experts and the safety adapter."""
    return tiny_pair[0], make_adapter(tiny_base, tmp_path / "U2", 7, r=2), tiny_pair[1]


def with_adapters(recipe: Recipe, folders: tuple[Path, ...]) -> Recipe:
    return recipe.model_copy(update={"adapters": tuple(catalog.entry(path).source for path in folders)})


@pytest.mark.parametrize(("experts", "share"), [("mean", 0.5), ("sum", 1.0)])
def test_gradients_are_taken_where_the_merge_of_several_experts_starts_from(
    recipe, workspace, tokenizer, tiny_base, trio, experts, share
):
    found = Session(workspace, "cpu").calibrated(with_adapters(recipe(experts=experts), trio))
    encoded = [encode(tokenizer, *row, 256) for row in ROWS]
    model = moved(tiny_base, trio, (share, share, 0.0))
    assert close(found.harm, autograd(model, found.space, encoded))


def test_gradients_at_the_sum_are_other_runs_and_kept_apart_from_those_at_the_mean(recipe, workspace, trio):
    mean, total = (with_adapters(recipe(experts=how), trio) for how in ("mean", "sum"))
    assert mean.run_id == with_adapters(recipe(), trio).run_id != total.run_id
    assert "experts" not in there(mean.calibration).identity()
    rows = [Session(workspace, "cpu").calibrated(one).harm.rows for one in (mean, total, mean)]
    assert torch.equal(rows[0], rows[2]) and not torch.allclose(rows[0], rows[1])


def test_fisher_merging_looks_at_each_adapter_at_its_own_weights_on_its_own_samples(
    recipe, workspace, tokenizer, tiny_base, trio, tmp_path
):
    second, n = calibration_file(tmp_path, "second", [(prompt + " w60", answer) for prompt, answer in ROWS])
    shared = with_adapters(recipe(expansion="own"), trio)
    apart = with_adapters(recipe(expansion="own", further=(second,), n_further=(n,)), trio)
    assert shared.run_id != apart.run_id and there(apart.calibration).samples == len(ROWS) + 3 + n
    found = Session(workspace, "cpu").calibrated(apart)
    samples = [(p + " w50", a) for p, a in ROWS[:3]], [(p + " w60", a) for p, a in ROWS], ROWS
    for index, (gradients, rows) in enumerate(zip((*found.experts, found.harm), samples, strict=True)):
        encoded = [encode(tokenizer, *row, 256) for row in rows]
        at = [float(index == place) for place in range(3)]
        assert close(gradients, autograd(moved(tiny_base, trio, at), found.space, encoded))
    merged = merge([adapters.read(path).load() for path in trio], "fisher", {"alpha": 0.4}, calibrated=found)
    without = replace(found, experts=())
    other = merge([adapters.read(path).load() for path in trio], "fisher", {"alpha": 0.4}, calibrated=without)
    assert any(not torch.allclose(own.delta(), other.modules[name].delta()) for name, own in merged.modules.items())


def test_benign_gradients_of_own_are_those_of_utility_and_not_computed_again(recipe, workspace, monkeypatch):
    calls = []
    original = fisher.core_gradients

    def counted(*arguments, **named):
        calls.append(1)
        return original(*arguments, **named)

    monkeypatch.setattr(fisher, "core_gradients", counted)
    session = Session(workspace, "cpu")
    first = session.calibrated(recipe())
    second = session.calibrated(recipe(expansion="own"))
    assert len(calls) == 3
    assert torch.equal(first.benign.rows, second.benign.rows) and not torch.equal(first.harm.rows, second.harm.rows)


# --- the true Fisher ---


def test_the_true_fisher_is_the_empirical_one_where_the_sampled_response_is_the_reference(
    model, tokenizer, tiny_pair, monkeypatch
):
    space = core_space([adapters.read(path).load() for path in tiny_pair])
    responses = [ids[start:] for ids, start in (encode(tokenizer, *row, 256) for row in ROWS)]

    def reference(seed, index, count):
        assert count >= len(responses[index])
        return torch.tensor(responses[index] + [0] * (count - len(responses[index])), dtype=torch.float64)

    monkeypatch.setattr(sampling, "uniforms", reference)
    monkeypatch.setattr(sampling, "draw", lambda logits, numbers: numbers.long())
    sampled = core_gradients(model, tokenizer, space, ROWS, seed=0, batch_size=3)
    given = core_gradients(model, tokenizer, space, ROWS, batch_size=3)
    assert torch.equal(sampled.rows, given.rows) and torch.equal(sampled.tokens, given.tokens)


def test_the_true_fisher_is_fixed_by_its_seed(model, tokenizer, tiny_pair):
    space = core_space([adapters.read(path).load() for path in tiny_pair])
    first, again, other = (core_gradients(model, tokenizer, space, ROWS, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.rows, again.rows)
    assert not torch.allclose(first.rows, other.rows)


def test_what_is_sampled_for_a_prompt_does_not_depend_on_its_neighbours(model, tokenizer):
    encoded = [encode(tokenizer, *row, 256) for row in ROWS]
    together = sampling.sample_responses(model, encoded, 1, 1, 7, 256, batch_size=4)
    alone = sampling.sample_responses(model, encoded, 1, 1, 7, 256, batch_size=1)
    assert together == alone
    assert len({tuple(ids[start:]) for ids, start in together}) == len(ROWS)


def test_sampled_responses_end_at_eos_or_at_the_length_of_the_reference(model, tokenizer, monkeypatch):
    long, short = encode(tokenizer, "w1", " ".join(["w2"] * 20), 256), encode(tokenizer, "w1", "w2", 256)
    never = sampling.sample_responses(model, [long, short], 94_000, 1, 0, 256)
    assert [len(ids) - start for ids, start in never] == [21, sampling.SHORTEST]
    cut = sampling.sample_responses(model, [long], 94_000, 1, 0, max_length=long[1] + 5)
    assert len(cut[0][0]) - cut[0][1] == 5
    monkeypatch.setattr(sampling, "draw", lambda logits, numbers: torch.ones(len(numbers), dtype=torch.long))
    ended = sampling.sample_responses(model, [long, short], 1, 1, 0, 256)
    assert [ids[start:] for ids, start in ended] == [[1], [1]]


def test_draws_follow_the_softmax():
    logits = torch.tensor([[0.0, 1.0, -float("inf"), 2.0]])
    count = 20_000
    drawn = sampling.draw(logits.expand(count, 4), sampling.uniforms(0, 0, count))
    share = drawn.bincount(minlength=4) / count
    expected = logits[0].softmax(-1)
    assert share[2] == 0.0
    assert torch.all((share - expected).abs() <= 5 * (expected * (1 - expected) / count).sqrt())


def test_the_true_fisher_is_cached_under_its_seed(recipe, workspace):
    rows = {seed: Session(workspace, "cpu").calibrated(recipe(fisher="true", seed=seed)).harm.rows for seed in (0, 1)}
    empirical = Session(workspace, "cpu").calibrated(recipe()).harm.rows
    again = Session(workspace, "cpu").calibrated(recipe(fisher="true", seed=1)).harm.rows
    assert torch.equal(again, rows[1])
    assert not torch.equal(rows[0], rows[1]) and not torch.equal(rows[0], empirical)


# --- general prompts ---


def test_general_prompts_without_weight_change_nothing(recipe, workspace):
    none, weightless = recipe(), recipe(general_weight=0.0)
    assert none.run_id == weightless.run_id
    found = [Session(workspace, "cpu").calibrated(one).benign for one in (none, weightless)]
    assert torch.equal(found[0].rows, found[1].rows) and torch.equal(found[0].weights, found[1].weights)
    assert not (workspace.cache / "answers").exists()


def test_a_weight_without_general_prompts_is_refused(recipe):
    with pytest.raises(ValueError, match="needs general prompts"):
        recipe(general=None, general_weight=1.0)


def test_general_prompts_are_answered_by_the_base_once(recipe, workspace, tiny_base, tokenizer, monkeypatch):
    expected = ResidentModel.load(tiny_base, "float32", "cpu").generate([prompt for prompt, _ in GENERAL], 48)
    calls = []
    original = ResidentModel.generate

    def counted(*arguments, **named):
        calls.append(1)
        return original(*arguments, **named)

    monkeypatch.setattr(ResidentModel, "generate", counted)
    found = Session(workspace, "cpu").calibrated(recipe(general_weight=1.0))
    assert len(calls) == 1
    examples = [Example(prompt, a.text, a.stopped) for (prompt, _), a in zip(GENERAL, expected, strict=True)]
    lengths = [
        len(ids) - start
        for ids, start in (encode(tokenizer, e.prompt, e.response, 256, ended=e.ended) for e in examples)
    ]
    assert found.benign.tokens.tolist()[3:] == lengths

    shutil.rmtree(workspace.cache / "gradients")
    again = Session(workspace, "cpu").calibrated(recipe(general_weight=1.0, expansion="base"))
    assert len(calls) == 1
    assert again.benign.tokens.tolist()[3:] == lengths


def test_the_general_weight_changes_without_any_gradient_computed_again(recipe, workspace, monkeypatch):
    first = Session(workspace, "cpu").calibrated(recipe(general_weight=1.0)).benign
    monkeypatch.setattr(fisher, "core_gradients", lambda *a, **k: pytest.fail("computed again"))
    second = Session(workspace, "cpu").calibrated(recipe(general_weight=0.25)).benign
    assert torch.equal(first.rows, second.rows)
    assert first.weights.tolist() == pytest.approx([1 / 3] * 6)
    assert second.weights.tolist() == pytest.approx([1 / 3] * 3 + [1 / 12] * 3)


def random_gradients(n: int, seed: int, shapes=None) -> Gradients:
    generator = torch.Generator().manual_seed(seed)
    shapes = shapes or {"a": (3, 4), "b": (2, 5)}
    modules = {name: torch.randn(n, *shape, generator=generator) for name, shape in shapes.items()}
    return Gradients.of(modules, torch.arange(1.0, n + 1))


def test_a_general_weight_of_two_is_every_general_sample_twice_in_the_dense_problem():
    harm, utility, general = random_gradients(5, 0), random_gradients(6, 1), random_gradients(4, 2)
    problem = dual_problem(harm, stack(utility, general, 2.0), {name: harm.modules[name][0] for name in "ab"}, 0.1)
    h = harm.rows.double()
    twice = torch.cat([utility.rows / 6**0.5, general.rows / 4**0.5, general.rows / 4**0.5]).double()
    metric = twice.T @ twice + problem.gamma * torch.eye(22, dtype=torch.float64)
    values, vectors = scipy.linalg.eigh((h.T @ h / 5).numpy(), metric.numpy())
    np.testing.assert_allclose(problem.spectrum.eigenvalues.numpy(), values[::-1][:5], rtol=1e-5)

    phi = h[0].numpy()
    leading = vectors[:, ::-1][:, :2]
    expected = leading @ leading.T @ metric.numpy() @ phi
    filters = problem.zeros(5)
    filters[:2] = 1 / problem.spectrum.eigenvalues[:2]
    patch = problem.from_filter(filters)
    benign = stack(utility, general, 2.0)
    found = torch.cat([primal(patch, harm, benign, harm.modules[name][0], name).flatten() for name in "ab"])
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-5)


# --- Gram matrices ---


def test_gram_matrices_in_runs_are_those_of_the_whole(monkeypatch):
    monkeypatch.setattr("sstmerge_core.fisher.problem.COLUMNS", 4)
    harm, benign = random_gradients(5, 0), stack(random_gradients(6, 1), random_gradients(3, 2), 0.5)
    phi = {name: random_gradients(1, 3).modules[name][0] for name in "ab"}
    for modules in (None, ["a"], ["b"], ["b", "a"]):
        columns = torch.cat([torch.arange(22)[harm.blocks[name]] for name in modules or "ab"])
        h = harm.rows[:, columns].double() * harm.weights.sqrt()[:, None]
        b = torch.cat([benign.rows, *benign.below])[:, columns].double() * benign.weights.sqrt()[:, None]
        flat = torch.cat([phi[name].flatten() for name in modules or "ab"]).double()
        problem = dual_problem(harm, benign, phi, 0.1, modules)
        expected = {"hh": h @ h.T, "hb": h @ b.T, "bb": b @ b.T, "h_phi": h @ flat, "b_phi": b @ flat}
        for name, value in expected.items():
            assert torch.allclose(getattr(problem, name), value, rtol=1e-5, atol=1e-5), name
        for name in modules or "ab":
            scaled = fisher.scaled_rows(benign, name)
            assert torch.allclose(fisher.project(benign, name, phi[name]), (scaled @ phi[name].flatten()).double())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_what_the_cpu_gives(model, tokenizer, tiny_pair):
    space = core_space([adapters.read(path).load() for path in tiny_pair])
    phi = {name: module.cores[1] for name, module in space.items()}
    found = {}
    for device in ("cpu", "cuda"):
        model.to(device)
        harm, benign = (core_gradients(model, tokenizer, space, rows) for rows in (ROWS[:2], ROWS[2:]))
        problem = dual_problem(harm, benign, phi, 0.1)
        assert harm.rows.device.type == device and problem.hh.device.type == "cpu"
        patch = problem.from_filter(1 / problem.spectrum.eigenvalues)
        patched = torch.cat([primal(patch, harm, benign, phi[name], name).flatten() for name in phi])
        found[device] = [harm.rows.cpu(), benign.rows.cpu(), problem.hh, problem.bb, problem.hb, patched]
    for ours, theirs in zip(found["cuda"], found["cpu"], strict=True):
        assert float((ours - theirs).norm() / theirs.norm()) < 1e-5


# --- identity ---


def test_the_shipped_runs_keep_their_ids(shipped_runs):
    with_calibration = 0
    for folder in sorted(shipped_runs.iterdir()):
        started = next(event for event in read_events(folder) if event["event"] == "run_started")
        recipe = Recipe.model_validate(started["recipe"])
        assert recipe.run_id == folder.name
        with_calibration += recipe.calibration is not None
    assert with_calibration


def test_what_changes_the_gradients_changes_the_run(recipe):
    variants = [
        recipe(),
        recipe(expansion="own"),
        recipe(fisher="true"),
        recipe(fisher="true", seed=1),
        recipe(general_weight=1.0),
        recipe(general_weight=0.5),
    ]
    assert len({one.run_id for one in variants}) == len(variants)
    assert recipe(seed=1).run_id == recipe().run_id  # nothing is drawn for the empirical Fisher


def test_gradients_cached_before_there_were_options_are_still_found(recipe, workspace):
    one = recipe()
    Session(workspace, "cpu").calibrated(one)
    entry = cache.key(
        base=one.base.sha256,
        adapters=[source.sha256 for source in one.adapters],
        rows=one.calibration.harm.sha256,
        expansion="utility",
        max_length=256,
        dtype="float32",
        kind="empirical",
        version=1,
    )
    assert cache.load(workspace, entry) is not None
