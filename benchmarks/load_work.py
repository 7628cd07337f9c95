"""What the workers of `benchmarks.load` do: write a run's events one batch after another. No model, no torch."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from sstmerge_core import methods
from sstmerge_core.errors import Cancelled
from sstmerge_core.recipe import Evaluation, Recipe, Source, Suite
from sstmerge_core.store.events import EventWriter, last_status
from sstmerge_core.workspace import Workspace

BATCHES = 60
ANSWERS = 8
"""Of each batch"""


def recipe(number: int) -> Recipe:
    """A made-up recipe for each job."""
    sources = [
        Source(name=name, path=f"/adapters/{name}", sha256=f"{name.encode().hex():0<64}") for name in ("A5", "A7")
    ]
    suite = Suite(name="harmful", role="harmful", split="test", n=BATCHES * ANSWERS, source=sources[0])
    return Recipe(
        base=Source(name="base", path="/base", sha256="b" * 64),
        adapters=tuple(sources),
        method="linear",
        parameters=methods.get("linear").complete({"alpha": 0.001 + number / 1000}),
        evaluation=Evaluation(suites=(suite,)),
    )


def opened(recipes: Sequence[Recipe], workspace: Workspace) -> None:
    return None


def execute(
    recipes: Sequence[Recipe],
    workspace: Workspace,
    *,
    report: Callable[[int, str, float, float], None],
    tell: Callable[[str], None],
    should_cancel: Callable[[], bool],
    user: str,
    job_id: str,
    onlooker: object = None,
    session: object = None,
) -> None:
    pause = float(os.environ["SSTMERGE_LOAD_PAUSE"])
    for point, one in enumerate(recipes):
        folder = workspace.run(one.run_id)
        if last_status(folder) == "finished":
            continue
        with EventWriter(folder) as events:
            events.write("run_started", **_started(one, user, job_id))
            # what merges are compared with is a trial of its own, which all wait for: here it takes no time
            for batch in range(BATCHES if one.method == "linear" else 0):
                report(point, "generate:harmful", batch * ANSWERS, BATCHES * ANSWERS)
                if should_cancel():
                    events.write("run_cancelled")
                    raise Cancelled
                time.sleep(pause)
                rows = [_row(batch * ANSWERS + number) for number in range(ANSWERS)]
                events.write("samples", suite="harmful", batch=batch, seconds=pause, rows=rows)
            events.write("run_finished", seconds=pause * BATCHES, peak_memory_bytes=1)


def _row(number: int) -> dict[str, Any]:
    about = {"prompt": f"Made-up prompt number {number}?", "response": f"A made-up answer to prompt {number}. " * 8}
    return {"prompt_id": f"p{number:04d}", "topic": "made up", "reference": "", "n_tokens": 80, "stopped": True} | about


def _started(one: Recipe, user: str, job_id: str) -> dict[str, Any]:
    return {
        "run_id": one.run_id,
        "source": "measured",
        "pair": one.pair,
        "base": one.base.name,
        "utility": one.utility,
        "safety": one.safety,
        "method": one.method,
        "label": one.label,
        "alpha": one.parameters.get("alpha"),
        "parameters": one.parameters,
        "recipe": one.model_dump(mode="json"),
        "device": "none",
        "dtype": "float32",
        "versions": {},
        "user": user,
        "job_id": job_id,
    }
