from __future__ import annotations

import re
import shlex
from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.oracles import ORACLES, elementwise, sst
from benchmarks.oracles.cases import (
    SHAPES,
    SMALL,
    Oracle,
    calibrated,
    dense,
    random_adapters,
    random_samples,
    relative_error,
    stream,
)
from docs import methods as documents
from sstmerge_core import methods
from sstmerge_core.adapters import Factors
from sstmerge_core.cli import _parser
from sstmerge_core.merge import merge
from sstmerge_core.methods.registry import Choice, Flag, Parameter, Real
from sstmerge_core.methods.sparsify import drop_by_rank, keep_probabilities
from tests.there import there

BEFORE = ("expansion", "fisher", "general")
"""Parameters that say how gradients are taken: done with before the merge"""
MEASURED = {("unit", "rouge_l"), ("unit", "percent")}
"""Options that need a model to answer prompts"""
LIMITS = {("sst_budget", "over_refusal")}
"""Numbers that only count where prompts are answered: tests/merge/test_budget.py has the bisection"""


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Matrices of this size take longest where threads wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def parameters(method: str) -> list[Parameter]:
    return [parameter for parameter in methods.get(method).parameters if parameter.name not in BEFORE]


def nudges() -> list[tuple[str, str]]:
    """(method, parameter) of every number that the result may depend on; the utility adapter is one to every method."""
    found = [(method, "ΔU") for method in ORACLES]
    for method in ORACLES:
        numbers = [own.name for own in parameters(method) if not isinstance(own.schema, Choice | Flag)]
        found += [(method, name) for name in numbers if (method, name) not in LIMITS]
    return found


def test_every_method_that_names_an_oracle_has_one_and_every_oracle_a_method():
    assert set(ORACLES) == {own.name for own in methods.methods() if own.oracle}


@pytest.mark.parametrize("method", ORACLES)
def test_a_merge_is_what_its_oracle_says(method):
    assert ORACLES[method].error() <= ORACLES[method].tolerance


@pytest.mark.parametrize(("method", "parameter"), nudges())
def test_an_oracle_notices_a_merge_that_is_slightly_off(method, parameter):
    """1 % of a real number, 1 of a whole one: an oracle that lets this pass checks nothing."""
    assert ORACLES[method].error(nudge=parameter) > 10 * ORACLES[method].tolerance


@pytest.mark.parametrize("method", ORACLES)
def test_an_oracle_tries_every_option_of_its_method(method):
    for own in parameters(method):
        tried = {case.parameters.get(own.name, own.default) for case in ORACLES[method].cases}
        if isinstance(own.schema, Choice):
            assert tried >= {option for option in own.schema.options if (own.name, option) not in MEASURED}
        elif isinstance(own.schema, Flag):
            assert tried == {True, False}
        elif isinstance(own.schema, Real) and (method, own.name) not in LIMITS:
            assert any(own.name in case.parameters for case in ORACLES[method].cases)


@pytest.mark.parametrize("method", ORACLES)
def test_an_oracle_tries_several_experts_and_modules_that_one_adapter_lacks(method):
    cases = ORACLES[method].cases
    assert {2, 3} <= {len(case.adapters) for case in cases}
    if method != "model_stock":  # its inputs are several trainings of one task
        assert any(set(adapter) != set(case.expected) for case in cases for adapter in case.adapters)


@pytest.mark.parametrize("method", [name for name in ORACLES if methods.get(name).kind == "elementwise"])
def test_elementwise_methods_are_exact_to_float32_where_nothing_is_rotated(method):
    cases = [case for case in ORACLES[method].cases if case.parameters["space"] != "core"]
    assert Oracle(0.0, lambda: cases).error() <= 1e-6


