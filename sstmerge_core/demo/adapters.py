"""The bundled adapters: what each was trained on, and how. ``sstmerge train --demo NAME`` makes one again."""

from __future__ import annotations

import json
from collections.abc import Callable
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
    """The bundled adapter called `name`. Raises RecipeError with the known names."""
    if name not in ADAPTERS:
        raise RecipeError(Problem(f"demo adapter {name}", "there is none", f"Known: {', '.join(ADAPTERS)}."))
    return ADAPTERS[name]


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
