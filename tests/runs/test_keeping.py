"""Which merged adapters stay once their runs are measured: all, those on the front, none."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sstmerge_core import catalog
from sstmerge_core.builder import preflight, recipe_file
from sstmerge_core.errors import RecipeError
from sstmerge_core.metrics.labels import DEFAULT_JUDGE
from sstmerge_core.recipe import Evaluation, Kept, Recipe, Source, Suite, kept_of_many, record, with_kept
from sstmerge_core.runs import keeping
from sstmerge_core.runs.execute import execute
from sstmerge_core.store import remarks, trash
from sstmerge_core.store.events import EventWriter, read_events
from sstmerge_core.workspace import Workspace
from tests.there import there


def _source(name: str) -> Source:
    return Source(name=name, path=f"/made-up/{name}", sha256=f"{name.encode().hex():0<64}")


SUITES = tuple(
    Suite(name=name, role=role, split="test", n=4, source=_source(name))
    for name, role in (("harmful", "harmful"), ("facts", "utility"))
)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "w").create()


@pytest.fixture
def measured(workspace: Workspace) -> Callable[..., str]:
    """Makes a finished run with weights and settles it; gives its id."""

    def make(
        alpha: float, resistance: float | None, utility: float, kept: Kept = "front", *, safety: str = "S", n: int = 4
    ) -> str:
        suites = tuple(suite.model_copy(update={"n": n}) for suite in SUITES)
        recipe = Recipe(
            base=_source("base"),
            adapters=(_source("U"), _source(safety)),
            method="linear",
            parameters={"alpha": alpha},
            evaluation=Evaluation(suites=suites),
            artifacts=kept,
        )
        folder = workspace.merged_adapter(recipe.run_id)
        folder.mkdir(parents=True)
        (folder / "adapter_model.safetensors").write_bytes(b"weights")
        (folder / "README.md").write_text("card")
        told = {"keep": kept} if kept != "always" else {}
        rows = [
            {"metric": "resistance", "suite": "harmful", "judge": DEFAULT_JUDGE, "value": resistance, "n": n},
            {"metric": "rouge_l", "suite": "facts", "judge": "", "value": utility, "n": n},
        ]
        with EventWriter(workspace.run(recipe.run_id)) as events:
            events.write("run_started", recipe=recipe.model_dump(mode="json"))
            events.write("artifact", name="adapter", path="artifacts/adapter", sha256="0" * 64, bytes=7, **told)
            events.write("metrics", rows=rows)
            events.write("run_finished", seconds=1.0, peak_memory_bytes=1)
        keeping.settle(recipe, workspace)
        return recipe.run_id

    return make


def stays(workspace: Workspace, *run_ids: str) -> list[bool]:
    return [trash.weights(workspace, run_id) is not None for run_id in run_ids]


def test_the_policy_is_of_the_launch_and_not_of_the_run() -> None:
    one = Recipe(
        base=_source("base"), adapters=(_source("U"), _source("S")), method="linear", parameters={"alpha": 0.5}
    )
    (other,) = with_kept([one], "front")
    assert other.run_id == one.run_id and "artifacts" not in one.model_dump(mode="json")
    assert Recipe.model_validate(other.model_dump(mode="json")).artifacts == "front", "a queued job remembers it"
    assert "artifacts" not in recipe_file.RecipeFile(other).to_yaml()


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_those_on_the_front_stay_whatever_the_order_in_which_they_finish(
    workspace: Workspace, measured: Callable[..., str], order: tuple[int, ...]
) -> None:
    points = [(0.1, 0.2, 0.9), (0.2, 0.5, 0.5), (0.3, 0.5, 0.4), (0.4, 0.9, 0.1)]
    made = {place: measured(*points[place]) for place in order}
    assert stays(workspace, *(made[place] for place in range(4))) == [True, True, False, True]
    assert (workspace.merged_adapter(made[2]) / "README.md").is_file(), "card, settings and recipe stay"


def test_points_that_are_equal_or_cannot_be_told_stay_and_none_are_compared_across_settings(
    workspace: Workspace, measured: Callable[..., str]
) -> None:
    best = measured(0.1, 0.9, 0.9)
    assert stays(workspace, measured(0.2, 0.9, 0.9), measured(0.3, None, 0.1)) == [True, True]
    assert stays(workspace, measured(0.4, 0.1, 0.1, safety="T"), measured(0.5, 0.1, 0.1, n=5)) == [True, True]
    assert stays(workspace, measured(0.6, 0.1, 0.1), best) == [False, True]


def test_never_and_always_do_what_they_say_and_a_run_made_to_stay_beats_nobody_s_weights_away(
    workspace: Workspace, measured: Callable[..., str]
) -> None:
    always = measured(0.1, 0.1, 0.1, "always")
    front = measured(0.2, 0.2, 0.2)
    assert stays(workspace, measured(0.3, 0.9, 0.9, "never"), always, front) == [False, True, True]
    assert stays(workspace, measured(0.4, 0.9, 0.9, "always"), front) == [True, True]


def test_what_somebody_tagged_or_registered_stays_though_it_is_beaten(
    workspace: Workspace, measured: Callable[..., str], tiny_pair: tuple[Path, Path]
) -> None:
    tagged, registered, plain = measured(0.1, 0.1, 0.3), measured(0.2, 0.2, 0.2), measured(0.3, 0.3, 0.1)
    remarks.tag(workspace, tagged, "star")
    shutil.copytree(tiny_pair[0], workspace.merged_adapter(registered), dirs_exist_ok=True)
    catalog.add(workspace, workspace.merged_adapter(registered), "mine")
    measured(0.4, 0.9, 0.9)
    assert stays(workspace, tagged, registered, plain) == [True, True, False]


def test_a_run_that_is_being_written_keeps_its_weights(workspace: Workspace, measured: Callable[..., str]) -> None:
    beaten = measured(0.1, 0.1, 0.1)
    with EventWriter(workspace.run(beaten)):
        measured(0.2, 0.9, 0.9)
    assert stays(workspace, beaten) == [True]


def test_the_server_s_setting_is_front_unless_it_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kept_of_many() == "front" and kept_of_many("never") == "never"
    monkeypatch.setenv("SSTMERGE_ARTIFACTS", "always")
    assert kept_of_many() == "always"
    monkeypatch.setenv("SSTMERGE_ARTIFACTS", "some")
    with pytest.raises(RecipeError, match="SSTMERGE_ARTIFACTS=some"):
        kept_of_many()


def test_asked_for_again_on_the_merge_page_a_run_has_its_adapter_bit_for_bit_and_keeps_it(
    workspace: Workspace, tiny_base: Path, tiny_pair: tuple[Path, Path]
) -> None:
    plan = preflight.plan(
        workspace,
        base=catalog.base_at(tiny_base),
        utility=catalog.entry(tiny_pair[0], name="U", role="utility", suite="facts"),
        safety=catalog.entry(tiny_pair[1], name="S", role="safety"),
        method="ties",
        parameters={"alpha": 0.5},
        options=preflight.Options(n=2),
    )
    evaluation = there(there(plan.recipe).evaluation)
    short = tuple(suite.model_copy(update={"max_new_tokens": 2}) for suite in evaluation.suites)
    page = there(plan.recipe).model_copy(update={"evaluation": evaluation.model_copy(update={"suites": short})})
    execute(with_kept([page], "never"), workspace)
    assert stays(workspace, page.run_id) == [False]
    assert "artifacts" not in record.read(workspace.run(page.run_id)).recipe, "run again from its page, it stays"
    execute([page], workspace)
    made = [event for event in read_events(workspace.run(page.run_id)) if event["event"] == "artifact"]
    assert [event.get("keep") for event in made] == ["never", None] and len({event["sha256"] for event in made}) == 1
    assert stays(workspace, page.run_id) == [True]
    trash.delete_weights(workspace, page.run_id)
    execute([page], workspace)
    assert stays(workspace, page.run_id) == [False], "somebody deleted them"