def test_model_stock_never_points_away_from_the_mean_where_mergekit_does():
    from benchmarks.oracles.combine import mergekit_model_stock

    shapes = {"model.layers.2.mixer": SHAPES["model.layers.2.mixer"]}
    first, second = random_adapters(1, shapes=shapes, alike=1.5)
    opposed = {name: replace(own, scaling=-0.5 * own.scaling) for name, own in second.items()}
    mean = sum(own["model.layers.2.mixer"] for own in dense((first, opposed))) / 2
    assert (mergekit_model_stock((first, opposed))["model.layers.2.mixer"] * mean).sum() < 0
    merged = merge((first, opposed), "model_stock", {})
    assert float(merged.modules["model.layers.2.mixer"].delta().norm()) == 0.0


def test_fisher_merging_with_equal_fishers_is_linear():
    adapters, samples = random_adapters(2, shapes=SMALL), random_samples(3, 9)
    merged = merge(adapters, "fisher", {"alpha": 0.3}, calibrated=calibrated(adapters, samples, samples))
    utility, safety = dense(adapters)
    for name, module in merged.modules.items():
        assert relative_error(module.delta(), 0.7 * utility[name] + 0.3 * safety[name]) < 1e-5


def test_dellas_keep_probabilities_are_mergekits(monkeypatch):
    from mergekit import sparsify

    seen = []

    def keep_all(p: torch.Tensor) -> torch.Tensor:
        seen.append(p)
        return torch.ones_like(p)

    monkeypatch.setattr(sparsify.torch, "bernoulli", keep_all)
    delta = torch.randn(11, 17, generator=torch.Generator().manual_seed(1))
    sparsify.della_magprune(delta, 0.6, 0.2)
    assert torch.allclose(keep_probabilities(delta, 0.6, 0.2), seen[0], atol=1e-6)


def test_della_is_unbiased_within_five_sigma():
    delta = torch.randn(6, 9, generator=torch.Generator().manual_seed(2))
    probabilities, draws = keep_probabilities(delta, 0.5, 0.2), 600
    total = sum(drop_by_rank(delta, 0.5, 0.2, stream(seed, "m", 0)) for seed in range(draws))
    sigma = ((1 - probabilities) / probabilities / draws).sqrt() * delta.abs()
    assert float(((total / draws - delta).abs() / sigma).max()) < 5


def test_random_masks_differ_between_modules_adapters_and_seeds():
    masks = [torch.rand(50, generator=stream(*key)) for key in ((1, "m", 0), (2, "m", 0), (1, "n", 0), (1, "m", 1))]
    assert len({tuple(mask.tolist()) for mask in masks}) == 4


@pytest.mark.parametrize("layerwise", [False, True])
def test_reported_spectrum_kept_energy_and_cost_are_those_of_the_dense_matrices(layerwise):
    adapters, harm, benign = sst.given(4, 2)
    own = {"alpha": 1.3, "rho": 0.2, "k": 3, "layerwise": layerwise}
    merged = merge(adapters, "sst_gevp", own, calibrated=calibrated(adapters, harm, benign))
    utility, safety = dense(adapters)
    _, delta = sst.solve(adapters, harm, benign, own, sst.gevp)
    inside = {side: sst.within(adapters, samples) for side, samples in (("harm", harm), ("benign", benign))}
    statistics = {(row["module"], row["stat"]): row["value"] for row in merged.statistics}
    for label in ["", *delta]:
        group = [label] if label else list(delta)
        rows = {
            side: sst.rows(inside[side], samples.weights, group)
            for side, samples in (("harm", harm), ("benign", benign))
        }
        if label in merged.spectra:
            problem = sst.Problem.of(rows["harm"], rows["benign"], sst.flat(safety, group), sst.flat(utility, group))
            assert merged.spectra[label] == pytest.approx(problem.pencil(0.2)[0], rel=1e-4)
        patch = sst.flat(delta, group)
        energies = [np.square(rows["harm"] @ update).sum() for update in (patch, sst.flat(safety, group))]
        kept = energies[0] / energies[1] if energies[1] else 0.0
        assert statistics[label, "kept_harm_energy"] == pytest.approx(kept, rel=1e-4)
        slopes = rows["benign"] @ patch / np.sqrt(benign.weights)
        slope, curvature = (np.average(x, weights=benign.weights) for x in (slopes, benign.tokens * slopes**2))
        cost = 1.3 * slope + 0.5 * 1.3**2 * curvature
        assert statistics[label, "benign_cost"] == pytest.approx(cost, rel=1e-4, abs=1e-6)
    assert set(merged.spectra) == (set(delta) if layerwise else {""})


