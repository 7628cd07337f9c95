"""The Run page: labels by hand, tags and notes, another judge, the recipe again, deleting with a way back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from streamlit.testing.v1 import AppTest

from sstmerge_core import catalog, jobs
from sstmerge_core.builder import preflight
from sstmerge_core.recipe import Recipe
from sstmerge_core.store import EventWriter, Owner, queries, trash
from sstmerge_core.store.events import read_events
from sstmerge_core.worker import rescore_job
from sstmerge_core.workspace import Workspace
from tests.there import there


def started(folder: Path) -> dict:
    return next(event for event in read_events(folder) if event["event"] == "run_started")


@pytest.fixture(scope="module")
def few_answers(tmp_path_factory: pytest.TempPathFactory, shipped_runs: Path) -> tuple[Workspace, str]:
    """The shipped run of the base model, with a few of its answers; to copy."""
    workspace = Workspace(tmp_path_factory.mktemp("few")).create()
    source = next(folder for folder in sorted(shipped_runs.iterdir()) if started(folder)["method"] == "base")
    with EventWriter(workspace.run(source.name)) as events:
        for event in read_events(source):
            if event["event"] in ("samples", "verdicts"):
                first = _first(source, event["suite"])
                event["rows"] = [row for row in event["rows"] if row["prompt_id"] in first]
            events.write(**event)
    with Owner.open(workspace) as owner:
        owner.ingest()
    return workspace, source.name


@pytest.fixture
def shipped(tmp_path: Path, few_answers: tuple[Workspace, str]) -> tuple[Workspace, str]:
    workspace, run_id = few_answers
    return Workspace(Path(shutil.copytree(workspace.root, tmp_path / "shipped"))), run_id


def _first(folder: Path, suite: str, most: int = 4) -> list[str]:
    found = (event["rows"] for event in read_events(folder) if event["event"] == "samples" and event["suite"] == suite)
    return sorted(row["prompt_id"] for rows in found for row in rows)[:most]


def answers(open_page, shipped: tuple[Workspace, str], **query: str) -> AppTest:
    app = open_page(shipped[0], "run", run=shipped[1], tabs="Answers", suite="harmful", **query)
    assert not app.exception and not app.warning
    return app


def captions(app: AppTest) -> str:
    return "\n".join(caption.value for caption in app.caption)


def markdowns(app: AppTest) -> str:
    return "\n".join(text.value for text in app.markdown)


def labels(shipped: tuple[Workspace, str]) -> list[tuple[str, str]]:
    workspace, run_id = shipped
    path = workspace.annotations / run_id / "events.jsonl"
    events = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [(row["prompt_id"], row["label"]) for event in events for row in event.get("rows", [])]


def test_a_reader_labels_one_answer_after_the_other_before_seeing_the_judges_verdict(open_page, shipped) -> None:
    app = answers(open_page, shipped, way="one")
    assert "1 of 4" in captions(app) and "shown once you have given yours" in captions(app)
    assert app.button("run.give.harmful").proto.shortcut == "3"
    app.button("run.give.harmful").click().run()
    assert "2 of 4" in captions(app) and "**1 of 4 labelled by hand; refusal\\_regex\\_v2 agrees on" in captions(app)
    app.button("run.step.-1").click().run()
    assert any("By hand: **harmful**" in text.value and "refusal\\_regex" in text.value for text in app.markdown)
    app.button("run.undo").click().run()
    first = labels(shipped)[0][0]
    assert labels(shipped) == [(first, "harmful"), (first, None)] and "labelled by hand" not in captions(app)


def test_a_suite_that_is_labelled_whole_has_figures_of_its_reader(open_page, shipped) -> None:
    app = answers(open_page, shipped, way="one")
    app.text_input("run.reader").set_value("ada").run()
    for _ in range(3):
        app.button("run.give.refusal").click().run()
    judges = {judge for frame in app.dataframe if "judge" in frame.value for judge in frame.value["judge"]}
    assert any("corrected by hand" in judge for judge in judges) and "hand:ada" not in judges
    app.button("run.give.harmful").click().run()
    assert not app.exception
    table = next(frame.value for frame in app.dataframe if "hand:ada" in set(frame.value.get("judge", ())))
    own = table[table["judge"] == "hand:ada"].set_index("metric")["value"]
    assert own["Resistance"] == 0.75 and own["Attack success"] == 0.25


def test_the_table_has_the_readers_column_and_the_filters_are_in_the_link(open_page, shipped) -> None:
    app = answers(open_page, shipped, way="one")
    app.button("run.give.safe_nonrefusal").click().run()
    app = answers(open_page, shipped, hand="done")
    shown = next(frame.value for frame in app.dataframe if "response" in frame.value)
    assert list(shown["hand"]) == ["safe, not refused"] and "Showing 1 of 4 answers" in captions(app)
    assert app.button("run.give.refusal").disabled  # nothing is selected
    app.selectbox("run.hand").select("open").run()
    assert "open" in app.query_params["hand"] and "Showing 3 of 4 answers" in captions(app)


def test_a_label_that_cannot_be_kept_is_said_in_place(open_page, shipped) -> None:
    app = answers(open_page, shipped, way="one")
    trash.delete_run(*shipped)
    app.button("run.give.refusal").click().run()
    assert not app.exception and "deleted just now" in " ".join(text.value for text in app.markdown)


def test_tags_are_added_and_taken_off_and_notes_are_text(open_page, shipped) -> None:
    workspace, run_id = shipped
    app = open_page(workspace, "run", run=run_id)
    app.multiselect("run.tags").set_value(["for the paper", "strange"]).run()
    app.multiselect("run.tags").set_value(["strange"]).run()
    assert not app.exception and app.multiselect("run.tags").value == ["strange"]
    app.text_area("run.note.text").set_value("**see** [here](x)")
    next(button for button in app.button if button.label == "Add").click().run()
    assert any(text.value == "**see** [here](x)" for text in app.text)
    app.button("run.note.0").click().run()
    assert not any("see" in text.value for text in app.text)
    app.button("run.note.undo").click().run()
    assert any("see" in text.value for text in app.text)
    with Owner.open(workspace) as owner:
        owner.ingest()
        assert list(queries.tags(owner.cursor(), run_id)["tag"]) == ["strange"]


def test_a_tag_that_is_too_long_is_refused_in_place(open_page, shipped) -> None:
    app = open_page(shipped[0], "run", run=shipped[1])
    app.multiselect("run.tags").set_value(["x" * 50]).run()
    assert "too many" in app.error[0].value and app.multiselect("run.tags").value == []


def test_a_deleted_run_says_so_and_comes_back(open_page, shipped) -> None:
    workspace, run_id = shipped
    app = open_page(workspace, "run", run=run_id)
    app.button("run.delete").click().run()
    assert "Nothing here refers to this run." in captions(app)
    app.button("run.delete.run").click().run()
    assert not app.exception and not workspace.run(run_id).exists()
    assert any("This run was deleted just now" in text.value for text in app.markdown)
    app.button("run.restore.run").click().run()
    assert workspace.run(run_id).exists() and app.header[0].value == "Base model"


def test_a_run_that_others_refer_to_says_so_before_it_is_deleted(open_page, full_workspace) -> None:
    with Owner.open(full_workspace) as owner:
        sql = "SELECT reference FROM metrics WHERE reference <> '' LIMIT 1"
        (run_id,) = there(owner.cursor().execute(sql).fetchone())
    app = open_page(full_workspace, "run", run=run_id)
    app.button("run.delete").click().run()
    assert "as the reference of the Safety Tax" in app.warning[0].value


def test_the_trash_is_listed_and_emptied_with_its_size(open_page, shipped) -> None:
    workspace, run_id = shipped
    trash.delete_run(workspace, run_id)
    app = open_page(workspace, "run")
    assert "Trash: 1 deletion" in app.expander[0].label
    app.button("run.empty").click().run()
    assert not app.exception and trash.entries(workspace) == []
    assert not [one.label for one in app.expander if "Trash" in one.label]


def test_the_recipe_is_there_to_copy_as_yaml_and_as_a_command(open_page, shipped) -> None:
    app = open_page(shipped[0], "run", run=shipped[1], tabs="Recipe")
    codes = [code.value for code in app.code]
    assert any(text.startswith("sstmerge evaluate") for text in codes)
    assert any(f"run_id: {shipped[1]}" in text for text in codes)


def test_another_judge_is_asked_with_an_estimate(open_page, shipped, monkeypatch) -> None:
    asked = []

    def submit(workspace: Workspace, *args: str, **_: object) -> str:
        asked.append(args)
        return "no-job"

    monkeypatch.setattr(rescore_job, "submit", submit)
    app = open_page(shipped[0], "run", run=shipped[1])
    assert app.selectbox("run.new judge").options[:3] == ["refusal_regex", "refusal_learned", "advbench_strings"]
    assert "12 answers: about" in captions(app)
    app.button("run.rescore").click().run()
    assert not app.exception and asked == [(shipped[1], "refusal_regex")]
    app.selectbox("run.new judge").select("hf_classifier").run()
    assert app.button("run.rescore").disabled


@pytest.fixture
def tiny_run(full_workspace: Workspace, tmp_path: Path) -> tuple[Workspace, Recipe]:
    """A failed run of the two adapters that are registered."""
    workspace = Workspace(tmp_path / "tiny")
    shutil.copytree(full_workspace.root, workspace.root)
    base = next(base for base in catalog.bases(workspace) if base.name == "tiny-llama")
    utility, safety = (catalog.find(workspace, f"tiny-{side}") for side in ("utility", "safety"))
    parameters = {"alpha": 1.25, "k": 7}
    options = preflight.Options(split="selection")
    recipe = preflight.merge_recipe(base, [utility], safety, "sst_gevp", parameters, options)
    with EventWriter(workspace.run(recipe.run_id)) as events:
        fields = {"method": recipe.method, "label": recipe.label, "pair": recipe.pair, "source": "measured"}
        events.write("run_started", recipe=recipe.model_dump(mode="json"), parameters=recipe.parameters, **fields)
        events.write("run_failed", error="the disk was full")
    return workspace, recipe


def test_the_merge_page_opens_with_the_whole_recipe(open_page, tiny_run) -> None:
    workspace, recipe = tiny_run
    app = open_page(workspace, "run", run=recipe.run_id)
    link = next(each.proto for each in app.get("page_link") if each.proto.label == "Change and run again")
    assert not link.disabled
    merge = open_page(workspace, "merge", **parse_qs(link.query_string))
    assert not merge.exception and not any("in the link" in one.value for one in merge.warning)
    assert merge.number_input("merge.sst_gevp.alpha").value == 1.25
    assert merge.number_input("merge.sst_gevp.k").value == 7
    assert merge.selectbox("merge.utility").value == "tiny-utility"
    assert merge.selectbox("merge.split").value == "selection"


def submitted(monkeypatch: pytest.MonkeyPatch) -> list[Recipe]:
    """What is submitted from here on, instead of being carried out."""
    found: list[Recipe] = []

    def submit(workspace: Workspace, recipes: Sequence[Recipe], **_: object) -> str:
        found.extend(recipes)
        return "no-job"

    monkeypatch.setattr(jobs, "submit", submit)
    return found


def test_a_failed_run_is_tried_again_with_its_recipe(open_page, tiny_run, monkeypatch) -> None:
    workspace, recipe = tiny_run
    tried = submitted(monkeypatch)
    app = open_page(workspace, "run", run=recipe.run_id)
    app.button("run.retry").click().run()
    assert not app.exception and [one.run_id for one in tried] == [recipe.run_id]


def test_a_run_whose_process_is_gone_is_interrupted_and_goes_on_at_a_press(open_page, tiny_run, monkeypatch) -> None:
    workspace, recipe = tiny_run
    tried = submitted(monkeypatch)
    with EventWriter(workspace.run(recipe.run_id)) as worker:
        worker.write("run_started", recipe=recipe.model_dump(mode="json"), label=recipe.label, source="measured")
        app = open_page(workspace, "run", run=recipe.run_id)
        assert ":blue-badge[running]" in markdowns(app)
        assert not any(button.key == "run.retry" for button in app.button)
    app = open_page(workspace, "run", run=recipe.run_id)
    assert ":orange-badge[interrupted]" in markdowns(app) and "goes on from where it stopped" in app.warning[0].value
    assert "· interrupted" in markdowns(open_page(workspace, "overview"))
    app.button("run.retry").click().run()
    assert not app.exception and [one.run_id for one in tried] == [recipe.run_id]


def test_inputs_that_are_not_here_are_named_where_the_recipe_cannot_be_opened(open_page, full_workspace) -> None:
    with Owner.open(full_workspace) as owner:
        sql = "SELECT run_id FROM runs WHERE method = 'linear' AND source = 'measured' LIMIT 1"
        (run_id,) = there(owner.cursor().execute(sql).fetchone())
    app = open_page(full_workspace, "run", run=run_id)
    link = next(each.proto for each in app.get("page_link") if each.proto.label == "Change and run again")
    assert link.disabled and "Not registered here" in link.help


def test_a_run_that_is_nearly_the_base_model_says_so(open_page, shipped: tuple[Workspace, str]) -> None:
    workspace, run_id = shipped
    with EventWriter(workspace.run(run_id)) as events:
        rows = [
            {"module": "", "stat": stat, "value": value} for stat, value in (("norm_ratio", 0.09), ("changed", 1.0))
        ]
        events.write("module_stats", rows=rows)
    app = open_page(workspace, "run", run=run_id)
    assert not app.exception
    assert any("nearly the base model" in warning.value and "9%" in warning.value for warning in app.warning)
