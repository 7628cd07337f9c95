"""A fit's losses take minutes on a CPU: whoever stops it does not wait for their end."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from sstmerge_core import adapters
from sstmerge_core.errors import Cancelled
from sstmerge_core.fitting import ModelObjective, Part
from sstmerge_core.fitting.objective import AT_ONCE
from sstmerge_core.models.supervised import Example
from sstmerge_core.space import core_space


def test_losses_stop_after_the_batch_in_which_that_was_wanted_and_leave_the_model(tiny_base, tiny_pair) -> None:
    space = core_space([adapters.read(path).load() for path in tiny_pair])
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny_base), AutoTokenizer.from_pretrained(tiny_base)
    samples = [Example(f"w{index}", "w7 w8") for index in range(3 * AT_ONCE)]
    objective = ModelObjective(model, tokenizer, space, {"harm": Part(samples, 1.0)})
    cores = {name: own.cores[0] for name, own in space.items()}
    whole, ticks = objective.losses(cores), 0

    def tick() -> None:
        nonlocal ticks
        ticks += 1
        if ticks == 2:
            raise Cancelled("run")

    for look in (objective.losses, objective.loss):
        ticks = 0
        with pytest.raises(Cancelled):
            look(cores, tick)
        assert ticks == 2
    assert torch.equal(objective.losses(cores)["harm"], whole["harm"])
