from __future__ import annotations

from collections.abc import Callable

from streamlit.testing.v1 import AppTest

from sstmerge_core import experiments, jobs
from sstmerge_core.experiments import Result, Table, save
from sstmerge_core.workspace import Workspace

Open = Callable[..., AppTest]


def found(workspace: Workspace, best: str | None) -> None:
    """A result of the default settings, as an experiment leaves it."""
    settings = experiments.get("baselines").read()
    rows = [{"method": "linear", "seed": seed, "score": 1.0, "run_id": f"run{seed}"} for seed in (42, 43)]
    summary = [{"method": "linear", "mean": 1.0, "run_ids": ["run42", "run43"]}]
    tables = [
        Table("summary", "Over training seeds", "About.", summary),
        Table("runs", "Runs", "One row a seed.", rows),
    ]
    fields = settings.model_dump(mode="json")
    note = "Three seeds."
    result = Result(
        "baselines", "", fields, "refusal_regex", "B", tables, {"best_method": best}, ["A finding."], [note]
    )
    save(workspace, settings, result)


def test_an_experiment_shows_what_it_found_and_leads_to_its_runs(open_page: Open, empty_workspace: Workspace) -> None:
    found(empty_workspace, None)
    app = open_page(empty_workspace, "experiments", experiment="baselines")
    assert not app.exception and not app.error
    assert any("A finding." in text.value for text in app.markdown)
    assert any(text.value.startswith("**Best method:** No winner") for text in app.markdown)
    assert any("Three seeds." in text.value for text in app.caption)
    assert list(app.dataframe[1].value["open"]) == ["run?run=run42", "run?run=run43"]


def test_the_best_method_is_named_only_where_there_is_one(open_page: Open, empty_workspace: Workspace) -> None:
    found(empty_workspace, "linear")
    app = open_page(empty_workspace, "experiments", experiment="baselines")
    assert "**Best method:** Linear" in [text.value for text in app.markdown]


def test_wrong_settings_are_told_on_the_page_and_nothing_is_launched(
    open_page: Open, full_workspace: Workspace
) -> None:
    app = open_page(full_workspace, "experiments", experiment="search")
    app.text_area("experiments.settings.search").set_value("trials: 0").run()
    app.button("experiments.launch").click().run()
    assert "trials" in app.error[0].value
    assert not [job for job in jobs.jobs(full_workspace) if job.kind == "experiment"]


def test_a_damaged_result_says_what_to_do(open_page: Open, empty_workspace: Workspace) -> None:
    found(empty_workspace, None)
    (path,) = experiments.results(empty_workspace, "baselines")
    path.write_text("{")
    app = open_page(empty_workspace, "experiments", experiment="baselines")
    assert not app.exception and "Run the experiment again" in app.error[0].value
