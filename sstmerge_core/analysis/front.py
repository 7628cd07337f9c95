"""Pareto fronts of points whose every coordinate is better when larger."""

from __future__ import annotations

from bisect import bisect_left

import numpy as np
from numpy.typing import ArrayLike, NDArray

Points = NDArray[np.float64]


def pareto_front(points: ArrayLike) -> NDArray[np.bool_]:
    """Mask (n,) of the points (n, d) that no other dominates.

    A point is dominated when another is ≥ on every axis and > on one, so equal points stay together. A point with NaN
    is never on the front and dominates nothing. Time n·log n for two and three axes (Kung, Luccio & Preparata 1975);
    beyond, n times the size of the front.
    """
    data = _points(points)
    mask = np.zeros(len(data), dtype=bool)
    valid = np.flatnonzero(~np.isnan(data).any(axis=1))
    if len(valid):
        rows = data[valid]
        find = {2: _front_of_two, 3: _front_of_three}.get(rows.shape[1], _front_of_many)
        mask[valid] = find(rows)
    return mask


def hypervolume(points: ArrayLike) -> float:
    """Area (two axes) or volume (three) between the front and the reference point 0; for scores between 0 and 1.

    Points with NaN count nothing; a negative coordinate counts as 0. Raises ValueError for other numbers of axes.
    """
    data = _points(points)
    if data.shape[1] not in (2, 3):
        raise ValueError(f"hypervolume is for 2 or 3 axes, not {data.shape[1]}")
    data = np.clip(data[pareto_front(data)], 0.0, None)
    if not len(data):
        return 0.0
    return _area(data) if data.shape[1] == 2 else _volume(data)


def _points(points: ArrayLike) -> Points:
    data = np.asarray(points, dtype=np.float64)
    if data.ndim != 2 or data.shape[1] < 1:
        raise ValueError("points must be a table (n, d)")
    return data


def _front_of_two(rows: Points) -> NDArray[np.bool_]:
    """From the right: on the front is what is highest among its own x and higher than everything to its right."""
    order = np.lexsort((rows[:, 1], rows[:, 0]))[::-1]
    x, y = rows[order, 0], rows[order, 1]
    starts = np.flatnonzero(np.r_[True, x[1:] != x[:-1]])
    best_of_own_x = y[starts]
    best_to_the_right = np.r_[-np.inf, np.maximum.accumulate(best_of_own_x)[:-1]]
    first = np.r_[True, np.zeros(len(starts) - 1, dtype=bool)]  # nothing is to the right of it, not even −inf
    group = np.repeat(np.arange(len(starts)), np.diff(np.r_[starts, len(y)]))
    keep = (y == best_of_own_x[group]) & (first[group] | (y > best_to_the_right[group]))
    mask = np.empty(len(rows), dtype=bool)
    mask[order] = keep
    return mask


def _front_of_three(rows: Points) -> NDArray[np.bool_]:
    """From the first axis' best down; of what came before, only the staircase of the other two axes matters."""
    distinct, group = np.unique(rows, axis=0, return_inverse=True)
    keep = np.ones(len(distinct), dtype=bool)
    heights: list[float] = []  # second axis, rising
    depths: list[float] = []  # third axis, falling: each step's greatest at its height or above
    second, third = distinct[:, 1].tolist(), distinct[:, 2].tolist()
    for place in reversed(range(len(distinct))):  # np.unique sorts, so a dominator comes before what it dominates
        height, depth = second[place], third[place]
        above = bisect_left(heights, height)
        if above < len(depths) and depths[above] >= depth:
            keep[place] = False
            continue
        end = above + (above < len(heights) and heights[above] == height)
        start = above
        while start > 0 and depths[start - 1] <= depth:
            start -= 1
        heights[start:end], depths[start:end] = [height], [depth]
    return keep[group.reshape(-1)]


def _front_of_many(rows: Points) -> NDArray[np.bool_]:
    """Each point still standing strikes out what it dominates; a dominator comes before what it dominates."""
    order = np.lexsort(rows.T[::-1])[::-1]
    remaining = order
    mask = np.zeros(len(rows), dtype=bool)
    while len(remaining):
        leader, rest = rows[remaining[0]], rows[remaining]
        mask[remaining[0]] = True
        dominated = (rest <= leader).all(axis=1) & (rest < leader).any(axis=1)
        remaining = remaining[~dominated][1:]
    return mask


def _area(front: Points) -> float:
    """Of mutually non-dominated points (n, 2) over the reference 0."""
    rows = np.unique(front, axis=0)  # rising x, hence falling y
    return float((np.diff(np.r_[0.0, rows[:, 0]]) * rows[:, 1]).sum())


def _volume(front: Points) -> float:
    """Slices along the third axis: each is as thick as the step to the next lower point, and as wide as the area of
    the points at least that high."""
    levels = np.unique(front[:, 2])[::-1]
    total = 0.0
    for level, below in zip(levels, np.r_[levels[1:], 0.0], strict=True):
        slab = front[front[:, 2] >= level, :2]
        total += (level - below) * _area(slab[pareto_front(slab)])
    return float(total)