def test_more_samples_than_core_coordinates_do_not_add_rank():
    """Gram matrices are float32 products: beyond d their eigenvalues are rounding errors that look like directions."""
    adapters, harm, benign = sst.given(5, 2)
    given = calibrated(adapters, harm, benign)
    merged = merge(adapters, "sst_gevp", {"k": 1000, "layerwise": True}, calibrated=given)
    for name, spectrum in merged.spectra.items():
        p, q = given.space[name].cores[0].shape
        assert len(spectrum) == min(len(harm.weights), p * q)


def test_a_data_free_mask_does_not_hang_on_rounding_errors():
    """Off the diagonal of a module that one adapter has both sides are zero but for rounding."""
    adapters = random_adapters(6, shapes=SMALL)
    turned = tuple({name: gauge(own, seed) for name, own in adapter.items()} for seed, adapter in enumerate(adapters))
    first, second = (merge(pair, "sst_datafree", {}) for pair in (adapters, turned))
    for name, module in first.modules.items():
        assert relative_error(second.modules[name].delta(), module.delta().double().numpy()) < 1e-4


def gauge(factors: Factors, seed: int) -> Factors:
    """The same ΔW from other factors."""
    rank = len(factors.a)
    turn = 3 * torch.eye(rank) + 0.3 * torch.randn(rank, rank, generator=torch.Generator().manual_seed(seed))
    return Factors(torch.linalg.solve(turn, factors.a), factors.b @ turn, factors.scaling)


def test_pefts_ties_on_factors_depends_on_the_gauge_and_ours_on_delta_does_not():
    """Why `space=factors` is not the default."""
    adapters = random_adapters(7, ranks=(3, 3))
    turned = tuple({name: gauge(own, 1) for name, own in adapter.items()} for adapter in adapters)
    for space, close in (("factors", False), ("delta", True)):
        first, second = (merge(pair, "ties", {"space": space, "density": 0.5}) for pair in (adapters, turned))
        errors = [
            relative_error(second.modules[name].delta(), module.delta().double().numpy())
            for name, module in first.modules.items()
        ]
        assert (max(errors) < 1e-5) == close


def test_the_oracles_masks_are_really_injected():
    adapters = random_adapters(8, ranks=(3, 3))
    first, second = (
        elementwise.on_delta(adapters, elementwise.dare_linear, (0.5, 0.5), {"p": 0.5, "seed": seed}) for seed in (1, 2)
    )
    assert all((first[name] != second[name]).any() for name in first)


def test_the_documents_are_those_that_make_docs_would_write():
    """If this fails: make docs."""
    there = {path.name: path.read_text() for path in documents.PAGES.iterdir()}
    assert there == documents.pages()


def test_the_documents_name_every_method_and_every_parameter():
    table = (documents.PAGES / "README.md").read_text()
    for method in methods.methods():
        assert f"[{method.title}]({method.name}.md)" in table
        page = (documents.PAGES / f"{method.name}.md").read_text()
        for own in method.parameters:
            assert f"| `{own.name}` | {str(own.default).lower()} | {own.bounds()} |" in page


def test_an_error_in_the_documents_is_a_power_of_ten_that_the_tests_hold_the_method_to():
    for method in methods.methods():
        found = re.search(r"error ≤ (1e-\d\d) in the tests", documents.page(method))
        assert bool(found) == bool(method.oracle)
        assert found is None or float(found.group(1)) == ORACLES[method.name].tolerance


def test_the_command_on_every_method_s_page_is_one_that_the_program_takes():
    for method in methods.methods():
        command = re.search(r"^sstmerge (.*)$", (documents.PAGES / f"{method.name}.md").read_text(), re.MULTILINE)
        given = _parser().parse_args(shlex.split(there(command).group(1)))
        extra = dict(pair.split("=", 1) for pair in given.set or [])
        assert set(extra) <= {own.name for own in method.parameters}
