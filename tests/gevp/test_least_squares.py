from __future__ import annotations

import numpy as np
import pytest
import torch

from sstmerge_core.gevp import LeastSquares


def problem(seed: int = 0, n: int = 8, d: int = 30) -> tuple[LeastSquares, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x, r = rng.normal(size=(n, d)), rng.normal(size=n)
    return LeastSquares(torch.from_numpy(x @ x.T), torch.from_numpy(r)), x, r


@pytest.mark.parametrize("rho", [1e-6, 0.1, 10.0])
def test_within_the_region_the_step_is_that_of_levenberg_and_marquardt(rho):
    found, x, r = problem()
    damping = rho * np.trace(x @ x.T) / len(r)
    expected = np.linalg.solve(x.T @ x + damping * np.eye(x.shape[1]), x.T @ r)
    assert np.allclose(x.T @ found.step(rho, 1e6).numpy(), expected, rtol=1e-8)


def test_beyond_it_damping_grows_until_the_predicted_change_is_as_large_as_allowed():
    found, x, r = problem()
    step = x.T @ found.step(1e-6, 0.2).numpy()
    assert np.sqrt(np.mean((x @ step) ** 2)) == pytest.approx(0.2, rel=1e-9)
    damping = (x.T @ (r - x @ step)) @ step / (step @ step)
    assert np.allclose(damping * step, x.T @ (r - x @ step), rtol=1e-6)  # it is a damped step for some damping


def test_where_nothing_can_change_or_nothing_is_missing_nothing_is_done():
    zeros = torch.zeros(3, dtype=torch.float64)
    assert not LeastSquares(torch.zeros(3, 3, dtype=torch.float64), zeros + 1).step(0.1, 1.0).any()
    assert not LeastSquares(torch.eye(3, dtype=torch.float64), zeros).step(0.1, 1.0).any()
    assert not len(LeastSquares(torch.zeros(0, 0).double(), torch.zeros(0).double()).step(0.1, 1.0))
