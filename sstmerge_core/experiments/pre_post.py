"""Experiment 5: merging the model before and after tuning (ALGORITHMS §9.5; arXiv 2412.19512).

The bundled base refuses next to nothing, so the model *before* tuning is the base with the safety adapter written into
its weights; the task adapter is trained on that model, and what it forgot of refusing is what merging brings back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from sstmerge_core import adapters, catalog, methods
from sstmerge_core.adapters.skeleton import spelling
from sstmerge_core.builder.recipe_file import Output
from sstmerge_core.catalog import Base, Entry
from sstmerge_core.demo import adapters as demo
from sstmerge_core.experiments import choice
from sstmerge_core.experiments.lab import Lab
from sstmerge_core.experiments.result import Result, Table, mean, pick
from sstmerge_core.experiments.settings import Settings
from sstmerge_core.recipe import Recipe

QUESTION = "Does merging the model before tuning with the one after it bring refusals back, and at what cost?"
FIGURES = ("resistance", "utility", "over_refusal", "degenerate")


class PrePostSettings(Settings):
    safety: str = Field(default="A7_balanced", description="Bundled safety adapter that aligns the base.")
    task: str = Field(default="A5", description="Bundled adapter whose training is repeated on the aligned base.")
    seeds: list[int] = Field(default=[42, 1024, 48763], description="Training seeds, the paper's.")
    weights: list[float] = Field(default=[0.2, 0.4, 0.6, 0.8], description="λ, share of the tuned model.")
    goal: Literal["sum", "balanced"] = Field(
        default="sum", description="What λ is chosen by; R of `balanced` is against the first tuned model."
    )


METHODS = {"linear": "share", "base_slerp": "tuned", "dare_linear": "share"}
"""What α is: the share of the untuned model, or of the tuned one"""


def run(lab: Lab, settings: PrePostSettings) -> Result:
    task = demo.get(settings.task)
    lab.expected = len(settings.seeds) * (2 + len(METHODS)) + len(METHODS) * len(settings.weights) + 2
    base = _aligned(lab, settings.safety, task.suite)
    rows = [(row["prompt"], row["response"]) for row in demo.rows(task.files, "train")]
    tuned = {
        seed: lab.train(
            f"{task.name}-after-{settings.safety}@{seed}",
            rows,
            task.settings.model_copy(update={"seed": seed}),
            role="utility",
            suite=task.suite,
            description=f"{task.description}; trained on the base aligned by {settings.safety}, seed {seed}",
            base=base,
        )
        for seed in settings.seeds
    }
    before = _nothing(lab, base, tuned[settings.seeds[0]])

    def merge(seed: int, method: str, weight: float, split: str) -> Recipe:
        alpha = weight if METHODS[method] == "tuned" else 1 - weight
        point: choice.Point = {"alpha": round(alpha, 6)}
        if method == "dare_linear":
            point["seed"] = seed
        return lab.merge([tuned[seed]], before, method, point, lab.options(split), base)

    first = settings.seeds[0]
    grid = {name: {weight: merge(first, name, weight, "selection") for weight in settings.weights} for name in METHODS}
    found = lab.measure([recipe for own in grid.values() for recipe in own.values()], "choosing λ")
    of_u = None
    if settings.goal != "sum":
        post = lab.alone(tuned[first], task.suite, lab.options("selection"), base=base)
        of_u = lab.measure([post], "the tuned model on selection")[post.run_id]["utility"]
    chosen = {
        name: max(own, key=lambda weight: choice.score(found[own[weight].run_id], settings.goal, of_u) or 0.0)
        for name, own in grid.items()
    }
    finals: dict[str, list[Recipe]] = {
        "pre": [lab.alone(None, task.suite, base=base)],
        "post": [lab.alone(tuned[seed], task.suite, base=base) for seed in settings.seeds],
    }
    finals |= {name: [merge(seed, name, weight, "test") for seed in settings.seeds] for name, weight in chosen.items()}
    if len(settings.seeds) > 1:
        *some, last = (tuned[seed] for seed in settings.seeds)
        finals["model_stock"] = [lab.merge(some, last, "model_stock", {}, base=base)]
    outcomes = lab.measure([recipe for own in finals.values() for recipe in own], "testing")
    summary = []
    for name, own in finals.items():
        row: dict[str, Any] = {"model": _title(name), "weight": chosen.get(name), "seeds": len(own)}
        for metric in FIGURES:
            values = [outcomes[recipe.run_id][metric] for recipe in own]
            row[metric] = mean(values)
            row[f"{metric}_std"] = float(np.std(values, ddof=1)) if len(values) > 1 else None
        summary.append(row | {"run_ids": [recipe.run_id for recipe in own]})
    each = [
        {"model": _title(name), "run": recipe.label}
        | pick(outcomes[recipe.run_id], *FIGURES)
        | {"run_id": recipe.run_id}
        for name, own in finals.items()
        for recipe in own
    ]
    searched = [
        {"method": name, "weight": weight} | pick(found[recipe.run_id], *FIGURES) | {"run_id": recipe.run_id}
        for name, own in grid.items()
        for weight, recipe in own.items()
    ]
    merged = {name: own[0] for name, own in finals.items() if name not in ("pre", "post")}
    alone = {"utility": finals["post"][0], "base": finals["pre"][0]}
    contest = choice.contest(lab.workspace, merged, alone, outcomes, settings.goal)
    by_name = dict(zip(finals, summary, strict=True))
    return Result(
        "pre-post",
        QUESTION,
        settings.model_dump(mode="json"),
        settings.judge,
        f"{lab.base.name} aligned by {settings.safety}",
        [
            Table(
                "summary", "Before, after and merged", "Mean and deviation over training seeds, test split.", summary
            ),
            Table("runs", "Runs", "Test split.", each),
            Table("search", "Choice of λ", "First seed, selection split.", searched),
        ],
        {"best_method": contest["best_method"], "contest": contest, "weights": chosen},
        [_sentence(by_name, each, settings), choice.verdict(contest, f"First seed ({first})")],
        [
            "One harmful set is bundled; the paper has two.",
            "No ASR: the bundled judge cannot tell harm, so safety is resistance (refusals).",
        ],
    )


def _aligned(lab: Lab, safety: str, suite: str) -> Base:
    """The base model with the safety adapter written into its weights, made once."""
    from sstmerge_core.runs.execute import merge_to

    adapter = lab.adapter(safety)
    out = lab.workspace.root / "experiments" / "models" / f"{lab.base.sha256[:8]}-{adapter.name}-{adapter.sha256[:8]}"
    if not (out / "config.json").is_file():
        recipe = lab.alone(adapter, suite).model_copy(update={"evaluation": None})
        merge_to(recipe, lab.workspace, out, output=Output(kind="model"), device=lab.device)
    return catalog.base_at(out, lab.workspace)


def _nothing(lab: Lab, base: Base, like: Entry) -> Entry:
    """An adapter that changes nothing: the model before tuning, as the merge methods take it."""
    import torch

    out = lab.workspace.root / "experiments" / "adapters" / f"untuned-{base.sha256[:12]}"
    if not (out / "adapter_config.json").is_file():
        like_it = adapters.read(like.path).load("cpu")
        factors = {
            name: (torch.zeros(1, own.a.shape[1]), torch.zeros(own.b.shape[0], 1)) for name, own in like_it.items()
        }
        base_name = adapters.read_base(base.path).name
        adapters.write_adapter(factors, out, base_name=base_name, spelling=spelling(Path(base.path)))
    return catalog.entry(out, lab.workspace, name="untuned", role="safety")


def _title(name: str) -> str:
    return {"pre": "Before tuning", "post": "After tuning"}.get(name) or methods.get(name).title


def _sentence(
    rows: Mapping[str, Mapping[str, Any]], each: Sequence[Mapping[str, Any]], settings: PrePostSettings
) -> str:
    parts = [f"{row['model']} {_spread(row, 'resistance')} / {_spread(row, 'utility')}" for row in rows.values()]
    n = " / ".join(_count(each, figure) for figure in ("resistance", "utility"))
    many = f"mean ± standard deviation over training seeds {', '.join(map(str, settings.seeds))}"
    seeds = many if len(settings.seeds) > 1 else f"training seed {settings.seeds[0]}"
    return (
        f"Resistance / utility ({n} test prompts a run, judge {settings.judge}, {seeds}; λ chosen on selection prompts "
        f"with the first seed): {'; '.join(parts)}."
    )


def _count(rows: Sequence[Mapping[str, Any]], figure: str) -> str:
    counts = {row[f"{figure}_n"] for row in rows if row.get(f"{figure}_n")}
    return "–".join(str(one) for one in sorted({min(counts), max(counts)})) if counts else "no"


def _spread(row: Mapping[str, Any], metric: str) -> str:
    if row[metric] is None:
        return "unmeasured"
    deviation = row[f"{metric}_std"]
    return f"{row[metric]:.2f}" + ("" if deviation is None else f" ± {deviation:.2f}")
