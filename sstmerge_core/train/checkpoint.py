"""Where a training stands, kept beside its adapter so that a kill at any moment costs a minute at most.

A training into ``A`` has the hidden folder ``.A.training`` with ``state.safetensors`` (weights, AdamW's
moments and the random state; how far it is as JSON in the file's metadata) and ``curve.json`` for those who watch. It
is gone when the adapter is there.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from sstmerge_core import documents
from sstmerge_core.errors import JobError, Problem
from sstmerge_core.workspace import write_json

if TYPE_CHECKING:
    import torch

_STATE = "state.safetensors"
_CURVE = "curve.json"


class Measured(TypedDict):
    """The validation loss at the end of an epoch."""

    epoch: float
    step: int
    loss: float
    """Mean over the validation rows, nats per response token"""


@dataclass
class TrainingState:
    """How far a training has come."""

    step: int = 0
    losses: list[float] = field(default_factory=list)
    """Of each step's batch before the step, nats per response token"""
    validation: list[Measured] = field(default_factory=list)
    seconds: float = 0.0
    """Over all sittings"""

    @property
    def best(self) -> int | None:
        """Index of the lowest validation loss, the first of equals."""
        losses = [measured["loss"] for measured in self.validation]
        return losses.index(min(losses)) if losses else None

    def stopped(self, patience: int) -> bool:
        """Whether `patience` epochs went by without a lower validation loss; never with 0."""
        return patience > 0 and self.best is not None and len(self.validation) - 1 - self.best >= patience


def folder(out: Path) -> Path:
    return out.parent / f".{out.name}.training"


@contextlib.contextmanager
def held(out: Path) -> Iterator[Path]:
    """The checkpoint's folder, for this process alone. Raises JobError while another one trains into `out`."""
    place = folder(out)
    place.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(place, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fault = "another process is training into this folder"
            raise JobError(Problem(str(out), fault, "Wait until it is done, or give another name.")) from None
        except OSError:
            pass  # some network disks lock no folders
        yield place
    finally:
        os.close(descriptor)
        with contextlib.suppress(OSError):
            place.rmdir()  # only where nothing was kept


def save(place: Path, key: str, state: TrainingState, tensors: Mapping[str, torch.Tensor]) -> None:
    """Replace the checkpoint, whole or not at all. `key` says which training it is."""
    from safetensors.torch import save_file

    partial = place / f"{_STATE}.partial"
    save_file(dict(tensors), partial, metadata={"key": key, "stand": json.dumps(asdict(state))})
    descriptor = os.open(partial, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(partial, place / _STATE)


def load(place: Path, key: str) -> tuple[TrainingState, dict[str, torch.Tensor]] | None:
    """The checkpoint of the training `key`; None where there is none, it is another's, or it cannot be read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(place / _STATE, framework="pt") as file:
            about = file.metadata() or {}
            if about.get("key") != key:
                return None
            # copies: memory of torch's own alignment, as in a training that was never interrupted
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            return TrainingState(**json.loads(about["stand"])), tensors
    except (OSError, SafetensorError):
        return None


def remove(place: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)


def curve_of(state: TrainingState, steps: int) -> dict[str, Any]:
    """The loss curve as in an adapter's record: planned steps, training loss per step, validation loss per epoch."""
    curve: dict[str, Any] = {"steps": steps, "loss": [round(loss, 4) for loss in state.losses]}
    if state.validation:
        curve["validation"] = [measured | {"loss": round(measured["loss"], 4)} for measured in state.validation]
    return curve


def write_curve(place: Path, curve: Mapping[str, Any]) -> None:
    write_json(place / _CURVE, curve)


def read_curve(out: Path) -> dict[str, Any] | None:
    """The curve so far of a training into `out` that has not ended; None where there is none."""
    try:
        return documents.read_json(folder(out) / _CURVE)
    except (OSError, ValueError):
        return None
