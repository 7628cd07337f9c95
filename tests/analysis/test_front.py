from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sstmerge_core.analysis.front import hypervolume, pareto_front


def tables(axes: int) -> st.SearchStrategy[np.ndarray]:
    """Few different values, so that ties and equal points are common; NaN now and then."""
    values = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, -0.5, float("nan"), float("-inf")])
    return hnp.arrays(np.float64, st.tuples(st.integers(0, 25), st.just(axes)), elements=values)


def brute_force(points: np.ndarray) -> list[bool]:
    def dominates(a: np.ndarray, b: np.ndarray) -> bool:
        return bool((a >= b).all() and (a > b).any())

    valid = ~np.isnan(points).any(axis=1)
    return [
        bool(valid[i]) and not any(valid[j] and dominates(points[j], points[i]) for j in range(len(points)))
        for i in range(len(points))
    ]


@pytest.mark.parametrize("axes", [1, 2, 3, 4])
def test_the_front_is_what_brute_force_finds(axes: int) -> None:
    @settings(max_examples=150, deadline=None)
    @given(tables(axes))
    def check(points: np.ndarray) -> None:
        assert pareto_front(points).tolist() == brute_force(points)

    check()


def test_equal_points_are_both_kept_and_nan_never_is() -> None:
    points = [[0.5, 0.5], [0.5, 0.5], [float("nan"), 9.0], [0.4, 0.5]]
    assert pareto_front(points).tolist() == [True, True, False, False]


def test_ten_thousand_points_take_a_fraction_of_a_second() -> None:
    import time

    points = np.random.default_rng(0).random((10_000, 2))
    points[:5000, 1] = 1 - points[:5000, 0]  # half of them on a front
    started = time.perf_counter()
    pareto_front(points)
    assert time.perf_counter() - started < 0.5


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.int64, st.tuples(st.integers(0, 8), st.sampled_from([2, 3])), elements=st.integers(0, 4)))
def test_hypervolume_is_the_number_of_unit_cells_covered(corners: np.ndarray) -> None:
    cells = np.stack(np.meshgrid(*[np.arange(4)] * corners.shape[1]), axis=-1).reshape(-1, corners.shape[1])
    covered = sum(any((cell < corner).all() for corner in corners) for cell in cells)
    assert hypervolume(corners) == pytest.approx(covered)


def test_hypervolume_refuses_four_axes() -> None:
    with pytest.raises(ValueError, match="2 or 3 axes"):
        hypervolume(np.ones((2, 4)))
