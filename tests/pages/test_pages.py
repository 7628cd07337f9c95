"""Every page on an empty and on a full workspace, and what the URL says to it."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import streamlit as st
from safetensors.torch import load_file, save_file
from streamlit.testing.v1 import AppTest

from sstmerge_core import catalog, jobs, methods
from sstmerge_core.builder import preflight
from sstmerge_core.recipe import Recipe
from sstmerge_core.store import Owner, queries
from sstmerge_core.workspace import Workspace
from studio import families
from tests.synthetic_workspace import selected
from tests.there import there
from tests.tiny_models import build_base

pytestmark = pytest.mark.usefixtures("one_store")

ROOT = Path(__file__).resolve().parents[2]
PAGES = (
    *("overview", "adapters", "prompts", "train", "merge", "sweep", "pareto", "compare", "alpha_curves"),
    *("run", "experiments", "query", "playground"),
)
Open = Callable[..., AppTest]


@pytest.mark.parametrize("page", PAGES)
def test_page_renders_on_an_empty_workspace(open_page: Open, empty_workspace: Workspace, page: str) -> None:
    app = open_page(empty_workspace, page)
    assert not app.exception


@pytest.mark.parametrize("page", PAGES)
def test_page_renders_on_a_full_workspace(open_page: Open, full_workspace: Workspace, page: str) -> None:
    app = open_page(full_workspace, page)
    assert not app.exception


def test_opening_every_page_imports_no_torch(full_workspace: Workspace) -> None:
    script = f"""
import sys
from streamlit.testing.v1 import AppTest
app = AppTest.from_file("app.py", default_timeout=120).run()
for page in {PAGES[1:]!r}:
    assert not app.switch_page(f"pages/{{page}}.py").run().exception, page
