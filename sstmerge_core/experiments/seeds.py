"""Adapters of several training seeds: the bundled ones trained again, or one's own."""

from __future__ import annotations

from sstmerge_core import methods
from sstmerge_core.catalog import Entry
from sstmerge_core.demo import adapters as demo
from sstmerge_core.errors import Problem, RecipeError
from sstmerge_core.experiments.choice import Point
from sstmerge_core.experiments.lab import Lab
from sstmerge_core.train import TrainingSettings


def again(lab: Lab, name: str, seed: int) -> Entry:
    """The bundled adapter `name` trained with another seed. Raises RecipeError for one that is not bundled."""
    own = bundled(name)
    return lab.train(
        f"{name}@{seed}",
        rows(own),
        _settings(own, seed),
        role=own.role,
        suite=own.suite,
        description=f"{own.description}; trained with seed {seed}",
    )


def known(lab: Lab, name: str, seed: int) -> Entry | None:
    """What `again` trained before, None where it did not. Raises RecipeError for an adapter that is not bundled."""
    own = bundled(name)
    return lab.trained(f"{name}@{seed}", rows(own), _settings(own, seed), role=own.role, suite=own.suite)


def rows(own: demo.DemoAdapter) -> list[tuple[str, str]]:
    """What a bundled adapter learns, (prompt, response)."""
    return [(row["prompt"], row["response"]) for row in demo.rows(own.files, "train")]


def _settings(own: demo.DemoAdapter, seed: int) -> TrainingSettings:
    return own.settings.model_copy(update={"seed": seed})


def bundled(name: str) -> demo.DemoAdapter:
    """The bundled adapter `name`. Raises RecipeError for another, which cannot be trained again."""
    if name not in demo.ADAPTERS:
        fix = "Name your adapters of the other seeds under `others`, or give no further seeds."
        raise RecipeError(Problem(f"adapter {name}", "only bundled adapters can be trained again", fix))
    return demo.get(name)


def seeded(method: str, point: Point, seed: int) -> Point:
    """A random merge takes the training seed for its own too."""
    random = any(parameter.name == "seed" for parameter in methods.get(method).parameters)
    return point | {"seed": seed} if random else point
