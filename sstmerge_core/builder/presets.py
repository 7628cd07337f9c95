"""What the reports and the paper name, and quick ways to begin, from ``data/presets``. Imports no torch.

Base models, training settings, grids of a sweep, and single merges.
"""

from __future__ import annotations

import difflib
from functools import cache
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from sstmerge_core import documents, errors, resources
from sstmerge_core.errors import DataError, Problem, RecipeError
from sstmerge_core.train import TrainingSettings

FOLDER = resources.DATA / "presets"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelPreset(_Frozen):
    title: str
    huggingface: str
    template: str
    """The text for one prompt, {prompt}, up to where the answer begins"""
    licence: str
    gated: bool
    """Whether the licence must be accepted before the download"""
    source: str
    """Who names the model"""

    @property
    def folder(self) -> str:
        """What the model's folder is called after a download by `get`."""
        return self.huggingface.split("/")[1]

    @property
    def get(self) -> str:
        """The exact way to have the model here."""
        accept = f"accept the licence at https://huggingface.co/{self.huggingface} and `hf auth login`, then "
        download = f"`hf download {self.huggingface} --local-dir models/{self.folder}`"
        return f"{accept if self.gated else ''}{download} and `sstmerge adapters add-base models/{self.folder}`"


class TrainingPreset(_Frozen):
    title: str
    settings: TrainingSettings
    steps: int | None = None
    """Optimizer steps, where the source counts those and not epochs"""
    seeds: tuple[int, ...] = ()
    unstated: tuple[str, ...] = ()
    """Settings that the source leaves open: this program's defaults stand there"""
    differs: tuple[str, ...] = ()
    """What the source does and this program does not"""
    source: str

    def for_rows(self, rows: int) -> TrainingSettings:
        """The settings for a data set of `rows` rows: `steps` batches as that many epochs, parts of one counted."""
        if self.steps is None or not rows:
            return self.settings
        return self.settings.model_copy(update={"epochs": self.steps * self.settings.batch_size / rows})


class SweepPreset(_Frozen):
    title: str
    about: str
    """What it answers, in one sentence"""
    methods: tuple[str, ...]
    alpha: str
    """Lists as `grid.numbers` reads them: of methods whose α is a share"""
    strength: str
    """Of methods whose α is a strength"""
    k: str
    seed: str
    n: int
    """Prompts of each suite at most"""
    source: str = ""
    """Where the grid was stated; empty for this program's own"""


class MergePreset(_Frozen):
    title: str
    about: str
    method: str
    parameters: dict[str, Any] = {}
    """Those that differ from the method's defaults"""
    n: int
    source: str = ""


@cache
def models() -> dict[str, ModelPreset]:
    return _read("models.yaml", TypeAdapter(dict[str, ModelPreset]))


@cache
def trainings() -> dict[str, TrainingPreset]:
    return _read("training.yaml", TypeAdapter(dict[str, TrainingPreset]))


@cache
def sweeps() -> dict[str, SweepPreset]:
    return _read("sweeps.yaml", TypeAdapter(dict[str, SweepPreset]))


@cache
def merges() -> dict[str, MergePreset]:
    return _read("merges.yaml", TypeAdapter(dict[str, MergePreset]))


def training(name: str) -> TrainingPreset:
    """Raises RecipeError naming the known ones."""
    found = trainings().get(name)
    if found is None:
        near = difflib.get_close_matches(name, trainings(), 1, 0.5)
        fix = f"Did you mean {near[0]}?" if near else f"Known presets: {', '.join(trainings())}."
        raise RecipeError(Problem(f"--preset {name}", "there is no such training preset", fix))
    return found


def _read(name: str, kind: TypeAdapter[dict[str, Any]]) -> dict[str, Any]:
    path = FOLDER / name
    try:
        return kind.validate_python(documents.read_yaml(path))
    except ValidationError as error:
        raise DataError(errors.of_validation(error, str(path), "Correct the field.")) from None
