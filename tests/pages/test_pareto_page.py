"""The Pareto page: objectives, fronts, picks and selections, all of them in the link."""

from __future__ import annotations

import ast
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from sstmerge_core.plots import pareto
from sstmerge_core.store import Owner, read_events, remarks
from sstmerge_core.workspace import Workspace
from tests.rewritten import write_events

pytestmark = pytest.mark.usefixtures("one_store")

Open = Callable[..., AppTest]
PAGES = Path(__file__).resolve().parents[2] / "pages"
ALL = {"pair": "A5_A7", "source": "measured"}


@pytest.fixture
def copied(full_workspace: Workspace, tmp_path: Path) -> Workspace:
    """A workspace of its own, to write into."""
    shutil.copytree(full_workspace.root, tmp_path / "copy")
    return Workspace(tmp_path / "copy")


def test_the_third_objective_of_the_link_colours_the_points(open_page: Open, full_workspace: Workspace) -> None:
    app = open_page(full_workspace, "pareto", **ALL, z="over_refusal")
    assert app.selectbox("pareto.z").value == "over_refusal"
    figure = _figure(app)
    assert figure["layout"]["coloraxis"]["colorbar"]["title"]["text"].startswith("← Over-refusal")
    assert any("coloraxis" in trace["marker"] for trace in figure["data"] if "marker" in trace)
    app.toggle("pareto.space").set_value(True).run()
    assert {trace["type"] for trace in _figure(app)["data"]} == {"scatter3d"}
    assert app.query_params["space"] == ["1"] or app.query_params["space"] == "1"


