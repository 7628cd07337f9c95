"""Which merged adapters stay on the disk: all, those on the front of what was measured alike, or none.

A sweep writes an adapter a point, most of which nobody ever loads; the recipe of each makes the same bits again. What
goes are the weights alone: the settings, the card and the recipe with the hash of every file stay beside the figures.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sstmerge_core import catalog, documents
from sstmerge_core.analysis.front import pareto_front
from sstmerge_core.errors import StoreError
from sstmerge_core.metrics.comparable import evaluation_key
from sstmerge_core.recipe import Recipe, record
from sstmerge_core.runs.outcome import outcome
from sstmerge_core.store import trash
from sstmerge_core.store.events import EventWriter
from sstmerge_core.workspace import Workspace, write_json

AXES = ("resistance", "utility")
"""What a front is of; a run without one of them keeps its weights, as nobody can tell"""
_BUSY_SECONDS = 0.5


def settle(recipe: Recipe, workspace: Workspace) -> list[str]:
    """Let go of the weights that the policy of a run that has just finished does not keep; the runs they were of.

    Under ``front`` those are the run's own, or those of runs that it dominates (higher or equal on both axes), among
    runs of the same base and adapters, measured alike and made under that policy. Never those of a run of which
    somebody said something, or whose adapter is registered.
    """
    if recipe.artifacts == "always":
        return []
    if recipe.artifacts == "never":
        return [recipe.run_id] if _drop(workspace, recipe.run_id) else []
    found = outcome(workspace, recipe)
    point = [found.get(axis) for axis in AXES]
    if any(value is None for value in point):
        return []
    place = _place(recipe, workspace)
    with _alone(place):
        write_json(place / f"{recipe.run_id}.json", dict(zip(AXES, point, strict=True)))
        known = {run_id: axes for run_id, axes in _points(place) if workspace.run(run_id).is_dir()}
        on_front = pareto_front([list(axes) for axes in known.values()])
        beaten = [run_id for run_id, on in zip(known, on_front, strict=True) if not on]
        dropped = [run_id for run_id in beaten if _drop(workspace, run_id)]
        for run_id in beaten:  # whoever beat it is still in the list, and beats what it would have beaten
            (place / f"{run_id}.json").unlink(missing_ok=True)
    return dropped


def asked_to_stay(recipe: Recipe, workspace: Workspace) -> bool:
    """Have the adapter of a finished run stay, though it was made under a policy; whether its weights are missing.

    False too where the run was made to stay, whoever deleted its weights since: then somebody wanted that.
    """
    folder = workspace.run(recipe.run_id)
    made = record.read(folder).artifact or {}
    if recipe.artifacts != "always" or made.get("keep", "always") == "always":
        return False
    if trash.weights(workspace, recipe.run_id) is None:
        return True
    (_place(recipe, workspace) / f"{recipe.run_id}.json").unlink(missing_ok=True)
    with EventWriter(folder) as events:
        events.write("artifact", **{name: made[name] for name in ("name", "path", "sha256", "bytes") if name in made})
    return False


def _drop(workspace: Workspace, run_id: str) -> bool:
    """Delete the weights of a run's adapter, unless they were made to stay or are wanted; whether they went."""
    said = workspace.annotations / run_id
    folder = workspace.run(run_id)
    file = trash.weights(workspace, run_id)
    if file is None or (said.is_dir() and any(said.iterdir())):
        return False
    if any(Path(one.path).resolve().is_relative_to(folder.resolve()) for one in catalog.entries(workspace)):
        return False
    if (record.read(folder).artifact or {}).get("keep", "always") == "always":
        return False
    try:
        with EventWriter(folder, wait=_BUSY_SECONDS):  # as a worker holds it
            file.unlink(missing_ok=True)
    except StoreError:  # somebody writes the run just now: its weights stay
        return False
    return True


def _place(recipe: Recipe, workspace: Workspace) -> Path:
    """The folder with a point a run of everything that a run is compared with."""
    told = recipe.model_dump(mode="json")
    suite = (
        next((one for one in recipe.evaluation.suites if one.role == "utility"), None) if recipe.evaluation else None
    )
    alike: list[Any] = [evaluation_key(told), [one.sha256 for one in recipe.adapters], suite.name if suite else ""]
    digest = hashlib.sha256(json.dumps(alike).encode()).hexdigest()[:24]
    return workspace.cache / "front" / digest


def _points(place: Path) -> Iterator[tuple[str, tuple[float, ...]]]:
    for path in sorted(place.glob("*.json")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            told = documents.read_json(path)
            yield path.stem, tuple(float(told[axis]) for axis in AXES)


@contextlib.contextmanager
def _alone(place: Path) -> Iterator[None]:
    """Hold the lock of one front, which several workers may add to."""
    place.mkdir(parents=True, exist_ok=True)
    with open(place / ".lock", "wb") as file:
        with contextlib.suppress(OSError):  # on a disk without locks two may settle at once: then too many stay
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
