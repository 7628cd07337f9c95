"""What decides a trained adapter beside its rows and its base."""

from __future__ import annotations

import math
from typing import Any

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

from sstmerge_core.errors import Problem


class TrainingSettings(BaseModel):
    """Everything that, with the data and the base, decides the trained adapter."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    r: int = 8
    lora_alpha: int = 16
    learning_rate: float = 1e-3
    epochs: float = 4
    batch_size: int = 16
    warmup: float = 0.05
    """Share of the steps over which the learning rate rises; it then falls along a cosine to zero."""
    max_length: int = 256
    seed: int = 42
    patience: int = 0
    """Epochs without a lower validation loss after which training stops; the best epoch's weights are kept. 0: off,
    every epoch is trained and the last weights are kept."""

    @model_serializer(mode="wrap")
    def _without_patience(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Early stopping came later: without it, settings keep the form and so the hash they had before."""
        found = handler(self)
        return found if self.patience else {name: value for name, value in found.items() if name != "patience"}

    def steps(self, rows: int) -> int:
        """Batches in all; batches run across the ends of epochs."""
        return math.ceil(round(self.epochs * rows) / self.batch_size)

    def problems(self) -> list[Problem]:
        """Every value that cannot be used."""
        found = [(f"training setting {name}", getattr(self, name), low) for name, low in _LEAST.items()]
        problems = [
            Problem(where, f"is {value:g}", f"Give at least {low}.") for where, value, low in found if value < low
        ]
        problems += [
            Problem(f"training setting {name}", f"is {getattr(self, name):g}", "Give above 0.")
            for name in ("learning_rate", "epochs")
            if not 0 < getattr(self, name) < math.inf
        ]
        if not 0 <= self.warmup <= 1:
            problems.append(Problem("training setting warmup", f"is {self.warmup:g}", "Give a share from 0 to 1."))
        return problems


_LEAST = {"r": 1, "lora_alpha": 1, "batch_size": 1, "max_length": 2, "patience": 0}
