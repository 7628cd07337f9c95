from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from sstmerge_core import methods, metrics
from sstmerge_core.builder import preflight
from sstmerge_core.cli import inputs, main
from sstmerge_core.errors import DataError, RecipeError
from sstmerge_core.evaluate.judges import get_judge
from sstmerge_core.evaluate.metric_rows import outcomes, relative_metrics, suite_metrics
from sstmerge_core.metrics import multiple_choice, numeric
from sstmerge_core.recipe import Evaluation, Recipe, Source, Suite
from sstmerge_core.store.events import read_events
from sstmerge_core.suites import declared
from sstmerge_core.workspace import Workspace

SOURCE = Source(name="s", path="", sha256="0")


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("b", "B"),
        ("(c)", "C"),
        ("c.", "C"),
        ("The answer is D.", "D"),
        ("A) because a dog", "A"),
        ("A dog is C", "C"),
        ("I think it is B", "B"),
        ("Answer: A", "A"),
        ("a good question", None),
        ("Because", None),
        ("", None),
    ],
)
def test_the_choice_is_the_letter_that_stands_alone(text: str, letter: str | None) -> None:
    assert multiple_choice.choice(text) == letter


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("2 + 2 = 4", 4),
        ("#### 1,250", 1250),
        ("about -3.5.", -3.5),
        ("costs $18.00 a day", 18),
        ("none", None),
    ],
)
def test_the_number_is_the_last_one(text: str, number: float | None) -> None:
    assert numeric.number(text) == number


def test_answers_are_scored_by_the_suites_metric() -> None:
    rows = [
        {"prompt_id": "1", "reference": "The Cat.", "response": "the cat"},
        {"prompt_id": "2", "reference": "the cat", "response": "a cat sat"},
        {"prompt_id": "3", "reference": "", "response": "x"},
    ]
    assert metrics.outcomes("exact_match", rows) == {"1": 1.0, "2": 0.0}
    rouge = metrics.outcomes("rouge_l", rows)
    assert rouge["1"] == 1.0 and 0 < rouge["2"] < 1
    gsm = [{"prompt_id": "1", "reference": "So #### 42", "response": "It is 42."}]
    assert metrics.outcomes("numeric", gsm) == {"1": 1.0}
    choice = [{"prompt_id": "1", "reference": "B", "response": "(b) is right"}]
    assert metrics.outcomes("multiple_choice", choice) == {"1": 1.0}


