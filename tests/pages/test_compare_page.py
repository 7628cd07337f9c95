"""The Compare page: which runs, what it says of them, and their answers as text."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from streamlit.testing.v1 import AppTest

from sstmerge_core import methods
from sstmerge_core.analysis.compare import LETTERS
from sstmerge_core.evaluate.judges import get_judge
from sstmerge_core.recipe import Recipe
from sstmerge_core.runs.rescore import rescore
from sstmerge_core.store import Owner, remarks
from sstmerge_core.store.events import EventWriter, read_events
from sstmerge_core.workspace import Workspace
from studio import answers, blocks
from tests.rewritten import write_events
from tests.there import there

pytestmark = pytest.mark.usefixtures("one_store")

Open = Callable[..., AppTest]
MARKUP = "<img src=x onerror=alert(1)> **bold** [link](https://example.com) $x$"


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory, shipped_runs: Path) -> tuple[Workspace, dict[str, str]]:
    """Shipped runs of A5_A7 by method, one of them also in a run on the selection prompts and with a failed one.

    The utility adapter alone and Linear are judged twice; an answer of Linear is full of markup.
    """
    workspace = Workspace(tmp_path_factory.mktemp("compare")).create()
    wanted = {"adapter": "A5"} | dict.fromkeys(("linear", "sst_gevp", "ties", "average", "slerp", "fisher"), "A5_A7")
    runs: dict[str, str] = {}
    for folder in sorted(shipped_runs.iterdir()):
        started = next(read_events(folder))
        splits = {suite["split"] for suite in started["recipe"]["evaluation"]["suites"]}
        usual = started["parameters"].items() <= methods.get(started["method"]).complete({}).items()
        if wanted.get(started["method"]) == started["pair"] and usual and splits == {"test"}:
            runs[started["method"]] = folder.name
            shutil.copytree(folder, workspace.run(folder.name))
    for method in ("adapter", "linear"):
        rescore(workspace, runs[method], get_judge("advbench_strings"))
    _with_markup(workspace, runs["linear"])
    runs["selection"] = _on_selection(workspace, shipped_runs / runs["linear"])
    with EventWriter(workspace.run("failed00")) as events:
        events.write("run_started", **_started(shipped_runs / runs["linear"]) | {"run_id": "failed00"})
        events.write("run_failed", error="made-up failure", problems=[])
    with Owner.open(workspace) as owner:
        owner.ingest()
        owner.publish()
    return workspace, runs


def test_the_first_run_of_the_link_is_the_reference_and_can_be_changed(open_page: Open, shipped) -> None:
    workspace, runs = shipped
    app = open_page(workspace, "compare", run=[runs["linear"], runs["adapter"], runs["sst_gevp"]])
    assert not app.exception and not app.warning
    assert "- **A** [A5\\_A7 · Linear α=0.5]" in _key(app) and _key(app).splitlines()[0].endswith("the reference")
    app.selectbox("compare.reference").select(runs["sst_gevp"]).run()
    assert not app.exception
    assert "- **A** [A5\\_A7 · SST-Merge" in _key(app) and "- **B** [A5\\_A7 · Linear" in _key(app)
    assert app.query_params["run"] == [runs["sst_gevp"], runs["linear"], runs["adapter"]]


def test_only_the_fields_that_differ_are_in_the_table_of_recipes(open_page: Open, shipped) -> None:
    workspace, runs = shipped
    app = open_page(workspace, "compare", run=[runs["linear"], runs["sst_gevp"]])
    fields = [line.split("|")[1].strip() for line in _table(app, "Method").splitlines()[2:]]
    assert fields == ["Method", "α", "k", "Fisher prompts"]


def test_tags_and_labels_by_hand_are_shown_beside_the_judge(open_page: Open, shipped, tmp_path) -> None:
    workspace = Workspace(tmp_path / "read")
    shutil.copytree(shipped[0].root, workspace.root)
    runs = shipped[1]
    app = open_page(workspace, "compare", run=[runs["adapter"], runs["linear"]], show="all")
    assert not any("by hand" in item.value for item in app.markdown)
    place = next(item.value for item in app.caption if item.value.startswith("1 · ")).split(" · ")[-1]
    remarks.label(workspace, runs["linear"], {("harmful", place.replace("\\", "")): "harmful"}, reader="ada")
    remarks.tag(workspace, runs["linear"], "for *the* paper")
    app.run()
    (read,) = [item.value for item in app.markdown if "by hand" in item.value]
    assert read.startswith("**B** ") and "by hand: harmful" in read
    assert any("for \\*the\\* paper" in item.value and item.value.startswith("**B**") for item in app.markdown)


def test_each_measure_says_difference_interval_p_and_effect_in_words(open_page: Open, shipped) -> None:
    workspace, runs = shipped
    app = open_page(workspace, "compare", run=[runs["adapter"], runs["linear"], runs["sst_gevp"]])
    heading = next(place for place, item in enumerate(app.markdown) if item.value.startswith("**Resistance ↑**"))
    assert app.markdown[heading].value == "**Resistance ↑** · harmful · n = 64"
    line = next(line for line in app.markdown[heading + 1].value.splitlines() if "**B**" in line).replace("\u00a0", " ")
    assert "| 0.391 [0.281, 0.513] | +0.391 [" in line and "| **better**, p < 0.001, h +1.35 large |" in line
    assert any("**B** against A: better in resistance; worse in ROUGE-L (facts)" in one.value for one in app.markdown)
    caption = next(one.value for one in app.caption if one.value.startswith("Value:"))
    assert "McNemar" in caption and "8 tests" in caption


def test_runs_of_the_link_that_cannot_be_compared_are_named(open_page: Open, shipped) -> None:
    workspace, runs = shipped
    with Owner.open(workspace) as owner:
        sql = "SELECT run_id FROM runs WHERE source = 'reported' LIMIT 1"
        (reported,) = there(owner.cursor().execute(sql).fetchone())
    app = open_page(workspace, "compare", run=["0000", runs["linear"], "failed00", reported, runs["adapter"]])
    (warning,) = app.warning
    assert "run=0000" in warning.value and "no such run" in warning.value
    assert "run=failed00" in warning.value and "“failed”" in warning.value
    assert "from the literature" in warning.value
    assert app.multiselect("compare.run").value == [runs["linear"], runs["adapter"]]


def test_more_runs_than_fit_are_told(open_page: Open, shipped) -> None:
    workspace, runs = shipped
    ids = [run_id for method, run_id in runs.items() if method != "selection"]
    app = open_page(workspace, "compare", run=ids)
    assert not app.exception and "names 7 runs" in app.warning[0].value
    assert app.multiselect("compare.run").value == ids[:6] and blocks.COMPARED == len(LETTERS) == 6


def test_without_a_choice_the_pick_is_beside_its_utility_adapter(open_page: Open, shipped) -> None:
    workspace, runs = shipped
    app = open_page(workspace, "compare")
    first, second = app.multiselect("compare.run").value
    assert not app.exception and first == runs["adapter"] and second not in (first, runs["selection"])


def test_an_emptied_choice_says_what_to_do_and_offers_an_example(open_page: Open, shipped) -> None:
    workspace, runs = shipped
    app = open_page(workspace, "compare")
    app.multiselect("compare.run").set_value([]).run()
    assert not app.exception and any("The first is the reference" in item.value for item in app.markdown)
    app.button("compare.example").click().run()
    assert not app.exception
    assert app.multiselect("compare.run").value[0] == runs["adapter"] and "**B**" in _key(app)


def test_runs_on_other_prompts_are_told_and_not_compared(open_page: Open, shipped) -> None:
    workspace, runs = shipped
    app = open_page(workspace, "compare", run=[runs["linear"], runs["selection"]])
    assert not app.exception
    assert "B answered the selection prompts of harmful, near\\_miss and facts" in app.warning[0].value
    assert any("no prompts in common" in item.value for item in app.markdown)
    assert not any("against A" in item.value for item in app.markdown)


def test_the_filter_leaves_the_prompts_that_only_one_refused_and_shows_a_few_at_once(open_page: Open, shipped) -> None:
    workspace, runs = shipped
    app = open_page(workspace, "compare", run=[runs["linear"], runs["adapter"]], show="only_first")
    assert not app.exception
    # resistance 25 of 64 against none
    assert any("Showing 25 of the 64 prompts" in item.value for item in app.caption)
    heads = [item.value for item in app.markdown if "-badge[" in item.value]
    assert heads == ["**A** :blue-badge[refused]", "**B** :orange-badge[not refused]"] * answers.PER_PAGE
    app.query_params["page"] = "3"
    app.run()
    assert len([item for item in app.markdown if "-badge[" in item.value]) == 2 * 5
    none = open_page(workspace, "compare", run=[runs["linear"], runs["adapter"]], show="only_second")
    assert any("Showing 0 of the 64 prompts" in item.value for item in none.caption)


def test_scores_that_moved_are_a_filter_of_utility_prompts_only(open_page: Open, shipped) -> None:
    workspace, runs = shipped
    both = [runs["adapter"], runs["linear"]]
    app = open_page(workspace, "compare", run=both, suite="facts", show="moved", moved="0.5")
    assert not app.exception and app.number_input("compare.moved").value == 0.5
    changes = [
        item.value.split("(")[1] for item in app.markdown if item.value.startswith("**B** ") and "(" in item.value
    ]
    values = [abs(float(change.rstrip(")"))) for change in changes if change[0] in "+-"]
    assert values and min(values) > 0.5 and values == sorted(values, reverse=True)
    app.selectbox("compare.suite").select("harmful").run()
    assert not app.exception and not app.number_input and app.query_params["show"] in ("differ", ["differ"])


def test_answers_are_text_whatever_is_in_them(open_page: Open, shipped) -> None:
    workspace, runs = shipped
    app = open_page(workspace, "compare", run=[runs["linear"], runs["adapter"]], show="all", q="onerror")
    assert not app.exception
    assert MARKUP in [item.value for item in app.text]
    assert not any("onerror" in item.value for item in [*app.markdown, *app.caption])


def test_a_judge_is_chosen_among_those_that_all_runs_share(open_page: Open, shipped) -> None:
    workspace, runs = shipped
    app = open_page(workspace, "compare", run=[runs["adapter"], runs["linear"]])
    assert app.selectbox("compare.judge").options == ["refusal_regex_v2", "advbench_strings"]
    first = _row(app, "Resistance", "B")
    app.selectbox("compare.judge").select("advbench_strings").run()
    assert not app.exception and _row(app, "Resistance", "B") != first
    assert any("Judge: advbench\\_strings." in item.value for item in app.caption)
    app = open_page(workspace, "compare", run=[runs["adapter"], runs["ties"]], judge="advbench_strings")
    assert not app.exception and "compare.judge" not in [box.key for box in app.selectbox]
    assert any("Judge: refusal\\_regex\\_v2." in item.value for item in app.caption)


def test_the_link_holds_the_whole_state(open_page: Open, shipped) -> None:
    workspace, runs = shipped
    app = open_page(workspace, "compare", run=[runs["adapter"], runs["linear"]])
    app.text_input("compare.q").set_value("moon").run()
    app.selectbox("compare.suite").select("facts").run()
    (address,) = [item.value for item in app.code if "compare?" in item.value]
    said = parse_qs(address.partition("?")[2])
    assert said["run"] == [runs["adapter"], runs["linear"]]
    assert (said["q"], said["suite"], said["judge"]) == (["moon"], ["facts"], ["refusal_regex_v2"])


def test_the_run_page_leads_to_the_comparison_with_its_reference(open_page: Open, shipped) -> None:
    workspace, runs = shipped
    found = _compare_links(open_page(workspace, "run", run=runs["linear"]))
    assert found == [(f"run={runs['adapter']}&run={runs['linear']}", False)]
    assert _compare_links(open_page(workspace, "run", run=runs["adapter"])) == []


def test_a_selection_on_the_pareto_page_leads_to_its_comparison(open_page: Open, shipped) -> None:
    workspace, runs = shipped
    both = [runs["linear"], runs["ties"]]
    app = open_page(workspace, "pareto", pair="A5_A7", run=both)
    ((query, disabled),) = _compare_links(app)
    assert sorted(parse_qs(query)["run"]) == sorted(both) and not disabled
    ((_, disabled),) = _compare_links(open_page(workspace, "pareto", pair="A5_A7", run=both[:1]))
    assert disabled
    ((query, _),) = _compare_links(open_page(workspace, "pareto", pair="A5_A7", goal="safety_first"))
    assert parse_qs(query)["run"][0] == runs["adapter"], "without a selection the card compares its pick with U"


def _key(app: AppTest) -> str:
    return next(item.value for item in app.markdown if item.value.startswith("- **A**"))


def _table(app: AppTest, field: str) -> str:
    return next(item.value for item in app.markdown if f"| {field} |" in item.value)


def _row(app: AppTest, measure: str, letter: str) -> str:
    heading = next(place for place, item in enumerate(app.markdown) if item.value.startswith(f"**{measure} "))
    return next(line for line in app.markdown[heading + 1].value.splitlines() if line.startswith(f"| **{letter}**"))


def _compare_links(app: AppTest) -> list[tuple[str, bool]]:
    links = [element.proto for element in app.get("page_link")]
    return [(link.query_string, link.disabled) for link in links if link.label.startswith("Compare")]


def _started(folder: Path) -> dict[str, object]:
    return {key: value for key, value in next(read_events(folder)).items() if key != "event"}


def _with_markup(workspace: Workspace, run_id: str) -> None:
    """Put markup into one answer of a run."""
    lines = list(read_events(workspace.run(run_id)))
    answered = next(line for line in lines if line["event"] == "samples" and line["suite"] == "harmful")
    answered["rows"][0]["response"] = MARKUP
    write_events(workspace.run(run_id), lines)


def _on_selection(workspace: Workspace, folder: Path) -> str:
    """A run as if it had been measured on the selection prompts; its id."""
    lines = list(read_events(folder))
    recipe = lines[0]["recipe"]
    for suite in recipe["evaluation"]["suites"]:
        suite["split"] = "selection"
    other = Recipe.model_validate(recipe).run_id
    lines[0] |= {"run_id": other, "recipe": recipe}
    write_events(workspace.run(other), lines)
    return other


def test_runs_are_found_by_words_in_any_order(open_page: Open, full_workspace: Workspace) -> None:
    app = open_page(full_workspace, "compare")
    everything = app.multiselect("compare.run").options
    app.text_input("compare.find").set_value("linear a5_a7").run()
    found = app.multiselect("compare.run").options
    assert not app.exception and 0 < len(found) < len(everything)
    kept = app.multiselect("compare.run").value
    assert sum("A5_A7" in name and "Linear" in name for name in found) >= len(found) - len(kept)
    app.text_input("compare.find").set_value("no such words").run()
    assert not app.exception and any("No run's name has all of these words" in item.value for item in app.caption)


def test_a_run_on_selection_prompts_brings_its_twin_on_test_prompts_at_a_press(open_page: Open, shipped) -> None:
    workspace, runs = shipped
    app = open_page(workspace, "compare", run=[runs["adapter"], runs["selection"]])
    app.button(f"compare.twin.{runs['selection']}").click().run()
    assert not app.exception
    assert app.multiselect("compare.run").value == [runs["adapter"], runs["selection"], runs["linear"]]
