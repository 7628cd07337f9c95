"""What the recipes of several runs have in common, and in what they differ."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd
from pydantic import ValidationError

from sstmerge_core import methods
from sstmerge_core.errors import RecipeError
from sstmerge_core.recipe import Recipe

ABSENT = "–"
_TITLES = {
    "base": "Base model",
    "method": "Method",
    "calibration": "Fisher prompts",
    "selection": "Selection prompts",
    "unaligned": "Unaligned model",
}


class _Field(NamedTuple):
    words: str
    identity: str
    """Equal where the field has the same effect, whatever a file was called and wherever it lay."""


def differing(recipes: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """The fields in which `recipes` (name → a `Recipe` as a dict) differ: a row each, a column of text per name.

    Files are the same where their content is. A part that some recipe lacks altogether is one row, not one a field; a
    parameter that only some of the methods have is left out where it is at its default.
    """
    recipes = {name: _complete(recipe) for name, recipe in recipes.items()}
    fields = {name: dict(_fields(recipe)) for name, recipe in recipes.items()}
    _fold_parts(fields)
    titles = list(dict.fromkeys(title for known in fields.values() for title in known))
    rows = {}
    for title in titles:
        found = [known.get(title) for known in fields.values()]
        if len({field.identity if field else None for field in found}) > 1 and not _only_defaults(
            title, found, recipes
        ):
            rows[title] = _told_apart(found)
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(recipes), dtype=object)


def _complete(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """With the defaults of what came later than the recipe, so that they are no difference."""
    try:
        found = Recipe.model_validate(recipe)
        return found.model_dump(mode="json") | {"parameters": methods.get(found.method).complete(found.parameters)}
    except (ValidationError, RecipeError):
        return dict(recipe)


def _fields(recipe: Mapping[str, Any]) -> Iterator[tuple[str, _Field]]:
    if recipe.get("base"):
        yield _title("base"), _value(recipe["base"])
    adapters = recipe.get("adapters") or []
    for place, adapter in enumerate(adapters):
        last = len(adapters) > 1 and place == len(adapters) - 1
        yield "Safety adapter" if last else "Utility adapter" + (f" {place + 1}" if place else ""), _value(adapter)
    yield _title("method"), _Field(_method_title(recipe.get("method")), str(recipe.get("method")))
    for name, value in (recipe.get("parameters") or {}).items():
        yield _of_parameter(recipe, name), _value(value)
    for name, value in (recipe.get("calibration") or {}).items():
        yield f"{_title('calibration')}: {_title(name)}", _value(value)
    if recipe.get("unaligned"):
        yield _title("unaligned"), _value(recipe["unaligned"])
    if recipe.get("selection"):
        yield _title("selection"), _suite(recipe["selection"])
    evaluation = recipe.get("evaluation") or {}
    for suite in evaluation.get("suites") or []:
        yield f"Measured on {suite['name']}", _suite(suite)
    for name in ("judge", "dtype", "applied", "batch_size"):
        if name in evaluation:
            yield f"Measured: {_title(name)}", _value(evaluation[name])


def _fold_parts(fields: Mapping[str, dict[str, _Field]]) -> None:
    """Make one field of the calibration where some recipe has none."""
    head = f"{_title('calibration')}: "
    if all(any(title.startswith(head) for title in known) for known in fields.values()):
        return
    for known in fields.values():
        parts = {title: known.pop(title) for title in list(known) if title.startswith(head)}
        if parts:
            n = [parts[f"{head}{name}"].words for name in ("harm", "n harm", "benign", "n benign")]
            words = f"{n[1]} {n[0]}, {n[3]} {n[2]}"
            known[_title("calibration")] = _Field(
                words, json.dumps({title: part.identity for title, part in parts.items()})
            )


def _only_defaults(title: str, found: Sequence[_Field | None], recipes: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether `title` is a parameter that some of the methods do not have, and that the others leave alone."""
    if None not in found:
        return False
    given = [
        (str(recipe.get("method")), name, value)
        for recipe in recipes.values()
        for name, value in (recipe.get("parameters") or {}).items()
        if _of_parameter(recipe, name) == title
    ]
    return bool(given) and all(
        (own := _parameter(method, name)) is not None and not own.schema.telling and own.default == value
        for method, name, value in given
    )


def _told_apart(found: Sequence[_Field | None]) -> list[str]:
    """The words of each; with the start of the content's hash where equal words mean something else."""
    known = [field for field in found if field]
    ambiguous = len({field.words for field in known}) < len({field.identity for field in known})
    return [
        ABSENT if field is None else f"{field.words} ({field.identity[:8]})" if ambiguous else field.words
        for field in found
    ]


def _value(value: Any) -> _Field:
    if isinstance(value, Mapping) and "sha256" in value:
        return _Field(str(value.get("name")), str(value["sha256"]))
    if isinstance(value, bool):
        return _Field("yes" if value else "no", str(value))
    if isinstance(value, (int, float)):
        return _Field(f"{value:g}", f"{float(value)!r}")
    return _Field(ABSENT if value in (None, "") else str(value), json.dumps(value, sort_keys=True))


def _suite(suite: Mapping[str, Any]) -> _Field:
    words = f"{suite.get('n')} {suite.get('split')} prompts, {suite.get('max_new_tokens')} tokens"
    if suite.get("metric"):
        words += f", {str(suite['metric']).replace('_', ' ')}"
    content = str((suite.get("source") or {}).get("sha256")) + str(suite.get("attacked") or "")
    # the hash first: where the words are equal it is what tells two suites apart
    return _Field(words, f"{content} {suite.get('role')} {words}")


def _title(name: str) -> str:
    return _TITLES.get(name, name.replace("_", " "))


def _method_title(name: Any) -> str:
    try:
        return methods.get(str(name)).title
    except RecipeError:
        return str(name)


def _of_parameter(recipe: Mapping[str, Any], name: str) -> str:
    own = _parameter(str(recipe.get("method")), name)
    return own.symbol.replace("_", " ") if own else _title(name)


def _parameter(method: str, name: str) -> methods.Parameter | None:
    try:
        return methods.get(method).parameter(name)
    except (RecipeError, StopIteration):
        return None
