"""What goes into an output embedding of 16 bits on a CPU, where torch would copy its weight."""

from __future__ import annotations

import pytest
import torch

from sstmerge_core.models.resident import _gapless


@pytest.mark.parametrize("samples", [1, 3])
def test_a_slice_of_the_last_tokens_gets_the_strides_of_a_tensor_made_anew(samples: int) -> None:
    hidden = torch.randn(samples, 5, 4).bfloat16()
    for part in (hidden[:, -1:], hidden[:, 1:3], hidden):
        (given, other) = _gapless(torch.nn.Linear(4, 2), (part, torch.ones(1)))
        assert given.stride() == torch.empty(part.shape).stride(), "else the product takes a copy of the weight"
        assert torch.equal(given, part) and other.item() == 1