heavy = [name for name in ("torch", "transformers", "peft") if name in sys.modules]
print("heavy:", heavy)
"""
    environment = os.environ | {"SSTMERGE_WORKSPACE": str(full_workspace.root)}
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert "heavy: []" in done.stdout, done.stdout + done.stderr[-2000:]


@pytest.mark.parametrize("name", methods.names())
def test_merge_form_has_exactly_the_parameters_of_the_method(
    open_page: Open, full_workspace: Workspace, name: str
) -> None:
    app = open_page(full_workspace, "merge", **_tiny(), method=name)
    widgets = [*app.number_input, *app.selectbox, *app.toggle, *app.text_input]
    drawn = {widget.key.removeprefix(f"merge.{name}.") for widget in widgets if widget.key.startswith(f"merge.{name}.")}
    assert drawn == {parameter.name for parameter in methods.get(name).parameters}


def test_the_unaligned_model_is_chosen_on_the_merge_page_by_methods_that_use_one(
    open_page: Open, full_workspace: Workspace, tiny_base: Path, tmp_path: Path
) -> None:
    workspace = Workspace(tmp_path / "own")
    shutil.copytree(full_workspace.root, workspace.root)
    before = build_base("llama", tmp_path / "before", seed=5)
    catalog.add_base(workspace, before)
    app = open_page(workspace, "merge", **_tiny(), method="safe_lora")
    assert not app.exception
    app.selectbox("merge.unaligned").select("before").run()
    assert not app.exception and not app.error and not app.button("merge.launch").disabled
    assert _said(app, "unaligned") == "before"
    again = open_page(workspace, "merge", **_tiny(), method="safe_lora", unaligned="before")
    assert again.selectbox("merge.unaligned").value == "before"
    again.selectbox("merge.method").select("linear").run()
    assert not again.exception and "unaligned" not in again.query_params


def test_a_sweep_gives_the_unaligned_model_to_the_methods_that_use_one(
    open_page: Open, full_workspace: Workspace, tmp_path: Path
) -> None:
    workspace = Workspace(tmp_path / "own")
    shutil.copytree(full_workspace.root, workspace.root)
    before = catalog.add_base(workspace, build_base("llama", tmp_path / "before", seed=5))
    given = {**_tiny(), "method": ["safe_lora", "linear"], "alpha": "0.5", "strength": "1"}
    app = open_page(workspace, "sweep", **given, unaligned="before")
    assert not app.exception and app.selectbox("sweep.unaligned").value == "before"
    assert _said(app, "unaligned") == "before" and not app.button("sweep.launch").disabled
    tiny = {one.name: one for one in catalog.entries(workspace)}
    plan = preflight.plan_sweep(
        workspace,
        next(one for one in catalog.bases(workspace) if one.name == _tiny()["base"]),
        tiny[_tiny()["utility"]],
        tiny[_tiny()["safety"]],
        methods=["safe_lora", "linear"],
        alphas=[0.5],
        unaligned=before,
    )
    assert {recipe.method: recipe.unaligned == before.source for recipe in plan.recipes} == {
        "safe_lora": True,
        "linear": False,
    }
    again = open_page(workspace, "sweep", **given | {"method": "linear"})
    assert not again.exception and "sweep.unaligned" not in [box.key for box in again.selectbox]


def test_merge_takes_its_parameters_from_the_link(open_page: Open, full_workspace: Workspace) -> None:
    app = open_page(full_workspace, "merge", **_tiny(), method="sst_gevp", alpha="1.25", k="7", mode="interpolate")
    assert app.number_input("merge.sst_gevp.alpha").value == 1.25
    assert app.number_input("merge.sst_gevp.k").value == 7
    assert app.selectbox("merge.sst_gevp.mode").value == "interpolate"


def test_bad_values_in_the_link_are_named_and_the_page_works_on(open_page: Open, full_workspace: Workspace) -> None:
    app = open_page(full_workspace, "merge", **_tiny(), method="linear", alpha="abc")
    assert not app.exception
    assert "alpha=abc" in app.warning[0].value and "must be a number" in app.warning[0].value
    assert app.number_input("merge.linear.alpha").value == 0.5


def test_a_parameter_keeps_its_own_value_for_each_method(open_page: Open, full_workspace: Workspace) -> None:
    app = open_page(full_workspace, "merge", **_tiny(), method="sst_gevp", alpha="2.5")
    app.session_state["merge.method"] = "linear"
    app.run()
    assert not app.exception
    assert not any("in the link" in warning.value for warning in app.warning)
    assert app.number_input("merge.linear.alpha").value == 0.5
    app.session_state["merge.method"] = "sst_gevp"
    app.run()
    assert app.number_input("merge.sst_gevp.alpha").value == 2.5


def test_a_changed_widget_is_spelled_out_in_the_url(open_page: Open, full_workspace: Workspace) -> None:
    app = open_page(full_workspace, "merge", **_tiny(), method="linear", alpha="0.3")
    app.number_input("merge.linear.alpha").set_value(0.7).run()
    assert app.number_input("merge.linear.alpha").value == 0.7
    assert _said(app, "alpha") == "0.7" and _said(app, "method") == "linear"


def test_a_pair_that_cannot_be_merged_disables_the_button_and_says_why(
    open_page: Open, full_workspace: Workspace
) -> None:
    app = open_page(full_workspace, "merge", base="tiny-llama", utility="tiny-safety", safety="tiny-safety")
    assert app.button("merge.launch").disabled
    assert "same adapter" in app.error[0].value


def test_linear_shows_its_effective_weights(open_page: Open, full_workspace: Workspace) -> None:
    app = open_page(full_workspace, "merge", **_tiny(), method="linear", alpha="0.3")
    text = " ".join(caption.value for caption in app.caption)
    assert "**0.7** · ΔU" in text and "**0.3** · ΔS" in text


def test_weights_of_ones_own_are_shown_as_they_act_and_a_wrong_number_of_them_is_told(
    open_page: Open, full_workspace: Workspace
) -> None:
    app = open_page(full_workspace, "merge", **_tiny(), method="task_arithmetic", alpha="2", weights="1,-0.5")
    assert "**-1** · ΔS" in " ".join(caption.value for caption in app.caption)
    for wrong, said in (("1,2,3", "3 numbers for 2 adapters"), ("1,x", "numbers with commas")):
        app.text_input("merge.task_arithmetic.weights").set_value(wrong).run()
        assert not app.exception and said in " ".join(error.value for error in app.error)


@pytest.mark.parametrize("name", methods.names())
def test_every_method_can_be_launched_with_the_parameters_of_its_form(
    open_page: Open, full_workspace: Workspace, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    launched: list[Recipe] = []

    def submit(workspace: Workspace, recipes: Sequence[Recipe], **_: object) -> str:
        launched.extend(recipes)
        return ""

    monkeypatch.setattr(jobs, "submit", submit)
    alpha = {} if methods.get(name).axis is None else {"alpha": "0.35"}
    app = open_page(full_workspace, "merge", **_tiny(), method=name, split="selection", **alpha)
    assert not app.exception and not app.error
    app.button("merge.launch").click().run()
    assert not app.exception
    (recipe,) = launched
    expected = methods.get(name).complete({key: float(value) for key, value in alpha.items()})
    assert recipe.method == name and recipe.parameters == expected
    assert {suite.split for suite in there(recipe.evaluation).suites} == {"selection"}


def test_methods_without_alpha_show_none_and_the_others_say_what_it_means(
    open_page: Open, full_workspace: Workspace
) -> None:
    app = open_page(full_workspace, "merge", **_tiny(), method="average")
    assert {item.key for item in app.number_input} == {"merge.n", "merge.length"}
    app = open_page(full_workspace, "merge", **_tiny(), method="base_slerp")
    assert app.number_input[0].label == "α = share of the tuned model, the rest is the base"


def test_options_open_by_themselves_where_one_is_changed(open_page: Open, full_workspace: Workspace) -> None:
    plain = open_page(full_workspace, "merge", **_tiny(), method="sst_gevp")
    assert not plain.expander[0].proto.expanded and plain.expander[0].label == "More options"
    changed = open_page(full_workspace, "merge", **_tiny(), method="sst_gevp", rho="0.3")
    assert changed.expander[0].proto.expanded and "ρ 0.3" in changed.expander[0].label
    changed.number_input("merge.sst_gevp.rho").set_value(0.1).run()
    assert changed.expander[0].proto.expanded, "closed while somebody was in it"


def test_further_experts_are_merged_and_their_weights_shown(
    open_page: Open, full_workspace: Workspace, tiny_pair: tuple[Path, Path], tmp_path: Path
) -> None:
    shutil.copytree(tiny_pair[0], tmp_path / "second")
    _edit(tmp_path / "second", lora_alpha=31)
    added = catalog.add(full_workspace, tmp_path / "second", name="tiny-second", role="utility")
    try:
        app = open_page(full_workspace, "merge", **_tiny(), method="linear", alpha="0.5", expert="tiny-second")
        text = " ".join(caption.value for caption in app.caption)
        assert "**0.25** · ΔU2 (tiny-second)" in text and "**0.5** · ΔS (tiny-safety)" in text
        assert r"tiny-utility+tiny-second\_tiny-safety" in " ".join(item.value for item in app.markdown)
        app.selectbox("merge.utility").set_value("tiny-second").run()
        assert app.multiselect("merge.expert").value == []
        app = open_page(full_workspace, "sweep", **_tiny(), expert="tiny-second", method="linear", alpha="0.5")
        assert not app.error and app.button("sweep.launch").label == "Start 1 run"
    finally:
        catalog.remove(full_workspace, added.sha256)


@pytest.mark.parametrize("page", ["merge", "sweep"])
def test_a_declared_suite_is_offered_and_its_absence_said_with_the_way_to_get_it(
    open_page: Open, full_workspace: Workspace, page: str
) -> None:
    app = open_page(full_workspace, page, **_tiny(), method="linear", alpha="0.5", harmful="nothing")
    assert "harmful=nothing" in app.warning[0].value
    app = open_page(full_workspace, page, **_tiny(), method="linear", alpha="0.5", harmful="advbench", suite="facts")
    assert "advbench · not here" in app.selectbox(f"{page}.harmful").options and _said(app, "harmful") == "advbench"
    assert "rows are not here" in app.error[0].value and "--fetch" in app.error[0].value
    assert app.button(f"{page}.launch").disabled


def test_a_family_brings_all_its_methods_and_takes_them_along(open_page: Open, full_workspace: Workspace) -> None:
    app = open_page(full_workspace, "sweep", **_tiny(), method="linear")
    app.button_group("sweep.families").set_value(["Sparse"]).run()
    assert app.multiselect("sweep.method").value == ["linear", *families.names("Sparse")]
    app.button_group("sweep.families").set_value([]).run()
    assert app.multiselect("sweep.method").value == ["linear"]


def test_a_sweep_counts_one_point_for_a_method_without_alpha(open_page: Open, full_workspace: Workspace) -> None:
    app = open_page(full_workspace, "sweep", **_tiny(), method=["average", "base_slerp"], alpha="0.2, 0.4")
    assert app.button("sweep.launch").label == "Start 3 runs"
    text = " ".join(caption.value for caption in app.caption)
    assert "One point each, without α: Average" in text and "Share of the tuned model: Base SLERP" in text
    asked = {item.key for item in app.text_input}
    assert "sweep.alpha" in asked and not asked & {"sweep.strength", "sweep.k", "sweep.seed"}


def test_k_does_not_multiply_the_points_of_a_budget_whose_patch_has_no_k(
    open_page: Open, full_workspace: Workspace
) -> None:
    app = open_page(full_workspace, "sweep", **_tiny(), method=["sst_budget", "sst_gevp"], strength="1", k="5, 10")
    assert app.button("sweep.launch").label == "Start 3 runs"


def test_every_method_is_in_exactly_one_family() -> None:
    listed = [name for family in families.FAMILIES for name in families.names(family)]
    assert sorted(listed) == sorted(methods.names()) and listed == families.names()


def test_run_says_what_its_method_found_and_defines_it(open_page: Open, full_workspace: Workspace) -> None:
    app = open_page(full_workspace, "run", run=_best(full_workspace, "sst_budget"))
    app.session_state["run.tabs"] = "Modules"
    app.run()
    assert not app.exception
    found = next(metric for metric in app.metric if metric.label == "α found")
    assert found.value == "1.62" and "largest strength" in found.help
    assert any("1.62" in item.value for item in app.markdown)


@pytest.mark.parametrize("name", ["average", "model_stock", "safe_lora"])
def test_pages_cope_with_runs_without_alpha(open_page: Open, full_workspace: Workspace, name: str) -> None:
    app = open_page(full_workspace, "run", run=_best(full_workspace, name))
    assert not app.exception and "α" not in app.header[0].value
    app = open_page(full_workspace, "pareto", pair="A5_A7", method=name)
    drawn = {trace["meta"]["method"] for trace in _figure(app)["data"] if "method" in trace.get("meta", {})}
    assert drawn == {name}
    app = open_page(full_workspace, "alpha_curves", pair="A5_A7")
    assert any("4 runs without α" in caption.value for caption in app.caption)


def test_a_job_that_is_not_here_is_said_in_words(open_page: Open, full_workspace: Workspace) -> None:
    app = open_page(full_workspace, "merge", **_tiny(), job="20200101-000000-abcdef")
    said = "\n".join(warning.value for warning in app.warning)
    assert "20200101-000000-abcdef" in said and "no such job" in said


def test_sweep_counts_its_points_before_launch(open_page: Open, full_workspace: Workspace) -> None:
    app = open_page(full_workspace, "sweep", **_tiny(), alpha="0.1:0.5:0.1", strength="1, 2", k="5, 10", seed="42")
    # linear 5, task arithmetic 2, GEVP 2 × 2
    assert app.button("sweep.launch").label == "Start 11 runs"


def test_sweep_says_which_number_it_cannot_read(open_page: Open, full_workspace: Workspace) -> None:
    app = open_page(full_workspace, "sweep", **_tiny(), alpha="0.1, zero")
    assert not app.exception
    assert "zero" in app.error[0].value and "not a number" in app.error[0].value


def test_unknown_run_says_so(open_page: Open, full_workspace: Workspace) -> None:
    app = open_page(full_workspace, "run", run="0000")
    assert not app.exception
    assert "run=0000 in the link" in app.error[0].value and "no such run" in app.error[0].value


def test_run_shows_its_metrics_with_interval_and_n(open_page: Open, full_workspace: Workspace) -> None:
    run_id = _best(full_workspace)
    app = open_page(full_workspace, "run", run=run_id)
    assert [metric.label for metric in app.metric][:2] == ["Resistance", "Utility"]
    table = app.dataframe[0].value
    resistance = table[table["metric"] == "Resistance"].iloc[0]
    assert resistance["n"] == 72 and resistance["interval"].startswith("[0.")
    asr = table[table["metric"] == "Attack success"].iloc[0]
    assert asr["value"] != asr["value"] and "cannot tell" in asr["status"]


def test_pareto_draws_only_the_method_that_is_filtered(open_page: Open, full_workspace: Workspace) -> None:
    app = open_page(full_workspace, "pareto", pair="A5_A7", method="linear", source="measured")
    drawn = {trace["meta"]["method"] for trace in _figure(app)["data"] if "method" in trace.get("meta", {})}
    assert drawn == {"linear"}
    app.button("chip.method.linear").click().run()
    drawn = {trace["meta"]["method"] for trace in _figure(app)["data"] if "method" in trace.get("meta", {})}
    assert {"linear", "ties", "sst_gevp"} <= drawn


def test_pareto_never_has_one_measure_on_both_axes(open_page: Open, full_workspace: Workspace) -> None:
    app = open_page(full_workspace, "pareto", pair="A5_A7", x="over_refusal", y="over_refusal")
    assert not app.exception
    assert app.selectbox("pareto.x").value == "over_refusal"
    assert app.selectbox("pareto.y").value != "over_refusal"


def test_pareto_of_a_pair_that_is_not_here_says_so(open_page: Open, full_workspace: Workspace) -> None:
    app = open_page(full_workspace, "pareto", pair="X_Y")
    assert "pair=X" in app.warning[0].value and "none of that name" in app.warning[0].value


def test_pareto_shows_the_runs_inside_the_box_of_the_link(open_page: Open, full_workspace: Workspace) -> None:
    app = open_page(full_workspace, "pareto", pair="A5_A7", source="measured", box="0.5,1,0.6,1")
    table = next(item.value for item in app.markdown if item.value.startswith("| Run"))
    measures = [[float(cell) for cell in line.split("|")[2:4]] for line in table.splitlines()[2:]]
    assert measures
    assert all(0.5 <= resistance <= 1 and 0.6 <= utility <= 1 for resistance, utility in measures)


def test_alpha_curves_show_reported_figures_only_on_request(open_page: Open, full_workspace: Workspace) -> None:
    plain = open_page(full_workspace, "alpha_curves", pair="A5_A7")
    assert {trace["meta"]["source"] for trace in _figure(plain)["data"]} == {"measured"}
    asked = open_page(full_workspace, "alpha_curves", pair="A5_A7", reported="1")
    assert {trace["meta"]["source"] for trace in _figure(asked)["data"]} == {"measured", "reported"}


def test_alpha_curves_show_the_test_prompts_and_the_selection_prompts_on_request(
    open_page: Open, full_workspace: Workspace, tmp_path: Path
) -> None:
    workspace = Workspace(tmp_path / "both")
    shutil.copytree(full_workspace.root, workspace.root)
    selected(workspace, "A5", alpha=0.42)

    def alphas(**query: str) -> set[float]:
        app = open_page(workspace, "alpha_curves", pair="A5_A7", method="linear", **query)
        assert not app.exception
        return {float(alpha) for trace in _figure(app)["data"] for alpha in _numbers(trace["x"])}

    assert 0.5 in alphas() and 0.42 not in alphas()
    assert alphas(split="selection") == {0.42}


def test_query_runs_the_sql_of_the_link(open_page: Open, full_workspace: Workspace) -> None:
    app = open_page(full_workspace, "query", sql="SELECT count(*) AS n FROM runs WHERE source = 'measured'")
    assert app.dataframe[0].value["n"].iloc[0] == 54


def test_query_shows_an_error_in_place(open_page: Open, full_workspace: Workspace) -> None:
    app = open_page(full_workspace, "query", sql="DROP TABLE runs")
    assert not app.exception
    assert app.error


def test_adding_a_folder_that_is_not_there_says_so(open_page: Open, full_workspace: Workspace) -> None:
    app = open_page(full_workspace, "adapters", **_tiny())
    app.text_input("adapters.path").set_value("/nowhere/lora")
    next(button for button in app.button if button.label == "Add").click().run()
    assert not app.exception
    assert "/nowhere/lora" in app.error[0].value


SPOILED = {
    "truncated": (lambda f: (f / "adapter_model.safetensors").write_bytes(b"\x10" * 40), "truncated"),
    "rank 0": (lambda f: _edit(f, r=0), "rank must be at least 1"),
    "DoRA": (lambda f: _edit(f, use_dora=True), "DoRA"),
}


def _edit(folder: Path, **changes: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("case", SPOILED)
def test_a_folder_that_cannot_be_merged_is_refused_in_place_and_leaves_nothing(
    open_page: Open, full_workspace: Workspace, tiny_pair: tuple[Path, Path], tmp_path: Path, case: str
) -> None:
    spoil, message = SPOILED[case]
    shutil.copytree(tiny_pair[0], tmp_path / "bad")
    spoil(tmp_path / "bad")
    before = catalog.entries(full_workspace)
    app = open_page(full_workspace, "adapters", **_tiny())
    app.text_input("adapters.path").set_value(str(tmp_path / "bad"))
    next(button for button in app.button if button.label == "Add").click().run()
    assert not app.exception
    assert len(app.error) == 1 and message in app.error[0].value
    assert catalog.entries(full_workspace) == before


def test_an_adapter_of_another_base_is_refused_on_the_merge_page(
    open_page: Open, full_workspace: Workspace, tiny_pair: tuple[Path, Path], tmp_path: Path
) -> None:
    shutil.copytree(tiny_pair[1], tmp_path / "foreign")
    _edit(tmp_path / "foreign", base_model_name_or_path="someone/other-model", lora_alpha=31)
    weights = tmp_path / "foreign" / "adapter_model.safetensors"
    save_file({key.replace("layers.1.", "layers.9."): one for key, one in load_file(weights).items()}, weights)
    added = catalog.add(full_workspace, tmp_path / "foreign", name="foreign", role="safety")
    try:
        app = open_page(full_workspace, "merge", **_tiny() | {"safety": "foreign"})
        assert any("other-model" in error.value for error in app.error)
        assert next(button for button in app.button if button.label == "Merge").disabled
    finally:
        catalog.remove(full_workspace, added.sha256)


def test_a_held_database_is_named_and_the_snapshot_is_shown(full_workspace: Workspace) -> None:
    script = """
