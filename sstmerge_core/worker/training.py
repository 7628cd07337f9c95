"""A training as a job: checked before it is queued, resumed where it was stopped, its adapter put on the shelf."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from sstmerge_core import catalog
from sstmerge_core.errors import DataError, Problem
from sstmerge_core.jobs import history
from sstmerge_core.jobs.estimate import START, Estimator
from sstmerge_core.jobs.queue import Queue
from sstmerge_core.models.bits import untrainable
from sstmerge_core.recipe import Source
from sstmerge_core.suites.columns import parse
from sstmerge_core.train import TrainingSettings, inputs_digest, train, training_data, training_record
from sstmerge_core.train.training_data import TrainingData
from sstmerge_core.workspace import Workspace


class Training(BaseModel):
    """What a training job is told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: Source
    files: tuple[str, ...]
    columns: str = ""
    """Of the files, as ``--columns`` has them; empty: found out"""
    split: str | None = None
    validation_split: str | None = None
    validation_share: float = 0.0
    """Of the prompts, where no split is held out"""
    settings: TrainingSettings = TrainingSettings()
    name: str
    role: str = ""
    suite: str = ""
    """What measures the adapter's own task"""
    preset: str = ""
    rows_sha256: str = ""
    """Of the rows as they were at launch; empty: not checked"""

    def read(self) -> TrainingData:
        """Raises DataError as `training_data.read` does, and where the rows are not those of the launch."""
        found = training_data.read(
            self.files,
            self.split,
            validation_split=self.validation_split,
            share=self.validation_share,
            columns=parse(self.columns) if self.columns else None,
        )
        if self.rows_sha256 and found.sha256 != self.rows_sha256:
            fix = "Launch it again with the rows as they are now."
            raise DataError(Problem(", ".join(self.files), "has changed since the training was launched", fix))
        return found

    def inputs(self, data: TrainingData) -> str:
        return inputs_digest(self.base.sha256, data.rows, data.validation, self.settings)


@dataclass(frozen=True)
class Plan:
    """What launching a training would do."""

    problems: list[Problem]
    steps: int
    seconds: float
    """Guessed from earlier trainings of this base here"""
    known: catalog.Entry | None
    """The adapter of this name that was trained so before"""


def plan(workspace: Workspace, training: Training, data: TrainingData) -> Plan:
    """Every problem of a training whose rows are read, and how long it takes. Nothing is started."""
    problems = [*training.settings.problems()]
    if not training.base.sha256:
        fix = "`sstmerge demo --prepare` prepares the bundled one."
        problems.append(Problem(f"base model {training.base.name}", "is not ready", fix))
    if training.base.sha256 and (quantised := untrainable(Path(training.base.path))):
        problems.append(quantised)
    if training.settings.patience and not data.validation:
        fix = "Hold out a share of the rows or a split, or train every epoch."
        problems.append(Problem("early stopping", "there are no validation rows to stop by", fix))
    steps = 0 if problems else training.settings.steps(len(data.rows))
    if not problems and not steps:
        problems.append(Problem("epochs", "not one row would be learnt", "Give more epochs."))
    named = next((entry for entry in catalog.entries(workspace) if entry.name == training.name), None)
    known = named if named and training_record(named.path).get("inputs") == training.inputs(data) else None
    if not known:
        problems += _name_problems(workspace, training, data, named)
    return Plan(problems, steps, 0.0 if problems else predict(workspace, training, data), known)


def predict(workspace: Workspace, training: Training, data: TrainingData) -> float:
    """Seconds from launch to adapter, by what earlier trainings of this base took a row; a guess before the first."""
    from sstmerge_core.jobs import default_device

    device = default_device()
    rates, slower = history.basis(workspace, f"{device}/{training.base.sha256[:12]}", device)
    units = {"prepare": 1.0, "train": round(training.settings.epochs * len(data.rows))}
    return Estimator(plan=[{START: 1.0}, units], started=0.0, history=rates, pace=slower).remaining(0.0)


def run(
    workspace: Workspace,
    spec: Mapping[str, Any],
    *,
    report: Callable[[int, str, float, float], None],
    should_cancel: Callable[[], bool],
) -> catalog.Entry:
    """Train, or go on training, and register the adapter. Raises SSTMergeError as the parts do, Cancelled."""
    from sstmerge_core.models.device import best_device

    training = Training.model_validate(spec)
    report(0, "prepare", 0, 1)
    data = training.read()
    out = workspace.adapters / training.name
    total = round(training.settings.epochs * len(data.rows))
    if training_record(out).get("inputs") != training.inputs(data):
        if problems := plan(workspace, training, data).problems:
            raise DataError(problems)

        def progress(step: int, steps: int, loss: float) -> None:
            report(0, "train", min(step * training.settings.batch_size, total), total)
            print(f"step {step}/{steps}, loss {loss:.4f}", flush=True)

        record = {"name": training.name, "role": training.role, "suite": training.suite}
        train(
            Path(training.base.path),
            data.rows,
            out,
            training.settings,
            validation=data.validation,
            base_name=training.base.name,
            base_sha256=training.base.sha256,
            record=record | ({"preset": training.preset} if training.preset else {}),
            device=os.environ.get("SSTMERGE_DEVICE") or best_device(),
            progress=progress,
            should_cancel=should_cancel,
        )
    report(0, "train", total, total)
    return catalog.add(workspace, out, training.name, training.role, training.suite)


def told(workspace: Workspace, job_id: str) -> Training | None:
    """What a training job was told; None for a job of another kind, or that is not here."""
    queue = Queue(workspace)
    found = queue.job(job_id) if workspace.queue.exists() else None
    return Training.model_validate(queue.spec(job_id)["training"]) if found and found.kind == "train" else None


def _name_problems(
    workspace: Workspace, training: Training, data: TrainingData, named: catalog.Entry | None
) -> list[Problem]:
    where, out = f"name {training.name!r}", workspace.adapters / training.name
    if not re.fullmatch(r"\w[\w.@+-]{0,59}", training.name):
        # it is a folder's name too, so it begins with neither a dot nor a dash
        return [Problem(where, "is not usable as an adapter's name", "Give letters, digits and . @ + - _, no spaces.")]
    if named is not None:
        return [Problem(where, "is taken by another adapter", "Give another name.")]
    if out.exists() and training_record(out).get("inputs") != training.inputs(data):
        return [Problem(where, f"{out} holds another adapter", "Give another name, or move that folder away.")]
    return []
