"""A signed patch from gradients to ΔW: held against dense float64 sums of the same per-sample gradients."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.oracles.cases import calibrated, random_samples
from benchmarks.oracles.sst import given
from sstmerge_core import methods
from sstmerge_core.errors import RecipeError
from sstmerge_core.merge import merge

SETTINGS = [
    {"patch": "phi", "kappa": 0.0},
    {"patch": "gevp", "k": 4, "kappa": -0.5, "layerwise": True},
    {"patch": "soft", "kappa": 0.3, "mode": "interpolate", "attention": 1.5},
    {"patch": "shield", "kappa": 0.1, "tau": 1e4},
]


def means(samples):
    return {name: np.tensordot(samples.weights, own, axes=1) for name, own in samples.gradients.items()}


def inner(first, second):
    return sum((first[name] * second[name]).sum() for name in second)


@pytest.mark.parametrize("own", SETTINGS)
def test_the_merged_update_moves_the_mean_losses_as_told(own):
    adapters, harm, benign = given(7, 2)
    refused, helped = random_samples(71, 9), random_samples(72, 9)
    found = calibrated(adapters, harm, benign, (), (refused, helped))
    merged = merge(adapters, "sst_signed", own | {"alpha": 1.0}, calibrated=found)
    plain = methods.get("sst_signed").complete(own)
    uncorrected = {"phi": ("sst_shield", {"tau": 0.0}), "shield": ("sst_shield", {"tau": plain["tau"]})}
    name, extra = uncorrected.get(plain["patch"], (f"sst_{plain['patch']}", {"k": plain["k"], "rho": plain["rho"]}))
    shared = {key: plain[key] for key in ("mode", "layerwise", "attention", "mlp")}
    before = merge(adapters, name, shared | extra | {"alpha": 1.0}, calibrated=found)
    utility = merge(adapters, "linear", {"alpha": 0.0})
    full = merge(adapters, "linear", {"alpha": 1.0})

    def delta(one, other):
        return {key: (one.modules[key].delta() - other.modules[key].delta()).double().numpy() for key in one.modules}

    patch, phi = delta(merged, utility), delta(full, utility)
    if plain["mode"] == "additive":
        phi = {key: full.modules[key].delta().double().numpy() for key in phi}
    contrast = {key: means(refused)[key] - own for key, own in means(helped).items()}
    sides = (means(harm), contrast, means(benign))
    moved = np.array([inner(side, patch) for side in sides])
    expected = [inner(means(harm), delta(before, utility)), plain["kappa"] * inner(contrast, phi), 0.0]
    # δ is read from float32 sums ΔU + δ, whose rounding is a share of all of ΔW
    whole = {key: module.delta().double().numpy() for key, module in merged.modules.items()}
    rounding = np.array([(inner(side, side) * inner(whole, whole)) ** 0.5 for side in sides])
    assert (np.abs(moved - expected) <= 1e-6 * rounding).all()
    told = np.array([merged.statistic(stat) for stat in ("change_harm", "change_near", "change_utility")])
    size = np.array([abs(inner(side, phi)) for side in sides]).max()
    assert np.abs(told - expected).max() <= 1e-6 * size and merged.statistic("fitted") == 3


def test_without_gradients_of_near_misses_it_says_what_it_needs():
    adapters, harm, benign = given(7, 2)
    with pytest.raises(RecipeError, match="needs gradients of near misses"):
        merge(adapters, "sst_signed", {}, calibrated=replace(calibrated(adapters, harm, benign), contrast=None))
