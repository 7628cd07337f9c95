from __future__ import annotations

import numpy as np
import pytest
import torch

from sstmerge_core.gevp import Constraints, Signs

D, SAMPLES = 40, 12


def problem(seed: int = 0, **changes: np.ndarray) -> tuple[Constraints, dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    dense = {"a": rng.normal(size=(D, 3)), "b": rng.normal(size=(SAMPLES, D)), "v": rng.normal(size=D)}
    dense |= {"phi": rng.normal(size=D)} | changes
    a, b = (torch.from_numpy(dense[name]) for name in ("a", "b"))
    return Constraints(a.T @ a, b @ a, b @ b.T), dense


def patched(found: Constraints, dense: dict[str, np.ndarray], signs: Signs) -> np.ndarray:
    a_v, a_phi = (torch.from_numpy(dense["a"].T @ dense[name]) for name in ("v", "phi"))
    y, z = found.correction(found.target(a_v, a_phi, signs.kappa) - a_v, signs.tau)
    return dense["v"] + dense["a"] @ y.numpy() + dense["b"].T @ z.numpy()


@pytest.mark.parametrize("kappa", [-0.5, 0.0, 0.3])
@pytest.mark.parametrize("tau", [0.0, 1.0, 100.0, 1e6])
def test_the_corrected_patch_moves_the_mean_losses_exactly_as_told(kappa, tau):
    found, dense = problem()
    moved = dense["a"].T @ patched(found, dense, Signs(kappa, tau))
    expected = [dense["a"][:, 0] @ dense["v"], kappa * (dense["a"][:, 1] @ dense["phi"]), 0.0]
    assert np.abs(moved - expected).max() < 1e-9 * np.abs(dense["a"].T @ dense["v"]).max()


@pytest.mark.parametrize("tau", [0.0, 100.0])
def test_it_is_the_nearest_such_patch_in_the_metric_of_benign_curvature(tau):
    found, dense = problem()
    delta = patched(found, dense, Signs(0.2, tau))
    fisher = dense["b"].T @ dense["b"]
    metric = np.eye(D) + tau * fisher / np.linalg.eigvalsh(fisher)[-1]

    def cost(other: np.ndarray) -> float:
        return (other - dense["v"]) @ metric @ (other - dense["v"])

    free = np.linalg.svd(dense["a"].T)[2][3:]  # directions in which no constraint changes
    gradient = metric @ (delta - dense["v"])
    assert np.abs(free @ gradient).max() < 1e-8 * np.abs(gradient).max()
    assert all(cost(delta + step) > cost(delta) for step in 0.1 * free)


def test_constraints_that_say_the_same_or_nothing_are_met_all_the_same():
    rng = np.random.default_rng(3)
    column = rng.normal(size=D)
    for a in (np.stack([column, rng.normal(size=D), 0 * column], 1), np.stack([column, 0 * column, 0 * column], 1)):
        found, dense = problem(a=a)
        moved = a.T @ patched(found, dense, Signs(0.0, 10.0))
        assert np.abs(moved - [column @ dense["v"], 0.0, 0.0]).max() < 1e-9


def test_without_benign_samples_the_correction_is_the_plain_projection():
    found, dense = problem(b=np.zeros((0, D)))
    delta, a = patched(found, dense, Signs(0.0, 100.0)), dense["a"]
    target = np.array([a[:, 0] @ dense["v"], 0.0, 0.0])
    assert np.allclose(delta, dense["v"] + a @ np.linalg.solve(a.T @ a, target - a.T @ dense["v"]))
