"""ΔW = BA beside the base's weights: y = Wx + B(Ax), as LoRA computes it, so that no weight is written to.

Against weights moved by ΔW the result is another rounding of the same numbers. In float32 both are off the exact
product by a few units of 2⁻²⁴ of what is summed up. In 16 bits they are not alike: a moved weight is rounded to
W + ΔW, so that what is less than 2⁻⁹ of W (bfloat16) is lost of ΔW; beside, only ΔW itself is rounded, by 2⁻⁹ of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from sstmerge_core.errors import AdapterError, Problem
from sstmerge_core.models.placement import device_of

if TYPE_CHECKING:
    import torch

Pair = tuple["torch.Tensor", "torch.Tensor"]
"""LoRA factors A (r, in) and B (out, r)"""


class Beside:
    """Factors at work in a model's modules, until `remove`.

    Works on ``Linear``, ``Conv1D`` and token embeddings, of which ΔW is (width, vocabulary). Memory beside the
    activations: the factors in the model's format, and r numbers a token and module.
    """

    def __init__(self, modules: Mapping[str, Any], factors: Mapping[str, Callable[[], Pair]]):
        """Raises AdapterError for factors of another shape; nothing is at work then."""
        self.called: set[str] = set()
        """Modules that have been passed since `called` was last emptied"""
        self._handles: list[Any] = []
        try:
            for name, make in factors.items():
                layer = modules[name]
                a, b = make()
                _check(name, layer, a, b)
                if a.numel():
                    a, b = (side.to(device_of(layer), _format(layer)) for side in (a, b))
                    self._handles.append(layer.register_forward_hook(self._hook(name, a.T.contiguous(), b.T)))
                else:
                    self.called.add(name)  # nothing changes here
        except BaseException:
            self.remove()
            raise

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _hook(self, name: str, a: torch.Tensor, b: torch.Tensor) -> Callable[..., torch.Tensor]:
        def forward(layer: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
            self.called.add(name)
            x = inputs[0].to(a.device)  # of a model on several devices it may come from another
            # in place: nothing else has seen the output yet, and a layer's outputs are most of what a pass takes
            if layer.weight.dtype.is_floating_point:
                return output.add_((inner(layer, x, a) @ b).to(output.device))
            return output + (inner(layer, x.to(a.dtype), a) @ b).to(output)

        return forward


def inner(layer: Any, x: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
    """Ax of each token, (…, r), for Aᵀ (in, r); of a token embedding, whose x are token ids, rows of it."""
    import torch

    if not isinstance(layer, torch.nn.Embedding):
        return x @ a
    scale = getattr(layer, "embed_scale", None)  # Gemma's embedding multiplies its rows
    rows = torch.nn.functional.embedding(x, a)
    return rows if scale is None else rows * (scale.to(rows) if isinstance(scale, torch.Tensor) else scale)


def _format(layer: Any) -> torch.dtype:
    """The format that factors beside a layer are in: the weight's, and float32 beside quantised ones."""
    import torch

    return layer.weight.dtype if layer.weight.dtype.is_floating_point else torch.float32


def _check(name: str, layer: Any, a: torch.Tensor, b: torch.Tensor) -> None:
    import torch

    rows, columns = layer.weight.shape
    if not layer.weight.dtype.is_floating_point:  # quantised: packed in a shape of its own
        rows, columns = layer.out_features, layer.in_features
    turned = isinstance(layer, torch.nn.Embedding) or type(layer).__name__ == "Conv1D"
    height, width = (columns, rows) if turned else (rows, columns)
    if (b.shape[0], a.shape[1]) != (height, width):
        fault = f"ΔW has shape {(b.shape[0], a.shape[1])}, the base weight {tuple(layer.weight.shape)}"
        raise AdapterError(Problem(name, fault, "Use an adapter of this base model."))
