"""How what pydantic finds reaches the user: in this program's words, with the place and a way out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from sstmerge_core import errors, experiments
from sstmerge_core.builder import presets
from sstmerge_core.builder.recipe_file import FORMAT, of_run, read_recipe
from sstmerge_core.errors import SSTMergeError
from sstmerge_core.jobs import resume, retry
from sstmerge_core.jobs.queue import Queue
from sstmerge_core.recipe import Recipe, Source, validated
from sstmerge_core.store import EventWriter
from sstmerge_core.suites import declared
from sstmerge_core.worker.academic import recipe_of
from sstmerge_core.workspace import Workspace

ROOT = Path(__file__).resolve().parents[1]
SOURCE = {"name": "x", "sha256": "0" * 64, "path": ""}
WRONG = {
    "base": SOURCE,
    "adapters": [SOURCE, SOURCE],
    "method": "linear",
    "parameters": {},
    "calibration": {"harm": SOURCE, "benign": SOURCE, "n_harm": 1, "n_benign": 1, "general_weight": 0.5},
}
"""A recipe with a weight for general prompts, but none of them"""
SAID = "general_weight needs general prompts: give `general` and `n_general`"


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")

    share: float

    @field_validator("share")
    @classmethod
    def _is_a_share(cls, given: float) -> float:
        if given > 1:
            raise ValueError("is above 1")
        return given


class Outer(BaseModel):
    inner: Inner


def told(given: object, **more: list[str]) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(given)
    return [str(one) for one in errors.of_validation(caught.value, "file.yaml", "See the docs.", **more)]


def test_a_validators_own_words_come_without_pydantics_prefix_and_with_the_place() -> None:
    assert told({"inner": {"share": 2}}) == ["file.yaml: inner.share: is above 1. See the docs."]


def test_a_missing_field_an_unknown_one_and_a_wrong_type_are_told_together() -> None:
    assert told({"inner": {"shares": 1}}, fields=["share"]) == [
        "file.yaml: inner.share: is missing. Add the field.",
        "file.yaml: inner.shares: is no field. Did you mean `share`?",
    ]
    assert told({"inner": {"share": 1, "other": 1}}, fields=["share"]) == [
        "file.yaml: inner.other: is no field. See the docs."
    ]
    (wrong,) = told({"inner": {"share": "much"}})
    assert wrong.startswith("file.yaml: inner.share: Input should be a valid number")
    assert told([], unsaid=["inner"])[0].startswith("file.yaml: Input should be")


def experiment(folder: Path) -> None:
    path = folder / "settings.yaml"
    path.write_text("strengths: [2.0, 1.0]\n")
    experiments.get("alpha-k").read(path)


def suite(folder: Path) -> None:
    path = folder / "mine.yaml"
    given = yaml.safe_load((declared.SHIPPED / "advbench.yaml").read_text())
    path.write_text(yaml.safe_dump(given | {"name": "mine", "sources": []}))
    declared.read(path)


def recipe_file(folder: Path) -> None:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({"format": FORMAT, **WRONG}))
    read_recipe(path)


def recorded(folder: Path) -> Workspace:
    """A finished run with a recipe that this version cannot read, and its job."""
    workspace = Workspace(folder / "w").create()
    with EventWriter(workspace.run("r1")) as events:
        events.write("run_started", run_id="r1", method="linear", recipe=WRONG)
        events.write("run_finished", seconds=1.0)
    queue = Queue(workspace)
    queue.add("j1", kind="merge", name="j", user="", device="cpu", spec={"recipes": [WRONG]}, run_ids=["r1"])
    queue.end("j1", "failed")
    return workspace


@pytest.mark.parametrize(
    ("read", "where", "said"),
    [
        (experiment, "settings.yaml: strengths", "give two numbers above 0, the smaller first"),
        (suite, "mine.yaml", "has no `sources`"),
        (recipe_file, "recipe.yaml: calibration", SAID),
        (lambda folder: of_run(recorded(folder), "r1"), "run r1: calibration", SAID),
        (lambda folder: recipe_of("r1", recorded(folder)), "run r1: calibration", SAID),
        (lambda folder: retry(recorded(folder), "j1"), "job j1: calibration", SAID),
        (lambda folder: resume(recorded(folder), "j1"), "job j1: calibration", SAID),
    ],
)
def test_every_reader_says_what_is_wrong_where_and_what_to_do(
    read: Callable[[Path], object], where: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(SSTMergeError) as caught:
        read(tmp_path)
    (problem,) = caught.value.problems
    assert problem.where.endswith(where) and problem.fault == said and problem.fix
    assert "Value error" not in str(caught.value)


def test_a_shipped_preset_that_is_wrong_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "merges.yaml").write_text(json.dumps({"mine": {}}))
    monkeypatch.setattr(presets, "FOLDER", tmp_path)
    with pytest.raises(SSTMergeError, match=r"merges.yaml: mine\.\w+: is missing. Add the field"):
        presets._read("merges.yaml", presets.TypeAdapter(dict[str, presets.MergePreset]))


def test_a_recipe_that_is_right_is_only_read() -> None:
    source = Source(name="x", path="", sha256="0" * 64)
    recipe = Recipe(base=source, adapters=(source,), method="adapter", parameters={})
    assert validated(recipe.model_dump(mode="json"), "here") == recipe


def test_nothing_else_words_what_pydantic_found() -> None:
    """A second home would forget the prefix, the place or the way out."""
    code = [path for top in ("sstmerge_core", "studio", "pages") for path in sorted((ROOT / top).rglob("*.py"))]
    wording = [path.name for path in code if ".errors(" in path.read_text() or '["msg"]' in path.read_text()]
    assert wording == ["errors.py"]
