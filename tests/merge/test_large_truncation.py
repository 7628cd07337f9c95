"""The adapter of a large dense ΔW: by random projections, with the error of the best approximation."""

from __future__ import annotations

import pytest
import torch

from sstmerge_core.merge import merged
from sstmerge_core.merge.merged import truncate

ROWS, COLUMNS, RANK = 1024, 1100, 16


def low_rank(generator: torch.Generator) -> torch.Tensor:
    return torch.randn(ROWS, RANK // 2, generator=generator) @ torch.randn(RANK // 2, COLUMNS, generator=generator)


@pytest.fixture(scope="module")
def matrices() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    first, second = low_rank(generator), low_rank(generator)
    kept = torch.rand(ROWS, COLUMNS, generator=generator) < 0.1
    sides = [one * (one.abs() > one.abs().flatten().kthvalue(int(0.8 * one.numel())).values) for one in (first, second)]
    return {"low-rank": first + second, "trimmed": sides[0] + sides[1], "dropped": (first + second) * kept / 0.1}


def error(matrix: torch.Tensor) -> float:
    a, b = truncate(matrix, RANK)
    assert (len(a), b.shape[1]) == (RANK, RANK)
    return float((matrix.double() - b.double() @ a.double()).norm() / matrix.double().norm())


@pytest.mark.parametrize("turned", [False, True])
def test_the_error_is_that_of_the_best_approximation_within_a_thousandth(matrices, turned) -> None:
    given = {name: (matrix.T if turned else matrix) for name, matrix in matrices.items()}
    found = {name: error(matrix) for name, matrix in given.items()}
    best = {}
    for name, matrix in given.items():
        values = torch.linalg.svdvals(matrix.double())
        best[name] = float(values[RANK:].norm() / values.norm())
    assert found["low-rank"] < 1e-6, "what has that rank is exact"
    for name in ("trimmed", "dropped"):
        assert 0.1 < best[name] <= found[name] + 1e-7 and found[name] <= 1.001 * best[name]


def test_the_same_matrix_gives_the_same_bits_and_zero_stays_zero(matrices) -> None:
    for first, second in zip(truncate(matrices["trimmed"], RANK), truncate(matrices["trimmed"], RANK), strict=True):
        assert torch.equal(first, second)
    a, b = truncate(torch.zeros(ROWS, COLUMNS), RANK)
    assert not (b @ a).any()


def test_small_matrices_and_many_directions_are_decomposed_as_they_always_were(monkeypatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("random projections were used")

    monkeypatch.setattr(merged, "_leading_directions", never)
    truncate(torch.randn(64, 80), 4)
    monkeypatch.setattr(merged, "LARGE", 8)
    truncate(torch.randn(64, 80), 17)
    with pytest.raises(AssertionError, match="random projections"):
        truncate(torch.randn(64, 80), 16)
