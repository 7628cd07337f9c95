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
from sstmerge_core.methods.compress_then_merge import shared_subspaces

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


def test_knots_ties_of_adapters_without_a_common_input_or_output_keeps_both_whole() -> None:
    """Nothing to disagree about: at density ½ each keeps its own rows, and the election averages no two."""
    pair = apart()
    utility, safety = dense(pair)
    merged = merge(pair, "knots_ties", {"density": 0.5})
    assert merged.rank == 6
    assert far(merged, {"m": utility["m"] + safety["m"]}) < 1e-6


def test_knots_ties_depends_on_the_output_directions_only_and_not_on_their_coordinates() -> None:
    """Turning all outputs turns the result; TIES on ΔW itself has no such property."""
    pair = random_adapters(7, ranks=(3, 3))
    generator = torch.Generator().manual_seed(8)
    turns = {
        name: torch.linalg.qr(torch.randn(len(own.b), len(own.b), generator=generator))[0]
        for adapter in pair
        for name, own in adapter.items()
    }
    turned = tuple({name: replace(own, b=turns[name] @ own.b) for name, own in adapter.items()} for adapter in pair)
    for method, follows in (("knots_ties", True), ("ties", False)):
        first, second = (merge(given, method, {"density": 0.4}) for given in (pair, turned))
        expected = {name: (turns[name] @ own.delta()).double().numpy() for name, own in first.modules.items()}
        assert (far(second, expected) < 1e-4) == follows


@pytest.mark.parametrize("subspace", [1, 2, 3])
def test_compress_then_merge_writes_an_adapter_of_the_rank_of_its_subspace(subspace: int) -> None:
    merged = merge(random_adapters(9, ranks=(4, 4)), "compress_then_merge", {"subspace": subspace, "density": 1.0})
    factors, errors = merged.factors()
    assert merged.rank == subspace and errors == []
    assert all(len(a) == subspace for a, _ in factors.values())


def test_compress_then_merge_with_room_for_all_is_linear_under_the_rule_average() -> None:
    pair = random_adapters(10)
    utility, safety = dense(pair)
    merged = merge(pair, "compress_then_merge", {"subspace": 50, "rule": "average", "alpha": 0.3})
    assert far(merged, {name: 0.7 * utility[name] + 0.3 * safety[name] for name in utility}) < 1e-5


def test_the_shared_subspaces_keep_more_than_those_of_any_single_adapter_or_of_chance() -> None:
    """HOOI only ever raises what is kept of the rescaled adapters."""
    generator = torch.Generator().manual_seed(11)
    cores = [torch.randn(7, 9, generator=generator, dtype=torch.float64) for _ in range(3)]

    def kept(left: torch.Tensor, right: torch.Tensor) -> float:
        return sum(float((left.T @ core @ right / core.norm()).square().sum()) for core in cores)

    found = kept(*shared_subspaces(cores, 3, 0.0))
    others = [torch.linalg.svd(core, full_matrices=False) for core in cores]
    others += [torch.linalg.svd(torch.randn(7, 9, generator=generator, dtype=torch.float64)) for _ in range(20)]
    assert all(found > kept(left[:, :3], right[:3].T) for left, _, right in others)


def test_without_rescaling_the_larger_adapter_takes_the_shared_subspaces_and_with_it_both_have_their_part() -> None:
    small, large = apart()
    pair = ({"m": replace(small["m"], scaling=0.05)}, large)
    shares = {}
    for beta in (1.0, 0.0):
        merged = merge(pair, "compress_then_merge", {"subspace": 3, "rule": "average", "beta": beta, "alpha": 0.0})
        utility = dense(pair)[0]["m"]
        shares[beta] = float(np.linalg.norm(merged.modules["m"].delta().double().numpy()) / np.linalg.norm(utility))
    assert shares[1.0] < 0.01 and shares[0.0] > 0.5
