"""Weights of one's own for each adapter, where a method merges what they gave."""

from __future__ import annotations

import pytest
import torch

from benchmarks.oracles.cases import SHAPES, random_adapters
from sstmerge_core import methods
from sstmerge_core.errors import RecipeError
from sstmerge_core.merge import effective_weights, merge

SPARSE = [own.name for own in methods.methods() if own.kind == "elementwise"]
FIRST = [own.name for own in methods.methods() if "weights" in own.driver]


def test_every_method_that_adds_adapters_up_weighs_them_but_for_those_that_look_at_gradients_of_their_mixture() -> None:
    has = {own.name for own in methods.methods() if any(one.name == "weights" for one in own.parameters)}
    rest = {own.name for own in methods.methods() if own.name not in has and own.family != "SST-Merge"}
    assert rest == {"fisher", "model_stock", "slerp", "base_slerp", "safe_lora"}, "means by other weights, or no sum"
    assert {"ties", "dare_linear", "led_merging", "alignguard", "null_space_guard", "safe_delta"} <= has


@pytest.mark.parametrize("method", SPARSE)
def test_factors_that_are_merged_apart_take_negative_and_vanishing_weights(method: str) -> None:
    adapters = random_adapters(3, 2, shapes={name: SHAPES[name] for name in list(SHAPES)[:1]})
    rank = min(own.a.shape[0] for adapter in adapters for own in adapter.values())
    same = [
        {name: type(own)(own.a[:rank].float(), own.b[:, :rank].float(), own.scaling) for name, own in one.items()}
        for one in adapters
    ]
    own = {"alpha": 0.5, "space": "factors"}
    plain = merge(same, method, own | {"weights": "1,0"})
    negative = merge(same, method, own | {"weights": "-1,0"})
    for name, module in plain.modules.items():
        assert torch.isfinite(module.delta()).all()
        assert torch.allclose(negative.modules[name].delta(), -module.delta(), atol=1e-5)


def test_without_weights_nothing_is_said_and_with_them_everything(tmp_path) -> None:
    for name in FIRST:
        said = effective_weights(name, {"weights": "1,-0.5"})
        assert any(words in str(said) for words in ("ΔS is multiplied by -0.5", "-0.5 times ΔS"))
        assert "multiplied by" not in str(effective_weights(name, {}))
        with pytest.raises(RecipeError, match="3 numbers for 2 adapters"):
            effective_weights(name, {"weights": "1,2,3"})


def test_runs_of_before_keep_their_id() -> None:
    for name in FIRST:
        entry = methods.get(name)
        assert "weights" not in entry.identity(entry.complete({}))
        assert "weights" in entry.identity(entry.complete({"weights": "1,2"}))
