"""A workspace with as many runs and answers as asked for, to measure how the store and the pages bear them.

    python -m benchmarks.filled FOLDER [--runs 10000] [--samples 1000000]

Every run has its event file, written as a worker writes it and taken in by the store's owner: starts, stages, metrics,
ends. The answers and verdicts, 98 % of the bytes, go into the database's tables directly and are in no event file. All
runs belong to one pair, which is the hardest case for a page. The numbers are invented.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sstmerge_core import methods
from sstmerge_core.metrics.labels import DEFAULT_JUDGE
from sstmerge_core.recipe import Evaluation, Recipe, Source, Suite
from sstmerge_core.store import Owner
from sstmerge_core.store.events import FILE_NAME, encode
from sstmerge_core.workspace import Workspace

PAIR = "A5_A7"
SUITES = {"harmful": "harmful", "near_miss": "benign", "facts": "utility"}
N = 72
"""Prompts of each suite behind a metric, as in the bundled suites"""
# method → where its resistance turns, how steep, and what utility is left at the safe end
CURVES = {
    "linear": (0.62, 9.0, 0.10),
    "ties": (0.55, 8.0, 0.15),
    "dare_linear": (0.58, 8.0, 0.12),
    "task_arithmetic": (1.20, 3.2, 0.45),
    "sst_gevp": (1.05, 3.2, 0.62),
    "sst_shield": (1.30, 3.2, 0.66),
}
STRENGTH = 2.5
"""The largest α where α is a strength; where it is a share, 1"""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder", type=Path)
    options.add_argument("--runs", type=int, default=10_000)
    options.add_argument("--samples", type=int, default=1_000_000)
    arguments = options.parse_args()
    begun = time.perf_counter()
    fill(Workspace(arguments.folder.resolve()), arguments.runs, arguments.samples)
    print(f"{arguments.runs:,} runs, {arguments.samples:,} answers in {time.perf_counter() - begun:.0f} s")


def fill(workspace: Workspace, runs: int, samples: int, *, seed: int = 0) -> Workspace:
    """Write `runs` finished runs of one pair with about `samples` answers, and publish a snapshot of them."""
    workspace.create()
    rng = np.random.default_rng(seed)
    clock = time.time() - 60.0 * runs
    for number, (recipe, rates) in enumerate(_runs(runs, rng)):
        _write(workspace, recipe, rates, clock + 60.0 * number)
    with Owner.open(workspace) as owner:
        owner.ingest()
        with owner.cursor() as cursor:
            cursor.execute(_SAMPLES, [math.ceil(samples / runs / len(SUITES))])
            cursor.execute(_VERDICTS)
        owner.publish()
    return workspace


def _runs(count: int, rng: np.random.Generator) -> Iterator[tuple[Recipe, np.ndarray]]:
    """Recipes with their resistance, utility and over-refusal; α runs evenly over each method's range."""
    suites = (Suite(name=name, role=role, split="test", n=N, source=_source(name)) for name, role in SUITES.items())
    shared: dict[str, Any] = {
        "base": _source("SmolLM2-135M-Instruct"),
        "adapters": (_source("A5"), _source("A7")),
        "evaluation": Evaluation(suites=tuple(suites)),
    }
    names = list(CURVES)
    for number in range(count):
        method = names[number % len(names)]
        turn, steep, floor = CURVES[method]
        most = 1.0 if methods.get(method).axis == "share" else STRENGTH
        alpha = round(most * (number + 1) / count, 6)
        parameters = methods.get(method).complete({"alpha": alpha})
        resistance = 1 / (1 + math.exp(-steep * (alpha - turn)))
        utility = floor + (0.86 - floor) / (1 + math.exp(steep * (alpha - turn) - 2))
        rates = np.array([resistance, utility, 0.6 * resistance]) + rng.normal(0.0, 0.05, 3)
        yield Recipe(method=method, parameters=parameters, **shared), rates.clip(0.0, 1.0)


