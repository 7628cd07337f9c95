"""What an experiment is told: defaults for the bundled model, a YAML recipe for any other. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sstmerge_core import documents, errors
from sstmerge_core.errors import Problem, RecipeError
from sstmerge_core.metrics.labels import DEFAULT_JUDGE
from sstmerge_core.recipe import Backend


class Settings(BaseModel):
    """Common to all experiments."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: str = Field(default="", description="Name or folder of the base model; empty: the bundled one.")
    n: int = Field(default=64, ge=1, description="Test prompts per suite.")
    n_selection: int = Field(default=32, ge=1, description="Selection prompts per suite, where something is chosen.")
    dtype: str = Field(default="float32", description="Of the model that answers.")
    backend: Backend = Field(default="transformers", description="What generates the answers.")
    judge: str = Field(default=DEFAULT_JUDGE, description="Judge of refusals.")


S = TypeVar("S", bound=Settings)


def read(kind: type[S], given: Path | str | Mapping[str, Any] | None = None) -> S:
    """Settings from a YAML file, its text, or a mapping; what is not given keeps its default.

    Raises RecipeError with every wrong field at once.
    """
    where, fields = "experiment settings", given
    if isinstance(given, Path):
        where = str(given)
        try:
            fields = documents.read_text(given)
        except documents.FormatError as error:
            raise RecipeError(Problem(where, str(error), "Give a YAML file.")) from error
    if isinstance(fields, str):
        try:
            fields = documents.from_yaml(fields)
        except documents.FormatError as error:
            raise RecipeError(Problem(where, str(error), "Correct it.")) from error
    if not isinstance(fields, Mapping) and fields is not None:
        raise RecipeError(Problem(where, "is not a mapping of settings", f"Its settings: {', '.join(names(kind))}."))
    try:
        return kind.model_validate(dict(fields or {}))
    except ValidationError as error:
        fix = f"Its settings: {', '.join(names(kind))}."
        raise RecipeError(errors.of_validation(error, where, fix, fields=names(kind))) from error


def write(settings: Settings) -> str:
    """The settings as YAML with a comment on each, which `read` takes."""
    lines = []
    for name, field in type(settings).model_fields.items():
        text = yaml.safe_dump({name: settings.model_dump(mode="json")[name]}, allow_unicode=True, sort_keys=False)
        lines.append(f"# {field.description}\n{text}")
    return "".join(lines)


def names(kind: type[Settings]) -> list[str]:
    return list(kind.model_fields)
