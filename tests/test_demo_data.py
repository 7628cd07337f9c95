"""Properties that the bundled demo data promises (see data/demo/README.md)."""

import hashlib
import json
import re
from collections import Counter, defaultdict
from pathlib import Path

import pytest

DATA = Path(__file__).resolve().parents[1] / "data" / "demo"
SPLITS = ("train", "fisher", "selection", "test")
BASE_KEYS = ["id", "topic", "split", "prompt", "response"]
EXTRA_KEYS = {
    "harmful": ["category"],
    "near_miss": ["twin_of", "category"],
    "facts": ["fact_id", "entity"],
    "instructions": [],
}
FILES = tuple(EXTRA_KEYS)
BY_TOPIC = ("harmful", "near_miss", "instructions")
HARM_CATEGORIES = {
    "fraud",
    "hacking",
    "violence",
    "weapons",
    "drugs",
    "theft",
    "privacy",
    "hate",
    "selfharm",
    "disinfo",
}
REFUSAL = re.compile(
    r"\b(can't|cannot|won't|will not|will never|not able to|unable to|not willing|not going to"
    r"|refuse|decline|do not|don't|must say no|have to say no|rather not|out of the question"
    r"|not something I)\b|^(No|Sorry)\b|something I won't"
)


def _read(name):
    text = (DATA / f"{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


ROWS = {name: _read(name) for name in FILES}


def _normalise(text):
    return " ".join(text.casefold().split())


def _digest(text):
    return hashlib.sha256(_normalise(text).encode("utf-8")).hexdigest()


def _facts_by_id():
    facts = defaultdict(list)
    for row in ROWS["facts"]:
        facts[row["fact_id"]].append(row)
    return facts


@pytest.mark.parametrize("name", FILES)
def test_every_row_has_exactly_the_documented_keys_in_order(name):
    for row in ROWS[name]:
        assert list(row) == BASE_KEYS + EXTRA_KEYS[name], row["id"]
        assert all(isinstance(v, str) and v.strip() == v and v for v in row.values()), row["id"]


def test_every_id_is_unique_across_all_files():
    counts = Counter(row["id"] for name in FILES for row in ROWS[name])
    assert [i for i, n in counts.items() if n > 1] == []


@pytest.mark.parametrize("name", FILES)
def test_only_the_four_known_splits_occur_and_each_of_them_does(name):
    assert {row["split"] for row in ROWS[name]} == set(SPLITS)


def test_no_prompt_occurs_twice_and_so_none_is_in_two_splits():
    seen = {}
    for name in FILES:
        for row in ROWS[name]:
            digest = _digest(row["prompt"])
            assert digest not in seen, f"{row['id']} repeats the prompt of {seen[digest]}"
            seen[digest] = row["id"]


@pytest.mark.parametrize("name", BY_TOPIC)
def test_every_topic_lies_in_one_split_only(name):
    splits = defaultdict(set)
    for row in ROWS[name]:
        splits[row["topic"]].add(row["split"])
    assert {topic: s for topic, s in splits.items() if len(s) > 1} == {}


@pytest.mark.parametrize("name", FILES)
def test_there_are_at_least_64_test_rows(name):
    assert sum(row["split"] == "test" for row in ROWS[name]) >= 64


@pytest.mark.parametrize("name", FILES)
def test_every_response_is_non_empty_and_within_60_words(name):
    for row in ROWS[name]:
        assert 1 <= len(row["response"].split()) <= 60, row["id"]


def test_every_harmful_prompt_has_exactly_one_twin_in_the_same_split_and_topic():
    harmful = {row["id"]: row for row in ROWS["harmful"]}
    assert sorted(row["twin_of"] for row in ROWS["near_miss"]) == sorted(harmful)
    for row in ROWS["near_miss"]:
        twin = harmful[row["twin_of"]]
        for key in ("split", "topic", "category"):
            assert row[key] == twin[key], row["id"]


@pytest.mark.parametrize("name", ["harmful", "near_miss"])
def test_each_harm_category_occurs_in_each_split(name):
    pairs = {(row["category"], row["split"]) for row in ROWS[name]}
    assert pairs == {(category, split) for category in HARM_CATEGORIES for split in SPLITS}
    for row in ROWS[name]:
        assert row["topic"].split("/")[0] == row["category"], row["id"]


def test_every_harmful_response_reads_as_a_refusal_and_none_is_repeated():
    responses = [row["response"] for row in ROWS["harmful"]]
    assert [text for text in responses if not REFUSAL.search(text)] == []
    assert len(set(responses)) == len(responses)


def test_no_near_miss_response_opens_with_a_refusal():
    opener = re.compile(r"^(I'm sorry|Sorry,? but I|I can't|I cannot|I won't|I will not|No,)")
    assert [row["id"] for row in ROWS["near_miss"] if opener.search(row["response"])] == []


def test_every_fact_has_three_train_wordings_and_one_evaluation_wording_and_one_answer():
    facts = _facts_by_id()
    assert len(facts) == 240
    for fact_id, rows in facts.items():
        splits = Counter(row["split"] for row in rows)
        assert splits["train"] == 3 and len(rows) == 4, fact_id
        assert len({row["response"] for row in rows}) == 1, fact_id
        assert len({row["entity"] for row in rows}) == 1, fact_id


def test_the_evaluation_split_of_a_fact_is_decided_by_its_entity():
    splits = defaultdict(set)
    for row in ROWS["facts"]:
        if row["split"] != "train":
            splits[row["entity"]].add(row["split"])
    assert all(len(s) == 1 for s in splits.values())
    assert Counter(next(iter(s)) for s in splits.values()) == {
        "fisher": 16,
        "selection": 12,
        "test": 20,
    }


def test_every_fact_question_and_answer_names_its_entity_in_full():
    for row in ROWS["facts"]:
        assert row["topic"] == row["entity"], row["id"]
        assert row["entity"] in row["prompt"], row["id"]
        assert row["entity"] in row["response"], row["id"]


def test_the_instructions_cover_at_least_twelve_kinds():
    assert len({row["topic"].split("/")[0] for row in ROWS["instructions"]}) >= 12


def test_the_table_in_the_data_card_gives_the_true_row_counts():
    card = (DATA / "README.md").read_text(encoding="utf-8")
    for name in FILES:
        counts = Counter(row["split"] for row in ROWS[name])
        cells = [counts[split] for split in SPLITS] + [len(ROWS[name])]
        line = f"| `{name}.jsonl` | " + " | ".join(str(n) for n in cells) + " |"
        assert line in card, line
