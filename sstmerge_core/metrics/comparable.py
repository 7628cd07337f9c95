"""Which figures may be ranked together, and which runs are one setting: by hashes of their recipes' parts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from sstmerge_core import documents
from sstmerge_core.metrics import DEFAULT_UTILITY


def evaluation_key(recipe: Mapping[str, Any] | str | None, judge: str = "", utility_suite: str = "") -> str:
    """16 hexadecimal digits over everything two runs must have in common to be ranked; empty without an evaluation.

    The base, and of each suite its role, split, number of prompts, the hash of its rows, its attack, metric (with its
    encoder) and token limit; dtype, bits and backend; and the judge, the recipe's own where none is given. Batch size,
    adapters and method do not count. Of utility suites only `utility_suite` counts where it is given: the base may
    have answered those of other pairs too.
    """
    found = parsed(recipe)
    evaluation = found.get("evaluation")
    if not evaluation or not evaluation.get("suites"):
        return ""
    identity = {
        "base": (found.get("base") or {}).get("sha256"),
        "suites": sorted(
            (
                _suite(suite)
                for suite in evaluation["suites"]
                if suite.get("role") != "utility" or utility_suite in ("", suite.get("name"))
            ),
            key=json.dumps,
        ),
        "dtype": evaluation.get("dtype") or "float32",
        "backend": evaluation.get("backend") or "transformers",
        "judge": judge or evaluation.get("judge") or "",
        **({"bits": evaluation["bits"]} if evaluation.get("bits") else {}),
    }
    return _digest(identity)


def setting_key(recipe: Mapping[str, Any] | str | None) -> str:
    """16 hexadecimal digits over what was merged and how, whatever it was measured on; empty without a recipe.

    The same setting on selection and on test prompts has one key.
    """
    found = parsed(recipe)
    if not found:
        return ""
    return _digest(
        {
            "base": (found.get("base") or {}).get("sha256"),
            "adapters": [adapter.get("sha256") for adapter in found.get("adapters") or []],
            "method": found.get("method"),
            "parameters": found.get("parameters") or {},
            "calibration": _without_paths(found.get("calibration") or {}),
        }
    )


def parsed(recipe: Mapping[str, Any] | str | None) -> Mapping[str, Any]:
    """A recipe as a mapping; JSON text is read, anything else is empty."""
    if isinstance(recipe, str) and recipe:
        found = documents.from_json(recipe)
        return found if isinstance(found, dict) else {}
    return recipe if isinstance(recipe, Mapping) else {}


def _suite(suite: Mapping[str, Any]) -> dict[str, Any]:
    metric = suite.get("metric") or (DEFAULT_UTILITY if suite.get("role") == "utility" else "")
    kept = {name: suite.get(name) for name in ("role", "split", "n", "max_new_tokens")}
    kept |= {"attack": suite["attacked"]} if suite.get("attacked") else {}
    kept |= {"encoder": suite["encoded"]} if suite.get("encoded") else {}
    return kept | {"metric": metric, "rows": (suite.get("source") or {}).get("sha256")}


def _without_paths(value: Any) -> Any:
    """Where a file lay on the machine that measured identifies nothing."""
    if isinstance(value, Mapping):
        return {name: _without_paths(part) for name, part in value.items() if name != "path"}
    return [_without_paths(part) for part in value] if isinstance(value, (list, tuple)) else value


def _digest(identity: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
