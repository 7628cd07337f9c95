"""How many files browsers may send, and how many queries are answered at once."""

from __future__ import annotations

import threading

import pytest

from sstmerge_core.errors import AccessError, StoreError
from sstmerge_core.store import Owner, run_sql, sandbox
from sstmerge_core.workspace import Workspace
from studio import uploads


def test_files_are_counted_by_visitor_once_however_often_a_page_is_drawn():
    counter, (files, _) = uploads.Counter(), uploads.EACH
    for _ in range(3):
        assert counter.take("ada", "the same", 1, 0.0) is None
    for number in range(files - 1):
        assert counter.take("ada", f"f{number}", 1, 1.0) is None
    assert "of yours" in (counter.take("ada", "one more", 1, 2.0) or "")
    assert counter.take("bob", "f0", 1, 2.0) is None
    assert counter.take("ada", "one more", 1, 2.0 + uploads.SPAN) is None, "an hour later there is room again"


def test_bytes_are_limited_for_one_and_for_all():
    counter = uploads.Counter()
    _, most = uploads.EACH
    assert counter.take("ada", "a", most, 0.0) is None
    assert "of yours" in (counter.take("ada", "b", 1, 0.0) or "")
    _, in_all = uploads.ALL
    said = [counter.take(f"v{number}", "a", most, 0.0) for number in range(in_all // most)]
    assert said[:-1] == [None] * (len(said) - 1) and "of all visitors" in (said[-1] or "")


def test_who_is_refused_counts_nothing_and_leaves_no_names_behind():
    counter = uploads.Counter()
    for number in range(1000):
        counter.take(f"tab {number}", "f", 1, float(number * uploads.SPAN * 2))
    assert len(counter._sent) == 2


def test_a_file_that_is_too_large_is_named_with_what_to_do():
    class File:
        name, size, file_id = "big.csv", 11, "f"

    with pytest.raises(AccessError, match=r"big\.csv: is larger than 10 bytes"):
        uploads.accept(File(), largest=10)


def test_queries_at_once_are_limited_with_a_message_and_a_place_is_given_back(tmp_path, monkeypatch):
    workspace = Workspace(tmp_path)
    with Owner.open(workspace) as owner:
        owner.publish()
    started, go = threading.Barrier(sandbox.AT_ONCE + 1), threading.Event()

    def slow(request: dict[str, object], timeout: float) -> dict[str, object]:
        if request["sql"] == "SELECT 1":
            started.wait(20)
            go.wait(20)
        return {"columns": ["x"], "types": ["INTEGER"], "rows": [[1]], "truncated": False}

    monkeypatch.setattr(sandbox, "_ask", slow)
    monkeypatch.setattr(sandbox, "PATIENCE", 0.05)
    threads = [threading.Thread(target=run_sql, args=(workspace, "SELECT 1")) for _ in range(sandbox.AT_ONCE)]
    for thread in threads:
        thread.start()
    started.wait(20)
    try:
        with pytest.raises(StoreError, match="4 queries are being answered already"):
            run_sql(workspace, "SELECT 2")
    finally:
        go.set()
        for thread in threads:
            thread.join()
    assert run_sql(workspace, "SELECT 2").rows == [(1,)]


def test_a_query_that_fails_gives_its_place_back(tmp_path):
    workspace = Workspace(tmp_path)
    with Owner.open(workspace) as owner:
        owner.publish()
    for _ in range(sandbox.AT_ONCE + 1):
        with pytest.raises(StoreError, match="nothing"):
            run_sql(workspace, "SELECT * FROM nothing")
