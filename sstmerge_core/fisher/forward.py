"""Samples through the model for what its hooks see on the way, not for their losses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sstmerge_core.fisher.gradients import padding
from sstmerge_core.fisher.room import AT_ONCE
from sstmerge_core.models.supervised import collate


def forward(
    model: Any,
    tokenizer: Any,
    encoded: Sequence[tuple[list[int], int]],
    batch: dict[str, Any],
    progress: Callable[[int, int], None],
) -> list[int]:
    """Pass `encoded` samples (token ids, how many are the prompt's) through `model`, similar lengths together.

    Before each batch its mask (b, t) is put into ``batch["mask"]``, which the hooks read, and `progress` is told
    (samples done, of all); it may raise to stop. Gives the order in which the samples went through. Memory: the
    activations of one batch of `AT_ONCE` samples.
    """
    import torch

    order = sorted(range(len(encoded)), key=lambda index: len(encoded[index][0]))
    device = next(model.parameters()).device
    with torch.no_grad():
        for start in range(0, len(order), AT_ONCE):
            progress(start, len(order))
            chosen = [encoded[index] for index in order[start : start + AT_ONCE]]
            collated = collate(chosen, padding(tokenizer)).to(device)
            batch["mask"] = collated.attention_mask
            model(
                input_ids=collated.input_ids,
                attention_mask=collated.attention_mask,
                position_ids=collated.position_ids,
                logits_to_keep=1,
                use_cache=False,
            )
    return order
