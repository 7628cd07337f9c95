"""Experts of a mixture one by one: what each one's matrices are given and answer, for gradients and for side paths.

transformers 5 multiplies with stacks of matrices, so that no module is passed whose input and output a hook could see.
Inside `listening` the layer is computed expert by expert as transformers' own plain implementation does
(integrations/moe.py, ``use_experts_implementation``), and every matrix's answer goes through a function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from sstmerge_core.adapters.adapted import EXPERT
from sstmerge_core.errors import AdapterError, Problem

if TYPE_CHECKING:
    import torch

Listener = Callable[["torch.Tensor", "torch.Tensor", "torch.Tensor", int], "torch.Tensor"]
"""From what a matrix was given (n, in), what it answers (n, out), which tokens these are (n,), and of how many"""


def is_expert(name: str) -> bool:
    """Whether this is the name of one expert's matrix."""
    return EXPERT.fullmatch(name) is not None


@contextmanager
def listening(layer_called: Callable[[str], Any], listeners: Mapping[str, Listener]) -> Iterator[None]:
    """Inside, what matrix `name` of an expert answers is what its listener makes of it.

    `layer_called` gives a module of experts by its name. Raises AdapterError for experts that are no stack here, or
    whose layer transformers computes in a way of its own.
    """
    by_layer: dict[str, dict[tuple[str, int], Listener]] = {}
    for name, listener in listeners.items():
        match = EXPERT.fullmatch(name)
        assert match is not None
        by_layer.setdefault(match["stack"], {})[match["part"], int(match["expert"])] = listener
    changed: list[tuple[Any, dict[tuple[str, int], Listener]]] = []
    try:
        for name, own in by_layer.items():
            layer = layer_called(name)
            _check(name, layer)
            at_work = _LISTENERS.setdefault(layer, [])
            at_work.append(own)
            changed.append((layer, own))
            layer.forward = _forward(layer, at_work)  # of this one layer; the class keeps its own
        yield
    finally:
        for layer, own in changed:
            _LISTENERS[layer] = [one for one in _LISTENERS[layer] if one is not own]
            if _LISTENERS[layer]:
                layer.forward = _forward(layer, _LISTENERS[layer])
            else:
                del layer.forward


_LISTENERS: WeakKeyDictionary[Any, list[dict[tuple[str, int], Listener]]] = WeakKeyDictionary()
"""What listens to the experts of a layer: a Fisher pass may be taken at a point that a side path makes"""


def _check(name: str, layer: Any) -> None:
    usual = all(hasattr(layer, part) for part in ("gate_up_proj", "down_proj", "_apply_gate", "is_transposed"))
    if layer is None or not usual or getattr(layer, "has_post_expert_norm", False):
        fault = f"is of class {type(layer).__name__}, whose experts cannot be computed one by one here"
        fix = "Use a method that needs no Fisher pass and no fit, or adapters without the experts."
        raise AdapterError(Problem(name, fault, fix))


def _forward(layer: Any, listeners: Sequence[Mapping[tuple[str, int], Listener]]) -> Callable[..., torch.Tensor]:
    import torch

    def product(x: torch.Tensor, part: str, expert: int, tokens: torch.Tensor, total: int) -> torch.Tensor:
        weight = getattr(layer, part)[expert]
        y = x @ weight if layer.is_transposed else x @ weight.T
        for own in listeners:
            if listener := own.get((part, expert)):
                y = listener(x, y, tokens, total)
        return y + getattr(layer, f"{part}_bias")[expert] if layer.has_bias else y

    def forward(hidden_states: torch.Tensor, top_k_index: Any, top_k_weights: Any) -> torch.Tensor:
        result, total = torch.zeros_like(hidden_states), len(hidden_states)
        for expert in top_k_index.unique().tolist():
            if expert >= layer.gate_up_proj.shape[0]:
                continue  # a token that no expert is for
            tokens, place = torch.where(top_k_index == expert)
            inner = layer._apply_gate(product(hidden_states[tokens], "gate_up_proj", expert, tokens, total))
            found = product(inner, "down_proj", expert, tokens, total) * top_k_weights[tokens, place, None]
            result = result.index_add(0, tokens, found.to(result.dtype))
        return result

    return forward
