from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch

from sstmerge_core.gevp import Cost, DualProblem


def make_problem(h, b, phi, rho: float = 0.1) -> DualProblem:
    return DualProblem(h @ h.T, h @ b.T, b @ b.T, h @ phi, b @ phi, rho)


def random_problem(n_h: int, n_b: int, d: int, rho: float = 0.1, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    h = torch.randn(n_h, d, generator=generator, dtype=torch.float64) / n_h**0.5
    b = torch.randn(n_b, d, generator=generator, dtype=torch.float64) / n_b**0.5
    phi = torch.randn(d, generator=generator, dtype=torch.float64)
    return h, b, phi, make_problem(h, b, phi, rho)


def primal(patch, h, b, phi):
    return patch.phi * phi + h.T @ patch.harm + b.T @ patch.benign


@pytest.mark.parametrize(("n_h", "n_b", "d"), [(12, 20, 60), (20, 12, 60), (5, 40, 30), (30, 30, 300)])
def test_the_dual_spectrum_is_that_of_the_dense_generalized_problem(n_h, n_b, d):
    h, b, _, problem = random_problem(n_h, n_b, d)
    metric = b.T @ b + problem.gamma * torch.eye(d, dtype=torch.float64)
    dense = scipy.linalg.eigh((h.T @ h).numpy(), metric.numpy(), eigvals_only=True)[::-1]
    rank = problem.spectrum.rank
    assert rank == min(n_h, d)
    np.testing.assert_allclose(problem.spectrum.eigenvalues.numpy(), dense[:rank], rtol=1e-10)


@pytest.mark.parametrize("k", [1, 4, 12])
def test_the_patch_is_the_dense_oblique_projection_onto_the_leading_eigenvectors(k):
    h, b, phi, problem = random_problem(12, 20, 60)
    metric = (b.T @ b + problem.gamma * torch.eye(60, dtype=torch.float64)).numpy()
    vectors = scipy.linalg.eigh((h.T @ h).numpy(), metric)[1][:, ::-1][:, :k]
    expected = vectors @ vectors.T @ metric @ phi.numpy()
    filters = problem.zeros(problem.spectrum.rank)
    filters[:k] = 1 / problem.spectrum.eigenvalues[:k]
    patch = primal(problem.from_filter(filters), h, b, phi)
    np.testing.assert_allclose(patch.numpy(), expected, rtol=1e-8, atol=1e-10)


def test_the_projector_is_idempotent():
    h, b, phi, problem = random_problem(12, 20, 60)
    filters = problem.zeros(problem.spectrum.rank)
    filters[:5] = 1 / problem.spectrum.eigenvalues[:5]
    once = primal(problem.from_filter(filters), h, b, phi)
    again = make_problem(h, b, once, problem.rho)
    twice = primal(again.from_filter(filters), h, b, once)
    assert torch.allclose(once, twice, rtol=1e-9, atol=1e-11)


def test_the_soft_filter_minimises_its_objective():
    """argmin over the span of (δ−φ)ᵀF_h(δ−φ) + τ δᵀBδ: no step along any direction improves it."""
    h, b, phi, problem = random_problem(12, 20, 60)
    tau = float(problem.spectrum.eigenvalues[3])
    metric = b.T @ b + problem.gamma * torch.eye(60, dtype=torch.float64)
    delta = primal(problem.from_filter(1 / (problem.spectrum.eigenvalues + tau)), h, b, phi)

    def objective(x):
        return float((h @ (x - phi)).square().sum() + tau * x @ metric @ x)

    best = objective(delta)
    for row in range(12):
        direction = torch.linalg.solve(metric, h[row])
        for step in (-1e-3, 1e-3):
            assert objective(delta + step * direction) > best


@pytest.mark.parametrize("tau", [0.5, 100.0])
def test_the_shield_is_the_dense_inverse(tau):
    h, b, phi, problem = random_problem(12, 20, 60)
    fisher = b.T @ b
    largest = torch.linalg.eigvalsh(fisher)[-1]
    expected = torch.linalg.solve(torch.eye(60, dtype=torch.float64) + tau * fisher / largest, phi)
    assert torch.allclose(primal(problem.shield(tau), h, b, phi), expected, rtol=1e-9)


def test_projections_in_the_dual_equal_those_of_the_patch_itself():
    h, b, phi, problem = random_problem(12, 20, 60)
    for patch in (problem.shield(10), problem.from_filter(1 / (problem.spectrum.eigenvalues + 1))):
        delta = primal(patch, h, b, phi)
        on_harm, on_benign = problem.project(patch)
        assert torch.allclose(on_harm, h @ delta) and torch.allclose(on_benign, b @ delta)


def test_duplicate_samples_do_not_break_the_solver():
    h, b, phi, _ = random_problem(6, 8, 40)
    h, b = torch.cat([h, h]), torch.cat([b, b])
    problem = make_problem(h, b, phi)
    assert problem.spectrum.rank == 6


def test_the_predicted_benign_cost_is_the_token_weighted_quadratic_model():
    gradients = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    delta = torch.tensor([0.5, -1.0], dtype=torch.float64)
    tokens = torch.tensor([4.0, 10.0], dtype=torch.float64)
    along = gradients @ delta
    expected = 0.3 * float(along.mean()) + 0.5 * 0.09 * float((tokens * along**2).mean())
    weights = torch.full((2,), 0.5, dtype=torch.float64)
    assert Cost.of(weights.sqrt() * along, tokens, weights).at(0.3) == pytest.approx(expected)


def test_the_predicted_cost_of_weighted_samples_is_that_of_their_weighted_mean():
    """A sample of twice the weight counts as two."""
    generator = torch.Generator().manual_seed(0)
    along, tokens = torch.randn(3, generator=generator, dtype=torch.float64), torch.tensor([3.0, 5.0, 9.0]).double()
    weights = torch.tensor([1.0, 1.0, 2.0], dtype=torch.float64) / 3
    twice = [0, 1, 2, 2]
    expected = 0.7 * float(along[twice].mean()) + 0.5 * 0.49 * float((tokens * along**2)[twice].mean())
    assert Cost.of(weights.sqrt() * along, tokens, weights).at(0.7) == pytest.approx(expected)
