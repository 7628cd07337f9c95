"""The base is in memory once: moved weights come back from the files, low-rank merges work beside the weights."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from sstmerge_core import adapters
from sstmerge_core.errors import AdapterError, DataError
from sstmerge_core.fisher import expansion
from sstmerge_core.models.resident import ResidentModel
from tests.tiny_models import build_base, make_adapter

MODULE = "model.layers.1.mlp.down_proj"
IDS = torch.tensor([[2, 5, 6, 7, 8, 9]])
ARCHITECTURES = ("llama", "gemma", "gpt2")


@pytest.fixture(scope="module", params=ARCHITECTURES)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_base(request.param, tmp_path_factory.mktemp("memory") / request.param)


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, adapters.Factors]:
    """Of every linear module."""
    extra = {"fan_in_fan_out": True} if base.name == "gpt2" else {}
    return adapters.read(make_adapter(base, tmp_path_factory.mktemp("memory") / "A", 3, **extra)).load()


def logits(model: ResidentModel) -> torch.Tensor:
    with torch.inference_mode():
        return model.model(IDS).logits.double()


def test_no_weight_is_kept_twice_and_every_bit_comes_back(base: Path, adapter: dict) -> None:
    for dtype in ("float32", "bfloat16"):
        model = ResidentModel.load(base, dtype, "cpu")
        before = {name: tensor.clone() for name, tensor in model.model.state_dict().items()}
        model.set_delta(expansion.deltas([adapter], [1.0]))
        assert model._moved == set(adapter) and model._base == {}
        assert any(not torch.equal(model.model.state_dict()[name], tensor) for name, tensor in before.items())
        model.set_delta(None)
        after = model.model.state_dict()
        assert all(torch.equal(after[name], before[name]) for name in before)


def test_what_the_files_do_not_hold_is_kept_as_before(tiny_base: Path) -> None:
    model = ResidentModel.load(tiny_base, "float32", "cpu")
    with torch.no_grad():
        model.modules[MODULE].weight.add_(1.0)  # an architecture that is loaded otherwise than it is stored
    before = model.modules[MODULE].weight.clone()
    model.set_delta({MODULE: lambda: torch.ones(32, 48)})
    assert set(model._base) == {MODULE}
    model.set_delta(None)
    assert torch.equal(model.modules[MODULE].weight, before)


def test_files_that_change_under_a_moved_model_are_an_error_and_no_other_base(tiny_base: Path, tmp_path: Path) -> None:
    own = shutil.copytree(tiny_base, tmp_path / "own")
    model = ResidentModel.load(own, "float32", "cpu")
    model.set_delta({MODULE: lambda: torch.ones(32, 48)})
    other = tmp_path / "new.safetensors"
    other.write_bytes((own / "model.safetensors").read_bytes())
    other.replace(own / "model.safetensors")
    with pytest.raises(DataError, match="has changed while the model was in use"):
        model.set_delta(None)


def test_beside_the_weights_is_within_rounding_of_weights_that_were_moved(base: Path, adapter: dict) -> None:
    """Bound: 2⁻¹⁹ of the largest logit in float32, and in bfloat16 no further from the truth than moved weights."""
    truth = ResidentModel.load(base, "float32", "cpu")
    truth.set_delta(expansion.deltas([adapter], [1.0]))
    moved = logits(truth)
    scale = float(moved.abs().max())
    truth.set_delta(None, expansion.low_rank([adapter], [1.0]))
    assert truth._moved == set()
    assert float((logits(truth) - moved).abs().max()) <= 2**-19 * scale
    truth.set_delta(None)
    assert not torch.allclose(logits(truth), moved, atol=1e-2 * scale)  # the adapter does change the answers


def test_a_small_change_is_whole_beside_sixteen_bit_weights_and_mostly_lost_in_them(tmp_path: Path) -> None:
    base = build_base("llama", tmp_path / "base", initializer_range=0.4)
    small = adapters.read(make_adapter(base, tmp_path / "A", 3)).load()
    exact = ResidentModel.load(base, "float32", "cpu")
    half = ResidentModel.load(base, "bfloat16", "cpu")
    layer, factors = MODULE, small[MODULE]
    x = torch.randn(64, 48, generator=torch.Generator().manual_seed(0)).bfloat16()
    w = half.modules[layer].weight.float()
    scale = 2**-12 * float(w.abs().mean()) / float((factors.scaling * factors.b @ factors.a).abs().mean())
    change = scale * factors.scaling * x.double() @ (factors.b @ factors.a).double().T
    found = {}
    for name in ("in_weights", "beside"):
        if name == "beside":
            half.set_delta(None, expansion.low_rank([{layer: factors}], [scale]))
            assert half._beside is not None
            a, b = (side.to(torch.bfloat16) for side in expansion.low_rank([{layer: factors}], [scale])[layer]())
            found[name] = (x @ a.T @ b.T).double()  # what the hook adds
        else:
            half.set_delta(expansion.deltas([{layer: factors}], [scale]))
            found[name] = x.double() @ (half.modules[layer].weight.double() - w.double()).T
    lost = {name: float((own - change).norm() / change.norm()) for name, own in found.items()}
    assert lost["beside"] < 0.02 < 0.5 < lost["in_weights"]
    assert exact.modules[layer].weight.dtype == torch.float32


def test_greedy_answers_beside_the_weights_are_those_of_moved_ones(tiny_base: Path, tiny_pair: tuple) -> None:
    model = ResidentModel.load(tiny_base, "float32", "cpu")
    pair = [adapters.read(path).load() for path in tiny_pair]
    prompts = [" ".join(f"w{(7 * n + k) % 90}" for k in range(3 + n)) for n in range(6)]
    model.set_delta(expansion.deltas(pair, [0.6, 0.4]))
    moved = model.generate(prompts, 8)
    model.set_delta(None, expansion.low_rank(pair, [0.6, 0.4]))
    assert model.generate(prompts, 8) == moved


def test_a_token_embedding_and_a_tied_head_change_apart_beside_the_weights_too(tiny_base: Path) -> None:
    model = ResidentModel.load(tiny_base, "float32", "cpu")
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 95, generator=generator), torch.randn(32, 2, generator=generator)
    sides: dict[str, Callable[[], tuple[torch.Tensor, torch.Tensor]]] = {
        "model.embed_tokens": lambda: (a, b),
        "lm_head": lambda: (b.T, a.T),
    }
    for name, make in sides.items():
        left, right = make()
        model.set_delta({name: partial(torch.matmul, right, left)})
        moved = logits(model)
        model.set_delta(None, {name: make})
        torch.testing.assert_close(logits(model), moved, rtol=1e-5, atol=1e-5)


def test_a_module_that_is_read_and_not_called_is_moved_instead(tiny_base: Path) -> None:
    model = ResidentModel.load(tiny_base, "float32", "cpu")
    layer = model.model.model.layers[1].mlp
    layer.forward = lambda x: torch.nn.functional.linear(
        layer.act_fn(layer.gate_proj(x)) * layer.up_proj(x), layer.down_proj.weight
    )
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 48, generator=generator), torch.randn(32, 2, generator=generator)
    up = torch.randn(2, 32, generator=generator), torch.randn(48, 2, generator=generator)
    names = {MODULE: (a, b), "model.layers.1.mlp.up_proj": up}
    model.set_delta({name: partial(torch.matmul, right, left) for name, (left, right) in names.items()})
    moved = logits(model)
    model.set_delta(None, {name: partial(_given, pair) for name, pair in names.items()})
    assert model._moved == {MODULE}
    torch.testing.assert_close(logits(model), moved, rtol=1e-5, atol=1e-5)


def _given(pair: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    return pair


def test_factors_of_another_base_leave_the_base(tiny_base: Path) -> None:
    model = ResidentModel.load(tiny_base, "float32", "cpu")
    before = logits(model)
    good, bad = (torch.ones(2, 32), torch.ones(48, 2)), (torch.ones(2, 7), torch.ones(5, 2))
    with pytest.raises(AdapterError, match=r"ΔW has shape \(5, 7\), the base weight \(32, 48\)"):
        model.set_delta(None, {"model.layers.0.mlp.up_proj": lambda: good, MODULE: lambda: bad})
    assert torch.equal(logits(model), before)
    with pytest.raises(AdapterError, match="no linear module or embedding for 1 modules"):
        model.set_delta(None, {"model.norm": lambda: good})
    assert torch.equal(logits(model), before)


def test_the_batch_plan_does_not_depend_on_who_else_is_at_work_until_memory_is_short(tiny_base, monkeypatch) -> None:
    model = ResidentModel.load(tiny_base, "float32", "cpu")
    monkeypatch.setattr("sstmerge_core.models.resident.total_memory", lambda device: 10**9)

    def room(free: int) -> int:
        monkeypatch.setattr("sstmerge_core.models.resident.free_memory", lambda device: free)
        return model.room(100)

    alone = room(10**9)
    assert alone > 64 and {min(64, room(free)) for free in (10**9, 7 * 10**8, 4 * 10**8)} == {64}
    assert room(4 * 10**8) in (alone // 2, alone // 4) and room(1) == 1
