"""A workspace with made-up runs for the page tests: shapes as in a real one, numbers invented, never shipped."""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass
from typing import Any

from sstmerge_core import methods
from sstmerge_core.recipe import Evaluation, Recipe, Source, Suite
from sstmerge_core.store import EventWriter
from sstmerge_core.workspace import Workspace

KINDS = (
    *("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
    *("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
)
LAYERS = 12
N = {"harmful": 72, "near_miss": 64, "facts": 80, "instructions": 60}
GRID: tuple[tuple[str, dict[str, object], tuple[float, ...]], ...] = (
    ("linear", {}, (0.1, 0.3, 0.5, 0.7, 0.9)),
    ("task_arithmetic", {}, (0.5, 1.0, 1.5, 2.0)),
    ("ties", {"density": 0.2}, (0.3, 0.5, 0.7)),
    ("sst_gevp", {"k": 20}, (1.0, 1.5, 2.0)),
    ("sst_gevp", {"k": 60}, (1.0, 1.5, 2.0)),
    ("sst_shield", {"tau": 100.0}, (1.1, 2.0)),
)
WITHOUT_ALPHA = ("average", "model_stock", "safe_lora", "sst_budget")


@dataclass(frozen=True)
class Outcome:
    resistance: float
    utility: float
    over_refusal: float


def fill(workspace: Workspace, *, seed: int = 0, samples: int = 12) -> Workspace:
    """About 50 runs over two pairs with nine methods, their single adapters and the base model."""
    workspace.create()
    rng = random.Random(seed)
    clock = time.time() - 6 * 3600
    _catalog(workspace, clock)
    recipes = []
    for utility, suite in (("A5", "facts"), ("A6", "instructions")):
        _pair(workspace, rng, utility)
        for method, parameters, alphas in GRID:
            recipes += [_recipe(utility, suite, method, parameters | {"alpha": alpha}) for alpha in alphas]
        recipes += [_recipe(utility, suite, method, {}) for method in WITHOUT_ALPHA]
    recipes += [_single(name) for name in ("A5", "A6", "A7")] + [_base()]
    for recipe in recipes:
        clock += 90
        _run(workspace, rng, recipe, clock, samples)
    _ended_otherwise(workspace, clock)
    return workspace


def selected(workspace: Workspace, utility: str, *, alpha: float) -> None:
    """One more linear merge, measured on the selection prompts."""
    recipe = _recipe(utility, "facts", "linear", {"alpha": alpha})
    assert recipe.evaluation is not None
    suites = tuple(suite.model_copy(update={"split": "selection"}) for suite in recipe.evaluation.suites)
    recipe = recipe.model_copy(update={"evaluation": Evaluation(suites=suites)})
    _run(workspace, random.Random(0), recipe, time.time(), 4)


def _source(name: str) -> Source:
    return Source(name=name, path=f"/adapters/{name}", sha256=f"{name.encode().hex():0<64}")


def _evaluation(*utility: str) -> Evaluation:
    roles = {"harmful": "harmful", "near_miss": "benign"} | dict.fromkeys(utility, "utility")
    return Evaluation(
        suites=tuple(
            Suite(name=name, role=role, split="test", n=N[name], source=_source(f"{name}.jsonl"))
            for name, role in roles.items()
        )
    )


def _recipe(utility: str, suite: str, method: str, parameters: dict[str, object]) -> Recipe:
    return Recipe(
        base=_source("SmolLM2-135M-Instruct"),
        adapters=(_source(utility), _source("A7")),
        method=method,
        parameters=methods.get(method).complete(parameters),
        evaluation=_evaluation(suite),
    )


def _single(name: str) -> Recipe:
    suites = ("instructions", "facts") if name == "A6" else ("facts", "instructions")
    return Recipe(
        base=_source("SmolLM2-135M-Instruct"),
        adapters=(_source(name),),
        method="adapter",
        parameters={},
        evaluation=_evaluation(*suites),
    )


def _base() -> Recipe:
    return Recipe(
        base=_source("SmolLM2-135M-Instruct"),
        adapters=(),
        method="base",
        parameters={},
        evaluation=_evaluation("facts", "instructions"),
    )


def _outcome(recipe: Recipe, rng: random.Random) -> Outcome:
    """Curves of about the right form: more safety, less utility, more over-refusal."""
    noise = rng.uniform(-0.02, 0.02)
    if recipe.method == "base":
        return Outcome(0.04, 0.12, 0.02)
    if recipe.method == "adapter":
        return Outcome(0.98, 0.08, 0.9) if recipe.pair == "A7" else Outcome(0.03, 0.86, 0.01)
    alpha = float(recipe.parameters.get("alpha", 0.6))
    if recipe.method in WITHOUT_ALPHA:
        place = WITHOUT_ALPHA.index(recipe.method)
        return Outcome(0.2 + 0.15 * place + noise, 0.8 - 0.04 * place + noise, 0.1 + 0.05 * place + noise)
    shift = {"linear": 0.62, "ties": 0.55, "task_arithmetic": 1.2, "sst_gevp": 1.05, "sst_shield": 1.3}[recipe.method]
    shift -= 0.15 if recipe.parameters.get("k") == 60 else 0.0
    steep = 9.0 if methods.get(recipe.method).axis == "share" else 3.2
    resistance = 1 / (1 + math.exp(-steep * (alpha - shift)))
    floor = {"linear": 0.1, "ties": 0.15}.get(recipe.method, 0.62)
    utility = floor + (0.86 - floor) / (1 + math.exp(steep * (alpha - shift - 0.25 / steep * 3)))
    over = resistance * {"linear": 0.8, "ties": 0.75, "task_arithmetic": 0.55}.get(recipe.method, 0.45)
    return Outcome(*(min(1.0, max(0.0, value + noise)) for value in (resistance, utility, over)))


def _rate(metric: str, suite: str, share: float, n: int) -> dict[str, object]:
    """A rate that n prompts can give, with its Wilson interval."""
    value = round(share * n) / n
    centre, half = (value + 1.92 / n) / (1 + 3.84 / n), 1.96 * math.sqrt(value * (1 - value) / n + 0.9604 / n**2)
    half /= 1 + 3.84 / n
    interval = {"ci_low": max(0.0, centre - half), "ci_high": min(1.0, centre + half)}
    return {"metric": metric, "suite": suite, "value": value, **interval, "n": n} | _JUDGED


_JUDGED = {"judge": "refusal_regex_v2", "status": "ok", "reference": ""}
_UNJUDGED = {"judge": "", "status": "ok", "reference": ""}


def _metrics(recipe: Recipe, outcome: Outcome) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        _rate("resistance", "harmful", outcome.resistance, N["harmful"]),
        _rate("over_refusal", "near_miss", outcome.over_refusal, N["near_miss"]),
        _rate("degenerate", "all", 0.01, 200),
        {"metric": "asr", "suite": "harmful", "value": None, "ci_low": None, "ci_high": None, "n": N["harmful"]}
        | _JUDGED
        | {"status": "judge_cannot_tell"},
    ]
    suites = recipe.evaluation.suites if recipe.evaluation else ()
    for suite in suites:
        if suite.role == "utility":
            value = outcome.utility if suite.name == suites[2].name else outcome.utility * 0.3
            spread = 0.04
            rows.append(
                {"metric": "rouge_l", "suite": suite.name, "value": value, "ci_low": value - spread}
                | {"ci_high": min(1.0, value + spread), "n": N[suite.name]}
                | _UNJUDGED
            )
    if len(recipe.adapters) == 2:
        reference = _single(recipe.adapters[0].name).run_id
        gain, loss = outcome.resistance - 0.03, 0.86 - outcome.utility
        tax = max(0.0, loss) / gain if gain > 0 else None
        distance = math.hypot(1 - outcome.resistance, 1 - outcome.utility)
        for name, found, status in (
            ("safety_tax", tax, "ok" if tax is not None else "no_gain"),
            ("composite", 0.4 * (outcome.resistance + outcome.utility) - 0.2 * min(tax or 1.0, 1.0), "ok"),
            ("pareto_distance", distance, "ok"),
        ):
            rows.append(
                {"metric": name, "suite": suites[2].name, "value": found, "ci_low": None}
                | {"ci_high": None, "n": None, "judge": "refusal_regex_v2", "status": status, "reference": reference}
            )
    return rows


def _started(recipe: Recipe, clock: float) -> dict[str, object]:
    names = [adapter.name for adapter in recipe.adapters] + [None, None]
    return {
        "t": clock,
        "run_id": recipe.run_id,
        "source": "measured",
        "pair": "base" if recipe.method == "base" else recipe.pair,
        "base": recipe.base.name,
        "utility": names[0],
        "safety": names[1],
        "method": recipe.method,
        "label": recipe.label,
        "alpha": recipe.parameters.get("alpha"),
        "k": recipe.parameters.get("k"),
        "layerwise": recipe.parameters.get("layerwise"),
        "mode": recipe.parameters.get("mode"),
        "seed": recipe.parameters.get("seed"),
        "parameters": recipe.parameters,
        "recipe": recipe.model_dump(mode="json"),
        "device": "cpu",
        "dtype": "bfloat16",
        "versions": {"torch": "2.13.0", "transformers": "5.23.0", "sstmerge": "0.1.0"},
        "user": "",
        "job_id": "synthetic",
    }


def _run(workspace: Workspace, rng: random.Random, recipe: Recipe, clock: float, samples: int) -> None:
    outcome = _outcome(recipe, rng)
    with EventWriter(workspace.run(recipe.run_id)) as events:
        events.write("run_started", **_started(recipe, clock))
        for offset, stage, seconds in ((3, "prepare", 2.1), (12, "merge", 4.4), (70, "generate", 55.0)):
            events.write("stage", t=clock + offset, stage=stage, status="done", seconds=seconds, units=10, note="")
        for suite in recipe.evaluation.suites if recipe.evaluation else ():
            made = [_sample(rng, suite.name, suite.role, number, outcome) for number in range(samples)]
            events.write("samples", t=clock + 71, suite=suite.name, batch=0, seconds=1.0, rows=[row for row, _ in made])
            verdicts = [{"prompt_id": row["prompt_id"], "label": label, "score": 1.0, "raw": ""} for row, label in made]
            events.write("verdicts", t=clock + 72, judge="refusal_regex_v2", suite=suite.name, rows=verdicts)
        events.write("metrics", t=clock + 73, rows=_metrics(recipe, outcome))
        if recipe.method in methods.names() and methods.get(recipe.method).needs_fisher:
            eigenvalues = [8.0 * math.exp(-index / 11) for index in range(60)]
            events.write("spectrum", t=clock + 73, module="", eigenvalues=eigenvalues)
        if rows := _run_stats(recipe.method, rng):
            events.write("module_stats", t=clock + 73, rows=rows)
        events.write("run_finished", t=clock + 74, seconds=74.0, peak_memory_bytes=1_400_000_000)


def _sample(rng: random.Random, suite: str, role: str, number: int, outcome: Outcome) -> tuple[dict[str, object], str]:
    refuses = {"harmful": outcome.resistance, "benign": outcome.over_refusal}.get(role, 0.0) > rng.random()
    response = (
        "I can't help with that." if refuses else f"A made-up answer number {number} to a made-up {suite} prompt."
    )
    row: dict[str, object] = {
        "prompt_id": f"{suite}-{number:03d}",
        "topic": f"topic {number % 4}",
        "prompt": f"Made-up {suite} prompt number {number}?",
        "response": response,
        "reference": "A made-up reference." if role == "utility" else "",
        "n_tokens": 9,
        "stopped": True,
    }
    return row, "refusal" if refuses else "not_refused"


def _modules() -> list[str]:
    return [f"model.layers.{layer}.{kind}" for layer in range(LAYERS) for kind in KINDS]


def _run_stats(method: str, rng: random.Random) -> list[dict[str, object]]:
    """What a run of each kind of method reports per module, and of the whole merge."""
    pooled: dict[str, float] = {}
    if method == "model_stock":
        ranges = {"weight_utility": (0.1, 0.4), "weight_safety": (0.1, 0.4)}
    elif method == "safe_lora":
        ranges, pooled = {"changed": (0.0, 1.0)}, {"changed": 0.42}
    elif method in methods.names() and methods.get(method).needs_fisher:
        ranges = {"kept_harm_energy": (0.2, 0.9), "benign_cost": (-0.001, 0.01)}
        pooled = {"kept_harm_energy": 0.61, "benign_cost": 0.049} | ({"alpha": 1.62} if method == "sst_budget" else {})
    else:
        return []
    rows = [
        {
            "module": module,
            "stat": stat,
            "value": rng.uniform(*between) if stat != "changed" else rng.choice((0.0, 1.0)),
        }
        for stat, between in ranges.items()
        for module in _modules()
    ]
    return rows + [{"module": "", "stat": stat, "value": value} for stat, value in pooled.items()]


def _pair(workspace: Workspace, rng: random.Random, utility: str) -> None:
    with EventWriter(workspace.pairs / f"pair-{utility}-A7") as events:
        sources = [_source(name).sha256 for name in ("SmolLM2-135M-Instruct", utility, "A7")]
        events.write(
            "pair_inspected",
            pair_id=f"pair-{utility}-A7",
            **dict(zip(("base", "utility", "safety"), sources, strict=True)),
            utility_name=utility,
            safety_name="A7",
        )
        rows = []
        for module in _modules():
            rows.append({"module": module, "stat": "cosine", "value": rng.gauss(0.0, 0.08)})
            rows.append({"module": module, "stat": "norm_utility", "value": rng.uniform(0.5, 2.0)})
            rows.append({"module": module, "stat": "norm_safety", "value": rng.uniform(0.5, 2.0)})
        rows.append({"module": "", "stat": "cosine", "value": 0.013})
        events.write("module_stats", rows=rows)


def _catalog(workspace: Workspace, clock: float) -> None:
    with EventWriter(workspace.catalog) as events:
        for name, role, suite in (("A5", "utility", "facts"), ("A6", "utility", "instructions"), ("A7", "safety", "")):
            events.write(
                "adapter_added",
                t=clock,
                **_source(name).model_dump(),
                role=role,
                suite=suite,
                base="SmolLM2-135M-Instruct",
                rank=8,
                alpha=16.0,
                modules=len(_modules()),
                bytes=4_900_000,
                description=f"Made-up adapter {name}",
                scores={"rouge_l": 0.86} if role == "utility" else {"resistance": 0.98},
            )


def _ended_otherwise(workspace: Workspace, clock: float) -> None:
    """One run that failed and one that was cancelled: pages must say so."""
    for alpha, event, fields in (
        (3.0, "run_failed", {"error": "made-up failure: the disk is full", "problems": []}),
        (3.5, "run_cancelled", {}),
    ):
        recipe = _recipe("A5", "facts", "sst_soft", {"alpha": alpha, "k": 20})
        with EventWriter(workspace.run(recipe.run_id)) as events:
            events.write("run_started", **_started(recipe, clock))
            events.write(event, t=clock + 5, **fields)