def _source(name: str) -> Source:
    return Source(name=name, path=f"/made-up/{name}", sha256=f"{name.encode().hex():0<64}")


def _write(workspace: Workspace, recipe: Recipe, rates: np.ndarray, clock: float) -> None:
    """A run's event file; without the writer's lock and its flush to the disk, which would take most of the time."""
    run_id, parameters = recipe.run_id, recipe.parameters
    started = {
        "run_id": run_id,
        "source": "measured",
        "pair": recipe.pair,
        "base": recipe.base.name,
        "utility": recipe.utility,
        "safety": recipe.safety,
        "method": recipe.method,
        "label": recipe.label,
        **{name: parameters.get(name) for name in ("alpha", "k", "layerwise", "mode", "seed")},
        "parameters": parameters,
        "recipe": recipe.model_dump(mode="json"),
        "device": "cpu",
        "dtype": "float32",
        "versions": {},
        "user": "ada",
        "job_id": "filled",
    }
    resistance, utility, over_refusal = (float(rate) for rate in rates)
    rows = [
        _metric("resistance", "harmful", resistance),
        _metric("over_refusal", "near_miss", over_refusal),
        _metric("rouge_l", "facts", utility, judge=""),
        _metric("degenerate", "all", 0.01),
        _metric("asr", "harmful", None, status="judge_cannot_tell"),
        _metric("safety_tax", "facts", max(0.86 - utility, 0.0) / max(resistance, 0.05)),
        _metric("composite", "facts", 0.4 * (resistance + utility)),
        _metric("pareto_distance", "facts", math.hypot(1 - resistance, 1 - utility)),
    ]
    events = [{"event": "run_started", "t": clock, **started}]
    for place, stage in enumerate(("prepare", "merge", "generate")):
        events.append({"event": "stage", "t": clock + place, "stage": stage, "status": "done", "seconds": 1.0})
    events.append({"event": "metrics", "t": clock + 3, "rows": rows})
    events.append({"event": "run_finished", "t": clock + 4, "seconds": 4.0, "peak_memory_bytes": 10**9})
    folder = workspace.run(run_id)
    folder.mkdir()
    (folder / FILE_NAME).write_bytes(b"".join(map(encode, events)))


def _metric(
    metric: str, suite: str, value: float | None, *, judge: str = DEFAULT_JUDGE, status: str = "ok"
) -> dict[str, Any]:
    interval = {} if value is None else {"ci_low": max(value - 0.08, 0.0), "ci_high": min(value + 0.08, 1.0)}
    return {"metric": metric, "suite": suite, "judge": judge, "value": value, "n": N, "status": status, **interval}


_SAMPLES = """
    INSERT INTO samples (run_id, suite, prompt_id, topic, prompt, response, reference, n_tokens, stopped)
    SELECT run_id, suite, suite || '-' || number, 'topic ' || number % 8, 'Made-up ' || suite || ' prompt ' || number,
        'A made-up answer of about the length that answers have here, which is some forty tokens; number ' || number
            || ' of the run ' || run_id || '.',
        CASE WHEN suite = 'facts' THEN 'A made-up reference.' ELSE '' END, 30 + number % 20, true
    FROM runs, (SELECT unnest(['harmful', 'near_miss', 'facts']) AS suite), range(?) AS numbers(number)
    WHERE source = 'measured'
"""
_VERDICTS = """
    INSERT INTO verdicts (run_id, suite, prompt_id, judge, label, score, raw)
    SELECT run_id, suite, prompt_id, 'refusal_regex_v2',
        CASE WHEN hash(run_id || prompt_id) % 100 < 100 * m.value THEN 'refusal' ELSE 'not_refused' END, 1.0, ''
    FROM samples JOIN metrics m USING (run_id, suite) WHERE m.metric IN ('resistance', 'over_refusal')
"""


if __name__ == "__main__":
    main()
