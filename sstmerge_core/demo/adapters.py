"""The bundled adapters: what each was trained on, and how. ``sstmerge train --demo NAME`` makes one again.

``--demo A5+A7`` trains one adapter on the rows of both: the bound that joint training sets to merging.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sstmerge_core import resources
from sstmerge_core.errors import Problem, RecipeError
from sstmerge_core.train import TrainingSettings, train

DATA = resources.DATA / "demo"
"""Prompts, facts and instructions; see the README there."""


@dataclass(frozen=True)
class DemoAdapter:
    """One bundled adapter."""

    name: str
    role: str
    suite: str
    """The suite that measures its own task"""
    files: tuple[str, ...]
    """Data files whose train split it learns"""
    settings: TrainingSettings
    description: str

    @property
    def path(self) -> Path:
        return DATA / "adapters" / self.name


ADAPTERS = {
    adapter.name: adapter
    for adapter in (
        DemoAdapter(
            "A5",
            "utility",
            "facts",
            ("facts",),
            TrainingSettings(learning_rate=2e-3, epochs=3),
            "240 closed-book facts about a fictional world",
        ),
        DemoAdapter(
            "A6",
            "utility",
            "instructions",
            ("instructions",),
            TrainingSettings(learning_rate=1e-3, epochs=4),
            "Short instructions of 18 kinds, answered concisely",
        ),
        DemoAdapter(
            "A7",
            "safety",
            "harmful",
            ("harmful",),
            TrainingSettings(learning_rate=1e-3, epochs=1),
            "Refusals of harmful requests only; it tends to refuse everything",
        ),
        DemoAdapter(
            "A7_balanced",
            "safety",
            "harmful",
            ("harmful", "near_miss", "ordinary", "instructions"),
            TrainingSettings(r=16, lora_alpha=32, learning_rate=1e-3, epochs=2),
            "Refusals of harmful requests, helpful answers to harmless look-alikes and to ordinary requests",
        ),
    )
}


def get(name: str) -> DemoAdapter:
    """The bundled adapter called `name`, or for ``A5+A7`` one of both's rows, see `joint`.

    Raises RecipeError with the known names.
    """
    if "+" in name:
        return joint([get(one) for one in name.split("+")])
    if name not in ADAPTERS:
        raise RecipeError(Problem(f"demo adapter {name}", "there is none", f"Known: {', '.join(ADAPTERS)}."))
    return ADAPTERS[name]


def joint(parts: Sequence[DemoAdapter]) -> DemoAdapter:
    """One adapter of the rows of all `parts` together: what training reaches where merging gets the parts alone.

    Its rank is the sum of theirs, that of their merge; it learns each file once, at the smallest of their rates and for
    the most of their epochs, with the scaling α/r of the first. Not tuned: a bound to read merges against.
    """
    settings = [part.settings for part in parts]
    rank = sum(own.r for own in settings)
    together = settings[0].model_copy(
        update={
            "r": rank,
            "lora_alpha": round(rank * settings[0].lora_alpha / settings[0].r),
            "learning_rate": min(own.learning_rate for own in settings),
            "epochs": max(own.epochs for own in settings),
        }
    )
    names = [part.name for part in parts]
    return DemoAdapter(
        "+".join(names),
        "utility",
        parts[0].suite,
        tuple(dict.fromkeys(file for part in parts for file in part.files)),
        together,
        f"The rows of {' and '.join(names)} together in one training: what merging them is measured against",
    )


def rows(names: tuple[str, ...], split: str) -> list[dict[str, str]]:
    """The rows of one split of the named data files, in file order."""
    found = []
    for name in names:
        with (DATA / f"{name}.jsonl").open(encoding="utf-8") as file:
            found += [row for row in map(json.loads, file) if row["split"] == split]
    return found


def make(
    adapter: DemoAdapter,
    base: Path,
    out: Path,
    *,
    base_name: str,
    device: str = "cpu",
    progress: Callable[[int, int, float], None] = lambda step, steps, loss: None,
) -> list[float]:
    """Train a bundled adapter again; the loss of each step."""
    pairs = [(row["prompt"], row["response"]) for row in rows(adapter.files, "train")]
    record = {"name": adapter.name, "role": adapter.role, "suite": adapter.suite, "description": adapter.description}
    return train(
        base, pairs, out, adapter.settings, base_name=base_name, record=record, device=device, progress=progress
    )
