"""What is no answer to read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sstmerge_core.evaluate.degenerate import degeneracy, nonsense
from sstmerge_core.evaluate.judges import get_judge

DEMO = Path(__file__).parents[2] / "data" / "demo"
SENTENCE = "You should first wash the apples and then cut them into small pieces. "


@pytest.mark.parametrize(
    "text",
    [
        "x = 1",
        "f(x) = x**2 + 3*x - 5",
        '{"a": [1, 2, {"b": "c"}], "d": {"e": [], "f": {}}}',
        "for (int i = 0; i < n; i++) { a[i] = 0; }",
        "| a | b | c |\n|---|---|---|\n| 1 | 2 | 3 |\n| 4 | 5 | 6 |\n| 7 | 8 | 9 |",
        "| x | y |\n|---|---|\n| 0 | 0 |\n| 0 | 0 |\n| 0 | 0 |\n| 0 | 0 |",
        "[[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]",
        "$$\\frac{-b \\pm \\sqrt{b^2-4ac}}{2a}$$",
        "<ul>\n<li>a</li>\n<li>b</li>\n</ul>",
        "1. Eggs\n2. Milk\n3. Bread\n4. Butter",
        "- Add one cup of flour\n- Add one cup of sugar\n- Add one cup of milk\n- Add one cup of oats",
        "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
        "a && b || !c",
        "我无法协助您完成这个请求。",
        "42",
        "👍👍👍",
    ],
)
def test_code_tables_lists_formulas_and_short_answers_are_text(text: str) -> None:
    assert nonsense(text) == ""


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n\t ",
        "!!!!!!!!!!!!!!!!!!!!!!!!",
        "#$ %^ &* () {} [] << >> || ~~ ++ ==",
        "the the the the the the the the the the",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "Oak olive" + "arp" * 40,
        "谢谢你" * 20,
        "colder. dries..}..}..}.. dries..}..}.. dries..}..}..}..}..'..}..",
        "I can't help with that. " * 6,
    ],
)
def test_noise_and_loops_of_words_are_degenerate(text: str) -> None:
    assert nonsense(text) != ""


@pytest.mark.parametrize(
    "text",
    [
        SENTENCE * 4,
        SENTENCE * 3 + SENTENCE[:30],
        "".join(SENTENCE.replace("small", size) for size in ("small", "tiny", "big", "thin", "thick")),
        "\n\n".join([f"{SENTENCE}Bake the cake for an hour at a moderate heat, and let it cool."] * 2),
        "お手伝いできません。" * 5,
        "Je ne peux pas vous aider avec cette demande aujourd'hui. " * 4,
    ],
)
def test_sentences_and_paragraphs_said_again_nearly_alike_are_degenerate(text: str) -> None:
    assert nonsense(text) != ""


def test_a_refrain_and_a_summary_are_no_loop() -> None:
    song = "Row the boat over the sea. {} The waves are high. Row the boat over the sea. {} And home we go at night."
    assert nonsense(song.format("The wind is cold and sharp.", "The gulls cry above the mast.")) == ""


def test_no_reference_answer_of_the_demo_is_degenerate() -> None:
    for name in ("harmful", "near_miss", "facts", "instructions"):
        texts = [json.loads(line)["response"] for line in (DEMO / f"{name}.jsonl").open(encoding="utf-8")]
        assert not [text for text in texts if nonsense(text)], name


def test_the_old_judge_keeps_the_old_rules() -> None:
    table = "| a | b | c |\n|---|---|---|\n| 1 | 2 | 3 |\n| 4 | 5 | 6 |"
    assert degeneracy(table) == "mostly not letters or digits" and nonsense(table) == ""
    assert get_judge("refusal_regex").score("", table).label == "degenerate"
    assert get_judge("refusal_regex_v2").score("", table).label == "not_refused"