import sys
from streamlit.testing.v1 import AppTest
app = AppTest.from_file("app.py", default_timeout=120).run()
print("exceptions", len(app.exception), "warnings", [warning.value for warning in app.warning])
print("runs", [metric.value for metric in app.metric][0])
"""
    environment = os.environ | {"SSTMERGE_WORKSPACE": str(full_workspace.root)}
    st.cache_resource.clear()  # no page of this process holds it
    with Owner.open(full_workspace) as owner:
        owner.publish()
        done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert "exceptions 0" in done.stdout, done.stdout + done.stderr[-2000:]
    assert f"process {os.getpid()} holds the database" in done.stdout
    assert "runs 52" in done.stdout


def _tiny() -> dict[str, str]:
    return {"base": "tiny-llama", "utility": "tiny-utility", "safety": "tiny-safety"}


def _said(app: AppTest, name: str) -> str:
    value = app.query_params[name]
    return value[0] if isinstance(value, list) else value


def _numbers(values: Any) -> list[float]:
    """A trace's numbers as plotly writes them: a list, or bytes of an array."""
    if isinstance(values, list):
        return values
    return np.frombuffer(base64.b64decode(values["bdata"]), values["dtype"]).tolist()


def _figure(app: AppTest) -> dict[str, Any]:
    return json.loads(app.get("plotly_chart")[0].proto.spec)


def _best(workspace: Workspace, method: str = "sst_gevp") -> str:
    with Owner.open(workspace) as owner:
        runs = queries.leaderboard(owner.cursor(), pairs=["A5_A7"], methods=[method])
        return str(runs.sort_values("resistance")["run_id"].iloc[-1])
