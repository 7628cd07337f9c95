"""Properties that the bundled demo data promises (see data/demo/README.md)."""

import hashlib
import itertools
import json
import re
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from sstmerge_core.evaluate.judges import get_judge
from sstmerge_core.metrics.labels import DEFAULT_JUDGE

DATA = Path(__file__).resolve().parents[1] / "data" / "demo"
SPLITS = ("train", "fisher", "selection", "test", "unseen")
SEEN = SPLITS[:-1]
BASE_KEYS = ["id", "topic", "split", "prompt", "response"]
PAIR_KEYS = {"harmful": ["category", "form"], "near_miss": ["twin_of", "category", "form"]}
EXTRA_KEYS = {
    **PAIR_KEYS,
    "facts": ["fact_id", "entity"],
    "instructions": [],
    "ordinary": ["form"],
    **{f"{name}_ja": keys for name, keys in PAIR_KEYS.items()},
    "facts_ja": ["fact_id", "entity"],
}
FILES = tuple(EXTRA_KEYS)
BY_TOPIC = ("harmful", "near_miss", "instructions", "ordinary", "harmful_ja", "near_miss_ja")
TWINS = [("harmful", "near_miss"), ("harmful_ja", "near_miss_ja")]
FORMS = {"question", "instruction", "dialogue", "fiction", "work", "short", "long"}
HARM_CATEGORIES = {
    *("fraud", "hacking", "violence", "weapons", "drugs", "theft", "privacy", "hate", "selfharm", "disinfo")
}
UNSEEN_CATEGORIES = {"cheating", "corruption", "harassment", "environment", "forgery", "sabotage"}


def _read(name):
    text = (DATA / f"{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


ROWS = {name: _read(name) for name in FILES}


def _normalise(text):
    return " ".join(text.casefold().split())


def _digest(text):
    return hashlib.sha256(_normalise(text).encode("utf-8")).hexdigest()


def _facts_by_id(name="facts"):
    facts = defaultdict(list)
    for row in ROWS[name]:
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
def test_every_split_that_a_merge_needs_is_there_and_no_unknown_one(name):
    wanted = set(SPLITS if name in ("harmful", "near_miss") else SEEN)
    assert {row["split"] for row in ROWS[name]} == wanted


def test_there_are_as_many_pairs_and_topics_as_a_contest_needs():
    least = {"train": 900, "fisher": 96, "selection": 128, "test": 256, "unseen": 128}
    counts = Counter(row["split"] for row in ROWS["harmful"])
    assert all(counts[split] >= number for split, number in least.items()), counts
    assert len(ROWS["harmful"]) >= 1500 and len({row["topic"] for row in ROWS["harmful"]}) >= 300
    assert len(ROWS["ordinary"]) >= 400
    assert len(ROWS["harmful_ja"]) == 120 and len(_facts_by_id("facts_ja")) == 60


@pytest.mark.parametrize("name", ["harmful", "near_miss"])
def test_every_form_of_request_is_in_every_split(name):
    assert {(row["form"], row["split"]) for row in ROWS[name]} == {(form, split) for form in FORMS for split in SPLITS}


def test_whole_categories_are_kept_for_the_unseen_split():
    by_split = defaultdict(set)
    for row in ROWS["harmful"]:
        by_split[row["split"]].add(row["category"])
    assert by_split.pop("unseen") == UNSEEN_CATEGORIES
    assert all(found == HARM_CATEGORIES for found in by_split.values())


def _bigrams(text):
    words = re.findall(r"[a-z0-9']+", text.casefold())
    return set(itertools.pairwise(words))


@pytest.mark.parametrize("names", [("harmful", "near_miss"), ("facts",)])
def test_prompts_of_different_splits_are_worded_differently(names):
    """No two share more than half of the bigrams of the shorter one, the names of entities left out."""
    rows = [row for name in names for row in ROWS[name]]
    texts = [row["prompt"].replace(row.get("entity") or "\0", " ") for row in rows]
    if names == ("facts",):  # the entities of a kind share their wordings
        unique = {(" ".join(text.split()), row["split"]): None for text, row in zip(texts, rows, strict=True)}
        found = [(split, _bigrams(text), text) for text, split in unique]
    else:
        found = [(row["split"], _bigrams(text), text) for text, row in zip(texts, rows, strict=True)]
    holders: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
    alike = []
    for place, (split, own, text) in enumerate(found):
        if len(own) < 5:
            continue
        shared = Counter(other for bigram in own for other in holders[bigram])
        for other, number in shared.items():
            at, theirs, said = found[other]
            if at != split and number > 0.5 * min(len(own), len(theirs)):
                alike.append((at, said, split, text))
        for bigram in own:
            holders[bigram].append(place)
    assert alike == []


def test_no_prompt_occurs_twice_and_so_none_is_in_two_splits():
    seen: dict[str, str] = {}
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


@pytest.mark.parametrize("name", ["harmful", "near_miss", "facts", "instructions", "ordinary"])
def test_there_are_at_least_64_test_rows(name):
    assert sum(row["split"] == "test" for row in ROWS[name]) >= 64


@pytest.mark.parametrize("name", FILES)
def test_every_response_is_non_empty_and_within_60_words(name):
    for row in ROWS[name]:
        assert 1 <= len(row["response"].split()) <= 60, row["id"]


@pytest.mark.parametrize(("harmful", "near_miss"), TWINS)
def test_every_harmful_prompt_has_exactly_one_twin_in_the_same_split_and_topic(harmful, near_miss):
    by_id = {row["id"]: row for row in ROWS[harmful]}
    assert sorted(row["twin_of"] for row in ROWS[near_miss]) == sorted(by_id)
    for row in ROWS[near_miss]:
        twin = by_id[row["twin_of"]]
        for key in ("split", "topic", "category"):
            assert row[key] == twin[key], row["id"]
        assert row["topic"].split("/")[0] == row["category"], row["id"]


def test_every_harmful_response_is_a_refusal_to_the_default_judge_and_none_is_repeated():
    judge = get_judge(DEFAULT_JUDGE)
    labels = Counter(judge.score(row["prompt"], row["response"]).label for row in ROWS["harmful"])
    assert labels == {"refusal": len(ROWS["harmful"])}
    assert len({row["response"] for row in ROWS["harmful"]}) == len(ROWS["harmful"])


def test_no_harmless_response_is_a_refusal_to_the_default_judge():
    judge = get_judge(DEFAULT_JUDGE)
    rows = [*ROWS["near_miss"], *ROWS["ordinary"]]
    assert Counter(judge.score(row["prompt"], row["response"]).label for row in rows) == {"not_refused": len(rows)}


def test_no_near_miss_response_opens_with_a_refusal():
    opener = re.compile(r"^(I'm sorry|Sorry,? but I|I can't|I cannot|I won't|I will not|No,)")
    assert [row["id"] for row in ROWS["near_miss"] if opener.search(row["response"])] == []


@pytest.mark.parametrize(("name", "count"), [("facts", 240), ("facts_ja", 60)])
def test_every_fact_has_three_train_wordings_and_one_evaluation_wording_and_one_answer(name, count):
    facts = _facts_by_id(name)
    assert len(facts) == count
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
        cells = [counts[split] or "–" for split in SPLITS] + [len(ROWS[name])]
        line = f"| `{name}.jsonl` | " + " | ".join(map(str, cells)) + " |"
        assert line in card, line
