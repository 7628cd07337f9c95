"""Methods on singular subspaces, where adapters are orthogonal, alike, or missing in a module."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.oracles.cases import ALONE, Dense, dense, random_adapters, relative_error
from sstmerge_core.adapters import Factors
from sstmerge_core.merge import Merged, merge
from sstmerge_core.merge.cautions import cautions

SHARED = "model.layers.0.self_attn.q_proj"


def far(merged: Merged, expected: Dense) -> float:
    return max(relative_error(module.delta(), expected[name]) for name, module in merged.modules.items())


def apart(rank: int = 3) -> tuple[dict[str, Factors], dict[str, Factors]]:
    """Two adapters whose inputs and outputs have no direction in common."""
    generator = torch.Generator().manual_seed(1)
    left = torch.linalg.qr(torch.randn(12, 2 * rank, generator=generator))[0]
    right = torch.linalg.qr(torch.randn(10, 2 * rank, generator=generator))[0].T
    sizes = torch.tensor([4.0, 2.0, 1.0, 3.0, 2.5, 0.5])
    halves = slice(0, rank), slice(rank, 2 * rank)
    first, second = ({"m": Factors(right[half].clone(), left[:, half] * sizes[half], 1.0)} for half in halves)
    return first, second


def test_tsv_merge_of_adapters_that_have_nothing_in_common_is_their_sum() -> None:
    pair = apart()
    utility, safety = dense(pair)
    assert far(merge(pair, "tsv_merge", {"alpha": 0.7}), {"m": utility["m"] + 0.7 * safety["m"]}) < 1e-6


def test_tsv_merge_does_not_add_up_what_adapters_have_in_common() -> None:
    """Twins give themselves, not twice themselves as in a sum; also where their factors differ by rounding."""
    first, _ = random_adapters(1)
    other = {name: replace(own, a=own.a * 3.0, b=own.b / 3.0) for name, own in first.items()}
    assert far(merge((first, other), "tsv_merge", {"alpha": 1.0}), dense((first,))[0]) < 1e-5


def test_the_share_1_over_n_of_tsv_merge_has_the_rank_of_one_adapter() -> None:
    pair = random_adapters(2, ranks=(4, 4))
    whole, half = (merge(pair, "tsv_merge", {"kept": kept}) for kept in (1.0, 0.5))
    assert (whole.rank, half.rank) == (8, 4)
    factors, errors = half.factors()
    assert errors == [] and factors[SHARED][0].shape == (4, 13)
    a, b = factors[SHARED]
    assert relative_error(b @ a, half.modules[SHARED].delta().double().numpy()) < 1e-6


def test_iso_c_makes_all_singular_values_of_the_sum_equal_to_their_mean() -> None:
    pair = random_adapters(3)
    utility, safety = dense(pair)
    merged = merge(pair, "iso_c", {"alpha": 0.5})
    for name, module in merged.modules.items():
        rank = len(pair[0][name].a if name in pair[0] else []) + len(pair[1][name].a if name in pair[1] else [])
        before = np.linalg.svd(utility[name] + 0.5 * safety[name], compute_uv=False)[:rank]
        after = np.linalg.svd(module.delta().double().numpy(), compute_uv=False)
        assert after[: len(before)] == pytest.approx(before.mean(), rel=1e-5)
        assert after[len(before) :] == pytest.approx(0.0, abs=1e-5)


def test_at_alpha_zero_iso_c_and_tsv_merge_are_not_the_utility_adapter() -> None:
    pair = random_adapters(4)
    utility, _ = dense(pair)
    for method in ("iso_c", "tsv_merge"):
        assert far(merge(pair, method, {"alpha": 0.0}), utility) > 0.1


def test_tsv_merge_is_continuous_in_alpha_and_iso_c_jumps_at_zero() -> None:
    pair = random_adapters(4)
    for method, jumps in (("tsv_merge", False), ("iso_c", True)):
        zero, little = (merge(pair, method, {"alpha": alpha}) for alpha in (0.0, 1e-3))
        moved = relative_error(little.modules[SHARED].delta(), zero.modules[SHARED].delta().double().numpy())
        assert (moved > 0.05) == jumps


def test_a_module_that_one_adapter_lacks_is_the_others_under_tsv_merge() -> None:
    pair = random_adapters(5)
    utility, safety = dense(pair)
    merged = merge(pair, "tsv_merge", {"alpha": 1.5})
    for name, whose in ALONE.items():
        expected = utility[name] if whose == 0 else 1.5 * safety[name]
        assert relative_error(merged.modules[name].delta(), expected) < 1e-6


def test_a_merge_that_shrinks_to_nearly_nothing_is_told_without_speaking_of_thresholds() -> None:
    (told,) = cautions(merge(random_adapters(6), "tsv_merge", {"alpha": 0.0, "scale": 0.1}).statistics)
    assert "nearly the base model" in told.fault and "threshold" not in told.fix
