"""LoRA training on prompt–response rows: how the demo's adapters were made, and how users make their own."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sstmerge_core import documents
from sstmerge_core.adapters import RECORD, base_fingerprint
from sstmerge_core.errors import Cancelled, DataError, Problem, RecipeError
from sstmerge_core.models.bits import untrainable
from sstmerge_core.models.device import share_the_machine
from sstmerge_core.train import checkpoint
from sstmerge_core.train.settings import TrainingSettings
from sstmerge_core.train.trainer import Trainer
from sstmerge_core.train.training_data import Pair

CHECKPOINT_SECONDS = 60.0
"""At most so long between two checkpoints, if a step is shorter; one is also written at the end of each epoch."""
CURVE_SECONDS = 1.0


def inputs_digest(
    base_sha256: str, rows: Sequence[Pair], validation: Sequence[Pair], settings: TrainingSettings
) -> str:
    """SHA-256 of all that decides an adapter, the machine aside; an adapter's record has it as ``inputs``."""
    decides = [base_sha256, list(rows), list(validation), settings.model_dump(mode="json")]
    return hashlib.sha256(json.dumps(decides, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def training_record(folder: Path) -> dict[str, Any]:
    """What a trained adapter's record says of its training: settings, rows, loss curve; empty where it says nothing."""
    try:
        found = documents.read_json(folder / RECORD).get("training")
        return found if isinstance(found, dict) else {}  # an adapter from elsewhere may say anything
    except (OSError, ValueError, AttributeError):
        return {}


def train(
    base: Path,
    rows: Sequence[Pair],
    out: Path,
    settings: TrainingSettings,
    *,
    validation: Sequence[Pair] = (),
    base_name: str = "",
    base_sha256: str = "",
    record: dict[str, Any] | None = None,
    device: str = "cpu",
    progress: Callable[[int, int, float], None] = lambda step, steps, loss: None,
    should_cancel: Callable[[], bool] = lambda: False,
) -> list[float]:
    """Train a LoRA adapter on every linear module and write it to the folder `out`.

    `rows` are (prompt, response); on the `validation` rows the loss is measured at the end of each epoch. Returns the
    loss of each step in nats per response token. AdamW; bfloat16 autocast where the hardware multiplies it, otherwise
    float32. The same settings, rows, base and machine give one adapter, also when training is killed and called again:
    it goes on at its checkpoint (see `checkpoint`) to the same bits. `base_sha256` saves the hashing of the base.

    Raises DataError for an empty data set, RecipeError for settings that cannot be used or make the loss diverge,
    JobError while another process trains into `out`, Cancelled. Nothing is left in `out` unless training ends.
    """
    _check(rows, validation, out, settings)
    if quantised := untrainable(Path(base)):
        raise DataError(quantised)
    share_the_machine()
    inputs = inputs_digest(base_sha256 or base_fingerprint(base), rows, validation, settings)
    steps = settings.steps(len(rows))
    with checkpoint.held(out) as place:
        trainer = Trainer(base, rows, validation, settings, device)
        key = f"{inputs} {trainer.machine}"
        state = checkpoint.TrainingState()
        if kept := checkpoint.load(place, key):
            state = kept[0]
            trainer.restore(kept[1], state.step)
            progress(state.step, steps, state.losses[-1])
        begun = time.monotonic() - state.seconds
        saved = drawn = time.monotonic()
        while state.step < steps and not state.stopped(settings.patience):
            state.losses.append(_finite(trainer.step(state.step), state.step + 1, settings))
            state.step += 1
            epoch_ends = state.step == steps or math.floor(trainer.epoch(state.step)) > trainer.epoch(state.step - 1)
            if epoch_ends and validation:
                measured = _finite(trainer.validation_loss(), state.step, settings)
                epoch = round(trainer.epoch(state.step), 2)
                state.validation.append({"epoch": epoch, "step": state.step, "loss": measured})
                if settings.patience and state.best == len(state.validation) - 1:
                    trainer.note_best()
            now = time.monotonic()
            state.seconds = now - begun
            cancelled = should_cancel()
            if epoch_ends or cancelled or now - saved >= CHECKPOINT_SECONDS:
                checkpoint.save(place, key, state, trainer.tensors())
                saved = time.monotonic()
            if epoch_ends or cancelled or now - drawn >= CURVE_SECONDS:
                checkpoint.write_curve(place, checkpoint.curve_of(state, steps))
                drawn = now
            progress(state.step, steps, state.losses[-1])
            if cancelled:
                raise Cancelled(f"training of {out.name}")

        training = settings.model_dump() | checkpoint.curve_of(state, steps) | {"rows": len(rows), "inputs": inputs}
        training |= {"arithmetic": trainer.arithmetic, "seconds": round(state.seconds, 1)}
        if validation:
            training["validation_rows"] = len(validation)
        trainer.write(out, base_name or str(base), (record or {}) | {"training": training})
        checkpoint.remove(place)
    return state.losses


def _check(rows: Sequence[Pair], validation: Sequence[Pair], out: Path, settings: TrainingSettings) -> None:
    if problems := settings.problems():
        raise RecipeError(problems)
    if not rows:
        fix = "Give a file with prompt and response columns."
        raise DataError(Problem(str(out), "there are no training rows", fix))
    if not settings.steps(len(rows)):
        fault = f"is {settings.epochs:g}: not one of {len(rows)} rows would be learnt"
        raise RecipeError(Problem("training setting epochs", fault, "Give more epochs."))
    if settings.patience and not validation:
        fix = "Hold out a share of the rows or a split of their own, or train every epoch."
        raise DataError(Problem("early stopping", "there are no validation rows to stop by", fix))


def _finite(loss: float, step: int, settings: TrainingSettings) -> float:
    if math.isfinite(loss):
        return loss
    where = f"learning rate {settings.learning_rate:g}"
    raise RecipeError(Problem(where, f"the loss is {loss} at step {step}", "Give a lower learning rate."))
