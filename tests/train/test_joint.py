"""One adapter of the rows of two: the bound that joint training sets to merging them."""

from __future__ import annotations

import pytest

from sstmerge_core import adapters
from sstmerge_core.demo import adapters as demo
from sstmerge_core.errors import RecipeError


def test_joint_training_learns_each_file_once_at_the_rank_of_the_merge() -> None:
    both = demo.get("A6+A7_balanced")
    first, second = demo.get("A6"), demo.get("A7_balanced")
    assert both.files == ("instructions", "harmful", "near_miss", "ordinary")
    assert both.settings.r == first.settings.r + second.settings.r
    assert both.settings.lora_alpha / both.settings.r == first.settings.lora_alpha / first.settings.r
    assert both.settings.learning_rate == min(first.settings.learning_rate, second.settings.learning_rate)
    assert both.suite == "instructions" and both.role == "utility"
    for name in ("A5+nobody", "A5+", "+"):
        with pytest.raises(RecipeError, match="there is none"):
            demo.get(name)


def test_it_is_trained_and_reads_as_any_adapter(tmp_path, tiny_base, monkeypatch) -> None:
    some = [{"prompt": f"w{index}", "response": "w7 w8"} for index in range(4)]
    monkeypatch.setattr(demo, "rows", lambda names, split: [row | {"split": split} for row in some for _ in names])
    both = demo.get("A5+A7")
    told: list[int] = []
    demo.make(both, tiny_base, tmp_path / "out", base_name="tiny", progress=lambda step, steps, loss: told.append(step))
    assert adapters.read(tmp_path / "out").rank == both.settings.r and told
