"""The matrix of all samples' gradients is never put together: what is asked of it is asked by columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch.utils._python_dispatch import TorchDispatchMode

from sstmerge_core.fisher import dual_problem, gram, problem, project, stack
from sstmerge_core.fisher.gradients import Gradients, plain_mean
from sstmerge_core.fisher.problem import primal
from sstmerge_core.models import supervised
from sstmerge_core.models.resident import ResidentModel
from sstmerge_core.models.supervised import collate

SHAPES = {f"layer.{number}": (4, 6) for number in range(20)}
N, WIDTH = 9, 480


class Largest(TorchDispatchMode):
    """The most bytes that one tensor takes which is made inside."""

    bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and out._base is None:
            given = [arg for arg in args if isinstance(arg, torch.Tensor)]
            if all(out.untyped_storage().data_ptr() != arg.untyped_storage().data_ptr() for arg in given):
                Largest.bytes = max(Largest.bytes, out.untyped_storage().nbytes())
        return out


@pytest.fixture
def parts(tmp_path: Path) -> dict[str, Gradients]:
    """Of three kinds of samples, as mappings of files."""
    from safetensors import safe_open

    generator = torch.Generator().manual_seed(3)
    found = {}
    for name in ("harm", "utility", "general"):
        save_file({"rows": torch.randn(N, WIDTH, generator=generator)}, tmp_path / name)
        with safe_open(tmp_path / name, framework="pt") as file:
            found[name] = Gradients(file.get_tensor("rows"), SHAPES, torch.ones(N), plain_mean(N))
    return found


def test_no_step_of_a_patch_makes_a_tensor_of_all_samples_and_modules(
    parts: dict[str, Gradients], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(problem, "COLUMNS", 48)
    phi = {name: torch.randn(shape) for name, shape in SHAPES.items()}
    Largest.bytes = 0
    with Largest():
        benign = stack(parts["utility"], parts["general"], 2.0)
        benign.mean()
        dual = dual_problem(parts["harm"], benign, phi, 0.1)
        gram(benign, SHAPES)
        patch = dual.shield(1.0)
        for name, core in phi.items():
            project(benign, name, core)
            primal(patch, parts["harm"], benign, core, name)
    assert 2 * 4 * N * 48 <= Largest.bytes < 4 * N * WIDTH, "a run of columns is the most; all of a part would be more"


def test_what_is_stacked_is_what_was_put_together(parts: dict[str, Gradients]) -> None:
    lazy = stack(parts["utility"], parts["general"], 2.0)
    whole = Gradients(torch.cat([parts["utility"].rows, parts["general"].rows]), SHAPES, lazy.tokens, lazy.weights)
    phi = {name: torch.randn(shape) for name, shape in SHAPES.items()}
    first, second = (dual_problem(parts["harm"], one, phi, 0.1) for one in (lazy, whole))
    assert all(torch.equal(getattr(first, one), getattr(second, one)) for one in ("hh", "hb", "bb", "h_phi", "b_phi"))
    assert torch.equal(gram(lazy, SHAPES), gram(whole, SHAPES))
    for name, core in phi.items():
        assert torch.equal(project(lazy, name, core), project(whole, name, core))
        assert torch.equal(lazy.modules[name], whole.modules[name])
        assert torch.allclose(lazy.mean()[name], whole.mean()[name], atol=1e-6), "another order of the same sum"
    assert len(lazy.to("cpu")) == 2 * N and lazy.to("cpu").below[0].shape == (N, WIDTH)


def test_one_samples_logits_are_made_by_pieces_too_where_they_are_large(
    tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ResidentModel.load(tiny_base)
    batch = collate([([2, *range(5, 25)], 4)], 1)
    whole, _ = supervised.sample_losses(model.model, batch, pieces=True)
    shapes: list[tuple[int, ...]] = []
    summed = supervised._sums

    def noted(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(logits.shape))
        return summed(logits, labels)

    monkeypatch.setattr(supervised, "_sums", noted)
    monkeypatch.setattr(supervised, "LARGEST_OF_ONE", 4 * 95 * 10)
    monkeypatch.setattr(supervised, "PIECE", 4 * 95 * 3)
    by_piece, _ = supervised.sample_losses(model.model, batch, pieces=True)
    assert {shape[1] for shape in shapes[:-1]} == {3}
    torch.testing.assert_close(by_piece, whole)