def test_thousands_are_drawn_without_plotly_and_a_few_or_a_third_measure_with_it(
    open_page: Open, full_workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drawn(app: AppTest) -> list[str]:
        assert not app.exception
        own = [element.proto for element in app.get("bidi_component")]
        return [json.loads(proto.json)["figure"] for proto in own if proto.component_name == "sstmerge_many"]

    assert not drawn(open_page(full_workspace, "pareto", **ALL))
    monkeypatch.setattr(pareto, "WEBGL_ABOVE", 3)
    app = open_page(full_workspace, "pareto", **ALL, method="linear")
    (figure,) = drawn(app)
    assert {"Linear"} <= {trace.get("name") for trace in json.loads(figure)["data"]}
    assert not app.get("plotly_chart")
    assert not drawn(open_page(full_workspace, "pareto", **ALL, z="over_refusal"))


def test_a_third_objective_that_is_an_axis_already_is_dropped(open_page: Open, full_workspace: Workspace) -> None:
    app = open_page(full_workspace, "pareto", **ALL, z="utility")
    assert not app.exception
    assert app.selectbox("pareto.z").value == ""
    assert "utility" not in app.selectbox("pareto.z").options


def test_every_method_gets_a_front_of_its_own_on_demand(open_page: Open, full_workspace: Workspace) -> None:
    def own(app: AppTest) -> set[str]:
        return {trace["meta"]["front_of"] for trace in _figure(app)["data"] if "front_of" in trace.get("meta", {})}

    assert own(open_page(full_workspace, "pareto", **ALL)) == set()
    assert {"linear", "ties", "sst_gevp"} <= own(open_page(full_workspace, "pareto", **ALL, fronts="1"))


def test_the_hypervolume_has_an_interval_from_the_answers_behind_it(
    open_page: Open, tmp_path: Path, shipped_runs: Path
) -> None:
    workspace = Workspace(tmp_path / "shipped").create()
    for folder in sorted(shipped_runs.iterdir()):
        started = next(read_events(folder))
        if started["pair"] == "A5_A7" and started["method"] in ("linear", "average"):
            shutil.copytree(folder, workspace.run(folder.name))
    app = open_page(workspace, "pareto", **ALL, split="test")
    (told,) = [caption.value for caption in app.caption if "Hypervolume" in caption.value]
    value, low, high = (float(number) for number in re.findall(r"0\.\d{3}", told))
    assert low <= value <= high and low < high
    assert "Resistance × Utility, measured here, test prompts" in told


def test_each_goal_names_its_run_in_the_table_and_in_the_picture(open_page: Open, full_workspace: Workspace) -> None:
    app = open_page(full_workspace, "pareto", **ALL)
    table = next(item.value for item in app.markdown if "Safety first" in item.value and item.value.startswith("| For"))
    assert "Balanced" in table and "Utility first" in table and "| Utility adapter |" in table
    letters = {letter for letter in "SBU" if f"| **{letter}** " in table}
    marks = [trace for trace in _figure(app)["data"] if "marks" in trace.get("meta", {})]
    assert {letter for trace in marks for text in trace["text"] for letter in text} == letters
    assert all(f"run?run={run_id}" in table for trace in marks for run_id in trace["meta"]["marks"])
    for line in table.splitlines()[2:5]:
        if line.startswith("| **"):
            over_refusal = float(line.split("|")[4].split()[0])
            assert over_refusal <= 0.2
    assert any("n = " in item.value and "judge" in item.value for item in app.markdown)


def test_the_limits_of_a_pick_are_in_the_link(open_page: Open, full_workspace: Workspace) -> None:
    app = open_page(full_workspace, "pareto", **ALL, over="0.05", floor="0.9")
    assert app.slider("pareto.over").value == 0.05 and app.slider("pareto.floor").value == 0.9
    app.slider("pareto.over").set_value(0.5).run()
    assert app.query_params["over"] == "0.5" and not app.exception
    wrong = open_page(full_workspace, "pareto", **ALL, over="7")
    assert "over=7" in wrong.warning[0].value


def test_the_lasso_of_the_link_selects_the_runs_inside_it(open_page: Open, full_workspace: Workspace) -> None:
    app = open_page(full_workspace, "pareto", **ALL, lasso="0,0,1.1,0,1.1,1.1")
    table = next(item.value for item in app.markdown if item.value.startswith("| Run"))
    measures = [[float(cell) for cell in line.split("|")[2:4]] for line in table.splitlines()[2:]]
    assert measures and all(resistance >= utility for resistance, utility in measures)
    assert _figure(app)["layout"]["shapes"][0]["path"].startswith("M0.0,0.0L")
    app.button("pareto.clear").click().run()
    assert "lasso" not in app.query_params


def test_a_lasso_that_cannot_be_read_is_named(open_page: Open, full_workspace: Workspace) -> None:
    app = open_page(full_workspace, "pareto", **ALL, lasso="1,2,3")
    assert "lasso=1" in app.warning[0].value and "three corners" in app.warning[0].value


def test_runs_of_selection_prompts_can_be_left_out(open_page: Open, copied: Workspace) -> None:
    path = next(path for path in copied.runs.iterdir() if "linear" in (path / "events.jsonl").read_text()[:900])
    told = json.dumps(list(read_events(path))).replace('"split": "test"', '"split": "selection"')
    write_events(copied.runs / "chosen", json.loads(told))
    with Owner.open(copied) as owner:
        owner.ingest()
    every = open_page(copied, "pareto", pair="A5_A7")
    assert every.multiselect("pareto.split").options == ["test", "selection"]
    assert "Front (selection)" in _names(every), "and never joined to the test prompts' front"
    only = open_page(copied, "pareto", pair="A5_A7", split="test")
    assert "Front" in _names(only) and "Front (selection)" not in _names(only)
    assert only.button("chip.split.test")


def _names(app: AppTest) -> set[str]:
    return {trace["name"] for trace in _figure(app)["data"] if trace.get("name")}


def _figure(app: AppTest) -> Any:
    return json.loads(app.get("plotly_chart")[0].proto.spec)


@pytest.mark.parametrize("page", sorted(path.name for path in PAGES.glob("*.py")))
def test_no_page_has_a_loose_string_which_streamlit_would_print(page: str) -> None:
    body = ast.parse((PAGES / page).read_text()).body
    values = [part.value for part in body[1:] if isinstance(part, ast.Expr)]
    assert not [one.value for one in values if isinstance(one, ast.Constant) and isinstance(one.value, str)]


def test_the_only_tag_can_be_filtered_by(open_page: Open, copied: Workspace) -> None:
    run_id = next(folder.name for folder in sorted(copied.runs.iterdir()) if "A5_A7" in _first_event(folder))
    remarks.tag(copied, run_id, "to ship")
    with Owner.open(copied) as owner:
        owner.ingest()
        owner.publish()
    app = open_page(copied, "pareto", pair="A5_A7")
    assert app.multiselect("pareto.tag").options == ["to ship"]
    app.multiselect("pareto.tag").set_value(["to ship"]).run()
    assert app.button("chip.tag.to ship") and not app.exception


def _first_event(folder: Path) -> str:
    return json.dumps(next(iter(read_events(folder))))
