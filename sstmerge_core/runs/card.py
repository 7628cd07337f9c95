"""The model card (README.md) of what leaves the tool: what it is, from what, how to make it again, how it scored."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from sstmerge_core import methods, words
from sstmerge_core.builder.recipe_file import NAME, Output, RecipeFile, public_name
from sstmerge_core.errors import one_line
from sstmerge_core.recipe import Recipe
from sstmerge_core.words import markdown

LICENCE = "Derived from the base model and the adapters above: the terms of each of them hold. Check before you share."
"""The licence note where none was given"""
_ERRORS = {"rank_error": "of its rank", "rounding_error": "of rounding"}


def model_card(
    file: RecipeFile,
    *,
    base_name: str = "",
    statistics: Sequence[Mapping[str, Any]] = (),
    scores: Sequence[Mapping[str, Any]] = (),
) -> str:
    """README.md for a merged adapter or model, with the front matter that the Hugging Face hub expects.

    `base_name` is the base's hub id where the adapters name one. `statistics` are rows (module, stat, value) of what
    was written, `scores` rows of the ``metrics`` event.
    """
    recipe, output = file.recipe, file.output
    entry = methods.get(recipe.method)
    thing = "LoRA adapter" if output.kind == "adapter" else "Model"
    base = public_name(base_name or recipe.base.name)
    sections = [
        _front_matter(base, output),
        f"# {markdown(recipe.label)}\n\n{thing} for {markdown(base)}, merged with SST-Merge Studio.",
        _loading(base, output),
        _inputs(recipe),
        f"## Method\n\n{entry.title}: {entry.summary}\n\n$${entry.formula}$$" + _paper(entry),
        _settings(recipe),
        _written(output, statistics),
        _scores(recipe, scores),
        _again(recipe, output),
        _versions(file.versions),
        f"## Licence\n\n{markdown(output.licence or LICENCE)}",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _front_matter(base: str, output: Output) -> str:
    adapter = output.kind == "adapter"
    fields = {
        "base_model": base,
        "base_model_relation": "adapter" if adapter else "merge",
        "library_name": "peft" if adapter else "transformers",
        "pipeline_tag": "text-generation",
        "license": "other",
        "license_name": "that-of-base-and-adapters",
        "tags": ["lora", "merge", "peft", "sst-merge"] if adapter else ["merge", "sst-merge"],
    }
    return f"---\n{yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)}---"


PLACE = "path/to/this/folder"
"""What stands for where it lies in the snippet that loads it; on the hub its repository"""


def _loading(base: str, output: Output) -> str:
    """A snippet of Python that loads what was written."""
    name = json.dumps(one_line(base).replace("`", "'"), ensure_ascii=False)
    if output.kind == "adapter":
        body = [
            "from peft import PeftModel",
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            f'base = AutoModelForCausalLM.from_pretrained({name}, dtype="auto")',
            f'model = PeftModel.from_pretrained(base, "{PLACE}")',
            f"tokenizer = AutoTokenizer.from_pretrained({name})",
        ]
    else:
        body = [
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            f'model = AutoModelForCausalLM.from_pretrained("{PLACE}", dtype="auto")',
            f'tokenizer = AutoTokenizer.from_pretrained("{PLACE}")',
        ]
    return "\n".join(["## Load it", "", "```python", *body, "```"])


def _inputs(recipe: Recipe) -> str:
    """Utility adapters first, the safety adapter last."""
    roles = ["utility"] * (len(recipe.adapters) - 1) + ["safety"] if len(recipe.adapters) > 1 else ["adapter"]
    rows = [("base model", recipe.base), *zip((f"{role} adapter" for role in roles), recipe.adapters, strict=True)]
    lines = [
        f"| {role} | {markdown(public_name(source.name))} | `{markdown(source.sha256)}` |" for role, source in rows
    ]
    return "\n".join(["## Made from", "", "| | name | SHA-256 |", "|---|---|---|", *lines])


def _paper(entry: methods.Method) -> str:
    if not entry.paper:
        return ""
    return f"\n\nSource: [{entry.paper}]({entry.url})" if entry.url else f"\n\nSource: {entry.paper}"


def _settings(recipe: Recipe) -> str:
    lines = [f"- {name}: {markdown(value)}" for name, value in recipe.parameters.items()]
    if recipe.calibration:
        parts = (f"{n} rows of {markdown(public_name(source.name))}" for source, n in recipe.calibration.parts.values())
        entry = methods.get(recipe.method)
        what = "fitted on" if entry.fits else "inputs from" if entry.needs_inputs else "gradients from"
        lines.append(f"- {what}: {', '.join(parts)} (split {markdown(recipe.calibration.split)})")
    return "\n".join(["## Parameters", "", *lines, f"- run: `{recipe.run_id}`"])


def _written(output: Output, statistics: Sequence[Mapping[str, Any]]) -> str:
    """Number format, rank, and what either cost; a dense model has no rank."""
    lines = [f"- number format: {output.dtype}"]
    if output.kind == "adapter":
        lines.append(f"- rank: {output.rank or 'that of the merge'}")
    lines += [
        f"- relative error {_ERRORS[row['stat']]}, ‖ΔW − written‖ / ‖ΔW‖: {row['value']:.2e}"
        for row in statistics
        if row["module"] == "" and row["stat"] in _ERRORS
    ]
    return "\n".join(["## As written", "", *lines])


def _scores(recipe: Recipe, scores: Sequence[Mapping[str, Any]]) -> str:
    """One row a metric; what could not be measured is shown with the reason."""
    if not scores:
        return ""
    lines = ["## Scores", "", "| metric | suite | value (95 % interval) | n | judge |", "|---|---|---|---|---|"]
    for row in scores:
        value = f"– ({markdown(row['status'])})" if row["value"] is None else f"{row['value']:.3f}"
        if row["value"] is not None and row.get("ci_low") is not None:
            value += f" ({row['ci_low']:.3f}–{words.upper(row['ci_high'])})"
        metric, suite, judge = (markdown(row[name] or "–") for name in ("metric", "suite", "judge"))
        lines.append(f"| {metric} | {suite} | {value} | {row['n']} | {judge} |")
    if recipe.evaluation:
        split = ", ".join(sorted({suite.split for suite in recipe.evaluation.suites}))
        measured = "the adapter as it is written, by vLLM" if recipe.evaluation.backend == "vllm" else "the exact ΔW"
        lines += [
            "",
            f"Split {markdown(split)}, greedy decoding in {recipe.evaluation.dtype}. These are scores of {measured}.",
        ]
    return "\n".join(lines)


def _again(recipe: Recipe, output: Output) -> str:
    return "\n".join(
        [
            "## Make it again",
            "",
            "```",
            f"sstmerge merge {NAME} --out DIR",
            "```",
            "",
            f"with the [{NAME}]({NAME}) beside this card; it finds the inputs by their SHA-256. The same in full:",
            "",
            "```",
            command(recipe, output),
            "```",
        ]
    )


def command(recipe: Recipe, output: Output) -> str:
    """The command line that makes the recipe's result; names stand for the folders of the inputs."""
    names = [_typed(public_name(source.name)) for source in recipe.adapters]
    parts = ["sstmerge merge", f"--base {_typed(public_name(recipe.base.name))}"]
    if names:
        parts += [f"--utility {' '.join(names[:-1] or names)}", f"--safety {names[-1]}"]
    parts += [f"--method {recipe.method}"]
    values = " ".join(_typed(f"{name}={value}") for name, value in recipe.parameters.items() if value is not None)
    parts += [f"--set {values}"] if values else []
    parts += [f"--dtype {output.dtype}"] if output.dtype != Output.dtype else []
    parts += [f"--rank {output.rank}"] if output.rank else []
    return " ".join([*parts, *(["--dense"] if output.kind == "model" else []), "--out DIR"])


def _typed(text: str) -> str:
    """`text` as one word of a command line, whatever it is called; it stands in a fence of backticks."""
    return shlex.quote(one_line(text).replace("`", "'"))


def _versions(versions: Mapping[str, str]) -> str:
    if not versions:
        return ""
    return "## Versions\n\n" + ", ".join(markdown(f"{name} {version}") for name, version in versions.items())