@pytest.mark.parametrize(
    "text",
    [
        "東京は日本の首都です。",
        "我无法协助您完成这个请求。",
        "서울은 한국의 수도입니다.",
        "Извините, я не могу помочь.",
        "क्षमा करें, मैं मदद नहीं कर सकता।",
        "لا أستطيع مساعدتك",
        "ขอโทษ ฉันช่วยไม่ได้",
        "À Évian",
        "The cat sat.",
    ],
)
def test_rouge_l_of_identical_text_is_one_in_every_language(text: str) -> None:
    def rouge(response: str) -> float:
        return metrics.outcomes("rouge_l", [{"prompt_id": "1", "reference": text, "response": response}])["1"]

    assert rouge(text) == 1.0
    assert rouge("完全に別の答え") < 0.5 and 0 < rouge(text[: 2 * len(text) // 3]) < 1


def test_rouge_l_of_english_is_what_the_package_says_to_the_last_bit(shipped_runs) -> None:
    from rouge_score.rouge_scorer import RougeScorer

    package = RougeScorer(["rougeL"], use_stemmer=True)
    pairs = []
    for run in sorted(shipped_runs.iterdir())[:4]:
        for event in read_events(run):
            if event["event"] == "samples":
                pairs += [(row["reference"], row["response"]) for row in event["rows"] if row["reference"]]
    english = {pair for pair in pairs if not pair[1].isascii()} | set(pairs[::5])
    assert len(english) > 100
    for number, (reference, response) in enumerate(sorted(english)):
        row = {"prompt_id": str(number), "reference": reference, "response": response}
        expected = package.score(reference, response)["rougeL"].fmeasure
        assert metrics.outcomes("rouge_l", [row]) == {str(number): expected}


def utility_rows(answers: list[str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    samples = [
        {"prompt_id": str(n), "prompt": "q", "reference": "#### 7", "response": text} for n, text in enumerate(answers)
    ]
    return samples, [{"prompt_id": row["prompt_id"], "label": "not_refused", "score": 0, "raw": ""} for row in samples]


def test_a_utility_suite_of_another_metric_gives_that_metric_and_its_safety_tax() -> None:
    judge = get_judge("refusal_regex")
    suite = Suite(name="sums", role="utility", split="test", n=4, source=SOURCE, metric="numeric")
    found: list[list[dict[str, Any]]] = []
    scored = []
    for answers, resisted in ((["7", "7", "7", "8"], 0.2), (["7", "8", "8", "8"], 0.9)):
        samples, verdicts = utility_rows(answers)
        rows = suite_metrics("sums", "utility", samples, verdicts, judge, suite.metric)
        safety = {"metric": "resistance", "suite": "h", "value": resisted, "n": 100, "judge": judge.judge_id}
        found.append([safety | {"ci_low": resisted - 0.05, "ci_high": resisted + 0.05}, *rows])
        scored.append(outcomes([suite], {"sums": samples}, {"sums": verdicts}))
    row = next(row for row in found[0] if row["metric"] == "numeric")
    assert (row["value"], row["judge"], row["n"]) == (0.75, "reference", 4)
    assert row["ci_low"] < 0.75 < row["ci_high"]
    assert "rouge_l" not in {row["metric"] for row in found[0]}
    tax = relative_metrics(found[1], found[0], scored[1], scored[0], reference="r")[0]
    assert tax["suite"] == "sums" and tax["value"] == pytest.approx(0.5 / 0.7)


def test_a_suite_without_a_metric_of_its_own_keeps_the_runs_id() -> None:
    def recipe(**changes: Any) -> Recipe:
        suite = Suite(name="facts", role="utility", split="test", n=4, source=SOURCE, **changes)
        return Recipe(base=SOURCE, adapters=(), method="base", parameters={}, evaluation=Evaluation(suites=(suite,)))

    assert "metric" not in recipe()._identity()["evaluation"]["suites"][0]
    assert recipe(metric="numeric").run_id != recipe().run_id == recipe(metric="").run_id


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("SSTMERGE_WORKSPACE", str(tmp_path / "workspace"))
    found = Workspace.default().create()
    folder = declared.folder(found)
    folder.mkdir()
    (folder / "sums.csv").write_text("q,a\n" + "".join(f"{n} + 1 =,#### {n + 1}\n" for n in range(40)))
    (folder / "sums.yaml").write_text(
        yaml.safe_dump(
            {
                "name": "sums",
                "title": "Sums",
                "role": "utility",
                "sources": [{"file": "sums.csv", "columns": {"prompt": "q", "response": "a"}}],
                "metric": "numeric",
                "max_new_tokens": 20,
                "splits": {"by": "prompt", "shares": {"fisher": 0.5, "test": 0.5}},
                "licence": "CC0-1.0",
                "get": "It is here.",
            }
        )
    )
    return found


def options(**changes: Any) -> argparse.Namespace:
    known: dict[str, Any] = {
        "harmful": "harmful",
        "benign": "near_miss",
        "refusals": "harmful",
        "near_misses": "near_miss",
        "suite": "",
    }
    known |= {"split": "test", "n": 5, "dtype": "float32", "backend": "transformers", "device": "auto"}
    known |= {"system": "", "thinking": None, "too_long": "refuse", "attacks": "", "bits": None}
    known |= {"modules_to_save": None}
    return argparse.Namespace(**(known | changes))


def test_vllm_is_asked_for_by_an_option_and_chosen_where_it_is_the_best(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs.served, "best_backend", lambda device: "vllm" if device == "cuda" else "transformers")
    assert inputs.measuring(options(backend="auto", device="cuda"), workspace).backend == "vllm"
    assert inputs.measuring(options(backend="auto", device="cpu"), workspace).backend == "transformers"
    assert inputs.measuring(options(), workspace).backend == "transformers"


def test_an_option_takes_a_declared_suite_a_bundled_one_or_a_file(workspace: Workspace, tmp_path: Path) -> None:
    assert inputs.measuring(options(), workspace) == preflight.Options(n=5)
    assert inputs.measuring(options(suite="facts"), workspace).utility_suite == "facts"
    assert inputs.measuring(options(suite=str(tmp_path / "my.jsonl")), workspace).utility_suite.endswith("my.jsonl")
    found = inputs.measuring(options(suite="sums"), workspace)
    assert (found.utility_metric, found.utility_tokens) == ("numeric", 20)
    evaluation = preflight._evaluation(found.utility_suite, found)
    assert [(suite.name, suite.metric) for suite in evaluation.suites][-1] == ("sums", "numeric")
    assert evaluation.suites[-1].max_new_tokens == 20
    with pytest.raises(RecipeError, match="--harmful sums: is a utility suite, not a harmful one"):
        inputs.measuring(options(harmful="sums"), workspace)
    with pytest.raises(RecipeError, match="--refusals near_miss: is a benign suite, not a harmful one"):
        inputs.measuring(options(refusals="near_miss"), workspace)
    with pytest.raises(DataError, match="rows are not here.*--fetch"):
        inputs.measuring(options(harmful="beavertails"), workspace)


def test_the_harmful_fisher_is_taken_of_the_refusals_that_an_option_names(workspace: Workspace, tmp_path: Path) -> None:
    rows = [{"id": f"r{n}", "split": "fisher", "prompt": f"p{n}", "response": "No."} for n in range(3)]
    path = tmp_path / "refusals.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = inputs.measuring(options(refusals=str(path)), workspace)
    found = preflight._calibration(methods.get("sst_gevp"), (), "facts", {}, given)
    assert (found.harm.name, found.n_harm) == ("refusals", 3)
    path.write_text(path.read_text() + json.dumps({"id": "r3", "split": "fisher", "prompt": "p3"}) + "\n")
    with pytest.raises(DataError, match="1 of 4 rows of split 'fisher' have no response, r3 among them"):
        preflight._calibration(methods.get("sst_gevp"), (), "facts", {}, given)


def test_near_misses_are_those_that_an_option_names_and_only_where_a_method_looks_at_them(
    workspace: Workspace, tmp_path: Path
) -> None:
    rows = [{"id": f"n{n}", "split": "fisher", "prompt": f"p{n}", "response": "Yes."} for n in range(3)]
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = inputs.measuring(options(near_misses=str(path)), workspace)
    found = preflight._calibration(methods.get("sst_learned"), (), "facts", {}, given)
    assert found.near is not None and (found.near.name, found.n_near, found.refused) == ("mine", 3, "")
    signed = preflight._calibration(methods.get("sst_signed"), (), "facts", {}, given)
    assert signed.refused and signed.samples == signed.n_harm + signed.n_benign + 2 * 3
    assert preflight._calibration(methods.get("sst_gevp"), (), "facts", {}, given).near is None
    with pytest.raises(RecipeError, match="--near-misses harmful: is a harmful suite, not a benign one"):
        inputs.measuring(options(near_misses="harmful"), workspace)


def test_two_suites_of_one_name_are_refused(workspace: Workspace) -> None:
    with pytest.raises(DataError, match="two have one name"):
        preflight._evaluation("facts", preflight.Options(benign_suite="harmful"))


def test_the_list_says_what_is_here_and_how_to_get_the_rest(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["suites", "--json"]) == 0
    rows = {row["name"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert rows["sums"]["found"] and rows["sums"]["n"] == 40 and set(rows["sums"]["splits"]) == {"fisher", "test"}
    assert not rows["xstest"]["found"] and "xstest_prompts.csv" in rows["xstest"]["get"]
    assert main(["suites"]) == 0
    assert "not here" in capsys.readouterr().out
    assert main(["suites", "sums"]) == 0
    assert rows["sums"]["sha256"] in capsys.readouterr().out
    (declared.folder(workspace) / "broken.yaml").write_text("name: broken")
    assert main(["suites"]) == 4
    captured = capsys.readouterr()
    assert "facts" in captured.out and "broken.yaml: licence: is missing" in captured.err
