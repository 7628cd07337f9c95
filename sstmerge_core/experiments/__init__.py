"""The experiments of the reports, the search for a front and the contest of all methods. No torch.

Each is one function of a `Lab` and its settings.

``sstmerge experiment NAME`` runs one; what it found is a `Result` in the workspace's ``experiments`` folder.
"""

from __future__ import annotations

import difflib
import importlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sstmerge_core.errors import Problem, RecipeError
from sstmerge_core.experiments.result import Result, Table, load, results, save
from sstmerge_core.experiments.settings import Settings, read, write
from sstmerge_core.workspace import Workspace

if TYPE_CHECKING:
    from sstmerge_core.experiments.lab import Lab
    from sstmerge_core.experiments.plan import Step

__all__ = [
    "EXPERIMENTS",
    "Experiment",
    "Lab",
    "Result",
    "Settings",
    "Step",
    "Table",
    "get",
    "load",
    "results",
    "run",
    "save",
    "steps",
    "write",
]


def __getattr__(name: str) -> Any:
    """`Lab` and `Step`, which bring pandas and SciPy: who only lists experiments or reads results waits for neither."""
    if name in ("Lab", "Step"):
        return getattr(importlib.import_module(f"{__name__}.{'lab' if name == 'Lab' else 'plan'}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@dataclass(frozen=True)
class Experiment:
    name: str
    number: int
    """In ALGORITHMS §9; the search and the contest come last"""
    title: str
    about: str
    module: str
    settings: str

    @property
    def kind(self) -> type[Settings]:
        return getattr(self._module, self.settings)

    @property
    def function(self) -> Callable[[Lab, Any], Result]:
        return self._module.run

    @property
    def steps(self) -> Callable[[Lab, Any], list[Step]] | None:
        """What it has still to do, of a lab and settings; None where it cannot say."""
        return getattr(self._module, "steps", None)

    @property
    def question(self) -> str:
        return self._module.QUESTION

    @property
    def _module(self) -> Any:
        return importlib.import_module(f"{__name__}.{self.module}")

    def read(self, given: Path | str | Mapping[str, Any] | None = None) -> Settings:
        """Its settings; see `settings.read`."""
        return read(self.kind, given)


EXPERIMENTS = {
    one.name: one
    for one in (
        Experiment("safety-tax", 1, "Safety Tax", "Before and after the merge", "safety_tax", "SafetyTaxSettings"),
        Experiment(
            "interference", 2, "Interference", "Many experts and safety", "interference", "InterferenceSettings"
        ),
        Experiment("baselines", 3, "Baselines", "Methods over training seeds", "baselines", "BaselinesSettings"),
        Experiment("alpha-k", 4, "α × k", "The reports' grid and its finalists", "alpha_k", "AlphaKSettings"),
        Experiment(
            "pre-post", 5, "Before and after tuning", "The paper's interpolation", "pre_post", "PrePostSettings"
        ),
        Experiment("search", 6, "Search", "A front found by Optuna", "search", "SearchSettings"),
        Experiment("contest", 7, "Contest", "Every method over pairs and seeds", "contest", "ContestPlan"),
    )
}


def get(name: str) -> Experiment:
    """The experiment called `name`. Raises RecipeError naming the nearest."""
    if name not in EXPERIMENTS:
        near = difflib.get_close_matches(name, EXPERIMENTS, 1)
        fix = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(EXPERIMENTS)}."
        raise RecipeError(Problem(f"experiment {name}", "there is none", fix))
    return EXPERIMENTS[name]


def steps(workspace: Workspace, name: str, settings: Settings, *, device: str = "auto") -> tuple[list[Step], float]:
    """What an experiment has still to do, and by how much slower the machine is now than the times given.

    Nothing is computed. Raises RecipeError where it cannot say.
    """
    from sstmerge_core.experiments.lab import Lab
    from sstmerge_core.experiments.plan import slower_now

    own = get(name)
    if own.steps is None:
        known = ", ".join(one.name for one in EXPERIMENTS.values() if one.steps)
        raise RecipeError(Problem(f"experiment {name}", "cannot say before what it will do", f"These can: {known}."))
    lab = Lab(workspace, settings, device)
    return own.steps(lab, settings), slower_now(lab)


def run(
    workspace: Workspace,
    name: str,
    settings: Settings,
    *,
    report: Callable[[str, float, float], None] = lambda what, done, total: None,
    should_cancel: Callable[[], bool] = lambda: False,
    device: str = "auto",
    user: str = "",
    job_id: str = "",
) -> Result:
    """Carry out an experiment, or what is left of it, and save its result.

    Raises RecipeError, DataError and AdapterError for what it is given, JobError where points failed, Cancelled.
    """
    from sstmerge_core.experiments.lab import Lab
    from sstmerge_core.runs.artifact import versions

    begun = time.monotonic()
    lab = Lab(workspace, settings, device, user, job_id, report, should_cancel)
    found = get(name).function(lab, settings)
    found = replace(found, seconds=time.monotonic() - begun, versions=versions())
    save(workspace, settings, found)
    return found
