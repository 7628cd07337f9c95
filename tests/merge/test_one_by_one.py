"""A dense merge of a module holds one adapter's whole ΔW at a time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sstmerge_core import adapters
from sstmerge_core.merge import elementwise, merge


def test_each_adapters_dense_delta_is_made_once_and_let_go_of_before_the_next(
    tiny_pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import weakref

    pair = [adapters.read(folder).load() for folder in tiny_pair]
    made: list[weakref.ref[torch.Tensor]] = []
    alive: list[int] = []
    making = elementwise.dense_delta

    def noted(*given: object) -> torch.Tensor:
        alive.append(sum(one() is not None for one in made))
        found = making(*given)  # type: ignore[arg-type]
        made.append(weakref.ref(found))
        return found

    monkeypatch.setattr(elementwise, "dense_delta", noted)
    name, module = next(iter(merge(pair, "ties", {"density": 0.3}).modules.items()))
    found = module.delta()
    # the loop of one after the other holds its last one until it has the next
    assert len(made) == 2 and max(alive) <= 1
    every = [making(pair, name, index) for index in range(2)]
    again = elementwise._OneByOne(pair, name)
    assert all(torch.equal(one, other) for one, other in zip(again, every, strict=True))
    assert torch.equal(again[-1], every[1]) and len(again[0:2]) == 2 and found.shape == every[0].shape
