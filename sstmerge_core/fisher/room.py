"""How many samples a backward pass takes at once, and whether it keeps its activations or computes them again.

A batch is at most `AT_ONCE` samples and `TOKENS` tokens, which is a setting and no measurement, so that the sums of a
pass, and with them its bits, do not depend on what else is in memory. Only where that does not fit are activations
computed again (the same bits, half of the pass's time more), and where that does not fit either, fewer samples taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

AT_ONCE = 8
"""Samples in one backward pass at most"""
AGAIN = 3
"""What one layer takes while it is computed again and passed backwards, in terms of what it keeps (measured: 2.9 at
2,048 tokens of a 1B's layer in bfloat16 on a CPU)"""
TOKENS = 2048
"""Tokens in one backward pass at most, padding included: `AT_ONCE` samples of 256"""


class Footprint(NamedTuple):
    """What a backward pass to the input embeddings keeps of each token, in bytes; weights are frozen."""

    everything: int
    """Where activations are kept: about as much as goes into and out of all linear modules"""
    recomputed: int
    """Where each layer's are computed again: its input, and `AGAIN` times one layer's everything"""

    @classmethod
    def of_sizes(cls, widths: int, layers: int, hidden: int, size: int) -> Footprint:
        """`widths`: in + out of all linear modules but the head; `size`: bytes of a number; float32 norms are counted.

        An architecture whose layers are not known as such (`layers` is 0) has nothing that can be computed again.
        """
        everything = size * widths + 4 * hidden * max(1, layers)
        again = size * hidden * layers + AGAIN * everything // layers if layers else everything
        return cls(everything, again)

    @classmethod
    def of(cls, model: Any) -> Footprint:
        """That of a transformers model in memory."""
        import torch
        from transformers.pytorch_utils import Conv1D

        head = model.get_output_embeddings()
        weights = [
            module.weight
            for module in model.modules()
            if isinstance(module, (torch.nn.Linear, Conv1D)) and module is not head
        ]
        widths = sum(sum(weight.shape) for weight in weights)
        table = model.get_input_embeddings().weight
        return cls.of_sizes(widths, len(_layers(model)), table.shape[1], table.element_size())


@dataclass(frozen=True)
class Pass:
    """How a Fisher pass goes through its samples."""

    samples: int = AT_ONCE
    tokens: int = TOKENS
    """Of a batch at most, padding included; a sample that is longer is a batch of its own"""
    recompute: bool = False

    def batches(self, lengths: Sequence[int]) -> list[list[int]]:
        """Indices of samples of these lengths in tokens, similar lengths together for less padding."""
        order = sorted(range(len(lengths)), key=lambda index: (lengths[index], index))
        found, start = [], 0
        while start < len(order):
            end = min(start + self.samples, len(order))
            while end - start > 1 and (end - start) * lengths[order[end - 1]] > self.tokens:
                end -= 1
            found.append(order[start:end])
            start = end
        return found


def plan(footprint: Footprint, longest: int, room: int) -> Pass:
    """The pass for samples of at most `longest` tokens that keeps to `room` bytes, as far as any does."""
    usual = Pass()
    tokens = min(usual.samples * longest, max(usual.tokens, longest))
    if tokens * footprint.everything <= room:
        return usual
    fitting = room // max(1, min(footprint))
    recompute = footprint.recomputed < footprint.everything  # else, with few layers, nothing is won by it
    return replace(usual, tokens=min(usual.tokens, max(longest, fitting)), recompute=recompute)


def _layers(model: Any) -> list[Any]:
    from transformers.modeling_layers import GradientCheckpointingLayer

    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


@contextmanager
def recomputing(model: Any) -> Iterator[None]:
    """Inside, each layer keeps its input alone, and computes the rest again when the backward pass comes by.

    The graph is that of the first forward pass, so the hooks that it got then are the ones that fire, once. (The
    library's own switch for this works in training mode only.)
    """
    with ExitStack() as stack:
        for layer in _layers(model):
            own = vars(layer).get("forward")  # a model on several devices has its layers' way of coming there in it
            layer.forward = partial(_again, layer.forward)
            stack.callback(*((delattr, layer, "forward") if own is None else (setattr, layer, "forward", own)))
        yield


def _again(forward: Callable[..., Any], *inputs: Any, **named: Any) -> Any:
    import torch
    from torch.utils.checkpoint import checkpoint

    if not torch.is_grad_enabled():
        return forward(*inputs, **named)
    # there is no dropout in eval mode, so no state of a random generator has to be kept
    return checkpoint(forward, *inputs, use_reentrant=False, preserve_rng_state=False, **named)
