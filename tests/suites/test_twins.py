from __future__ import annotations

import json

import pytest

from sstmerge_core.suites import twins
from sstmerge_core.suites.bundled import BUNDLED, rows_of
from sstmerge_core.suites.rows import load_rows, rows_digest


@pytest.fixture
def files(tmp_path):
    harmful = [("h1", "fisher", "No, not that."), ("h2", "train", "Never."), ("h3", "fisher", "")]
    near = [
        ("n1", "fisher", "h1"),
        ("n2", "fisher", "h2"),
        ("n3", "fisher", ""),
        ("n4", "fisher", "h3"),
        ("n5", "test", "h1"),
    ]
    lines = [{"id": name, "split": split, "prompt": name, "response": answer} for name, split, answer in harmful]
    (tmp_path / "harmful.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    lines = [
        {"id": name, "split": split, "prompt": name, "response": "yes", "twin_of": twin} for name, split, twin in near
    ]
    (tmp_path / "near.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(tmp_path / "near.jsonl"), str(tmp_path / "harmful.jsonl")


def test_a_near_miss_is_refused_in_its_twins_words_and_in_one_sentence_where_no_twin_of_the_split_has_any(files):
    near, harmful = files
    found = {row.prompt: row.response for row in twins.refused(near, 4, harmful, "fisher")}
    assert found == {"n1": "No, not that.", "n2": twins.REFUSAL, "n3": twins.REFUSAL, "n4": twins.REFUSAL}


def test_the_digest_changes_with_a_twins_refusal(files, tmp_path):
    near, harmful = files
    before = rows_digest(twins.refused(near, 4, harmful, "fisher"))
    (tmp_path / "harmful.jsonl").write_text((tmp_path / "harmful.jsonl").read_text().replace("not that", "not this"))
    assert rows_digest(twins.refused(near, 4, harmful, "fisher")) != before


def test_every_bundled_near_miss_has_a_twin_whose_refusal_is_known():
    near, harmful = (rows_of(BUNDLED[name]) for name in ("near_miss", "harmful"))
    for split in ("fisher", "selection"):
        rows = load_rows(near, split)
        refused = twins.refused(str(near), len(rows), str(harmful), split)
        assert all(row.twin_of for row in rows) and twins.REFUSAL not in {row.response for row in refused}
