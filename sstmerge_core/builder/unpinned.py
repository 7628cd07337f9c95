"""What a run takes as it lies on this machine though its publisher may change it: judges and data sets of the hub."""

from __future__ import annotations

from pathlib import Path

from sstmerge_core import documents
from sstmerge_core.errors import Problem, SSTMergeError
from sstmerge_core.evaluate.judges import usual_model
from sstmerge_core.recipe import Recipe
from sstmerge_core.suites import declared
from sstmerge_core.workspace import Workspace


def notes(recipe: Recipe, workspace: Workspace) -> list[Problem]:
    """One for a judge of the hub without a revision, and one for each suite whose hub set has none.

    Neither is a fault: the verdicts carry the commit that was taken, and the recipe the hash of the rows.
    """
    if recipe.evaluation is None:
        return []
    found = [_judge(recipe.evaluation.judge), *(_suite(suite.name, workspace) for suite in recipe.evaluation.suites)]
    return [note for note in found if note is not None]


def _judge(name: str) -> Problem | None:
    kind, _, _ = name.partition(":")
    model = usual_model(name)
    if not model or "@" in model or Path(model).expanduser().exists():
        return None
    commit = _commit(model)
    taken = f"; {commit[:12]} is here and is taken" if commit else ""
    fix = f"`{kind}:{model}@{commit or 'REVISION'}` pins it; its verdicts name what was taken."
    return Problem(f"judge {name}", f"no revision of {model} is pinned{taken}", fix)


def _commit(model: str) -> str:
    """The commit of the main branch in the hub's local cache; empty where it is not there."""
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE) / f"models--{model.replace('/', '--')}"
    try:
        return documents.read_text(folder / "refs" / "main").strip()
    except (OSError, ValueError):
        return ""


def _suite(name: str, workspace: Workspace) -> Problem | None:
    try:
        suite = declared.find(name, workspace)
    except SSTMergeError:
        return None  # told where suites are
    if suite is None or any(one.revision or one.sha256 for one in suite.sources):
        return None
    origin = next((one.huggingface for one in suite.sources if one.huggingface), None)
    if origin is None:
        return None
    fix = f"Write `revision` into {suite.path}; the recipe has the hash of the rows that were taken."
    return Problem(f"suite {name}", f"no revision of the data set {origin} is pinned", fix)
