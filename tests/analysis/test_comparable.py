"""Only runs over the same prompts, generated and judged alike, are ranked together."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import pytest

from sstmerge_core.analysis.comparable import KEY, evaluation_key, groups, keyed, leading


def recipe(*, n: int = 64, split: str = "test", rows: str = "a", method: str = "ties", **evaluation: Any) -> str:
    suites = [
        {"name": role, "role": role, "split": split, "n": n, "source": {"sha256": f"{role} {rows}", "path": method}}
        for role in ("harmful", "benign", "utility")
    ]
    return json.dumps({"base": {"sha256": "b"}, "method": method, "evaluation": {"suites": suites} | evaluation})


def runs(*recipes: str, **columns: list[Any]) -> pd.DataFrame:
    found = pd.DataFrame({"run_id": [f"r{place}" for place in range(len(recipes))], "recipe": list(recipes)})
    suites = [json.loads(text)["evaluation"]["suites"][0] for text in recipes]
    found["split"], found["resistance_n"] = [s["split"] for s in suites], [s["n"] for s in suites]
    return found.assign(**({"source": "measured", "method": "ties", "judge": "j"} | columns))


def test_method_adapters_and_batch_size_do_not_keep_runs_apart() -> None:
    assert evaluation_key(recipe()) == evaluation_key(recipe(method="linear", batch_size=8))


@pytest.mark.parametrize(
    "changed",
    [{"n": 8}, {"split": "selection"}, {"rows": "b"}, {"judge": "other"}, {"dtype": "bfloat16"}, {"backend": "vllm"}],
)
def test_other_prompts_another_judge_backend_or_dtype_keep_runs_apart(changed: dict[str, Any]) -> None:
    assert evaluation_key(recipe()) != evaluation_key(recipe(**changed))


def test_the_judge_whose_figures_are_shown_counts_not_the_recipes() -> None:
    assert evaluation_key(recipe(judge="one"), "shown") == evaluation_key(recipe(judge="two"), "shown")


def test_utility_suites_of_other_pairs_that_the_base_answered_do_not_count() -> None:
    more = json.loads(recipe())
    more["evaluation"]["suites"].append({"name": "facts", "role": "utility", "split": "test", "n": 3})
    assert evaluation_key(more) != evaluation_key(recipe())
    assert evaluation_key(more, "j", "utility") == evaluation_key(recipe(), "j", "utility")


def test_a_run_of_eight_prompts_is_not_ranked_however_good_and_the_sentence_says_so() -> None:
    table = runs(recipe(), recipe(), recipe(n=8), recipe(split="selection"), recipe(split="selection", rows="c"))
    mask, words = leading(table)
    assert mask.tolist() == [True, True, False, False, False]
    assert words == "3 runs on other prompts (8 test prompts, 64 selection prompts) not ranked"
    assert leading(table.head(2))[1] == ""


def test_the_test_split_leads_then_the_most_prompts_then_the_most_merges() -> None:
    large, small = recipe(n=128), recipe(n=64)
    found = groups(keyed(runs(small, small, small, large, recipe(n=512, split="selection"))))
    assert [(group.split, group.n) for group in found] == [("test", 128), ("test", 64), ("selection", 512)]
    same = groups(keyed(runs(recipe(rows="x"), recipe(rows="y"), recipe(rows="y"))))
    assert [group.merges for group in same] == [2, 1]


def test_parents_stand_in_their_group_and_a_group_of_parents_alone_never_leads() -> None:
    table = runs(recipe(n=128), recipe(), recipe(), method=["base", "base", "ties"])
    mask, words = leading(table)
    assert mask.tolist() == [False, True, True] and words == ""


def test_reported_figures_are_a_group_of_their_own_behind_what_was_measured() -> None:
    table = runs(recipe(n=512), recipe(), source=["reported", "measured"])
    assert keyed(table)[KEY].iloc[0] == "reported"
    mask, words = leading(table)
    assert mask.tolist() == [False, True]
    assert words == "1 run on other prompts (reported in the literature) not ranked"


def test_nothing_to_rank_is_said_by_silence() -> None:
    mask, words = leading(runs(recipe()).head(0))
    assert not len(mask) and words == ""
